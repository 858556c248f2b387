//! Who holds which cache line, as far as MESI goes with caches that never run full: a line is in
//! one cache modified, or in any number of them shared.

use std::collections::HashMap;

/// Bytes in a line.
pub const LINE: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// CPUs that have it, one bit each.
    holders: u64,
    /// Whether anybody has written it; memory that nobody has costs nobody a transfer.
    written: bool,
}

/// The lines of a machine with at most 64 CPUs.
#[derive(Debug, Default)]
pub struct Coherence {
    lines: HashMap<usize, Line>,
}

impl Coherence {
    /// `cpu` reads or writes `address`. Says whether the line, or the right to write it, had to
    /// come from another CPU: that one has modified it since `cpu` last had it, or holds what is
    /// written.
    pub fn touch(&mut self, cpu: usize, address: usize, writes: bool) -> bool {
        let line = self.lines.entry(address / LINE).or_default();
        let me = 1 << cpu;
        let is_stale = line.written && line.holders & me == 0;
        let others_hold = line.holders & !me != 0;
        if writes {
            *line = Line {
                holders: me,
                written: true,
            };
        } else {
            line.holders |= me;
        }
        is_stale || writes && others_hold
    }
}
