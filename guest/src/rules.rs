//! What a run leaves out or refuses on purpose, to show why it is needed. Plain values from the
//! command line; the code that follows them is elsewhere.

use kit::manifest::Record;
use kit::{declare, declare_values};
use shared::manifest::BROKEN;

/// The rules of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `csd-barrier=`: the barrier when a call descriptor is locked, which Paul E. McKenney missed
    /// in the patch of the thread.
    pub csd_barrier: bool,
    /// `mask-check=`: a call whose targets have all gone by the time they are stored is given up
    /// (Linux 723aae25d5cd).
    pub mask_check: bool,
    /// `hotplug=`: how CPUs leave and come.
    pub hotplug: HotplugMode,
    /// `alloc-fail=`: how much of the memory asked for is refused.
    pub alloc_fail: Option<FailRate>,
}

impl Rules {
    /// Nothing is left out and nothing refused.
    pub const DEFAULT: Self = Self {
        csd_barrier: true,
        mask_check: true,
        hotplug: HotplugMode::Stop,
        alloc_fail: None,
    };
}

/// How CPUs leave and come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotplugMode {
    /// With all CPUs stopped, and its memory freed, as in Linux.
    Stop,
    /// Without a stop. Broken on purpose.
    NoStop,
    /// With all CPUs stopped, and its memory kept, since the CPU may come back. In the thread Paul
    /// E. McKenney asked why the memory is freed at all, and today's Linux keeps most of it.
    Keep,
    /// As `Stop`, but a CPU that is to come is marked online before it is started, and not by itself
    /// once it can take interrupts. Broken on purpose.
    OnlineFirst,
}

impl HotplugMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Stop, Self::NoStop, Self::Keep, Self::OnlineFirst];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::NoStop => "no-stop",
            Self::Keep => "keep",
            Self::OnlineFirst => "online-first",
        }
    }

    /// Whether it is broken on purpose.
    pub const fn is_broken(self) -> bool {
        matches!(self, Self::NoStop | Self::OnlineFirst)
    }

    /// Whether the memory of a CPU that has left is freed.
    pub fn frees(self) -> bool {
        self != Self::Keep
    }
}

declare! {
    Record::word("hotplug", "How CPUs leave and come."),
    Record::word("alloc-fail", "How much of the memory asked for is refused, such as 1/7."),
    Record::word("csd-barrier", "A barrier when a call descriptor is locked."),
    Record::value("csd-barrier", 0, "on"),
    Record::value("csd-barrier", 1, "off")
        .with(BROKEN)
        .harmless(
            "leaves out a barrier, without which accesses can be reordered, and here none are",
        ),
    Record::word("mask-check", "A call whose targets have all gone meanwhile is given up."),
    Record::value("mask-check", 0, "on"),
    Record::value("mask-check", 1, "off").with(BROKEN),
}
declare_values!("hotplug", HotplugMode, BROKEN if is_broken);

/// How often a request for memory is refused: `refused` of every `of`, the last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailRate {
    /// Requests that fail.
    pub refused: u32,
    /// Out of so many; not zero.
    pub of: u32,
}

impl FailRate {
    /// Whether request `number`, counted from 0, is refused.
    pub fn refuses(self, number: u64) -> bool {
        number % u64::from(self.of) >= u64::from(self.of.saturating_sub(self.refused))
    }
}
