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
    let callers = specimen.callers(cpu);
    on_stack(source, shown, &callers)
        .next()
        .map(|(_, place)| place)
}

/// The lines of those that are to be `shown`, by these return addresses, innermost first, each with
/// the address that leads to it.
pub(super) fn on_stack<'a>(
    source: &'a Source<'_>,
    shown: &'a manifest::Source,
    callers: &'a [u64],
) -> impl Iterator<Item = (u64, SourceLine)> + 'a {
    callers.iter().flat_map(move |address| {
        // A return address points behind the call, which can already be another line.
        let places = source.places(address.wrapping_sub(1)).into_iter();
        places.filter_map(move |place| {
            let file = shown.shown(&place.file, &place.function)?.to_owned();
            Some((*address, SourceLine { file, ..place }))
        })
    })
}
