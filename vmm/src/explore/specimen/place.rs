//! Where in the source a CPU of the specimen has stopped. Only reads.

use super::machine::Specimen;
use super::stopped::Stop;
use crate::machine::source::{Source, SourceLine};
use crate::manifest;

/// The line in the guest's source at which `cpu` has stopped, of those that are to be `shown`.
pub fn of(
    specimen: &Specimen,
    source: &Source<'_>,
    shown: &manifest::Source,
    cpu: usize,
) -> Option<SourceLine> {
    let stopped = &specimen.cpus()[cpu];
    if stopped.at == Stop::Idle || stopped.is_down() {
        return None;
    }
    let callers = specimen.callers(cpu).into_iter();
    callers
        .flat_map(|address| behind(source, shown, address))
        .next()
}

/// The lines of those that are to be `shown` to which a return address leads, innermost first.
pub(super) fn behind<'a>(
    source: &Source<'_>,
    shown: &'a manifest::Source,
    address: u64,
) -> impl Iterator<Item = SourceLine> + use<'a> {
    // It points behind the call, which can already be another line.
    let places = source.places(address.wrapping_sub(1)).into_iter();
    places.filter_map(|place| {
        let file = shown.shown(&place.file, &place.function)?.to_owned();
        Some(SourceLine { file, ..place })
    })
}
