//! Which CPU holds which cache line, by MESI with caches of unlimited size: a line is modified in
//! one cache, or shared in any number of them.

use std::collections::HashMap;

/// Bytes in a line.
pub const LINE: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// CPUs that have it, one bit each.
    holders: u64,
    /// Whether any CPU has written it: what no CPU has written comes from memory, and is no
    /// transfer.
    written: bool,
}

/// The lines of a machine with at most 64 CPUs.
#[derive(Debug, Default)]
pub struct Coherence {
    lines: HashMap<usize, Line>,
}

impl Coherence {
    /// `cpu` reads or writes `address`. Returns whether the line, or the right to write it, had to
    /// come from another CPU, which has modified the line since `cpu` last had it, or holds a copy
    /// of the line that is written.
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
