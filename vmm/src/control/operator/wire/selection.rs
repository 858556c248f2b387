//! Which of the IPIs from one CPU to another are meant: those with a vector, those of a call, or
//! all but the wake-ups. Also the names by which a script or a client says so.

use std::fmt;

use shared::ledger::CallId;
use shared::ports::{Delivery, Dispatch};

use super::ipi::WireIpi;
use crate::lab::call_name::CallName;
use crate::manifest::Manifest;

/// The name of INIT.
const INIT: &str = "init";

/// The name of start-up IPIs.
const START_UP: &str = "sipi";

/// The smallest vector that an interrupt can have (SDM Vol. 3A, 11.5.2).
const FIRST_VECTOR: u8 = 16;

/// Which IPIs are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Selection {
    /// All but those that do nothing but wake a CPU, by the guest's manifest: a guest sends them
    /// when it likes, and who wants to stop a call does not mean them.
    #[default]
    AllButWakes,
    /// Interrupts with this vector.
    Vector(u8),
    /// INIT.
    Init,
    /// Start-up IPIs.
    StartUp,
    /// Those that tell of this call.
    Call(CallId),
}

/// There is no IPI of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no IPI is called \"{name}\"; there are {known}, and vectors as numbers, such as 0xf3")]
pub struct NoSuchVector {
    name: String,
    known: String,
}

impl Selection {
    /// The IPIs called `name`: `init`, `sipi`, a vector of the manifest, or a number.
    ///
    /// # Errors
    /// [`NoSuchVector`] lists the names there are.
    pub fn named(name: &str, manifest: &Manifest) -> Result<Self, NoSuchVector> {
        let vectors = &manifest.vectors;
        let declared = || vectors.iter().find(|it| it.name == name);
        let numbered = || {
            let number = match name.strip_prefix("0x") {
                Some(digits) => u8::from_str_radix(digits, 16),
                None => name.parse(),
            };
            number.ok().filter(|it| *it >= FIRST_VECTOR)
        };
        match name {
            INIT => Ok(Self::Init),
            START_UP => Ok(Self::StartUp),
            _ => declared()
                .map(|it| it.number)
                .or_else(numbered)
                .map(Self::Vector)
                .ok_or_else(|| {
                    let known = vectors.iter().map(|it| it.name.as_str());
                    let known: Vec<_> = known.chain([INIT, START_UP]).collect();
                    NoSuchVector {
                        name: name.to_owned(),
                        known: known.join(", "),
                    }
                }),
        }
    }

    /// Whether `ipi` is one of these, where the vectors `wakes` only wake CPUs.
    pub(super) fn matches(self, ipi: &WireIpi, wakes: &[u8]) -> bool {
        let Dispatch {
            vector, delivery, ..
        } = ipi.dispatch;
        match self {
            Self::AllButWakes => delivery != Delivery::Fixed || !wakes.contains(&vector),
            Self::Vector(wanted) => delivery == Delivery::Fixed && vector == wanted,
            Self::Init => delivery == Delivery::Init,
            Self::StartUp => delivery == Delivery::StartUp,
            Self::Call(call) => ipi.call == Some(call),
        }
    }
}

/// As a noun: `IPIs of vector 0xf3`.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllButWakes => f.write_str("IPIs"),
            Self::Vector(vector) => write!(f, "IPIs of vector {vector:#x}"),
            Self::Init => f.write_str("INIT IPIs"),
            Self::StartUp => f.write_str("start-up IPIs"),
            Self::Call(call) => write!(f, "IPIs of {}", CallName(*call)),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::manifest::{Record, VectorRole};

    use super::*;

    #[test]
    fn ipis_are_called_by_the_guests_words_and_by_numbers() {
        let call = Record::vector(0xf3, "ring", VectorRole::Call, "Rings.");
        let manifest = Manifest::saying(&[call]);
        let named = |name| Selection::named(name, &manifest);
        assert_eq!(named("ring"), Ok(Selection::Vector(0xf3)));
        assert_eq!(named("0xf3"), Ok(Selection::Vector(0xf3)));
        assert_eq!(named("32"), Ok(Selection::Vector(32)));
        assert_eq!(named("init"), Ok(Selection::Init));
        assert_eq!(named("sipi"), Ok(Selection::StartUp));
        for name in ["rings", "", "0x100", "0x", "3", "-1", "INIT"] {
            let error = named(name).unwrap_err().to_string();
            assert!(error.contains("there are ring, init, sipi"), "{error}");
        }
    }
}
