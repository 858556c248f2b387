//! The portable part of the guest: the generic-ipi path, its oracles and its workloads.
//!
//! Nothing here knows x86, KVM or a monitor. What it needs of the machine is the one trait
//! [`platform::Platform`]; the image implements it on bare metal (`main.rs`), the tests on threads.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod platform;
