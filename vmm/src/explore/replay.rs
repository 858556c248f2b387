//! Replays schedules: finds out whether a schedule breaks again what it broke when it was found.

use std::time::Duration;

use tracing::info;

use super::case::Case;
use super::checks::{check_case, check_options, manifest};
use super::errors::ExploreError;
use super::key::to_hex;
use super::retrace::{self, Followed, follow};
use super::schedule::{Schedule, Turn};
use super::specimen::{Breach, Setup, Specimen, SpecimenError};
use super::stop_reason::StopReason;
use super::until::Until;
use crate::machine::guest::Guest;
use crate::machine::image::Image;

/// What to replay, and how.
#[derive(Debug, Clone, Copy)]
pub struct Replay<'a> {
    /// The guest image.
    pub guest: &'a Guest,
    /// The schedule.
    pub schedule: &'a Schedule,
    /// The number of replays.
    pub times: u64,
    /// Whether the image may be another one than that on which the schedule was found.
    pub any_image: bool,
    /// The time limit, including the boot.
    pub time: Option<Duration>,
}

/// The result of the replays.
#[derive(Debug)]
pub struct Replayed {
    /// The number of replays that were made, to the end of the schedule or to where they diverged.
    pub done: u64,
    /// The number of replays that broke what the schedule says.
    pub as_told: u64,
    /// How the first of the others differed.
    pub other: Option<String>,
    /// The last replay.
    pub last: Option<Followed>,
    /// Whether the image is the one on which the schedule was found.
    pub same_image: bool,
    /// Whether states were compared with those of the schedule. If the initial state differs, as it
    /// can on another host, all states do, and only stops can be compared.
    pub compared_states: bool,
    /// Why fewer replays were made than were asked for, if so.
    pub stopped: Option<StopReason>,
}

/// What error messages call the case of a schedule.
const OF_SCHEDULE: &str = "the schedule's case";

/// The case of `schedule`.
pub(super) fn case_of(schedule: &Schedule) -> Result<Case, ExploreError> {
    let case = Case::parse(&schedule.case);
    case.map_err(|error| ExploreError::Case(OF_SCHEDULE.to_owned(), error))
}

/// A machine that is ready to follow a schedule.
pub(super) struct Ready {
    /// The machine, in the initial state.
    pub specimen: Specimen,
    /// The names of what the schedule says that it breaks.
    pub leads_to: Vec<String>,
    /// As [`Replayed::same_image`].
    pub same_image: bool,
    /// As [`Replayed::compared_states`].
    pub compared_states: bool,
}

/// Boots a machine on `image` for the schedule of `replay`.
///
/// # Errors
/// [`ExploreError`] if the schedule is not for this image, or the machine cannot be made.
pub(super) fn ready(
    replay: &Replay<'_>,
    image: &Image,
    until: Until,
) -> Result<Ready, ExploreError> {
    let schedule = replay.schedule;
    let case = case_of(schedule)?;
    let known = manifest(image).map_err(SpecimenError::from)?;
    check_options(&known, &case, &schedule.append)?;
    let setup = Setup {
        image,
        case: &case,
        append: &schedule.append,
        granularity: schedule.granularity,
        memory: schedule.memory,
        every_exit: true,
        data_races: !schedule.races.is_empty(),
    };
    let mut specimen = Specimen::boot(&setup, until)?;
    specimen.buffer(&schedule.buffered);
    let this = to_hex(specimen.image());
    if this != schedule.image && !replay.any_image {
        let of = schedule.image.clone();
        return Err(ExploreError::OtherImage { of, this });
    }
    check_case(OF_SCHEDULE, &case, specimen.manifest())?;
    specimen.seek_race(Breach::race_of(&schedule.races).as_ref());
    let leads_to = match &schedule.reaches {
        None => schedule.breaks.clone(),
        Some(condition) => {
            let mut conditions = case.conditions.iter();
            let index = conditions.position(|it| it.to_string() == *condition);
            let unknown = || ExploreError::NoSuchCondition(condition.clone());
            specimen.seek(Some(index.ok_or_else(unknown)?));
            Breach::names_of_reached()
        }
    };
    Ok(Ready {
        leads_to,
        same_image: this == schedule.image,
        compared_states: to_hex(specimen.beginning()) == schedule.begins,
        specimen,
    })
}

/// Replays a schedule as often as `replay` says. `on_stop` is called at each stop of the last
/// replay, and `on_replay` after each replay with the number of those that have been made.
///
/// # Errors
/// [`ExploreError`] if the schedule could not be replayed.
pub fn replay(
    replay: &Replay<'_>,
    interrupted: impl Fn() -> bool + Send + Sync + 'static,
    on_stop: &mut retrace::OnStop<'_>,
    on_replay: &mut dyn FnMut(u64),
) -> Result<Replayed, ExploreError> {
    let schedule = replay.schedule;
    let image = replay.guest.open()?;
    let until = Until::new(interrupted, replay.time);
    let Ready {
        mut specimen,
        leads_to,
        same_image,
        compared_states,
    } = ready(replay, &image, until)?;
    let mut replayed = Replayed {
        done: 0,
        as_told: 0,
        other: None,
        last: None,
        compared_states,
        stopped: None,
        same_image,
    };
    info!(
        "replay {} turns {} times",
        schedule.turns.len(),
        replay.times
    );
    let mut turns = without_states(&schedule.turns);
    // Follow it once without comparing states: which pages belong to a state is known only once
    // they have been written.
    match follow(&mut specimen, &turns, &mut |_, _, _| {}) {
        Err(SpecimenError::Ended(why)) => {
            replayed.stopped = Some(why);
            return Ok(replayed);
        }
        other => _ = other?,
    }
    if replayed.compared_states {
        turns.clone_from(&schedule.turns);
    }
    for time in 1..=replay.times {
        let is_last = time == replay.times;
        let followed = follow(&mut specimen, &turns, &mut |specimen, choice, turn| {
            if is_last {
                on_stop(specimen, choice, turn);
            }
        });
        let followed = match followed {
            Err(SpecimenError::Ended(why)) => {
                replayed.stopped = Some(why);
                break;
            }
            other => other?,
        };
        replayed.done += 1;
        on_replay(replayed.done);
        let names = |followed: &Followed| {
            let breach = followed.breach.as_ref();
            breach.map_or_else(Vec::new, |breach| breach.names.clone())
        };
        match followed {
            Ok(followed) if names(&followed) == leads_to => {
                replayed.as_told += 1;
                replayed.last = Some(followed);
            }
            Ok(followed) => {
                let broke = names(&followed).join(", ");
                let text = match broke.is_empty() && schedule.reaches.is_some() {
                    true => "it did not reach that".to_owned(),
                    false => format!("it broke \"{broke}\""),
                };
                replayed.other.get_or_insert(text);
                replayed.last = Some(followed);
            }
            Err(diverged) => {
                replayed.other.get_or_insert_with(|| diverged.to_string());
            }
        }
    }
    Ok(replayed)
}

/// `turns` without the keys of states.
pub(super) fn without_states(turns: &[Turn]) -> Vec<Turn> {
    let turn = |turn: &Turn| Turn {
        state: None,
        ..turn.clone()
    };
    turns.iter().map(turn).collect()
}
