//! The functions of a script on the machine as a whole, and those by which it expects something.

use std::rc::Rc;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, EvalAltResult, Map, NativeCallContext};

use super::failure::{bad, small, unmet};
use super::{BootRequest, ScriptContext};
use crate::closest::did_you_mean;
use crate::control::operator::Wait;
use crate::cpus::CpuSet;

type Answer<T> = Result<T, Box<EvalAltResult>>;

/// Longest limit for a wait, in seconds: a day.
const LONGEST: f64 = 86_400.0;

pub(super) fn register(engine: &mut Engine, context: &Rc<ScriptContext>) {
    let on = |context: &Rc<ScriptContext>| Rc::clone(context);

    let s = on(context);
    engine.register_fn("boot", move |call: NativeCallContext, wanted: Map| {
        super::stand_at(call.call_position());
        s.boot(self::wanted(wanted)?)
    });
    let s = on(context);
    engine.register_fn("boot", move |call: NativeCallContext| {
        super::stand_at(call.call_position());
        s.boot(BootRequest::default())
    });
    let s = on(context);
    engine.register_fn("cpus", move || -> Answer<i64> {
        Ok(s.operator()?.cpus().into())
    });
    let s = on(context);
    engine.register_fn(
        "option",
        move |key: &str, default: &str| -> Answer<String> {
            Ok(s.operator()?.option(key).unwrap_or(default).to_owned())
        },
    );
    let s = on(context);
    engine.register_fn("param", move |key: &str, default: &str| -> String {
        s.params.ask(key).unwrap_or(default).to_owned()
    });
    let s = on(context);
    engine.register_fn("pause_all", move |call: NativeCallContext| -> Answer<()> {
        Ok(s.act(&call)?.pause_all()?)
    });
    let s = on(context);
    engine.register_fn("resume_all", move |call: NativeCallContext| -> Answer<()> {
        Ok(s.act(&call)?.resume_all()?)
    });
    let s = on(context);
    engine.register_fn(
        "wait_console",
        move |call: NativeCallContext, pattern: &str| -> Answer<String> {
            Ok(s.act(&call)?.wait_console(pattern, s.wait())?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "wait_console",
        move |call: NativeCallContext, pattern: &str, limit: f64| -> Answer<String> {
            let limit = Wait::up_to(seconds(limit)?);
            Ok(s.act(&call)?.wait_console(pattern, limit)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "wait_console",
        move |call: NativeCallContext, pattern: &str, limit: i64| -> Answer<String> {
            let limit = Wait::up_to(seconds(limit as f64)?);
            Ok(s.act(&call)?.wait_console(pattern, limit)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "type_console",
        move |call: NativeCallContext, text: &str| -> Answer<()> {
            Ok(s.act(&call)?.type_console(text)?)
        },
    );
    let s = on(context);
    engine.register_fn("finish", move |call: NativeCallContext| {
        super::stand_at(call.call_position());
        s.close()
    });
    let s = on(context);
    engine.register_fn(
        "trace",
        move |call: NativeCallContext, on: bool| -> Answer<()> { Ok(s.act(&call)?.trace(on)?) },
    );
    let s = on(context);
    engine.register_fn("limit", move |limit: f64| s.set_limit(limit));
    let s = on(context);
    engine.register_fn("limit", move |limit: i64| s.set_limit(limit as f64));

    engine.register_fn("expect", |holds: bool| {
        expect(holds, "what is expected here")
    });
    engine.register_fn("expect", expect);
    engine.register_fn("expect_eq", |seen: Dynamic, wanted: Dynamic| {
        equal(&seen, &wanted, "this")
    });
    engine.register_fn("expect_eq", |seen: Dynamic, wanted: Dynamic, what: &str| {
        equal(&seen, &wanted, what)
    });
    let s = on(context);
    engine.register_fn(
        "must_break",
        move |call: NativeCallContext, oracle: &str| -> Answer<()> {
            Ok(s.act(&call)?.must_break(oracle)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "may_break",
        move |call: NativeCallContext, oracle: &str| -> Answer<()> {
            Ok(s.act(&call)?.may_break(oracle)?)
        },
    );
    let s = on(context);
    engine.register_fn(
        "abandon",
        move |call: NativeCallContext, cpus: Array| -> Answer<()> {
            Ok(s.act(&call)?.abandon(set(cpus)?)?)
        },
    );
}

impl ScriptContext {
    fn set_limit(&self, limit: f64) -> Answer<()> {
        self.limit.set(seconds(limit)?);
        Ok(())
    }
}

/// So many seconds, as the limit of a wait.
fn seconds(seconds: f64) -> Answer<Duration> {
    let limit = Some(seconds)
        .filter(|seconds| *seconds <= LONGEST)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.ok_or_else(|| bad(format!("{seconds} is no number of seconds to wait")))
}

fn expect(holds: bool, what: &str) -> Answer<()> {
    if holds {
        Ok(())
    } else {
        Err(unmet(format!("expected: {what}")))
    }
}

fn equal(seen: &Dynamic, wanted: &Dynamic, what: &str) -> Answer<()> {
    // Compared as text: a script compares numbers, strings and lists of these.
    let (seen, wanted) = (seen.to_string(), wanted.to_string());
    if seen == wanted {
        Ok(())
    } else {
        Err(unmet(format!(
            "expected {what} to be {wanted}, and it is {seen}"
        )))
    }
}

/// The set of the CPUs in a list.
pub(super) fn set(cpus: Array) -> Answer<CpuSet> {
    let numbers = cpus.into_iter().map(|cpu| {
        let number = cpu
            .as_int()
            .map_err(|kind| bad(format!("a list of CPUs holds a {kind}")))?;
        small("CPU", number)
    });
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    CpuSet::of(numbers).map_err(|error| bad(error.to_string()))
}

fn wanted(map: Map) -> Answer<BootRequest> {
    let mut wanted = BootRequest::default();
    for (key, value) in map {
        let wrong = |kind| bad(format!("boot: {key} cannot be a {kind}"));
        match key.as_str() {
            "guest" => wanted.guest = Some(value.into_string().map_err(wrong)?.into()),
            "initrd" => wanted.initrd = Some(value.into_string().map_err(wrong)?.into()),
            "append" => wanted.append = Some(value.into_string().map_err(wrong)?),
            "vcpus" => {
                let vcpus = value.as_int().map_err(wrong)?;
                wanted.vcpus = Some(small("number of vCPUs", vcpus)?);
            }
            "hold" => {
                let names = match value.try_cast_result::<Array>() {
                    Ok(names) => names,
                    Err(name) => vec![name],
                };
                let names = names.into_iter().map(Dynamic::into_string);
                wanted.hold = names.collect::<Result<_, _>>().map_err(wrong)?;
            }
            "memory" => {
                let memory = value.as_int().map_err(wrong)?;
                wanted.memory = Some(small("number of MiB", memory)?.into());
            }
            _ => {
                let guess = did_you_mean(
                    &key,
                    ["guest", "vcpus", "memory", "initrd", "append", "hold"],
                );
                return Err(bad(format!(
                    "boot: there is no \"{key}\"; there are guest, vcpus, memory, initrd, \
                     append and hold{guess}"
                )));
            }
        }
    }
    Ok(wanted)
}
