//! Texts of options, and of values in scripts and requests: CPUs, times, sizes, filters, stalls,
//! calls, conditions. All of them are read as each.

use vmm::control::{PlannedStall, Steal};
use vmm::cpus::CpuSet;
use vmm::explore::Shard;
use vmm::explore::condition::{self, Condition};
use vmm::lab::call_name::CallParts;
use vmm::stats::trace_filter::FilterPart;
use vmm::{duration, size};

use crate::guest::MANIFEST;

/// Reads each line of `data` as each of them.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for line in text.lines() {
        if let Ok(cpus) = line.parse::<CpuSet>() {
            let again: CpuSet = cpus.to_string().parse().expect("a set can be read again");
            assert_eq!(again, cpus);
        }
        if let Ok(bytes) = size::parse(line) {
            let _ = size::words(bytes);
        }
        let _ = (duration::parse(line), duration::parse_with_unit(line));
        let _ = (line.parse::<PlannedStall>(), line.parse::<Steal>());
        let _ = (line.parse::<Shard>(), line.parse::<FilterPart>());
        let _ = (line.parse::<CallParts>(), condition::number(line));
        for is_never in [false, true] {
            let _ = Condition::parse(is_never, line, 4);
        }
        let _ = MANIFEST.told(line);
        let _ = MANIFEST.mistyped(line);
    }
}
