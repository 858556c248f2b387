//! What cannot be counted: where the designs come from, what a caller waits for, and what is wrong
//! with them.

use guest::ipi::queue::QueueKind;

/// What is said of one design.
#[derive(Debug)]
pub struct Words {
    /// The Linux it was in, if any.
    pub linux: &'static str,
    /// What a caller waits for, whether or not it waits for its call.
    pub waits: &'static str,
    /// Where memory comes from while the path is in use.
    pub allocates: &'static str,
    /// What is wrong with it, or what it costs.
    pub wrong: &'static str,
}

const BY_CPU: &str = "nothing; a mask comes with its CPU";

/// What is said of `design`.
pub fn words(design: QueueKind) -> Words {
    let (linux, waits, allocates, wrong) = match design {
        QueueKind::Kmalloc => (
            "2.6.27–28",
            "nothing; without memory, its own call",
            "an element per call, or the stack",
            "without memory, a walker can stand on a stack that was left",
        ),
        QueueKind::Fifo => (
            "as posted",
            "csd lock",
            BY_CPU,
            "loses a call behind a reused element",
        ),
        QueueKind::Filo => (
            "2.6.30–31",
            "csd lock",
            BY_CPU,
            "newest first; walks have no bound",
        ),
        QueueKind::Counters => (
            "thread",
            "csd lock, then each walk under way",
            BY_CPU,
            "a look at every CPU, per call",
        ),
        QueueKind::CountersNofence => (
            "—",
            "csd lock, then each walk it can see",
            BY_CPU,
            "reuse under a walker not yet announced",
        ),
        QueueKind::SharedRefs => (
            "thread",
            "csd lock, flip lock, then each group",
            BY_CPU,
            "callers queue for the flip",
        ),
        QueueKind::SharedRefsNaive => (
            "—",
            "csd lock, flip lock, then each group",
            BY_CPU,
            "reuse under a walker that joined late",
        ),
        QueueKind::CountingRcu => (
            "thread",
            "csd lock, then nobody walking at all",
            BY_CPU,
            "the wait has no bound",
        ),
        QueueKind::Lockless => (
            "2.6.32–37",
            "csd lock",
            BY_CPU,
            "a straggler runs a call before it is queued",
        ),
        QueueKind::Lockless2011a => (
            "2.6.38",
            "csd lock",
            BY_CPU,
            "an element can be taken out before it is in",
        ),
        QueueKind::Fixed2011 => (
            "2.6.39–3.8",
            "csd lock",
            BY_CPU,
            "newest first; walks have no bound",
        ),
        QueueKind::Llist => (
            "3.13 on",
            "csd lock of each pair",
            "nothing",
            "state grows as the square of the CPUs",
        ),
    };
    Words {
        linux,
        waits,
        allocates,
        wrong,
    }
}
