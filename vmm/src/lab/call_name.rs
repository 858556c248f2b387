//! The name of a call in reports, messages and requests. Formats and reads only.

use std::fmt;
use std::str::FromStr;

use shared::ledger::{CallId, Lane};

/// A call by its name: source CPU, lane, sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallName(pub CallId);

impl CallName {
    /// The name without the noun before it: `0:0:2`.
    pub fn bare(self) -> String {
        let Self(id) = self;
        format!("{}:{}:{}", id.source(), id.lane() as u32, id.sequence())
    }
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}", self.bare())
    }
}

/// The parts of a call's name. They say which call it is, but not which function it calls, so that
/// only the ledger knows the whole id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallParts {
    /// The CPU that made it.
    pub source: u32,
    /// The context that made it.
    pub lane: Lane,
    /// Its number in that lane, from 1.
    pub sequence: u64,
}

impl fmt::Display for CallParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            lane,
            sequence,
        } = self;
        write!(f, "call {source}:{}:{sequence}", *lane as u32)
    }
}

/// A text that is not the name of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no name of a call, which is made of its source CPU, lane (0 or 1) and number, such \
     as 0:0:2"
)]
pub struct NotACall(String);

impl FromStr for CallParts {
    type Err = NotACall;

    fn from_str(text: &str) -> Result<Self, NotACall> {
        let parts: Vec<_> = text.split(':').collect();
        let read = || {
            let [source, lane, sequence] = parts[..] else {
                return None;
            };
            Some(Self {
                source: source.parse().ok()?,
                lane: match lane {
                    "0" => Lane::Task,
                    "1" => Lane::Handler,
                    _ => return None,
                },
                sequence: sequence.parse().ok().filter(|number| *number > 0)?,
            })
        };
        read().ok_or_else(|| NotACall(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = CallName(CallId::new(3, 7, Lane::Handler, 12)).bare();
        assert_eq!(name, "3:1:12");
        let parts: CallParts = name.parse().unwrap();
        assert_eq!(parts.to_string(), "call 3:1:12");
        assert_eq!(parts.lane, Lane::Handler);
        for rubbish in [
            "", "3", "3:1", "3:2:1", "3:0:0", "3:0:1:1", "-1:0:1", "a:0:1", "3:0: 1",
        ] {
            assert!(rubbish.parse::<CallParts>().is_err(), "{rubbish}");
        }
    }
}
