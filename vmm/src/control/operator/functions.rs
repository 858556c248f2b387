//! The functions of a kernel at which CPUs are to be held, as the probes of a guest of the bench are.
//! Arms their entries, and decides whether a CPU that comes to one is held; the vCPU's own thread holds
//! it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_memory::GuestMemoryMmap;

use super::watches::{Watch, first_over};
use crate::machine::function_entry::{EntryError, FunctionEntry};
use crate::machine::symbols::Symbols;

/// A function of which an entry is armed.
#[derive(Debug)]
struct Armed {
    entry: FunctionEntry,
    /// Each CPU that is to be held there, and when: those of one CPU in their order.
    watches: Vec<(u32, Watch)>,
}

/// The armed functions of one machine.
#[derive(Debug, Default)]
pub(super) struct Functions(Mutex<Vec<Armed>>);

impl Functions {
    /// Has `cpu` held at the function at `address`, as `watch` says, which names it. No vCPU may be
    /// in the guest.
    ///
    /// # Errors
    /// [`EntryError`] if its entry cannot be armed.
    pub fn arm(
        &self,
        cpu: u32,
        watch: Watch,
        address: u64,
        symbols: &Symbols,
        memory: &GuestMemoryMmap,
    ) -> Result<(), EntryError> {
        let mut armed = self.armed();
        if let Some(known) = armed.iter_mut().find(|it| it.entry.is_of(address)) {
            if !known.entry.is_armed(memory) {
                // The guest has written there since.
                known.entry = FunctionEntry::of(address, symbols, memory)?;
                known.entry.arm(memory);
            }
            known.watches.push((cpu, watch));
            return Ok(());
        }
        let entry = FunctionEntry::of(address, symbols, memory)?;
        entry.arm(memory);
        armed.push(Armed {
            entry,
            watches: vec![(cpu, watch)],
        });
        Ok(())
    }

    /// Where `cpu` will be held.
    pub fn of(&self, cpu: u32) -> Vec<Watch> {
        let armed = self.armed();
        let watches = armed.iter().flat_map(|it| &it.watches);
        let own = watches.filter(|(of, _)| *of == cpu);
        own.map(|(_, watch)| watch.clone()).collect()
    }

    /// Whether there is anything to [`disarm`](Functions::disarm): something of `cpu`'s, or an entry
    /// at which nobody is to be held any more.
    pub fn is_armed(&self, cpu: Option<u32>) -> bool {
        let of_cpu = |it: &Armed| it.watches.iter().any(|(of, _)| Some(*of) == cpu);
        let armed = self.armed();
        armed.iter().any(|it| it.watches.is_empty() || of_cpu(it))
    }

    /// Has `cpu` held nowhere any more, and puts back each entry at which nobody is to be held. No
    /// vCPU may be in the guest.
    pub fn disarm(&self, cpu: Option<u32>, memory: &GuestMemoryMmap) {
        self.armed().retain_mut(|it| {
            it.watches.retain(|(of, _)| Some(*of) != cpu);
            let is_needed = !it.watches.is_empty();
            if !is_needed {
                it.entry.disarm(memory);
            }
            is_needed
        });
    }

    /// Handles that `cpu` has come to the entry at `address`. Returns whether it is to be held there;
    /// the watch that says so is removed then.
    pub fn reached(&self, cpu: u32, address: u64) -> bool {
        let mut armed = self.armed();
        let Some(it) = armed.iter_mut().find(|it| it.entry.address == address) else {
            return false;
        };
        let watches = it.watches.iter_mut();
        let own = watches.map(|(of, watch)| (*of == cpu).then_some(watch));
        let is_over = first_over(own);
        is_over.map(|index| it.watches.remove(index)).is_some()
    }

    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const AT: u64 = 0x10_0000;
    const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

    #[test]
    fn passages_are_counted_for_each_cpu_and_the_entry_is_put_back() {
        let segment = ::tests::image::Segment::load(AT, &[NOP, [0x90; 5]].concat());
        let image: Arc<[u8]> = ::tests::image::elf(&[segment]).into();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        memory.write_slice(&NOP, GuestAddress(AT)).unwrap();
        let symbols = Symbols::of(&image);
        let functions = Functions::default();
        let arm = |cpu, nth| {
            let watch = Watch::at("f").nth(nth);
            functions.arm(cpu, watch, AT, &symbols, &memory)
        };
        arm(0, 2).unwrap();
        arm(1, 1).unwrap();
        assert!(!functions.reached(0, AT));
        assert!(!functions.reached(2, AT));
        assert!(functions.reached(1, AT));
        assert!(!functions.reached(1, AT));
        assert_eq!(functions.of(0), [Watch::at("f")]);
        assert!(functions.reached(0, AT));
        assert!(!functions.reached(0, AT + 5));
        // What the guest writes there is seen, and the next hold is one.
        memory.write_slice(&NOP, GuestAddress(AT)).unwrap();
        arm(0, 1).unwrap();
        assert_ne!(memory.read_obj::<[u8; 5]>(GuestAddress(AT)).unwrap(), NOP);
        assert!(functions.reached(0, AT));
        let entry = || memory.read_obj::<[u8; 5]>(GuestAddress(AT)).unwrap();
        assert_ne!(entry(), NOP);
        assert!(functions.is_armed(None));
        functions.disarm(None, &memory);
        assert_eq!(entry(), NOP);
        assert!(!functions.is_armed(Some(0)));
    }
}
