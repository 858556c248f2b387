//! Names of words of guest memory in what the explorer shows. What can be reached from a static is
//! named by the path to it, what is on a stack by the CPU and the function. Names are looked up
//! only when something is shown; no search or replay depends on them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::specimen::Specimen;
use crate::machine::image::Image;
use crate::machine::memory_names::{self, walk::Names};
use crate::machine::symbols::readable;

/// A word of guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Its address.
    pub address: u64,
    /// Its name, if it is known.
    pub name: Option<String>,
}

/// The names of words.
#[derive(Debug)]
pub struct WordNames(Names);

impl WordNames {
    /// The names of words in the memory of `specimen`, which runs `image`, in its initial state.
    pub fn of(image: &Image, specimen: &Specimen) -> Self {
        let memory = |address| specimen.word_at_first(address);
        Self(memory_names::names(image.bytes(), memory))
    }

    /// The word that an access to `address` is about.
    pub fn accessed(&self, specimen: &Specimen, address: u64) -> Word {
        let name = self.0.name(address);
        Word {
            address,
            name: name.or_else(|| on_stack(specimen, address)),
        }
    }

    /// The eight bytes at `address`, with the names of all words in them.
    pub fn watched(&self, specimen: &Specimen, address: u64) -> Word {
        let names = self.0.in_word(address);
        let name = (!names.is_empty()).then(|| names.join(", "));
        Word {
            address,
            name: name.or_else(|| on_stack(specimen, address)),
        }
    }

    /// The names of `addresses`, by address as `0x…`. Words on stacks are left out, because their
    /// names depend on where the CPUs are.
    pub fn known(&self, addresses: impl IntoIterator<Item = u64>) -> BTreeMap<String, String> {
        let named = |address: u64| Some((format!("{address:#x}"), self.0.name(address)?));
        addresses.into_iter().filter_map(named).collect()
    }
}

/// The name of a word on a stack.
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
