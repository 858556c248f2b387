//! The one word and the one sentence on how a run ended. The guest's own word is heard, and believed
//! only as far as the ledger bears it out.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use shared::exit::ExitCode;
use shared::lab::Oracle;

use crate::control::operator::Expected;
use crate::control::{Aftermath, Ending, script};
use crate::lab::Lab;
use crate::lab::judge;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every oracle held.
    Pass,
    /// An oracle did not hold.
    Fail,
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
        // The word of the JSON document, so that both reports say the same.
        self.serialize(f)
    }
}

/// How a run ended, and why that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In one word.
    pub kind: Kind,
    /// In a sentence.
    pub message: String,
    /// Whether the workload came to its end, so that the ledger has to be in order.
    pub judged: bool,
    signal: Option<u8>,
}

impl Verdict {
    /// The verdict on a run.
    pub fn on(aftermath: &Aftermath, lab: &Lab) -> Self {
        let ending = &aftermath.ending;
        let mut verdict = Self::new(Kind::Stalled, ending.to_string());
        match ending {
            Ending::GuestExit { vcpu, code } => return Self::on_exit(*vcpu, *code, aftermath, lab),
            Ending::Dead { .. } | Ending::Panicked { .. } => verdict.kind = Kind::Died,
            Ending::Signal(signal) => {
                verdict.kind = Kind::Interrupted;
                verdict.signal = u8::try_from(*signal).ok();
            }
            Ending::Quit => verdict.kind = Kind::Interrupted,
            Ending::TimeOut(_) | Ending::NoProgress(_) => {}
            Ending::Script(failure) => {
                verdict.kind = match failure.kind {
                    script::Kind::Expectation => Kind::Fail,
                    script::Kind::Bad => Kind::BadScript,
                    script::Kind::Over => Kind::Died,
                    script::Kind::Stuck => Kind::Stalled,
                }
            }
        }
        verdict
    }

    /// The status with which the command ends.
    pub fn exit_status(&self) -> u8 {
        match self.kind {
            Kind::Pass => 0,
            Kind::Fail => 1,
            Kind::BadOptions | Kind::BadScript => 2,
            Kind::Died => 4,
            Kind::Stalled => 5,
            // As a shell has it for a command that a signal ended. Who asks for an end gets it.
            Kind::Interrupted => self
                .signal
                .map_or(0, |signal| 128_u8.saturating_add(signal)),
        }
    }

    fn new(kind: Kind, message: String) -> Self {
        Self {
            kind,
            message,
            judged: false,
            signal: None,
        }
    }

    fn on_exit(vcpu: u32, code: u32, aftermath: &Aftermath, lab: &Lab) -> Self {
        let online = lab.header().cpus_online;
        match ExitCode::try_from(code) {
            Ok(ExitCode::Pass | ExitCode::Fail) if aftermath.expected.is_any() => Self {
                judged: true,
                ..Self::on_expected(&aftermath.expected, lab)
            },
            Ok(ExitCode::Pass) => Self {
                judged: true,
                ..Self::on_pass(aftermath, lab)
            },
            Ok(ExitCode::Fail) => {
                let message = match lab.header().findings_made {
                    0 => "the guest says that an oracle failed".to_owned(),
                    made => format!("the guest's oracles made {made} findings"),
                };
                Self {
                    judged: true,
                    ..Self::new(Kind::Fail, message)
                }
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
                format!(
                    "the guest cannot use this machine; {online} of {} CPUs came up",
                    aftermath.vcpus
                ),
            ),
            Err(code) => Self::new(
                Kind::Died,
                format!("CPU {vcpu} wrote {code:#x} to the exit port, which means nothing"),
            ),
        }
    }

    /// A run that is to show something broken passes if that, and nothing else, was found.
    fn on_expected(expected: &Expected, lab: &Lab) -> Self {
        let by_guest = lab.findings().into_iter();
        let by_guest = by_guest.map(|finding| Oracle::try_from(finding.oracle));
        let here = judge::judge(lab).first.into_iter();
        let mut found: Vec<_> = by_guest
            .chain(here.map(|breach| Ok(breach.oracle)))
            .collect();
        found.sort_unstable_by_key(|oracle| oracle.map_or_else(|number| number, |it| it as u32));
        found.dedup();
        let known: Vec<_> = found.iter().copied().filter_map(Result::ok).collect();
        let (missing, surplus) = expected.against(&known);
        let names = |oracles: &[Oracle]| {
            let names: Vec<_> = oracles.iter().map(|oracle| oracle.name()).collect();
            names.join(", ")
        };
        if !missing.is_empty() {
            let message = format!("nothing was {}, as was expected", names(&missing));
            return Self::new(Kind::Fail, message);
        }
        if !surplus.is_empty() || known.len() < found.len() {
            let found = names(&surplus);
            return Self::new(
                Kind::Fail,
                format!("found beside what was expected: {found}"),
            );
        }
        Self::new(Kind::Pass, format!("as expected: {}", names(&known)))
    }

    fn on_pass(aftermath: &Aftermath, lab: &Lab) -> Self {
        if !lab.is_used() {
            return Self::new(
                Kind::Pass,
                "the guest says pass; it kept no ledger".to_owned(),
            );
        }
        let header = lab.header();
        let breaches = judge::judge(lab).total;
        let message = if header.findings_made > 0 {
            format!(
                "the guest says pass, with {} findings of its own",
                header.findings_made
            )
        } else if header.cpus_online != aftermath.vcpus {
            format!(
                "the guest says pass, with {} of {} CPUs up",
                header.cpus_online, aftermath.vcpus
            )
        } else if breaches > 0 {
            format!("the guest says pass, and its ledger is wrong in {breaches} places")
        } else {
            let made = lab.totals().made;
            return Self::new(
                Kind::Pass,
                format!("{made} calls, each exactly once where it had to"),
            );
        };
        Self::new(Kind::Fail, message)
    }
}

#[cfg(test)]
#[path = "verdict_test.rs"]
mod tests;
