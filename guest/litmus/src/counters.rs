//! What each CPU counts of its own.

use kit::manifest::PROGRESS;

kit::counters! {
    /// The counters of one CPU.
    pub struct CpuCounters {
        /// Programs run from their first instruction to their last, one a round.
        programs.with(PROGRESS)
            .shown("litmus", "programs", "{} programs run", "litmus_programs_total");
        /// Deeds done, as CPUs were told, and reads by handlers that were asked for them.
        deeds.with(PROGRESS).shown("litmus", "deeds", "{} deeds done", "litmus_deeds_total");
    }
}
