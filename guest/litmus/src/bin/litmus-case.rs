//! Reads litmus tests as herdtools write them, and says them in the words of the bench: a case for
//! `vmm explore`, the words for a run of many rounds, or that run itself.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use clap::{Args, Parser, Subcommand};
use litmus::test::Test;
use litmus::{case, herd};

/// Reads litmus tests of herdtools (X86_64), for the bench.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Print the case in which vmm explore tries every order
    Case {
        /// The test, or - for what comes in
        file: PathBuf,
    },
    /// Print the words with which the guest runs the test
    Words {
        /// The test, or - for what comes in
        file: PathBuf,
    },
    /// Run the test on vCPUs that are truly concurrent, for many rounds
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// The test, or - for what comes in
    file: PathBuf,
    /// How many rounds
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// The bench, if it is not beside this command
    #[arg(long, value_name = "FILE")]
    vmm: Option<PathBuf>,
    /// The guest image, if it is not where it is built or installed
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// Further options of vmm, behind --
    #[arg(last = true)]
    options: Vec<String>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Case { file } => read(&file).and_then(|test| {
            let case = case::case(&test).map_err(|why| format!("{}: {why}", file.display()))?;
            print!("{case}");
            Ok(())
        }),
        Task::Words { file } => read(&file).map(|test| println!("{}", case::words(&test))),
        Task::Run(run) => run.execute(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("litmus-case: {why}");
            // As vmm says that it was used badly.
            ExitCode::from(2)
        }
    }
}

fn read(file: &Path) -> Result<Test, String> {
    let why = |error: io::Error| format!("{}: {error}", file.display());
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map_err(why)?;
    } else {
        text = fs::read_to_string(file).map_err(why)?;
    }
    herd::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

impl Run {
    /// Becomes vmm.
    fn execute(&self) -> Result<(), String> {
        let test = read(&self.file)?;
        let own = env::current_exe().map_err(|error| format!("where this command is: {error}"))?;
        let folder = own.parent().unwrap_or_else(|| Path::new("."));
        let vmm = self
            .vmm
            .clone()
            .unwrap_or_else(|| match folder.join("vmm") {
                beside if beside.is_file() => beside,
                _ => "vmm".into(),
            });
        let guest = self.guest.clone().or_else(|| {
            let known = ["../litmus.bin", "../lib/ipi-lab/litmus.bin"];
            known
                .iter()
                .map(|place| folder.join(place))
                .find(|place| place.is_file())
        });
        let guest =
            guest.ok_or("there is no litmus.bin where it is built or installed: --guest")?;
        let mut words = case::words(&test);
        if let Some(rounds) = self.rounds {
            words += &format!(" rounds={rounds}");
        }
        let mut command = Command::new(&vmm);
        command.args([
            "--vcpus",
            &test.programs.len().to_string(),
            "--append",
            &words,
        ]);
        let error = command.args(&self.options).arg(guest).exec();
        Err(format!("{}: {error}", vmm.display()))
    }
}
