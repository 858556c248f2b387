//! The bare-metal image: a unikernel in which the kit brings all CPUs up, and litmus tests run on
//! them. `guest/build -p litmus` makes it. It is checked by
//! `cargo clippy -p litmus --features image --bin litmus --profile guest`.

#![no_std]
#![no_main]

use kit::metal::platform::Metal;

use litmus::guest::Litmus;
use litmus::vectors::ASKED;

kit::guest!(Litmus<Metal>, [ASKED]);
