//! `versus CASE GUEST`: how fast `vmm explore` searches, side by side with shuttle, on the same
//! calls of the same portable code. It measures and prints. The case says what is searched, and the
//! two explorers search it.

#[cfg(shuttle)]
mod command;
#[cfg(shuttle)]
mod measure;
#[cfg(shuttle)]
mod ours;
#[cfg(shuttle)]
mod search;
#[cfg(shuttle)]
mod table;
#[cfg(shuttle)]
mod theirs;

use std::process::ExitCode;

#[cfg(shuttle)]
fn main() -> ExitCode {
    command::main()
}

/// There is nothing to compare with.
#[cfg(not(shuttle))]
fn main() -> ExitCode {
    eprintln!("versus: built without shuttle; run `make bench-explorer`");
    ExitCode::from(2)
}
