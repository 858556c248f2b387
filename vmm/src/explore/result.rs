//! The result of a search as a document: JSON, and in a second file the keys of all states of an
//! exhaustive search. [`super::merge`] needs these to count a state only once if several shards
//! have visited it. Only reads and writes results; verdicts are reached elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::answers::Answer;
use super::config::Config;
use super::data_races::DataRaces;
use super::key::{Key, to_hex};
use super::memory::Memory;
use super::outcome::{ConditionOutcome, Outcome, Reached, SearchVerdict, Way};
use super::schedule::{Granularity, Schedule, Turn};
use super::search::{Counterexample, Counts};
use super::shard::Shard;
use super::sharing::SharingRecord;
use super::stop_reason::StopReason;
use super::strategy::Strategy;
use crate::control_characters::spell_out_path;
use crate::input;
use crate::provenance::Provenance;
use crate::text::{self, Useless};
use crate::whole_file::WholeFile;

/// The version of the document.
pub const SCHEMA: &str = "ipi-lab-explore/1";

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// The version of this document's form.
    pub schema: String,
    /// Where the result comes from; for a merged result, where that of its first shard comes from.
    /// `null` if it was written by a `vmm` that did not record it.
    #[serde(default)]
    pub provenance: Option<Provenance>,
    /// What was searched.
    pub of: Search,
    /// Which part of the search this is.
    pub shard: Shard,
    /// The verdict of this part.
    pub verdict: VerdictRecord,
    /// What this part has done. The states of a shard of an exhaustive search are all that it knows
    /// of; other shards know some of them too.
    pub counts: Counts,
    /// How long the search took, in milliseconds, without the boot and without the time below.
    pub took_ms: u64,
    /// How long it took to shorten the schedule that was found, in milliseconds.
    #[serde(default)]
    pub shortening_ms: u64,
    /// What is known about the memory that CPUs share, and what the search has assumed about it.
    pub sharing: SharingRecord,
    /// The names of words of guest memory, by address (`0x…`), as far as they follow from debug
    /// information and memory.
    #[serde(default)]
    pub words: BTreeMap<String, String>,
    /// The states of a complete exhaustive search; `null` for all other results.
    pub states: Option<States>,
    /// The hashes of the final states, without stacks. Complete searches of the same case, image
    /// and options have the same hashes, whichever strategy they use.
    pub outcomes: Vec<String>,
    /// For a shard: pairs of states that all shards know, of which the second can be reached from
    /// the first, over any states. From these pairs a merged result shows whether states form a
    /// cycle across shards.
    #[serde(default)]
    pub across: Vec<[Key; 2]>,
    /// One sentence for each option of the guest that can show nothing in a search of this kind.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the CPUs answered to the case's deeds, by CPU and then in the order of the case.
    #[serde(default)]
    pub answers: Vec<Answer>,
    /// With `--keep-going`: every kind of breach past which the search has gone on. What the verdict
    /// says of orders that break nothing holds then of all other breaches.
    #[serde(default)]
    pub ways: Vec<WayRecord>,
    /// With `--data-races report`: every data race, with an order that comes to it.
    #[serde(default)]
    pub races: Vec<WayRecord>,
    /// Whether there were more kinds of both than there is room for.
    #[serde(default)]
    pub more_ways: bool,
    /// What became of the conditions of the case.
    #[serde(default)]
    pub conditions: Vec<ConditionRecord>,
    /// With `--witness`: an order that breaks nothing; `null` if none came to its end.
    #[serde(default)]
    pub witness: Option<Box<Schedule>>,
}

/// A kind of breach past which a search has gone on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WayRecord {
    /// What breaks: names of oracles and of other breaches.
    pub names: Vec<String>,
    /// Sentences that describe it. Two breaches are of one kind if these are the same.
    pub texts: Vec<String>,
    /// The schedule that breaks it.
    pub schedule: Box<Schedule>,
    /// The number of turns before the schedule was shortened.
    pub found_with: usize,
}

/// What became of a condition of the case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionRecord {
    /// The line of the case.
    pub condition: String,
    /// Whether it must never hold. Otherwise some order must reach it.
    pub is_never: bool,
    /// Whether it is about every state on the way, and not only about ends.
    pub on_the_way: bool,
    /// Whether an order reaches it.
    pub known: Known,
    /// The schedule that reaches it, if one does; `null` of the reference search, too.
    pub schedule: Option<Box<Schedule>>,
    /// Of the reference search: the steps that reach it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Whether it could be told at each end whether the condition holds there. It cannot of a call
    /// of which a later one has taken the record.
    pub could_be_told: bool,
}

/// What is known of a condition. Of a shard it is what is known of its part of the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// An order reaches it.
    Reached,
    /// No order reaches it.
    NotReached,
    /// None of the orders that the strategy tries reaches it, and there are others.
    NotReachedByThese,
    /// Not all was tried that had to be.
    Unknown,
}

/// What was searched. Results can be merged if this is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Search {
    /// The case.
    pub case: String,
    /// Options for the guest, in addition to those of the case.
    pub append: String,
    /// The memory model.
    #[serde(default)]
    pub memory: Memory,
    /// What it does about data races.
    #[serde(default)]
    pub data_races: DataRaces,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// How orders are chosen.
    pub strategy: Strategy,
    /// The seed of the random choices.
    pub seed: u64,
    /// The hash of the guest's image.
    pub image: String,
    /// The hash of the initial state. It is the same for every boot on one host, and on hosts with
    /// the same kind of CPU.
    pub begins: String,
}

/// The verdict of a search, in its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum VerdictRecord {
    /// The case can break in each of these ways. Only the reference search says so, since it does
    /// not stop at the first one.
    Refuted {
        /// The ways.
        ways: Vec<Refuted>,
        /// Why not all orders were tried; `null` if all were. There can be more ways if not.
        stopped: Option<StopReason>,
    },
    /// The case breaks.
    Broke {
        /// What breaks: names of oracles and of other breaches.
        names: Vec<String>,
        /// Sentences that describe it.
        texts: Vec<String>,
        /// The schedule that breaks it.
        schedule: Box<Schedule>,
        /// The number of turns before the schedule was shortened.
        found_with: usize,
    },
    /// No order breaks anything, or anything else than what is in `ways`.
    Complete,
    /// No order with at most this many preemptions breaks anything.
    BoundedComplete {
        /// The number of preemptions.
        preemptions: u32,
    },
    /// None of this many orders broke anything.
    Sampled {
        /// The number of orders of the whole search, over all shards.
        runs: u64,
    },
    /// The search stopped before it was through.
    Stopped {
        /// Why it stopped.
        why: StopReason,
    },
}

impl VerdictRecord {
    /// Whether the search has tried all orders that it set out to try.
    pub fn is_through(&self) -> bool {
        match self {
            Self::Complete | Self::BoundedComplete { .. } | Self::Sampled { .. } => true,
            Self::Broke { .. } | Self::Stopped { .. } | Self::Refuted { .. } => false,
        }
    }

    /// Whether the same search would find no more if it went on.
    pub fn is_last_word(&self) -> bool {
        match self {
            Self::Stopped { why } => matches!(why, StopReason::Reached | StopReason::Cycle),
            _ => true,
        }
    }
}

/// One way in which the case can break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refuted {
    /// What breaks: names of oracles and of other breaches.
    pub names: Vec<String>,
    /// Sentences that describe it.
    pub texts: Vec<String>,
    /// The steps of the first schedule that was found: CPUs, and the interrupts they take.
    pub steps: Vec<Step>,
}

/// One step, to the next access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The CPU that makes it.
    pub cpu: u32,
    /// The pending interrupt that it takes, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<u8>,
    /// Whether it is no step of the CPU, but the oldest entry of its store buffer leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flushes: bool,
    /// Whether an INIT or a start-up IPI arrives at it first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arrives: bool,
}

/// What is known of `condition` after a search by `strategy` that came to `verdict`.
///
/// The strategies that leave orders out keep the ends, and not all the states on the way. So only the
/// reference can say that no order reaches something on the way.
fn known(condition: &ConditionRecord, verdict: &VerdictRecord, strategy: Strategy) -> Known {
    if condition.known == Known::Reached {
        return Known::Reached;
    }
    let is_all = !condition.on_the_way || strategy == Strategy::Reference;
    match verdict {
        _ if !condition.could_be_told || !is_all => Known::Unknown,
        VerdictRecord::Complete | VerdictRecord::Refuted { stopped: None, .. } => Known::NotReached,
        VerdictRecord::BoundedComplete { .. } | VerdictRecord::Sampled { .. } => {
            Known::NotReachedByThese
        }
        VerdictRecord::Broke { .. }
        | VerdictRecord::Refuted { .. }
        | VerdictRecord::Stopped { .. } => Known::Unknown,
    }
}

fn record(outcome: &ConditionOutcome) -> ConditionRecord {
    let (schedule, steps) = match &outcome.reached {
        None => (None, Vec::new()),
        Some(Reached::Schedule(schedule)) => (Some(schedule.clone()), Vec::new()),
        Some(Reached::Steps(turns)) => (None, turns.iter().map(Step::of).collect()),
    };
    ConditionRecord {
        condition: outcome.condition.to_string(),
        is_never: outcome.condition.is_never,
        on_the_way: outcome.condition.on_the_way,
        known: match outcome.reached {
            Some(_) => Known::Reached,
            None => Known::Unknown,
        },
        schedule,
        steps,
        could_be_told: outcome.could_be_told,
    }
}

impl From<&Way> for WayRecord {
    fn from(way: &Way) -> Self {
        Self {
            names: way.breach.names.clone(),
            texts: way.breach.texts.clone(),
            schedule: way.schedule.clone(),
            found_with: way.found_with,
        }
    }
}

impl Step {
    fn of(turn: &Turn) -> Self {
        Self {
            cpu: turn.cpu,
            takes: turn.takes,
            flushes: turn.flushes,
            arrives: turn.arrives,
        }
    }
}

/// What the file with the states contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct States {
    /// The number of states. The file begins with their keys: 16 bytes each, least significant byte
    /// first, in ascending order.
    pub states: u64,
    /// The number of final states among them. Their keys follow, in the same form.
    pub ends: u64,
    /// The XXH3 hash (128 bits) of the file.
    pub check_sum: String,
}

/// The keys of states, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The keys of all states.
    pub states: Vec<u128>,
    /// The keys of the final states.
    pub ends: Vec<u128>,
}

/// The result of a search or of one shard: the document, and the keys of its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The document.
    pub document: Document,
    /// The keys of the states, if the document has states.
    pub keys: Option<Keys>,
}

impl Document {
    /// The result of a search that `config` asked for, without its states.
    pub fn new(config: &Config, outcome: &Outcome) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            provenance: Some(outcome.provenance.clone()),
            of: Search {
                case: config.case.to_string(),
                append: config.append.clone(),
                memory: config.memory,
                data_races: config.data_races,
                granularity: config.granularity,
                strategy: config.strategy,
                seed: config.seed,
                image: outcome.image.clone(),
                begins: outcome.begins.clone(),
            },
            shard: config.shard,
            verdict: (&outcome.verdict).into(),
            counts: outcome.counts,
            took_ms: milliseconds(outcome.time),
            shortening_ms: milliseconds(outcome.shortening),
            sharing: outcome.sharing.to_record(),
            words: outcome.words.clone(),
            states: None,
            outcomes: outcome.outcomes.iter().map(|it| to_hex(*it)).collect(),
            across: (outcome.states.across.iter())
                .map(|(from, to)| [Key(*from), Key(*to)])
                .collect(),
            warnings: outcome.warnings.clone(),
            answers: outcome.answers.clone(),
            ways: outcome.ways.iter().map(WayRecord::from).collect(),
            races: outcome.races.iter().map(WayRecord::from).collect(),
            more_ways: outcome.more_ways,
            conditions: outcome.conditions.iter().map(record).collect(),
            witness: outcome.witness.clone(),
        }
        .settled()
    }

    /// The same, with what follows from the verdict for the conditions that no order has reached.
    pub(super) fn settled(mut self) -> Self {
        for condition in &mut self.conditions {
            condition.known = known(condition, &self.verdict, self.of.strategy);
        }
        self
    }

    fn has_states(&self) -> bool {
        self.of.strategy == Strategy::Exhaustive && self.verdict == VerdictRecord::Complete
    }

    /// How long the search took.
    pub fn took(&self) -> Duration {
        Duration::from_millis(self.took_ms)
    }

    /// How long it took to shorten the schedule that was found.
    pub fn shortening(&self) -> Duration {
        Duration::from_millis(self.shortening_ms)
    }
}

impl Search {
    /// What a verdict on all orders covers: the memory model, and where CPUs can be stopped.
    pub fn scope(&self) -> String {
        let at = match self.granularity {
            Granularity::Probe => "probe",
            Granularity::Access | Granularity::Every => "access",
        };
        format!("{}, at every {at}", self.memory)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Counterexample> for Refuted {
    fn from(found: &Counterexample) -> Self {
        Self {
            names: found.breach.names.clone(),
            texts: found.breach.texts.clone(),
            steps: found.turns.iter().map(Step::of).collect(),
        }
    }
}

impl Part {
    /// The result of a search that `config` asked for.
    pub fn new(config: &Config, outcome: &Outcome) -> Self {
        let mut document = Document::new(config, outcome);
        let keys = document.has_states().then(|| {
            let (mut states, mut ends) = (outcome.states.all.clone(), outcome.states.ends.clone());
            states.sort_unstable();
            ends.sort_unstable();
            Keys { states, ends }
        });
        document.states = keys.as_ref().map(Keys::about);
        Self { document, keys }
    }

    /// Reads the result in the file `path`, and its states from the file beside it.
    ///
    /// # Errors
    /// [`Useless`] says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Useless> {
        let shown = spell_out_path(path);
        let text = text::read_named(path)?;
        let document: Document = text::json(&text)
            .map_err(|error| format!("{shown} is no result of vmm explore: {error}"))?;
        if document.schema != SCHEMA {
            let schema = &document.schema;
            return Err(format!("{shown} is {schema}, this vmm reads {SCHEMA}").into());
        }
        let Shard { index, of } = document.shard;
        if index >= of {
            return Err(format!("{shown} is of shard {index}/{of}, which is none").into());
        }
        let keys = match &document.states {
            None if document.has_states() => {
                return Err(format!("{shown} is complete, and does not say of what states").into());
            }
            None => None,
            Some(about) => Some(Keys::read(&Destination::of_states(path), about)?),
        };
        Ok(Self { document, keys })
    }
}

impl Keys {
    /// The entry about these keys in the document.
    pub fn about(&self) -> States {
        States {
            states: self.states.len() as u64,
            ends: self.ends.len() as u64,
            check_sum: to_hex(xxh3_128(&self.bytes())),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let all = self.states.iter().chain(&self.ends);
        all.flat_map(|key| key.to_le_bytes()).collect()
    }

    fn read(path: &Path, about: &States) -> Result<Self, Useless> {
        let shown = spell_out_path(path);
        let mut bytes = Vec::new();
        // One more, so that a longer one is noticed.
        let keys = about.states.saturating_add(about.ends);
        let most = keys.saturating_mul(16).saturating_add(1);
        let read = input::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map_err(|error| {
            let message =
                format!("cannot read {shown}, which has the states of the result: {error}");
            Useless::unreadable(message, error)
        })?;
        if to_hex(xxh3_128(&bytes)) != about.check_sum {
            return Err(format!(
                "{shown} is not what the result says: of {} bytes, with another check sum; run \
                 that shard again",
                bytes.len()
            )
            .into());
        }
        let (keys, rest) = bytes.as_chunks::<16>();
        let count = (keys.len() as u64).checked_sub(about.ends);
        if !rest.is_empty() || count != Some(about.states) {
            return Err(format!(
                "{shown} has {} bytes, which are not the {} states and {} ends that the result \
                 names",
                bytes.len(),
                about.states,
                about.ends
            )
            .into());
        }
        let mut keys: Vec<_> = keys.iter().copied().map(u128::from_le_bytes).collect();
        let ends = keys.split_off(keys.len() - usize::try_from(about.ends).unwrap_or(0));
        Ok(Self { states: keys, ends })
    }
}

impl From<&SearchVerdict> for VerdictRecord {
    fn from(verdict: &SearchVerdict) -> Self {
        match verdict {
            SearchVerdict::Refuted { ways, stopped } => Self::Refuted {
                ways: ways.iter().map(Refuted::from).collect(),
                stopped: *stopped,
            },
            SearchVerdict::Broke {
                breach,
                schedule,
                found_with,
            } => Self::Broke {
                names: breach.names.clone(),
                texts: breach.texts.clone(),
                schedule: schedule.clone(),
                found_with: *found_with,
            },
            SearchVerdict::Complete => Self::Complete,
            SearchVerdict::BoundedComplete(preemptions) => Self::BoundedComplete {
                preemptions: *preemptions,
            },
            SearchVerdict::Sampled(runs) => Self::Sampled { runs: *runs },
            SearchVerdict::Stopped(why) => Self::Stopped { why: *why },
        }
    }
}

/// The files to which a result is written. They are created before the search, so that a search of
/// hours does not end with files that cannot be created. A file gets its own name only when it is
/// complete, so that no partial result can be read.
#[derive(Debug)]
pub struct Destination {
    document: WholeFile,
    states: WholeFile,
}

impl Destination {
    /// Creates the file `path`, and the one for the states beside it.
    ///
    /// # Errors
    /// If the files cannot be created.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            document: WholeFile::create(path)?,
            states: WholeFile::create(&Self::of_states(path))?,
        })
    }

    /// The file for the states of the result in `path`.
    pub fn of_states(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".states");
        name.into()
    }

    /// Writes `part`, its states first.
    ///
    /// # Errors
    /// If the files cannot be written, for instance because the disk is full. A file that was there
    /// before then stays as it was.
    pub fn write(self, part: &Part) -> io::Result<()> {
        if let Some(keys) = &part.keys {
            self.states.write(|out| out.write_all(&keys.bytes()))?;
        }
        self.document.write(|mut out| {
            serde_json::to_writer_pretty(&mut out, &part.document)?;
            out.write_all(b"\n")
        })
    }
}
