//! Memory while stores wait in store buffers. Between two steps RAM holds what has reached memory;
//! while a CPU runs, its own store buffer lies over it, so that the guest's code finds what its CPU
//! would. Decides nothing about when an entry leaves.

use super::machine::Specimen;
use super::store_buffer::{BufferedStore, Entry};
use crate::explore::schedule::{Act, Choice};
use crate::explore::sharing::Sharing;

/// What lies over memory while a CPU runs.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// The stores of its buffer, oldest first, each with the word that was there before.
    laid: Vec<(BufferedStore, u64)>,
    /// The store that the CPU makes, if it goes to the buffer, yet without its value, and the word
    /// as the CPU saw it before.
    makes: Option<(BufferedStore, u64)>,
}

impl Overlay {
    /// Whether the CPU makes a store that goes to the buffer.
    pub(super) fn makes_store(&self) -> bool {
        self.makes.is_some()
    }
}

impl Specimen {
    /// Follows what `sharing` knows about the words to which stores have to wait.
    pub fn follow_sharing(&mut self, sharing: &Sharing) {
        if self.buffering.is_behind(sharing) {
            self.buffering.follow(sharing);
            self.forget_passing();
        }
    }

    /// How a turn of `cpu` goes on where it is: with the CPU's program, and where that has to wait for
    /// the CPU's own store buffer, with what leaves it next.
    pub fn going_on(&self, cpu: usize) -> Choice {
        if self.cpus[cpu].waits_for_its_buffer() {
            Choice::flush(cpu)
        } else {
            Choice::go_on(cpu)
        }
    }

    /// What the last step has brought out of a store buffer.
    pub fn left_buffer(&self) -> &[Entry] {
        &self.left
    }

    /// Lays the store buffer of the CPU that makes the step `choice` over memory.
    pub(super) fn lay_over(&mut self, choice: Choice) -> Overlay {
        let stopped = &self.cpus[choice.cpu];
        let stores: Vec<_> = stopped.buffer.stores().copied().collect();
        let makes = match choice.act {
            Act::GoOn => stopped.store_to_buffer(&self.buffering),
            Act::Take(_) | Act::Flush | Act::Arrive => None,
        };
        let makes = makes.map(|store| BufferedStore {
            origin: self.origin_of_store(choice.cpu),
            ..store
        });
        let lay = |store: BufferedStore| (store, self.put(&store));
        Overlay {
            laid: stores.into_iter().map(lay).collect(),
            makes: makes.map(|store| (store, self.around(&store))),
        }
    }

    /// What memory holds in the word in which `store` lies.
    fn around(&self, store: &BufferedStore) -> u64 {
        self.serial.ram().word(store.word()).unwrap_or(0)
    }

    /// Writes `store` to memory, and returns what its word held before.
    fn put(&mut self, store: &BufferedStore) -> u64 {
        let before = self.around(store);
        let over = store.over(before);
        self.serial.ram_mut().set_word(store.word(), over);
        before
    }

    /// Takes the store buffer of `cpu`, which has run, back out of memory. The store that the CPU
    /// has made goes to the buffer.
    pub(super) fn take_back(&mut self, cpu: usize, overlay: Overlay) {
        let Overlay { laid, makes } = overlay;
        if let Some((store, before)) = makes {
            let now = self.put(&store.of(before));
            self.cpus[cpu].buffer.push(Entry::Store(store.of(now)));
        }
        let mut gone = Vec::new();
        for (store, before) in laid.into_iter().rev() {
            let now = self.around(&store);
            // The CPU has since written there as to memory of its own, as to a stack frame that it
            // has left: that came after the store, and nobody else looks at it any more.
            if store.over(now) != now {
                gone.push(store);
            } else {
                self.put(&store.of(before));
            }
        }
        if !gone.is_empty() {
            self.cpus[cpu].buffer.forget(|store| gone.contains(store));
        }
    }

    /// The oldest entry of the store buffer of `cpu` leaves, and those behind it that only follow.
    pub(super) fn flush(&mut self, cpu: usize) {
        let left = self.cpus[cpu].buffer.take();
        for entry in &left {
            match *entry {
                Entry::Store(store) => _ = self.put(&store),
                Entry::Ipi { target, signal } => self.cpus[target].is_sent(signal),
            }
        }
        self.left = left;
        let stopped = &mut self.cpus[cpu];
        stopped.drains &= !stopped.buffer.is_empty();
    }
}
