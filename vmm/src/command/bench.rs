//! `vmm bench GUEST`: measures what IPIs and calls cost on this host.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use vmm::Config;
use vmm::bench::{self, BenchError, BenchWords, Costs, Effort, Filter};
use vmm::confinement;
use vmm::control::Tracing;
use vmm::control_characters::spell_out_path;
use vmm::cpus::CpuSet;
use vmm::machine::guest::Guest;
use vmm::machine::points::Points;
use vmm::manifest::Manifest;
use vmm::provenance::Input;
use vmm::report::{classic, costs};
use vmm::stats::sources::Sources;

use super::outputs::Outputs;
use super::printing::print;
use super::progress::{Line, Wanted};
use super::signals::{Drives, Signals};
use super::{Refused, chain, complain, installed};

/// How long nothing may move in a machine that is measured. A guest that never comes to its end would
/// otherwise be waited for without end.
const SILENCE: Duration = Duration::from_secs(60);

/// What to measure, and how often.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Guest image [default: the installed guest.bin]
    guest: Option<PathBuf>,

    /// Number of vCPUs, 2 to 1024
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(2..=i64::from(shared::lab::MAX_CPUS)))]
    vcpus: u32,

    /// Rounds of each run, behind a warm-up of an eighth as many [default: 500; with --classic
    /// 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    rounds: Option<u32>,

    /// Runs of each line of the table
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Measure the five rows of the "IPI performance benchmark" of 2017 instead, so that published
    /// tables can be put beside: dry run, self, normal, broadcast, broadcast with a lock.
    /// --receiver (halted or running), --transport and --queue choose on what; see
    /// docs/comparing.md
    #[arg(long, conflicts_with_all = ["by", "to", "traced", "baseline"])]
    classic: bool,

    /// Only IPIs, or only calls
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = ["ipi", "call"])]
    by: Vec<String>,

    /// Only to these
    #[arg(long, value_name = "TO", value_delimiter = ',',
          value_parser = ["self", "one", "some", "all"])]
    to: Vec<String>,

    /// Only to CPUs in these states
    #[arg(long, value_name = "STATE", value_delimiter = ',',
          value_parser = ["halted", "running", "stalled"])]
    receiver: Vec<String>,

    /// Only by these transports
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    transport: Vec<String>,

    /// Only by these queues
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    queue: Vec<String>,

    /// More words for the guest, such as eoi=pv
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    append: String,

    /// Bind the vCPUs to these host CPUs in turn, such as 0-2,5
    #[arg(long, value_name = "CPULIST")]
    pin: Option<CpuSet>,

    /// Trace calls, handlers and IPIs meanwhile, as --trace of a run does; with --baseline, what
    /// that costs
    #[arg(long)]
    traced: bool,

    #[command(flatten)]
    progress: Wanted,

    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Show an earlier result, written with --json, beside this one
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        let read = self.guest.iter().chain(&self.baseline);
        confinement::Files::new(read, &self.json)
    }
}

/// Rounds of a run if nobody says how many.
const ROUNDS: u32 = 500;

/// Measures what `arguments` ask for, and returns the exit status.
///
/// # Errors
/// [`Refused`] if that is not possible. What was measured before is printed all the same.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let bad = |message| Refused { message, status: 2 };
    let baseline = arguments.baseline.as_deref().map(Costs::read).transpose();
    let baseline = baseline.map_err(|error| Refused::of(error.to_string(), &error))?;
    let guest_path = installed::image(arguments.guest.as_deref(), installed::GUEST)?;
    // Read here, so that a bad image is refused before there is a machine.
    let image = Guest::from(&guest_path)
        .open()
        .map_err(|error| Refused::of(chain(&error), &error))?;
    let guest = Input::new(&guest_path, image.file());
    let manifest = Manifest::of(&image).map_err(|error| bad(chain(&error)))?;
    let of_image = |error: &dyn Display| bad(format!("{}: {error}", spell_out_path(&guest_path)));
    let points = Points::read(image.bytes()).map_err(|error| of_image(&error))?;
    let words =
        BenchWords::of(&manifest.unwrap_or_default(), &points).map_err(|error| of_image(&error))?;
    let filter = Filter {
        by: arguments.by.clone(),
        to: arguments.to.clone(),
        receiver: arguments.receiver.clone(),
        transport: arguments.transport.clone(),
        queue: arguments.queue.clone(),
    };
    let (cells, classic) = match arguments.classic {
        true => {
            let rows = bench::classic_cells(&filter, &words).map_err(|error| of_image(&error))?;
            (Vec::new(), rows)
        }
        false => {
            bench::check(&filter, &words).map_err(|error| bad(error.to_string()))?;
            (bench::cells(&filter, &words), Vec::new())
        }
    };
    if cells.is_empty() && classic.is_empty() {
        return Err(bad(
            "nothing is left to measure: no line of the table fits all that was asked for"
                .to_owned(),
        ));
    }
    // Created first: a bench of minutes should not end with a file that cannot be created. The
    // baseline has been read by now, so that the new figures may replace it.
    let json = arguments.json.as_ref();
    let outputs = Outputs::beside([&guest_path]);
    let json = json.map(|path| outputs.create(path).map(|file| (file, path)));
    let json = json.transpose()?;

    let signals = Signals::catch(Drives::Nothing)?;
    let config = Config {
        pin: arguments.pin.clone(),
        trace: Tracing {
            timeline: arguments.traced,
            ..Tracing::NOTHING
        },
        ..Config::new(&guest_path)
    };
    let config = config
        .vcpus(arguments.vcpus)
        .append(&arguments.append)
        .watchdog(SILENCE)
        .sources(Arc::new(Sources::prove()))
        .attended_by(signals.attendant());
    let by_default = match arguments.classic {
        true => bench::ROUNDS_OF_CLASSIC,
        false => ROUNDS,
    };
    let effort = Effort {
        rounds: arguments.rounds.unwrap_or(by_default),
        repetitions: arguments.runs,
    };
    let mut costs = Costs::new(&config, guest, effort);
    let line = Line::of(arguments.progress, (cells.len() + classic.len()) as u64);
    let progress = |number: usize, told: String| {
        line.at(number as u64);
        line.say(told);
    };
    let result = match arguments.classic {
        true => {
            let rows = &mut costs.classic;
            bench::measure_classic(&config, &words, &classic, effort, rows, |number, told| {
                progress(number, told.to_owned());
            })
        }
        false => bench::measure(
            &config,
            &words,
            &cells,
            effort,
            &mut costs,
            |number, cell| progress(number, words.tell(cell)),
        ),
    };
    drop(line);
    drop(signals);

    let mut is_lost = false;
    // An earlier result is worth more than one without a figure.
    let any = costs.cells.iter().any(|it| it.result.is_ok())
        || costs.classic.iter().any(|it| it.result.is_ok());
    if let Some((file, path)) = json.filter(|_| any || result.is_ok()) {
        let document = serde_json::to_string_pretty(&costs).unwrap_or_default() + "\n";
        if let Err(error) = file.write(|out| out.write_all(document.as_bytes())) {
            complain(&format!("cannot write {}: {error}", spell_out_path(path)));
            is_lost = true;
        }
    }
    let table = match arguments.classic {
        true => classic::table(&costs),
        false => costs::table(&costs, baseline.as_ref()),
    };
    let written = print(&table);
    match (result, written) {
        (Err(error), _) => Err(Refused {
            message: chain(&error),
            status: match &error {
                BenchError::TooFew => 2,
                BenchError::Run(error) => error.exit_status(),
                BenchError::Stall(_) => 3,
                BenchError::Interrupted { status, .. } => *status,
            },
        }),
        (Ok(_), Err(error)) => Err(Refused {
            message: format!("cannot write the table: {error}"),
            status: 3,
        }),
        (Ok(0), Ok(())) if is_lost => Ok(3),
        (Ok(status), Ok(())) => Ok(status),
    }
}
