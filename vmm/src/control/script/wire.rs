//! The functions of a script on the wire, on the constant `wire`. Which IPIs a function is about, a
//! script says by the name of a vector, or by a call.

use std::rc::Rc;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, EvalAltResult, NativeCallContext};
use shared::ledger::CallId;

use super::ScriptContext;
use super::deed_handle::DeedHandle;
use super::failure::{bad, small};
use crate::control::operator::{Operator, OperatorError, Selection};

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

/// The IPIs that a script names: a string, or a deed that has made a call.
fn named(operator: &Operator, which: &Dynamic) -> Answer<Selection> {
    if let Some(deed) = which.clone().try_cast::<DeedHandle>() {
        return Ok(Selection::Call(CallId::from_raw(deed.id()?)));
    }
    let kind = which.type_name();
    let name = which.clone().into_string().map_err(|_| {
        bad(format!(
            "IPIs are named by a vector, such as \"0xf3\", or by a call, and not by a {kind}"
        ))
    })?;
    Ok(operator.ipis_named(&name)?)
}

pub(super) fn register(engine: &mut Engine, context: &Rc<ScriptContext>) {
    engine.register_type_with_name::<WireHandle>("Wire");
    register_on_pair(engine, context, "hold", |operator, from, to, which| {
        operator.wire_hold(from, to, which.unwrap_or_default())
    });
    register_on_all(engine, context, "hold_all", |operator, which| {
        operator.wire_hold_all(which.unwrap_or_default())
    });
    register_delay(engine, context);
    register_on_pair(engine, context, "release", Operator::wire_release);
    register_on_all(engine, context, "release_all", Operator::wire_release_all);
    register_counted(
        engine,
        context,
        "deliver",
        0,
        |_, operator, from, to, which, nth| operator.wire_deliver(from, to, which, nth),
    );
    register_counted(
        engine,
        context,
        "lose",
        0,
        |_, operator, from, to, which, nth| operator.wire_lose(from, to, which, nth),
    );
    register_counted(
        engine,
        context,
        "wait_held",
        1,
        |s, operator, from, to, which, count| {
            operator.wait_in_flight(from, to, which, count, s.wait())
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "in_flight",
        move |at: NativeCallContext, _: WireHandle| -> Answer<Array> {
            let all = s.act(&at)?.in_flight();
            Ok(all.iter().map(|it| it.to_string().into()).collect())
        },
    );
}

type Done = Result<(), OperatorError>;

/// `name(from, to)` is about all IPIs from one CPU to another, `name(from, to, which)` about some.
fn register_on_pair(
    engine: &mut Engine,
    context: &Rc<ScriptContext>,
    name: &'static str,
    verb: fn(&Operator, u32, u32, Option<Selection>) -> Done,
) {
    let s = Rc::clone(context);
    engine.register_fn(
        name,
        move |at: NativeCallContext, _: WireHandle, from: i64, to: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(verb(&*s.act(&at)?, from, to, None)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        name,
        move |at: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&at)?);
            let which = named(&operator, &which)?;
            Ok(verb(&operator, from, to, Some(which))?)
        },
    );
}

/// `name()` is about all IPIs, `name(which)` about some.
fn register_on_all(
    engine: &mut Engine,
    context: &Rc<ScriptContext>,
    name: &'static str,
    verb: fn(&Operator, Option<Selection>) -> Done,
) {
    let s = Rc::clone(context);
    engine.register_fn(
        name,
        move |at: NativeCallContext, _: WireHandle| -> Answer<()> {
            Ok(verb(&*s.act(&at)?, None)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        name,
        move |at: NativeCallContext, _: WireHandle, which: Dynamic| -> Answer<()> {
            let operator = s.act(&at)?;
            let which = named(&operator, &which)?;
            Ok(verb(&operator, Some(which))?)
        },
    );
}

/// A verb that takes a number, by which it tells IPIs in flight apart or counts them.
type Counted = fn(&ScriptContext, &Operator, u32, u32, Option<Selection>, usize) -> Done;

/// `name(from, to, number)` counts all IPIs from one CPU to another, `name(from, to, which, number)`
/// some of them, and `name(from, to, which)` has the number `default`.
fn register_counted(
    engine: &mut Engine,
    context: &Rc<ScriptContext>,
    name: &'static str,
    default: usize,
    verb: Counted,
) {
    let s = Rc::clone(context);
    engine.register_fn(
        name,
        move |at: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&at)?);
            let (which, number) = match which.as_int() {
                Ok(number) => (None, place(number)?),
                Err(_) => (Some(named(&operator, &which)?), default),
            };
            Ok(verb(&s, &operator, from, to, which, number)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        name,
        move |at: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic,
              number: i64|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&at)?);
            let which = named(&operator, &which)?;
            Ok(verb(&s, &operator, from, to, Some(which), place(number)?)?)
        },
    );
}

fn register_delay(engine: &mut Engine, context: &Rc<ScriptContext>) {
    let s = Rc::clone(context);
    engine.register_fn(
        "delay",
        move |at: NativeCallContext, _: WireHandle, from: i64, to: i64, ms: i64| {
            delay(&*s.act(&at)?, from, to, ms, None)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "delay",
        move |at: NativeCallContext, _: WireHandle, from: i64, to: i64, ms: i64, which: Dynamic| {
            delay(&*s.act(&at)?, from, to, ms, Some(&which))
        },
    );
}

fn delay(
    operator: &Operator,
    from: i64,
    to: i64,
    milliseconds: i64,
    which: Option<&Dynamic>,
) -> Answer<()> {
    let (from, to) = pair(from, to)?;
    let milliseconds = small("number of milliseconds", milliseconds)?;
    let which = which.map(|which| named(operator, which)).transpose()?;
    let delay = Duration::from_millis(milliseconds.into());
    Ok(operator.wire_delay(from, to, which.unwrap_or_default(), delay)?)
}
