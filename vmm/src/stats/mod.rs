//! What a run cost: KVM's own statistics and tracepoints, exits to userspace and the guest's IPI
//! counters, sampled together, as differences over the workload; and the events of a trace. Reads
//! and computes; prints nothing.

pub mod binary;
pub mod cycles;
pub mod latency;
pub mod marks;
pub mod meaning;
pub mod rounds;
pub mod sources;
pub mod timeline;
pub mod trace;
pub mod trace_filter;
pub mod tracepoints;
pub mod window;
