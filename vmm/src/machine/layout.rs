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
        "{asked} MiB of memory do not hold the guest image{}; ask for --memory {needed} or more",
        .with.besides(*.vcpus)
    )]
    TooSmall {
        /// MiB asked for.
        asked: u64,
        /// MiB needed.
        needed: u64,
        /// Number of vCPUs.
        vcpus: u32,
        /// What is to be in it.
        with: Contents,
    },
    /// More than a machine of this kind can have.
    #[error(
        "{0} MiB of memory are more than a machine can have; ask for --memory {MOST_MIB} or less"
    )]
    TooLarge(u64),
}

/// What there has to be room for, beside what the guest takes for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// First address after the image.
    pub image_end: u64,
    /// Bytes of the lab, or 0 for a guest that has none.
    pub lab: u64,
    /// Bytes of the initrd, or 0 if there is none.
    pub initrd: u64,
}

impl Contents {
    /// What is in it beside the image, as the end of a sentence.
    fn besides(&self, vcpus: u32) -> String {
        let lab = (self.lab > 0).then(|| format!("the lab of {vcpus} vCPUs"));
        let initrd = (self.initrd > 0).then(|| "its initrd".to_owned());
        let all = lab.into_iter().chain(initrd);
        all.map(|it| format!(" and {it}")).collect()
    }
}

/// The memory of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Ranges of RAM in ascending order, one per memory slot of KVM.
    pub ram: Vec<Range<u64>>,
    /// The lab, in the last pages of the RAM below the gap; empty if there is none.
    pub lab: Range<u64>,
    /// The initrd, in the pages before it, which the guest may use once it has read it; empty if
    /// there is none.
    pub initrd: Range<u64>,
}

impl Layout {
    /// Lays out `mib` MiB of RAM, or as much as `vcpus` vCPUs comfortably need, with room for
    /// `with`.
    ///
    /// # Errors
    /// [`LayoutError`] if that is too little or too much.
    pub fn new(mib: Option<u64>, vcpus: u32, with: Contents) -> Result<Self, LayoutError> {
        let needed = (with.image_end)
            .max(HIGH_RAM)
            .saturating_add(HEADROOM)
            .saturating_add(with.lab)
            .saturating_add(with.initrd)
            .div_ceil(MIB);
        let mib = mib.unwrap_or_else(|| default_mib(vcpus, with).max(needed));
        let too_small = LayoutError::TooSmall {
            asked: mib,
            needed,
            vcpus,
            with,
        };
        if mib < needed {
            return Err(too_small);
        }
        if mib > MOST_MIB {
            return Err(LayoutError::TooLarge(mib));
        }
        let size = mib * MIB;
        let below = size.min(GAP_START);
        let before = |end: u64, size: u64| {
            let start = end.checked_sub(size).map(|start| start & !(lab::ALIGN - 1));
            start.filter(|start| *start >= with.image_end)
        };
        // Only an image that reaches up to the gap fails here: more memory would not help it.
        let lab_start = before(below, with.lab).ok_or_else(|| too_small.clone())?;
        let initrd_start = before(lab_start, with.initrd).ok_or(too_small)?;
        let above = (size > below).then(|| GAP_END..GAP_END + (size - below));
        let ram = std::iter::once(0..below).chain(above).collect();
        Ok(Self {
            ram,
            lab: lab_start..lab_start + with.lab,
            initrd: initrd_start..initrd_start + with.initrd,
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

/// MiB that are enough. For a guest with a lab: a base, the lab, and a quarter of a MiB per vCPU for
/// its stacks. For a kernel: what a distribution's takes, its data for each CPU, and an initrd
/// unpacked.
fn default_mib(vcpus: u32, with: Contents) -> u64 {
    let vcpus = u64::from(vcpus);
    let mib = match with.lab {
        0 => 512 + 2 * vcpus,
        lab => 128 + lab.div_ceil(MIB) + vcpus.div_ceil(4),
    };
    (mib + 4 * with.initrd.div_ceil(MIB)).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(image_end: u64, lab: u64) -> Contents {
        Contents {
            image_end,
            lab,
            initrd: 0,
        }
    }

    #[test]
    fn an_initrd_lies_between_image_and_lab() {
        let contents = Contents {
            initrd: 0x12_3456,
            ..with(0x20_0000, 0x5000)
        };
        let layout = Layout::new(Some(64), 4, contents).unwrap();
        assert_eq!(layout.initrd.end - layout.initrd.start, contents.initrd);
        assert!(layout.initrd.end <= layout.lab.start && layout.initrd.start.is_multiple_of(4096));
        let none = Layout::new(Some(64), 4, with(0x20_0000, 0)).unwrap();
        assert!(none.lab.is_empty() && none.initrd.is_empty());
        let why = Layout::new(Some(3), 4, contents).unwrap_err().to_string();
        let what = "guest image and the lab of 4 vCPUs and its initrd; ask for --memory 5";
        assert!(why.contains(what), "{why}");
    }

    #[test]
    fn the_lab_ends_the_ram_below_the_gap() {
        let layout = Layout::new(Some(64), 4, with(0x20_0000, 0x5000)).unwrap();
        assert_eq!(layout.ram, std::slice::from_ref(&(0..64 * MIB)));
        assert_eq!(layout.lab, 64 * MIB - 0x5000..64 * MIB);

        let layout = Layout::new(Some(5120), 4, with(0x20_0000, 0x5000)).unwrap();
        assert_eq!(layout.ram, [0..GAP_START, GAP_END..GAP_END + (2 << 30)]);
        assert_eq!(layout.lab.end, GAP_START);
        assert_eq!(layout.mib(), 5120);
        assert_eq!(layout.usable().last(), layout.ram.last());
    }

    #[test]
    fn the_smallest_memory_named_is_enough() {
        let Err(LayoutError::TooSmall { needed, .. }) =
            Layout::new(Some(1), 300, with(0x30_1234, 0xd0_0000))
        else {
            panic!("1 MiB was enough");
        };
        assert!(Layout::new(Some(needed - 1), 300, with(0x30_1234, 0xd0_0000)).is_err());
        assert!(Layout::new(Some(needed), 300, with(0x30_1234, 0xd0_0000)).is_ok());
    }

    #[test]
    fn no_size_overflows() {
        assert_eq!(
            Layout::new(Some(1 << 30), 1, with(0, 4096)),
            Err(LayoutError::TooLarge(1 << 30))
        );
        assert!(Layout::new(Some(u64::MAX), u32::MAX, with(0, 4096)).is_err());
        assert!(Layout::new(Some(64), 1, with(u64::MAX, u64::MAX)).is_err());
        assert!(Layout::new(None, 1024, with(0x20_0000, 64 * MIB)).is_ok());
    }
}
