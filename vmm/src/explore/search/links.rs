//! Which states lead to which, by their numbers, as far as a search has tried: tells whether the
//! states form a cycle. Knows no machine.

use std::collections::HashMap;

/// Pairs of states. The first of a pair leads to the second.
#[derive(Debug, Default)]
pub struct Links {
    all: Vec<(u32, u32)>,
}

impl Links {
    /// The links between states that have no numbers yet, and how many states these are.
    pub fn of(pairs: impl IntoIterator<Item = (u128, u128)>) -> (Self, u32) {
        let mut numbers: HashMap<u128, u32> = HashMap::new();
        let mut number = |key| {
            let next = u32::try_from(numbers.len()).expect("fewer states than fit into memory");
            *numbers.entry(key).or_insert(next)
        };
        let mut links = Self::default();
        for (from, to) in pairs {
            let (from, to) = (number(from), number(to));
            links.add(from, to);
        }
        let states = u32::try_from(numbers.len()).expect("each of them has a number");
        (links, states)
    }

    /// Notes that the state with the number `from` leads to the one with the number `to`.
    pub fn add(&mut self, from: u32, to: u32) {
        self.all.push((from, to));
    }

    /// Adds the links of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.all.append(&mut other.all);
    }

    /// Shows `each` all pairs.
    pub fn each(&self, each: impl FnMut((u32, u32))) {
        self.all.iter().copied().for_each(each);
    }

    /// By state: its successors.
    fn successors(&self, states: u32) -> Vec<Vec<u32>> {
        let mut successors = vec![Vec::new(); states as usize];
        for (from, to) in &self.all {
            successors[*from as usize].push(*to);
        }
        successors
    }

    /// Whether the states, of which there are so many, form a cycle.
    pub fn has_cycle(&self, states: u32) -> bool {
        // Take away states without a predecessor, as long as there are any. What is left is on a
        // cycle, or is reached from one (Kahn, 1962).
        let successors = self.successors(states);
        let mut predecessors = vec![0_u32; states as usize];
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
        taken < states as usize
    }

    /// Pairs of a state in `from` and another one in `to` that can be reached from it, of so many
    /// `states`. Each state comes with its number.
    pub fn reached<K: Copy>(&self, states: u32, from: &[(u32, K)], to: &[(u32, K)]) -> Vec<(K, K)> {
        let successors = self.successors(states);
        let mut pairs = Vec::new();
        for (start, key) in from {
            let next = |at: usize| successors[at].iter().map(|next| *next as usize);
            let is_reached = reach(states as usize, [*start as usize], next);
            let others = to.iter().filter(|(other, _)| other != start);
            let reached = others.filter(|(other, _)| is_reached[*other as usize]);
            pairs.extend(reached.map(|(_, other)| (*key, *other)));
        }
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

    #[test]
    fn a_cycle_is_seen_in_whatever_order_its_links_came() {
        let has_cycle = |pairs: &[(u128, u128)]| {
            let (links, states) = Links::of(pairs.iter().copied());
            links.has_cycle(states)
        };
        assert!(!has_cycle(&[]));
        assert!(!has_cycle(&[(1, 2), (1, 3), (2, 4), (3, 4)]));
        assert!(has_cycle(&[(1, 2), (3, 1), (2, 3)]));
        assert!(has_cycle(&[(1, 2), (2, 2)]));
    }

    #[test]
    fn what_is_reached_is_reached_over_others() {
        let mut links = Links::default();
        for (from, to) in [(1, 2), (2, 3), (3, 4), (5, 4), (4, 6)] {
            links.add(from, to);
        }
        let named = |number: u32| (number, u64::from(number));
        let reached = links.reached(7, &[1, 5].map(named), &[1, 3, 6].map(named));
        assert_eq!(reached, [(1, 3), (1, 6), (5, 6)]);
    }
}
