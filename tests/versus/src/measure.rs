//! What is measured, and in which order: every search of ours has its neighbour of theirs right
//! behind it, and all of it is done several times over, so that what else the host does falls on
//! both. Draws no conclusions.

use std::time::Duration;

use guest::ipi::queue::QueueKind;
use serde::Serialize;
use vmm::explore::ExploreError;
use vmm::explore::case::Case;

use crate::ours::{self, Explorer};
use crate::theirs::{self, Program};

/// Who searches, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", content = "strategy", rename_all = "kebab-case")]
pub enum Way {
    /// `vmm explore`.
    Vmm(ours::How),
    /// Shuttle.
    Shuttle(theirs::How),
}

/// How the rates are measured: neighbours next to each other.
const RATES: [Way; 7] = [
    Way::Vmm(ours::How::Random),
    Way::Shuttle(theirs::How::Random),
    Way::Vmm(ours::How::Pct),
    Way::Shuttle(theirs::How::Pct),
    Way::Shuttle(theirs::How::Stalls),
    Way::Vmm(ours::How::Races),
    Way::Vmm(ours::How::Exhaustive),
];

/// How what is broken is looked for.
const HUNTS: [Way; 6] = [
    Way::Vmm(ours::How::Random),
    Way::Shuttle(theirs::How::Random),
    Way::Vmm(ours::How::Pct),
    Way::Shuttle(theirs::How::Pct),
    Way::Vmm(ours::How::Auto),
    Way::Shuttle(theirs::How::Stalls),
];

/// What a search did.
#[derive(Clone, Debug, Serialize)]
pub struct Did {
    /// Schedules that came to their end, or to a state that was known.
    pub schedules: u64,
    /// Steps that were made.
    pub steps: u64,
    /// States that differ, of a search that tells them apart.
    pub states: Option<u64>,
    /// Seconds it took.
    pub seconds: f64,
    /// What broke, by name, if anything did.
    pub broke: Option<Vec<String>>,
}

/// A search, and what it did.
#[derive(Clone, Debug, Serialize)]
pub struct Leg {
    /// How it searched.
    #[serde(flatten)]
    pub way: Way,
    /// Where chance came from; the number of the round, from 1.
    pub seed: u64,
    /// What it did.
    #[serde(flatten)]
    pub did: Did,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Searches through what is sound, in the order in which they were made.
    pub rates: Vec<Leg>,
    /// Searches for what is broken.
    pub hunts: Vec<Leg>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often, each time from another seed.
    pub rounds: u64,
    /// For how long each rate is measured.
    pub each: Duration,
    /// How long what is broken is looked for, at most.
    pub hunt: Duration,
}

impl Effort {
    /// How many searches there are.
    pub fn legs(&self) -> u64 {
        self.rounds * (RATES.len() + HUNTS.len()) as u64
    }
}

/// The queues: one in which nothing breaks, and one in which something does.
#[derive(Clone, Copy, Debug)]
pub struct Queues {
    /// The sound one, for rates.
    pub sound: QueueKind,
    /// The broken one.
    pub broken: QueueKind,
}

/// Measures; tells `on_leg` before each search.
///
/// # Errors
/// [`ExploreError`] if the host cannot run the guest.
pub fn measure(
    explorer: &Explorer,
    program: &Program,
    queues: Queues,
    effort: Effort,
    mut on_leg: impl FnMut(Way),
) -> Result<Figures, ExploreError> {
    // What there is to learn is learnt before anything is timed.
    let known = explorer.learn(queues.sound)?;
    let mut legs = |ways: &[Way], run: &dyn Fn(Way, u64) -> Result<Did, ExploreError>| {
        let mut legs = Vec::new();
        for seed in 1..=effort.rounds {
            for &way in ways {
                on_leg(way);
                let did = run(way, seed)?;
                legs.push(Leg { way, seed, did });
            }
        }
        Ok::<_, ExploreError>(legs)
    };
    Ok(Figures {
        rates: legs(&RATES, &|way, seed| match way {
            Way::Vmm(how) => explorer.pace(how, queues.sound, seed, effort.each, &known),
            Way::Shuttle(how) => Ok(theirs::search(
                program,
                how,
                queues.sound,
                seed,
                effort.each,
            )),
        })?,
        hunts: legs(&HUNTS, &|way, seed| match way {
            Way::Vmm(how) => explorer.hunt(how, queues.broken, seed, effort.hunt),
            Way::Shuttle(how) => Ok(theirs::search(
                program,
                how,
                queues.broken,
                seed,
                effort.hunt,
            )),
        })?,
    })
}

/// Why `figures` are not of what they should be, if they are not: something broke that is sound, or
/// something else than `case` expects of the broken queue.
pub fn unexpected(figures: &Figures, case: &Case, queues: Queues) -> Option<String> {
    let broke = |legs: &[Leg], queue: QueueKind| {
        let options = format!("queue={}", queue.name());
        // A call that is lost and waited for is a hang, if it is not looked at why.
        let is_expected = |name: &String| {
            let expected = case.expected(&options);
            expected.contains(name) || (name == theirs::HANG && !expected.is_empty())
        };
        legs.iter().find_map(|leg| {
            let names = leg.did.broke.as_ref()?;
            let way = leg.way;
            (!names.iter().any(is_expected)).then(|| {
                format!(
                    "{} {} from seed {} broke {options}, which the case does not expect: {}",
                    way.by(),
                    way.strategy(),
                    leg.seed,
                    names.join(", ")
                )
            })
        })
    };
    broke(&figures.rates, queues.sound).or_else(|| broke(&figures.hunts, queues.broken))
}

impl Way {
    /// Who.
    pub fn by(self) -> &'static str {
        match self {
            Self::Vmm(_) => "vmm",
            Self::Shuttle(_) => "shuttle",
        }
    }

    /// How.
    pub fn strategy(self) -> &'static str {
        match self {
            Self::Vmm(how) => how.name(),
            Self::Shuttle(how) => how.name(),
        }
    }
}
