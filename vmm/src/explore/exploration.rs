//! One exploration, from the guest image to the outcome: boots the specimen, runs the search, and
//! shortens and checks what it found.

use std::io;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tracing::info;

use super::checkpoint_file::{self, CheckpointError, CheckpointFile, Identity};
use super::checks::read;
use super::config::Config;
use super::data_races::DataRaces;
use super::errors::ExploreError;
use super::key::to_hex;
use super::naming::WordNames;
use super::outcome::{ConditionOutcome, Outcome, Reached, SearchVerdict, Way};
use super::phases::{self, Covered};
use super::point_of_no_return;
use super::retrace::{Diverged, follow, up_to_cycle};
use super::schedule::{FORM, Granularity, Schedule, Turn};
use super::search::checkpoint::{Checkpoint, SoFar};
use super::search::found::{self, Found, Kept, Wanted};
use super::search::storage::Storage;
use super::search::workers::Workers;
use super::search::{Counterexample, Engine, Limits, OnProgress, Progress, SearchEnd};
use super::sharing::Sharing;
use super::specimen::{Breach, Setup, Specimen, SpecimenError};
use super::story::StoryBuilder;
use super::strategy::Strategy;
use super::until::Until;
use super::{options, shrink};
use crate::machine::image::Image;
use crate::machine::{MachineError, limits};
use crate::provenance::{Input, Provenance};

/// Explores. `interrupted` is polled, and says whether to stop, for instance because of a signal.
///
/// # Errors
/// [`ExploreError`] if the exploration was not possible. A breach is not an error.
pub fn explore(
    config: &Config,
    interrupted: impl Fn() -> bool + Send + Sync + 'static,
    on_progress: &mut OnProgress<'_>,
) -> Result<Outcome, ExploreError> {
    let until = Until::new(interrupted, config.time);
    let storage = Arc::new(storage(config)?);
    let (image, manifest) = read(config)?;
    let mut specimens = boot(&image, config, &until)?;
    let (specimen, others) = specimens.split_first_mut().expect("there is one at least");
    info!("specimen booted: {} CPUs", specimen.cpus().len());
    let provenance = Provenance {
        words: specimen.words(),
        case: config.case_file.clone(),
        ..Provenance::new(
            config.kvm,
            Input::new(config.guest.name(), image.file()),
            config.case.cpus,
            &options(config),
        )
    };
    let mut sharing = Sharing::new(specimen.cpus().len());
    if let Some(known) = &config.known {
        sharing.learn(known)?;
        sharing.begin_anew();
    }
    let (mut checkpoints, kept) = open_checkpoints(config, specimen)?;
    if let Some(kept) = &kept {
        info!("search goes on from the checkpoint");
        go_on_from(&kept.so_far, &mut sharing, specimen, others)?;
    }
    let limits = Limits {
        states: config.states,
        storage: Arc::clone(&storage),
    };
    info!("search begins: {:?}", config.strategy);
    let mut theirs = vec![sharing.clone(); others.len()];
    let first = Engine::new(specimen, &mut sharing, limits.clone(), Some(on_progress));
    let rest = others.iter_mut().zip(&mut theirs);
    let rest = rest.map(|(specimen, sharing)| Engine::new(specimen, sharing, limits.clone(), None));
    let mut workers = Workers::new(first, rest);
    workers.note(&wanted(config));
    if let Some(checkpoints) = &mut checkpoints {
        workers.keep_by(checkpoints);
    }
    let mut is_cut_short = false;
    let covered = match phases::run(&mut workers, config, kept) {
        Err(SpecimenError::Ended(why)) => {
            is_cut_short = true;
            Covered::only(SearchEnd::Stopped(why))
        }
        other => other?,
    };
    workers.gather();
    let time = workers.time();
    let first = workers.first();
    let counts = first.counts;
    info!(
        "search ended: {} states, {} steps, begun anew {} times",
        counts.states, counts.transitions, counts.begun_anew
    );
    let outcomes = std::mem::take(&mut first.outcomes);
    let mut all_found = std::mem::take(&mut first.found);
    let race = race_that_breaks(config, &covered.end, &mut all_found);
    let found = Instant::now();
    let description = Description {
        image: &image,
        sharing: &sharing,
        provenance: &provenance,
    };
    let kept = KeptOrders::of(
        specimen,
        config,
        &description,
        all_found,
        &mut is_cut_short,
        on_progress,
    )?;
    let end = match race {
        Some(Kept { order, buffered }) => {
            specimen.buffer(&buffered);
            SearchEnd::Broke(order)
        }
        None => covered.end,
    };
    let verdict = match end {
        SearchEnd::Broke(found) => broke(
            specimen,
            config,
            &description,
            found,
            &mut is_cut_short,
            on_progress,
        )?,
        end if !covered.broken.is_empty() => SearchVerdict::Refuted {
            ways: covered.broken,
            stopped: match end {
                SearchEnd::Stopped(why) => Some(why),
                _ => None,
            },
        },
        SearchEnd::Stopped(why) => SearchVerdict::Stopped(why),
        SearchEnd::Complete => match (covered.bound, config.strategy) {
            (Some(bound), _) => SearchVerdict::BoundedComplete(bound),
            (None, Strategy::Sampled(_, runs)) => SearchVerdict::Sampled(runs),
            (None, _) => SearchVerdict::Complete,
        },
    };
    let shortening = match &verdict {
        SearchVerdict::Broke { .. } => found.elapsed(),
        _ if kept.are_any() => found.elapsed(),
        _ => Duration::ZERO,
    };
    // If the end was cut short, a CPU can be in the middle of taking an interrupt, and the check
    // below would fail. The verdict then claims nothing about orders that do not break.
    if !is_cut_short {
        for specimen in std::iter::once(&mut *specimen).chain(&mut *others) {
            specimen.mend()?;
            specimen.keep_new_pages()?;
            specimen.rewind();
            specimen.check_rest()?;
        }
    }
    let mut answers = specimen.take_answers().into_list();
    let mut has_plain = specimen.has_plain_accesses();
    for other in others {
        has_plain |= other.has_plain_accesses();
        let theirs = other.take_answers().into_list();
        for (one, other) in answers.iter_mut().zip(&theirs) {
            one.add(other);
        }
    }
    let options = options(config);
    let mut warnings = options::warnings(&manifest, &options, config.memory);
    if config.data_races.are_wanted() && !has_plain {
        let none = "the guest says of none of its accesses that it is plain, so that there is no data race to find";
        warnings.push(none.to_owned());
    }
    warnings.extend(checkpoints.and_then(|file| file.failed));
    warnings.extend(storage.no_room().map(str::to_owned));
    let names = WordNames::of(&image, specimen);
    Ok(Outcome {
        words: names.known(sharing.addresses()),
        verdict,
        ways: kept.ways,
        races: kept.races,
        more_ways: kept.more_ways,
        conditions: kept.conditions,
        witness: kept.witness,
        counts,
        time,
        shortening,
        sharing,
        warnings,
        expected: config.case.expected(&options).to_vec(),
        provenance,
        image: to_hex(specimen.image()),
        begins: to_hex(specimen.beginning()),
        answers,
        states: covered.states,
        outcomes,
    })
}

/// The data race by which the search is broken, if it is to end with one and no other breach came
/// first: the one with the fewest turns. The others are forgotten.
fn race_that_breaks(config: &Config, end: &SearchEnd, found: &mut Found) -> Option<Kept> {
    if config.data_races != DataRaces::Breaches || config.keep_going {
        return None;
    }
    let races = found.take_races().into_iter();
    let shortest = races.min_by_key(|race| race.order.turns.len());
    shortest.filter(|_| !matches!(end, SearchEnd::Broke(_)))
}

/// The file of the checkpoints of the search, if it is to have any, and the search that was kept
/// there.
fn open_checkpoints(
    config: &Config,
    specimen: &Specimen,
) -> Result<(Option<CheckpointFile>, Option<Checkpoint>), ExploreError> {
    let Some(wanted) = &config.checkpoints else {
        return Ok((None, None));
    };
    let error = |error| CheckpointError::io(&wanted.file, error);
    let identity = Identity {
        program: checkpoint_file::program().map_err(error)?,
        image: to_hex(specimen.image()),
        begins: to_hex(specimen.beginning()),
        case: config.case.written.clone(),
        append: config.append.clone(),
        granularity: config.granularity,
        memory: config.memory,
        strategy: config.strategy,
        shard: config.shard,
        keep_going: config.keep_going,
        witness: config.witness,
        data_races: config.data_races,
    };
    let (file, kept) = CheckpointFile::open(wanted, identity)?;
    Ok((Some(file), kept))
}

/// Has machines that have just booted save the pages, and know what the search had learnt, that had
/// come `so_far`.
fn go_on_from(
    so_far: &SoFar,
    sharing: &mut Sharing,
    specimen: &mut Specimen,
    others: &mut [Specimen],
) -> Result<(), ExploreError> {
    sharing.learn(&so_far.sharing)?;
    let pages: Vec<_> = so_far.pages.iter().copied().collect();
    for specimen in std::iter::once(specimen).chain(others) {
        if pages.last().is_some_and(|last| *last >= specimen.pages()) {
            let why = "it speaks of pages that the guest does not have";
            return Err(SpecimenError::Checkpoint(why.to_owned()).into());
        }
        specimen.keep_pages(&pages)?;
    }
    Ok(())
}

/// Where the search keeps what it has seen.
fn storage(config: &Config) -> Result<Storage, ExploreError> {
    let storage = match &config.memory_limit {
        None => Storage::default(),
        Some(limit) => Storage::new(limit.clone())
            .map_err(|error| ExploreError::Storage(limit.directory.clone(), error))?,
    };
    Ok(storage.bounded(limits::memory().is_some()))
}

/// The stack of a thread of the standard library, in bytes.
const STACK: usize = 2 << 20;

/// Boots as many specimens as `config` asks for, all at the same time; one after the other where the
/// process has a limit on its memory, of which each sees whether it is enough for it alone.
fn boot(image: &Image, config: &Config, until: &Until) -> Result<Vec<Specimen>, ExploreError> {
    let setup = setup(image, config);
    let mut all = Vec::new();
    // Each job has a thread, and one that wakes it.
    limits::check_memory(
        2 * u32::try_from(config.jobs).unwrap_or(u32::MAX / 2),
        STACK,
    )
    .map_err(|error| SpecimenError::from(MachineError::from(error)))?;
    thread::scope(|scope| {
        let boot = || {
            thread::Builder::new().spawn_scoped(scope, || {
                let mut specimen = Specimen::boot(&setup, until.clone())?;
                specimen.detach();
                Ok::<_, SpecimenError>(specimen)
            })
        };
        let take = |other: io::Result<ScopedJoinHandle<'_, Result<Specimen, SpecimenError>>>| {
            let other = other.map_err(SpecimenError::Job)?.join();
            other.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let is_bounded = limits::memory().is_some();
        let at_once = if is_bounded { 1 } else { config.jobs };
        let others: Vec<_> = (1..at_once).map(|_| boot()).collect();
        all.push(Specimen::boot(&setup, until.clone())?);
        for other in others {
            all.push(take(other)?);
        }
        for _ in at_once..config.jobs {
            all.push(take(boot())?);
        }
        Ok::<_, SpecimenError>(())
    })?;
    // A state of one of them is restored by others.
    match all.iter().any(|other| !other.begins_as(&all[0])) {
        true => Err(SpecimenError::OtherBeginning.into()),
        false => Ok(all),
    }
}

/// All options for the guest: those of the case, then those of the command line.
fn options(config: &Config) -> String {
    format!("{} {}", config.case.append, config.append)
        .trim()
        .to_owned()
}

fn setup<'a>(image: &'a Image, config: &'a Config) -> Setup<'a> {
    Setup {
        image,
        case: &config.case,
        append: &config.append,
        granularity: config.granularity,
        memory: config.memory,
        every_exit: config.every_exit,
        data_races: config.data_races.are_wanted(),
    }
}

/// What is needed to describe a schedule that was found.
struct Description<'a> {
    image: &'a Image,
    sharing: &'a Sharing,
    provenance: &'a Provenance,
}

/// Shortens `found`, checks that it can be repeated, and finds its point of no return. If the
/// search has to stop meanwhile, sets `is_cut_short` and returns the schedule as short as it is.
fn broke(
    specimen: &mut Specimen,
    config: &Config,
    description: &Description<'_>,
    found: Counterexample,
    is_cut_short: &mut bool,
    on_progress: &mut OnProgress<'_>,
) -> Result<SearchVerdict, ExploreError> {
    let found_with = found.turns.len();
    info!("shorten {found_with} turns");
    on_progress(&Progress::Shortening { turns: found_with });
    let mut shortest = found;
    let is_same = |one: &Breach, other: &Breach| one.names == other.names;
    match shorten(specimen, config.shrink, is_same, &mut shortest) {
        Err(ExploreError::Specimen(SpecimenError::Ended(_))) => *is_cut_short = true,
        other => other?,
    }
    let Counterexample { turns, breach } = shortest;
    // Whether CPUs race lies in where they are together, and not in what one of them does.
    let has_no_point = *is_cut_short || breach.is_data_race();
    info!("look for the point of no return in {} turns", turns.len());
    on_progress(&Progress::PointOfNoReturn { turns: turns.len() });
    let until = Instant::now() + point_of_no_return::share_of(config.shrink);
    let story_builder = StoryBuilder::new(description.image);
    let point_of_no_return = if has_no_point {
        None
    } else {
        match point_of_no_return::find(specimen, &story_builder, description.sharing, &turns, until)
        {
            Err(SpecimenError::Ended(_)) => {
                *is_cut_short = true;
                None
            }
            other => other?,
        }
    };
    let schedule = Schedule {
        point_of_no_return,
        ..schedule(specimen, config, description.provenance, turns, &breach)
    };
    Ok(SearchVerdict::Broke {
        schedule: Box::new(schedule),
        breach,
        found_with,
    })
}

/// The schedule of `turns`, which lead to `breach`, and in which stores wait as they do in `specimen`
/// now.
fn schedule(
    specimen: &Specimen,
    config: &Config,
    provenance: &Provenance,
    turns: Vec<Turn>,
    breach: &Breach,
) -> Schedule {
    Schedule {
        form: FORM.to_owned(),
        provenance: Some(provenance.clone()),
        case: config.case.written.clone(),
        append: config.append.clone(),
        granularity: config.granularity,
        memory: config.memory,
        buffered: specimen.buffering().addresses(),
        image: to_hex(specimen.image()),
        begins: to_hex(specimen.beginning()),
        turns,
        breaks: breach.names.clone(),
        reaches: None,
        races: breach.race_texts(),
        point_of_no_return: None,
    }
}

/// What the search is to note, apart from the first breach.
fn wanted(config: &Config) -> Wanted {
    let conditions = config.case.conditions.iter();
    Wanted {
        keeps_going: config.keep_going,
        witness: config.witness,
        conditions: conditions.map(|it| (it.to_string(), it.is_never)).collect(),
        data_races: config.data_races,
    }
}

/// The orders that the search has found and gone on from, shortened.
#[derive(Debug, Default)]
struct KeptOrders {
    ways: Vec<Way>,
    races: Vec<Way>,
    more_ways: bool,
    conditions: Vec<ConditionOutcome>,
    witness: Option<Box<Schedule>>,
}

impl KeptOrders {
    /// Shortens what was `found`. All of it shares the time for that. If the search has to stop
    /// meanwhile, sets `is_cut_short`, and leaves the rest as it is.
    fn of(
        specimen: &mut Specimen,
        config: &Config,
        description: &Description<'_>,
        found: Found,
        is_cut_short: &mut bool,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Self, ExploreError> {
        let mut kept = Self {
            more_ways: found.more_kinds,
            ..Self::default()
        };
        let buffered = specimen.buffering().addresses();
        let reached = found.reached.iter().flatten().count();
        let count = u32::try_from(found.kinds.len() + reached).unwrap_or(u32::MAX);
        let each = config.shrink / count.max(1);
        let mut shortened = |specimen: &mut Specimen, order: Kept, is_cut_short: &mut bool| {
            let Kept {
                mut order,
                buffered,
            } = order;
            specimen.buffer(&buffered);
            on_progress(&Progress::Shortening {
                turns: order.turns.len(),
            });
            if !*is_cut_short {
                match shorten(specimen, each, found::is_same, &mut order) {
                    Err(ExploreError::Specimen(SpecimenError::Ended(_))) => *is_cut_short = true,
                    other => other?,
                }
            }
            let provenance = description.provenance;
            let schedule = schedule(specimen, config, provenance, order.turns, &order.breach);
            Ok::<_, ExploreError>((order.breach, Box::new(schedule)))
        };
        for kind in found.kinds {
            let found_with = kind.order.turns.len();
            let (breach, schedule) = shortened(specimen, kind, is_cut_short)?;
            let ways = match config.data_races {
                DataRaces::Reported if breach.is_data_race() => &mut kept.races,
                _ => &mut kept.ways,
            };
            ways.push(Way {
                breach,
                schedule,
                found_with,
            });
        }
        let conditions = config.case.conditions.iter().zip(found.reached);
        for (index, (condition, order)) in conditions.enumerate() {
            let reached = match order {
                Some(order) if config.granularity == Granularity::Every => {
                    Some(Reached::Steps(order.order.turns))
                }
                Some(order) => {
                    specimen.seek(Some(index));
                    let shortened = shortened(specimen, order, is_cut_short);
                    specimen.seek(None);
                    let (_, mut schedule) = shortened?;
                    schedule.breaks = Vec::new();
                    schedule.reaches = Some(condition.to_string());
                    Some(Reached::Schedule(schedule))
                }
                None => None,
            };
            kept.conditions.push(ConditionOutcome {
                condition: condition.clone(),
                reached,
                could_be_told: found.untold >> index & 1 == 0,
            });
        }
        if let Some(Kept { order, buffered }) = found.witness {
            specimen.buffer(&buffered);
            let turns = match *is_cut_short {
                true => Ok(order.turns),
                false => with_states(specimen, &order.turns),
            };
            match turns {
                Err(ExploreError::Specimen(SpecimenError::Ended(_))) => *is_cut_short = true,
                other => {
                    let provenance = description.provenance;
                    let schedule = schedule(specimen, config, provenance, other?, &order.breach);
                    kept.witness = Some(Box::new(schedule));
                }
            }
        }
        specimen.buffer(&buffered);
        Ok(kept)
    }

    /// Whether there are any that were shortened.
    fn are_any(&self) -> bool {
        !self.ways.is_empty()
            || !self.races.is_empty()
            || self.conditions.iter().any(|it| it.reached.is_some())
    }
}

/// `turns`, which break nothing, with the keys of the states they lead to.
fn with_states(specimen: &mut Specimen, turns: &[Turn]) -> Result<Vec<Turn>, ExploreError> {
    let followed = follow(specimen, turns, &mut |_, _, _| {})?;
    Ok(followed.map_err(ExploreError::NotAgain)?.turns)
}

/// Shortens `found` for at most `time` as long as its breach `is_same`, and adds the keys of the
/// states it leads to.
fn shorten(
    specimen: &mut Specimen,
    time: Duration,
    is_same: impl Fn(&Breach, &Breach) -> bool,
    found: &mut Counterexample,
) -> Result<(), ExploreError> {
    specimen.seek_race(Some(&found.breach));
    let shortened = shorten_to(specimen, time, is_same, found);
    specimen.seek_race(None);
    shortened
}

/// As [`shorten`], of a specimen that knows which data race it is to come to, if it is to.
fn shorten_to(
    specimen: &mut Specimen,
    time: Duration,
    is_same: impl Fn(&Breach, &Breach) -> bool,
    found: &mut Counterexample,
) -> Result<(), ExploreError> {
    if found.breach.is_livelock() {
        found.turns = up_to_cycle(specimen, &found.turns)?;
    }
    shrink::shrink(specimen, found, Instant::now() + time, is_same)?;
    let followed = follow(specimen, &found.turns, &mut |_, _, _| {})?;
    let followed = followed.map_err(ExploreError::NotAgain)?;
    if specimen.seeks() && followed.breach.is_none() {
        return Err(ExploreError::NotAgain(Diverged::NotReached));
    }
    found.turns = followed.turns;
    if let Some(breach) = followed.breach {
        found.breach = breach;
    }
    Ok(())
}
