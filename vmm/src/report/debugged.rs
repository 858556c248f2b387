//! How a debugger stopped the vCPUs of a run. These are no stalls, and are counted apart from them. Computes
//! from what [`crate::control`] has left of the run.

use schemars::JsonSchema;
use serde::Serialize;

use crate::machine::lifecycle::StallTotals;

/// The stops of a debugger. It stops all vCPUs at once, but lets one go on alone as well.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Debugged {
    /// How often the vCPU was stopped that was stopped most.
    pub count: u64,
    /// For how many seconds in all the one was that was stopped longest.
    pub seconds: f64,
}

impl Debugged {
    /// Of the vCPUs with these totals; `None` if none was stopped.
    pub fn of(totals: &[StallTotals]) -> Option<Self> {
        let count = totals.iter().map(|it| it.times).max()?;
        let longest = totals.iter().map(|it| it.total).max()?;
        (count > 0).then_some(Self {
            count,
            seconds: longest.as_secs_f64(),
        })
    }
}
