//! The bare-metal image: a unikernel in which the kit brings all CPUs up, and the generic-ipi guest
//! runs on them.
//!
//! It is an ELF64 file with a PVH entry note and boots under any monitor that speaks PVH.
//! `guest/build` builds it, for whichever target is installed, and says how. It is checked by
//! `cargo clippy -p guest --features image --bin guest --profile guest`.

#![no_std]
#![no_main]

use kit::metal::platform::Metal;

use guest::Guest;
use guest::vectors::{MANY, MEASURED, SINGLE, TIMER};

kit::guest!(Guest<Metal>, [SINGLE, MANY, MEASURED, TIMER]);
