//! What clients of the control socket can ask, line by line, and how it is answered: one JSON
//! object each. `docs/control-socket.md` is the reference. Every request is a verb of the
//! [`Operator`], under the names that scripts use. Must not know of connections.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::ledger::CallId;

use super::answers::{self, object};
use super::events::Kind;
use super::outbox::Outbox;
use crate::control::operator::{Operator, OperatorError, PostedCommand, Selection, Wait, Watch};
use crate::cpus::CpuSet;
use crate::lab::Record;
use crate::lab::call_name::{CallParts, NotACall};
use crate::lab::oracles::NoSuchOracle;

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
    Ready {
        limit: Option<f64>,
    },
    Subscribe {
        events: Option<Vec<Kind>>,
    },
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
        call: Option<String>,
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
        until: Option<Until>,
        limit: Option<f64>,
    },
    WaitMade {
        cpu: u32,
        number: u64,
        limit: Option<f64>,
    },
    WaitDone {
        cpu: u32,
        number: u64,
        limit: Option<f64>,
    },
    Call {
        call: String,
    },
    RanOn {
        call: String,
        cpu: u32,
    },
    WaitRan {
        call: String,
        cpus: Option<Vec<u32>>,
        limit: Option<f64>,
    },
    WireHold {
        from: u32,
        to: u32,
        vector: Option<String>,
        call: Option<String>,
    },
    WireHoldAll {
        vector: Option<String>,
        call: Option<String>,
    },
    WireDelay {
        from: u32,
        to: u32,
        milliseconds: u32,
        vector: Option<String>,
        call: Option<String>,
    },
    WireRelease {
        from: u32,
        to: u32,
        vector: Option<String>,
        call: Option<String>,
    },
    WireReleaseAll {
        vector: Option<String>,
        call: Option<String>,
    },
    WireDeliver {
        from: u32,
        to: u32,
        nth: Option<usize>,
        vector: Option<String>,
        call: Option<String>,
    },
    WireLose {
        from: u32,
        to: u32,
        nth: Option<usize>,
        vector: Option<String>,
        call: Option<String>,
    },
    WireWaitHeld {
        from: u32,
        to: u32,
        count: Option<usize>,
        vector: Option<String>,
        call: Option<String>,
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

/// How long `tell` waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Until {
    /// Until the CPU has been told.
    #[default]
    Told,
    /// Until the call that the deed makes is in the ledger, or the deed is done without one.
    Made,
    /// Until the deed is done.
    Done,
}

/// Every verb with its fields; those in brackets can be left out.
const VERBS: [(&str, &str); 39] = [
    ("hello", ""),
    ("verbs", ""),
    ("ready", "[limit]"),
    ("subscribe", "[events]"),
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
    ("tell", "cpu, deed, [until], [limit]"),
    ("wait_made", "cpu, number, [limit]"),
    ("wait_done", "cpu, number, [limit]"),
    ("call", "call"),
    ("ran_on", "call, cpu"),
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
    /// It names a call in a way that no call is named.
    #[error(transparent)]
    NotACall(#[from] NotACall),
    /// It names a call that the ledger does not have.
    #[error("{0} is not in the ledger: never made, or complete long ago")]
    NoRecord(CallParts),
    /// The CPU was told what it was to be told, and then something went wrong.
    #[error("{error}; it was told, as its deed number {}", posted.number)]
    AfterTold {
        posted: PostedCommand,
        error: OperatorError,
    },
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
            | Self::NotACall(_)
            | Self::NoRecord(_)
            | Self::Oracle(_)
            | Self::Operator(OperatorError::Tell(_) | OperatorError::Vector(_)) => "bad-request",
            Self::NoMachine => "over",
            Self::Operator(error) | Self::AfterTold { error, .. } => match error {
                OperatorError::Over(_) => "over",
                OperatorError::TimedOut { .. } => "timed-out",
                _ => "refused",
            },
        }
    }
}

type Answer = Result<Map<String, Value>, Refusal>;

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    /// Whether it has disconnected, which ends its waits.
    pub is_gone: &'a dyn Fn() -> bool,
    /// Where the events go to which it subscribes.
    pub outbox: &'a Outbox,
}

/// Whether the request in one line is one for which there is always a place: to end the machine, and
/// to ask who answers, which clients do before.
pub(super) fn has_a_place(line: &[u8]) -> bool {
    let request = serde_json::from_slice::<Value>(line);
    request.is_ok_and(|it| it["verb"] == "quit" || it["verb"] == "hello")
}

/// Carries out the request in one line, and returns the answer as one line. It never fails: an
/// error is an answer too.
pub(super) fn answer(
    line: &[u8],
    machine: impl FnOnce() -> Option<Arc<Operator>>,
    client: Client<'_>,
) -> String {
    let (id, answer) = match serde_json::from_slice::<Value>(line) {
        Err(error) => (None, Err(Refusal::Bad(format!("not JSON: {error}")))),
        Ok(Value::Object(mut fields)) => {
            let id = fields.remove("id");
            let request = serde_json::from_value(Value::Object(fields));
            let answer = match request {
                Ok(request) => execute(request, machine, client),
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
        Err(refusal) => {
            let mut shown = object(json!({
                "ok": false,
                "kind": refusal.kind(),
                "error": refusal.to_string(),
            }));
            if let Refusal::AfterTold { posted, .. } = refusal {
                shown.extend(told(posted));
            }
            shown
        }
    };
    if let Some(id) = id {
        shown.insert("id".to_owned(), id);
    }
    Value::Object(shown).to_string()
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
    client: Client<'_>,
) -> Answer {
    let wait = |seconds: Option<f64>| {
        limit(seconds.unwrap_or(LIMIT)).map(|limit| Wait::unless(limit, client.is_gone))
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
        Request::Ready { limit } => {
            operator.wait_started(wait(limit)?)?;
            return Ok(object(json!({ "cpus": operator.cpus() })));
        }
        Request::Subscribe { events } => {
            let kinds = events.unwrap_or_else(|| Kind::ALL.to_vec());
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            operator.settle_findings();
            client.outbox.want(kinds);
            return Ok(object(json!({ "events": names })));
        }
        Request::Status {} => return Ok(answers::status(&operator)?),
        Request::Pause { cpu } => {
            let state = operator.pause(cpu)?.name();
            return Ok(object(json!({ "state": state })));
        }
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
            let call = call.map(|call| find(&operator, &call)).transpose()?;
            let call = call.map(|record| record.head.id);
            operator.hold_at(cpu, Watch { name, call, nth })?;
        }
        Request::Break { cpu, at } => {
            let address = operator.break_at(cpu, &at)?;
            let place = operator.place(address);
            return Ok(object(json!({ "address": address, "place": place })));
        }
        Request::Disarm { cpu } => operator.disarm(cpu)?,
        Request::WaitHeld { cpu, limit } => {
            operator.wait_held(cpu, wait(limit)?)?;
            return Ok(answers::look(&operator, cpu)?);
        }
        Request::Step { cpu, count, limit } => {
            let count = count.unwrap_or(1);
            if count == 0 {
                return Err(Refusal::Bad(
                    "at least one instruction is stepped".to_owned(),
                ));
            }
            operator.step(cpu, count, wait(limit)?)?;
            return Ok(answers::look(&operator, cpu)?);
        }
        Request::Look { cpu } => return Ok(answers::look(&operator, cpu)?),
        Request::Deeds {} => return Ok(answers::deeds(&operator)),
        Request::Tell {
            cpu,
            deed,
            until,
            limit,
        } => {
            return tell(
                &operator,
                cpu,
                &deed,
                until.unwrap_or_default(),
                wait(limit)?,
            );
        }
        Request::WaitMade { cpu, number, limit } => {
            let call = operator.call(posted(&operator, cpu, number)?, wait(limit)?)?;
            return Ok(object(json!({ "call": answers::call_id(call) })));
        }
        Request::WaitDone { cpu, number, limit } => {
            let posted = posted(&operator, cpu, number)?;
            let done = operator.wait_done(posted, wait(limit)?)?;
            return Ok(answers::done(&operator, posted, &done));
        }
        Request::Call { call } => return Ok(answers::record(&find(&operator, &call)?)),
        Request::RanOn { call, cpu } => {
            operator.state(cpu)?;
            let ran_on = find(&operator, &call)?.ran.contains(cpu);
            return Ok(object(json!({ "ran_on": ran_on })));
        }
        Request::WaitRan { call, cpus, limit } => {
            let cpus = cpus.map(cpu_set).transpose()?;
            let id = CallId::from_raw(find(&operator, &call)?.head.id);
            match cpus {
                Some(cpus) => operator.wait_ran(id, &cpus, wait(limit)?)?,
                None => operator.wait_ran_everywhere(id, wait(limit)?)?,
            }
            return Ok(answers::record(&find(&operator, &call)?));
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
            let ipis: Vec<_> = operator
                .in_flight()
                .iter()
                .map(answers::in_flight)
                .collect();
            return Ok(object(json!({ "ipis": ipis })));
        }
        Request::Stats {} => return Ok(answers::stats(&operator)),
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

/// The record of the call that a request names.
fn find(operator: &Operator, call: &str) -> Result<Record, Refusal> {
    let parts: CallParts = call.parse()?;
    operator
        .record_named(parts.source, parts.lane, parts.sequence)
        .ok_or(Refusal::NoRecord(parts))
}

/// The IPIs on the wire that a request is about, if it names any.
fn selection(
    operator: &Operator,
    vector: Option<String>,
    call: Option<String>,
) -> Result<Option<Selection>, Refusal> {
    match (vector, call) {
        (None, None) => Ok(None),
        (Some(name), None) => Ok(Some(operator.ipis_named(&name)?)),
        (None, Some(call)) => {
            let id = CallId::from_raw(find(operator, &call)?.head.id);
            Ok(Some(Selection::Call(id)))
        }
        (Some(_), Some(_)) => Err(Refusal::Bad(
            "IPIs are named by a vector or by a call, and not by both".to_owned(),
        )),
    }
}

/// What a CPU was told, by its number.
fn posted(operator: &Operator, cpu: u32, number: u64) -> Result<PostedCommand, Refusal> {
    operator
        .posted(cpu, number)
        .ok_or_else(|| Refusal::Bad(format!("CPU {cpu} was told nothing with number {number}")))
}

/// By what a deed that a CPU was told is asked for later.
fn told(posted: PostedCommand) -> Map<String, Value> {
    object(json!({ "cpu": posted.cpu, "number": posted.number }))
}

fn tell(operator: &Operator, cpu: u32, deed: &str, until: Until, wait: Wait<'_>) -> Answer {
    // Telling and waiting together take no longer than the limit.
    let wait = wait.begun(Duration::ZERO);
    let posted = operator.tell(cpu, deed, wait)?;
    let mut fields = told(posted);
    let failed = |error| Refusal::AfterTold { posted, error };
    if until == Until::Made {
        match operator.call(posted, wait) {
            Ok(call) => {
                fields.insert("call".to_owned(), answers::call_id(call).into());
                return Ok(fields);
            }
            // It is done, so that there is something to say of it.
            Err(OperatorError::NoCall { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if until != Until::Told {
        let done = operator.wait_done(posted, wait).map_err(failed)?;
        fields.extend(answers::done(operator, posted, &done));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::socket::answer_without_machine as asked;
    use proptest::prelude::*;

    fn answered(line: &str) -> Value {
        serde_json::from_str(&asked(line.as_bytes())).unwrap()
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
            let shown = asked(&line);
            prop_assert!(!shown.contains('\n'));
            prop_assert!(serde_json::from_str::<Value>(&shown).is_ok());
        }
    }
}
