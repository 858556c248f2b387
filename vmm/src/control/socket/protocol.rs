//! What clients of the control socket can ask, line by line, and how it is answered: one JSON
//! object each. `docs/control-socket.md` is the reference. Every request is a verb of the
//! [`Operator`], under the names that scripts use. Must not know of connections.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::ledger::CallId;
use shared::ports::{Delivery, Dispatch};

use crate::control::operator::{
    InFlight, Operator, OperatorError, PostedCommand, Selection, Wait, Watch, counters,
};
use crate::cpus::CpuSet;
use crate::lab::call_name::CallName;
use crate::lab::oracles::NoSuchOracle;
use crate::machine::exit_counts::REASONS;
use crate::machine::message::HeldBy;
use crate::manifest::Deed;

/// Version of the protocol. It changes when a verb or a field changes its meaning or goes away.
pub const VERSION: u32 = 3;

/// How long a wait goes on if the request does not say, in seconds.
const LIMIT: f64 = 10.0;

/// Longest limit for a wait, in seconds: a day.
const LONGEST: f64 = 86_400.0;

/// A request.
#[derive(Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Hello {},
    Verbs {},
    Status {},
    Pause {
        cpu: u32,
    },
    Resume {
        cpu: u32,
    },
    PauseAll {},
    ResumeAll {},
    Hold {
        cpu: u32,
        probe: String,
        nth: Option<u64>,
        call: Option<u64>,
    },
    Break {
        cpu: u32,
        at: String,
    },
    Disarm {
        cpu: u32,
    },
    WaitHeld {
        cpu: u32,
        limit: Option<f64>,
    },
    Release {
        cpu: u32,
    },
    Step {
        cpu: u32,
        count: Option<u64>,
        limit: Option<f64>,
    },
    Look {
        cpu: u32,
    },
    Deeds {},
    Tell {
        cpu: u32,
        deed: String,
        limit: Option<f64>,
    },
    WaitDone {
        cpu: u32,
        number: u64,
        limit: Option<f64>,
    },
    Call {
        call: u64,
    },
    WaitRan {
        call: u64,
        cpus: Option<Vec<u32>>,
        limit: Option<f64>,
    },
    WireHold {
        from: u32,
        to: u32,
        vector: Option<String>,
        call: Option<u64>,
    },
    WireHoldAll {
        vector: Option<String>,
        call: Option<u64>,
    },
    WireDelay {
        from: u32,
        to: u32,
        milliseconds: u32,
        vector: Option<String>,
        call: Option<u64>,
    },
    WireRelease {
        from: u32,
        to: u32,
        vector: Option<String>,
        call: Option<u64>,
    },
    WireReleaseAll {
        vector: Option<String>,
        call: Option<u64>,
    },
    WireDeliver {
        from: u32,
        to: u32,
        nth: Option<usize>,
        vector: Option<String>,
        call: Option<u64>,
    },
    WireLose {
        from: u32,
        to: u32,
        nth: Option<usize>,
        vector: Option<String>,
        call: Option<u64>,
    },
    WireWaitHeld {
        from: u32,
        to: u32,
        count: Option<usize>,
        vector: Option<String>,
        call: Option<u64>,
        limit: Option<f64>,
    },
    WireInFlight {},
    Stats {},
    MustBreak {
        oracle: String,
    },
    MayBreak {
        oracle: String,
    },
    Abandon {
        cpus: Vec<u32>,
    },
    Trace {
        on: bool,
    },
    Finish {
        limit: Option<f64>,
    },
    Quit {},
}

/// Every verb with its fields; those in brackets can be left out.
const VERBS: [(&str, &str); 35] = [
    ("hello", ""),
    ("verbs", ""),
    ("status", ""),
    ("pause", "cpu"),
    ("resume", "cpu"),
    ("pause_all", ""),
    ("resume_all", ""),
    ("hold", "cpu, probe, [nth], [call]"),
    ("break", "cpu, at"),
    ("disarm", "cpu"),
    ("wait_held", "cpu, [limit]"),
    ("release", "cpu"),
    ("step", "cpu, [count], [limit]"),
    ("look", "cpu"),
    ("deeds", ""),
    ("tell", "cpu, deed, [limit]"),
    ("wait_done", "cpu, number, [limit]"),
    ("call", "call"),
    ("wait_ran", "call, [cpus], [limit]"),
    ("wire_hold", "from, to, [vector], [call]"),
    ("wire_hold_all", "[vector], [call]"),
    ("wire_delay", "from, to, milliseconds, [vector], [call]"),
    ("wire_release", "from, to, [vector], [call]"),
    ("wire_release_all", "[vector], [call]"),
    ("wire_deliver", "from, to, [nth], [vector], [call]"),
    ("wire_lose", "from, to, [nth], [vector], [call]"),
    (
        "wire_wait_held",
        "from, to, [count], [vector], [call], [limit]",
    ),
    ("wire_in_flight", ""),
    ("stats", ""),
    ("must_break", "oracle"),
    ("may_break", "oracle"),
    ("abandon", "cpus"),
    ("trace", "on"),
    ("finish", "[limit]"),
    ("quit", ""),
];

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It is not a request, or its values make no sense.
    #[error("{0}")]
    Bad(String),
    /// It names an oracle that does not exist.
    #[error(transparent)]
    Oracle(#[from] NoSuchOracle),
    /// There is no machine at this moment.
    #[error("there is no machine at this moment")]
    NoMachine,
    /// The verb of the operator failed.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl Refusal {
    /// The word by which programs tell refusals apart.
    fn kind(&self) -> &'static str {
        match self {
            Self::Bad(_)
            | Self::Oracle(_)
            | Self::Operator(OperatorError::Tell(_) | OperatorError::Vector(_)) => "bad-request",
            Self::NoMachine | Self::Operator(OperatorError::Over(_)) => "over",
            Self::Operator(OperatorError::TimedOut { .. }) => "timed-out",
            Self::Operator(_) => "refused",
        }
    }
}

type Answer = Result<Map<String, Value>, Refusal>;

/// Carries out the request in one line, and returns the answer as one line. It never fails: an
/// error is an answer too. Waits end when `is_gone` says that the client has disconnected.
pub(super) fn answer(
    line: &[u8],
    machine: impl FnOnce() -> Option<Arc<Operator>>,
    is_gone: &dyn Fn() -> bool,
) -> String {
    let (id, answer) = match serde_json::from_slice::<Value>(line) {
        Err(error) => (None, Err(Refusal::Bad(format!("not JSON: {error}")))),
        Ok(Value::Object(mut fields)) => {
            let id = fields.remove("id");
            let request = serde_json::from_value(Value::Object(fields));
            let answer = match request {
                Ok(request) => execute(request, machine, is_gone),
                Err(error) => Err(Refusal::Bad(format!(
                    "{error}; the verb \"verbs\" lists what can be asked"
                ))),
            };
            (id, answer)
        }
        Ok(_) => (None, Err(Refusal::Bad("not a JSON object".to_owned()))),
    };
    let mut shown = match answer {
        Ok(mut fields) => {
            fields.insert("ok".to_owned(), true.into());
            fields
        }
        Err(refusal) => object(json!({
            "ok": false,
            "kind": refusal.kind(),
            "error": refusal.to_string(),
        })),
    };
    if let Some(id) = id {
        shown.insert("id".to_owned(), id);
    }
    Value::Object(shown).to_string()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// Converts a number of seconds to a limit.
fn limit(seconds: f64) -> Result<Duration, Refusal> {
    Some(seconds)
        .filter(|seconds| *seconds <= LONGEST)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Refusal::Bad(format!("{seconds} is no number of seconds to wait")))
}

fn cpu_set(cpus: Vec<u32>) -> Result<CpuSet, Refusal> {
    CpuSet::of(cpus).map_err(|error| Refusal::Bad(error.to_string()))
}

fn execute(
    request: Request,
    machine: impl FnOnce() -> Option<Arc<Operator>>,
    is_gone: &dyn Fn() -> bool,
) -> Answer {
    let wait = |seconds: Option<f64>| {
        limit(seconds.unwrap_or(LIMIT)).map(|limit| Wait::unless(limit, is_gone))
    };
    match request {
        Request::Hello {} => {
            return Ok(object(
                json!({ "protocol": VERSION, "version": env!("CARGO_PKG_VERSION") }),
            ));
        }
        Request::Verbs {} => {
            let verbs: Map<_, _> = VERBS
                .into_iter()
                .map(|(verb, fields)| (verb.to_owned(), fields.into()))
                .collect();
            return Ok(object(json!({ "verbs": verbs })));
        }
        _ => {}
    }
    let operator = machine().ok_or(Refusal::NoMachine)?;
    let nothing = Ok(Map::new());
    match request {
        Request::Hello {} | Request::Verbs {} => {}
        Request::Status {} => return status(&operator),
        Request::Pause { cpu } => return state(operator.pause(cpu)?.name()),
        Request::Resume { cpu } | Request::Release { cpu } => operator.resume(cpu)?,
        Request::PauseAll {} => operator.pause_all()?,
        Request::ResumeAll {} => operator.resume_all()?,
        Request::Hold {
            cpu,
            probe,
            nth,
            call,
        } => {
            let nth = nth.unwrap_or(1);
            if nth == 0 {
                return Err(Refusal::Bad("times are counted from 1".to_owned()));
            }
            let name = probe;
            operator.hold_at(cpu, Watch { name, call, nth })?;
        }
        Request::Break { cpu, at } => {
            let address = operator.break_at(cpu, &at)?;
            return Ok(object(json!({ "address": address })));
        }
        Request::Disarm { cpu } => operator.disarm(cpu)?,
        Request::WaitHeld { cpu, limit } => {
            operator.wait_held(cpu, wait(limit)?)?;
            return look(&operator, cpu);
        }
        Request::Step { cpu, count, limit } => {
            let count = count.unwrap_or(1);
            if count == 0 {
                return Err(Refusal::Bad(
                    "at least one instruction is stepped".to_owned(),
                ));
            }
            operator.step(cpu, count, wait(limit)?)?;
            return look(&operator, cpu);
        }
        Request::Look { cpu } => return look(&operator, cpu),
        Request::Deeds {} => {
            let deeds = operator.manifest().deeds.iter().filter(|it| !it.ends);
            let shown = |deed: &Deed| json!({ "form": deed.to_string(), "about": deed.about });
            let deeds: Map<_, _> = deeds.map(|it| (it.name.clone(), shown(it))).collect();
            return Ok(object(json!({ "deeds": deeds })));
        }
        Request::Tell { cpu, deed, limit } => {
            let posted = operator.tell(cpu, &deed, wait(limit)?)?;
            return Ok(object(json!({ "cpu": cpu, "number": posted.number })));
        }
        Request::WaitDone { cpu, number, limit } => {
            return wait_done(&operator, cpu, number, wait(limit)?);
        }
        Request::Call { call } => return record(&operator, call),
        Request::WaitRan { call, cpus, limit } => {
            let id = CallId::from_raw(call);
            let cpus = match cpus {
                Some(cpus) => cpu_set(cpus)?,
                None => operator
                    .record(id)
                    .map(|record| record.targets)
                    .unwrap_or_default(),
            };
            operator.wait_ran(id, &cpus, wait(limit)?)?;
            return record(&operator, call);
        }
        Request::WireHold {
            from,
            to,
            vector,
            call,
        } => {
            let which = selection(&operator, vector, call)?;
            operator.wire_hold(from, to, which.unwrap_or_default())?;
        }
        Request::WireHoldAll { vector, call } => {
            let which = selection(&operator, vector, call)?;
            operator.wire_hold_all(which.unwrap_or_default())?;
        }
        Request::WireDelay {
            from,
            to,
            milliseconds,
            vector,
            call,
        } => {
            let which = selection(&operator, vector, call)?;
            let delay = Duration::from_millis(milliseconds.into());
            operator.wire_delay(from, to, which.unwrap_or_default(), delay)?;
        }
        Request::WireRelease {
            from,
            to,
            vector,
            call,
        } => {
            operator.wire_release(from, to, selection(&operator, vector, call)?)?;
        }
        Request::WireReleaseAll { vector, call } => {
            operator.wire_release_all(selection(&operator, vector, call)?)?;
        }
        Request::WireDeliver {
            from,
            to,
            nth,
            vector,
            call,
        } => {
            let which = selection(&operator, vector, call)?;
            operator.wire_deliver(from, to, which, nth.unwrap_or(0))?;
        }
        Request::WireLose {
            from,
            to,
            nth,
            vector,
            call,
        } => {
            let which = selection(&operator, vector, call)?;
            operator.wire_lose(from, to, which, nth.unwrap_or(0))?;
        }
        Request::WireWaitHeld {
            from,
            to,
            count,
            vector,
            call,
            limit,
        } => {
            let which = selection(&operator, vector, call)?;
            operator.wait_in_flight(from, to, which, count.unwrap_or(1), wait(limit)?)?;
        }
        Request::WireInFlight {} => {
            let ipis: Vec<_> = operator.in_flight().iter().map(in_flight).collect();
            return Ok(object(json!({ "ipis": ipis })));
        }
        Request::Stats {} => return Ok(stats(&operator)),
        Request::MustBreak { oracle } => operator.must_break(&oracle)?,
        Request::MayBreak { oracle } => operator.may_break(&oracle)?,
        Request::Abandon { cpus } => {
            operator.abandon(cpu_set(cpus)?)?;
        }
        Request::Trace { on } => operator.trace(on)?,
        Request::Finish { limit } => operator.finish(wait(limit)?)?,
        Request::Quit {} => operator.quit(),
    }
    nothing
}

/// The IPIs on the wire that a request is about, if it names any.
fn selection(
    operator: &Operator,
    vector: Option<String>,
    call: Option<u64>,
) -> Result<Option<Selection>, Refusal> {
    match (vector, call) {
        (None, None) => Ok(None),
        (Some(name), None) => Ok(Some(operator.ipis_named(&name)?)),
        (None, Some(call)) => Ok(Some(Selection::Call(CallId::from_raw(call)))),
        (Some(_), Some(_)) => Err(Refusal::Bad(
            "IPIs are named by a vector or by a call, and not by both".to_owned(),
        )),
    }
}

fn in_flight(ipi: &InFlight) -> Value {
    let Dispatch {
        target,
        vector,
        delivery,
    } = ipi.dispatch;
    let (vector, name) = match delivery {
        Delivery::Fixed => (Some(vector), ipi.name.as_deref()),
        Delivery::Init => (None, Some("init")),
        Delivery::StartUp => (None, Some("sipi")),
    };
    json!({
        "from": ipi.from,
        "to": target,
        "vector": vector,
        "name": name,
        "call": ipi.call.map(CallId::raw),
    })
}

fn state(name: &str) -> Answer {
    Ok(object(json!({ "state": name })))
}

fn wait_done(operator: &Operator, cpu: u32, number: u64, wait: Wait<'_>) -> Answer {
    let posted = operator
        .posted(cpu, number)
        .ok_or_else(|| Refusal::Bad(format!("CPU {cpu} was told nothing with number {number}")))?;
    let done = operator.wait_done(posted, wait)?;
    let result = done.result.unwrap_or_default();
    let mut fields = object(json!({ "result": result, "call": done.call.map(CallId::raw) }));
    let deed = operator.manifest().deed_numbered(posted.verb);
    if deed.is_some_and(|deed| deed.answers) {
        let length = usize::try_from(result).unwrap_or(0).min(done.answer.len());
        fields.insert("answer".to_owned(), json!(done.answer[..length]));
    }
    Ok(fields)
}

fn list(cpus: &CpuSet) -> Vec<u32> {
    cpus.iter().collect()
}

fn record(operator: &Operator, call: u64) -> Answer {
    let id = CallId::from_raw(call);
    let record = operator.record(id).ok_or_else(|| {
        let name = CallName(id);
        Refusal::Bad(format!(
            "{name} is not in the ledger: never made, or complete long ago"
        ))
    })?;
    Ok(object(json!({
        "name": CallName(id).to_string(),
        "targets": list(&record.targets),
        "ran": list(&record.ran),
        "returned": record.head.returned_tsc != 0,
    })))
}

fn status(operator: &Operator) -> Answer {
    let outstanding = operator.outstanding();
    let vcpus = (0..operator.cpus())
        .map(|cpu| {
            let told = outstanding.iter().find(|posted| posted.cpu == cpu);
            Ok(json!({
                "cpu": cpu,
                "state": operator.state(cpu)?.name(),
                "held_by": operator.held_by(cpu)?.map(|by| held_by(operator, by)),
                "outstanding": told.map(|posted| deed(operator, *posted)),
            }))
        })
        .collect::<Result<Vec<_>, OperatorError>>()?;
    let wire: Vec<_> = operator
        .in_flight()
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(object(json!({ "vcpus": vcpus, "wire": wire })))
}

fn deed(operator: &Operator, posted: PostedCommand) -> Value {
    json!({ "deed": operator.told(posted), "number": posted.number })
}

fn held_by(operator: &Operator, by: HeldBy) -> Value {
    match by {
        HeldBy::Point { point, call } => json!({
            "probe": operator.probe_name(point),
            "call": if call == 0 { None } else { Some(call) },
        }),
        HeldBy::Address(address) => json!({ "address": address }),
        HeldBy::Steps => json!("steps"),
        HeldBy::Word => json!("word"),
    }
}

fn look(operator: &Operator, cpu: u32) -> Answer {
    let look = operator.look(cpu)?;
    let registers = look.dump.registers().into_iter();
    let registers: Map<_, _> = registers
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    Ok(object(json!({
        "place": look.place,
        "state": operator.state(cpu)?.name(),
        "held_by": look.held_by.map(|by| held_by(operator, by)),
        "irqs_on": look.dump.interrupts_on(),
        "pending": look.dump.requested,
        "in_service": look.dump.in_service,
        "registers": registers,
    })))
}

fn stats(operator: &Operator) -> Map<String, Value> {
    let figures = operator.figures();
    let vcpus: Vec<_> = (0_usize..)
        .zip(&figures.counted)
        .map(|(cpu, counted)| {
            let exits: Map<_, _> = REASONS
                .iter()
                .zip(figures.window.exits(cpu))
                .map(|(name, count)| ((*name).to_owned(), count.into()))
                .collect();
            let kvm: Map<_, _> = figures
                .window
                .kvm(cpu)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect();
            let mut stats = object(json!({ "cpu": cpu, "exits": exits, "kvm": kvm }));
            let counters = counters::named(counted, operator.manifest());
            stats.extend(counters.map(|(name, value)| (name.to_owned(), value.into())));
            stats
        })
        .collect();
    let left_out: Map<_, _> = figures
        .window
        .left_out()
        .map(|(name, why)| (name.to_owned(), why.into()))
        .collect();
    let seconds = figures.window.length().as_secs_f64();
    object(json!({ "seconds": seconds, "kvm_left_out": left_out, "vcpus": vcpus }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answered(line: &str) -> Value {
        serde_json::from_str(&answer(line.as_bytes(), || None, &|| false)).unwrap()
    }

    #[test]
    fn every_verb_that_is_listed_is_known() {
        for (verb, _) in VERBS {
            let answer = answered(&json!({ "verb": verb }).to_string());
            let error = answer["error"].as_str().unwrap_or_default();
            assert!(!error.contains("unknown variant"), "{verb}: {error}");
        }
    }

    #[test]
    fn what_needs_no_machine_is_answered_without_one() {
        let hello = answered(r#"{"verb": "hello", "id": [7]}"#);
        assert_eq!(
            (&hello["ok"], &hello["protocol"]),
            (&json!(true), &json!(VERSION))
        );
        assert_eq!(hello["id"], json!([7]));
        let verbs = answered(r#"{"verb": "verbs"}"#);
        assert_eq!(verbs["verbs"]["pause"], "cpu");
        let pause = answered(r#"{"verb": "pause", "cpu": 0}"#);
        assert_eq!(pause["kind"], "over");
    }

    #[test]
    fn rubbish_is_answered_with_what_is_wrong() {
        for (line, complaint) in [
            ("", "not JSON"),
            ("[1]", "not a JSON object"),
            ("{}", "missing field `verb`"),
            (r#"{"verb": "fly"}"#, "unknown variant `fly`"),
            (r#"{"verb": "pause"}"#, "missing field `cpu`"),
            (r#"{"verb": "pause", "cpu": -1}"#, "invalid value"),
            (
                r#"{"verb": "pause", "cpu": 0, "now": 1}"#,
                "unknown field `now`",
            ),
            (r#"{"verb": "hold", "cpu": 0, "probe": 7}"#, "invalid type"),
        ] {
            let answer = answered(line);
            assert_eq!(
                (&answer["ok"], &answer["kind"]),
                (&json!(false), &json!("bad-request"))
            );
            let error = answer["error"].as_str().unwrap();
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let shown = answer(&line, || None, &|| false);
            prop_assert!(!shown.contains('\n'));
            prop_assert!(serde_json::from_str::<Value>(&shown).is_ok());
        }
    }
}
