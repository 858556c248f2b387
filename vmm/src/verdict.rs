//! The verdict on a run: how it ended, in one word and in one sentence. What the guest says of
//! itself is believed only as far as the judgement on its lab confirms it. Shows nothing.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;
use shared::exit::ExitCode;

use crate::control::operator::Expected;
use crate::control::{Ending, RunResult, script};
use crate::counted::counted;
use crate::kernel_log::ComplaintKind;
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

/// How a run has to end (`--expect-exit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedExit {
    /// The guest turns the machine off.
    PowerOff,
    /// It resets the machine.
    Reset,
    /// It writes this to the exit port.
    Code(u32),
}

impl ExpectedExit {
    fn is(self, ending: &Ending) -> bool {
        match ending {
            Ending::PowerOff { .. } => self == Self::PowerOff,
            Ending::Reset { .. } => self == Self::Reset,
            Ending::GuestExit { code, .. } => self == Self::Code(*code),
            _ => false,
        }
    }
}

impl fmt::Display for ExpectedExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("power-off"),
            Self::Reset => f.write_str("reset"),
            Self::Code(code) => write!(f, "{code:#x}"),
        }
    }
}

impl FromStr for ExpectedExit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "power-off" => return Ok(Self::PowerOff),
            "reset" => return Ok(Self::Reset),
            _ => {}
        }
        let code = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        code.map(Self::Code).map_err(|_| {
            "neither power-off nor reset, nor a number that is written to the exit port".to_owned()
        })
    }
}

impl Verdict {
    /// The verdict on a run with this result, with the `judgement` on its lab. `expected` says how
    /// it has to end, if that is not left to the guest.
    pub fn on(
        run_result: &RunResult,
        judgement: &Judgement,
        expected: Option<ExpectedExit>,
    ) -> Self {
        let verdict = Self::on_ending(run_result, judgement, expected);
        match expected {
            Some(exit) if verdict.kind == Kind::Pass && !exit.is(&run_result.ending) => {
                let message = format!("{}, and not by {exit}, as was expected", verdict.message);
                Self::new(Kind::Fail, message)
            }
            _ => verdict,
        }
    }

    fn on_ending(
        run_result: &RunResult,
        judgement: &Judgement,
        expected: Option<ExpectedExit>,
    ) -> Self {
        let ending = &run_result.ending;
        if !run_result.has_lab {
            match ending {
                Ending::PowerOff { .. } | Ending::Reset { .. } | Ending::Quit => {
                    return Self::on_kernel(run_result);
                }
                Ending::GuestExit { vcpu, code } => {
                    let is_meant = expected.is_some_and(|exit| exit.is(ending));
                    let is_pass = ExitCode::try_from(*code) == Ok(ExitCode::Pass);
                    if is_meant || is_pass {
                        return Self::on_kernel(run_result);
                    }
                    let message = format!(
                        "CPU {vcpu} wrote {code:#x} to the exit port; if that is how it ends \
                         well, say so: --expect-exit {code:#x}"
                    );
                    return Self::new(Kind::Fail, message);
                }
                _ => {}
            }
        }
        let mut verdict = Self::new(Kind::Stalled, ending.to_string());
        match ending {
            Ending::GuestExit { vcpu, code } => {
                return Self::on_exit(*vcpu, *code, run_result, judgement);
            }
            Ending::PowerOff { .. } | Ending::Reset { .. } => {
                verdict.kind = Kind::Fail;
                verdict.message += ", and the guest has not said how it fared";
            }
            Ending::Panic { .. } if run_result.expected.is_any() => {
                return Self::on_kernel(run_result);
            }
            Ending::Dead { .. } | Ending::Panicked { .. } | Ending::Panic { .. } => {
                verdict.kind = Kind::Died;
            }
            Ending::Signal(signal) => {
                verdict.kind = Kind::Interrupted;
                verdict.signal = u8::try_from(*signal).ok();
            }
            Ending::Quit => return Self::on_quit(verdict, run_result, judgement),
            Ending::TimeOut(_) | Ending::NoProgress(_) => {}
            Ending::Script(failure) => {
                verdict.kind = match failure.kind {
                    script::FailureKind::Expectation | script::FailureKind::Over => Kind::Fail,
                    script::FailureKind::Bad | script::FailureKind::Host => Kind::BadScript,
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
                Self::on_expected(&run_result.expected, &judgement.oracles())
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
            _ if run_result.expected.is_any() => {
                Self::on_expected(&run_result.expected, &judgement.oracles())
            }
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

    /// The verdict on a guest without a lab whose run came to an end: by what its kernel has said of
    /// itself.
    fn on_kernel(run_result: &RunResult) -> Self {
        let log = &run_result.kernel_log;
        let expected = &run_result.expected;
        let is_meant = |kind: ComplaintKind| kind.is_failure() || expected.names(kind.name());
        let said = log.counts().filter(|(kind, _)| is_meant(*kind));
        let said: Vec<_> = said.map(|(kind, _)| kind.name()).collect();
        let ending = &run_result.ending;
        let is_cut_short = *ending == Ending::Quit;
        if expected.is_any() {
            let verdict = Self::on_expected(expected, &said);
            // What may have happened and has not is no more than a run that ended well; and of one that
            // was cut short nobody knows.
            if verdict.kind != Kind::Pass || !said.is_empty() && !is_cut_short {
                return verdict;
            }
        }
        let excused = |kind: ComplaintKind| expected.names(kind.name());
        let complaints = log.complaints().iter();
        let mut failures = complaints.filter(|it| it.kind.is_failure() && !excused(it.kind));
        let Some(first) = failures.next() else {
            let kind = match is_cut_short {
                true => Kind::Interrupted,
                false => Kind::Pass,
            };
            let warned = match log.total() {
                0 => "its kernel complained of nothing on its console".to_owned(),
                _ => {
                    let said = log.counts();
                    let said: Vec<_> = said
                        .map(|(kind, count)| format!("{count} {kind}"))
                        .collect();
                    format!(
                        "its kernel complained, which is no failure: {}",
                        said.join(", ")
                    )
                }
            };
            return Self::new(kind, format!("{ending}; {warned}"));
        };
        let kind = match said.contains(&ComplaintKind::Panic.name()) {
            true => Kind::Died,
            false => Kind::Fail,
        };
        let more = match log.total() {
            1 => String::new(),
            total => format!(", and {}", counted(total - 1, "more complaint")),
        };
        Self::new(
            kind,
            format!("{ending}; its kernel complained: {first}{more}"),
        )
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
    fn on_expected(expected: &Expected, found: &[&str]) -> Self {
        let (missing, surplus) = expected.against(found);
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
