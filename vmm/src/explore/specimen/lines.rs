//! The lines of the guest's source at which CPUs stand, by the return addresses on their stacks. Debug
//! information is read anew for each address that was not asked for before, since it cannot be kept
//! beside the image; there are few of them. Knows no state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::place;
use crate::machine::image::Image;
use crate::machine::source::{Source, SourceLine};
use crate::manifest;

/// The lines of one image.
#[derive(Debug)]
pub(super) struct Lines {
    image: Arc<[u8]>,
    shown: manifest::Source,
    /// By return address.
    known: Mutex<HashMap<u64, Option<Line>>>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// `file:line`.
    pub(super) text: String,
    /// If it is in a header: the line of no header for which it was included there.
    pub(super) of: Option<String>,
    /// The return address that leads there.
    pub(super) address: u64,
}

impl Lines {
    /// Those of `image`, as far as they are in files that are to be `shown`.
    pub(super) fn of(image: &Image, shown: manifest::Source) -> Self {
        Self {
            image: Arc::clone(image.bytes()),
            shown,
            known: Mutex::default(),
        }
    }

    /// The image.
    pub(super) fn image(&self) -> &[u8] {
        &self.image
    }

    /// The line to which these return addresses lead, innermost first.
    pub(super) fn at(&self, stack: &[u64]) -> Option<Line> {
        stack.iter().find_map(|address| self.behind(*address))
    }

    /// The line to which this one leads.
    fn behind(&self, address: u64) -> Option<Line> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(address)
            .or_insert_with(|| {
                let source = Source::read(&self.image);
                let mut places = place::behind(&source, &self.shown, address);
                let text = |place: &SourceLine| format!("{}:{}", place.file, place.line);
                let is_header = |place: &SourceLine| place.file.ends_with(".h");
                let innermost = places.next()?;
                let of = is_header(&innermost)
                    .then(|| places.find(|place| !is_header(place)))
                    .flatten();
                Some(Line {
                    text: text(&innermost),
                    of: of.as_ref().map(text),
                    address,
                })
            })
            .clone()
    }
}
