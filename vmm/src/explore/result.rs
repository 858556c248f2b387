//! What a search came to, as a document: JSON, and beside it the keys of all states of an
//! exhaustive search, which [`super::merge`] needs to count those that several shards have seen
//! once. Reads and writes; judges nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::config::Config;
use super::key::{Key, to_hex};
use super::outcome::{Outcome, SearchVerdict};
use super::schedule::{Granularity, Schedule, Turn};
use super::search::{Counterexample, Counts};
use super::shard::Shard;
use super::sharing::SharingRecord;
use super::stop_reason::StopReason;
use super::strategy::Strategy;
use crate::provenance::Provenance;
use crate::text;
use crate::whole_file::WholeFile;

/// Version of the document.
pub const SCHEMA: &str = "ipi-lab-explore/1";

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// Version of this document's form.
    pub schema: String,
    /// Where it comes from; of a merged result, where that of its first shard does. `null` if it
    /// was written by a `vmm` that did not say.
    #[serde(default)]
    pub provenance: Option<Provenance>,
    /// What was searched.
    pub of: Search,
    /// Which part of it.
    pub shard: Shard,
    /// What the part came to.
    pub verdict: VerdictRecord,
    /// What was done for it. Of an exhaustive search the states are those that the shard knows of,
    /// some of which others know too.
    pub counts: Counts,
    /// For how long it was searched, in milliseconds: without the boot, and without the time below.
    pub took_ms: u64,
    /// For how long what was found was then made shorter, in milliseconds.
    #[serde(default)]
    pub shortening_ms: u64,
    /// What is known of what CPUs share, and what was taken for granted of it.
    pub sharing: SharingRecord,
    /// What words of guest memory are called, by address (`0x…`), as far as debug information and
    /// memory tell.
    #[serde(default)]
    pub words: BTreeMap<String, String>,
    /// The states of an exhaustive search that is complete; `null` for all others.
    pub states: Option<States>,
    /// What has become of the machine at the ends: a number for each that differs, in which the
    /// stacks are left out. Complete searches of the same case, image and words have the same, by
    /// whichever strategy.
    pub outcomes: Vec<String>,
    /// Of a shard: which of the states that every shard knows led it, over whatever states, to
    /// which others of them. Merged results show by it whether a state can be come back to over
    /// several shards.
    #[serde(default)]
    pub across: Vec<[Key; 2]>,
    /// Words for the guest that can show nothing in a search of this kind, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What was searched. Results belong together if this is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Search {
    /// The case.
    pub case: String,
    /// Words for the guest beyond the case's own.
    pub append: String,
    /// What memory does.
    #[serde(default)]
    pub memory: Memory,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// How orders are chosen.
    pub strategy: Strategy,
    /// Where chance comes from.
    pub seed: u64,
    /// A number that tells the guest's image from others.
    pub image: String,
    /// The state of the machine at the beginning. It is the same for every boot on one host, and on
    /// hosts whose CPUs are alike.
    pub begins: String,
}

/// What memory does between the accesses of different CPUs, in the orders that are tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Each access takes effect at once, for all CPUs, in the order in which its CPU makes it.
    #[default]
    SequentiallyConsistent,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SequentiallyConsistent => "sequentially consistent",
        })
    }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum VerdictRecord {
    /// It can break in each of these ways, as the reference search has found, which does not end
    /// with the first.
    Refuted {
        /// The ways.
        ways: Vec<Refuted>,
        /// Why not all orders were tried, so that there can be other ways; `null` if all were.
        stopped: Option<StopReason>,
    },
    /// It breaks.
    Broke {
        /// Names of oracles, or others.
        names: Vec<String>,
        /// Sentences about it.
        texts: Vec<String>,
        /// How.
        schedule: Box<Schedule>,
        /// How many turns that had when it was found.
        found_with: usize,
    },
    /// It does not break in any order.
    Complete,
    /// It did not break in any order of so many preemptions.
    BoundedComplete {
        /// So many.
        preemptions: u32,
    },
    /// It did not break in any of so many orders.
    Sampled {
        /// Of the whole search, all shards together.
        runs: u64,
    },
    /// The search stopped before it was through.
    Stopped {
        /// Why.
        why: StopReason,
    },
}

/// One way to break something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refuted {
    /// Names of oracles, or others.
    pub names: Vec<String>,
    /// Sentences about it.
    pub texts: Vec<String>,
    /// The steps that lead there, in the order in which they were found first: CPUs, and the
    /// interrupts they take.
    pub steps: Vec<Step>,
}

/// One step, to the next access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The CPU.
    pub cpu: u32,
    /// The pending interrupt that it takes, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<u8>,
}

/// Where the states are, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct States {
    /// How many states: 16 bytes of each, a number that tells it from others, least significant
    /// byte first; in ascending order.
    pub states: u64,
    /// How many of them nothing could go on in: these follow, once more, in the same form.
    pub ends: u64,
    /// XXH3 (128 bits) of all that.
    pub check_sum: String,
}

/// The keys of states, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Of all.
    pub states: Vec<u128>,
    /// Of those in which nothing could go on.
    pub ends: Vec<u128>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The document.
    pub document: Document,
    /// The keys of its states, if it has them.
    pub keys: Option<Keys>,
}

impl Document {
    /// What a search that `config` asked for came to, without its states.
    pub fn new(config: &Config, outcome: &Outcome) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            provenance: Some(outcome.provenance.clone()),
            of: Search {
                case: config.case.to_string(),
                append: config.append.clone(),
                memory: Memory::default(),
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
            across: outcome
                .seen
                .across()
                .iter()
                .map(|(from, to)| [Key(*from), Key(*to)])
                .collect(),
            warnings: outcome.warnings.clone(),
        }
    }

    fn has_states(&self) -> bool {
        self.of.strategy == Strategy::Exhaustive && self.verdict == VerdictRecord::Complete
    }

    /// For how long it was searched.
    pub fn took(&self) -> Duration {
        Duration::from_millis(self.took_ms)
    }

    /// For how long what was found was made shorter.
    pub fn shortening(&self) -> Duration {
        Duration::from_millis(self.shortening_ms)
    }
}

impl Search {
    /// What a verdict on all orders covers: the memory, and where CPUs can be stopped.
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
        let step = |turn: &Turn| Step {
            cpu: turn.cpu,
            takes: turn.takes,
        };
        Self {
            names: found.breach.names.clone(),
            texts: found.breach.texts.clone(),
            steps: found.turns.iter().map(step).collect(),
        }
    }
}

impl Part {
    /// What a search that `config` asked for came to.
    pub fn new(config: &Config, outcome: &Outcome) -> Self {
        let mut document = Document::new(config, outcome);
        let keys = document.has_states().then(|| {
            let mut states: Vec<_> = outcome.seen.keys().collect();
            let mut ends = outcome.seen.ends().to_vec();
            states.sort_unstable();
            ends.sort_unstable();
            Keys { states, ends }
        });
        document.states = keys.as_ref().map(Keys::about);
        Self { document, keys }
    }

    /// Reads the result in the file `path`, and its states.
    ///
    /// # Errors
    /// A sentence that names the file and says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = text::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
        let document: Document = serde_json::from_str(&text)
            .map_err(|error| format!("{shown} is no result of vmm explore: {error}"))?;
        if document.schema != SCHEMA {
            let schema = &document.schema;
            return Err(format!("{shown} is {schema}, this vmm reads {SCHEMA}"));
        }
        let Shard { index, of } = document.shard;
        if index >= of {
            return Err(format!("{shown} is of shard {index}/{of}, which is none"));
        }
        let keys = match &document.states {
            None if document.has_states() => {
                return Err(format!(
                    "{shown} is complete, and does not say of what states"
                ));
            }
            None => None,
            Some(about) => Some(Keys::read(&beside(path), about)?),
        };
        Ok(Self { document, keys })
    }
}

impl Keys {
    /// What the document says of them.
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

    fn read(path: &Path, about: &States) -> Result<Self, String> {
        let shown = path.display();
        let bytes = fs::read(path).map_err(|error| {
            format!("cannot read {shown}, which has the states of the result: {error}")
        })?;
        if to_hex(xxh3_128(&bytes)) != about.check_sum {
            return Err(format!(
                "{shown} is not what the result says: of {} bytes, with another check sum; run that shard again",
                bytes.len()
            ));
        }
        let (keys, rest) = bytes.as_chunks::<16>();
        let count = (keys.len() as u64).checked_sub(about.ends);
        if !rest.is_empty() || count != Some(about.states) {
            return Err(format!(
                "{shown} has {} bytes, which are not the {} states and {} ends that the result names",
                bytes.len(),
                about.states,
                about.ends
            ));
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

/// The file with the states of the result in `path`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".states");
    name.into()
}

/// Where a result is to go. Made before the search, so that one of hours does not end with files
/// that cannot be made; under its own name there is a whole result or none.
#[derive(Debug)]
pub struct Destination {
    document: WholeFile,
    states: WholeFile,
}

impl Destination {
    /// The file `path`, and the one for the states beside it.
    ///
    /// # Errors
    /// If no files can be made there.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            document: WholeFile::create(path)?,
            states: WholeFile::create(&beside(path))?,
        })
    }

    /// Writes `part`, its states first.
    ///
    /// # Errors
    /// If there is no room, say; then there is no file of that name, or the one that was there
    /// before.
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
