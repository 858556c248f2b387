//! KVM's tracepoints, counted per vCPU thread through `perf_event_open`, one counter for each kind
//! of event. [`super::sources`] finds out which of them can be believed.

pub mod events;
pub mod format;
mod perf;
mod tracefs;

use std::io;

pub use events::{Event, Isa};
pub use perf::Counter;
pub use tracefs::Tracefs;

/// How a user gets the permissions: one to count, and one to read tracefs.
pub(super) const GRANT: &str =
    "setcap cap_perfmon,cap_dac_read_search+ep on the vmm command, or run it as root";

/// What can be counted on this host, and believed.
#[derive(Debug, Clone, Default)]
pub struct Tracepoints {
    /// The events, each with the id of its tracepoint.
    events: Vec<(u64, Event)>,
}

impl Tracepoints {
    /// The given `events`, each with the id of its tracepoint.
    pub fn new(events: Vec<(u64, Event)>) -> Self {
        Self { events }
    }

    /// The events, in the order in which they are sampled.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|(_, event)| event)
    }

    /// How many counters, and open files, each thread takes.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Counts them on thread `tid` from now on.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn count(&self, tid: libc::pid_t) -> io::Result<Counters> {
        let open = |(id, event): &(u64, Event)| Counter::open(*id, event.filter.as_deref(), tid);
        let counters = self.events.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Counters(counters))
    }
}

/// The counters of one thread.
#[derive(Debug)]
pub struct Counters(Vec<Counter>);

impl Counters {
    /// The counts so far, in the order of [`Tracepoints::events`].
    ///
    /// # Errors
    /// What the kernel said.
    pub fn sample(&self) -> io::Result<Vec<u64>> {
        self.0.iter().map(Counter::read).collect()
    }
}
