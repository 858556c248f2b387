//! What this guest says of itself as a whole, and its oracles: `docs/manifest.md` says what for.
//! The rest of its manifest stands beside what it describes.

use kit::declare;
use kit::manifest::Record;
use kit::manifest::SourceRole::Root;

/// An outcome was seen that must never be, by the claim.
pub const FORBIDDEN: u32 = 1;

/// The claim names a register into which nothing was read.
pub const UNREAD: u32 = 2;

declare! {
    Record::guest(
        "litmus",
        env!("CARGO_PKG_VERSION"),
        "Litmus tests: a few accesses to shared memory on each CPU, and what may come out of them",
    ),
    // The kit's source is below it.
    Record::source(Root, "guest/"),
    Record::oracle(FORBIDDEN, "forbidden", "came to an outcome that the test forbids"),
    Record::oracle(UNREAD, "unread", "left a register unread of which the test makes a claim"),
}
