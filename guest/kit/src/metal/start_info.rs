//! What a PVH monitor says of the machine: the memory map, the command line, and where the ACPI
//! tables are. This is `hvm_start_info` of xen/include/public/arch-x86/hvm/start_info.h. The guest
//! needs the memory map, and so version 1 or later.

use core::ops::Range;

use zerocopy::FromBytes;

use super::physical::{self, MEMORY};

const MAGIC: u32 = 0x336e_c578;
/// Bytes within which the command line must end.
const COMMAND_LINE_LIMIT: u64 = 64 << 10;
/// Memory below this address belongs to the firmware and the trampoline, and never to the heap.
const LOW_MEMORY_END: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, FromBytes)]
#[repr(C)]
struct Raw {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modlist_paddr: u64,
    cmdline_paddr: u64,
    rsdp_paddr: u64,
    memmap_paddr: u64,
    memmap_entries: u32,
    reserved: u32,
}

/// Kinds of memory ranges, as E820 numbers them (ACPI 6.5, table 15.4).
const RAM: u32 = 1;
const RESERVED: u32 = 2;

#[derive(Clone, Copy, Debug, FromBytes)]
#[repr(C)]
struct RawRange {
    addr: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// The start info, checked.
#[derive(Clone, Debug)]
pub struct StartInfo {
    address: u64,
    raw: Raw,
    command_line: &'static [u8],
}

impl StartInfo {
    /// Reads the start info at `address`.
    ///
    /// # Errors
    /// Says what does not conform to PVH.
    pub fn read(address: u64) -> Result<Self, &'static str> {
        let raw: Raw = physical::read(address).ok_or("the start info is not in memory")?;
        if raw.magic != MAGIC {
            return Err("the start info does not begin with the magic number of PVH");
        }
        if raw.version == 0 || raw.memmap_entries == 0 {
            return Err("the start info has no memory map, which PVH has from version 1 on");
        }
        let map_size = u64::from(raw.memmap_entries) * size_of::<RawRange>() as u64;
        physical::bytes(raw.memmap_paddr, map_size).ok_or("the memory map is not in memory")?;
        let command_line = match raw.cmdline_paddr {
            0 => &[],
            address => physical::c_string(address, COMMAND_LINE_LIMIT)
                .ok_or("the command line is not in memory, or does not end")?,
        };
        Ok(Self {
            address,
            raw,
            command_line,
        })
    }

    /// The command line, empty if there is none.
    pub fn command_line(&self) -> &'static [u8] {
        self.command_line
    }

    /// Physical address of the ACPI RSDP, or 0 if the guest has to search for it.
    pub fn rsdp(&self) -> u64 {
        self.raw.rsdp_paddr
    }

    /// Whether all of `range` is RAM.
    pub fn is_ram(&self, range: &Range<u64>) -> bool {
        self.ranges(RAM)
            .any(|ram| ram.start <= range.start && range.end <= ram.end)
    }

    /// How many bytes there are from `address` to the end of the reserved range that it lies in:
    /// memory that exists and that the guest does not use unless it is told to.
    pub fn reserved_from(&self, address: u64) -> Option<u64> {
        self.ranges(RESERVED)
            .find(|range| range.contains(&address))
            .map(|range| range.end - address)
    }

    /// The largest range of RAM that overlaps neither `image` nor any part of the start info.
    pub fn free_memory(&self, image: Range<u64>) -> Range<u64> {
        let sized = |start: u64, size: usize| start..start + size as u64;
        let map_size = self.raw.memmap_entries as usize * size_of::<RawRange>();
        let taken = [
            0..LOW_MEMORY_END,
            image,
            sized(self.address, size_of::<Raw>()),
            sized(self.raw.memmap_paddr, map_size),
            sized(self.raw.cmdline_paddr, self.command_line.len() + 1),
        ];
        let mut largest = 0..0;
        for range in self.ranges(RAM) {
            let mut start = range.start;
            while start < range.end {
                // The next range that is taken, or the end of the RAM.
                let next = taken
                    .iter()
                    .filter(|taken| taken.end > start && taken.start < range.end)
                    .min_by_key(|taken| taken.start);
                let end = next.map_or(range.end, |range| range.start);
                if end.saturating_sub(start) > largest.end - largest.start {
                    largest = start..end;
                }
                start = next.map_or(range.end, |range| range.end);
            }
        }
        largest
    }

    /// The ranges of one kind, clipped to [`MEMORY`].
    fn ranges(&self, kind: u32) -> impl Iterator<Item = Range<u64>> + '_ {
        (0..u64::from(self.raw.memmap_entries))
            .filter_map(|index| {
                let offset = index * size_of::<RawRange>() as u64;
                physical::read::<RawRange>(self.raw.memmap_paddr + offset)
            })
            .filter(move |range| range.kind == kind)
            .map(|range| {
                let end = range.addr.saturating_add(range.size);
                range.addr.max(MEMORY.start)..end.min(MEMORY.end)
            })
            .filter(|range| !range.is_empty())
    }
}
