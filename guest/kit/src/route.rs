//! How an IPI to several CPUs is split into operations: one write of the ICR per target, one per
//! cluster or one for all CPUs, or one hypercall per window of 128 CPUs. Knows APIC ids, but
//! accesses no APIC.

use core::iter::Peekable;

use shared::lab::Transport;

/// CPUs that one KVM_HC_SEND_IPI can reach, counted from the lowest (Linux,
/// `Documentation/virt/kvm/x86/hypercalls.rst`).
pub const WINDOW: u32 = 128;

/// Bits of an x2APIC id that tell the members of a cluster apart (SDM Vol. 3A, 11.12.10.2).
const CLUSTER_BITS: u32 = 4;

/// `transport=`: how IPIs leave a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// To one target at a time by the ICR of the mode that the APICs are in.
    #[default]
    Unicast,
    /// By this transport where it fits the targets, else as `Unicast`.
    One(Transport),
    /// With the fewest operations for the targets at hand.
    Auto,
}

impl Choice {
    /// The name of `Auto` on the command line; those of the others are [`Transport`]'s.
    pub const AUTO: &str = "auto";

    /// The name of the transport, if `unicast` is the one to a single target.
    pub fn name(self, unicast: Transport) -> &'static str {
        match self {
            Self::Unicast => unicast.name(),
            Self::One(transport) => transport.name(),
            Self::Auto => Self::AUTO,
        }
    }
}

/// What makes one IPI, or several at once, leave a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To the CPU with this APIC id.
    Physical(u32),
    /// To members of a cluster, by the id of the cluster and a bit for each.
    Cluster {
        /// The upper 28 bits of their APIC ids.
        cluster: u32,
        /// A bit for each of the 16 values of the other 4.
        members: u16,
    },
    /// To all CPUs but the sender.
    AllButSelf,
    /// To the CPUs with the APIC ids `first + n` for each bit `n` that is set.
    Window {
        /// The id that bit 0 stands for.
        first: u32,
        /// A bit for each target.
        bits: u128,
    },
}

impl Operation {
    /// The destination of a logical ICR write to members of `cluster` (SDM Vol. 3A, 11.12.10.2).
    pub fn logical_id(cluster: u32, members: u16) -> u32 {
        cluster << 16 | u32::from(members)
    }

    /// The APIC ids that it reaches, of those of the machine.
    pub fn targets(self, machine: &[u32], own: u32) -> impl Iterator<Item = u32> {
        machine
            .iter()
            .copied()
            .filter(move |id| *id != own || matches!(self, Self::Physical(_)))
            .filter(move |id| match self {
                Self::Physical(target) => *id == target,
                Self::Cluster { cluster, members } => {
                    id >> CLUSTER_BITS == cluster && members >> member(*id) & 1 != 0
                }
                Self::AllButSelf => true,
                Self::Window { first, bits } => id
                    .checked_sub(first)
                    .is_some_and(|n| n < WINDOW && bits >> n & 1 != 0),
            })
    }
}

fn member(id: u32) -> u32 {
    id & ((1 << CLUSTER_BITS) - 1)
}

/// Which transports there are, and which was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Router {
    /// What was asked for.
    pub choice: Choice,
    /// What sends to one target at a time.
    pub unicast: Transport,
    /// Whether the APICs have clusters.
    pub has_clusters: bool,
    /// Whether the hypercall was seen to work.
    pub has_pv: bool,
}

impl Router {
    /// The transport for an IPI to the CPUs with these APIC ids. `are_all` says whether those are
    /// all CPUs of the machine but the sender, offline ones included: a shorthand reaches those
    /// too.
    pub fn transport(
        &self,
        targets: &(impl Iterator<Item = u32> + Clone),
        are_all: impl Fn() -> bool,
    ) -> Transport {
        match self.choice {
            Choice::Unicast => self.unicast,
            Choice::One(Transport::Shorthand) if !are_all() => self.unicast,
            Choice::One(transport) => transport,
            Choice::Auto => self.cheapest(targets, are_all),
        }
    }

    fn cheapest(
        &self,
        targets: &(impl Iterator<Item = u32> + Clone),
        are_all: impl Fn() -> bool,
    ) -> Transport {
        // One target takes one operation in any case, and hardware that accelerates IPIs
        // accelerates this one.
        if targets.clone().nth(1).is_none() {
            return self.unicast;
        }
        if are_all() {
            return Transport::Shorthand;
        }
        let with = |transport| operations(transport, targets.clone()).count();
        let clusters = self.has_clusters.then_some(Transport::X2apicCluster);
        let pv = self.has_pv.then_some(Transport::Pv);
        // If two need equally many, the first is taken: an ICR write is a cheaper exit than a
        // hypercall.
        let several = clusters.into_iter().chain(pv);
        several
            .min_by_key(|kind| with(*kind))
            .unwrap_or(self.unicast)
    }
}

/// The operations that send to `targets` by `transport`. They reach every target once and no other
/// CPU, and are as few as possible if the ids ascend. A shorthand is one operation, whatever the
/// targets.
pub fn operations(
    transport: Transport,
    targets: impl Iterator<Item = u32>,
) -> impl Iterator<Item = Operation> {
    Operations {
        transport,
        targets: targets.peekable(),
    }
}

struct Operations<I: Iterator<Item = u32>> {
    transport: Transport,
    targets: Peekable<I>,
}

impl<I: Iterator<Item = u32>> Iterator for Operations<I> {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        let first = self.targets.next()?;
        Some(match self.transport {
            Transport::Xapic | Transport::X2apic | Transport::Wire => Operation::Physical(first),
            Transport::Shorthand => {
                self.targets.by_ref().for_each(drop);
                Operation::AllButSelf
            }
            Transport::X2apicCluster => {
                let cluster = first >> CLUSTER_BITS;
                let mut members = 1 << member(first);
                let is_in = |id: &u32| id >> CLUSTER_BITS == cluster;
                while let Some(id) = self.targets.next_if(is_in) {
                    members |= 1 << member(id);
                }
                Operation::Cluster { cluster, members }
            }
            Transport::Pv => {
                let mut bits = 1;
                let is_in = |id: &u32| id.checked_sub(first).is_some_and(|n| n < WINDOW);
                while let Some(id) = self.targets.next_if(is_in) {
                    bits |= 1 << (id - first);
                }
                Operation::Window { first, bits }
            }
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MANY: [Transport; 5] = [
        Transport::Xapic,
        Transport::X2apic,
        Transport::X2apicCluster,
        Transport::Wire,
        Transport::Pv,
    ];

    fn count(transport: Transport, targets: &BTreeSet<u32>) -> usize {
        operations(transport, targets.iter().copied()).count()
    }

    proptest! {
        #[test]
        fn every_target_is_reached_once_and_nobody_else(
            machine in prop::collection::btree_set(0..4096_u32, 2..300),
            asked in any::<u64>(),
            shuffled in any::<bool>(),
        ) {
            let mut machine: Vec<u32> = machine.into_iter().collect();
            if shuffled {
                machine.reverse();
            }
            let own = machine[0];
            let is_asked = |index: &usize| asked >> (index % 61) & 1 != 0;
            let targets = (1..machine.len()).filter(is_asked).map(|it| machine[it]);
            let targets: Vec<u32> = targets.collect();
            for transport in MANY {
                let mut reached: Vec<u32> = operations(transport, targets.iter().copied())
                    .flat_map(|operation| operation.targets(&machine, own).collect::<Vec<_>>())
                    .collect();
                let mut wanted = targets.clone();
                reached.sort_unstable();
                wanted.sort_unstable();
                prop_assert_eq!(reached, wanted, "{:?}", transport);
            }
        }

        #[test]
        fn as_many_operations_as_there_are_clusters_and_windows(
            targets in prop::collection::btree_set(0..1024_u32, 1..200),
        ) {
            let clusters: BTreeSet<u32> = targets.iter().map(|id| id / 16).collect();
            prop_assert_eq!(count(Transport::X2apicCluster, &targets), clusters.len());
            prop_assert_eq!(count(Transport::X2apic, &targets), targets.len());
            let span = targets.last().unwrap() - targets.first().unwrap();
            prop_assert!(count(Transport::Pv, &targets) <= (span / WINDOW + 1) as usize);
            prop_assert_eq!(count(Transport::Shorthand, &targets), 1);
        }

        #[test]
        fn auto_takes_no_more_operations_than_any_other(
            targets in prop::collection::btree_set(0..1024_u32, 1..200),
            has_clusters in any::<bool>(),
            has_pv in any::<bool>(),
        ) {
            let router = Router {
                choice: Choice::Auto,
                unicast: Transport::X2apic,
                has_clusters,
                has_pv,
            };
            let ids = targets.iter().copied();
            let chosen = router.transport(&ids, || false);
            let best = count(chosen, &targets);
            prop_assert!(best <= targets.len());
            prop_assert!(!has_clusters || best <= count(Transport::X2apicCluster, &targets));
            prop_assert!(!has_pv || best <= count(Transport::Pv, &targets));
            prop_assert!(has_clusters || chosen != Transport::X2apicCluster);
            prop_assert!(has_pv || chosen != Transport::Pv);
            if targets.len() > 1 {
                prop_assert_eq!(router.transport(&ids, || true), Transport::Shorthand);
            }
        }
    }

    #[test]
    fn a_shorthand_is_for_all() {
        let router = Router {
            choice: Choice::One(Transport::Shorthand),
            unicast: Transport::Xapic,
            has_clusters: false,
            has_pv: false,
        };
        assert_eq!(
            router.transport(&[1, 2].into_iter(), || false),
            Transport::Xapic
        );
        assert_eq!(
            router.transport(&[1, 2].into_iter(), || true),
            Transport::Shorthand
        );
        let one = operations(Transport::Shorthand, [1, 2].into_iter()).next();
        let reached: Vec<u32> = one.unwrap().targets(&[0, 1, 2], 0).collect();
        assert_eq!(reached, [1, 2]);
    }

    #[test]
    fn the_manual_numbers_logical_destinations_like_this() {
        // APIC id 0x24 is member 4 of cluster 2.
        let mut operations = operations(Transport::X2apicCluster, [0x24].into_iter());
        let Some(Operation::Cluster { cluster, members }) = operations.next() else {
            panic!("a cluster");
        };
        assert_eq!(Operation::logical_id(cluster, members), 0x0002_0010);
    }
}
