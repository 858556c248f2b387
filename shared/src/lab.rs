//! The lab pages: a range of guest memory in which the guest records what it does, and which the
//! VMM reads.
//!
//! The VMM reserves the range, writes the [`Header`] and names its address on the guest's command
//! line as `lab=0x<address>`. The guest checks magic, version and size before it uses anything.
//! Nothing in the range is trusted by the VMM after the guest has run: it keeps its own [`Layout`]
//! and never follows an offset it reads back.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::cpus::MAX_CPUS;
use crate::ledger::{Lane, record_stride};
use crate::mailbox::Mailbox;
use crate::probe::Arms;
use crate::program::{PROGRAMS, Program};
use crate::trace::ring_stride;

/// First eight bytes of the lab, `IPI-LAB` and a zero, little endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"IPI-LAB\0");

/// Version of every layout in this crate. Either side refuses any other.
pub const VERSION: u32 = 9;

/// Alignment of the lab and of each of its sections, one page.
pub const ALIGN: u64 = 4096;

/// Findings that are kept; later ones are only counted, by their oracle.
pub const MAX_FINDINGS: u32 = 64;

/// Room for oracles where findings are counted: an oracle's number is below it, and not 0. What
/// each is, the guest's [manifest](crate::manifest) says.
pub const ORACLE_SLOTS: usize = 32;

/// Call records per CPU and lane. Enough for every call of a default `selftest` of 16 CPUs, so that
/// the VMM can judge all of them; a longer run reuses records once a call is complete.
pub const SLOTS: u32 = 64;

/// An array inside the lab: `count` entries, `stride` bytes apart, from `offset` on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Section {
    /// Bytes from the start of the lab.
    pub offset: u64,
    /// Bytes from one entry to the next.
    pub stride: u64,
    /// Number of entries.
    pub count: u64,
}

impl Section {
    /// Offset of entry `index` from the start of the lab, or `None` past the end.
    pub fn entry(&self, index: u64) -> Option<u64> {
        (index < self.count).then(|| self.offset + index * self.stride)
    }

    /// First byte after the section, counted from the start of the lab.
    pub fn end(&self) -> u64 {
        self.offset + self.stride * self.count
    }
}

/// Start of the lab. Written by the VMM but for the last four fields, which the guest fills.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// CPUs the lab has room for, which is the number of vCPUs of the machine.
    pub cpus: u32,
    /// Size of the whole lab in bytes.
    pub size: u64,
    /// Words of 64 bits in each CPU mask of the ledger.
    pub mask_words: u32,
    /// Call records per CPU and lane.
    pub slots: u32,
    /// One [`Counters`] per CPU.
    pub counters: Section,
    /// Call records: `2 * slots` per CPU, CPU 0 first; within a CPU the task lane first.
    pub ledger: Section,
    /// [`Finding`]s, in the order they were made.
    pub findings: Section,
    /// One [`Mailbox`] per CPU.
    pub mailboxes: Section,
    /// One [`Arms`] per CPU.
    pub arms: Section,
    /// One ring of the [`trace`](crate::trace) per CPU.
    pub rings: Section,
    /// One [`Contexts`] per CPU.
    pub contexts: Section,
    /// One [`Tally`] per CPU.
    pub tallies: Section,
    /// How many findings of each oracle there were: a 64-bit word each, by its number.
    pub found: Section,
    /// One [`Words`].
    pub words: Section,
    /// [`Program`]s, by their numbers from 1.
    pub programs: Section,
    /// Guest: how many CPUs it brought up so far, the first one included, each counted once.
    pub cpus_online: u32,
    /// Guest: findings made, which can exceed the number kept.
    pub findings_made: u32,
    /// Guest: TSC when the first instruction of its Rust code ran.
    pub boot_tsc: u64,
    /// Guest: TSC when the workload started.
    pub workload_tsc: u64,
}

const _: () = assert!(size_of::<Header>() == 320);

/// The contexts of one CPU, that of its tasks and that of its interrupt handlers, for a VMM that
/// runs CPUs step by step. The guest writes the stacks before its workload starts: the first
/// address of each, and the first address after it. Memory there below the stack pointer has no
/// meaning. Zeroes mean that the guest has not said.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Contexts {
    /// The stack of its tasks.
    pub task: [u64; 2],
    /// The stack of its interrupt handlers, which starts empty for each interrupt.
    pub handler: [u64; 2],
    /// How many loops that wait for other CPUs this CPU is in. It adds one when it enters such a
    /// loop and takes one away when it leaves it; those of a handler come on top of those of the
    /// task that it interrupts. Only an image that stops before each access keeps this count; see
    /// [`stop`](crate::stop).
    pub waits: u64,
    /// Room for more.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<Contexts>() == 64);

/// Bytes that [`Words`] have room for.
pub const WORDS_LEN: usize = 1016;

/// The options of the run, as `key=value` words with a space between them: all that affect it,
/// defaults included. The guest writes them before its workload starts. An empty text means that it
/// has not said.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Words {
    /// Bytes of text, or anything, if the guest is broken.
    pub length: u64,
    /// The text, in ASCII.
    pub bytes: [u8; WORDS_LEN],
}

const _: () = assert!(size_of::<Words>() == 1024);

impl Words {
    /// No words.
    pub const EMPTY: Self = Self {
        length: 0,
        bytes: [0; WORDS_LEN],
    };

    /// The text, as far as there is room for it.
    pub fn text(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(WORDS_LEN);
        &self.bytes[..length.min(WORDS_LEN)]
    }
}

/// Adds to the text.
impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = self.text().len();
        let place = self.bytes[start..]
            .get_mut(..text.len())
            .ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = (start + text.len()) as u64;
        Ok(())
    }
}

/// Ways in which an IPI can leave a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Transport {
    /// The memory-mapped ICR of the xAPIC.
    Xapic = 0,
    /// The ICR MSR of the x2APIC, one write per target.
    X2apic = 1,
    /// Through the VMM, which delivers each when it likes.
    Wire = 2,
    /// The ICR MSR of the x2APIC with logical destinations, one write per cluster of 16.
    X2apicCluster = 3,
    /// The ICR, in either mode, with its shorthand for all but the sender.
    Shorthand = 4,
    /// The hypercall KVM_HC_SEND_IPI, one per 128 CPUs.
    Pv = 5,
}

impl Transport {
    /// Every transport, in the order of its counter.
    pub const ALL: [Self; 6] = [
        Self::Xapic,
        Self::X2apic,
        Self::Wire,
        Self::X2apicCluster,
        Self::Shorthand,
        Self::Pv,
    ];

    /// The name used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xapic => "xapic",
            Self::X2apic => "x2apic",
            Self::Wire => "wire",
            Self::X2apicCluster => "x2apic-cluster",
            Self::Shorthand => "shorthand",
            Self::Pv => "pv",
        }
    }
}

/// What one CPU counted of its calls since boot. Oracles judge these counts, so they lie apart from
/// [`Counters`], which only people read.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Tally {
    /// Calls this CPU made, on itself included.
    pub calls_made: u64,
    /// Executions that must follow from those calls: the number of targets, summed over the calls.
    pub calls_expected: u64,
    /// Functions this CPU ran because of a call.
    pub calls_executed: u64,
    /// Records of the ledger in which this CPU has entered what was no call.
    pub deeds_entered: u64,
    /// Keeps each CPU's in a cache line of its own.
    pub reserved: [u64; 4],
}

const _: () = assert!(size_of::<Tally>() == 64);

/// Counters that each CPU has room for.
pub const COUNTER_SLOTS: usize = 64;

/// What one CPU counted, each where it happens. All are event counts since boot, and nothing that
/// the guest does or the oracles say depends on them. What each word is, the guest's
/// [manifest](crate::manifest) says.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Counters {
    /// The words, by the number of the counter.
    pub words: [u64; COUNTER_SLOTS],
}

const _: () = assert!(size_of::<Counters>() == 512);

/// Nothing counted.
impl Default for Counters {
    fn default() -> Self {
        Self {
            words: [0; COUNTER_SLOTS],
        }
    }
}

/// One observation of an oracle that did not hold.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Finding {
    /// The number of the oracle, or anything, if the guest is broken.
    pub oracle: u32,
    /// The CPU on which it was observed.
    pub cpu: u32,
    /// [`CallId`](crate::ledger::CallId) of the call, or 0 if none is known.
    pub call: u64,
    /// TSC of the observation.
    pub tsc: u64,
    /// What was seen; the meaning depends on the oracle.
    pub seen: u64,
}

const _: () = assert!(size_of::<Finding>() == 32);

/// Where everything in a lab lies. Both sides compute it from the number of CPUs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// CPUs.
    pub cpus: u32,
    /// Words of 64 bits in each CPU mask.
    pub mask_words: u32,
    /// One [`Counters`] per CPU.
    pub counters: Section,
    /// Call records, `2 * SLOTS` per CPU.
    pub ledger: Section,
    /// [`Finding`]s.
    pub findings: Section,
    /// One [`Mailbox`] per CPU.
    pub mailboxes: Section,
    /// One [`Arms`] per CPU.
    pub arms: Section,
    /// One ring of the [`trace`](crate::trace) per CPU.
    pub rings: Section,
    /// One [`Contexts`] per CPU.
    pub contexts: Section,
    /// One [`Tally`] per CPU, on pages that hold nothing else.
    pub tallies: Section,
    /// How many findings of each oracle there were, by its number.
    pub found: Section,
    /// One [`Words`].
    pub words: Section,
    /// [`Program`]s, by their numbers from 1.
    pub programs: Section,
    /// Bytes in all, a multiple of [`ALIGN`].
    pub size: u64,
}

impl Layout {
    /// The layout of a lab for `cpus` CPUs, 1 to [`MAX_CPUS`].
    ///
    /// # Errors
    /// [`LayoutError::Cpus`] for a number of CPUs outside that range.
    pub fn new(cpus: u32) -> Result<Self, LayoutError> {
        if cpus == 0 || cpus > MAX_CPUS {
            return Err(LayoutError::Cpus(cpus));
        }
        let mask_words = cpus.div_ceil(64);
        let after = |end: u64| end.next_multiple_of(ALIGN);
        let counters = Section {
            offset: after(size_of::<Header>() as u64),
            stride: size_of::<Counters>() as u64,
            count: u64::from(cpus),
        };
        let findings = Section {
            offset: after(counters.end()),
            stride: size_of::<Finding>() as u64,
            count: u64::from(MAX_FINDINGS),
        };
        let mailboxes = Section {
            offset: after(findings.end()),
            stride: size_of::<Mailbox>() as u64,
            count: u64::from(cpus),
        };
        let arms = Section {
            offset: after(mailboxes.end()),
            stride: size_of::<Arms>() as u64,
            count: u64::from(cpus),
        };
        let contexts = Section {
            offset: after(arms.end()),
            stride: size_of::<Contexts>() as u64,
            count: u64::from(cpus),
        };
        let tallies = Section {
            offset: after(contexts.end()),
            stride: size_of::<Tally>() as u64,
            count: u64::from(cpus),
        };
        let found = Section {
            offset: after(tallies.end()),
            stride: size_of::<u64>() as u64,
            count: ORACLE_SLOTS as u64,
        };
        let words = Section {
            offset: after(found.end()),
            stride: size_of::<Words>() as u64,
            count: 1,
        };
        let programs = Section {
            offset: after(words.end()),
            stride: size_of::<Program>() as u64,
            count: u64::from(PROGRAMS),
        };
        let ledger = Section {
            offset: after(programs.end()),
            stride: record_stride(mask_words),
            count: u64::from(cpus) * Lane::COUNT as u64 * u64::from(SLOTS),
        };
        let rings = Section {
            offset: after(ledger.end()),
            stride: ring_stride(cpus),
            count: u64::from(cpus),
        };
        Ok(Self {
            cpus,
            mask_words,
            counters,
            ledger,
            findings,
            mailboxes,
            arms,
            rings,
            contexts,
            tallies,
            found,
            words,
            programs,
            size: after(rings.end()),
        })
    }

    /// The header that describes this layout, as the VMM writes it before the guest starts.
    pub fn header(&self) -> Header {
        Header {
            magic: MAGIC,
            version: VERSION,
            cpus: self.cpus,
            size: self.size,
            mask_words: self.mask_words,
            slots: SLOTS,
            counters: self.counters,
            ledger: self.ledger,
            findings: self.findings,
            mailboxes: self.mailboxes,
            arms: self.arms,
            rings: self.rings,
            contexts: self.contexts,
            tallies: self.tallies,
            found: self.found,
            words: self.words,
            programs: self.programs,
            ..Header::default()
        }
    }

    /// The layout that `header` announces, if it is one this crate would have made.
    ///
    /// # Errors
    /// Says which field is not as it should be.
    pub fn from_header(header: &Header) -> Result<Self, LayoutError> {
        if header.magic != MAGIC {
            return Err(LayoutError::Magic(header.magic));
        }
        if header.version != VERSION {
            return Err(LayoutError::Version(header.version));
        }
        let layout = Self::new(header.cpus)?;
        let same = header.size == layout.size
            && header.mask_words == layout.mask_words
            && header.slots == SLOTS
            && header.counters == layout.counters
            && header.ledger == layout.ledger
            && header.findings == layout.findings
            && header.mailboxes == layout.mailboxes
            && header.arms == layout.arms
            && header.rings == layout.rings
            && header.contexts == layout.contexts
            && header.tallies == layout.tallies
            && header.found == layout.found
            && header.words == layout.words
            && header.programs == layout.programs;
        if same {
            Ok(layout)
        } else {
            Err(LayoutError::Sections)
        }
    }
}

/// Why a lab header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// Not the magic number, but this value.
    Magic(u64),
    /// A version other than [`VERSION`].
    Version(u32),
    /// A number of CPUs outside 1 to [`MAX_CPUS`].
    Cpus(u32),
    /// Sections that do not lie where this version puts them.
    Sections,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(magic) => write!(f, "the lab starts with {magic:#x}, not {MAGIC:#x}"),
            Self::Version(version) => {
                write!(
                    f,
                    "the lab has version {version}, this side speaks {VERSION}"
                )
            }
            Self::Cpus(cpus) => write!(f, "a lab holds 1 to {MAX_CPUS} CPUs, not {cpus}"),
            Self::Sections => f.write_str("the lab's sections do not lie where they should"),
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_in_order_and_do_not_overlap() {
        for cpus in 1..=MAX_CPUS {
            let layout = Layout::new(cpus).unwrap();
            assert!(size_of::<Header>() as u64 <= layout.counters.offset);
            assert!(layout.counters.end() <= layout.findings.offset);
            assert!(layout.findings.end() <= layout.mailboxes.offset);
            assert!(layout.mailboxes.end() <= layout.arms.offset);
            assert!(layout.arms.end() <= layout.contexts.offset);
            assert!(layout.contexts.end() <= layout.tallies.offset);
            assert!(layout.tallies.end() <= layout.found.offset);
            assert!(layout.found.end() <= layout.words.offset);
            assert!(layout.words.end() <= layout.programs.offset);
            assert!(layout.programs.end() <= layout.ledger.offset);
            assert!(layout.ledger.end() <= layout.rings.offset);
            assert!(layout.rings.end() <= layout.size);
            assert_eq!(Layout::from_header(&layout.header()), Ok(layout));
        }
    }

    #[test]
    fn a_foreign_header_is_refused() {
        let good = Layout::new(4).unwrap().header();
        let refused = |header| Layout::from_header(&header).unwrap_err();
        assert_eq!(refused(Header { magic: 1, ..good }), LayoutError::Magic(1));
        assert_eq!(
            refused(Header { version: 8, ..good }),
            LayoutError::Version(8)
        );
        assert_eq!(refused(Header { cpus: 0, ..good }), LayoutError::Cpus(0));
        assert_eq!(refused(Header { cpus: 5, ..good }), LayoutError::Sections);
    }

    #[test]
    fn no_machine_is_too_small_or_too_large() {
        assert_eq!(Layout::new(0), Err(LayoutError::Cpus(0)));
        assert_eq!(Layout::new(1025), Err(LayoutError::Cpus(1025)));
    }
}
