//! `manual FOLDER`: writes the manual pages of `vmm` and `litmus-case` to FOLDER/man, and what
//! shells need to complete their command lines to FOLDER/bash, FOLDER/zsh and FOLDER/fish. A
//! program of its own, so that the commands do not carry what only who packs them needs.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

#[path = "../../src/command/mod.rs"]
#[expect(
    dead_code,
    reason = "what the command does is not done here, only told"
)]
mod command;

#[path = "../../../guest/litmus/src/bin/litmus-case.rs"]
#[expect(
    clippy::disallowed_methods,
    reason = "they are so in the VMM, of which that command is no part"
)]
#[expect(
    dead_code,
    reason = "what the command does is not done here, only told"
)]
mod litmus_case;

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("manual: name the folder to write to");
        return ExitCode::from(2);
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "manual: cannot write to {}: {error}",
                folder.to_string_lossy()
            );
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &OsString) -> io::Result<()> {
    let folder = Path::new(folder);
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    let commands: [fn() -> Command; 2] =
        [command::cli::Cli::command, litmus_case::Arguments::command];
    for command in commands {
        let name = command().get_name().to_owned();
        for shell in SHELLS {
            let scripts = folder.join(shell.to_string());
            fs::create_dir_all(&scripts)?;
            clap_complete::generate_to(shell, &mut command(), &name, scripts)?;
        }
        // `help COMMAND` says what the page of COMMAND says.
        let shown = command()
            .disable_help_subcommand(true)
            .mut_subcommands(|it| it.disable_help_subcommand(true));
        clap_mangen::generate_to(shown, &pages)?;
    }
    Ok(())
}
