//! A comparison as a page. This module embeds it, and the script beside it shows it.

use std::io::{self, Write};

use super::{ELEMENTS, Parts, STYLE, embed};
use crate::report::comparison::Comparison;

/// The parts of a page on a comparison.
pub(super) const COMPARISON: Parts = Parts {
    body: include_str!("comparison.html"),
    styles: &[STYLE],
    scripts: &[ELEMENTS, include_str!("comparison.js")],
};

/// Writes a page with `comparison`.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, comparison: &Comparison) -> io::Result<()> {
    let title = format!("{} and {}", comparison.a.file, comparison.b.file);
    COMPARISON.write(out, &title, |out| {
        embed(out, "id=\"comparison\"", comparison)
    })
}
