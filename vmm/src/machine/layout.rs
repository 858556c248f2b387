//! Where everything lies in guest-physical memory: RAM, the gap for devices, the boot data and the
//! lab. Pure arithmetic over sizes, all of it checked; it allocates nothing and knows no KVM.

use std::ops::Range;

use shared::lab;

/// First address of the gap that holds the IOAPIC and the local APICs.
pub const GAP_START: u64 = 3 << 30;
/// First address after the gap.
pub const GAP_END: u64 = 4 << 30;
/// End of the low RAM that a PC offers to real-mode code.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// Everything that the VMM writes for the guest at boot, except the lab. The guest's memory map
/// leaves it out.
pub const BOOT_DATA: Range<u64> = 0xe_0000..0x10_0000;
/// First address of the RAM above the first megabyte.
pub const HIGH_RAM: u64 = 0x10_0000;

const MIB: u64 = 1 << 20;
/// Most MiB of a machine. One TiB is more than any workload here needs, and fits every physical
/// address width.
const MOST_MIB: u64 = 1 << 20;
/// Least room left between the end of the image and the lab, for the guest's stacks and heap.
const HEADROOM: u64 = MIB;

/// Why a machine cannot have the memory that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Less than the image and the lab need.
    #[error(
        "{asked} MiB of memory do not hold the guest image and the lab of {vcpus} vCPUs; \
         ask for --memory {needed} or more"
    )]
    TooSmall {
        /// MiB asked for.
        asked: u64,
        /// MiB needed.
        needed: u64,
        /// Number of vCPUs.
        vcpus: u32,
    },
    /// More than a machine of this kind can have.
    #[error(
        "{0} MiB of memory are more than a machine can have; ask for --memory {MOST_MIB} or less"
    )]
    TooLarge(u64),
}

/// The memory of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Ranges of RAM in ascending order, one per memory slot of KVM.
    pub ram: Vec<Range<u64>>,
    /// The lab, in the last pages of the RAM below the gap.
    pub lab: Range<u64>,
}

impl Layout {
    /// Lays out `mib` MiB of RAM, or as much as `vcpus` vCPUs comfortably need, for an image that
    /// ends at `image_end` and a lab of `lab_size` bytes.
    ///
    /// # Errors
    /// [`LayoutError`] if that is too little or too much.
    pub fn new(
        mib: Option<u64>,
        vcpus: u32,
        image_end: u64,
        lab_size: u64,
    ) -> Result<Self, LayoutError> {
        let needed = image_end
            .max(HIGH_RAM)
            .saturating_add(HEADROOM)
            .saturating_add(lab_size)
            .div_ceil(MIB);
        let mib = mib.unwrap_or_else(|| default_mib(vcpus, lab_size).max(needed));
        if mib < needed {
            return Err(LayoutError::TooSmall {
                asked: mib,
                needed,
                vcpus,
            });
        }
        if mib > MOST_MIB {
            return Err(LayoutError::TooLarge(mib));
        }
        let size = mib * MIB;
        let below = size.min(GAP_START);
        let lab_start = below
            .checked_sub(lab_size)
            .map(|start| start & !(lab::ALIGN - 1))
            .filter(|start| *start >= image_end)
            // Only an image that reaches up to the gap comes here: more memory would not help it.
            .ok_or(LayoutError::TooSmall {
                asked: mib,
                needed,
                vcpus,
            })?;
        let above = (size > below).then(|| GAP_END..GAP_END + (size - below));
        let ram = std::iter::once(0..below).chain(above).collect();
        Ok(Self {
            ram,
            lab: lab_start..lab_start + lab_size,
        })
    }

    /// MiB of RAM in all.
    pub fn mib(&self) -> u64 {
        self.ram
            .iter()
            .map(|piece| (piece.end - piece.start) / MIB)
            .sum()
    }

    /// The memory the guest may use as it likes, in ascending order: RAM without the boot data, the
    /// lab and the hole below the first megabyte.
    pub fn usable(&self) -> Vec<Range<u64>> {
        let mut usable = vec![0..LOW_RAM_END, HIGH_RAM..self.lab.start];
        usable.extend(self.ram.iter().skip(1).cloned());
        usable
    }
}

/// MiB that are enough for any workload: a base, the lab, and a quarter of a MiB per vCPU for its
/// stacks.
fn default_mib(vcpus: u32, lab_size: u64) -> u64 {
    (128 + lab_size.div_ceil(MIB) + u64::from(vcpus).div_ceil(4)).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_ends_the_ram_below_the_gap() {
        let layout = Layout::new(Some(64), 4, 0x20_0000, 0x5000).unwrap();
        assert_eq!(layout.ram, std::slice::from_ref(&(0..64 * MIB)));
        assert_eq!(layout.lab, 64 * MIB - 0x5000..64 * MIB);

        let layout = Layout::new(Some(5120), 4, 0x20_0000, 0x5000).unwrap();
        assert_eq!(layout.ram, [0..GAP_START, GAP_END..GAP_END + (2 << 30)]);
        assert_eq!(layout.lab.end, GAP_START);
        assert_eq!(layout.mib(), 5120);
        assert_eq!(layout.usable().last(), layout.ram.last());
    }

    #[test]
    fn the_smallest_memory_named_is_enough() {
        let Err(LayoutError::TooSmall { needed, .. }) =
            Layout::new(Some(1), 300, 0x30_1234, 0xd0_0000)
        else {
            panic!("1 MiB was enough");
        };
        assert!(Layout::new(Some(needed - 1), 300, 0x30_1234, 0xd0_0000).is_err());
        assert!(Layout::new(Some(needed), 300, 0x30_1234, 0xd0_0000).is_ok());
    }

    #[test]
    fn no_size_overflows() {
        assert_eq!(
            Layout::new(Some(1 << 30), 1, 0, 4096),
            Err(LayoutError::TooLarge(1 << 30))
        );
        assert!(Layout::new(Some(u64::MAX), u32::MAX, 0, 4096).is_err());
        assert!(Layout::new(Some(64), 1, u64::MAX, u64::MAX).is_err());
        assert!(Layout::new(None, 1024, 0x20_0000, 64 * MIB).is_ok());
    }
}
