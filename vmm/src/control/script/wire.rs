//! The functions of a script on the wire, on the constant `wire`. Which IPIs a function is about, a
//! script says by the name of a vector, or by a call.

use std::rc::Rc;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, EvalAltResult, NativeCallContext};
use shared::ledger::CallId;

use super::ScriptContext;
use super::deed_handle::DeedHandle;
use super::failure::{bad, small};
use crate::control::operator::{Operator, Selection};

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

/// Which of the IPIs in flight is meant: a number alone counts all of them, and a name alone means
/// the first.
fn nth(operator: &Operator, which: &Dynamic) -> Answer<(Option<Selection>, usize)> {
    match which.as_int() {
        Ok(nth) => Ok((None, place(nth)?)),
        Err(_) => Ok((Some(named(operator, which)?), 0)),
    }
}

pub(super) fn register(engine: &mut Engine, context: &Rc<ScriptContext>) {
    engine.register_type_with_name::<WireHandle>("Wire");
    register_rules(engine, context);
    register_releases(engine, context);
    register_in_flight(engine, context);
}

/// What becomes of IPIs that are still to be sent.
fn register_rules(engine: &mut Engine, context: &Rc<ScriptContext>) {
    let s = Rc::clone(context);
    engine.register_fn(
        "hold",
        move |call: NativeCallContext, _: WireHandle, from: i64, to: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(s.act(&call)?.wire_hold(from, to, Selection::default())?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "hold",
        move |call: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&call)?);
            let which = named(&operator, &which)?;
            Ok(operator.wire_hold(from, to, which)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "hold_all",
        move |call: NativeCallContext, _: WireHandle| -> Answer<()> {
            Ok(s.act(&call)?.wire_hold_all(Selection::default())?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "hold_all",
        move |call: NativeCallContext, _: WireHandle, which: Dynamic| -> Answer<()> {
            let operator = s.act(&call)?;
            let which = named(&operator, &which)?;
            Ok(operator.wire_hold_all(which)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "delay",
        move |call: NativeCallContext, _: WireHandle, from: i64, to: i64, ms: i64| {
            delay(&*s.act(&call)?, from, to, ms, None)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "delay",
        move |call: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              ms: i64,
              which: Dynamic| { delay(&*s.act(&call)?, from, to, ms, Some(&which)) },
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

/// What becomes of IPIs that are held.
fn register_releases(engine: &mut Engine, context: &Rc<ScriptContext>) {
    let s = Rc::clone(context);
    engine.register_fn(
        "release",
        move |call: NativeCallContext, _: WireHandle, from: i64, to: i64| -> Answer<()> {
            let (from, to) = pair(from, to)?;
            Ok(s.act(&call)?.wire_release(from, to, None)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "release",
        move |call: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&call)?);
            let which = named(&operator, &which)?;
            Ok(operator.wire_release(from, to, Some(which))?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "release_all",
        move |call: NativeCallContext, _: WireHandle| -> Answer<()> {
            Ok(s.act(&call)?.wire_release_all(None)?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "release_all",
        move |call: NativeCallContext, _: WireHandle, which: Dynamic| -> Answer<()> {
            let operator = s.act(&call)?;
            let which = named(&operator, &which)?;
            Ok(operator.wire_release_all(Some(which))?)
        },
    );
    for (name, verb) in [
        ("deliver", Operator::wire_deliver as TakeVerb),
        ("lose", Operator::wire_lose),
    ] {
        let s = Rc::clone(context);
        engine.register_fn(
            name,
            move |call: NativeCallContext,
                  _: WireHandle,
                  from: i64,
                  to: i64,
                  which: Dynamic|
                  -> Answer<()> {
                let ((from, to), operator) = (pair(from, to)?, s.act(&call)?);
                let (which, nth) = nth(&operator, &which)?;
                Ok(verb(&operator, from, to, which, nth)?)
            },
        );
        let s = Rc::clone(context);
        engine.register_fn(
            name,
            move |call: NativeCallContext,
                  _: WireHandle,
                  from: i64,
                  to: i64,
                  which: Dynamic,
                  nth: i64|
                  -> Answer<()> {
                let ((from, to), operator) = (pair(from, to)?, s.act(&call)?);
                let which = named(&operator, &which)?;
                Ok(verb(&operator, from, to, Some(which), place(nth)?)?)
            },
        );
    }
}

/// A verb of the operator that takes one IPI off the wire.
type TakeVerb = fn(
    &Operator,
    u32,
    u32,
    Option<Selection>,
    usize,
) -> Result<(), crate::control::operator::OperatorError>;

/// What is in flight.
fn register_in_flight(engine: &mut Engine, context: &Rc<ScriptContext>) {
    let s = Rc::clone(context);
    engine.register_fn(
        "wait_held",
        move |call: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&call)?);
            let (which, count) = match which.as_int() {
                Ok(count) => (None, place(count)?),
                Err(_) => (Some(named(&operator, &which)?), 1),
            };
            Ok(operator.wait_in_flight(from, to, which, count, s.wait())?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "wait_held",
        move |call: NativeCallContext,
              _: WireHandle,
              from: i64,
              to: i64,
              which: Dynamic,
              count: i64|
              -> Answer<()> {
            let ((from, to), operator) = (pair(from, to)?, s.act(&call)?);
            let which = named(&operator, &which)?;
            Ok(operator.wait_in_flight(from, to, Some(which), place(count)?, s.wait())?)
        },
    );
    let s = Rc::clone(context);
    engine.register_fn(
        "in_flight",
        move |call: NativeCallContext, _: WireHandle| -> Answer<Array> {
            let all = s.act(&call)?.in_flight();
            Ok(all.iter().map(|it| it.to_string().into()).collect())
        },
    );
}
