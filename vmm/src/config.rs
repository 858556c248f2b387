//! What to run, and how: a machine's configuration, with a default for everything but the guest.
//! How results are shown is not part of it, and nothing in it has an effect outside the machine.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use regex::bytes::Regex;

use crate::control::operator::Operator;
use crate::control::{Limits, PlannedStall, Show, Stalls, Steal, Stream, Tracing};
use crate::cpus::CpuSet;
use crate::machine::guest::Guest;
#[cfg(doc)]
use crate::machine::lifecycle::State;
use crate::provenance::Input;
#[cfg(doc)]
use crate::stats::sources::Sources;
use crate::stats::sources::Trials;
use crate::stats::trace_filter::TraceFilter;
use crate::verdict::ExpectedExit;

/// What to run, and how.
///
/// ```
/// use std::time::Duration;
/// use vmm::Config;
///
/// let config = Config::new("target/guest.bin")
///     .vcpus(4)
///     .append("queue=filo workload=selftest")
///     .timeout(Duration::from_secs(60));
/// assert_eq!(config.vcpus, 4);
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest image. Only a scenario can do without one, if its script names the image.
    pub guest: Option<Guest>,
    /// Number of vCPUs, 1 to 1024.
    pub vcpus: u32,
    /// MiB of RAM; `None` for as much as the vCPUs need.
    pub memory: Option<u64>,
    /// The guest's command line, to which the lab is added.
    pub append: String,
    /// A file that is placed in the guest's memory, of which its start info tells it.
    pub initrd: Option<PathBuf>,
    /// A file that names the functions of the image, if the image does not.
    pub symbols: Option<PathBuf>,
    /// The line on the guest's console with which its workload starts. A guest of the bench says so
    /// by its doorbell.
    pub start_at: Option<Regex>,
    /// How the run has to end, if not as any does that ends well.
    pub expected_exit: Option<ExpectedExit>,
    /// How long the run may take.
    pub limits: Limits,
    /// The planned stalls, which keep vCPUs out of the guest.
    pub stalls: Stalls,
    /// Host CPUs to bind the vCPUs to, in turn; `None` to let the host schedule them anywhere.
    pub pin: Option<CpuSet>,
    /// Where the guest's console goes.
    pub console: Stream,
    /// Whether what the guest prints there keeps its control characters. Else they are spelled out,
    /// but for line ends and tabs, and so is what is not UTF-8. A console that is captured is kept
    /// as it is.
    pub raw_console: bool,
    /// What to trace from the start of the workload on.
    pub trace: Tracing,
    /// Which of the traced events are to be written. It is checked against the guest before that
    /// runs, and applied by [`perfetto::write`](crate::report::perfetto::write).
    pub trace_filter: TraceFilter,
    /// What to show of the run while it goes on, and where.
    pub show: Show,
    /// The sources of counts other than the VMM itself, and which of them can be believed, once
    /// that has been tried. With `None` that is not tried, and nothing of what they count is
    /// reported.
    pub sources: Option<Trials>,
    /// Of a run that fails, how many calls of each CPU are recorded as a case, those nearest to the
    /// failure; `None` for no case.
    pub record: Option<usize>,
    /// Is handed the operator of each machine.
    pub attendant: Option<Attendant>,
    /// The script that drives the machine, if there is one.
    pub script: Option<Input>,
    /// The number of the signal because of which a script is to stop that has no machine just now;
    /// 0 for none. A machine is ended through its operator.
    pub interrupted: Arc<AtomicI32>,
}

impl Default for Config {
    /// One vCPU with as much memory as it needs, no guest, no limits, and a console that is kept
    /// for the [`Outcome`](crate::Outcome).
    fn default() -> Self {
        Self {
            guest: None,
            vcpus: 1,
            memory: None,
            append: String::new(),
            initrd: None,
            symbols: None,
            start_at: None,
            expected_exit: None,
            limits: Limits::default(),
            stalls: Stalls::default(),
            pin: None,
            console: Stream::Captured,
            raw_console: false,
            trace: Tracing::NOTHING,
            trace_filter: TraceFilter::default(),
            show: Show::Nothing,
            sources: None,
            record: None,
            attendant: None,
            script: None,
            interrupted: Arc::default(),
        }
    }
}

impl Config {
    /// A machine that boots `guest`: the path of an image, or a [`Guest`] made of bytes.
    pub fn new(guest: impl Into<Guest>) -> Self {
        Self {
            guest: Some(guest.into()),
            ..Self::default()
        }
    }

    /// With so many vCPUs.
    #[must_use]
    pub fn vcpus(self, vcpus: u32) -> Self {
        Self { vcpus, ..self }
    }

    /// With so many MiB of RAM.
    #[must_use]
    pub fn memory(self, mib: u64) -> Self {
        Self {
            memory: Some(mib),
            ..self
        }
    }

    /// With this initrd.
    #[must_use]
    pub fn initrd(self, path: impl Into<PathBuf>) -> Self {
        Self {
            initrd: Some(path.into()),
            ..self
        }
    }

    /// With these words at the end of the guest's command line. Of several words with one key the
    /// guest takes the last.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        if !self.append.is_empty() {
            self.append.push(' ');
        }
        self.append.push_str(words);
        self
    }

    /// Ends the run after this time.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = Some(limit);
        self
    }

    /// Ends the run when nothing has moved for this time. Not for programs that pause vCPUs for
    /// longer.
    #[must_use]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.limits.watchdog = Some(limit);
        self
    }

    /// Keeps a vCPU out of the guest once, in addition to the stalls named before.
    #[must_use]
    pub fn stall(mut self, stall: PlannedStall) -> Self {
        self.stalls.once.push(stall);
        self
    }

    /// Takes vCPUs away at random, as a busy host does.
    #[must_use]
    pub fn steal(mut self, steal: Steal) -> Self {
        self.stalls.steal = Some(steal);
        self
    }

    /// Binds the vCPUs to these host CPUs, in turn.
    #[must_use]
    pub fn pin(self, cpus: CpuSet) -> Self {
        Self {
            pin: Some(cpus),
            ..self
        }
    }

    /// Writes the guest's console there.
    #[must_use]
    pub fn console(self, console: Stream) -> Self {
        Self { console, ..self }
    }

    /// Traces this, from the start of the workload on.
    #[must_use]
    pub fn trace(self, trace: Tracing) -> Self {
        Self { trace, ..self }
    }

    /// Shows this of the run while it goes on.
    #[must_use]
    pub fn show(self, show: Show) -> Self {
        Self { show, ..self }
    }

    /// Reports what these sources count as well. [`Sources::prove`] finds out which of them can be
    /// believed on this host, before the run; [`Trials::begin`] does so of KVM's statistics while
    /// the machine is built and runs, and the run ends with the later of both.
    #[must_use]
    pub fn sources(self, sources: impl Into<Trials>) -> Self {
        Self {
            sources: Some(sources.into()),
            ..self
        }
    }

    /// Hands `attend` the operator of each machine before the first vCPU enters the guest. `attend`
    /// is called on the thread that runs the machine, which waits for it. It can pause and hold
    /// vCPUs: one that it pauses stays [`State::Created`] until it is resumed. It must not wait for
    /// anything that the guest has to do.
    #[must_use]
    pub fn attended_by(self, attend: impl Fn(&Arc<Operator>) + Send + Sync + 'static) -> Self {
        Self {
            attendant: Some(Attendant(Arc::new(attend))),
            ..self
        }
    }
}

/// A function that is handed the operator of each machine; see [`Config::attended_by`].
#[derive(Clone)]
pub struct Attendant(Arc<Attend>);

type Attend = dyn Fn(&Arc<Operator>) + Send + Sync;

impl Attendant {
    pub(crate) fn attend(&self, operator: &Arc<Operator>) {
        (self.0)(operator);
    }
}

impl fmt::Debug for Attendant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attendant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_added_and_the_last_of_a_kind_counts() {
        let config = Config::new("guest.bin").append("queue=fifo");
        assert_eq!(config.append, "queue=fifo");
        let config = config.append("seed=7").append("queue=filo");
        assert_eq!(config.append, "queue=fifo seed=7 queue=filo");
    }
}
