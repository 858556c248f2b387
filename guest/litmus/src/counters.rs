//! What each CPU counts of its own.

use kit::manifest::CounterRole::{Done, Planned};
use kit::manifest::PROGRESS;

kit::counters! {
    /// The counters of one CPU.
    pub struct CpuCounters {
        /// Programs run from their first instruction to their last, one a round.
        programs.reckoned(Done).with(PROGRESS)
            .shown("litmus", "programs", "{} programs run", "litmus_programs_total");
        /// Programs that will be run, one a round.
        programs_planned.reckoned(Planned);
        /// Deeds done, as CPUs were told, and reads by handlers that were asked for them.
        deeds.with(PROGRESS).shown("litmus", "deeds", "{} deeds done", "litmus_deeds_total");
    }
}
