//! What the CPUs answered to each deed of a case, over all orders that a search has tried. A deed
//! that is refused or never reached in every order was not tested: the search has then covered
//! less than the case suggests.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::{Case, Deed};
use crate::lab::deed_refusal::DeedRefusal;

/// What a CPU answered to one deed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The CPU.
    pub cpu: u32,
    /// The deed, in the words of the case.
    pub deed: String,
    /// Whether the CPU did it in some order.
    pub done: bool,
    /// Why the CPU refused, in one of the orders in which it did.
    pub refused: Option<String>,
}

/// The answers to all deeds of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers(Vec<Vec<Answer>>);

impl Answers {
    /// No answers so far.
    pub fn new(case: &Case) -> Self {
        let answer = |cpu: usize, deed: &Deed| Answer {
            cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
            deed: deed.text.clone(),
            done: false,
            refused: None,
        };
        let of_cpu = |(cpu, program): (usize, &Vec<Deed>)| {
            program.iter().map(|deed| answer(cpu, deed)).collect()
        };
        Self(case.programs.iter().enumerate().map(of_cpu).collect())
    }

    /// Notes what `cpu` answered to its deed number `deed`, from 0.
    pub fn note(&mut self, cpu: usize, deed: usize, result: Result<i64, DeedRefusal>) {
        let Some(answer) = self.0.get_mut(cpu).and_then(|all| all.get_mut(deed)) else {
            return;
        };
        match result {
            Ok(_) => answer.done = true,
            Err(_) if answer.refused.is_some() => {}
            Err(why) => answer.refused = Some(why.to_string()),
        }
    }

    /// All of them, by CPU and then in the order of the case.
    pub fn into_list(self) -> Vec<Answer> {
        self.0.into_iter().flatten().collect()
    }
}

impl Answer {
    /// Adds the answers to the same deed in other orders of the same search.
    pub fn add(&mut self, other: &Self) {
        self.done |= other.done;
        if self.refused.is_none() {
            self.refused.clone_from(&other.refused);
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, deed, .. } = self;
        match (&self.refused, self.done) {
            (Some(why), false) => write!(f, "CPU {cpu} never did \"{deed}\": {why}"),
            (Some(why), true) => write!(f, "CPU {cpu} did not do \"{deed}\" in some orders: {why}"),
            (None, false) => write!(f, "CPU {cpu} never came to \"{deed}\""),
            (None, true) => write!(f, "CPU {cpu} did \"{deed}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(results: &[(usize, usize, i64)]) -> Vec<Answer> {
        let case = Case::parse("cpus 2\n0: offline 1; single 1\n1: single 0\n").unwrap();
        let mut answers = Answers::new(&case);
        for (cpu, deed, result) in results {
            answers.note(*cpu, *deed, DeedRefusal::check(*result));
        }
        answers.into_list()
    }

    fn told(answers: &[Answer]) -> Vec<String> {
        answers.iter().map(Answer::to_string).collect()
    }

    #[test]
    fn one_order_in_which_it_was_done_is_enough() {
        let answers = of(&[(0, 0, -22), (0, 1, 3), (0, 1, -6), (0, 1, -22)]);
        let expected = [
            "CPU 0 never did \"offline 1\": this cannot be asked of this CPU now",
            "CPU 0 did not do \"single 1\" in some orders: the target is not online",
            "CPU 1 never came to \"single 0\"",
        ];
        assert_eq!(told(&answers), expected);
        let done: Vec<_> = answers.iter().map(|answer| answer.done).collect();
        assert_eq!(done, [false, true, false]);
    }

    #[test]
    fn another_part_of_the_search_adds_what_it_has_seen() {
        let mut one = of(&[(0, 0, -22), (1, 0, 0)]);
        let other = of(&[(0, 0, 0), (0, 1, -6)]);
        one.iter_mut()
            .zip(&other)
            .for_each(|(one, other)| one.add(other));
        assert!(one[0].done && one[0].refused.is_some());
        assert_eq!(one[1].refused.as_deref(), Some("the target is not online"));
        assert!(one[2].done);
    }

    #[test]
    fn what_is_no_deed_of_the_case_is_not_noted() {
        assert_eq!(of(&[(0, 2, 0), (2, 0, 0)]), of(&[]));
    }
}
