//! Breaches: what is broken, as names of oracles and sentences. Plain data.

use serde::{Deserialize, Serialize};

use crate::cpus::CpuSet;
use crate::explore::schedule::Turn;
use crate::lab::judgement::{Judgement, NOT_BELIEVED};
use crate::lab::{finding, oracles};
use crate::manifest::Manifest;

/// What is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// Names of oracles, or of [`super::case::OTHER_BREACHES`]; sorted, each once.
    pub names: Vec<String>,
    /// Sentences that describe it.
    pub texts: Vec<String>,
}

/// The name of what is no breach: a condition of the case was reached.
const REACHED: &str = "reached";

/// The name of the breach that CPUs run for ever.
const LIVELOCK: &str = "livelock";

impl Breach {
    /// The name of the breach that a handler enables interrupts. The explorer finds it by itself,
    /// in every guest.
    pub const INTERRUPTS_ON: &str = "interrupts-on";

    /// The name of the breach that is a data race. The explorer finds it by itself, if it is asked to.
    pub const DATA_RACE: &str = "data-race";

    /// The data race that this sentence is about.
    pub(super) fn data_race(sentence: String) -> Self {
        Self::new(Self::DATA_RACE, sentence)
    }

    /// Its sentences, if it is a data race.
    pub(in crate::explore) fn race_texts(&self) -> Vec<String> {
        match self.is_data_race() {
            true => self.texts.clone(),
            false => Vec::new(),
        }
    }

    /// The data race with these sentences.
    pub(in crate::explore) fn race_of(texts: &[String]) -> Option<Self> {
        (!texts.is_empty()).then(|| Self {
            names: vec![Self::DATA_RACE.to_owned()],
            texts: texts.to_vec(),
        })
    }

    /// Whether it is a data race.
    pub fn is_data_race(&self) -> bool {
        self.names == [Self::DATA_RACE]
    }

    /// That `condition` was reached, as what a schedule leads to.
    pub(in crate::explore) fn reached(condition: &str) -> Self {
        Self::new(REACHED, format!("here: {condition}"))
    }

    /// Nothing, as what a schedule leads to.
    pub(in crate::explore) fn none() -> Self {
        Self {
            names: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// The names of what a schedule leads to that reaches a condition.
    pub fn names_of_reached() -> Vec<String> {
        vec![REACHED.to_owned()]
    }

    /// A breach of the model that tests search.
    #[cfg(test)]
    pub(in crate::explore) fn numbered(number: u64) -> Self {
        Self::new("model", number.to_string())
    }

    /// Whether it is a livelock, and nothing else.
    pub fn is_livelock(&self) -> bool {
        self.names == [LIVELOCK]
    }

    /// A breach with one name and one sentence.
    pub(super) fn new(name: &str, text: String) -> Self {
        Self {
            names: vec![name.to_owned()],
            texts: vec![text],
        }
    }

    /// What `judgement` says is broken, if anything, in a guest with this manifest.
    pub(super) fn of(judgement: &Judgement, manifest: &Manifest) -> Option<Self> {
        let mut breach = Self {
            names: Vec::new(),
            texts: Vec::new(),
        };
        for contradiction in &judgement.contradictions.first {
            breach.add(NOT_BELIEVED, contradiction.clone());
        }
        for finding in &judgement.findings {
            let oracle = oracles::name(manifest, finding.oracle);
            breach.add(&oracle, finding::sentence(finding, manifest));
        }
        for found in &judgement.breaches.first {
            breach.add(found.property.name(), found.text.clone());
        }
        // Oracles of which no finding was kept, and so no sentence.
        for oracle in judgement.oracles() {
            breach.add_name(oracle);
        }
        (!breach.names.is_empty()).then_some(breach)
    }

    /// A livelock: `cpu` came to so many stops in one turn that it is in an endless loop.
    pub(in crate::explore) fn endless(cpu: usize) -> Self {
        let text = format!("CPU {cpu} goes round and round without waiting");
        Self::new(LIVELOCK, text)
    }

    /// A livelock: `turns` are a fair cycle, which leads back to the state in which it began.
    pub(in crate::explore) fn cycle(turns: &[Turn]) -> Self {
        let cpus: CpuSet = turns.iter().map(|turn| turn.cpu).collect();
        let verb = if cpus.iter().count() == 1 {
            "goes"
        } else {
            "go"
        };
        let text = format!(
            "{} {verb} round in a circle, and nobody else can do anything",
            cpus.noun()
        );
        Self::new(LIVELOCK, text)
    }

    /// A hang: no final state can be reached, whichever CPU goes on.
    pub(in crate::explore) fn without_end() -> Self {
        let text = "no end can be reached from there, whoever goes on";
        Self::new("hang", text.to_owned())
    }

    /// A livelock: no final state was reached within this number of turns.
    pub(in crate::explore) fn longest(turns: usize) -> Self {
        Self::new(LIVELOCK, format!("no end within {turns} turns"))
    }

    /// Adds a name, if it is not there.
    fn add_name(&mut self, name: &str) {
        if let Err(at) = self.names.binary_search_by(|known| (**known).cmp(name)) {
            self.names.insert(at, name.to_owned());
        }
    }

    /// Adds a name and a sentence, if they are not there.
    pub(super) fn add(&mut self, name: &str, text: String) {
        self.add_name(name);
        if !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;
    use crate::lab::counts::tests::manifest;
    use crate::lab::oracles::tests::{TORN, WRONG_CPU};
    use shared::lab::Layout;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn an_oracle_is_named_though_no_finding_of_it_was_kept() {
        let layout = Layout::new(2).unwrap();
        let size = usize::try_from(layout.size).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
        let lab = Lab::prepare(memory.clone(), 0, layout).unwrap();
        let lab = lab.knowing(manifest());
        let judge = |lab: &Lab| Breach::of(&Judgement::on_the_way(lab), lab.manifest());
        let find = |oracle: u32| {
            let at = layout.found.entry(oracle.into()).unwrap();
            memory.write_obj(1_u64, GuestAddress(at)).unwrap();
        };
        assert_eq!(judge(&lab), None);
        find(WRONG_CPU);
        find(TORN);
        assert_eq!(judge(&lab).unwrap().names, ["torn", "wrong-cpu"]);
        // A number that no oracle has.
        find(0);
        let names = judge(&lab).unwrap().names;
        assert_eq!(names, [NOT_BELIEVED, "torn", "wrong-cpu"]);
        // A number that this guest does not declare. It is reported as well.
        find(7);
        let names = judge(&lab).unwrap().names;
        assert_eq!(names, [NOT_BELIEVED, "oracle-7", "torn", "wrong-cpu"]);
    }
}
