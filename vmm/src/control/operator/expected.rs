//! What a run is expected to break. A scenario that shows a bug says which oracles must find
//! something, and which may. Whatever other oracles find is a failure, as in any run.

use crate::cpus::CpuSet;

/// What must and may go wrong, by the names of oracles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    must: Vec<String>,
    may: Vec<String>,
    /// CPUs that take no part in the end of the run.
    pub abandoned: CpuSet,
}

impl Expected {
    /// The oracle of that name has to find something.
    pub fn must(&mut self, oracle: &str) {
        self.must.push(oracle.to_owned());
    }

    /// The oracle of that name may find something.
    pub fn may(&mut self, oracle: &str) {
        self.may.push(oracle.to_owned());
    }

    /// Whether anything is expected to break.
    pub fn is_any(&self) -> bool {
        !self.must.is_empty() || !self.may.is_empty()
    }

    /// Whether `oracle` was named.
    pub fn names(&self, oracle: &str) -> bool {
        self.must.iter().chain(&self.may).any(|it| it == oracle)
    }

    /// Compares with `found`, the oracles that found something. Returns those that had to find
    /// something and did not, and those that found something and were not expected to.
    pub fn against<'a>(&'a self, found: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
        let must = self.must.iter().map(String::as_str);
        let missing = must.filter(|oracle| !found.contains(oracle));
        let surplus = found.iter().copied().filter(|oracle| !self.names(oracle));
        (missing.collect(), surplus.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_expected_is_excused() {
        let mut expected = Expected::default();
        assert_eq!(expected.against(&[]), (vec![], vec![]));
        expected.must("lost");
        expected.may("left-locked");
        assert!(expected.is_any());
        assert_eq!(expected.against(&[]), (vec!["lost"], vec![]));
        assert_eq!(expected.against(&["left-locked", "lost"]), (vec![], vec![]));
        assert_eq!(
            expected.against(&["bad-refs"]),
            (vec!["lost"], vec!["bad-refs"])
        );
    }
}
