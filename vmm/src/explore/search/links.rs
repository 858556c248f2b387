//! Which states lead to which, as far as was tried, by their keys: to tell whether one can be come back to. Knows no
//! machine.

use std::collections::BTreeSet;

use super::ByKey;

/// Pairs of states, the first of which leads to the second.
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

    /// By state: those to which it leads.
    fn behind(&self) -> Vec<Vec<u32>> {
        let mut behind = vec![Vec::new(); self.keys.len()];
        for (from, to) in &self.all {
            behind[*from as usize].push(*to);
        }
        behind
    }

    /// Whether a state can be come back to.
    pub fn has_round(&self) -> bool {
        // Whoever nothing leads to can be taken away; who is left then is on a round, or behind one (Kahn, 1962).
        let behind = self.behind();
        let mut before = vec![0_u32; self.keys.len()];
        for (_, to) in &self.all {
            before[*to as usize] += 1;
        }
        let mut free: Vec<_> = (0..before.len()).filter(|it| before[*it] == 0).collect();
        let mut taken = 0;
        while let Some(number) = free.pop() {
            taken += 1;
            for next in &behind[number] {
                let next = *next as usize;
                before[next] -= 1;
                if before[next] == 0 {
                    free.push(next);
                }
            }
        }
        taken < self.keys.len()
    }

    /// Which of the states with the keys `to` can be reached from which of those with the keys `from`, other than itself.
    pub fn reached(&self, from: &[u128], to: &BTreeSet<u128>) -> Vec<(u128, u128)> {
        let behind = self.behind();
        let mut pairs = Vec::new();
        for key in from {
            let Some(start) = self.numbers.get(key) else {
                continue;
            };
            let mut is_reached = vec![false; self.keys.len()];
            is_reached[*start as usize] = true;
            let mut todo = vec![*start];
            while let Some(at) = todo.pop() {
                for next in &behind[at as usize] {
                    if !std::mem::replace(&mut is_reached[*next as usize], true) {
                        todo.push(*next);
                        let next = self.keys[*next as usize];
                        pairs.extend(to.contains(&next).then_some((*key, next)));
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }
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
    fn a_round_is_seen_in_whatever_order_its_links_came() {
        assert!(!links(&[]).has_round());
        assert!(!links(&[(1, 2), (1, 3), (2, 4), (3, 4)]).has_round());
        assert!(links(&[(1, 2), (3, 1), (2, 3)]).has_round());
        assert!(links(&[(1, 2), (2, 2)]).has_round());
    }

    #[test]
    fn what_is_reached_is_reached_over_others() {
        let links = links(&[(1, 2), (2, 3), (3, 4), (5, 4), (4, 6)]);
        let to = BTreeSet::from([1, 3, 6]);
        assert_eq!(links.reached(&[1, 5, 9], &to), [(1, 3), (1, 6), (5, 6)]);
    }
}
