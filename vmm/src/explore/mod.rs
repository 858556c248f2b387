//! The explorer: finds orders of steps of the machine's CPUs that break something, or shows that
//! there are none. `docs/exploration.md` says how. Its machine is moved by one thread, one CPU at a
//! time; it shares nothing with [`crate::control`], which lets machines run.

pub mod answers;
pub mod case;
pub mod merge;
pub mod naming;
pub mod point_of_no_return;
pub mod replay;
pub mod result;
pub mod retrace;
pub mod schedule;
pub mod search;
pub mod sharing;
pub mod shrink;
pub mod specimen;
pub mod story;
pub mod strategy;
pub mod until;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use answers::Answer;
use case::{Case, CaseError, NeverBreaks};
use naming::Words;
pub use replay::{Replay, Replayed, replay};
use retrace::{Diverged, follow, name, up_to_round};
use schedule::{FORM, Granularity, Schedule};
use search::seen::Seen;
use search::{Counts, End, Found, Hunt, OnProgress, Why};
use sharing::{Known, OtherCpus, Sharing};
use specimen::{Breach, Setup, Specimen, SpecimenError};
use story::Teller;
use strategy::Covered;
pub use strategy::{Strategy, is_possible};
use until::Until;
use words::NoEffect;

use crate::machine::MachineError;
use crate::machine::guest::Guest;
use crate::machine::image::Image;
use crate::manifest::Manifest;
use crate::provenance::{Input, Provenance};
use crate::stats::sources::Kvm;

/// What to explore, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The guest image.
    pub guest: Guest,
    /// The case.
    pub case: Case,
    /// The file that it is from, if it is from one.
    pub case_file: Option<Input>,
    /// The kind of this host's KVM, as far as that was found out.
    pub kvm: Kvm,
    /// Words for the guest beyond the case's own.
    pub append: String,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// How choices are made.
    pub strategy: Strategy,
    /// Where chance comes from. Equal seeds make equal choices.
    pub seed: u64,
    /// How long it may take, with the boot and with making what is found shorter.
    pub time: Option<Duration>,
    /// How many states it may keep.
    pub states: Option<u64>,
    /// Which part of the search is this one's.
    pub shard: Shard,
    /// What is known of what CPUs share from searches before; if nothing, it is learnt first.
    pub known: Option<Known>,
    /// Whether an exhaustive search checks that equal states lead to equal states, at the price of
    /// a step for each choice of each state that it meets again.
    pub check_keys: bool,
    /// How long it may try to make what it finds shorter, and half as long again to find its point
    /// of no return.
    pub shrink: Duration,
}

/// A part of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// Which, from 0.
    pub index: u64,
    /// Of how many.
    pub of: u64,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, of: 1 };
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of && of <= MOST_SHARDS => Ok(Self { index, of }),
            _ => Err(format!(
                "\"{text}\" is not I/N, such as 0/4 to 3/4, with N up to {MOST_SHARDS}"
            )),
        }
    }
}

/// Most shards of one search. All of them walk the first eight states or so for each.
pub const MOST_SHARDS: u64 = 10_000;

/// Why nothing was explored, or replayed.
#[derive(Debug, thiserror::Error)]
pub enum ExploreError {
    /// No image.
    #[error(transparent)]
    Image(#[from] crate::machine::image::ImageError),
    /// No specimen.
    #[error(transparent)]
    Specimen(#[from] SpecimenError),
    /// What was found does not come again, which is a bug of the explorer.
    #[error("the schedule that was found does not lead there again: {0}")]
    NotAgain(Diverged),
    /// The case is none, or has something that the guest cannot be told.
    #[error("{0}: {1}")]
    Case(String, CaseError),
    /// The case expects what the guest cannot be found to break.
    #[error("{0}, {1}")]
    NeverBreaks(String, Box<NeverBreaks>),
    /// The guest is to be given a word that has no effect.
    #[error(transparent)]
    Word(#[from] NoEffect),
    /// What is known is of other CPUs.
    #[error(transparent)]
    OtherCpus(#[from] OtherCpus),
    /// The schedule is of another image.
    #[error(
        "the schedule was found on guest image {of}, this is {this}; take the image it was found on, or \
         --any-image to try all the same"
    )]
    OtherImage {
        /// The number of that.
        of: String,
        /// The number of this.
        this: String,
    },
}

/// That a guest with this manifest can be told all of `case`, and found to break what it expects.
/// `name` is what the case is called in complaints.
///
/// # Errors
/// [`ExploreError`] for the first thing that it cannot.
fn check_case(name: &str, case: &Case, manifest: &Manifest) -> Result<(), ExploreError> {
    let commands = case.commands(manifest);
    commands.map_err(|error| ExploreError::Case(name.to_owned(), error))?;
    let expected = case.check_expected(manifest);
    expected.map_err(|error| ExploreError::NeverBreaks(name.to_owned(), Box::new(error)))
}

impl ExploreError {
    /// The status with which the command ends.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Image(_)
            | Self::Case(..)
            | Self::NeverBreaks(..)
            | Self::Word(_)
            | Self::OtherCpus(_)
            | Self::OtherImage { .. } => 2,
            Self::Specimen(
                SpecimenError::NoPoint { .. }
                | SpecimenError::Case(_)
                | SpecimenError::NoEnding
                | SpecimenError::NotReady(_)
                | SpecimenError::Vector { .. }
                | SpecimenError::Stack { .. },
            ) => 2,
            Self::Specimen(SpecimenError::Ended(_) | SpecimenError::Late) => 5,
            Self::Specimen(SpecimenError::Machine(error)) if error.is_of_what_was_given() => 2,
            Self::Specimen(_) | Self::NotAgain(_) => 3,
        }
    }
}

/// What a search came to.
#[derive(Debug)]
pub enum Verdict {
    /// It breaks, in each of these ways.
    Refuted {
        /// The ways.
        ways: Vec<Found>,
        /// Why not all orders were tried, so that there can be other ways, if so.
        stopped: Option<Why>,
    },
    /// It breaks.
    Broke {
        /// What, and how.
        breach: Breach,
        /// The schedule that was found, made short.
        schedule: Box<Schedule>,
        /// How many turns it had when it was found.
        found_with: usize,
    },
    /// It does not break, in any order.
    Complete,
    /// It did not break with any order of so many preemptions.
    BoundedComplete(u32),
    /// It did not break in so many orders.
    Sampled(u64),
    /// The search stopped before it was through.
    Stopped(Why),
}

/// What a search came to, and what it did.
#[derive(Debug)]
pub struct Outcome {
    /// What it came to.
    pub verdict: Verdict,
    /// What it did.
    pub counts: Counts,
    /// For how long it searched, once the machine was there, until something broke or there was
    /// nothing left to try.
    pub time: Duration,
    /// For how long it made what it found shorter.
    pub shortening: Duration,
    /// What is known of what CPUs share.
    pub sharing: Sharing,
    /// What the case expects: any of these to break, or nothing.
    pub expected: Vec<String>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// A number that tells the guest's image from others.
    pub image: String,
    /// Words for the guest that can show nothing in a search of this kind, a sentence each.
    pub warnings: Vec<String>,
    /// The state of the machine at the beginning.
    pub begins: String,
    /// What an exhaustive search has seen.
    pub seen: Seen,
    /// What the CPUs answered to the case's deeds.
    pub answers: Vec<Answer>,
    /// What has become of the machine at the ends ([`Specimen::outcome`]).
    pub outcomes: BTreeSet<u128>,
    /// The names of the words that were accessed, by address, as far as they have one.
    pub words: BTreeMap<String, String>,
}

impl Outcome {
    /// Whether it is what the case expects; `None` if the search has not shown it.
    pub fn is_expected(&self) -> Option<bool> {
        match &self.verdict {
            Verdict::Broke { breach, .. } => {
                Some(breach.names.iter().any(|name| self.expected.contains(name)))
            }
            Verdict::Refuted { ways, .. } => Some(ways.iter().all(|found| {
                let names = &found.breach.names;
                names.iter().any(|name| self.expected.contains(name))
            })),
            Verdict::Stopped(_) => None,
            Verdict::Complete => Some(self.expected.is_empty()),
            // What breaks can take more than was tried.
            Verdict::BoundedComplete(_) | Verdict::Sampled(_) => {
                self.expected.is_empty().then_some(true)
            }
        }
    }
}

/// Explores. `interrupted` is asked now and then whether to stop, as a signal would have it.
///
/// # Errors
/// [`ExploreError`] if that was not possible. That something breaks is no error.
pub fn explore(
    config: &Config,
    interrupted: impl Fn() -> bool + Send + Sync + 'static,
    on_progress: &mut OnProgress<'_>,
) -> Result<Outcome, ExploreError> {
    let until = Until::new(interrupted, config.time);
    let (image, manifest) = read(config)?;
    let mut specimen = Specimen::boot(&setup(&image, config), until)?;
    let begun = Instant::now();
    let provenance = Provenance {
        words: specimen.words(),
        case: config.case_file.clone(),
        ..Provenance::new(
            config.kvm,
            Input::new(config.guest.name(), image.bytes()),
            config.case.cpus,
            &options(config),
        )
    };
    let mut sharing = Sharing::new(specimen.cpus().len());
    if let Some(known) = &config.known {
        sharing.learn(known)?;
        sharing.begin_anew();
    }
    let limits = search::Limits {
        states: config.states,
    };
    let mut seen = Seen::default();
    let mut hunt = Hunt::new(&mut specimen, &mut sharing, limits, on_progress);
    let mut is_cut_short = false;
    let covered = match strategy::run(&mut hunt, config, &mut seen) {
        Err(SpecimenError::Ended(why)) => {
            is_cut_short = true;
            Covered::only(End::Stopped(why))
        }
        other => other?,
    };
    let counts = hunt.counts;
    let outcomes = std::mem::take(&mut hunt.outcomes);
    let time = begun.elapsed();
    let found = Instant::now();
    let verdict = match covered.end {
        End::Broke(found) => {
            let shown = Shown {
                image: &image,
                sharing: &sharing,
                provenance: &provenance,
            };
            broke(&mut specimen, config, &shown, found, &mut is_cut_short)?
        }
        end if !covered.broken.is_empty() => Verdict::Refuted {
            ways: covered.broken,
            stopped: match end {
                End::Stopped(why) => Some(why),
                _ => None,
            },
        },
        End::Stopped(why) => Verdict::Stopped(why),
        End::Complete => match (covered.bound, config.strategy) {
            (Some(bound), _) => Verdict::BoundedComplete(bound),
            (None, Strategy::Sampled(_, runs)) => Verdict::Sampled(runs),
            (None, _) => Verdict::Complete,
        },
    };
    let shortening = match &verdict {
        Verdict::Broke { .. } => found.elapsed(),
        _ => Duration::ZERO,
    };
    // A CPU that was stopped on its way can be in the middle of taking an interrupt. Nothing is
    // said then of orders that do not break.
    if !is_cut_short {
        specimen.mend()?;
        specimen.keep_new_pages()?;
        specimen.rewind();
        specimen.check_rest()?;
    }
    let options = options(config);
    let names = Words::of(&image, &specimen);
    Ok(Outcome {
        words: names.known(sharing.addresses()),
        verdict,
        counts,
        time,
        shortening,
        sharing,
        warnings: words::warnings(&manifest, &options),
        expected: config.case.expected(&options).to_vec(),
        provenance,
        image: name(specimen.image()),
        begins: name(specimen.beginning()),
        answers: specimen.take_answers().into_list(),
        seen,
        outcomes,
    })
}

/// Checks all that can be checked before the guest is booted: the image, and that it understands
/// the case and the words.
///
/// # Errors
/// [`ExploreError`] says what is wrong.
pub fn check(config: &Config) -> Result<(), ExploreError> {
    read(config).map(|_| ())
}

/// The image, with what it says of itself, for which the case and the words make sense.
fn read(config: &Config) -> Result<(Image, Manifest), ExploreError> {
    let image = config.guest.open()?;
    let manifest = manifest(&image)?;
    check_words(&manifest, &config.case, &config.append)?;
    let file = config.case_file.as_ref().map(|file| &*file.name);
    check_case(file.unwrap_or("the case"), &config.case, &manifest)?;
    Ok((image, manifest))
}

/// What the guest says of itself; nothing if it says nothing.
fn manifest(image: &Image) -> Result<Manifest, SpecimenError> {
    let manifest = Manifest::of(image).map_err(MachineError::from)?;
    Ok(manifest.unwrap_or_default())
}

/// Refuses words for the guest that have no effect.
fn check_words(manifest: &Manifest, case: &Case, append: &str) -> Result<(), NoEffect> {
    words::check(manifest, &case.append, "the case (append)")?;
    words::check(manifest, append, "--append")
}

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
    }
}

/// What a schedule that was found is shown by.
struct Shown<'a> {
    image: &'a Image,
    sharing: &'a Sharing,
    provenance: &'a Provenance,
}

/// What was found, made short, and seen to come again, with its point of no return. If it is to end
/// meanwhile, as short as it was by then, which `is_cut_short` then says.
fn broke(
    specimen: &mut Specimen,
    config: &Config,
    shown: &Shown<'_>,
    found: Found,
    is_cut_short: &mut bool,
) -> Result<Verdict, ExploreError> {
    let found_with = found.turns.len();
    let mut shortest = found;
    match made_short(specimen, config, &mut shortest) {
        Err(ExploreError::Specimen(SpecimenError::Ended(_))) => *is_cut_short = true,
        other => other?,
    }
    let Found { turns, breach } = shortest;
    let until = Instant::now() + point_of_no_return::share_of(config.shrink);
    let teller = Teller::new(shown.image);
    let point_of_no_return = if *is_cut_short {
        None
    } else {
        match point_of_no_return::find(specimen, &teller, shown.sharing, &turns, until) {
            Err(SpecimenError::Ended(_)) => {
                *is_cut_short = true;
                None
            }
            other => other?,
        }
    };
    Ok(Verdict::Broke {
        schedule: Box::new(Schedule {
            form: FORM.to_owned(),
            provenance: Some(shown.provenance.clone()),
            case: config.case.to_string(),
            append: config.append.clone(),
            granularity: config.granularity,
            image: name(specimen.image()),
            begins: name(specimen.beginning()),
            turns,
            breaks: breach.names.clone(),
            point_of_no_return,
        }),
        breach,
        found_with,
    })
}

/// Makes `found` short, and adds the states it leads to.
fn made_short(
    specimen: &mut Specimen,
    config: &Config,
    found: &mut Found,
) -> Result<(), ExploreError> {
    if found.breach.is_livelock() {
        found.turns = up_to_round(specimen, &found.turns)?;
    }
    shrink::shrink(specimen, found, Instant::now() + config.shrink)?;
    let followed = follow(specimen, &found.turns, &mut |_, _, _| {})?;
    let followed = followed.map_err(ExploreError::NotAgain)?;
    found.turns = followed.turns;
    if let Some(breach) = followed.breach {
        found.breach = breach;
    }
    Ok(())
}
