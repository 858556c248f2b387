//! Data races: two accesses of different CPUs to a common byte that can be made at once, of which at
//! least one writes, and at least one is plain: made as to an ordinary variable, neither atomic nor
//! `volatile`, where the source says of neither that it may race. That is KCSAN's definition (Linux,
//! `Documentation/dev-tools/kcsan.rst`, "Data Races"), without what it lets pass by default. Finds
//! them in one state; knows no search.
//!
//! An access *can be made* if its CPU has stopped before it, or if it is a store that waits in its
//! CPU's store buffer. With store buffers a store that goes there can be made only from then on:
//! nobody can tell when it was put there.

use shared::stop::{Kind, Manner};

use super::buffering::Buffering;
use super::stopped::{Stop, Stopped};
use super::store_buffer::Origin;

/// An access that a CPU can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Party {
    /// The CPU.
    pub(super) cpu: usize,
    /// What it does. A store that waits is a [`Kind::Store`].
    pub(super) kind: Kind,
    /// How the source makes it.
    pub(super) manner: Manner,
    /// Where a store that waits was made; `None` if the CPU has stopped before the access.
    pub(super) made_at: Option<u64>,
    address: u64,
    bytes: u8,
}

impl Party {
    fn writes(&self) -> bool {
        self.kind != Kind::Load
    }

    fn races(&self, other: &Self) -> bool {
        let end = |it: &Self| it.address + u64::from(it.bytes);
        self.cpu != other.cpu
            && (self.manner == Manner::Plain || other.manner == Manner::Plain)
            && (self.manner != Manner::Intended && other.manner != Manner::Intended)
            && (self.writes() || other.writes())
            && self.address < end(other)
            && other.address < end(self)
    }

    /// What it is in words, without its place.
    pub(super) fn name(&self) -> &'static str {
        match (self.kind, self.manner) {
            (Kind::Load, Manner::Plain) => "plain load",
            (Kind::Load, _) => "load",
            (Kind::Store, Manner::Plain) => "plain store",
            (Kind::Store, _) => "store",
            (Kind::Lock, _) => "lock",
            (..) => "rmw",
        }
    }
}

/// The accesses that `cpu`, which has stopped like this, can make.
fn of(cpu: usize, stopped: &Stopped, buffering: &Buffering) -> impl Iterator<Item = Party> {
    let waits = stopped.buffer.stores().filter(|store| !store.follows);
    let waiting = waits.filter_map(move |store| {
        let Origin { address, manner } = store.origin?;
        Some(Party {
            cpu,
            kind: Kind::Store,
            manner,
            made_at: Some(address),
            address: store.address,
            bytes: store.bytes,
        })
    });
    let next = match stopped.at {
        Stop::Access(
            kind @ (Kind::Load | Kind::Store | Kind::ReadModifyWrite | Kind::Lock),
            address,
        ) if stopped.store_to_buffer(buffering).is_none() => Some(Party {
            cpu,
            kind,
            manner: stopped.manner,
            made_at: None,
            address,
            bytes: stopped.bytes,
        }),
        _ => None,
    };
    waiting.chain(next)
}

/// The data races of CPUs that have stopped like this.
pub(super) fn between(cpus: &[Stopped], buffering: &Buffering) -> Vec<[Party; 2]> {
    let all: Vec<_> = (cpus.iter().enumerate())
        .flat_map(|(cpu, stopped)| of(cpu, stopped, buffering))
        .collect();
    let mut found = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let others = all[at + 1..].iter().filter(|other| one.races(other));
        found.extend(others.map(|other| [*one, *other]));
    }
    found
}

/// What `parties` do in a sentence, which is the same whichever CPUs they are. `place` says where in
/// the source an access is made.
pub(super) fn sentence(parties: &[Party; 2], place: impl Fn(&Party) -> String) -> String {
    let mut both = parties.map(|party| format!("{} at {}", party.name(), place(&party)));
    both.sort_unstable();
    let [one, other] = both;
    format!("{one} and {other} can be made at once by two CPUs")
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_regs;

    use super::super::stopped::at_rest;
    use super::super::store_buffer::{BufferedStore, Entry};
    use super::*;

    fn before(kind: Kind, address: u64, bytes: u8, manner: Manner) -> Stopped {
        Stopped {
            at: Stop::Access(kind, address),
            bytes,
            manner,
            ..at_rest(kvm_regs::default())
        }
    }

    fn is_race(one: &Stopped, other: &Stopped) -> bool {
        let cpus = [one.clone(), other.clone()];
        !between(&cpus, &Buffering::Nothing).is_empty()
    }

    #[test]
    fn two_accesses_race_if_one_writes_and_one_is_plain_and_they_meet() {
        let plain_load = before(Kind::Load, 8, 4, Manner::Plain);
        for (other, races) in [
            (before(Kind::Store, 8, 4, Manner::Plain), true),
            (before(Kind::Store, 8, 4, Manner::Marked), true),
            (before(Kind::ReadModifyWrite, 8, 4, Manner::Marked), true),
            (before(Kind::Lock, 8, 4, Manner::Marked), true),
            (before(Kind::Store, 11, 1, Manner::Marked), true),
            (before(Kind::Store, 12, 4, Manner::Plain), false),
            (before(Kind::Store, 8, 4, Manner::Intended), false),
            (before(Kind::Load, 8, 4, Manner::Plain), false),
            (before(Kind::Mark, 8, 4, Manner::Marked), false),
            (before(Kind::Change, 8, 4, Manner::Marked), false),
            (at_rest(kvm_regs::default()), false),
        ] {
            assert_eq!(is_race(&plain_load, &other), races, "{other:?}");
            assert_eq!(is_race(&other, &plain_load), races, "{other:?}");
        }
        let marked = before(Kind::Store, 8, 4, Manner::Marked);
        assert!(!is_race(&marked, &before(Kind::Load, 8, 4, Manner::Marked)));
        assert!(!is_race(&marked, &marked));
    }

    #[test]
    fn a_store_that_waits_races_and_one_that_is_still_to_be_put_there_does_not() {
        let load = before(Kind::Load, 8, 8, Manner::Marked);
        let store = before(Kind::Store, 8, 8, Manner::Plain);
        let buffering = Buffering::Addresses([8].into());
        let races = |one: &Stopped| between(&[one.clone(), load.clone()], &buffering).len();
        assert_eq!(races(&store), 0);
        let mut waits = at_rest(kvm_regs::default());
        let entry = BufferedStore {
            address: 8,
            bytes: 8,
            value: 1,
            follows: false,
            origin: Some(Origin {
                address: 77,
                manner: Manner::Plain,
            }),
        };
        waits.buffer.push(Entry::Store(entry));
        assert_eq!(races(&waits), 1);
        let [one, _] = between(&[waits, load.clone()], &buffering)[0];
        assert_eq!((one.made_at, one.name()), (Some(77), "plain store"));
    }
}
