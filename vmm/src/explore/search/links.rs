//! Which states lead to which, by their keys, as far as a search has tried: tells whether the
//! states form a cycle. Knows no machine.

use std::collections::BTreeSet;

use super::by_key::ByKey;

/// Pairs of states. The first of a pair leads to the second.
#[derive(Debug, Default)]
pub struct Links {
    numbers: ByKey<u128, u32>,
    keys: Vec<u128>,
    all: Vec<(u32, u32)>,
}

impl Links {
    /// Notes that the state with the key `from` leads to the one with the key `to`.
    pub fn add(&mut self, from: u128, to: u128) {
        let link = (self.number(from), self.number(to));
        self.all.push(link);
    }

    fn number(&mut self, key: u128) -> u32 {
        let next = self.keys.len();
        *self.numbers.entry(key).or_insert_with(|| {
            self.keys.push(key);
            u32::try_from(next).expect("fewer states than would fit into memory")
        })
    }

    /// By state: its successors.
    fn successors(&self) -> Vec<Vec<u32>> {
        let mut successors = vec![Vec::new(); self.keys.len()];
        for (from, to) in &self.all {
            successors[*from as usize].push(*to);
        }
        successors
    }

    /// Whether the states form a cycle.
    pub fn has_cycle(&self) -> bool {
        // Take away states without a predecessor, as long as there are any. What is left is on a
        // cycle, or is reached from one (Kahn, 1962).
        let successors = self.successors();
        let mut predecessors = vec![0_u32; self.keys.len()];
        for (_, to) in &self.all {
            predecessors[*to as usize] += 1;
        }
        let mut free: Vec<_> = (0..predecessors.len())
            .filter(|it| predecessors[*it] == 0)
            .collect();
        let mut taken = 0;
        while let Some(number) = free.pop() {
            taken += 1;
            for next in &successors[number] {
                let next = *next as usize;
                predecessors[next] -= 1;
                if predecessors[next] == 0 {
                    free.push(next);
                }
            }
        }
        taken < self.keys.len()
    }

    /// Pairs of a state with a key in `from` and another one with a key in `to` that can be reached
    /// from it.
    pub fn reached(
        &self,
        from: impl IntoIterator<Item = u128>,
        to: &BTreeSet<u128>,
    ) -> Vec<(u128, u128)> {
        let successors = self.successors();
        let number = |key: &u128| self.numbers.get(key).map(|number| *number as usize);
        let mut pairs = Vec::new();
        for key in from {
            let Some(start) = number(&key) else {
                continue;
            };
            let next = |at: usize| successors[at].iter().map(|next| *next as usize);
            let is_reached = reach(self.keys.len(), [start], next);
            let others = to.iter().filter(|other| **other != key);
            let reached = others.filter(|other| number(other).is_some_and(|it| is_reached[it]));
            pairs.extend(reached.map(|other| (key, *other)));
        }
        pairs.sort_unstable();
        pairs
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
    use super::*;

    fn links(pairs: &[(u128, u128)]) -> Links {
        let mut links = Links::default();
        pairs.iter().for_each(|(from, to)| links.add(*from, *to));
        links
    }

    #[test]
    fn a_cycle_is_seen_in_whatever_order_its_links_came() {
        assert!(!links(&[]).has_cycle());
        assert!(!links(&[(1, 2), (1, 3), (2, 4), (3, 4)]).has_cycle());
        assert!(links(&[(1, 2), (3, 1), (2, 3)]).has_cycle());
        assert!(links(&[(1, 2), (2, 2)]).has_cycle());
    }

    #[test]
    fn what_is_reached_is_reached_over_others() {
        let links = links(&[(1, 2), (2, 3), (3, 4), (5, 4), (4, 6)]);
        let to = BTreeSet::from([1, 3, 6]);
        assert_eq!(links.reached([1, 5, 9], &to), [(1, 3), (1, 6), (5, 6)]);
    }
}
