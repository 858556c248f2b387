//! The `vmm` command: reads its command line and calls the subcommand that it names.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use vmm::machine::limits;

use command::{
    bench, compare, complain, ctl, describe, explore, merge, probes, replay, run, schema, shard,
};

/// Boots a guest, runs its workload, and reports what its cross-CPU calls did and what they cost.
#[derive(Debug, Parser)]
#[command(
    name = "vmm",
    version = vmm::provenance::VERSION,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit status:\n  \
        0  every oracle held, and everything that a script expects was so\n  \
        1  an oracle failed, or an expectation; the report says for which call, on which CPU; or \
           what\n     the guest recorded contradicts itself\n  \
        2  bad usage, bad guest image, bad script, or options the guest does not know\n  \
        3  this host cannot do it; the message says what is missing\n  \
        4  the guest died: registers, code and backtrace are shown\n  \
        5  time-out or no progress: it is shown where each vCPU stands\n  \
        128+N  ended by signal N, such as 130 for ^C, with what was known by then\n\n\
        Example:\n  vmm --vcpus 4 target/guest.bin\n  \
        vmm describe target/guest.bin   says what can be appended"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

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
    /// Run a schedule that explore has found again
    Replay(replay::Arguments),
    /// Print the JSON Schema of a document; see docs/formats.md
    Schema(schema::Arguments),
    /// Search one part of what vmm explore --jobs has been asked for
    #[command(hide = true)]
    Shard,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // May fail: a machine that needs more open files says so itself.
    let _ = limits::raise();
    let result = match &cli.command {
        None => run::run(&cli.run),
        Some(Command::Bench(arguments)) => bench::run(arguments),
        Some(Command::Compare(arguments)) => compare::run(arguments),
        Some(Command::Ctl(arguments)) => ctl::run(arguments),
        Some(Command::Describe(arguments)) => describe::run(arguments),
        Some(Command::Explore(arguments)) => explore::run(arguments),
        Some(Command::Merge(arguments)) => merge::run(arguments),
        Some(Command::Probes(arguments)) => probes::run(arguments),
        Some(Command::Replay(arguments)) => replay::run(arguments),
        Some(Command::Schema(arguments)) => schema::run(arguments),
        Some(Command::Shard) => shard::run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(refused) => {
            complain(&refused.message);
            ExitCode::from(refused.status)
        }
    }
}
