//! The parameters that a script is given by name, and which of them it has asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::closest::did_you_mean;

/// A parameter that was given, and that the script did not ask for. It may have asked in a place
/// that it did not come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    key: String,
    /// What it did ask for.
    asked: BTreeSet<String>,
}

impl fmt::Display for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guess = did_you_mean(&self.key, self.asked.iter().map(String::as_str));
        write!(
            f,
            "the script did not ask for the parameter {}{guess}",
            self.key
        )
    }
}

/// The parameters of a script.
#[derive(Debug)]
pub(super) struct Params {
    given: BTreeMap<String, String>,
    asked: RefCell<BTreeSet<String>>,
}

impl Params {
    pub fn new(given: BTreeMap<String, String>) -> Self {
        Self {
            given,
            asked: RefCell::default(),
        }
    }

    /// The value of `key`, if it was given.
    pub fn ask(&self, key: &str) -> Option<&str> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.given.get(key).map(String::as_str)
    }

    /// What was given and was not asked for until now.
    pub fn unasked(&self) -> Vec<Unasked> {
        let asked = self.asked.borrow();
        let unasked = self.given.keys().filter(|key| !asked.contains(*key));
        let told = unasked.map(|key| Unasked {
            key: key.clone(),
            asked: asked.clone(),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_told_with_a_guess() {
        let given = [("away", "wire"), ("tims", "3"), ("zz", "")];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let params = Params::new(given.into_iter().collect());
        assert_eq!(params.ask("away"), Some("wire"));
        assert_eq!(params.ask("times"), None);
        let told: Vec<_> = params.unasked().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "the script did not ask for the parameter tims; did you mean \"times\"?",
                "the script did not ask for the parameter zz",
            ]
        );
    }
}
