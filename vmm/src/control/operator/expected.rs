//! What a run is expected to break. A scenario that shows a bug says which oracles must find something, and
//! which may; everything else that they find is a failure, as ever.

use shared::lab::Oracle;

use crate::cpus::CpuSet;

/// What must and may go wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    must: Vec<Oracle>,
    may: Vec<Oracle>,
    /// CPUs that are left where they are at the end.
    pub abandoned: CpuSet,
}

/// A word that names no oracle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no oracle \"{0}\"; there are {all}", all = all())]
pub struct NoSuchOracle(String);

fn all() -> String {
    Oracle::ALL.map(Oracle::name).join(", ")
}

/// The oracle of that name.
///
/// # Errors
/// [`NoSuchOracle`] lists them.
pub fn oracle(name: &str) -> Result<Oracle, NoSuchOracle> {
    Oracle::ALL
        .into_iter()
        .find(|oracle| oracle.name() == name)
        .ok_or_else(|| NoSuchOracle(name.to_owned()))
}

impl Expected {
    /// `oracle` has to find something.
    pub fn must(&mut self, oracle: Oracle) {
        self.must.push(oracle);
    }

    /// `oracle` may find something.
    pub fn may(&mut self, oracle: Oracle) {
        self.may.push(oracle);
    }

    /// Whether anything is expected to break.
    pub fn is_any(&self) -> bool {
        !self.must.is_empty() || !self.may.is_empty()
    }

    /// The oracles that had to find something and did not, and those that found something and may not
    /// have, given all those that found something.
    pub fn against(&self, found: &[Oracle]) -> (Vec<Oracle>, Vec<Oracle>) {
        let missing = self.must.iter().filter(|oracle| !found.contains(oracle));
        let excused = |oracle: &&Oracle| self.must.contains(oracle) || self.may.contains(oracle);
        let mut surplus: Vec<_> = found.iter().filter(|it| !excused(it)).copied().collect();
        surplus.dedup();
        (missing.copied().collect(), surplus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_expected_is_excused() {
        let mut expected = Expected::default();
        assert_eq!(expected.against(&[]), (vec![], vec![]));
        expected.must(oracle("lost").unwrap());
        expected.may(oracle("left-locked").unwrap());
        assert!(expected.is_any());
        assert_eq!(expected.against(&[]), (vec![Oracle::Lost], vec![]));
        assert_eq!(
            expected.against(&[Oracle::LeftLocked, Oracle::Lost]),
            (vec![], vec![])
        );
        assert_eq!(
            expected.against(&[Oracle::BadRefs]),
            (vec![Oracle::Lost], vec![Oracle::BadRefs])
        );
    }

    #[test]
    fn an_unknown_oracle_is_answered_with_the_known() {
        let error = oracle("lots").unwrap_err().to_string();
        assert!(
            error.contains("\"lots\"") && error.contains("bad-refs"),
            "{error}"
        );
    }
}
