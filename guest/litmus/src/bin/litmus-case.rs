//! Reads litmus tests as herdtools write them, and translates them for the bench: into a case for
//! `vmm explore`, or into the words of a run of many rounds, which it can also start.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use litmus::test::Test;
use litmus::{case, herd};

/// Bytes of the longest file. No test comes near it.
const LONGEST: u64 = 1 << 20;

/// Reads litmus tests of herdtools (X86_64), for the bench.
#[derive(Parser)]
#[command(name = "litmus-case", version)]
pub(crate) struct Arguments {
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

/// Why the command failed. A message without a status of its own means bad usage.
struct Failure {
    /// As vmm has it.
    status: u8,
    why: String,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { status: 2, why }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Case { file } => case_of(&file).and_then(|case| print(&case)),
        Task::Words { file } => words_of(&file).and_then(|words| print(&words)),
        Task::Run(run) => run.execute().map_err(Failure::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, why }) => {
            eprintln!("litmus-case: {why}");
            ExitCode::from(status)
        }
    }
}

fn case_of(file: &Path) -> Result<String, Failure> {
    let case = case::case(&read(file)?);
    case.map_err(|why| format!("{}: {why}", file.display()).into())
}

fn words_of(file: &Path) -> Result<String, Failure> {
    Ok(format!("{}\n", case::words(&read(file)?)))
}

/// Prints `text`. It is no failure if the reader has gone: it has read enough.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure {
            status: 3,
            why: format!("cannot print it: {error}"),
        }),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> Result<Test, String> {
    let why = |error: io::Error| format!("{}: {error}", file.display());
    let mut text = String::new();
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).map_err(why)?),
    };
    let most = source.take(LONGEST + 1).read_to_string(&mut text);
    if most.map_err(why)? as u64 > LONGEST {
        let most = LONGEST >> 20;
        return Err(format!("{}: it has more than {most} MiB", file.display()));
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
