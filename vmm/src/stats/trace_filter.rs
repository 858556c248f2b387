//! Which events of a trace are written: by CPU, by kind and by vector, as a user names them. Reads
//! the words, holds them against what a guest can have, and picks events from a [`Timeline`].
//! Records and writes nothing.

use std::str::FromStr;

use super::meaning::{Meaning, Meanings};
use super::timeline::{StretchKind, Timeline};
use crate::closest::did_you_mean;
use crate::cpus::CpuSet;

/// The kind of what drove the machine: scripts, clients, planned stalls. That is on no CPU.
pub const DRIVEN: &str = "driven";

/// The kinds that every trace can have. The guest's lanes are kinds as well.
const KINDS: [&str; 9] = [
    DRIVEN,
    "interrupt",
    "ipi",
    "run",
    "point",
    "exit",
    "waiting",
    "paused",
    "held",
];

/// What a filter can be by.
const KEYS: [&str; 3] = ["cpus", "kinds", "vectors"];

/// One value of `--trace-filter`: what a filter is by, and a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterPart {
    /// What happens on these CPUs, and IPIs from them or to them.
    Cpus(CpuSet),
    /// Events of these kinds.
    Kinds(Vec<String>),
    /// Of IPIs and of interrupt handlers, those of these vectors.
    Vectors(Vec<String>),
}

/// A value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; good ones are cpus=0-3, kinds=ipi,interrupt and vectors=many,0xfd")]
pub struct NotAFilter(String);

/// A filter names what cannot be in the trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotInTrace(String);

/// Which events are written. Of several parts that are by the same, each adds to the list; an event
/// has to be in the list of everything that the filter is by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceFilter {
    cpus: Option<CpuSet>,
    kinds: Vec<String>,
    vectors: Vec<String>,
}

impl FromStr for FilterPart {
    type Err = NotAFilter;

    fn from_str(text: &str) -> Result<Self, NotAFilter> {
        let (key, list) = text.split_once('=').unwrap_or(("kinds", text));
        let words: Vec<_> = list.split(',').map(|it| it.trim().to_owned()).collect();
        if words.iter().any(String::is_empty) {
            return Err(NotAFilter(format!("\"{text}\" has an empty word")));
        }
        match key.trim() {
            "cpus" => match list.parse() {
                Ok(cpus) => Ok(Self::Cpus(cpus)),
                Err(error) => Err(NotAFilter(format!("\"{list}\" is {error}"))),
            },
            "kinds" => Ok(Self::Kinds(words)),
            "vectors" => Ok(Self::Vectors(words)),
            key => {
                let hint = did_you_mean(key, KEYS);
                Err(NotAFilter(format!(
                    "a trace cannot be filtered by \"{key}\"{hint}"
                )))
            }
        }
    }
}

impl FromIterator<FilterPart> for TraceFilter {
    fn from_iter<I: IntoIterator<Item = FilterPart>>(parts: I) -> Self {
        let mut filter = Self::default();
        for part in parts {
            match part {
                FilterPart::Cpus(more) => {
                    let cpus = filter.cpus.take();
                    let cpus = cpus.iter().flat_map(CpuSet::iter).chain(more.iter());
                    filter.cpus = Some(cpus.collect());
                }
                FilterPart::Kinds(more) => filter.kinds.extend(more),
                FilterPart::Vectors(more) => filter.vectors.extend(more),
            }
        }
        filter
    }
}

impl TraceFilter {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether everything that it names can be in the trace of a guest whose points have these
    /// `meanings`, on so many `vcpus`.
    ///
    /// # Errors
    /// A sentence on the first word that cannot.
    pub fn check(&self, meanings: &Meanings, vcpus: u32) -> Result<(), NotInTrace> {
        let mut cpus = self.cpus.iter().flat_map(CpuSet::iter);
        if let Some(cpu) = cpus.find(|cpu| *cpu >= vcpus) {
            let last = vcpus.saturating_sub(1);
            return Err(NotInTrace(format!(
                "there is no CPU {cpu}; the machine has CPUs 0 to {last}"
            )));
        }
        let lanes = meanings.lanes().iter().map(|lane| lane.name.as_str());
        let kinds: Vec<_> = KINDS.into_iter().chain(lanes).collect();
        if let Some(word) = self.kinds.iter().find(|word| !is_any(word, &kinds)) {
            return Err(unknown("kind", word, &kinds));
        }
        let named: Vec<_> = meanings
            .vectors()
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        let is_known = |word: &&String| number(word).is_some() || is_any(word, &named);
        match self.vectors.iter().find(|word| !is_known(word)) {
            Some(word) => Err(unknown("vector", word, &named)),
            None => Ok(()),
        }
    }

    /// Whether events of this kind are written.
    pub fn takes(&self, kind: &str) -> bool {
        self.kinds.is_empty() || is_any(kind, &self.kinds)
    }

    /// Takes from `timeline` what is to be left out, and returns how many events that were.
    pub fn apply(&self, timeline: &mut Timeline, meanings: &Meanings) -> usize {
        let numbers: Vec<u8> = self
            .vectors
            .iter()
            .filter_map(|word| {
                let named = meanings.vectors().iter().find(|it| is_same(&it.name, word));
                named.map(|it| it.number).or_else(|| number(word))
            })
            .collect();
        let on = |cpu: usize| {
            let cpu = u32::try_from(cpu).ok();
            self.cpus
                .as_ref()
                .is_none_or(|all| cpu.is_some_and(|cpu| all.contains(cpu)))
        };
        let of = |kind: &str| self.takes(kind);
        let by = |vector: u64| {
            self.vectors.is_empty() || numbers.iter().any(|it| u64::from(*it) == vector)
        };
        let count = |it: &Timeline| it.stretches.len() + it.instants.len() + it.ipis.len();
        let before = count(timeline);
        let mut stretches = std::mem::take(&mut timeline.stretches);
        stretches.retain(|it| {
            on(it.cpu)
                && of(timeline.kind(it.kind))
                && (it.kind != StretchKind::Handler || by(it.detail))
        });
        timeline.stretches = stretches;
        timeline.instants.retain(|it| {
            let is_run = meanings.of(it.point) == Some(Meaning::Run);
            on(it.cpu) && of(if is_run { "run" } else { "point" })
        });
        timeline
            .ipis
            .retain(|it| (on(it.from) || on(it.to)) && of("ipi") && by(it.vector.into()));
        before - count(timeline)
    }
}

/// Whether two words are one, as a user writes them: `call-many` is the lane `call many`.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |word: &str| word.to_lowercase().replace([' ', '_'], "-");
    plain(one) == plain(other)
}

fn is_any(word: &str, known: &[impl AsRef<str>]) -> bool {
    known.iter().any(|it| is_same(it.as_ref(), word))
}

/// The number of a vector, as a user writes it.
fn number(word: &str) -> Option<u8> {
    match word.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn unknown(what: &str, word: &str, known: &[&str]) -> NotInTrace {
    let guess = did_you_mean(&word.to_lowercase(), known.iter().copied());
    let hint = if guess.is_empty() { "." } else { &guess };
    let known = match known {
        [] => "has no names for them; a number such as 0xfc will do".to_owned(),
        known => format!("has {}", known.join(", ")),
    };
    NotInTrace(format!(
        "there is no {what} \"{word}\"{hint} A trace of this guest {known}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::timeline::tests::{meanings, record, sent, trace};

    fn filter(parts: &[&str]) -> TraceFilter {
        parts
            .iter()
            .map(|part| part.parse::<FilterPart>().unwrap())
            .collect()
    }

    /// What is left of a trace in which CPU 0 calls and CPU 1 is called, in words.
    fn left(parts: &[&str]) -> Vec<String> {
        let caller = vec![
            record("call", 10, 7, 0),
            record("send", 20, 0, sent(1, 0xfc)),
            record("send", 21, 0, sent(1, 0xfb)),
            record("called", 40, 7, 0),
        ];
        let target = vec![
            record("in", 30, 0, 0xfc),
            record("run", 31, 7, 0),
            record("look", 32, 7, 0),
            record("out", 33, 0, 0xfc),
        ];
        let trace = trace(vec![(caller, vec![]), (target, vec![])]);
        let mut timeline = Timeline::new(&trace);
        let filter = filter(parts);
        filter.check(&trace.meanings, 2).unwrap();
        let left_out = filter.apply(&mut timeline, &trace.meanings);
        let stretches = timeline.stretches.iter().map(|it| timeline.name(it));
        let ipis = timeline
            .ipis
            .iter()
            .map(|it| format!("ipi {:#x}", it.vector));
        let instants = timeline
            .instants
            .iter()
            .map(|it| trace.points[it.point as usize].clone());
        let left: Vec<_> = stretches.chain(ipis).chain(instants).collect();
        assert_eq!(left.len() + left_out, 6);
        left
    }

    #[test]
    fn events_are_chosen_by_cpu_kind_and_vector() {
        let all = [
            "call",
            "interrupt many",
            "ipi 0xfc",
            "ipi 0xfb",
            "run",
            "look",
        ];
        assert_eq!(left(&[]), all);
        assert_eq!(left(&["cpus=1"]), all[1..]);
        assert_eq!(left(&["ipi,point"]), ["ipi 0xfc", "ipi 0xfb", "look"]);
        assert_eq!(
            left(&["kinds=ipi", "kinds=run"]),
            ["ipi 0xfc", "ipi 0xfb", "run"]
        );
        assert_eq!(
            left(&["vectors=many", "ipi,interrupt"]),
            ["interrupt many", "ipi 0xfc"]
        );
        assert_eq!(left(&["vectors=251", "ipi"]), ["ipi 0xfb"]);
        assert_eq!(left(&["CALL", "cpus=0"]), ["call"]);
        assert_eq!(left(&["inner-call"]), [""; 0]);
    }

    #[test]
    fn what_cannot_be_in_the_trace_is_refused_with_what_was_meant() {
        let refused = |part: &str| {
            filter(&[part])
                .check(&meanings(), 2)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("ipi,interupt").contains("did you mean \"interrupt\"?"));
        assert!(refused("lok-wait").contains("did you mean \"lock wait\"?"));
        let none = refused("zzz");
        assert!(!none.contains("did you mean"), "{none}");
        assert!(
            none.contains("\"zzz\". A trace of this guest has driven, interrupt, ipi, "),
            "{none}"
        );
        assert!(refused("vectors=mayn").contains("did you mean \"many\"?"));
        assert!(refused("vectors=256").contains("no vector \"256\""));
        assert!(refused("cpus=0-2").contains("no CPU 2; the machine has CPUs 0 to 1"));
        for (part, said) in [
            ("cpu=0", "did you mean \"cpus\"?"),
            ("cpus=x", "not a list of CPUs"),
            ("", "empty word"),
            ("kinds=ipi,", "empty word"),
        ] {
            let error = part.parse::<FilterPart>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
