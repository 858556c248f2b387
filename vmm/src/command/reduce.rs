//! `vmm reduce CASE GUEST`: makes a case smaller that breaks something.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vmm::confinement;
use vmm::control_characters::spell_out_path;
use vmm::duration;
use vmm::explore::memory::Memory;
use vmm::explore::reduce::{ReduceError, Reduced, reduce};
use vmm::explore::schedule::Granularity;
use vmm::explore::{Config, Shard, Strategy};
use vmm::machine::guest::Guest;
use vmm::stats::sources::Sources;

use super::explore::read_case;
use super::explored::{refused, status_of};
use super::interruption::{self, interrupted};
use super::outputs::{Outputs, cannot_write};
use super::printing::{listed, print};
use super::progress::{Line, Wanted};
use super::{Refused, installed};

/// What to make smaller.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The case, which says by a line "expect" what breaks; one that vmm --record-case has written
    /// does
    case: PathBuf,

    /// Guest image, built to be explored [default: the installed explore.bin]
    guest: Option<PathBuf>,

    /// More words for the guest, such as queue=fifo
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    append: String,

    /// Have memory be sequentially consistent: fewer orders, and faster
    #[arg(long)]
    sc: bool,

    /// How long to look for a breach in each smaller case, boot included
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10s")]
    each: Duration,

    /// The most orders that are tried at random in each
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    runs: u64,

    /// Where chance comes from; equal seeds make equal choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Stop after this time, with the smallest case by then, such as 90, 90s or 2m
    /// [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    time_limit: Option<Duration>,

    /// Write the smallest case here, instead of to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    progress: Wanted,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        confinement::Files::new(self.guest.iter().chain([&self.case]), &self.out)
    }
}

/// The exit status if the case itself was not found to break.
const NOT_SHOWN: u8 = 5;

/// Makes the case smaller that `arguments` name, and returns the exit status.
///
/// # Errors
/// [`Refused`] if that was not possible.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let case_path = installed::scenario(&arguments.case)?;
    let guest = installed::image(arguments.guest.as_deref(), installed::EXPLORE)?;
    let (case, case_file) = read_case(&case_path)?;
    let outputs = Outputs::beside([&case_path, &guest]);
    let out = arguments.out.as_ref();
    let file = out.map(|name| outputs.create(name)).transpose()?;
    interruption::catch()?;
    let config = Config {
        guest: Guest::from(&guest),
        case,
        case_file: Some(case_file),
        kvm: Sources::prove_statistics().kvm,
        append: arguments.append.clone(),
        granularity: Granularity::Access,
        memory: match arguments.sc {
            true => Memory::SequentiallyConsistent,
            false => Memory::Tso,
        },
        // The judge chooses its own.
        strategy: Strategy::Races,
        seed: arguments.seed,
        time: arguments.time_limit,
        states: None,
        memory_limit: None,
        keeps_keys: false,
        shard: Shard::WHOLE,
        checkpoints: None,
        jobs: 1,
        known: None,
        check_keys: false,
        every_exit: false,
        keep_going: false,
        data_races: DataRaces::Ignored,
        witness: false,
        shrink: Duration::ZERO,
    };
    let line = Line::endless(arguments.progress);
    let reduced = reduce(
        &config,
        arguments.each,
        arguments.runs,
        interrupted,
        &mut |best, tried| {
            let (cpus, deeds) = (best.cpus, best.deeds());
            line.say(format!(
                "{cpus} CPUs, {deeds} deeds; {tried} cases searched"
            ));
        },
    );
    drop(line);
    let reduced = reduced.map_err(|error| match error {
        ReduceError::Explore(error) => refused(&error),
        error @ ReduceError::NothingExpected => Refused {
            message: format!("{}: {error}", spell_out_path(&case_path)),
            status: 2,
        },
    })?;
    let Reduced {
        case,
        from,
        to,
        tried,
        stopped,
    } = reduced;
    let Some(case) = case else {
        let (message, status) = match stopped {
            Some(why) => (why.reason().into_owned(), status_of(why)),
            None => (
                "it did not break in its time; --each gives it more".to_owned(),
                NOT_SHOWN,
            ),
        };
        return Err(Refused {
            message: format!("not shown: {}: {message}", spell_out_path(&case_path)),
            status,
        });
    };
    let rest = match stopped {
        None => String::new(),
        Some(why) => format!("; no smaller ones were looked for: {}", why.reason()),
    };
    let noun = |(cpus, deeds): (u32, usize)| format!("{deeds} deeds of {cpus} CPUs");
    let comment = format!(
        "# Made smaller by vmm reduce from {}: from {} to {}, in {tried} searches{rest}.\n",
        spell_out_path(&case_path),
        noun(from),
        noun(to)
    );
    let text = comment + case.as_str();
    let printed = match (file, out) {
        (Some(file), Some(name)) => {
            let written = file.write(|out| out.write_all(text.as_bytes()));
            if let Err(error) = written {
                // What took an hour to find is not lost with the file.
                let _ = print(&text);
                return Err(Refused {
                    status: 3,
                    ..cannot_write(name, &error)
                });
            }
            let (from, to) = (noun(from), noun(to));
            print(&format!("from {from} to {to}, in {tried} searches{rest}\n"))
        }
        _ => print(&text),
    };
    let status = listed("the case", printed)?;
    Ok(match stopped {
        Some(why) if interruption::has_come() => status_of(why),
        _ => status,
    })
}
use vmm::explore::data_races::DataRaces;
