//! The report of a run, as litmus7 and its users write it: the states that were seen and how often,
//! whether the condition is validated, and the witnesses. Computes from counts; runs nothing.

use core::fmt;

use crate::histogram::{Histogram, decides};
use crate::test::{Quantifier, Test};

/// The outcomes of a test.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// The test.
    pub test: &'a Test,
    /// What was seen.
    pub histogram: &'a Histogram,
}

impl Table<'_> {
    /// Whether what was seen supports the claim: at least one witness if it says that an outcome
    /// exists, and otherwise no counterexample.
    pub fn is_validated(&self) -> bool {
        let deciding = self.histogram.deciding(self.test);
        (deciding > 0) == (self.test.claim.quantifier == Quantifier::Exists)
    }

    /// Whether something was seen that must not be.
    pub fn is_breach(&self) -> bool {
        self.test.claim.quantifier != Quantifier::Exists && !self.is_validated()
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { test, histogram } = self;
        let Test { name, claim, .. } = test;
        writeln!(f, "Test {name} {}", claim.quantifier.kind())?;
        writeln!(f, "Histogram ({} states)", histogram.iter().len())?;
        for (outcome, count) in histogram.iter() {
            let mark = if decides(test, outcome) { '*' } else { ':' };
            write!(f, "{count:<6}{mark}>")?;
            for (index, (place, value)) in test.places().iter().zip(outcome).enumerate() {
                let blank = if index == 0 { "" } else { " " };
                match value {
                    Some(value) => write!(f, "{blank}{place}={value};")?,
                    None => write!(f, "{blank}{place}=-;")?,
                }
            }
            writeln!(f)?;
        }
        let validated = self.is_validated();
        writeln!(f, "{}\n\nWitnesses", if validated { "Ok" } else { "No" })?;
        let (deciding, total) = (histogram.deciding(test), histogram.total());
        let others = total - deciding;
        // Those that support the claim come first.
        let (positive, negative) = match claim.quantifier {
            Quantifier::Exists => (deciding, others),
            Quantifier::Never | Quantifier::ForAll => (others, deciding),
        };
        writeln!(f, "Positive: {positive}, Negative: {negative}")?;
        let not = if validated { "" } else { "NOT " };
        writeln!(f, "Condition {claim} is {not}validated")?;
        // Those of which the condition holds, whatever is claimed.
        let (holds, fails) = match claim.quantifier {
            Quantifier::Exists | Quantifier::Never => (deciding, others),
            Quantifier::ForAll => (others, deciding),
        };
        let how_often = match (holds, fails) {
            (0, _) => "Never",
            (_, 0) => "Always",
            _ => "Sometimes",
        };
        write!(f, "Observation {name} {how_often} {holds} {fails}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::tests::test_of;

    const SB: &str = "0:store,x,1;load,y,rax|1:store,y,1;load,x,rax";

    fn table(quantifier: Quantifier, condition: &str, seen: &[(i64, i64, u64)]) -> String {
        let test = test_of(SB, quantifier, condition);
        let mut histogram = Histogram::default();
        for (one, other, count) in seen {
            for _ in 0..*count {
                histogram.add(&[Some(*one), Some(*other)]);
            }
        }
        assert_eq!(
            histogram.total(),
            seen.iter().map(|(.., count)| count).sum()
        );
        let table = Table {
            test: &test,
            histogram: &histogram,
        };
        table.to_string()
    }

    #[test]
    fn a_witness_validates_what_may_exist() {
        let seen = [(0, 0, 2), (0, 1, 500), (1, 0, 490), (1, 1, 8)];
        let expected = "Test T Allowed\n\
                        Histogram (4 states)\n\
                        2     *>0:rax=0; 1:rax=0;\n\
                        500   :>0:rax=0; 1:rax=1;\n\
                        490   :>0:rax=1; 1:rax=0;\n\
                        8     :>0:rax=1; 1:rax=1;\n\
                        Ok\n\
                        \n\
                        Witnesses\n\
                        Positive: 2, Negative: 998\n\
                        Condition exists (0:rax=0 /\\ 1:rax=0) is validated\n\
                        Observation T Sometimes 2 998";
        assert_eq!(
            table(Quantifier::Exists, "0:rax=0&1:rax=0", &seen),
            expected
        );
    }

    #[test]
    fn without_one_it_is_not_validated() {
        let text = table(Quantifier::Exists, "0:rax=0&1:rax=0", &[(1, 1, 3)]);
        for line in [
            "3     :>0:rax=1; 1:rax=1;",
            "No",
            "Positive: 0, Negative: 3",
            "Condition exists (0:rax=0 /\\ 1:rax=0) is NOT validated",
            "Observation T Never 0 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn what_must_never_be_is_counted_against_the_claim() {
        let text = table(
            Quantifier::Never,
            "0:rax=0&1:rax=0",
            &[(0, 0, 1), (1, 1, 3)],
        );
        for line in [
            "Test T Forbidden",
            "1     *>0:rax=0; 1:rax=0;",
            "No",
            "Positive: 3, Negative: 1",
            "Condition ~exists (0:rax=0 /\\ 1:rax=0) is NOT validated",
            "Observation T Sometimes 1 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn so_is_what_must_always_be() {
        let text = table(Quantifier::ForAll, "0:rax=1|1:rax=1", &[(1, 1, 4)]);
        for line in [
            "Test T Required",
            "4     :>0:rax=1; 1:rax=1;",
            "Ok",
            "Positive: 4, Negative: 0",
            "Observation T Always 4 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }
}
