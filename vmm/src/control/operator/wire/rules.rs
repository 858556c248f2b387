//! What becomes of the IPIs that are sent: for one pair of CPUs, or for all, which of them pass,
//! which are held and which are delayed. Of several rules for an IPI the newest counts.

use std::time::Duration;

use super::ipi::WireIpi;
use super::selection::Selection;

/// Most rules of one pair. A client could add rules for calls that were never made.
const MOST: usize = 64;

/// What becomes of an IPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It is delivered at once.
    Pass,
    /// It stays on the wire.
    Hold,
    /// It is delivered so much later.
    Delay(Duration),
}

/// What becomes of these IPIs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Which they are; `None` means all.
    pub selection: Option<Selection>,
    pub treatment: Treatment,
    /// When it was made, among all rules of the wire.
    order: u64,
}

/// There is no room for another rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wire has {MOST} rules for this already; release the pair, and begin again")]
pub struct TooManyRules;

/// Rules, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Adds a rule. Older ones on the same IPIs go; one on all IPIs replaces all.
    pub fn add(
        &mut self,
        selection: Option<Selection>,
        treatment: Treatment,
        order: u64,
    ) -> Result<(), TooManyRules> {
        self.forget(selection);
        if self.0.len() >= MOST {
            return Err(TooManyRules);
        }
        self.0.push(Rule {
            selection,
            treatment,
            order,
        });
        Ok(())
    }

    /// Removes the rules on these IPIs.
    pub fn forget(&mut self, selection: Option<Selection>) {
        let goes = |rule: &Rule| selection.is_none() || rule.selection == selection;
        self.0.retain(|rule| !goes(rule));
    }

    /// The newest rule on `ipi`.
    pub fn on(&self, ipi: &WireIpi, wakes: &[u8]) -> Option<Rule> {
        let mut newest_first = self.0.iter().rev();
        let is_meant = |rule: &&Rule| rule.selection.is_none_or(|it| it.matches(ipi, wakes));
        newest_first.find(is_meant).copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    /// The newer of two.
    pub fn newer(self, other: Self) -> Self {
        if self.order > other.order {
            self
        } else {
            other
        }
    }
}
