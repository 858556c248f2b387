//! States: kept page by page, with the registers of every CPU, and put back. Which states are the
//! same is decided here, by a key over all that can matter from there on.

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

/// Bytes below the stack pointer that are cleared at each stop: more than any turn leaves behind,
/// so that what is left there by chance does not make two states of one.
pub(super) const CLEARED: usize = PAGE_SIZE;

impl Specimen {
    /// Clears what `cpu`, which has come to a stop, has left behind where nobody will read it, so
    /// that equal states are equal to the last bit, and lead to equal states.
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

    /// Puts back what is only counted, so that it can end up nowhere else either.
    fn forget_counts(&mut self) {
        for at in 0..self.unobserved.len() {
            let number = self.unobserved[at];
            let is_kept = self.kept.binary_search_by_key(&number, |(kept, _)| *kept);
            if is_kept.is_ok() && self.serial.ram().page(number) != self.origin(number) {
                let origin = *self.origin(number);
                *self.serial.ram_mut().page_mut(number) = origin;
            }
        }
    }

    /// Clears RAM from `start` to `end`, as far as there is any, and, once there is a beginning to
    /// go back to, only in pages that are kept.
    pub(super) fn clear(&mut self, start: u64, end: u64) {
        let (Ok(mut at), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return;
        };
        while at < end {
            let (number, offset) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let length = (PAGE_SIZE - offset).min(end - at);
            let has_begun = !self.origin.is_empty();
            let is_kept = self
                .kept
                .binary_search_by_key(&number, |(kept, _)| *kept)
                .is_ok();
            if number < self.serial.ram().pages() && (is_kept || !has_begun) {
                self.serial.ram_mut().page_mut(number)[offset..offset + length].fill(0);
            }
            at += length;
        }
    }

    /// Keeps, from now on, the pages that the guest has written for the first time. Whether there
    /// were any: then states that were saved before it last was asked may lack them.
    ///
    /// # Errors
    /// If KVM does not say.
    pub fn keep_new_pages(&mut self) -> Result<bool, SpecimenError> {
        let is_new = self.keep_written()?;
        Ok(std::mem::take(&mut self.has_grown) || is_new)
    }

    /// Keeps the pages that were written for the first time. Whether there were any.
    pub(super) fn keep_written(&mut self) -> Result<bool, SpecimenError> {
        let new = self
            .serial
            .newly_written()
            .map_err(kvm("say which pages were written"))?;
        for number in &new {
            if let Err(at) = self.kept.binary_search_by_key(number, |(kept, _)| *kept) {
                let kept = Arc::new(self.keep(*number, self.serial.ram().page(*number)));
                self.kept.insert(at, (*number, kept));
                let first = self.original(*number);
                self.root.pages.insert(at, Arc::new(first));
            }
        }
        if !new.is_empty() {
            self.numbers = self.kept.iter().map(|(number, _)| *number).collect();
            self.root.numbers = Arc::clone(&self.numbers);
        }
        Ok(!new.is_empty())
    }

    /// Page `number` as it was at first.
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

    /// Page `number` as it is.
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

    /// The state as it is.
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

    /// Puts the machine back to `state`.
    pub fn load(&mut self, state: &State) {
        let aligned;
        let pages = if Arc::ptr_eq(&state.numbers, &self.numbers) {
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

    /// The pages of `state`, and of those that were not kept when it was saved, what they were at
    /// first: they had not been written by then.
    pub(super) fn aligned(&self, state: &State) -> Vec<Arc<SavedPage>> {
        let page = |number: &usize| match state.numbers.binary_search(number) {
            Ok(at) => Arc::clone(&state.pages[at]),
            Err(_) => Arc::new(self.original(*number)),
        };
        self.numbers.iter().map(page).collect()
    }

    /// Makes the vCPUs, but for their general registers, what they were at first, if the guest died
    /// or ended on one.
    ///
    /// # Errors
    /// If KVM does not take it back.
    pub fn mend(&mut self) -> Result<(), SpecimenError> {
        if std::mem::take(&mut self.is_hurt) {
            self.restore_rest()?;
        }
        Ok(())
    }

    pub(super) fn restore_rest(&mut self) -> Result<(), SpecimenError> {
        self.serial
            .restore(&self.origin_cpus)
            .map_err(kvm("take back all of a vCPU"))
    }

    /// Puts the machine back to its beginning.
    pub fn rewind(&mut self) {
        let root = self.root.clone();
        self.load(&root);
    }

    /// Checks, at the beginning of a schedule, that the vCPUs are, but for their general registers,
    /// what they were at first, and that all of memory is: which is why [`Specimen::load`] need not
    /// put back more than it does.
    ///
    /// # Errors
    /// [`SpecimenError::NotExact`] if a vCPU is not, [`SpecimenError::OtherPage`] if memory is not.
    pub fn check_rest(&mut self) -> Result<(), SpecimenError> {
        let is_other = |number: &usize| {
            !self.unobserved.contains(number)
                && self.serial.ram().page(*number) != self.origin(*number)
        };
        if let Some(number) = (0..self.serial.ram().pages()).find(is_other) {
            let address = number * PAGE_SIZE;
            return Err(SpecimenError::OtherPage { address });
        }
        let now = self.serial.capture().map_err(kvm("show all of a vCPU"))?;
        for (cpu, (now, then)) in now.iter().zip(&self.origin_cpus).enumerate() {
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

    /// A number for what has become of the machine: where its CPUs stand, and what memory holds,
    /// but for their stacks, on which what is left by chance lies between what matters. Ends of
    /// searches that differ in how they get there are held against each other by it.
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
