//! What each CPU counts of its calls. Each event is counted where it happens. Nothing that the
//! guest does, and no oracle, depends on these counts: oracles judge the
//! [tally](kit::lab::CpuTally). The manifest says what each figure is. To add a counter, add it to
//! the list here, and count it where it happens.

use core::sync::atomic::Ordering;

use kit::counters::count;
use kit::manifest::CounterRole::{Departed, Done, Empty, Planned, SentForCalls};
use kit::manifest::PROGRESS;
use kit::{counters, number_of};

counters! {
    /// The counters of one CPU, as that CPU and its interrupt handlers write them.
    pub struct CpuCounters {
        /// Handlers of calls that found nothing to do: an earlier one had done it.
        empty_received.reckoned(Empty);
        /// Elements of the global queue that walks stood on.
        visits.shown("walks", "visits", "stood on {} elements", "walk_visits_total");
        /// Elements in the longest walk along the global queue.
        longest_walk.largest().part_of(number_of!(CpuCounters, visits))
            .shown("walks", "longest", "the longest on {}", "longest_walk_elements");
        /// Times a CPU was taken offline.
        cpus_taken_down.reckoned(Departed).with(PROGRESS)
            .shown("hotplug", "taken_down", "{} times down", "cpus_taken_down_total");
        /// Times a CPU was brought online, after the boot.
        cpus_brought_up.with(PROGRESS)
            .shown("hotplug", "brought_up", "{} times up", "cpus_brought_up_total");
        /// Requests for memory while the path was in use.
        allocations.shown("memory", "requests", "{} requests", "memory_requests_total");
        /// Requests for memory that were refused.
        refused.part_of(number_of!(CpuCounters, allocations))
            .shown("memory", "refused", "{} refused", "memory_requests_refused_total");
        /// Operations that sent IPIs of the single and many vectors: those by which calls are told to their targets.
        call_ipis_sent.reckoned(SentForCalls);
        /// Deeds of functions and timers that were refused, and so left out.
        deeds_refused;
        /// Pairs of CPUs that the selftest calls, or takes a sample of; a CPU with itself is one.
        cpu_pairs.shown("selftest", "pairs", "{} pairs of CPUs", "selftest_pairs_total");
        /// Pairs of CPUs of which the one has called the other in the selftest.
        cpu_pairs_called.part_of(number_of!(CpuCounters, cpu_pairs))
            .shown("selftest", "pairs_called", "{} of them called", "selftest_pairs_called_total");
        /// CPUs that called sets of CPUs, and all at once, in the selftest.
        many_callers
            .shown("selftest", "callers", "calls to many from {} CPUs", "selftest_callers_total");
        /// Steps that the workload will do: a step of a selftest calls one CPU, or several, and a step of a stress is an operation.
        steps_planned.reckoned(Planned);
        /// Steps of the workload that have been done.
        steps_done.reckoned(Done);
    }
}

impl CpuCounters {
    /// Records a walk along the global queue that stood on `visits` elements.
    pub fn count_walk(&self, visits: u64) {
        count(&self.visits, visits);
        self.longest_walk.fetch_max(visits, Ordering::Relaxed);
    }
}
