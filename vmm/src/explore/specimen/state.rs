//! Saved states of the machine. Plain data; saving and restoring is in `keeping`.

use std::sync::Arc;

use super::stopped::Stopped;
use crate::machine::ram::Page;

/// The contents of a page in some state.
#[derive(Debug)]
pub(super) struct SavedPage {
    pub(super) bytes: Page,
    /// What the page adds to the key of a state: 0 as long as it is as in the initial state. So
    /// keys do not depend on which pages happen to be saved.
    pub(super) share: u128,
}

/// A saved state of the machine, which can be restored.
#[derive(Debug, Clone)]
pub struct State {
    /// The numbers of the saved pages, ascending.
    pub(super) numbers: Arc<[usize]>,
    /// The saved pages. All other pages were as in the initial state.
    pub(super) pages: Vec<Arc<SavedPage>>,
    pub(super) cpus: Vec<Stopped>,
    pub(super) key: u128,
}

impl State {
    /// The key of the state: a hash of everything that can matter for what happens after it. Equal
    /// states have equal keys.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// The numbers of the pages that were saved with it.
    pub fn pages(&self) -> impl Iterator<Item = usize> + use<> {
        let numbers = Arc::clone(&self.numbers);
        (0..numbers.len()).map(move |at| numbers[at])
    }

    /// The CPUs.
    pub fn cpus(&self) -> &[Stopped] {
        &self.cpus
    }

    /// Whether it equals `before` in memory and in the state of `cpu`.
    pub(super) fn is_same(&self, before: &Self, cpu: usize) -> bool {
        let is_same_page = |(now, then): (&Arc<SavedPage>, &Arc<SavedPage>)| {
            Arc::ptr_eq(now, then) || now.share == then.share
        };
        self.numbers == before.numbers
            && self.pages.iter().zip(&before.pages).all(is_same_page)
            && self.cpus[cpu].is_same(&before.cpus[cpu])
    }
}
