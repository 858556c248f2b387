//! Everything that the VMM reads and did not write itself, as one function for each kind of it. A
//! function takes any bytes and returns; it panics if the VMM does, or if something does not hold
//! that must hold of what the VMM makes of them. `cargo fuzz` calls these functions, and so does
//! `tests/corpora.rs`, which needs no other compiler. They use what is public in the library, and
//! need no KVM.

mod files;
mod guest;

/// One kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its module, of its file in `fuzz_targets/`, of the folder of its corpus, and
    /// of its line in `docs/security.md`.
    pub name: &'static str,
    /// Has the VMM read some bytes as this kind of input.
    pub read: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(pub mod $name;)*

        /// All kinds of input.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), read: $name::read }),*];
    };
}

targets! {
    image
    dwarf
    manifest
    probes
    lab
    rings
    script
    case
    schedule
    result
    state
    socket
    tracefs
    statistics
    compare
    settings
    kernel
}
