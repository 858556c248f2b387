//! Saves and restores states: pages of memory, and the registers of every CPU. Also computes the
//! state key, a hash of everything that can matter later, which decides whether states are equal.

use std::hash::Hash;
use std::sync::Arc;

use shared::lab::Contexts;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::errors::{SpecimenError, kvm};
use super::machine::Specimen;
use super::state::{SavedPage, State};
use crate::explore::schedule::Granularity;
use crate::machine::ram::Page;
use crate::page_size::PAGE_SIZE;

/// Bytes below the stack pointer that are cleared at each stop. That is more than any turn leaves
/// behind; otherwise stale data there would give equal states different keys.
pub(super) const CLEARED: usize = PAGE_SIZE;

impl Specimen {
    /// Clears what `cpu`, which has come to the end of a turn, has left in dead registers and below
    /// its stack pointers. Nothing reads it again, and without it equal states are equal bit by bit
    /// and lead to equal states.
    pub(super) fn tidy(&mut self, cpu: usize) {
        self.forget_counts();
        if self.granularity == Granularity::Every {
            return;
        }
        self.cpus[cpu].forget_dead();
        self.serial.set_regs(cpu, &self.cpus[cpu].regs);
        let Contexts { task, handler, .. } = self.contexts[cpu];
        let rsp = self.cpus[cpu].regs.rsp;
        let within = |[start, end]: [u64; 2]| (start..=end).contains(&rsp);
        if within(handler) {
            self.clear(handler[0].max(rsp.saturating_sub(CLEARED as u64)), rsp);
        } else if within(task) {
            self.clear(task[0].max(rsp.saturating_sub(CLEARED as u64)), rsp);
            self.clear(
                handler[0].max(handler[1].saturating_sub(CLEARED as u64)),
                handler[1],
            );
        }
    }

    /// Restores the pages of counters and traces, whose contents do not matter, so that their
    /// values cannot spread to anything that matters.
    fn forget_counts(&mut self) {
        for at in 0..self.counted.len() {
            let number = self.counted[at];
            if self.serial.ram().page(number) != self.origin(number) {
                let origin = *self.origin(number);
                *self.serial.ram_mut().page_mut(number) = origin;
            }
        }
    }

    /// Clears RAM from `start` to `end`, as far as it exists. Once there is an initial state, only
    /// pages that are saved with each state are cleared, since no others are restored.
    pub(super) fn clear(&mut self, start: u64, end: u64) {
        let (Ok(mut at), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return;
        };
        while at < end {
            let (number, offset) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let length = (PAGE_SIZE - offset).min(end - at);
            let has_begun = !self.origin.is_empty();
            let is_kept = self.place_kept(number).is_ok();
            if number < self.serial.ram().pages() && (is_kept || !has_begun) {
                self.serial.ram_mut().page_mut(number)[offset..offset + length].fill(0);
            }
            at += length;
        }
    }

    /// From now on, also saves the pages that the guest has written for the first time. Returns
    /// whether there were any since the last call. If so, states that were saved before KVM was
    /// last asked for such pages may lack them.
    ///
    /// # Errors
    /// If KVM does not report them.
    pub fn keep_new_pages(&mut self) -> Result<bool, SpecimenError> {
        let is_new = self.keep_written()?;
        Ok(std::mem::take(&mut self.has_grown) || is_new)
    }

    /// From now on, also saves the pages that were written for the first time. Returns whether
    /// there were any.
    pub(super) fn keep_written(&mut self) -> Result<bool, SpecimenError> {
        let mut new = self
            .serial
            .newly_written()
            .map_err(kvm("say which pages were written"))?;
        // What CPUs pass over is no part of a state: it makes no difference to what they do.
        new.retain(|number| !self.passing.is_on_page(*number));
        // Those that are saved already were when they were not written yet.
        new.retain(|number| self.place_kept(*number).is_err());
        for number in &new {
            self.keep_from_now_on(*number);
        }
        if !new.is_empty() {
            self.number_kept();
        }
        Ok(!new.is_empty())
    }

    /// Where page `number` is among those that are saved, or would be.
    fn place_kept(&self, number: usize) -> Result<usize, usize> {
        self.kept.binary_search_by_key(&number, |(kept, _)| *kept)
    }

    /// Saves page `number` with each state from now on, if it was not before.
    fn keep_from_now_on(&mut self, number: usize) {
        if let Err(at) = self.place_kept(number) {
            let kept = Arc::new(self.keep(number, self.serial.ram().page(number)));
            self.kept.insert(at, (number, kept));
            let first = self.original(number);
            self.root.pages.insert(at, Arc::new(first));
            if self.unobserved.contains(&number) {
                self.counted.push(number);
            }
        }
    }

    fn number_kept(&mut self) {
        self.numbers = self.kept.iter().map(|(number, _)| *number).collect();
        self.root.numbers = Arc::clone(&self.numbers);
    }

    /// Gets ready to restore `state`, which a specimen of the same beginning has saved: saves from now
    /// on whatever was saved with it. Returns whether pages were written that were not saved before,
    /// as [`Specimen::keep_new_pages`] does.
    ///
    /// # Errors
    /// If KVM does not report them.
    pub fn adopt(&mut self, state: &State) -> Result<bool, SpecimenError> {
        match self.is_numbered_as(state) {
            true => Ok(false),
            false => self.keep_pages(&state.numbers),
        }
    }

    /// Saves these pages with each state from now on. Returns whether others were written that were
    /// not saved before, as [`Specimen::keep_new_pages`] does.
    ///
    /// # Errors
    /// If KVM does not report them.
    pub fn keep_pages(&mut self, numbers: &[usize]) -> Result<bool, SpecimenError> {
        let is_kept = |number: &usize| self.place_kept(*number).is_ok();
        if numbers.iter().all(is_kept) {
            return Ok(false);
        }
        // What was written by now is told apart from what will be.
        let is_new = self.keep_new_pages()?;
        for number in numbers {
            self.keep_from_now_on(*number);
        }
        self.number_kept();
        Ok(is_new)
    }

    /// The number of the pages of guest memory.
    pub fn pages(&self) -> usize {
        self.serial.ram().pages()
    }

    /// Whether the same pages were saved with `state` as are saved now.
    fn is_numbered_as(&self, state: &State) -> bool {
        Arc::ptr_eq(&state.numbers, &self.numbers) || state.numbers == self.numbers
    }

    /// Page `number` as it is in the initial state.
    pub(super) fn original(&self, number: usize) -> SavedPage {
        SavedPage {
            bytes: *self.origin(number),
            share: 0,
        }
    }

    pub(super) fn origin(&self, number: usize) -> &Page {
        let start = number * PAGE_SIZE;
        self.origin[start..start + PAGE_SIZE]
            .try_into()
            .expect("a page is a page long")
    }

    /// Page `number` with the contents `bytes`, in the form in which it is saved.
    pub(super) fn keep(&self, number: usize, bytes: &Page) -> SavedPage {
        let is_same = self.unobserved.contains(&number) || bytes == self.origin(number);
        SavedPage {
            bytes: *bytes,
            share: if is_same {
                0
            } else {
                xxh3_128_with_seed(bytes, number as u64)
            },
        }
    }

    /// Saves the present state.
    pub fn save(&mut self) -> State {
        for at in 0..self.kept.len() {
            let (number, kept) = &self.kept[at];
            let now = self.serial.ram().page(*number);
            if *now != kept.bytes {
                self.kept[at].1 = Arc::new(self.keep(*number, now));
            }
        }
        let pages: Vec<_> = self.kept.iter().map(|(_, kept)| Arc::clone(kept)).collect();
        let key = self.key(&pages);
        State {
            numbers: Arc::clone(&self.numbers),
            pages,
            cpus: self.cpus.clone(),
            key,
        }
    }

    /// Restores `state`.
    pub fn load(&mut self, state: &State) {
        let aligned;
        let pages = if self.is_numbered_as(state) {
            &state.pages
        } else {
            aligned = self.aligned(state);
            &aligned
        };
        for ((number, now), then) in self.kept.iter_mut().zip(pages) {
            if !Arc::ptr_eq(now, then) || *self.serial.ram().page(*number) != now.bytes {
                *self.serial.ram_mut().page_mut(*number) = then.bytes;
                *now = Arc::clone(then);
            }
        }
        for (cpu, (now, then)) in self.cpus.iter_mut().zip(&state.cpus).enumerate() {
            self.serial.set_regs(cpu, &then.regs);
            now.clone_from(then);
        }
    }

    /// The pages of `state`, for all pages that are saved now. Those that were not saved with it
    /// are taken from the initial state, since they had not been written by then.
    pub(super) fn aligned(&self, state: &State) -> Vec<Arc<SavedPage>> {
        let page = |number: &usize| match state.numbers.binary_search(number) {
            Ok(at) => Arc::clone(&state.pages[at]),
            Err(_) => Arc::new(self.original(*number)),
        };
        self.numbers.iter().map(page).collect()
    }

    /// Restores the initial state of the vCPUs, except for their general registers, if the guest
    /// died, ended or did not stop on one of them.
    ///
    /// # Errors
    /// If KVM does not accept it.
    pub fn mend(&mut self) -> Result<(), SpecimenError> {
        if std::mem::take(&mut self.is_hurt) {
            self.restore_rest()?;
        }
        Ok(())
    }

    pub(super) fn restore_rest(&mut self) -> Result<(), SpecimenError> {
        self.serial
            .restore(self.systems.first())
            .map_err(kvm("take back all of a vCPU"))?;
        self.systems.set_now_first();
        Ok(())
    }

    /// Restores the initial state.
    pub fn rewind(&mut self) {
        let root = self.root.clone();
        self.load(&root);
    }

    /// Checks, at the beginning of a schedule, that all of memory and the vCPUs, except for their
    /// general registers, are as in the initial state. [`Specimen::load`] relies on this: it does
    /// not restore everything.
    ///
    /// # Errors
    /// [`SpecimenError::NotExact`] if a vCPU differs, [`SpecimenError::OtherPage`] if memory does,
    /// [`SpecimenError::OtherTable`] if the guest has written what only the VMM may write.
    pub fn check_rest(&mut self) -> Result<(), SpecimenError> {
        let is_other = |number: &usize| {
            !self.unobserved.contains(number)
                && !self.passing.is_on_page(*number)
                && self.serial.ram().page(*number) != self.origin(*number)
        };
        if let Some(number) = (0..self.serial.ram().pages()).find(is_other) {
            let address = number * PAGE_SIZE;
            return Err(SpecimenError::OtherPage { address });
        }
        if let Some(address) = self.passing.first_overwritten(self.serial.ram()) {
            return Err(SpecimenError::OtherTable { address });
        }
        for cpu in 0..self.cpus.len() {
            self.prepare(cpu)?;
        }
        let now = self.serial.capture().map_err(kvm("show all of a vCPU"))?;
        for (cpu, (now, then)) in now.iter().zip(self.systems.first()).enumerate() {
            if let Some(what) = now.difference(then) {
                return Err(SpecimenError::NotExact { cpu, what });
            }
        }
        Ok(())
    }

    pub(super) fn key(&self, pages: &[Arc<SavedPage>]) -> u128 {
        let mut hash = Xxh3::new();
        let memory = pages
            .iter()
            .fold(0_u128, |sum, page| sum.wrapping_add(page.share));
        memory.hash(&mut hash);
        self.cpus.hash(&mut hash);
        hash.digest128()
    }

    /// A hash of where the CPUs have stopped and of memory without their stacks, where stale data
    /// lies between data that matters. Serves to compare the final states of searches that reach
    /// them in different ways.
    pub fn outcome(&self) -> u128 {
        let mut hash = Xxh3::new();
        self.cpus.len().hash(&mut hash);
        for stopped in &self.cpus {
            (stopped.at, stopped.given, stopped.pending).hash(&mut hash);
        }
        let mut memory = 0_u128;
        for (number, _) in &self.kept {
            let bytes = self.serial.ram().page(*number);
            if !self.is_on_stack(*number) {
                memory = memory.wrapping_add(self.keep(*number, bytes).share);
            }
        }
        memory.hash(&mut hash);
        hash.digest128()
    }

    fn is_on_stack(&self, number: usize) -> bool {
        let at = (number * PAGE_SIZE) as u64;
        self.contexts.iter().any(|contexts| {
            [contexts.task, contexts.handler]
                .iter()
                .any(|[start, end]| (*start..*end).contains(&at))
        })
    }
}
