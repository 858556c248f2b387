//! What the workers of a search tell each other while they search: how far each is, and that one of
//! them has ended it. Plain data behind locks; it decides nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::counts::Counts;

/// What the workers tell each other from the beginning of a search, or from where it begins anew.
#[derive(Debug)]
pub struct Round {
    is_over: AtomicBool,
    /// By worker: what it has done, and how many choices it has left to try, as far as it has said.
    told: Vec<Mutex<(Counts, Option<u64>)>>,
}

impl Round {
    /// Of this number of workers, none of which has said anything.
    pub fn new(workers: usize) -> Self {
        Self {
            is_over: AtomicBool::new(false),
            told: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether a worker has found that there is nothing to go on with.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Ends the round for all workers.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Notes how far a worker is. What it does not say stays as it was.
    pub fn tell(&self, worker: usize, counts: &Counts, frontier: Option<u64>) {
        let told = self.told[worker].lock();
        let mut told = told.unwrap_or_else(PoisonError::into_inner);
        *told = (*counts, frontier.or(told.1));
    }

    /// What all of them have done, as far as they have said.
    pub fn counts(&self) -> Counts {
        Counts::sum(self.told().map(|(counts, _)| counts))
    }

    /// How many choices they have left to try, as far as they have said.
    pub fn frontier(&self) -> Option<u64> {
        let said: Vec<_> = self.told().filter_map(|(_, frontier)| frontier).collect();
        (!said.is_empty()).then(|| said.into_iter().sum())
    }

    fn told(&self) -> impl Iterator<Item = (Counts, Option<u64>)> {
        let told = self.told.iter();
        told.map(|it| *it.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
