//! The registers of a CPU with `workload=puppet`: how many it has, and their names. Their values
//! are in [`puppet`](crate::puppet).

use crate::program;

/// Registers of each kind that a CPU has.
pub const REGISTERS: usize = 32;

/// The kind and the number of the register `name`: `r` for what the CPU has read, `h` for what its
/// handlers have read.
pub(crate) fn numbered(name: &str) -> Option<(char, usize)> {
    let of = |kind| program::numbered(name, kind).map(|nth| (kind, nth));
    of('r')
        .or_else(|| of('h'))
        .filter(|(_, nth)| *nth < REGISTERS)
}
