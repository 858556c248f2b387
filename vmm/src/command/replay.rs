//! `vmm replay SCHEDULE GUEST`: runs a schedule again, exactly as it was found.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use vmm::confinement;
use vmm::control_characters::spell_out_path;
use vmm::duration;
use vmm::explore::Replay;
use vmm::explore::schedule::Schedule;
use vmm::explore::stop_reason::StopReason;
use vmm::explore::story::tell;
use vmm::gdb;
use vmm::machine::guest::Guest;
use vmm::provenance::{Host, Provenance, VERSION, now};
use vmm::report::page::story::{Document, Tone};
use vmm::report::test_results::of_replay;
use vmm::stats::sources::Trials;

use super::debugging::{Debugged, GdbArgument, debug};
use super::explored::{refused, status_of, write_page};
use super::interruption::{self, interrupted};
use super::outputs::Outputs;
use super::progress::{Line, Wanted};
use super::stats::short_name;
use super::{Refused, complain, installed, read_text, search_stats};

/// What to replay.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A schedule that vmm explore has written
    schedule: PathBuf,

    /// Guest image [default: the installed one with the name of that on which it was found]
    guest: Option<PathBuf>,

    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "gdb",
          value_parser = clap::value_parser!(u64).range(1..))]
    times: u64,

    /// Stop after this time, boot included, such as 90, 90s, 500ms or 2m [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    time_limit: Option<Duration>,

    /// Try it on an image that is not the one on which it was found
    #[arg(long)]
    any_image: bool,

    #[command(flatten)]
    progress: Wanted,

    /// Write a page for a browser here, with a diagram of the schedule. See docs/reports.md
    #[arg(long, value_name = "FILE", conflicts_with = "gdb")]
    report: Option<PathBuf>,

    #[command(flatten)]
    stats: search_stats::StatsArguments,

    #[command(flatten)]
    gdb: GdbArgument,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        let written = self.report.iter().chain(self.stats.file());
        let written = written.chain(self.gdb.file());
        confinement::Files::new(self.guest.iter().chain([&self.schedule]), written)
    }

    /// Listens for gdb, if it is to be served.
    ///
    /// # Errors
    /// [`Refused`] if it cannot listen there.
    pub fn debugger(&self) -> Result<Option<gdb::Listener>, Refused> {
        self.gdb.listener()
    }
}

/// The name of the fact that a replay went another way than the schedule.
const ANOTHER_WAY: &str = "another way";

/// The schedule that `arguments` name, and the image on which it is replayed.
fn inputs(arguments: &Arguments) -> Result<(Schedule, PathBuf), Refused> {
    let name = spell_out_path(&arguments.schedule);
    let bad = |message| Refused { message, status: 2 };
    let text = read_text(&arguments.schedule)?;
    let schedule = Schedule::parse(&text).map_err(|error| bad(format!("{name}: {error}")))?;
    let guest = installed::image(arguments.guest.as_deref(), &found_on(&schedule))?;
    Ok((schedule, guest))
}

/// Serves gdb on the schedule that `arguments` name, and returns the exit status.
fn serve(arguments: &Arguments, listener: &gdb::Listener) -> Result<u8, Refused> {
    if arguments.stats.are_given() {
        return Err(Refused {
            message: "with --gdb there is no result that --stats and --stats-file could write"
                .to_owned(),
            status: 2,
        });
    }
    let (schedule, guest) = inputs(arguments)?;
    interruption::catch()?;
    let debugged = Debugged {
        schedule: &schedule,
        guest: &guest,
        any_image: arguments.any_image,
        time: arguments.time_limit,
    };
    debug(debugged, listener)?;
    Ok(match interrupted() {
        true => status_of(StopReason::Signal),
        false => 0,
    })
}

/// Replays the schedule that `arguments` name, and returns the exit status: 0 if every replay broke
/// what the schedule says. Or serves gdb on it, at `debugger`.
///
/// # Errors
/// [`Refused`] if the schedule could not be replayed.
pub fn run(arguments: &Arguments, debugger: Option<gdb::Listener>) -> Result<u8, Refused> {
    if let Some(listener) = debugger {
        return serve(arguments, &listener);
    }
    let of = short_name(&arguments.schedule);
    let (schedule, guest) = inputs(arguments).map_err(|refused| {
        let inputs = arguments.guest.iter().chain([&arguments.schedule]);
        arguments.stats.refuse(inputs, &of, refused)
    })?;
    let outputs = Outputs::beside([&arguments.schedule, &guest]);
    let open = |name: &PathBuf| outputs.create(name);
    let page_file = arguments.report.as_ref().map(open).transpose()?;
    let output = arguments.stats.open(&outputs)?;
    interruption::catch()?;
    let replay = Replay {
        guest: &Guest::from(&guest),
        schedule: &schedule,
        times: arguments.times,
        any_image: arguments.any_image,
        time: arguments.time_limit,
    };
    let trials = Trials::begin();
    let begun = Instant::now();
    let line = Line::of(arguments.progress, arguments.times);
    let told = tell(&replay, interrupted, &mut |done| line.at(done));
    drop(line);
    let (replayed, story) = match told {
        Ok(told) => told,
        Err(error) => return Err(output.refuse(&of, refused(&error))),
    };
    let compared = if replayed.compared_states {
        "stops and states"
    } else {
        "stops only, since this machine begins in another state than that on which it was found"
    };
    let breaks = match &schedule.breaks[..] {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    let (as_told, times) = (replayed.as_told, arguments.times);
    let mut verdict = match &schedule.reaches {
        Some(condition) => {
            format!("{as_told} of {times} replays reached what it says: {condition}")
        }
        None => format!("{as_told} of {times} replays broke {breaks}"),
    };
    if let Some(why) = replayed.stopped {
        let (done, reason) = (replayed.done, why.reason());
        verdict += &format!("; {done} were made when {reason}");
    }
    let (date, host) = (now(), Host::this(trials.result().kvm));
    let replayed_by = format!("by vmm {VERSION}, {date}, on {host}");
    let mut facts = vec![("replayed", replayed_by), ("compared", compared.to_owned())];
    if let Some(found) = &schedule.provenance {
        let Provenance {
            vmm, date, host, ..
        } = found;
        facts.insert(0, ("found by", format!("vmm {vmm}, {date}, on {host}")));
    }
    facts.extend(replayed.other.map(|other| (ANOTHER_WAY, other)));
    // The story is that of the last replay.
    let story = replayed.stopped.is_none().then_some(story);
    let mut text = (story.as_ref()).map_or_else(String::new, |story| format!("{story}\n"));
    for (name, fact) in &facts {
        text += &format!("{name:<10} {fact}\n");
    }
    text += &format!("\n{verdict}\n");
    let went_another_way = as_told != replayed.done;
    let mut status = match replayed.stopped {
        // A signal decides the status, whatever came out before it.
        Some(why @ StopReason::Signal) => status_of(why),
        _ if went_another_way => 1,
        Some(why) => status_of(why),
        None => 0,
    };
    let options = [
        ("options", schedule.append.clone()),
        ("granularity", schedule.granularity.to_string()),
        ("memory", schedule.memory.to_string()),
    ];
    let suite = || {
        let image = ("guest", spell_out_path(&guest));
        let facts: Vec<_> = [image]
            .iter()
            .chain(&options)
            .chain(&facts)
            .cloned()
            .collect();
        let other = facts.iter().filter(|(name, _)| *name == ANOTHER_WAY);
        let other = other.map(|(_, text)| text.clone()).collect();
        let when = (date, begun.elapsed());
        of_replay(of, when, (&verdict, status), other, &facts)
    };
    let written = output.write(&text, suite);
    let mut complain_of = |what, error| {
        complain(&format!("cannot write the {what}: {error}"));
        status = if status == 0 { 3 } else { status };
    };
    written.unwrap_or_else(|error| complain_of("result", error));
    if let Some(file) = page_file {
        let document = Document {
            verdict: &verdict,
            what: title(&arguments.schedule, &guest, &schedule, &host),
            tone: match replayed.stopped {
                _ if went_another_way => Tone::Bad,
                Some(_) => Tone::Open,
                None => Tone::Good,
            },
            guest: guest.to_string_lossy().into_owned(),
            facts: options.into_iter().chain(facts).collect(),
            case: &schedule.case,
            schedule: story.is_some().then_some(&schedule),
            story: story.as_ref(),
        };
        write_page(file, &document).unwrap_or_else(|error| complain_of("page", error));
    }
    Ok(status)
}

/// What is replayed, on what: the title of the page.
fn title(file: &Path, guest: &Path, schedule: &Schedule, host: &Host) -> String {
    let name = |path: &Path| {
        let last = path.file_name().unwrap_or(path.as_os_str());
        last.to_string_lossy().into_owned()
    };
    let (file, guest) = (name(file), name(guest));
    let found = schedule.provenance.as_ref();
    let case = found.and_then(|found| found.case.as_ref());
    let case = case.map_or_else(String::new, |case| format!(" of {}", case.file_name()));
    format!("{file}{case} on {guest}, {host}")
}

/// The name of the image on which `schedule` was found.
fn found_on(schedule: &Schedule) -> String {
    let found = schedule.provenance.as_ref();
    let name = found.and_then(|found| Path::new(&found.guest.name).file_name());
    name.map_or_else(
        || installed::EXPLORE.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
