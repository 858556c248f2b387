//! The verdict on a run: how it ended, in one word and in one sentence. What the guest says of
//! itself is believed only as far as the judgement on its lab confirms it. Shows nothing.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use shared::exit::ExitCode;

use crate::control::operator::Expected;
use crate::control::{Ending, RunResult, script};
use crate::counted::counted;
use crate::lab::Lab;
use crate::lab::judgement::Judgement;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every oracle held.
    Pass,
    /// An oracle did not hold.
    Fail,
    /// What the guest has left in the lab contradicts itself, so that nothing in it says anything.
    NotBelieved,
    /// The guest does not know an option it was given.
    BadOptions,
    /// The script asks for what makes no sense.
    BadScript,
    /// The guest died.
    Died,
    /// It took too long, or nothing moved any more.
    Stalled,
    /// The user ended it, by a signal or at the control socket.
    Interrupted,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in the JSON document, so that all reports use the same word.
        self.serialize(f)
    }
}

/// The verdict on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended, in one word.
    pub kind: Kind,
    /// How it ended, in a sentence.
    pub message: String,
    /// The signal that ended it, if one did.
    signal: Option<u8>,
}

/// The judgement on `lab` after a run with this result. Calls can only be expected to
/// be complete if the guest came to the end of its workload.
pub fn judge(run_result: &RunResult, lab: &Lab) -> Judgement {
    if is_end_of_workload(&run_result.ending) {
        Judgement::on_end(lab, &run_result.expected.abandoned)
    } else {
        Judgement::on_the_way(lab)
    }
}

/// Whether a run that ended in this way came to the end of its workload, with no call in flight.
fn is_end_of_workload(ending: &Ending) -> bool {
    let Ending::GuestExit { code, .. } = ending else {
        return false;
    };
    matches!(
        ExitCode::try_from(*code),
        Ok(ExitCode::Pass | ExitCode::Fail)
    )
}

impl Verdict {
    /// The verdict on a run with this result, with the `judgement` on its lab.
    pub fn on(run_result: &RunResult, judgement: &Judgement) -> Self {
        let ending = &run_result.ending;
        let mut verdict = Self::new(Kind::Stalled, ending.to_string());
        match ending {
            Ending::GuestExit { vcpu, code } => {
                return Self::on_exit(*vcpu, *code, run_result, judgement);
            }
            Ending::Dead { .. } | Ending::Panicked { .. } => verdict.kind = Kind::Died,
            Ending::Signal(signal) => {
                verdict.kind = Kind::Interrupted;
                verdict.signal = u8::try_from(*signal).ok();
            }
            Ending::Quit => return Self::on_quit(verdict, run_result, judgement),
            Ending::TimeOut(_) | Ending::NoProgress(_) => {}
            Ending::Script(failure) => {
                verdict.kind = match failure.kind {
                    script::FailureKind::Expectation | script::FailureKind::Over => Kind::Fail,
                    script::FailureKind::Bad => Kind::BadScript,
                    script::FailureKind::Stuck => Kind::Stalled,
                }
            }
        }
        verdict
    }

    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self.kind {
            Kind::Pass => 0,
            Kind::Fail | Kind::NotBelieved => 1,
            Kind::BadOptions | Kind::BadScript => 2,
            Kind::Died => 4,
            Kind::Stalled => 5,
            // For a signal as in a shell; 0 if a client of the control socket ended the run.
            Kind::Interrupted => self
                .signal
                .map_or(0, |signal| 128_u8.saturating_add(signal)),
        }
    }

    fn new(kind: Kind, message: String) -> Self {
        Self {
            kind,
            message,
            signal: None,
        }
    }

    fn on_exit(vcpu: u32, code: u32, run_result: &RunResult, judgement: &Judgement) -> Self {
        match ExitCode::try_from(code) {
            Ok(ExitCode::Pass | ExitCode::Fail) if !judgement.is_believed() => {
                Self::on_contradictions(judgement)
            }
            Ok(ExitCode::Pass | ExitCode::Fail) if run_result.expected.is_any() => {
                Self::on_expected(&run_result.expected, judgement)
            }
            Ok(ExitCode::Pass) => Self::on_pass(run_result, judgement),
            Ok(ExitCode::Fail) => {
                let message = match judgement.found.total() {
                    0 => "the guest says that an oracle failed".to_owned(),
                    _ => findings(judgement),
                };
                Self::new(Kind::Fail, message)
            }
            Ok(ExitCode::Panic) => Self::new(
                Kind::Died,
                format!("the guest panicked on CPU {vcpu}; its console says why"),
            ),
            Ok(ExitCode::BadOptions) => Self::new(
                Kind::BadOptions,
                "the guest does not accept its options (--append); its console says which"
                    .to_owned(),
            ),
            Ok(ExitCode::BadMachine) => Self::new(
                Kind::Died,
                match judgement.cpus_online {
                    Some(online) => format!(
                        "the guest cannot use this machine; {online} of {} CPUs came up",
                        run_result.vcpus
                    ),
                    None => "the guest cannot use this machine".to_owned(),
                },
            ),
            Err(code) => Self::new(
                Kind::Died,
                format!("CPU {vcpu} wrote {code:#x} to the exit port, which means nothing"),
            ),
        }
    }

    /// The verdict on a run that a client has ended: what was found until then counts, and what was
    /// expected and not found. A call that was under way is no finding.
    fn on_quit(quit: Self, run_result: &RunResult, judgement: &Judgement) -> Self {
        let verdict = match judgement.found.total() {
            _ if run_result.expected.is_any() => Self::on_expected(&run_result.expected, judgement),
            0 => Self::new(Kind::Pass, String::new()),
            _ => Self::new(Kind::Fail, findings(judgement)),
        };
        match verdict.kind {
            Kind::Pass => Self {
                kind: Kind::Interrupted,
                ..quit
            },
            _ => Self::new(
                verdict.kind,
                format!("{}; {}", quit.message, verdict.message),
            ),
        }
    }

    /// The verdict if the lab contradicts itself: then nothing that the guest says can be believed.
    fn on_contradictions(judgement: &Judgement) -> Self {
        let contradictions = &judgement.contradictions;
        let first = contradictions.first.first().map_or("", String::as_str);
        let more = match contradictions.total {
            0 | 1 => String::new(),
            total => format!(", and {}", counted(total - 1, "more contradiction")),
        };
        let message = format!("the lab is not to be believed: {first}{more}");
        Self::new(Kind::NotBelieved, message)
    }

    /// The verdict on a run that has to show certain breaches: it passes if these, and no others,
    /// were found.
    fn on_expected(expected: &Expected, judgement: &Judgement) -> Self {
        let found = judgement.oracles();
        let (missing, surplus) = expected.against(&found);
        if !missing.is_empty() {
            let message = format!("nothing was {}, as was expected", missing.join(", "));
            return Self::new(Kind::Fail, message);
        }
        if !surplus.is_empty() {
            let found = surplus.join(", ");
            return Self::new(
                Kind::Fail,
                format!("found beside what was expected: {found}"),
            );
        }
        Self::new(Kind::Pass, format!("as expected: {}", found.join(", ")))
    }

    fn on_pass(run_result: &RunResult, judgement: &Judgement) -> Self {
        if !judgement.is_used {
            return Self::new(
                Kind::Pass,
                "the guest says pass; it kept no ledger".to_owned(),
            );
        }
        let online = judgement.cpus_online.unwrap_or(0);
        let (made, judged) = (judgement.totals.made, judgement.judged);
        let calls = counted(made, "call");
        let message = if judgement.found.total() > 0 {
            format!(
                "the guest says pass, with {} of its own: {}",
                counted(judgement.found.total(), "finding"),
                judgement.found
            )
        } else if online != run_result.vcpus {
            format!(
                "the guest says pass, with {online} of {} CPUs up",
                run_result.vcpus
            )
        } else if judgement.breaches.total > 0 {
            format!(
                "the guest says pass, and its ledger is wrong in {}: {}",
                counted(judgement.breaches.total, "place"),
                judgement.breached
            )
        } else if made == 0 {
            // Not every guest makes calls.
            let message = "no oracle found anything; no call was made";
            return Self::new(Kind::Pass, message.to_owned());
        } else if made == judged {
            return Self::new(
                Kind::Pass,
                format!("{calls}, each exactly once where it had to"),
            );
        } else {
            return Self::new(
                Kind::Pass,
                format!(
                    "{calls}, each exactly once where it had to: the last {judged} by the \
                     VMM's own judgement, the others by the guest's as they completed"
                ),
            );
        };
        Self::new(Kind::Fail, message)
    }
}

/// What the guest's own oracles found.
fn findings(judgement: &Judgement) -> String {
    let made = counted(judgement.found.total(), "finding");
    format!("the guest's oracles made {made}: {}", judgement.found)
}
