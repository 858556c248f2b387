//! The `vmm` command: does what its command line asks for.

mod command;

use std::process::ExitCode;

use vmm::machine::limits;

use command::cli::Cli;
use command::complain;

fn main() -> ExitCode {
    let cli = Cli::read();
    // May fail: a machine that needs more open files says so itself.
    let _ = limits::raise();
    match cli.execute() {
        Ok(status) => ExitCode::from(status),
        Err(refused) => {
            complain(&refused.message);
            ExitCode::from(refused.status)
        }
    }
}
