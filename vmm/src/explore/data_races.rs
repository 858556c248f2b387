//! What a search does about data races. What one is, is in [`super::specimen::data_race`]. Plain
//! data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a search does about data races.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataRaces {
    /// It does not look for them.
    #[default]
    Ignored,
    /// It lists them. They change nothing about its verdict.
    Reported,
    /// One is a breach, by the name of `data-race`.
    Breaches,
}

impl DataRaces {
    /// Whether it looks for them.
    pub fn are_wanted(self) -> bool {
        self != Self::Ignored
    }
}
