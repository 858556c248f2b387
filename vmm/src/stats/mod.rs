//! What a run cost: KVM's own statistics and tracepoints, exits to userspace and the guest's IPI
//! counters, sampled together and subtracted over the workload; and what was traced, event by
//! event. Reads and computes; prints nothing.

pub mod binary;
pub mod cycles;
pub mod latency;
pub mod meaning;
pub mod rounds;
pub mod sources;
pub mod timeline;
pub mod trace;
pub mod tracepoints;
pub mod window;
