//! The global list of elements (`call_function.queue`): a doubly linked list that one CPU at a time
//! changes under its lock, while others walk it without (`rculist.h`).
//!
//! Elements are named by index, and links hold indices. An element that is taken out keeps its
//! `next` link, so that a walker on it can go on. Where that link leads once the element is queued
//! again is what the designs under [`super::queue`] differ in.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32 as GhostU32, Ordering as GhostOrdering};

use kit::platform::{CpuId, Platform};
use kit::probe;
use kit::sync::atomic::{AtomicU32, Ordering};
use kit::sync::ghost;
use kit::sync::spin::SpinLock;

use super::csd::Call;
use crate::counters::CpuCounters;
use crate::machine::Machine;
use crate::oracle::Oracle;

/// Link to the list's head: the end of a walk.
const HEAD: u32 = u32::MAX;

/// `prev` of an element that was taken out (`LIST_POISON2`).
const POISON: u32 = u32::MAX - 1;

#[derive(Debug)]
#[repr(align(64))]
struct Link {
    next: AtomicU32,
    prev: AtomicU32,
}

/// The list and its lock.
#[derive(Debug)]
pub struct ElementList {
    lock: SpinLock,
    head: Link,
    links: Box<[Link]>,
    /// By CPU: the element its walk stands on, or [`HEAD`]. For an oracle; no design may read it.
    standing: Box<[Standing]>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Standing(GhostU32);

/// Where an element goes into the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In front of all others: walks meet the newest first.
    Head,
    /// Behind all others.
    Tail,
}

impl ElementList {
    /// Bytes per CPU that the list keeps only for an oracle, and that are not part of any design.
    pub const WATCHED: usize = size_of::<Standing>();

    /// An empty list for elements 0 to `elements` - 1, none of them linked, that `cpus` CPUs walk.
    pub fn new(elements: usize, cpus: usize) -> Self {
        let link = |next, prev| Link {
            next: AtomicU32::new(next),
            prev: AtomicU32::new(prev),
        };
        Self {
            lock: SpinLock::new(),
            head: link(HEAD, HEAD),
            links: (0..elements).map(|_| link(HEAD, POISON)).collect(),
            standing: (0..cpus).map(|_| Standing(GhostU32::new(HEAD))).collect(),
        }
    }

    /// Puts `element`, which carries `call`, at one end. Interrupts must be off.
    ///
    /// An element that is already linked is reported and left where it is: linking it twice would
    /// close the list into a ring, and no walk would end.
    pub fn insert<P: Platform>(&self, machine: &Machine<P>, element: usize, end: End, call: Call) {
        self.insert_then(machine, element, end, call, || {});
    }

    /// As [`ElementList::insert`], and runs `then` before the lock is released.
    pub fn insert_then<P: Platform>(
        &self,
        machine: &Machine<P>,
        element: usize,
        end: End,
        call: Call,
        then: impl FnOnce(),
    ) {
        probe!(machine.platform, "queue.insert", call.info);
        self.lock.with(&machine.platform, || {
            probe!(machine.platform, "queue.lock.acquired", call.info);
            let new = self.link(element as u32);
            if new.prev.load(Ordering::Relaxed) != POISON {
                machine.report(Oracle::BrokenQueue, call.info, element as u64);
                return;
            }
            let (prev, next) = match end {
                End::Head => (HEAD, self.head.next.load(Ordering::Relaxed)),
                End::Tail => (self.head.prev.load(Ordering::Relaxed), HEAD),
            };
            new.next.store(next, Ordering::Relaxed);
            new.prev.store(prev, Ordering::Relaxed);
            // Release pairs with the Acquire of a walk: one that finds the element finds it
            // complete.
            self.link(prev)
                .next
                .store(element as u32, Ordering::Release);
            self.link(next)
                .prev
                .store(element as u32, Ordering::Relaxed);
            then();
        });
        probe!(machine.platform, "queue.inserted", call.info);
    }

    /// Takes `element`, which carried `call`, off the list, but leaves its `next` link. Interrupts
    /// must be off.
    ///
    /// One that is not linked is reported and left alone, where the kernel would follow its
    /// poisoned pointer.
    pub fn remove<P: Platform>(&self, machine: &Machine<P>, element: usize, call: Call) {
        probe!(machine.platform, "queue.remove", call.info);
        self.lock.with(&machine.platform, || {
            probe!(machine.platform, "queue.lock.acquired", call.info);
            let old = self.link(element as u32);
            let prev = old.prev.load(Ordering::Relaxed);
            if prev == POISON {
                machine.report(Oracle::BrokenQueue, call.info, element as u64);
                return;
            }
            let next = old.next.load(Ordering::Relaxed);
            self.link(prev).next.store(next, Ordering::Release);
            self.link(next).prev.store(prev, Ordering::Relaxed);
            old.prev.store(POISON, Ordering::Relaxed);
        });
        probe!(machine.platform, "queue.removed", call.info);
    }

    /// Reads which elements are linked, from the head on, into `found` as far as there is room, and
    /// returns how many there are. It does not take the lock, so that it works while the holder of
    /// the lock is stalled. Of a list that changes meanwhile it sees a mixture; of a broken one, at
    /// most as many as there are elements.
    pub fn read(&self, found: &mut [usize]) -> usize {
        let mut at = self.head.next.load(Ordering::Acquire);
        let mut linked = 0;
        while at != HEAD && linked < self.links.len() {
            if let Some(entry) = found.get_mut(linked) {
                *entry = at as usize;
            }
            linked += 1;
            at = self.link(at).next.load(Ordering::Acquire);
        }
        linked
    }

    /// Reports a list that is not empty, at a time when nothing is in flight.
    pub fn audit<P: Platform>(&self, machine: &Machine<P>) {
        let (first, last) = (&self.head.next, &self.head.prev);
        if first.load(Ordering::Relaxed) != HEAD || last.load(Ordering::Relaxed) != HEAD {
            machine.report(
                Oracle::BrokenQueue,
                0,
                u64::from(first.load(Ordering::Relaxed)),
            );
        }
    }

    /// Walks the list without the lock, as a handler does. The `next` link of an element is read
    /// only when the walk goes on: until then the walker stands on the element, whether or not it
    /// is still linked, and follows the link that it has by that time.
    pub fn walk<'a, P: Platform>(&'a self, machine: &'a Machine<P>) -> Walk<'a> {
        Walk {
            list: self,
            standing_on: HEAD,
            visits: 0,
            seen: &self.standing[machine.this_cpu()].0,
            counters: machine.counters(),
        }
    }

    /// A CPU whose walk stands on `element`, if there is one.
    pub fn walker_on(&self, element: usize) -> Option<CpuId> {
        let stands = |Standing(seen): &Standing| {
            ghost::reads(seen);
            seen.load(GhostOrdering::SeqCst) == element as u32
        };
        self.standing.iter().position(stands)
    }

    fn link(&self, index: u32) -> &Link {
        match index {
            HEAD => &self.head,
            element => &self.links[element as usize],
        }
    }
}

/// A walk along the list; see [`ElementList::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    list: &'a ElementList,
    standing_on: u32,
    visits: u64,
    seen: &'a GhostU32,
    /// Where the walk is counted when it is over.
    counters: &'a CpuCounters,
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        // Acquire pairs with the Release in `insert_then`.
        self.standing_on = self
            .list
            .link(self.standing_on)
            .next
            .load(Ordering::Acquire);
        ghost::changes(self.seen);
        self.seen.store(self.standing_on, GhostOrdering::SeqCst);
        if self.standing_on == HEAD {
            self.counters.count_walk(self.visits);
            return None;
        }
        self.visits += 1;
        Some(self.standing_on as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use kit::lab::Lab;
    use kit::threads::Alone;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const CALL: Call = Call { func: 0, info: 0 };

    fn machine() -> Machine<Alone> {
        Machine::new(Alone, 1, Lab::allocate(1).unwrap())
    }

    fn walk(machine: &Machine<Alone>, list: &ElementList) -> Vec<usize> {
        list.walk(machine).collect()
    }

    proptest! {
        /// Against a deque: any order of insertions and removals gives the same sequence, and the
        /// list is empty when everything is out.
        #[test]
        fn it_is_a_list(steps in proptest::collection::vec((0usize..6, any::<bool>()), 0..60)) {
            let (machine, list) = (machine(), ElementList::new(6, 1));
            let mut model = VecDeque::new();
            for (element, at_head) in steps {
                if let Some(place) = model.iter().position(|e| *e == element) {
                    list.remove(&machine, element, CALL);
                    model.remove(place);
                } else if at_head {
                    list.insert(&machine, element, End::Head, CALL);
                    model.push_front(element);
                } else {
                    list.insert(&machine, element, End::Tail, CALL);
                    model.push_back(element);
                }
                prop_assert_eq!(walk(&machine, &list), model.iter().copied().collect::<Vec<_>>());
            }
            while let Some(element) = model.pop_front() {
                list.remove(&machine, element, CALL);
            }
            list.audit(&machine);
            prop_assert_eq!(machine.lab.findings_made(), 0);
        }
    }

    #[test]
    fn an_element_taken_out_keeps_its_way_on() {
        let (machine, list) = (machine(), ElementList::new(3, 1));
        (0..3).for_each(|element| list.insert(&machine, element, End::Tail, CALL));
        let mut walker = list.walk(&machine).skip_while(|at| *at != 1);
        assert_eq!(walker.next(), Some(1));
        list.remove(&machine, 1, CALL);
        assert_eq!(walker.next(), Some(2));
        assert_eq!(walk(&machine, &list), [0, 2]);
    }

    #[test]
    fn misuse_is_a_finding() {
        let (machine, list) = (machine(), ElementList::new(1, 1));
        list.remove(&machine, 0, CALL);
        list.insert(&machine, 0, End::Head, CALL);
        list.insert(&machine, 0, End::Head, CALL);
        list.audit(&machine);
        let oracles: Vec<_> = machine
            .lab
            .findings()
            .map(|finding| finding.oracle)
            .collect();
        assert_eq!(oracles, [Oracle::BrokenQueue as u32; 3]);
        assert_eq!(walk(&machine, &list), [0]);
    }
}
