//! Makes a case smaller that breaks something: fewer CPUs, then fewer deeds by delta debugging (ddmin:
//! Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002), then
//! fewer targets and waits. CPUs that are taken out idle at first, so that what one search has learnt of
//! the memory that CPUs share helps the next; once no deed can go, those go that idle. Whether a smaller case still breaks is searched, each time for a limited
//! time: what does not show in that time is taken not to break, so that the result need not be the
//! smallest there is, but does break.

use std::time::{Duration, Instant};

use tracing::info;

use super::case::Case;
use super::checks::read;
use super::config::Config;
use super::data_races::DataRaces;
use super::draft::Draft;
use super::errors::ExploreError;
use super::exploration::explore;
use super::outcome::{Outcome, SearchVerdict};
use super::search::sampled::Sampling;
use super::sharing::SharingRecord;
use super::specimen::SpecimenError;
use super::stop_reason::StopReason;
use super::strategy::Strategy;
use crate::manifest::Manifest;

/// The preemptions of the orders that are tried once random ones have shown nothing.
const PREEMPTIONS: u32 = 2;

/// How many times as long the given case is searched as a smaller one: without it there is nothing to
/// make smaller.
const FIRST: u32 = 5;

/// How often random orders change priorities.
const CHANGES: u32 = 3;

/// The most deeds of a case of which orders with few preemptions are tried as well.
const FEW: usize = 6;

/// About how many steps a deed takes.
const STEPS: u64 = 40;

/// The result of making a case smaller.
#[derive(Debug)]
pub struct Reduced {
    /// The smallest case that was found to break, without comments; `None` if not even the given
    /// one was.
    pub case: Option<String>,
    /// The size of the given case: CPUs and deeds.
    pub from: (u32, usize),
    /// The size of the smallest.
    pub to: (u32, usize),
    /// How many cases were searched.
    pub tried: u64,
    /// Why no smaller one was looked for, if so.
    pub stopped: Option<StopReason>,
}

/// Why a case cannot be made smaller.
#[derive(Debug, thiserror::Error)]
pub enum ReduceError {
    /// It is not known what is to be kept.
    #[error(
        "the case expects nothing to break with these words: say with a line \"expect\" what a \
         smaller one is to break"
    )]
    NothingExpected,
    /// A case cannot be searched.
    #[error(transparent)]
    Explore(#[from] ExploreError),
}

/// Makes the case of `config` as small as it can, as long as it breaks something that it expects.
/// Each smaller case is searched for the time `each`, the given one for five times as long, by random
/// orders, `runs` of them at most. A case of few deeds has half of the time for that, and the other half
/// for orders with few preemptions. `config` limits the time of all together.
///
/// # Errors
/// [`ReduceError`] if the case cannot be searched. That a smaller one cannot is no error.
pub fn reduce(
    config: &Config,
    each: Duration,
    runs: u64,
    interrupted: impl Fn() -> bool + Send + Sync + Copy + 'static,
    on_progress: &mut dyn FnMut(&Draft, u64),
) -> Result<Reduced, ReduceError> {
    let (_, manifest) = read(config)?;
    let options = format!("{} {}", config.case.append, config.append);
    if config.case.expected(&options).is_empty() {
        return Err(ReduceError::NothingExpected);
    }
    let first = Draft::of(&config.case, &manifest);
    let first = first.map_err(|error| ExploreError::Case("the case".to_owned(), error))?;
    let mut judge = Judge {
        config,
        manifest: &manifest,
        each,
        runs,
        until: config.time.map(|time| Instant::now() + time),
        interrupted,
        tried: Vec::new(),
        known: None,
    };
    let size = |draft: &Draft| (draft.cpus, draft.deeds());
    let mut best = first.clone();
    let mut stopped = None;
    let breaks = match judge.breaks(&first) {
        Ok(breaks) => breaks,
        Err(End::Stopped(why)) => {
            stopped = Some(why);
            false
        }
        Err(End::Failed(error)) => return Err(error.into()),
    };
    if breaks {
        match shrink(&mut best, &manifest, &mut |draft, best| {
            on_progress(best, judge.tried.len() as u64);
            judge.breaks(draft)
        }) {
            Ok(()) => {}
            Err(End::Stopped(why)) => stopped = Some(why),
            Err(End::Failed(error)) => return Err(error.into()),
        }
    }
    Ok(Reduced {
        case: breaks.then(|| best.text(&config.case, &manifest)),
        from: size(&first),
        to: size(&best),
        tried: judge.tried.len() as u64,
        stopped,
    })
}

/// Why no further case is searched.
#[derive(Debug)]
enum End {
    Stopped(StopReason),
    Failed(ExploreError),
}

/// Finds out whether a case breaks.
struct Judge<'a, F> {
    config: &'a Config,
    manifest: &'a Manifest,
    each: Duration,
    runs: u64,
    until: Option<Instant>,
    interrupted: F,
    /// What was searched. What did not break is not searched again.
    tried: Vec<Draft>,
    /// What the searches have learnt of the memory that the CPUs of the given case share.
    known: Option<SharingRecord>,
}

impl<F: Fn() -> bool + Send + Sync + Copy + 'static> Judge<'_, F> {
    /// Keeps what a search of a case with so many CPUs has learnt, if it is of use. That it may have
    /// learnt too little does no harm: nothing is claimed of a case that does not break.
    fn learn(&mut self, outcome: &Outcome, cpus: u32) {
        if cpus == self.config.case.cpus {
            self.known = Some(outcome.sharing.to_record());
        }
    }

    fn breaks(&mut self, draft: &Draft) -> Result<bool, End> {
        if self.tried.contains(draft) {
            return Ok(false);
        }
        let is_first = self.tried.is_empty();
        self.tried.push(draft.clone());
        let text = draft.text(&self.config.case, self.manifest);
        let Ok(case) = Case::parse(&text) else {
            return Ok(false);
        };
        info!("does this break? {text}");
        let each = self.each * if is_first { FIRST } else { 1 };
        let length = STEPS * draft.deeds() as u64;
        let changes = CHANGES;
        let random = Strategy::Sampled(Sampling::Priorities { changes, length }, self.runs);
        let bounded = Strategy::Bounded(PREEMPTIONS);
        // The larger a case is, the less of its orders are those with few preemptions.
        let strategies = match draft.deeds() {
            0..=FEW => vec![random, bounded],
            _ => vec![random],
        };
        let each = each / u32::try_from(strategies.len()).unwrap_or(1);
        for strategy in strategies {
            let left = self
                .until
                .map(|it| it.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(End::Stopped(StopReason::Time));
            }
            let time = left.map_or(each, |left| left.min(each));
            let config = Config {
                case: case.clone(),
                strategy,
                time: Some(time),
                shrink: Duration::ZERO,
                keep_going: false,
                data_races: DataRaces::Ignored,
                witness: false,
                known: self
                    .known
                    .clone()
                    .filter(|_| draft.cpus == self.config.case.cpus),
                ..self.config.clone()
            };
            match explore(&config, self.interrupted, &mut |_| {}) {
                Ok(outcome) if breaks(&outcome) => {
                    self.learn(&outcome, draft.cpus);
                    return Ok(true);
                }
                Ok(outcome) => {
                    self.learn(&outcome, draft.cpus);
                    if let SearchVerdict::Stopped(StopReason::Signal) = outcome.verdict {
                        return Err(End::Stopped(StopReason::Signal));
                    }
                }
                Err(ExploreError::Specimen(SpecimenError::Ended(why))) => match why {
                    StopReason::Signal => return Err(End::Stopped(why)),
                    _ => return Ok(false),
                },
                // A smaller case can be one that makes no sense.
                Err(error) if !is_first && error.exit_status() == 2 => return Ok(false),
                Err(error) => return Err(End::Failed(error)),
            }
        }
        Ok(false)
    }
}

fn breaks(outcome: &Outcome) -> bool {
    let broke = matches!(outcome.verdict, SearchVerdict::Broke { .. });
    broke && outcome.is_expected() == Some(true)
}

/// Makes `best` smaller as long as `breaks` says that it still breaks.
fn shrink<E>(
    best: &mut Draft,
    manifest: &Manifest,
    breaks: &mut dyn FnMut(&Draft, &Draft) -> Result<bool, E>,
) -> Result<(), E> {
    loop {
        let before = best.size();
        for cpu in (0..best.cpus).rev() {
            let without = best.idling(cpu, manifest);
            if without != *best {
                take_if_it_breaks(best, without, breaks)?;
            }
        }
        fewer_deeds(best, breaks)?;
        without_idle(best, manifest, breaks)?;
        for number in 0..best.deeds() {
            let command = best.programs.iter().flatten().nth(number);
            let targets: Vec<_> = command.map_or_else(Vec::new, |it| it.mask.iter().collect());
            for target in targets {
                let without = best.changing(number, |it| {
                    let others = it.mask.iter().filter(|cpu| *cpu != target);
                    let others: crate::cpus::CpuSet = others.collect();
                    if !others.is_empty() {
                        it.mask = others;
                    }
                });
                if let Some(without) = without {
                    take_if_it_breaks(best, without, breaks)?;
                }
            }
            if let Some(without) = best.changing(number, |it| it.wait = false) {
                take_if_it_breaks(best, without, breaks)?;
            }
        }
        if best.size() == before {
            return Ok(());
        }
    }
}

/// Takes out the CPUs that idle, all at once or one after the other.
fn without_idle<E>(
    best: &mut Draft,
    manifest: &Manifest,
    breaks: &mut dyn FnMut(&Draft, &Draft) -> Result<bool, E>,
) -> Result<(), E> {
    let mut fewer = best.clone();
    for cpu in (0..best.cpus).rev() {
        if fewer.cpus > 1 && fewer.is_idle(cpu, manifest) {
            fewer = fewer.without_cpu(cpu, manifest);
        }
    }
    if fewer != *best && !take_if_it_breaks(best, fewer, breaks)? {
        for cpu in (0..best.cpus).rev() {
            if best.cpus > 1 && best.is_idle(cpu, manifest) {
                let without = best.without_cpu(cpu, manifest);
                take_if_it_breaks(best, without, breaks)?;
            }
        }
    }
    Ok(())
}

fn take_if_it_breaks<E>(
    best: &mut Draft,
    candidate: Draft,
    breaks: &mut dyn FnMut(&Draft, &Draft) -> Result<bool, E>,
) -> Result<bool, E> {
    let does = candidate.deeds() > 0 && breaks(&candidate, best)?;
    if does {
        *best = candidate;
    }
    Ok(does)
}

/// ddmin over the deeds of all CPUs: leaves out one of `parts` parts of them, and makes the parts
/// smaller as long as none can be left out.
fn fewer_deeds<E>(
    best: &mut Draft,
    breaks: &mut dyn FnMut(&Draft, &Draft) -> Result<bool, E>,
) -> Result<(), E> {
    let mut parts = 2;
    while best.deeds() > 1 {
        let count = best.deeds();
        parts = parts.min(count);
        let mut has_shrunk = false;
        for part in 0..parts {
            let out = count * part / parts..count * (part + 1) / parts;
            let keeps: Vec<_> = (0..count).map(|number| !out.contains(&number)).collect();
            let without = best.keeping(&keeps);
            if take_if_it_breaks(best, without, breaks)? {
                has_shrunk = true;
                break;
            }
        }
        match has_shrunk {
            true => parts = (parts - 1).max(2),
            false if parts == count => break,
            false => parts = (parts * 2).min(count),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::deed::tests::manifest;

    /// Makes the case smaller as long as `breaks` says so of its text.
    fn reduced(text: &str, breaks: impl Fn(&str) -> bool) -> (String, usize) {
        let case = Case::parse(text).unwrap();
        let manifest = manifest();
        let mut best = Draft::of(&case, &manifest).unwrap();
        let mut tried = 0;
        let ended: Result<(), ()> = shrink(&mut best, &manifest, &mut |draft, _| {
            tried += 1;
            Ok(breaks(&draft.text(&case, &manifest)))
        });
        ended.unwrap();
        (best.text(&case, &manifest), tried)
    }

    const LARGE: &str = "cpus 5\n0: many 1-4; call-single 2; many 1,3 wait; call-single 4\n\
                         1: call-single 0; call-single 2; many 2-4\n\
                         2: call-single 1; call-single 3 \n3: many 0-2; call-single 4; many 1,2\n\
                         4: call-single 1; call-single 0\nexpect lost\n";

    #[test]
    fn what_a_breach_needs_is_left_and_nothing_else() {
        let (text, tried) = reduced(LARGE, |text| {
            text.contains("call-many 1,3") && text.contains("3: call-many")
        });
        assert_eq!(
            text,
            "cpus 4\n0: call-many 1,3\n3: call-many 1\nexpect lost\n"
        );
        assert!(tried < 100, "{tried}");
        let (text, _) = reduced(LARGE, |_| true);
        assert_eq!(text.matches("call").count(), 1, "{text}");
        let (text, _) = reduced(LARGE, |_| false);
        assert_eq!(Case::parse(&text).unwrap().programs[0].len(), 4);
    }

    #[test]
    fn what_was_found_by_then_is_kept_when_it_has_to_end() {
        let case = Case::parse(LARGE).unwrap();
        let manifest = manifest();
        let mut best = Draft::of(&case, &manifest).unwrap();
        let mut left = 3;
        let ended = shrink(&mut best, &manifest, &mut |_, _| {
            left -= 1;
            if left == 0 { Err("over") } else { Ok(true) }
        });
        assert_eq!(ended, Err("over"));
        assert!(best.programs[4].is_empty() && best.programs[3].is_empty());
        assert_eq!(best.cpus, 5);
    }
}
