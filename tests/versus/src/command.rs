//! The command: reads arguments, measures, prints.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use guest::ipi::queue::QueueKind;
use indicatif::{ProgressBar, ProgressStyle};
use vmm::chain;
use vmm::explore::case::Case;
use vmm::manifest::Manifest;

use crate::measure::{Effort, Queues, measure, unexpected};
use crate::ours::Explorer;
use crate::table;
use crate::theirs::Program;

/// Measures how fast vmm explore searches, side by side with shuttle, on the calls of a case.
///
/// See docs/exploration.md, "How fast". Ends with 0, with 1 if something broke that the case does
/// not expect, with 2 for bad usage, and with 3 if the host cannot run the guest.
#[derive(Debug, Parser)]
struct Arguments {
    /// The case: how many CPUs, which calls each makes; see docs/exploration.md
    case: PathBuf,

    /// Guest image, built to be explored (target/explore.bin)
    guest: PathBuf,

    /// Queue with which nothing breaks, for the rates
    #[arg(long, value_name = "NAME", default_value = "filo", value_parser = queue)]
    sound: QueueKind,

    /// Queue that is broken, to find out how
    #[arg(long, value_name = "NAME", default_value = "fifo", value_parser = queue)]
    broken: QueueKind,

    /// How often everything is measured, each time from another seed
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=1000)
    )]
    rounds: u64,

    /// For how long each rate is measured
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    each: Duration,

    /// For how long what is broken is looked for, at most
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    hunt: Duration,

    /// Write all figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn queue(name: &str) -> Result<QueueKind, String> {
    let named = QueueKind::ALL
        .into_iter()
        .find(|queue| queue.name() == name);
    named.ok_or_else(|| {
        let names = QueueKind::ALL.map(QueueKind::name).join(", ");
        format!("there are {names}")
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "not a number of seconds above zero".to_owned())
}

/// Why nothing came of it.
struct Refused {
    message: String,
    status: u8,
}

/// Does what the arguments of this process ask for.
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused { message, status }) => {
            // If standard error is gone too, the exit status has to do.
            let _ = writeln!(io::stderr(), "versus: {message}");
            ExitCode::from(status)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Refused> {
    let bad = |message| Refused { message, status: 2 };
    let cannot_write =
        |path: &Path, error| bad(format!("cannot write {}: {error}", path.display()));
    let name = arguments.case.display();
    let text = fs::read_to_string(&arguments.case)
        .map_err(|error| bad(format!("cannot read {name}: {error}")))?;
    let case = Case::parse(&text).map_err(|error| bad(format!("{name}: {error}")))?;
    let program = Program::new(&case, &manifest(&arguments.guest)?)
        .map_err(|error| bad(format!("{name}: {error}")))?;
    // Opened first: what takes minutes should not end with a file that cannot be made.
    let json = arguments.json.as_deref().map(|path| {
        let file = File::create(path).map_err(|error| cannot_write(path, error))?;
        Ok((file, path))
    });
    let json = json.transpose()?;
    let explorer = Explorer {
        case,
        guest: arguments.guest.clone(),
    };
    let queues = Queues {
        sound: arguments.sound,
        broken: arguments.broken,
    };
    let effort = Effort {
        rounds: arguments.rounds,
        each: arguments.each,
        hunt: arguments.hunt,
    };
    let bar = ProgressBar::new(effort.searches()).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}")
            .expect("a template that is always the same"),
    );
    let figures = measure(&explorer, &program, queues, effort, |searcher| {
        bar.inc(1);
        bar.set_message(format!("{} {}", searcher.by(), searcher.strategy()));
    });
    bar.finish_and_clear();
    let figures = figures.map_err(|error| Refused {
        message: chain(&error),
        status: error.exit_status(),
    })?;
    if let Some((mut file, path)) = json {
        let document = serde_json::to_string_pretty(&figures).unwrap_or_default() + "\n";
        file.write_all(document.as_bytes())
            .map_err(|error| cannot_write(path, error))?;
    }
    io::stdout()
        .write_all(table::render(&figures, queues, effort).as_bytes())
        .map_err(|error| Refused {
            message: format!("cannot write the table: {error}"),
            status: 3,
        })?;
    match unexpected(&figures, &explorer.case, queues) {
        Some(message) => Err(Refused { message, status: 1 }),
        None => Ok(()),
    }
}

/// What the guest image in `path` says that its CPUs can be told.
fn manifest(path: &Path) -> Result<Manifest, Refused> {
    let bad = |why: String| Refused {
        message: format!("{}: {why}", path.display()),
        status: 2,
    };
    let image = fs::read(path).map_err(|error| bad(error.to_string()))?;
    let manifest = Manifest::read(&image).map_err(|error| bad(error.to_string()))?;
    manifest.ok_or_else(|| bad("the image says nothing of its guest".to_owned()))
}
