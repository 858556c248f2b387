//! The `vmm` command: does what its command line asks for.

#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make files"))]

mod command;

use std::process::ExitCode;

use vmm::chain;
use vmm::machine::limits;

use command::cli::Cli;
use command::complain;
use command::signals::take_file_size_limit_for_an_error;

fn main() -> ExitCode {
    // First: to read the command line takes more stack than a low limit leaves.
    if let Err(error) = limits::raise_stack() {
        complain(&chain(&error));
        return ExitCode::from(3);
    }
    let cli = Cli::read();
    take_file_size_limit_for_an_error();
    // May fail: a machine that needs more open files says so itself.
    let _ = limits::raise();
    limits::limit_heaps();
    match cli.execute() {
        Ok(status) => ExitCode::from(status),
        Err(refused) => {
            complain(&refused.message);
            ExitCode::from(refused.status)
        }
    }
}
