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
    on_stack(source, shown, &specimen.callers(cpu)).map(|(_, place)| place)
}

/// The innermost line of those that are to be `shown`, by these return addresses, and the address that
/// leads to it.
pub(super) fn on_stack(
    source: &Source<'_>,
    shown: &manifest::Source,
    callers: &[u64],
) -> Option<(u64, SourceLine)> {
    // A return address points behind the call, which can already be another line.
    let places = (callers.iter()).flat_map(|address| {
        source
            .places(address.wrapping_sub(1))
            .into_iter()
            .map(|it| (*address, it))
    });
    places
        .filter_map(|(address, place)| {
            let file = shown.shown(&place.file, &place.function)?.to_owned();
            Some((address, SourceLine { file, ..place }))
        })
        .next()
}
