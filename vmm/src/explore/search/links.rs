//! Which states lead to which, by their numbers, as far as a search has tried: tells whether the
//! states form a cycle. Knows no machine.

use std::collections::HashMap;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::region::{Plain, Region};
use super::storage::{PageOut, Storage};
use crate::explore::stop_reason::StopReason;

/// Links in a region: a mebibyte of them. Only the last region is written.
const CHUNK: usize = (1 << 20) / size_of::<Link>();

/// States after which it is looked whether the process is still within its limit.
const KEEP_EVERY: usize = 1 << 16;

/// The first state leads to the second.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Link {
    /// The number of the first.
    pub from: u32,
    /// The number of the second.
    pub to: u32,
}

/// Pairs of states. The first of a pair leads to the second.
#[derive(Debug)]
pub struct Links {
    storage: Arc<Storage>,
    /// Each with how many there are in it.
    chunks: Vec<(Region<Link>, usize)>,
}

/// The successors of all states, those of each state in a row.
struct Successors {
    /// By state: where they end. They begin where those of the state before end.
    ends: Region<u64>,
    all: Region<u32>,
}

impl Links {
    /// None so far. They are kept in `storage`.
    pub fn new(storage: &Arc<Storage>) -> Self {
        Self {
            storage: Arc::clone(storage),
            chunks: Vec::new(),
        }
    }

    /// The links between states that have no numbers yet, and how many states these are.
    pub fn of(pairs: impl IntoIterator<Item = (u128, u128)>) -> (Self, u32) {
        let mut numbers: HashMap<u128, u32> = HashMap::new();
        let mut number = |key| {
            let next = u32::try_from(numbers.len()).expect("fewer states than fit into memory");
            *numbers.entry(key).or_insert(next)
        };
        let mut links = Self::new(&Arc::default());
        for (from, to) in pairs {
            let (from, to) = (number(from), number(to));
            links.add(from, to);
        }
        let states = u32::try_from(numbers.len()).expect("each of them has a number");
        (links, states)
    }

    /// Notes that the state with the number `from` leads to the one with the number `to`.
    pub fn add(&mut self, from: u32, to: u32) {
        if self.chunks.last().is_none_or(|(_, count)| *count == CHUNK) {
            if let Some((full, _)) = self.chunks.last() {
                self.page_out(full);
            }
            match self.storage.region(CHUNK) {
                Ok(region) => self.chunks.push((region, 0)),
                // The search stops, and nothing is concluded from the links.
                Err(_) => return,
            }
        }
        if let Some((chunk, count)) = self.chunks.last_mut() {
            chunk.values_mut()[*count] = Link { from, to };
            *count += 1;
        }
    }

    /// Adds the links of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.chunks.append(&mut other.chunks);
    }

    /// What is not needed for now.
    fn page_out<T: Plain>(&self, region: &Region<T>) {
        if self.storage.is_limited() {
            region.page_out();
        }
    }

    /// Shows `look` all of them.
    pub fn each(&self, mut look: impl FnMut(Link)) {
        for (chunk, count) in &self.chunks {
            chunk.values()[..*count].iter().copied().for_each(&mut look);
            self.page_out(chunk);
        }
    }

    /// Stays within the limit on memory. `own` is what can be paged out for that.
    fn keep_within(&self, own: &[&dyn PageOut]) -> Result<(), StopReason> {
        self.storage.keep_within(own);
        self.storage.stop_reason().map_or(Ok(()), Err)
    }

    /// The successors of the states, of which there are so many.
    fn successors(&self, states: u32) -> Result<Successors, StopReason> {
        // If there was no room, some links are not here.
        self.keep_within(&[])?;
        // How many each state has, at the place of the state after it.
        let mut ends: Region<u64> = self.storage.region(states as usize + 1)?;
        let counts = ends.values_mut();
        self.each(|link| counts[link.from as usize + 1] += 1);
        // Where those of each begin; which becomes, as they are filled in, where they end.
        let mut count = 0;
        for begins in counts {
            count += *begins;
            *begins = count;
        }
        let count = usize::try_from(count).expect("as many as there are");
        let mut all: Region<u32> = self.storage.region(count.max(1))?;
        for (chunk, count) in &self.chunks {
            let (ends_now, all_now) = (ends.values_mut(), all.values_mut());
            for link in &chunk.values()[..*count] {
                let end = &mut ends_now[link.from as usize];
                all_now[*end as usize] = link.to;
                *end += 1;
            }
            self.page_out(chunk);
            self.keep_within(&[&ends, &all])?;
        }
        Ok(Successors { ends, all })
    }

    /// Whether the states, of which there are so many, form a cycle.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn has_cycle(&self, states: u32) -> Result<bool, StopReason> {
        // Take away states without a predecessor, as long as there are any. What is left is on a
        // cycle, or is reached from one (Kahn, 1962).
        let successors = self.successors(states)?;
        let states = states as usize;
        let mut predecessors: Region<u32> = self.storage.region(states.max(1))?;
        let counts = predecessors.values_mut();
        self.each(|link| counts[link.to as usize] += 1);
        let mut free: Region<u32> = self.storage.region(states.max(1))?;
        let mut waiting = 0;
        for (state, count) in (0..).zip(&predecessors.values()[..states]) {
            if *count == 0 {
                free.values_mut()[waiting] = state;
                waiting += 1;
            }
        }
        let mut taken = 0;
        while waiting > 0 {
            let (counts, free_now) = (predecessors.values_mut(), free.values_mut());
            for _ in 0..KEEP_EVERY {
                if waiting == 0 {
                    break;
                }
                waiting -= 1;
                taken += 1;
                for next in successors.of(free_now[waiting] as usize) {
                    let count = &mut counts[*next as usize];
                    *count -= 1;
                    if *count == 0 {
                        free_now[waiting] = *next;
                        waiting += 1;
                    }
                }
            }
            self.keep_within(&[&successors.ends, &successors.all, &predecessors, &free])?;
        }
        Ok(taken < states)
    }

    /// Pairs of a state in `from` and another one in `to` that can be reached from it, of so many
    /// `states`. Each state comes with its number.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn reached<K: Copy>(
        &self,
        states: u32,
        from: &[(u32, K)],
        to: &[(u32, K)],
    ) -> Result<Vec<(K, K)>, StopReason> {
        if from.is_empty() || to.is_empty() {
            return Ok(Vec::new());
        }
        let successors = self.successors(states)?;
        let mut pairs = Vec::new();
        for (start, key) in from {
            let next = |at: usize| successors.of(at).iter().map(|next| *next as usize);
            let is_reached = reach(states as usize, [*start as usize], next);
            let others = to.iter().filter(|(other, _)| other != start);
            let reached = others.filter(|(other, _)| is_reached[*other as usize]);
            pairs.extend(reached.map(|(_, other)| (*key, *other)));
            self.keep_within(&[&successors.ends, &successors.all])?;
        }
        Ok(pairs)
    }
}

impl Successors {
    fn of(&self, state: usize) -> &[u32] {
        let ends = self.ends.values();
        let begins = state.checked_sub(1).map_or(0, |before| ends[before]);
        &self.all.values()[begins as usize..ends[state] as usize]
    }
}

/// For each of `states` states, by number: whether it is one of `starts`, or can be reached from
/// one. `next` gives the successors of a state.
pub fn reach<N: IntoIterator<Item = usize>>(
    states: usize,
    starts: impl IntoIterator<Item = usize>,
    next: impl Fn(usize) -> N,
) -> Vec<bool> {
    let mut is_reached = vec![false; states];
    let mut todo: Vec<_> = starts.into_iter().collect();
    todo.iter().for_each(|start| is_reached[*start] = true);
    while let Some(at) = todo.pop() {
        for next in next(at) {
            if !std::mem::replace(&mut is_reached[next], true) {
                todo.push(next);
            }
        }
    }
    is_reached
}

#[cfg(test)]
mod tests {
    use super::super::storage::MemoryLimit;
    use super::*;

    #[test]
    fn a_cycle_is_seen_in_whatever_order_its_links_came() {
        let has_cycle = |pairs: &[(u128, u128)]| {
            let (links, states) = Links::of(pairs.iter().copied());
            links.has_cycle(states).unwrap()
        };
        assert!(!has_cycle(&[]));
        assert!(!has_cycle(&[(1, 2), (1, 3), (2, 4), (3, 4)]));
        assert!(has_cycle(&[(1, 2), (3, 1), (2, 3)]));
        assert!(has_cycle(&[(1, 2), (2, 2)]));
    }

    #[test]
    fn a_long_cycle_is_seen_in_memory_and_on_disk() {
        let states = 3 * u32::try_from(CHUNK).unwrap();
        let directory = "/var/tmp".into();
        let limit = MemoryLimit {
            bytes: 1 << 40,
            directory,
        };
        for storage in [Storage::default(), Storage::new(limit).unwrap()] {
            let mut links = Links::new(&Arc::new(storage));
            for state in 1..states {
                links.add(state - 1, state);
                links.add(state / 2, state);
            }
            assert_eq!(links.has_cycle(states), Ok(false));
            let ends = [(0, 'a'), (states - 1, 'b')];
            assert_eq!(links.reached(states, &ends, &ends), Ok(vec![('a', 'b')]));
            links.add(states - 1, 1);
            assert_eq!(links.has_cycle(states), Ok(true));
        }
    }

    #[test]
    fn without_room_nothing_is_concluded() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let limit = MemoryLimit {
            bytes: 1 << 40,
            directory: directory.path().to_owned(),
        };
        let mut links = Links::new(&Arc::new(Storage::new(limit).unwrap()));
        directory.close().unwrap();
        links.add(0, 1);
        assert_eq!(links.has_cycle(2), Err(StopReason::Room));
    }

    #[test]
    fn what_is_reached_is_reached_over_others() {
        let mut links = Links::new(&Arc::default());
        for (from, to) in [(1, 2), (2, 3), (3, 4), (5, 4), (4, 6)] {
            links.add(from, to);
        }
        let named = |number: u32| (number, u64::from(number));
        let reached = links
            .reached(7, &[1, 5].map(named), &[1, 3, 6].map(named))
            .unwrap();
        assert_eq!(reached, [(1, 3), (1, 6), (5, 6)]);
    }
}
