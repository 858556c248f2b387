//! What a context has found in the present turn of each loop in which it waits for other CPUs. By
//! that it is decided whether another turn could find anything else; if not, its CPU waits. Plain
//! data: knows no memory.
//!
//! A turn goes from one relax stop of the loop to the next, the first from where the loop was
//! entered. Each access in it leaves a word and what that held: what a load has read, what a store
//! has left, and both of what reads and writes. As long as memory holds all of that, another turn
//! would read the same, do the same and leave the same. Nothing an access has left is forgotten
//! before the turn is over, whatever else the turn does.

/// Loops that can be in each other. A guest that says more is not believed, and its CPU never
/// waits.
const DEEPEST: u64 = 16;

/// How many loops a context waits in, as the guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Depth(usize);

impl Depth {
    /// What is left of `count` if `below` of them are those of the context beneath.
    pub(super) fn of(count: u64, below: u64) -> Self {
        let depth = count.wrapping_sub(below);
        Self(if depth <= DEEPEST { depth as usize } else { 0 })
    }
}

/// The turns that a context is in, the outermost loop's first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Turns(Vec<Turn>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Turn {
    /// Words and what they held, sorted, each pair once.
    found: Vec<(u64, u64)>,
    /// Whether it did what no word shows, such as to send an interrupt.
    has_acted: bool,
}

impl Turns {
    /// Forgets the loops that were left.
    pub(super) fn leave_to(&mut self, depth: Depth) {
        self.0.truncate(depth.0);
    }

    /// The context, `depth` loops deep, has found `value` in `word`, or has left it there.
    pub(super) fn find(&mut self, depth: Depth, word: u64, value: u64) {
        for turn in self.at(depth) {
            if let Err(place) = turn.found.binary_search(&(word, value)) {
                turn.found.insert(place, (word, value));
            }
        }
    }

    /// It has done what no word shows.
    pub(super) fn act(&mut self, depth: Depth) {
        self.at(depth)
            .iter_mut()
            .for_each(|turn| turn.has_acted = true);
    }

    /// It begins another turn of the innermost loop.
    pub(super) fn begin(&mut self, depth: Depth) {
        if let Some(turn) = self.at(depth).last_mut() {
            *turn = Turn::default();
        }
    }

    /// Whether another turn of the innermost loop can be other than the last, where `holds` says
    /// whether a word still holds a value. Of a loop that nobody has announced nothing is known.
    pub(super) fn can_differ(&self, depth: Depth, holds: impl Fn(u64, u64) -> bool) -> bool {
        match depth.0.checked_sub(1) {
            None => true,
            Some(innermost) => self.0.get(innermost).is_some_and(|turn| {
                turn.has_acted || turn.found.iter().any(|(word, value)| !holds(*word, *value))
            }),
        }
    }

    /// The words of the present turn of the innermost loop, each at least once.
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
    fn what_is_read_within_belongs_to_the_loops_around_as_well() {
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
    fn a_loop_that_nobody_announced_never_waits() {
        assert!(can_differ(&Turns::default(), Depth::of(3, 3), &[]));
        assert!(can_differ(&Turns::default(), Depth::of(0, 1), &[]));
        assert_eq!(Depth::of(3, 1), TWO);
    }
}
