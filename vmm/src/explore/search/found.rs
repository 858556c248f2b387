//! What a search has found and gone on from: conditions that were reached, breaches if it goes on
//! past them, and an order to look at. What is noted is *pending* until it is known that the machine
//! was restored exactly; only then it counts. Plain data: makes no step.

use serde::{Deserialize, Serialize};

use super::end::Counterexample;
use super::system::Holding;
use crate::explore::data_races::DataRaces;
use crate::explore::schedule::{Turn, switches};
use crate::explore::specimen::Breach;

/// The greatest number of kinds of breaches that are kept of those with the same names. So none
/// takes the place of one with other names, and whether all was to be expected does not depend on
/// what is kept.
const MOST_KINDS: usize = 64;

/// Whether one more kind of breach with these names is to be kept, beside those that are.
pub fn has_room<'a>(names: &[String], kept: impl Iterator<Item = &'a [String]>) -> bool {
    kept.filter(|known| *known == names).count() < MOST_KINDS
}

/// Whether of so many kinds of data races all may have been kept.
pub fn are_all_races(kinds: usize) -> bool {
    kinds < MOST_KINDS
}

/// What a search is to note.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whether it goes on past a breach. The breach then ends its order, and no other.
    pub keeps_going: bool,
    /// Whether it keeps an order to look at.
    pub witness: bool,
    /// The conditions of the case, in words, and whether each must never hold.
    pub conditions: Vec<(String, bool)>,
    /// What it does about data races.
    pub data_races: DataRaces,
}

/// An order that a search has tried, with what it leads to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The order.
    pub order: Counterexample,
    /// The words to which stores waited in store buffers.
    pub buffered: Vec<u64>,
}

/// What a search has found and gone on from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Found {
    /// What it is to note.
    #[serde(skip)]
    pub wanted: Wanted,
    /// The breaches that it has gone on past: of each kind the order with the fewest changes of the
    /// CPU, then the fewest turns, of those that were tried. Two are of one kind if all their
    /// sentences are the same, which name oracle, call and CPUs, or the places of a data race. Data
    /// races are among them whatever the search does about them.
    pub kinds: Vec<Kept>,
    /// Whether there were more kinds than are kept.
    pub more_kinds: bool,
    /// By condition: an order that reaches it.
    pub reached: Vec<Option<Kept>>,
    /// Conditions of which at some end it could not be told whether they hold, as bits.
    pub untold: u64,
    /// Of the orders that came to an end at which nothing was broken, as far as each was the first
    /// to come to its end, the one with the most changes of the CPU, then with the most turns.
    pub witness: Option<Kept>,
    #[serde(skip)]
    pending: Vec<(What, Kept)>,
}

/// What a kept order leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Breach,
    Condition(usize),
    Witness,
}

fn cost(turns: &[Turn]) -> (usize, usize) {
    (switches(turns), turns.len())
}

impl Found {
    /// Nothing yet, of what is `wanted`.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            reached: vec![None; wanted.conditions.len()],
            wanted,
            ..Self::default()
        }
    }

    /// Notes that `turns` lead to a state in which conditions are `holding`.
    pub fn note_holding(
        &mut self,
        holding: Holding,
        turns: &dyn Fn() -> Vec<Turn>,
        buffered: impl FnOnce() -> Vec<u64>,
    ) {
        self.untold |= holding.untold;
        if holding.holds == 0 {
            return;
        }
        let turns = turns();
        let is_better = |known: &Option<Kept>| {
            let known = known.as_ref().map(|kept| cost(&kept.order.turns));
            known.is_none_or(|known| cost(&turns) < known)
        };
        let better: Vec<_> = (0..self.reached.len())
            .filter(|index| holding.holds >> index & 1 != 0 && is_better(&self.reached[*index]))
            .collect();
        if better.is_empty() {
            return;
        }
        let buffered = buffered();
        for index in better {
            let breach = Breach::reached(&self.wanted.conditions[index].0);
            let order = Counterexample {
                turns: turns.clone(),
                breach,
            };
            let buffered = buffered.clone();
            let kept = Kept { order, buffered };
            self.pending.push((What::Condition(index), kept));
        }
    }

    /// Notes that `turns` lead to `breach`.
    pub fn note_breach(&mut self, turns: &[Turn], breach: Breach, buffered: Vec<u64>) {
        let known = self
            .kinds
            .iter()
            .find(|it| is_same(&it.order.breach, &breach));
        if known.is_some_and(|known| cost(&known.order.turns) <= cost(turns)) {
            return;
        }
        let order = Counterexample {
            turns: turns.to_vec(),
            breach,
        };
        self.pending.push((What::Breach, Kept { order, buffered }));
    }

    /// Notes that `turns` lead to a state with these data races.
    pub fn note_races(
        &mut self,
        races: Vec<Breach>,
        turns: &dyn Fn() -> Vec<Turn>,
        buffered: impl Fn() -> Vec<u64>,
    ) {
        for race in races {
            // Many orders come by the same race. The first is made shorter in any case.
            if !self.knows(&race) {
                self.note_breach(&turns(), race, buffered());
            }
        }
    }

    /// Notes that `turns` lead to an end at which nothing is broken.
    pub fn note_end(&mut self, turns: &[Turn], buffered: impl FnOnce() -> Vec<u64>) {
        let dearest = self.witness.as_ref().map(|it| cost(&it.order.turns));
        if !self.wanted.witness || dearest.is_some_and(|it| it >= cost(turns)) {
            return;
        }
        let order = Counterexample {
            turns: turns.to_vec(),
            breach: Breach::none(),
        };
        let buffered = buffered();
        self.pending.push((What::Witness, Kept { order, buffered }));
    }

    /// Takes what another worker of the same search has found.
    pub fn add(&mut self, other: &mut Self) {
        let other = std::mem::replace(other, Self::new(other.wanted.clone()));
        self.untold |= other.untold;
        self.more_kinds |= other.more_kinds;
        for Kept { order, buffered } in other.kinds {
            self.note_breach(&order.turns, order.breach, buffered);
        }
        for (mine, theirs) in self.reached.iter_mut().zip(other.reached) {
            let price = |kept: &Option<Kept>| kept.as_ref().map(|it| cost(&it.order.turns));
            let is_better = match (price(mine), price(&theirs)) {
                (Some(mine), Some(theirs)) => theirs < mine,
                (mine, theirs) => mine.is_none() && theirs.is_some(),
            };
            if is_better {
                *mine = theirs;
            }
        }
        if let Some(Kept { order, buffered }) = other.witness {
            self.note_end(&order.turns, || buffered);
        }
        self.confirm();
    }

    /// Whether anything is pending.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What is pending counts: the machine was restored exactly.
    pub fn confirm(&mut self) {
        for (what, kept) in std::mem::take(&mut self.pending) {
            match what {
                What::Condition(index) => self.reached[index] = Some(kept),
                What::Witness => self.witness = Some(kept),
                What::Breach => {
                    let breach = &kept.order.breach;
                    let mut known = self.kinds.iter();
                    let names = self.kinds.iter().map(|it| &*it.order.breach.names);
                    match known.position(|it| is_same(&it.order.breach, breach)) {
                        Some(at) => self.kinds[at] = kept,
                        None if has_room(&breach.names, names) => self.kinds.push(kept),
                        None => self.more_kinds = true,
                    }
                }
            }
        }
    }

    /// What is pending does not count.
    pub fn drop_pending(&mut self) {
        self.pending.clear();
    }

    /// Whether what must never be was reached, or a data race was found that is a breach, so that the
    /// search need not go on.
    pub fn is_over(&self) -> bool {
        let mut all = self.reached.iter().zip(&self.wanted.conditions);
        !self.wanted.keeps_going
            && (all.any(|(it, (_, is_never))| *is_never && it.is_some())
                || self.wanted.data_races == DataRaces::Breaches && self.has_race())
    }

    fn has_race(&self) -> bool {
        self.kinds
            .iter()
            .any(|kept| kept.order.breach.is_data_race())
    }

    /// Whether it has a breach of this kind, confirmed or pending.
    pub fn knows(&self, breach: &Breach) -> bool {
        let pending = self.pending.iter().map(|(_, kept)| kept);
        let mut all = self.kinds.iter().chain(pending);
        all.any(|kept| is_same(&kept.order.breach, breach))
    }

    /// Takes out the data races.
    pub fn take_races(&mut self) -> Vec<Kept> {
        let kinds = std::mem::take(&mut self.kinds).into_iter();
        let (races, kinds) = kinds.partition(|kept: &Kept| kept.order.breach.is_data_race());
        self.kinds = kinds;
        races
    }
}

/// Whether two breaches are of one kind.
pub fn is_same(one: &Breach, other: &Breach) -> bool {
    one.names == other.names && one.texts == other.texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(cpus: &[u32]) -> Vec<Turn> {
        let turn = |cpu: &u32| Turn {
            cpu: *cpu,
            takes: None,
            flushes: false,
            arrives: false,
            stops: 1,
            until: String::new(),
            state: None,
        };
        cpus.iter().map(turn).collect()
    }

    #[test]
    fn of_each_kind_the_shortest_is_kept_once_it_is_confirmed() {
        let mut found = Found::new(Wanted {
            keeps_going: true,
            ..Wanted::default()
        });
        let breach = |text: &str| Breach::reached(text);
        found.note_breach(&turns(&[0, 1, 0]), breach("a"), vec![8]);
        assert!(found.is_pending() && found.kinds.is_empty());
        found.drop_pending();
        found.confirm();
        assert!(found.kinds.is_empty());
        for (cpus, text) in [
            (&[0, 1, 0][..], "a"),
            (&[1, 0], "b"),
            (&[0, 0, 1], "a"),
            (&[0, 1, 0, 1], "a"),
        ] {
            found.note_breach(&turns(cpus), breach(text), Vec::new());
            found.confirm();
        }
        let kinds: Vec<_> = found.kinds.iter().map(|it| it.order.turns.len()).collect();
        assert_eq!(kinds, [3, 2]);
        assert_eq!(switches(&found.kinds[0].order.turns), 1);
        assert!(!found.more_kinds);
        for number in 0..=MOST_KINDS {
            found.note_breach(&turns(&[0]), breach(&number.to_string()), Vec::new());
            found.confirm();
        }
        assert_eq!((found.kinds.len(), found.more_kinds), (MOST_KINDS, true));
        // One with another name is kept all the same.
        let race = Breach::race_of(&["at once".to_owned()]).expect("one");
        found.note_races(vec![race.clone()], &|| turns(&[0]), Vec::new);
        found.confirm();
        assert!(found.knows(&race));
    }

    #[test]
    fn the_witness_is_the_one_with_the_most_changes() {
        let mut found = Found::new(Wanted::default());
        found.note_end(&turns(&[0]), Vec::new);
        assert!(!found.is_pending(), "none is wanted");
        found.wanted.witness = true;
        for cpus in [&[0, 0, 1][..], &[0, 1, 0], &[1, 1, 1, 1, 1]] {
            found.note_end(&turns(cpus), Vec::new);
            found.confirm();
        }
        assert_eq!(found.witness.unwrap().order.turns, turns(&[0, 1, 0]));
    }

    #[test]
    fn what_must_never_be_ends_a_search_that_does_not_keep_going() {
        let conditions = vec![("reach x".to_owned(), false), ("never y".to_owned(), true)];
        for keeps_going in [false, true] {
            let mut found = Found::new(Wanted {
                keeps_going,
                conditions: conditions.clone(),
                ..Wanted::default()
            });
            let note = |found: &mut Found, holds| {
                let holding = Holding { holds, untold: 0 };
                found.note_holding(holding, &|| turns(&[0]), Vec::new);
                found.confirm();
            };
            note(&mut found, 1);
            assert!(!found.is_over() && found.reached[0].is_some());
            note(&mut found, 3);
            assert_eq!(found.is_over(), !keeps_going);
        }
    }
}
