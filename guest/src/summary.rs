//! The guest's own summary at the end of a run, for the console and the exit port.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kit::lab::{CpuTally, Lab};
use shared::exit::ExitCode;
use shared::lab::{Finding, MAX_FINDINGS};
use shared::ledger::CallId;

use crate::oracle::Oracle;

/// The summary of a run, taken when nothing is in flight.
#[derive(Clone, Copy, Debug)]
pub struct RunSummary {
    lab: Lab,
    made: u64,
    expected: u64,
    executed: u64,
}

impl RunSummary {
    /// Adds up the tallies of `lab`. If the sums do not agree, that is itself a finding.
    pub(crate) fn of(lab: Lab, tsc: u64) -> Self {
        let sum = |count: fn(&CpuTally) -> &AtomicU64| {
            (0..lab.cpus())
                .map(|cpu| count(lab.tally(cpu)).load(Ordering::Relaxed))
                .sum()
        };
        let summary = Self {
            lab,
            made: sum(|tally| &tally.calls_made),
            expected: sum(|tally| &tally.calls_expected),
            executed: sum(|tally| &tally.calls_executed),
        };
        if summary.expected != summary.executed {
            lab.report(Oracle::Accounting as u32, 0, 0, tsc, summary.executed);
        }
        summary
    }

    /// What to write to the exit port.
    pub fn code(&self) -> ExitCode {
        self.lab.conclusion()
    }
}

impl RunSummary {
    /// How many findings of each oracle there are, if not all are shown one by one.
    fn add_up(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "and more, in all")?;
        let counts = Oracle::ALL.map(|oracle| (oracle, self.lab.found(oracle as u32)));
        let mut comma = "";
        for (oracle, count) in counts {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                write!(f, "{comma} {count} {}", oracle.name())?;
                comma = ",";
            }
        }
        writeln!(f)
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.lab.findings() {
            describe(f, &finding)?;
        }
        if self.lab.findings_made() > MAX_FINDINGS {
            self.add_up(f)?;
        }
        let Self {
            made,
            expected,
            executed,
            ..
        } = self;
        let made_findings = self.lab.findings_made();
        let word = match self.code() {
            ExitCode::Pass => "pass",
            _ => "FAIL",
        };
        write!(
            f,
            "{word}: {made} calls made, {executed} of {expected} executions, \
             {made_findings} findings"
        )
    }
}

fn describe(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let call = CallId::from_raw(finding.call);
    match finding.call {
        0 => write!(f, "the path")?,
        _ => write!(f, "call {} of CPU {}", call.sequence(), call.source())?,
    }
    let what = Oracle::try_from(finding.oracle).map_or("broke an unknown oracle", Oracle::describe);
    writeln!(
        f,
        " {what}: seen on CPU {}, {:#x}",
        finding.cpu, finding.seen
    )
}
