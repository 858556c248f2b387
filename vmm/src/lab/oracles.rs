//! Oracles by name: those that the guest declares in its manifest, and the properties that the VMM
//! judges itself. If both have the same name they are one oracle. A number that the guest counts
//! but does not declare gets a name too, so that no finding is lost.

use std::borrow::Cow;
use std::fmt;

use shared::lab::ORACLE_SLOTS;

use crate::closest::closest;
use crate::manifest::Manifest;

/// What the VMM checks itself, whatever the guest checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Every call ran on all of its targets.
    Lost,
    /// No call ran anywhere else.
    WrongCpu,
    /// The ledger and the counts add up.
    Accounting,
}

impl Property {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lost, Self::WrongCpu, Self::Accounting];

    /// The name of the oracle for it. A guest that checks the same property should declare its
    /// oracle by this name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::WrongCpu => "wrong-cpu",
            Self::Accounting => "accounting",
        }
    }
}

/// The beginning of the name of an oracle that the guest does not declare. Its number follows.
const UNDECLARED: &str = "oracle-";

/// The name of the guest's oracle with this number.
pub fn name(manifest: &Manifest, number: u32) -> Cow<'_, str> {
    match manifest.oracle(number) {
        Some(oracle) => Cow::from(&oracle.name),
        None => Cow::from(format!("{UNDECLARED}{number}")),
    }
}

/// Whether `name` has the form of the name of an undeclared oracle.
pub(crate) fn is_undeclared(name: &str) -> bool {
    let number = name.strip_prefix(UNDECLARED).map(str::parse::<u32>);
    matches!(number, Some(Ok(_)))
}

/// Whether the guest can have an oracle with this number. A guest that declares oracles has no
/// others, so a finding with another number means that memory was overwritten. For a guest that
/// declares none, any number can be an oracle.
pub(super) fn can_be(manifest: &Manifest, number: u32) -> bool {
    match &manifest.oracles[..] {
        [] => number != 0 && (number as usize) < ORACLE_SLOTS,
        _ => manifest.oracle(number).is_some(),
    }
}

/// The names of all oracles for a guest with this manifest: its own by number, then those that only
/// the VMM has.
pub fn names(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let declared = manifest.oracles.iter().map(|it| &*it.name);
    let own = Property::ALL.into_iter();
    let own = own.map(|property| -> &str { property.name() });
    let own = own.filter(|name| !manifest.oracles.iter().any(|it| it.name == *name));
    declared.chain(own)
}

/// There is no oracle of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no oracle \"{name}\"{guess}; there are {known}")]
pub struct NoSuchOracle {
    name: String,
    known: String,
    guess: String,
}

/// Checks that there is an oracle `name` for a guest with this manifest.
///
/// # Errors
/// [`NoSuchOracle`] lists the oracles there are.
pub fn check(manifest: &Manifest, name: &str) -> Result<(), NoSuchOracle> {
    let of_number = |number| self::name(manifest, number) == name;
    let mut numbers = (1..ORACLE_SLOTS as u32).filter(|number| can_be(manifest, *number));
    if names(manifest).any(|known| known == name) || numbers.any(of_number) {
        return Ok(());
    }
    let mut known: Vec<_> = names(manifest).map(str::to_owned).collect();
    if manifest.oracles.is_empty() {
        let last = ORACLE_SLOTS - 1;
        known.push(format!("{UNDECLARED}1 to {UNDECLARED}{last}"));
    }
    Err(no_such(name, &known.join(", "), names(manifest)))
}

/// Checks that `name` is one of `known`.
///
/// # Errors
/// [`NoSuchOracle`] lists them.
pub fn check_among(known: &[&str], name: &str) -> Result<(), NoSuchOracle> {
    if known.contains(&name) {
        return Ok(());
    }
    Err(no_such(name, &known.join(", "), known.iter().copied()))
}

/// There is no oracle `name` among `known`; one of `names` can be meant.
fn no_such<'a>(name: &str, known: &str, names: impl IntoIterator<Item = &'a str>) -> NoSuchOracle {
    NoSuchOracle {
        name: name.to_owned(),
        known: known.to_owned(),
        guess: closest(name, names)
            .map_or_else(String::new, |meant| format!(" (did you mean \"{meant}\"?)")),
    }
}

/// How often each oracle found something: first all declared oracles in their order, then
/// undeclared ones that found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByOracle(Vec<(String, u64)>);

impl ByOracle {
    /// Zero for each oracle of a guest with this manifest.
    pub(super) fn nothing(manifest: &Manifest) -> Self {
        Self(names(manifest).map(|name| (name.to_owned(), 0)).collect())
    }

    /// How often the oracle called `name` found something.
    pub fn of(&self, name: &str) -> u64 {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or(0, |(_, count)| *count)
    }

    /// Every oracle, with how often it found something.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (&**name, *count))
    }

    /// Lists those that found something.
    pub fn found(&self) -> impl Iterator<Item = (&str, u64)> {
        self.iter().filter(|(_, count)| *count > 0)
    }

    /// The sum over all oracles. It saturates, because a broken guest can have counted anything.
    pub fn total(&self) -> u64 {
        self.iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    pub(super) fn add(&mut self, name: &str, count: u64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => self.0.push((name.to_owned(), count)),
        }
    }
}

impl fmt::Display for ByOracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.found().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use shared::manifest::Record;

    use super::*;

    pub(crate) const LOST: u32 = 1;
    pub(crate) const WRONG_CPU: u32 = 3;
    pub(crate) const TORN: u32 = 20;

    /// Oracles of a guest, some of which the VMM has as well.
    pub(crate) const ORACLES: [Record; 3] = [
        Record::oracle(TORN, "torn", "was torn"),
        Record::oracle(LOST, "lost", "never ran on a target"),
        Record::oracle(WRONG_CPU, "wrong-cpu", "ran elsewhere"),
    ];

    fn manifest() -> Manifest {
        Manifest::saying(&ORACLES)
    }

    #[test]
    fn what_guest_and_vmm_name_alike_is_one_oracle() {
        let manifest = manifest();
        let all = ["lost", "wrong-cpu", "torn", "accounting"];
        assert!(names(&manifest).eq(all));
        let mut counts = ByOracle::nothing(&manifest);
        counts.add(&name(&manifest, LOST), 2);
        counts.add(Property::Lost.name(), 3);
        counts.add(Property::Accounting.name(), u64::MAX);
        assert_eq!(counts.of("lost"), 5);
        assert_eq!(counts.total(), u64::MAX);
        assert_eq!(
            counts.to_string(),
            format!("5 lost, {} accounting", u64::MAX)
        );
    }

    #[test]
    fn a_number_that_nobody_declares_has_a_name_and_is_none_of_a_guest_that_declares_others() {
        let (manifest, nothing) = (manifest(), Manifest::default());
        let mut counts = ByOracle::nothing(&manifest);
        counts.add(&name(&manifest, 7), 1);
        assert_eq!(counts.to_string(), "1 oracle-7");
        assert!(!can_be(&manifest, 7) && can_be(&manifest, TORN));
        assert!(can_be(&nothing, 7) && can_be(&nothing, 31));
        assert!(!can_be(&nothing, 0) && !can_be(&nothing, 32));
        assert!(is_undeclared("oracle-7") && !is_undeclared("oracle-of-delphi"));
    }

    #[test]
    fn an_unknown_oracle_is_answered_with_the_known() {
        let (manifest, nothing) = (manifest(), Manifest::default());
        for known in ["torn", "lost", "accounting"] {
            assert_eq!(check(&manifest, known), Ok(()));
        }
        assert_eq!(
            check(&manifest, "lots").unwrap_err().to_string(),
            "there is no oracle \"lots\" (did you mean \"lost\"?); there are lost, wrong-cpu, torn, \
             accounting"
        );
        assert!(check(&manifest, "oracle-7").is_err());
        // A guest without a manifest can still have findings.
        assert_eq!(check(&nothing, "oracle-7"), Ok(()));
        assert_eq!(
            check(&nothing, "torn").unwrap_err().to_string(),
            "there is no oracle \"torn\"; there are lost, wrong-cpu, accounting, \
             oracle-1 to oracle-31"
        );
    }
}
