//! What this guest says of itself as a whole to a reader of its image: `docs/manifest.md` says what
//! for. The rest of its manifest stands beside what it describes.

use kit::declare;
use kit::manifest::Record;
use kit::manifest::SourceRole::{Root, SkipFunction};

declare! {
    Record::guest(
        "ipi-lab",
        env!("CARGO_PKG_VERSION"),
        "Linux's generic-ipi, from 2.6.27 to today: calls between CPUs, \
         and the designs that carry them",
    ),
    // The kit's source is below it.
    Record::source(Root, "guest/"),
    // The caller that waits says more than how it waits.
    Record::source(SkipFunction, "guest::machine::Machine<P>::spin_until"),
}
