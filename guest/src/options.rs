//! The guest's command line: `key=value` words, separated by spaces.
//!
//! A word that is not understood is an error, not a default: a misspelled queue that ran as another
//! would give a wrong answer with a straight face.

use core::fmt;
use core::num::ParseIntError;
use core::str::SplitAsciiWhitespace;

use shared::lab::Transport;

use crate::ipi::queue::QueueKind;

/// What a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `queue=`: the design that carries calls to many.
    pub queue: QueueKind,
    /// `transport=`: how IPIs leave a CPU; `None` takes x2APIC where there is one.
    pub transport: Option<Transport>,
    /// `calls=`: how many calls with a random mask every CPU makes; `None` makes so many that a large
    /// machine does not take for ever.
    pub calls: Option<u32>,
    /// `seed=`: where the random masks come from; equal seeds give equal calls.
    pub seed: u64,
    /// `lab=`: guest-physical address of the lab pages, if the monitor offers them.
    pub lab: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: QueueKind::Filo,
            transport: None,
            calls: None,
            seed: 1,
            lab: None,
        }
    }
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError<'a> {
    /// A word without `=`, or with an unknown key.
    UnknownKey(&'a str),
    /// A value that is not one of the names the key takes.
    UnknownName(&'a str, &'a str),
    /// A value that is not a number.
    NotANumber(&'a str, &'a str),
}

impl fmt::Display for OptionsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey(word) => write!(
                f,
                "command line: \"{word}\" is not an option; there are workload=, queue=, \
                 transport=, calls=, seed= and lab="
            ),
            Self::UnknownName(key, value) => {
                write!(
                    f,
                    "command line: {key}={value} is unknown; {key}= takes one of"
                )?;
                match *key {
                    "queue" => QueueKind::ALL
                        .iter()
                        .try_for_each(|kind| write!(f, " {}", kind.name())),
                    "transport" => Transport::ALL
                        .iter()
                        .try_for_each(|kind| write!(f, " {}", kind.name())),
                    _ => f.write_str(" selftest"),
                }
            }
            Self::NotANumber(key, value) => {
                write!(
                    f,
                    "command line: {key}={value} is not a number, decimal or 0x…"
                )
            }
        }
    }
}

fn number(text: &str) -> Result<u64, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

impl Options {
    /// Reads a command line. Later words override earlier ones.
    ///
    /// # Errors
    /// For the first word that is not understood.
    pub fn parse(line: &str) -> Result<Self, OptionsError<'_>> {
        let words: SplitAsciiWhitespace<'_> = line.split_ascii_whitespace();
        let mut options = Self::default();
        for word in words {
            let (key, value) = word.split_once('=').ok_or(OptionsError::UnknownKey(word))?;
            let unknown = OptionsError::UnknownName(key, value);
            let not_a_number = |_| OptionsError::NotANumber(key, value);
            match key {
                "workload" if value == "selftest" => {}
                "workload" => return Err(unknown),
                "queue" => options.queue = QueueKind::from_name(value).ok_or(unknown)?,
                "transport" => {
                    let named = |kind: &Transport| kind.name() == value;
                    options.transport =
                        Some(Transport::ALL.into_iter().find(named).ok_or(unknown)?);
                }
                "calls" => {
                    let calls = number(value).map_err(not_a_number)?;
                    let calls = u32::try_from(calls);
                    options.calls = Some(calls.map_err(|_| OptionsError::NotANumber(key, value))?);
                }
                "seed" => options.seed = number(value).map_err(not_a_number)?,
                "lab" => options.lab = Some(number(value).map_err(not_a_number)?),
                _ => return Err(OptionsError::UnknownKey(word)),
            }
        }
        Ok(options)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_read() {
        let line = "workload=selftest queue=filo transport=xapic calls=3 seed=0x10 lab=0x3f00000";
        assert_eq!(
            Options::parse(line),
            Ok(Options {
                queue: QueueKind::Filo,
                transport: Some(Transport::Xapic),
                calls: Some(3),
                seed: 16,
                lab: Some(0x3f0_0000),
            })
        );
        assert_eq!(Options::parse(" "), Ok(Options::default()));
    }

    #[test]
    fn nothing_is_guessed() {
        let refused = |line| Options::parse(line).unwrap_err();
        assert_eq!(refused("quue=filo"), OptionsError::UnknownKey("quue=filo"));
        assert_eq!(refused("quiet"), OptionsError::UnknownKey("quiet"));
        assert_eq!(
            refused("queue=lifo"),
            OptionsError::UnknownName("queue", "lifo")
        );
        assert_eq!(
            refused("workload=x"),
            OptionsError::UnknownName("workload", "x")
        );
        assert_eq!(refused("calls=x"), OptionsError::NotANumber("calls", "x"));
        assert_eq!(
            refused("calls=0x100000000"),
            OptionsError::NotANumber("calls", "0x100000000")
        );
        assert!(refused("queue=lifo").to_string().contains("filo"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*") {
            let _ = Options::parse(&line);
        }
    }
}
