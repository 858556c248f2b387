//! What an exploration came to: the verdict, and what the search did and learnt. Plain data; its
//! form in files is in [`super::result`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answers::Answer;
use super::condition::Condition;
use super::schedule::{Schedule, Turn};
use super::search::seen::States;
use super::search::{Counterexample, Counts};
use super::sharing::Sharing;
use super::specimen::Breach;
use super::stop_reason::StopReason;
use crate::provenance::Provenance;

/// The verdict of a search.
#[derive(Debug)]
pub enum SearchVerdict {
    /// The reference search found that the case breaks, in each of these ways.
    Refuted {
        /// The ways.
        ways: Vec<Counterexample>,
        /// Why not all orders were tried, if so. There can be more ways then.
        stopped: Option<StopReason>,
    },
    /// The case breaks.
    Broke {
        /// What breaks, and how.
        breach: Breach,
        /// The schedule that was found, shortened.
        schedule: Box<Schedule>,
        /// The number of turns before the schedule was shortened.
        found_with: usize,
    },
    /// No order breaks anything.
    Complete,
    /// No order with at most this many preemptions breaks anything.
    BoundedComplete(u32),
    /// None of this many orders broke anything.
    Sampled(u64),
    /// The search stopped before it was through.
    Stopped(StopReason),
}

/// A way in which the case breaks, past which the search has gone on.
#[derive(Debug)]
pub struct Way {
    /// What breaks.
    pub breach: Breach,
    /// The schedule that was found, shortened.
    pub schedule: Box<Schedule>,
    /// The number of turns before the schedule was shortened.
    pub found_with: usize,
}

/// What became of a condition of the case.
#[derive(Debug)]
pub struct ConditionOutcome {
    /// The condition.
    pub condition: Condition,
    /// An order that reaches it; `None` if none did that was tried.
    pub reached: Option<Reached>,
    /// Whether it could be told at each end whether the condition holds there.
    pub could_be_told: bool,
}

/// An order that reaches a condition.
#[derive(Debug)]
pub enum Reached {
    /// A schedule, shortened.
    Schedule(Box<Schedule>),
    /// The steps of the reference search.
    Steps(Vec<Turn>),
}

/// The verdict of a search, and what the search did.
#[derive(Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: SearchVerdict,
    /// If the search goes on past what breaks: every kind of breach. The verdict says then of which
    /// orders these are all.
    pub ways: Vec<Way>,
    /// The data races, if the search lists them.
    pub races: Vec<Way>,
    /// Whether there are more kinds of both than these, for which there was no room.
    pub more_ways: bool,
    /// What became of the conditions of the case.
    pub conditions: Vec<ConditionOutcome>,
    /// An order that breaks nothing, if one was asked for and an order came to its end.
    pub witness: Option<Box<Schedule>>,
    /// What the search did.
    pub counts: Counts,
    /// How long the search took, from the end of the boot until something broke or nothing was left
    /// to try.
    pub time: Duration,
    /// How long it took to shorten the schedule that was found.
    pub shortening: Duration,
    /// What is known about the memory that CPUs share.
    pub sharing: Sharing,
    /// What the case expects: any one of these breaches, or none if it is empty.
    pub expected: Vec<String>,
    /// Where this outcome comes from.
    pub provenance: Provenance,
    /// The hash of the guest's image.
    pub image: String,
    /// One sentence for each option of the guest that can show nothing in a search of this kind.
    pub warnings: Vec<String>,
    /// The key of the initial state.
    pub begins: String,
    /// The states that the search has seen, if it has kept them.
    pub states: States,
    /// What the CPUs answered to the deeds of the case.
    pub answers: Vec<Answer>,
    /// The hashes of the final states ([`super::specimen::Specimen::outcome`]).
    pub outcomes: BTreeSet<u128>,
    /// The names of the words that were accessed, by address, as far as they have one.
    pub words: BTreeMap<String, String>,
}

impl Outcome {
    /// Whether what broke, or did not, is what the case expects; `None` if the search has not decided it.
    pub fn is_expected(&self) -> Option<bool> {
        let is_expected =
            |breach: &Breach| (breach.names.iter()).any(|name| self.expected.contains(name));
        if !self.ways.is_empty() {
            return Some(self.ways.iter().all(|way| is_expected(&way.breach)));
        }
        match &self.verdict {
            SearchVerdict::Broke { breach, .. } => Some(is_expected(breach)),
            SearchVerdict::Refuted { ways, .. } => {
                Some(ways.iter().all(|found| is_expected(&found.breach)))
            }
            SearchVerdict::Stopped(_) => None,
            SearchVerdict::Complete => Some(self.expected.is_empty()),
            // An expected breach can need an order that was not tried.
            SearchVerdict::BoundedComplete(_) | SearchVerdict::Sampled(_) => {
                self.expected.is_empty().then_some(true)
            }
        }
    }
}
