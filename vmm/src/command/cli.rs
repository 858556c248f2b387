//! The command line as a whole: the subcommands, the options that all of them have, and which
//! module does the work of which.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use vmm::closest::closest;
use vmm::confinement::{Confinement, ConfinementError, Files, confine};
use vmm::control_characters::{spell_out, spell_out_all};

use super::log::{self, Level};
use super::printing::{complain, listed, say};
use super::{
    Refused, bench, chain, compare, ctl, describe, explore, installed, merge, probes, reduce,
    replay, run, schema,
};

/// Boots a guest, runs its workload, and reports what its cross-CPU calls did and what they cost.
#[derive(Debug, Parser)]
#[command(
    name = "vmm",
    version = vmm::provenance::VERSION,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "Exit status:\n  \
        0  every oracle held, and everything that a script expects was so\n  \
        1  an oracle failed, or an expectation; the report says for which call, on which CPU; or \
           what\n     the guest recorded contradicts itself\n  \
        2  bad usage, bad guest image, bad script, or options the guest does not know\n  \
        3  this host cannot do it; the message says what is missing\n  \
        4  the guest died: registers, code and backtrace are shown\n  \
        5  time-out or no progress: it is shown where each vCPU stands\n  \
        6  a thread made a system call that it must not make, which is named\n  \
        128+N  ended by signal N, such as 130 for ^C, with what was known by then\n\n\
        Example:\n  vmm --vcpus 4 target/guest.bin\n  \
        vmm describe target/guest.bin   says what can be appended"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Say on standard error what the command does, with time and thread
    #[arg(long, value_name = "LEVEL", value_enum, global = true)]
    log: Option<Level>,

    /// Do not limit which system calls each thread may make, such as under a debugger; see
    /// docs/security.md
    #[arg(long, global = true)]
    no_seccomp: bool,

    /// Do not limit which files may be opened; see docs/security.md
    #[arg(long, global = true)]
    no_landlock: bool,

    #[command(flatten)]
    run: run::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure what IPIs and calls cost on this host
    Bench(bench::Arguments),
    /// Show two runs, or two benches, side by side: what differs, and whether that says anything
    Compare(compare::Arguments),
    /// Ask a running vmm, at its control socket, one thing
    Ctl(ctl::Arguments),
    /// Say what a guest image says of itself
    Describe(describe::Arguments),
    /// Search the orders of a case's steps for one that breaks something
    Explore(explore::Arguments),
    /// Put together what the shards of one search came to
    Merge(merge::Arguments),
    /// List the points of a guest image at which a CPU can be held
    Probes(probes::Arguments),
    /// Make a case smaller that breaks something
    Reduce(reduce::Arguments),
    /// Run a schedule that explore has found again
    Replay(replay::Arguments),
    /// Print the JSON Schema of a document; see docs/formats.md
    Schema(schema::Arguments),
}

impl Cli {
    /// The command line of this process. If it makes no sense, says so and ends the process, as for
    /// `--help`.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            let words: Vec<_> = std::env::args_os().skip(1).collect();
            if error.use_stderr()
                && let Some(tip) = subcommand_meant(&words)
            {
                let command = &mut Self::command();
                end(&command.error(ErrorKind::InvalidSubcommand, tip));
            }
            end(&error)
        })
    }

    /// What this process is limited to while it does that.
    fn confinement(&self) -> Confinement {
        let (mut files, counting) = match &self.command {
            None => (self.run.files(), self.run.counts()),
            Some(Command::Bench(arguments)) => (arguments.files(), true),
            Some(Command::Compare(arguments)) => (arguments.files(), false),
            Some(Command::Describe(arguments)) => (arguments.files(), false),
            Some(Command::Explore(arguments)) => (arguments.files(), false),
            Some(Command::Merge(arguments)) => (arguments.files(), false),
            Some(Command::Probes(arguments)) => (arguments.files(), false),
            Some(Command::Reduce(arguments)) => (arguments.files(), false),
            Some(Command::Replay(arguments)) => (arguments.files(), false),
            Some(Command::Ctl(arguments)) => (arguments.files(), false),
            Some(Command::Schema(_)) => (Files::default(), false),
        };
        files.read.extend(installed::folders());
        Confinement {
            files,
            counting,
            without_seccomp: self.no_seccomp,
            without_landlock: self.no_landlock,
        }
    }

    /// Does what the command line asks for, and returns the exit status.
    ///
    /// # Errors
    /// [`Refused`] if that was not possible.
    pub fn execute(&self) -> Result<u8, Refused> {
        if let Some(level) = self.log {
            log::begin(level);
        }
        // A process that is confined makes no such socket any more.
        let debugger = match &self.command {
            None => self.run.debugger()?,
            Some(Command::Explore(arguments)) => arguments.debugger()?,
            Some(Command::Replay(arguments)) => arguments.debugger()?,
            Some(_) => None,
        };
        confine(&self.confinement()).map_err(|error| Refused {
            message: chain(&error),
            status: ConfinementError::STATUS,
        })?;
        match &self.command {
            None => run::run(&self.run, debugger).map_err(|mut refused| {
                let word = self.run.guest.clone().map(PathBuf::into_os_string);
                if let Some(tip) = subcommand_meant(word.as_slice()) {
                    refused.message += &format!("; {tip}");
                }
                refused
            }),
            Some(Command::Bench(arguments)) => bench::run(arguments),
            Some(Command::Compare(arguments)) => compare::run(arguments),
            Some(Command::Ctl(arguments)) => ctl::run(arguments),
            Some(Command::Describe(arguments)) => describe::run(arguments),
            Some(Command::Explore(arguments)) => explore::run(arguments, debugger),
            Some(Command::Merge(arguments)) => merge::run(arguments),
            Some(Command::Probes(arguments)) => probes::run(arguments),
            Some(Command::Reduce(arguments)) => reduce::run(arguments),
            Some(Command::Replay(arguments)) => replay::run(arguments, debugger),
            Some(Command::Schema(arguments)) => schema::run(arguments),
        }
    }
}

/// Says what `error` says, which is also what `--help` asks for, and ends the process.
fn end(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let quoted = spell_out_words(&text, std::env::args_os());
    let printed = match error.use_stderr() {
        // It quotes the command line, where names of files can have anything.
        true if spell_out(&quoted) != text => say(&quoted),
        // In colours, where they can be seen.
        _ => error.print(),
    };
    // Where nobody can be told that it makes no sense, the status still says so.
    let is_error = error.use_stderr();
    let status = match listed("it", printed) {
        Err(refused) if !is_error => {
            complain(&refused.message);
            refused.status.into()
        }
        _ => error.exit_code(),
    };
    process::exit(status)
}

/// `text` without control characters in the `words` of the command line that it quotes, or in the
/// values of options among them.
fn spell_out_words(text: &str, words: impl IntoIterator<Item = OsString>) -> String {
    let mut text = text.to_owned();
    for word in words {
        let word = word.to_string_lossy();
        let value = word.split_once('=').map(|(_, value)| value);
        for quoted in [Some(&*word), value].into_iter().flatten() {
            if let Cow::Owned(shown) = spell_out_all(quoted) {
                text = text.replace(quoted, &shown);
            }
        }
    }
    text
}

/// What to say of the words of a command line that makes no sense, if a subcommand is meant: its
/// name is nearly right, or does not come first. Whatever comes first and is no subcommand is taken
/// for a guest image.
fn subcommand_meant(words: &[OsString]) -> Option<String> {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    let names: Vec<_> = shown.map(clap::Command::get_name).collect();
    let first = words.first()?.to_str()?;
    if names.contains(&first) && words.len() > 1 || installed::is_there(first.as_ref()) {
        return None;
    }
    // What has a dot is the name of an image.
    if !first.starts_with('-')
        && !first.contains('.')
        && let Some(meant) = closest(first, names.iter().copied())
    {
        return Some(format!(
            "there is no subcommand \"{first}\"; did you mean \"{meant}\"?"
        ));
    }
    let name_of = |word: &OsString| names.iter().find(|name| word == *name);
    let name = words.iter().find_map(name_of)?;
    Some(format!(
        "the subcommand \"{name}\" comes first, and options behind it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Conflicts and names that occur twice are found only when they are used, or here.
    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_quoted_begins_no_line() {
        let words = ["vmm", "a\nb", "--vcpus=c\nd"].map(OsString::from);
        let text = "error: 'a\nb', and 'c\nd'\n\nUsage: vmm\n";
        assert_eq!(
            spell_out_words(text, words),
            "error: 'a\\nb', and 'c\\nd'\n\nUsage: vmm\n"
        );
    }

    #[test]
    fn a_subcommand_that_is_nearly_right_is_recognised() {
        let tip = |words: &str| {
            let words: Vec<_> = words.split(' ').map(OsString::from).collect();
            subcommand_meant(&words)
        };
        let explore = tip("explroe a.case b").unwrap();
        assert!(explore.ends_with("did you mean \"explore\"?"), "{explore}");
        assert!(tip("bnech").unwrap().contains("\"bench\""));
        let late = tip("--log info explore a.case").unwrap();
        assert!(late.contains("\"explore\" comes first"), "{late}");
        assert_eq!(tip("explore --nonsense"), None);
        assert_eq!(tip("--vcpus"), None);
        assert_eq!(tip("guest.bin"), None);
        assert_eq!(tip("explore.bin"), None);
    }
}
