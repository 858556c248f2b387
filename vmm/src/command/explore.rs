//! `vmm explore CASE GUEST`: searches the orders of a case's steps for one that breaks something.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use vmm::confinement;
use vmm::control_characters::spell_out_path;
use vmm::explore::case::Case;
use vmm::explore::checkpoint_file::{self, Checkpoints};
use vmm::explore::data_races::DataRaces;
use vmm::explore::memory::Memory;
use vmm::explore::result::{Document, Part};
use vmm::explore::schedule::Granularity;
use vmm::explore::search::sampled::Sampling;
use vmm::explore::search::storage::{self, MemoryLimit};
use vmm::explore::sharing::SharingRecord;
use vmm::explore::stop_reason::StopReason;
use vmm::explore::{Config, Shard, Strategy, explore, is_possible, knows_stores};
use vmm::gdb;
use vmm::machine::guest::Guest;
use vmm::provenance::Input;
use vmm::stats::sources::Sources;
use vmm::{duration, size};

use super::debugging::{Debugged, GdbArgument, debug};
use super::explored::{self, Files, NOT_WRITTEN, StoryReplay, first_schedule};
use super::interruption::{self, interrupted};
use super::outputs::Outputs;
use super::progress::{self, Line, Wanted};
use super::stats::short_name;
use super::{Refused, chain, complain, installed, read_text, search_stats};

/// What to explore, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The case: how many CPUs, what each does, what must come out; see docs/exploration.md. A name
    /// without a folder is also looked for among the installed cases
    case: PathBuf,

    /// Guest image; one built to be explored (target/explore.bin) for every granularity but probe
    /// [default: the installed explore.bin]
    guest: Option<PathBuf>,

    /// More words for the guest, such as queue=fifo
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    append: String,

    /// Where CPUs stop so that others can go on
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Where::Access)]
    granularity: Where,

    /// How memory behaves [default: that of x86 where every access is a stop, else sc]
    #[arg(long, value_name = "MODEL", value_enum)]
    memory: Option<Model>,

    /// How orders are chosen
    #[arg(long, value_name = "HOW", value_enum, default_value_t = How::Auto)]
    strategy: How,

    /// Most preemptions of bounded, and of auto before it tries every order
    #[arg(long, value_name = "N", default_value_t = 2)]
    preemptions: u32,

    /// Orders that random and pct try
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    runs: u64,

    /// Times that pct changes priorities
    #[arg(long, value_name = "N", default_value_t = 2)]
    changes: u32,

    /// Steps within which pct does so, about as many as a run has
    #[arg(long, value_name = "N", default_value_t = 120)]
    length: u64,

    /// Where chance comes from; equal seeds make equal choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Stop after this time, boot included, such as 90, 90s, 500ms or 2m [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    time_limit: Option<Duration>,

    /// Stop when so many states have been seen [default: no limit]
    #[arg(long, value_name = "N")]
    max_states: Option<u64>,

    /// Keep the states in files that are paged out once the process has more memory than this, such
    /// as 500M or 2G; stop when what must stay in memory is more [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory_limit: Option<u64>,

    /// Where these files are, on a disk: they have no names, and are gone when the search is over
    /// [default: $TMPDIR, or else /var/tmp]
    #[arg(long, value_name = "FOLDER", requires = "memory_limit")]
    memory_files: Option<PathBuf>,

    /// Write the schedule that breaks something here, for vmm replay
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,

    /// If nothing breaks, write an order to look at here, as a schedule: of those that were the first
    /// to come to some end the one with the most changes of the CPU
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,

    /// Go on past what breaks, and list every kind of breach
    #[arg(long)]
    keep_going: bool,

    /// What to do about data races: accesses of two CPUs that can be made at once, of which one writes,
    /// and one is plain. Only a guest in C has plain accesses
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Races::Off)]
    data_races: Races,

    /// Write a page for a browser here, with a diagram of that schedule. See docs/reports.md
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Search with so many machines at once, each on a thread of its own; all but reference
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,

    /// Do only part I of N, from 0/N, for vmm merge to put together; all but reference
    #[arg(long, value_name = "I/N", requires = "result")]
    shard: Option<Shard>,

    /// Write the result here, and the states that an exhaustive search has seen to FILE.states
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,

    /// Begin with what vmm merge --sharing has written, instead of learning what CPUs share
    #[arg(long, value_name = "FILE")]
    sharing: Option<PathBuf>,

    /// Keep the search here from time to time, and when it is stopped. If the file exists, go on from
    /// there. Once the search is through, the file is removed
    #[arg(long, value_name = "FILE", conflicts_with = "check_keys")]
    checkpoint: Option<PathBuf>,

    /// Time between two of these
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "60s",
          requires = "checkpoint")]
    checkpoint_every: Duration,

    #[command(flatten)]
    progress: Wanted,

    /// How long what is found may be made shorter, and half as long again be asked where its point
    /// of no return is
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "20s")]
    shorten: Duration,

    #[command(flatten)]
    stats: search_stats::StatsArguments,

    #[command(flatten)]
    gdb: GdbArgument,

    /// With --strategy exhaustive: check that states taken for the same lead to the same
    #[arg(long, conflicts_with_all = ["shard", "keep_going"])]
    check_keys: bool,

    /// Have CPUs exit also where there is no choice, to see that the search finds the same
    #[arg(long, hide = true)]
    every_exit: bool,
}

/// The word for `value` on the command line.
fn word(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// `--granularity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    /// At named probes
    Probe,
    /// Before every access to memory that CPUs share
    Access,
}

/// `--memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// Sequentially consistent: each access takes effect at once
    Sc,
    /// x86's: stores wait in store buffers while later loads go ahead
    Tso,
}

/// `--data-races`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Races {
    /// Do not look for them
    Off,
    /// List them
    Report,
    /// Take one for a breach, data-race
    Fail,
}

/// `--strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// All orders with few preemptions, then all that can matter
    Auto,
    /// All orders that can matter
    Races,
    /// All orders
    Exhaustive,
    /// All orders with at most --preemptions
    Bounded,
    /// --runs orders by priorities that change a few times
    Pct,
    /// --runs orders at random
    Random,
    /// All orders, with no rule that leaves anything out, and all that can break: slow, to hold the
    /// others against
    Reference,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        let read = self.guest.iter().chain([&self.case]).chain(&self.sharing);
        let written = [
            &self.schedule,
            &self.witness,
            &self.report,
            &self.result,
            &self.checkpoint,
        ];
        let written = written.into_iter().flatten().chain(self.stats.file());
        let written = written.chain(self.gdb.file());
        confinement::Files {
            scratch: self
                .memory_limit
                .map(|_| self.memory_folder())
                .into_iter()
                .collect(),
            ..confinement::Files::new(read, written)
        }
    }

    /// Listens for gdb, if it is to be served.
    ///
    /// # Errors
    /// [`Refused`] if it cannot listen there.
    pub fn debugger(&self) -> Result<Option<gdb::Listener>, Refused> {
        self.gdb.listener()
    }

    /// The memory model: the one that was asked for, or else x86's, where it can be had.
    fn memory(&self, granularity: Granularity) -> Result<Memory, Refused> {
        let knows_stores = knows_stores(granularity);
        match self.memory {
            Some(Model::Tso) if !knows_stores => Err(Refused {
                message: "--memory tso is for --granularity access only: with probe no store is \
                          announced, and so none can wait"
                    .to_owned(),
                status: 2,
            }),
            Some(Model::Tso) => Ok(Memory::Tso),
            None if knows_stores => Ok(Memory::Tso),
            Some(Model::Sc) | None => Ok(Memory::SequentiallyConsistent),
        }
    }

    /// Where files are made for a limit on memory.
    fn memory_folder(&self) -> PathBuf {
        let of_environment = || env::var_os("TMPDIR").filter(|name| !name.is_empty());
        let given = self.memory_files.clone();
        let directory = given.or_else(|| of_environment().map(PathBuf::from));
        directory.unwrap_or_else(|| PathBuf::from("/var/tmp"))
    }

    /// The limit on memory, and where files are made for it.
    fn memory_limit(&self) -> Result<Option<MemoryLimit>, Refused> {
        let Some(bytes) = self.memory_limit else {
            return Ok(None);
        };
        let directory = self.memory_folder();
        // Who names it on the command line knows what it is.
        if self.memory_files.is_none() && storage::is_memory(&directory) {
            return Err(Refused {
                message: format!(
                    "--memory-limit: {} is on tmpfs, which is memory; name a folder on a disk by \
                     --memory-files",
                    spell_out_path(&directory)
                ),
                status: 2,
            });
        }
        Ok(Some(MemoryLimit { bytes, directory }))
    }

    fn config(&self, guest: &Path, (case, case_file): (Case, Input)) -> Result<Config, Refused> {
        let granularity = match (self.strategy, self.granularity) {
            (How::Reference, Where::Access) => Granularity::Every,
            (_, Where::Access) => Granularity::Access,
            (_, Where::Probe) => Granularity::Probe,
        };
        let config = Config {
            guest: Guest::from(guest),
            case,
            case_file: Some(case_file),
            kvm: Sources::prove_statistics().kvm,
            append: self.append.clone(),
            granularity,
            memory: self.memory(granularity)?,
            strategy: match self.strategy {
                How::Auto => Strategy::Auto(self.preemptions),
                How::Races => Strategy::Races,
                How::Exhaustive => Strategy::Exhaustive,
                How::Bounded => Strategy::Bounded(self.preemptions),
                How::Pct => {
                    let sampling = Sampling::Priorities {
                        changes: self.changes,
                        length: self.length,
                    };
                    Strategy::Sampled(sampling, self.runs)
                }
                How::Random => Strategy::Sampled(Sampling::Uniform, self.runs),
                How::Reference => Strategy::Reference,
            },
            seed: self.seed,
            time: self.time_limit,
            states: self.max_states,
            memory_limit: self.memory_limit()?,
            keeps_keys: self.result.is_some(),
            shard: self.shard.unwrap_or(Shard::WHOLE),
            checkpoints: self.checkpoint.clone().map(|file| Checkpoints {
                file,
                every: self.checkpoint_every,
            }),
            jobs: self.jobs.into(),
            known: self.sharing.as_deref().map(read_known).transpose()?,
            check_keys: self.check_keys,
            every_exit: self.every_exit,
            keep_going: self.keep_going,
            data_races: match self.data_races {
                Races::Off => DataRaces::Ignored,
                Races::Report => DataRaces::Reported,
                Races::Fail => DataRaces::Breaches,
            },
            witness: self.witness.is_some(),
            shrink: self.shorten,
        };
        if self.check_keys && config.strategy != Strategy::Exhaustive {
            return Err(Refused {
                message: "--check-keys is for --strategy exhaustive".to_owned(),
                status: 2,
            });
        }
        if config.data_races.are_wanted() && config.granularity != Granularity::Access {
            return Err(Refused {
                message: "--data-races is for --granularity access, and not for --strategy \
                          reference"
                    .to_owned(),
                status: 2,
            });
        }
        if self.checkpoint.is_some() && !config.strategy.can_be_kept() {
            let strategy = word(&self.strategy);
            return Err(Refused {
                message: format!(
                    "--checkpoint is for auto, races, exhaustive and bounded, not for --strategy \
                     {strategy}"
                ),
                status: 2,
            });
        }
        let is_shared = config.shard != Shard::WHOLE || config.jobs > 1;
        if is_shared && !config.strategy.can_be_shared() || self.check_keys && config.jobs > 1 {
            let what = match self.check_keys {
                true => "--check-keys".to_owned(),
                false => format!("--strategy {}", word(&self.strategy)),
            };
            return Err(Refused {
                message: format!("{what} is for one machine alone, without --jobs and --shard"),
                status: 2,
            });
        }
        Ok(config)
    }
}

/// Explores what `arguments` ask for, and returns the exit status. If something is found, serves gdb on
/// it at `debugger`.
///
/// # Errors
/// [`Refused`] if the exploration was not possible.
pub fn run(arguments: &Arguments, debugger: Option<gdb::Listener>) -> Result<u8, Refused> {
    let begun = Instant::now();
    let Inputs {
        case_path,
        guest,
        written,
        config,
    } = Inputs::of(arguments).map_err(|refused| {
        let inputs = arguments.guest.iter().chain([&arguments.case]);
        let inputs = inputs.chain(&arguments.sharing);
        let name = short_name(&arguments.case);
        arguments.stats.refuse(inputs, &name, refused)
    })?;
    let outputs = Outputs::beside([&case_path, &guest].into_iter().chain(&arguments.sharing));
    let open = |name: &PathBuf| outputs.create(name);
    // Created first: a search of an hour should not end with a file that cannot be created.
    let files = Files {
        schedule: arguments.schedule.as_ref().map(open).transpose()?,
        witness: arguments.witness.as_ref().map(open).transpose()?,
        page: arguments.report.as_ref().map(open).transpose()?,
        result: explored::destination(arguments.result.as_deref(), &outputs)?,
        stats: arguments.stats.open(&outputs)?,
    };
    if let Some(file) = &arguments.checkpoint {
        outputs.check(file)?;
        checkpoint_file::check(file).map_err(|error| Refused::of(chain(&error), &error))?;
    }
    interruption::catch()?;
    let part = match search(arguments, &config) {
        Ok(part) => part,
        Err(refused) => return Err(files.stats.refuse(&short_name(&arguments.case), refused)),
    };
    let story_replay = StoryReplay {
        guest: &guest,
        case: Some(&written),
        rest: (arguments.time_limit).map(|limit| limit.saturating_sub(begun.elapsed())),
    };
    let status = explored::show(&part, Some(story_replay), files)?;
    if let Some(file) = &arguments.checkpoint
        && part.document.verdict.is_last_word()
        && status != NOT_WRITTEN
    {
        checkpoint_file::remove(file).unwrap_or_else(|error| {
            complain(&format!("cannot remove {}: {error}", spell_out_path(file)));
        });
    }
    if let (Some(listener), Some(schedule)) = (debugger, first_schedule(&part.document)) {
        let debugged = Debugged {
            schedule,
            guest: &guest,
            any_image: false,
            time: None,
        };
        debug(debugged, &listener)?;
        if interrupted() {
            return Ok(explored::status_of(StopReason::Signal));
        }
    }
    Ok(status)
}

/// What is read before anything is written.
struct Inputs {
    case_path: PathBuf,
    guest: PathBuf,
    /// The case as it is written.
    written: String,
    config: Config,
}

impl Inputs {
    fn of(arguments: &Arguments) -> Result<Self, Refused> {
        let case_path = installed::scenario(&arguments.case)?;
        let guest = installed::image(arguments.guest.as_deref(), installed::EXPLORE)?;
        let case = read_case(&case_path)?;
        let written = case.0.written.clone();
        let config = arguments.config(&guest, case)?;
        if !is_possible(config.strategy, config.granularity) {
            let why = "--strategy reference is for --granularity access only";
            return Err(Refused {
                message: why.to_owned(),
                status: 2,
            });
        }
        Ok(Self {
            case_path,
            guest,
            written,
            config,
        })
    }
}

/// Searches as `config` says.
fn search(arguments: &Arguments, config: &Config) -> Result<Part, Refused> {
    let line = Line::endless(arguments.progress);
    let runs = config.strategy.runs();
    let outcome = explore(config, interrupted, &mut |progress| {
        line.say(progress::words(progress, runs, line.elapsed()));
    });
    drop(line);
    let outcome = outcome.map_err(|error| explored::refused(&error))?;
    Ok(if arguments.result.is_some() {
        Part::new(config, &outcome)
    } else {
        Part {
            document: Document::new(config, &outcome),
            keys: None,
        }
    })
}

/// Reads what another search has learnt about the memory that CPUs share.
fn read_known(path: &Path) -> Result<SharingRecord, Refused> {
    let name = spell_out_path(path);
    let bad = |message| Refused { message, status: 2 };
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| {
        bad(format!(
            "{name} is not what vmm merge --sharing writes: {error}"
        ))
    })
}

/// The case in a file, and the file.
///
/// # Errors
/// [`Refused`] if it cannot be read, or is none.
pub fn read_case(path: &Path) -> Result<(Case, Input), Refused> {
    let text = read_text(path)?;
    let case = Case::parse(&text).map_err(|error| Refused {
        message: format!("{}: {error}", spell_out_path(path)),
        status: 2,
    })?;
    Ok((case, Input::new(path, text.as_bytes())))
}
