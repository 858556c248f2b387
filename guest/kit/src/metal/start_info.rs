//! What a PVH monitor says of the machine: the memory map, the command line, and where ACPI is.
//! `hvm_start_info` of xen/include/public/arch-x86/hvm/start_info.h, version 1 or later, whose
//! memory map the guest cannot do without.

use core::ops::Range;

use zerocopy::FromBytes;

use super::physical::{self, MEMORY};

const MAGIC: u32 = 0x336e_c578;
/// Longest command line that is looked for an end.
const COMMAND_LINE_LIMIT: u64 = 64 << 10;
/// Below it, memory is firmware's and the trampoline's, and never the heap's.
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

/// What a piece of physical memory is, as numbered by E820 (ACPI 6.5, table 15.4).
const RAM: u32 = 1;
const RESERVED: u32 = 2;

#[derive(Clone, Copy, Debug, FromBytes)]
#[repr(C)]
struct RawPiece {
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
    /// Says what is not as PVH has it.
    pub fn read(address: u64) -> Result<Self, &'static str> {
        let raw: Raw = physical::read(address).ok_or("the start info is not in memory")?;
        if raw.magic != MAGIC {
            return Err("the start info does not begin with the magic number of PVH");
        }
        if raw.version == 0 || raw.memmap_entries == 0 {
            return Err("the start info has no memory map, which PVH has from version 1 on");
        }
        let map_size = u64::from(raw.memmap_entries) * size_of::<RawPiece>() as u64;
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

    /// Physical address of the ACPI RSDP, or 0 if the monitor leaves it to be searched for.
    pub fn rsdp(&self) -> u64 {
        self.raw.rsdp_paddr
    }

    /// Whether all of `range` is RAM.
    pub fn is_ram(&self, range: &Range<u64>) -> bool {
        self.pieces(RAM)
            .any(|piece| piece.start <= range.start && range.end <= piece.end)
    }

    /// How many bytes there are from `address` to the end of the reserved piece it lies in: memory
    /// that is there and that the guest does not use by itself.
    pub fn reserved_from(&self, address: u64) -> Option<u64> {
        self.pieces(RESERVED)
            .find(|piece| piece.contains(&address))
            .map(|piece| piece.end - address)
    }

    /// The largest piece of RAM that holds neither `image` nor anything of the start info.
    pub fn free_memory(&self, image: Range<u64>) -> Range<u64> {
        let sized = |start: u64, size: usize| start..start + size as u64;
        let map_size = self.raw.memmap_entries as usize * size_of::<RawPiece>();
        let taken = [
            0..LOW_MEMORY_END,
            image,
            sized(self.address, size_of::<Raw>()),
            sized(self.raw.memmap_paddr, map_size),
            sized(self.raw.cmdline_paddr, self.command_line.len() + 1),
        ];
        let mut largest = 0..0;
        for piece in self.pieces(RAM) {
            let mut start = piece.start;
            while start < piece.end {
                // The first obstacle from here on, or the end of the piece.
                let next = taken
                    .iter()
                    .filter(|range| range.end > start && range.start < piece.end)
                    .min_by_key(|range| range.start);
                let end = next.map_or(piece.end, |range| range.start);
                if end.saturating_sub(start) > largest.end - largest.start {
                    largest = start..end;
                }
                start = next.map_or(piece.end, |range| range.end);
            }
        }
        largest
    }

    /// The pieces of one kind, as far as they are in [`MEMORY`].
    fn pieces(&self, kind: u32) -> impl Iterator<Item = Range<u64>> + '_ {
        (0..u64::from(self.raw.memmap_entries))
            .filter_map(|index| {
                let offset = index * size_of::<RawPiece>() as u64;
                physical::read::<RawPiece>(self.raw.memmap_paddr + offset)
            })
            .filter(move |piece| piece.kind == kind)
            .map(|piece| {
                let end = piece.addr.saturating_add(piece.size);
                piece.addr.max(MEMORY.start)..end.min(MEMORY.end)
            })
            .filter(|piece| !piece.is_empty())
    }
}
