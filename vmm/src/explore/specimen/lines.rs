//! The lines of the guest's source at which CPUs stand, by the return addresses on their stacks. To
//! find one takes a walk through debug information, so that those found are kept. Knows no state.

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
    known: Mutex<HashMap<Vec<u64>, Option<Line>>>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// `file:line`.
    pub(super) text: String,
    /// If it is in a header: the line of no header for which it was included there.
    pub(super) of: Option<String>,
    /// The return address on the stack that leads there.
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
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = known.get(stack) {
            return line.clone();
        }
        let source = Source::read(&self.image);
        let text = |place: &SourceLine| format!("{}:{}", place.file, place.line);
        let mut lines = place::on_stack(&source, &self.shown, stack);
        let line = lines.next().map(|(address, place)| {
            let is_header = |place: &SourceLine| place.file.ends_with(".h");
            let within = lines.take_while(|(at, _)| *at == address);
            let mut within = within.map(|(_, place)| place);
            let of = is_header(&place).then(|| within.find(|it| !is_header(it)));
            Line {
                text: text(&place),
                of: of.flatten().map(|place| text(&place)),
                address,
            }
        });
        known.insert(stack.to_vec(), line.clone());
        line
    }
}
