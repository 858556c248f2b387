//! Words of guest memory by name in what the explorer shows: what hangs from a static by the path
//! to it, what is on a stack by whose that is. Names are looked up when something is shown; no
//! search or replay decides by them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::specimen::Specimen;
use crate::machine::image::Image;
use crate::machine::symbols::readable;
use crate::machine::words::{self, walk::Names};

/// A word of guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Where it is.
    pub address: u64,
    /// What it is called, if that is known.
    pub name: Option<String>,
}

/// The names of words.
#[derive(Debug)]
pub struct WordNames(Names);

impl WordNames {
    /// Those of `specimen`, which runs `image`, by what its memory held at the beginning.
    pub fn of(image: &Image, specimen: &Specimen) -> Self {
        let memory = |address| specimen.word_at_first(address);
        Self(words::names(image.bytes(), memory))
    }

    /// What an access to `address` is about.
    pub fn accessed(&self, specimen: &Specimen, address: u64) -> Word {
        let name = self.0.name(address);
        Word {
            address,
            name: name.or_else(|| on_stack(specimen, address)),
        }
    }

    /// The eight bytes at `address`, of which it is not known which are meant.
    pub fn watched(&self, specimen: &Specimen, address: u64) -> Word {
        let names = self.0.in_word(address);
        let name = (!names.is_empty()).then(|| names.join(", "));
        Word {
            address,
            name: name.or_else(|| on_stack(specimen, address)),
        }
    }

    /// The names of those of `addresses` that have one which no CPU's place decides, by address as
    /// it is written.
    pub fn known(&self, addresses: impl IntoIterator<Item = u64>) -> BTreeMap<String, String> {
        let named = |address: u64| Some((format!("{address:#x}"), self.0.name(address)?));
        addresses.into_iter().filter_map(named).collect()
    }
}

/// What is said of a place on a stack.
fn on_stack(specimen: &Specimen, address: u64) -> Option<String> {
    let place = specimen.on_stack(address)?;
    let function = place
        .function
        .and_then(|at| specimen.symbols().function(at));
    let cpu = place.cpu;
    Some(match function {
        Some(function) => format!("stack of CPU {cpu} in {}", readable(function)),
        None => format!("stack of CPU {cpu}"),
    })
}
