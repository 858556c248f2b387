//! The functions of a script on the wire, on the constant `wire`.

use std::rc::Rc;
use std::time::Duration;

use rhai::{Array, Engine, EvalAltResult};

use super::ScriptContext;
use super::failure::{bad, small};

type Answer<T> = Result<T, Box<EvalAltResult>>;

/// The wire of the current machine.
#[derive(Clone)]
pub(super) struct WireHandle;

fn pair(from: i64, to: i64) -> Answer<(u32, u32)> {
    Ok((small("CPU", from)?, small("CPU", to)?))
}

fn place(nth: i64) -> Answer<usize> {
    usize::try_from(nth).map_err(|_| bad("IPIs on the wire are counted from 0".to_owned()))
}

pub(super) fn register(engine: &mut Engine, context: &Rc<ScriptContext>) {
    engine.register_type_with_name::<WireHandle>("Wire");
    let on = |context: &Rc<ScriptContext>| Rc::clone(context);

    let s = on(context);
    engine.register_fn(
        "hold",
        move |_: WireHandle, from: i64, to: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(s.operator()?.wire_hold(from, to)?)
        },
    );
    let s = on(context);
    engine.register_fn("hold_all", move |_: WireHandle| -> Answer<()> {
        s.operator()?.wire_hold_all();
        Ok(())
    });
    let s = on(context);
    engine.register_fn(
        "delay",
        move |_: WireHandle, from: i64, to: i64, milliseconds: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            let milliseconds = small("number of milliseconds", milliseconds)?;
            let delay = Duration::from_millis(milliseconds.into());
            Ok(s.operator()?.wire_delay(from, to, delay)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "release",
        move |_: WireHandle, from: i64, to: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(s.operator()?.wire_release(from, to)?)
        },
    );
    let s = on(context);
    engine.register_fn("release_all", move |_: WireHandle| -> Answer<()> {
        Ok(s.operator()?.wire_release_all()?)
    });
    let s = on(context);
    engine.register_fn(
        "deliver",
        move |_: WireHandle, from: i64, to: i64, nth: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(s.operator()?.wire_deliver(from, to, place(nth)?)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "lose",
        move |_: WireHandle, from: i64, to: i64, nth: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(s.operator()?.wire_lose(from, to, place(nth)?)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "wait_held",
        move |_: WireHandle, from: i64, to: i64, count: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            let wait = s.wait();
            Ok(s.operator()?
                .wait_in_flight(from, to, place(count)?, wait)?)
        },
    );
    let s = on(context);
    engine.register_fn("in_flight", move |_: WireHandle| -> Answer<Array> {
        let all = s.operator()?.in_flight();
        Ok(all.iter().map(|it| it.to_string().into()).collect())
    });
}
