//! What a round of `workload=bench` is: to which CPUs it goes, by what, and what those CPUs do.
//! Plain values from the command line; [`bench`](super::bench) makes the rounds.

use kit::manifest::Record;
use kit::platform::CpuId;
use kit::sync::mask::CpuMask;
use kit::{declare, declare_values};
use shared::manifest::Measure;

use super::amount::BY_CASE;

declare! {
    Record::word("to", "To whom each round of the bench goes.")
        .without_effect_in_search()
        .because(BY_CASE)
        .measured_as(Measure::To),
    Record::word("by", "What a round of the bench is.")
        .without_effect_in_search()
        .because(BY_CASE)
        .measured_as(Measure::By),
    Record::word("receiver", "What the other CPUs do in the bench.")
        .without_effect_in_search()
        .because(BY_CASE)
        .measured_as(Measure::Receiver),
}
declare_values!("to", To);
declare_values!("by", By);
declare_values!("receiver", Receiver);

/// `to=`: to which CPUs each round goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// None: a round only reads the clock.
    Nobody,
    /// The sender itself.
    Own,
    /// CPU 1.
    One,
    /// Every third CPU, from CPU 1 on.
    Some,
    /// All others.
    All,
}

impl To {
    /// Every destination.
    pub const ALL: [Self; 5] = [Self::Nobody, Self::Own, Self::One, Self::Some, Self::All];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Own => "self",
            Self::One => "one",
            Self::Some => "some",
            Self::All => "all",
        }
    }

    /// The CPUs to which each round of `me` goes, on a machine of `cpus` CPUs: never `me` itself.
    pub fn mask(self, me: CpuId, cpus: usize) -> CpuMask {
        let mut mask = CpuMask::none(cpus);
        let step = match self {
            Self::Nobody | Self::Own => cpus,
            Self::One => cpus,
            Self::Some => 3,
            Self::All => 1,
        };
        if matches!(self, Self::One | Self::Some | Self::All) {
            (1..cpus).step_by(step).for_each(|cpu| mask.insert(cpu));
        }
        mask.remove(me);
        mask
    }
}

/// `by=`: what a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An IPI whose handler counts it and does nothing else.
    Ipi,
    /// A call by the path: to one CPU as a single call, to several by the queue.
    Call,
}

impl By {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipi, Self::Call];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipi => "ipi",
            Self::Call => "call",
        }
    }
}

/// `receiver=`: what the other CPUs do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Sleep in `hlt`.
    Halted,
    /// Spin, with interrupts on.
    Running,
    /// Nothing, as the host keeps them out of the guest. The sender does not wait for them.
    Stalled,
}

impl Receiver {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Halted, Self::Running, Self::Stalled];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Halted => "halted",
            Self::Running => "running",
            Self::Stalled => "stalled",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// To which CPUs.
    pub to: To,
    /// What.
    pub by: By,
    /// What the others do.
    pub receiver: Receiver,
}

impl Round {
    /// What is measured by default.
    pub const DEFAULT: Self = Self {
        to: To::One,
        by: By::Ipi,
        receiver: Receiver::Halted,
    };
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_round_goes_to_whom_it_says() {
        let targets = |to: To| to.mask(0, 8).iter().collect::<Vec<_>>();
        assert!(targets(To::Nobody).is_empty() && targets(To::Own).is_empty());
        assert_eq!(targets(To::One), [1]);
        assert_eq!(targets(To::Some), [1, 4, 7]);
        assert_eq!(targets(To::All), [1, 2, 3, 4, 5, 6, 7]);
        assert!(To::One.mask(0, 1).is_empty(), "on a machine of one CPU");
    }
}
