//! The data races of the specimen's present state, with the places in its source. What a data race is,
//! is in [`super::data_race`]. Only reads.

use super::breach::Breach;
use super::data_race::{Party, between, sentence};
use super::lines::Line;
use super::machine::Specimen;
use super::store_buffer::Origin;

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Racing {
    /// Whether data races are.
    pub(super) are_wanted: bool,
    /// The sentences of those that a schedule is to lead to, if it is followed for that.
    sought: Option<Vec<String>>,
    /// Whether the guest has announced a plain access.
    pub(super) has_plain: bool,
}

impl Racing {
    /// Nothing has been seen yet.
    pub(super) fn new(are_wanted: bool) -> Self {
        Self {
            are_wanted,
            ..Self::default()
        }
    }
}

impl Specimen {
    /// The data races of the present state, each as what it would break; none if they are not looked
    /// for.
    pub(super) fn data_races(&self) -> Vec<Breach> {
        if !self.races.are_wanted {
            return Vec::new();
        }
        let found = between(&self.cpus, &self.buffering);
        let mut all: Vec<_> = (found.iter())
            .map(|parties| Breach::data_race(sentence(parties, |party| self.made_at(party))))
            .collect();
        all.sort_unstable_by(|one, other| one.texts.cmp(&other.texts));
        all.dedup();
        all
    }

    /// Whether the guest has announced a plain access. Without one there is no data race to be found.
    pub(in crate::explore) fn has_plain_accesses(&self) -> bool {
        self.races.has_plain
    }

    /// From now on schedules are followed to come to the data race of `breach`, if it is one; without
    /// one, to break something else.
    pub(in crate::explore) fn seek_race(&mut self, breach: Option<&Breach>) {
        let race = breach.filter(|breach| breach.is_data_race());
        self.races.sought = race.map(|breach| breach.texts.clone());
    }

    /// The data race that is sought, if it is one of the present state.
    pub(super) fn sought_race(&self) -> Option<Breach> {
        let sought = self.races.sought.as_ref()?;
        let mut here = self.data_races().into_iter();
        here.find(|breach| breach.texts == *sought)
    }

    /// Where the store was made that `cpu` is about to make.
    pub(super) fn origin_of_store(&self, cpu: usize) -> Option<Origin> {
        let manner = self.cpus[cpu].manner;
        self.races.are_wanted.then(|| {
            let stack = self.callers(cpu);
            let line = self.lines.at(&stack);
            let address = line.map_or_else(|| stack.first().copied(), |line| Some(line.address));
            Origin {
                address: address.unwrap_or(0),
                manner,
            }
        })
    }

    /// The line of the source, or else the address, at which `party` makes its access.
    fn made_at(&self, party: &Party) -> String {
        let line = match party.made_at {
            Some(address) => self.lines.at(&[address]),
            None => self.lines.at(&self.callers(party.cpu)),
        };
        let address = || party.made_at.unwrap_or_else(|| self.cpus[party.cpu].rip());
        match line {
            Some(Line { text, of: None, .. }) => text,
            Some(Line {
                text, of: Some(of), ..
            }) => format!("{of} ({text})"),
            None => format!("{:#x}", address()),
        }
    }
}
