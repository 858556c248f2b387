//! A hypervisor as a laboratory bench for cross-CPU calls: boots one guest on as many vCPUs as asked
//! for, lets its workload run, counts what the inter-processor interrupts cost, and judges from the
//! guest's ledger whether every call ran exactly once where it had to.

pub mod lab;
pub mod machine;
pub mod stats;
