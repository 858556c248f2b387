//! What a run cost: KVM's own statistics, exits to userspace and the guest's IPI counters, sampled
//! together and subtracted over the workload. Reads counters; prints nothing.

pub mod binary;
pub mod window;
