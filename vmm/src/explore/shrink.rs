//! Shortens a schedule that breaks something, so that it can be understood: to the fewest changes
//! of the CPU, then to the fewest turns. Every candidate is run.

use std::time::Instant;

use super::retrace::guide;
use super::schedule::{Turn, switches};
use super::search::Counterexample;
use super::specimen::{Breach, Specimen, SpecimenError};

/// The cost of a schedule, which is to become small.
fn cost(turns: &[Turn]) -> (usize, usize, u32) {
    let stops = turns.iter().map(|turn| turn.stops).sum();
    (switches(turns), turns.len(), stops)
}

/// Replaces `best` with the shortest schedule found before `until` that breaks the same, as
/// `is_same` says. If none is shorter, `best` stays as it is.
///
/// # Errors
/// [`SpecimenError`] if the host fails, or the search has to stop; `best` then has what was found
/// so far.
pub fn shrink(
    specimen: &mut Specimen,
    best: &mut Counterexample,
    until: Instant,
    is_same: impl Fn(&Breach, &Breach) -> bool,
) -> Result<(), SpecimenError> {
    match guide(specimen, &best.turns)? {
        Some(same) if is_same(&best.breach, &same.breach) => *best = same,
        // It cannot be followed step by step, for instance because a CPU is in an endless loop.
        _ => return Ok(()),
    }
    loop {
        let present = best.turns.clone();
        let before = cost(&present);
        for candidate in candidates(&present) {
            if Instant::now() >= until {
                return Ok(());
            }
            let tried = guide(specimen, &candidate)?;
            if let Some(tried) = tried
                && is_same(&best.breach, &tried.breach)
                && cost(&tried.turns) < cost(&best.turns)
            {
                *best = tried;
                break;
            }
        }
        if cost(&best.turns) == before {
            return Ok(());
        }
    }
}

/// Schedules that may be better than `turns`: with one turn moved next to the previous or the next
/// turn of the same CPU; then with some consecutive turns left out, many turns first.
fn candidates(turns: &[Turn]) -> impl Iterator<Item = Vec<Turn>> + '_ {
    let count = turns.len();
    let lengths = std::iter::successors(Some(count / 2), |length| Some(length / 2));
    let cuts = lengths
        .take_while(|length| *length > 0)
        .flat_map(move |length| {
            (0..count.saturating_sub(length - 1))
                .step_by(length.div_ceil(2))
                .map(move |start| (start, length))
        })
        .map(|(start, length)| {
            let end = (start + length).min(turns.len());
            [&turns[..start], &turns[end..]].concat()
        });
    let moves = (0..count).flat_map(move |from| {
        let cpu = turns[from].cpu;
        let earlier = turns[..from].iter().rposition(|turn| turn.cpu == cpu);
        let later = turns[from + 1..].iter().position(|turn| turn.cpu == cpu);
        let to_earlier = earlier.map(|at| at + 1).filter(|at| *at < from);
        let to_later = later.map(|at| from + at).filter(|at| *at > from);
        [to_earlier, to_later].into_iter().flatten().map(move |to| {
            let mut moved = turns.to_vec();
            let turn = moved.remove(from);
            moved.insert(to, turn);
            moved
        })
    });
    moves.chain(cuts)
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
    fn candidates_are_cut_and_moved() {
        let all: Vec<Vec<u32>> = candidates(&turns(&[0, 1, 0, 2]))
            .map(|candidate| candidate.iter().map(|turn| turn.cpu).collect())
            .collect();
        assert!(all.contains(&vec![0, 0, 1, 2]));
        assert!(all.contains(&vec![1, 0, 0, 2]));
        assert!(all.contains(&vec![0, 1, 0]));
        assert!(all.contains(&vec![0, 2]));
        assert!(candidates(&[]).next().is_none());
        assert_eq!(candidates(&turns(&[0])).count(), 0);
    }

    #[test]
    fn fewer_changes_are_better_than_fewer_turns() {
        assert!(cost(&turns(&[0, 0, 0, 1])) < cost(&turns(&[0, 1, 0])));
    }
}
