//! What a context has seen in the present turn of each loop in which it waits for other CPUs. From
//! that follows whether another turn could see anything else. If not, its CPU waits. Plain data:
//! knows no memory.
//!
//! A turn goes from one relax stop of the loop to the next; the first turn begins where the loop
//! was entered. Each access in a turn is recorded as the address of the word and a value: what a
//! load has read, what a store has written, and both for a read-modify-write. As long as memory
//! holds all these values, another turn would read, do and write the same. No record is dropped
//! before the turn is over.

/// The greatest depth of nested loops. If a guest reports more, it is not believed, and its CPU
/// never waits.
const DEEPEST: u64 = 16;

/// How many nested loops a context waits in, as reported by the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Depth(usize);

impl Depth {
    /// The depth of a context, if the CPU waits in `count` loops, of which `below` belong to the
    /// interrupted context.
    pub(super) fn of(count: u64, below: u64) -> Self {
        let depth = count.wrapping_sub(below);
        Self(if depth <= DEEPEST { depth as usize } else { 0 })
    }

    /// Whether that is any loop.
    pub(super) fn is_in_loop(self) -> bool {
        self.0 != 0
    }
}

/// The turns that a context is in, the outermost loop's first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Turns(Vec<Turn>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Turn {
    /// Addresses of words and their values, sorted, each pair once.
    found: Vec<(u64, u64)>,
    /// Whether it did something that no word shows, such as sending an interrupt.
    has_acted: bool,
}

impl Turns {
    /// Forgets the loops that were left, down to `depth`.
    pub(super) fn leave_to(&mut self, depth: Depth) {
        self.0.truncate(depth.0);
    }

    /// Records that the context, at `depth`, has read `value` from `word`, or written it there.
    pub(super) fn find(&mut self, depth: Depth, word: u64, value: u64) {
        for turn in self.at(depth) {
            if let Err(place) = turn.found.binary_search(&(word, value)) {
                turn.found.insert(place, (word, value));
            }
        }
    }

    /// Records that the context has done something that no word shows.
    pub(super) fn act(&mut self, depth: Depth) {
        self.at(depth)
            .iter_mut()
            .for_each(|turn| turn.has_acted = true);
    }

    /// Begins another turn of the innermost loop.
    pub(super) fn begin(&mut self, depth: Depth) {
        if let Some(turn) = self.at(depth).last_mut() {
            *turn = Turn::default();
        }
    }

    /// Whether another turn of the innermost loop can differ from the last one. `holds` says
    /// whether a word still holds a value. A loop that was not announced always can.
    pub(super) fn can_differ(&self, depth: Depth, holds: impl Fn(u64, u64) -> bool) -> bool {
        match depth.0.checked_sub(1) {
            None => true,
            Some(innermost) => self.0.get(innermost).is_some_and(|turn| {
                turn.has_acted || turn.found.iter().any(|(word, value)| !holds(*word, *value))
            }),
        }
    }

    /// The words that were accessed in the present turn of the innermost loop. Some can be given
    /// several times.
    pub(super) fn words(&self, depth: Depth) -> impl Iterator<Item = u64> {
        let innermost = depth.0.checked_sub(1).and_then(|place| self.0.get(place));
        let found = innermost.map_or(&[][..], |turn| &turn.found);
        found.iter().map(|(word, _)| *word)
    }

    fn at(&mut self, Depth(depth): Depth) -> &mut [Turn] {
        self.0.resize_with(depth, Turn::default);
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Depth = Depth(1);
    const TWO: Depth = Depth(2);

    /// Whether `turns` can differ where memory holds `memory`.
    fn can_differ(turns: &Turns, depth: Depth, memory: &[(u64, u64)]) -> bool {
        turns.can_differ(depth, |word, value| memory.contains(&(word, value)))
    }

    #[test]
    fn a_store_forgets_nothing_that_was_read_before() {
        let mut turns = Turns::default();
        turns.find(ONE, 8, 0);
        turns.find(ONE, 16, 7);
        assert!(!can_differ(&turns, ONE, &[(8, 0), (16, 7)]));
        assert!(can_differ(&turns, ONE, &[(8, 1), (16, 7)]));
        assert!(can_differ(&turns, ONE, &[(8, 0), (16, 6)]));
        turns.begin(ONE);
        assert!(!can_differ(&turns, ONE, &[]));
    }

    #[test]
    fn a_word_that_changed_within_the_turn_can_differ_whatever_it_holds() {
        let mut turns = Turns::default();
        turns.find(ONE, 8, 0);
        turns.find(ONE, 8, 1);
        assert!(can_differ(&turns, ONE, &[(8, 0)]));
        assert!(can_differ(&turns, ONE, &[(8, 1)]));
    }

    #[test]
    fn what_is_read_in_an_inner_loop_belongs_to_the_outer_ones_as_well() {
        let mut turns = Turns::default();
        turns.find(ONE, 8, 0);
        turns.find(TWO, 16, 0);
        assert!(turns.words(TWO).eq([16]));
        turns.begin(TWO);
        assert!(!can_differ(&turns, TWO, &[]));
        turns.leave_to(ONE);
        assert!(turns.words(ONE).eq([8, 16]));
        assert!(can_differ(&turns, ONE, &[(8, 0), (16, 1)]));
        turns.act(ONE);
        assert!(can_differ(&turns, ONE, &[(8, 0), (16, 0)]));
    }

    #[test]
    fn a_loop_that_was_not_announced_never_waits() {
        assert!(can_differ(&Turns::default(), Depth::of(3, 3), &[]));
        assert!(can_differ(&Turns::default(), Depth::of(0, 1), &[]));
        assert_eq!(Depth::of(3, 1), TWO);
    }
}
