//! Conditions: what a case wants to be reached, or never to be, as text. A condition is about the
//! ends of orders, or about every state on the way. Plain data: what it means for a machine is found
//! out in [`super::specimen`], and which orders have to be tried for it in [`super::search`].
//!
//! ```text
//! reach ran 0:0:1 on 2 and GUEST.ipi.many.count = 3
//! never on the way at 0 csd.rs:120 and at 1 csd.rs:120
//! ```

use std::fmt;

use crate::cpus::CpuSet;
use crate::lab::call_name::CallParts;

/// The most conditions that a case can have: they are bits of a word.
pub const MOST: usize = 64;

/// What a case says of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether it must never hold. Otherwise some order must reach it.
    pub is_never: bool,
    /// Whether it is about every state, and not only about ends.
    pub on_the_way: bool,
    /// Its parts, all of which have to hold.
    pub parts: Vec<Part>,
    /// Its line, with a blank between words.
    text: String,
}

/// A part of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whether it holds if what it says does not.
    pub is_not: bool,
    /// What it says.
    pub says: Says,
}

/// What a part of a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// A call has run on all of these CPUs, by the ledger.
    Ran(CallParts, CpuSet),
    /// A CPU stands at a line of the source, `file:line`, or is idle.
    At(u32, String),
    /// A number of guest memory compares with another one like this.
    Word {
        /// Its name, or its address.
        name: String,
        /// How many bytes it has, if it was said.
        bytes: Option<u8>,
        /// How it compares.
        is: Comparison,
        /// With what.
        number: u64,
    },
}

/// How a number compares with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It is equal.
    Equal,
    /// It is another one.
    Other,
    /// It is less.
    Less,
    /// It is greater.
    Greater,
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "!=" => Self::Other,
            "<" => Self::Less,
            ">" => Self::Greater,
            _ => return None,
        })
    }

    /// Whether `one` compares with `other` like this.
    pub fn holds(self, one: u64, other: u64) -> bool {
        match self {
            Self::Equal => one == other,
            Self::Other => one != other,
            Self::Less => one < other,
            Self::Greater => one > other,
        }
    }
}

/// What CPUs do when they have nothing to do, in place of a line of the source.
pub const IDLE: &str = "idle";

impl Condition {
    /// Reads what stands behind `reach`, or behind `never`, about this number of CPUs.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(is_never: bool, text: &str, cpus: u32) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (on_the_way, rest) = match &words[..] {
            ["on", "the", "way", rest @ ..] => (true, rest),
            all => (false, all),
        };
        let parts = rest.split(|word| *word == "and");
        let parts = parts.map(|words| part(words, cpus));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let is_at = |part: &Part| matches!(part.says, Says::At(..));
        if !on_the_way && parts.iter().any(is_at) {
            let why = "at an end all CPUs are idle: write \"on the way\" in front of a condition \
                       that says where one is";
            return Err(why.to_owned());
        }
        let verb = if is_never { "never" } else { "reach" };
        Ok(Self {
            is_never,
            on_the_way,
            parts,
            text: format!("{verb} {}", words.join(" ")),
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn part(words: &[&str], cpus: u32) -> Result<Part, String> {
    let (is_not, words) = match words {
        ["not", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let known = |cpu: u32| match cpu < cpus {
        true => Ok(cpu),
        false => Err(format!("there is no CPU {cpu}; they are 0 to {}", cpus - 1)),
    };
    let says = match words {
        ["ran", call, "on", list] => {
            let call: CallParts = call.parse().map_err(|error| format!("{error}"))?;
            let on: CpuSet =
                (list.parse()).map_err(|_| format!("\"{list}\" is no list of CPUs"))?;
            known(call.source)?;
            on.iter().try_for_each(|cpu| known(cpu).map(|_| ()))?;
            Says::Ran(call, on)
        }
        ["at", cpu, place] => {
            let cpu = cpu.parse().map_err(|_| format!("\"{cpu}\" is no CPU"))?;
            let is_line = |place: &str| {
                let line = place.rsplit_once(':');
                line.is_some_and(|(file, line)| !file.is_empty() && line.parse::<u32>().is_ok())
            };
            if *place != IDLE && !is_line(place) {
                return Err(format!("\"{place}\" is neither {IDLE} nor FILE:LINE"));
            }
            Says::At(known(cpu)?, (*place).to_owned())
        }
        [word, is, number] if Comparison::parse(is).is_some() => {
            let (name, bytes) = match word.rsplit_once(':') {
                None => (*word, None),
                Some((name, bytes @ ("1" | "2" | "4" | "8"))) => (name, bytes.parse().ok()),
                Some((_, bytes)) => {
                    return Err(format!("\"{bytes}\" bytes: there can be 1, 2, 4, 8"));
                }
            };
            Says::Word {
                name: name.to_owned(),
                bytes,
                is: Comparison::parse(is).unwrap_or(Comparison::Equal),
                number: self::number(number)
                    .ok_or_else(|| format!("\"{number}\" is no number, such as 3 or 0x1f"))?,
            }
        }
        _ => {
            let words = words.join(" ");
            return Err(format!(
                "\"{words}\" is no condition, which is \"ran CALL on CPUS\", \"at CPU FILE:LINE\", \
                 or \"WORD = N\" (=, !=, <, >), each with \"not\" in front or without, and \"and\" \
                 between them"
            ));
        }
    };
    Ok(Part { is_not, says })
}

/// A number, in decimal or as `0x…`.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Condition, String> {
        Condition::parse(false, text, 3)
    }

    #[test]
    fn conditions_are_read_and_written() {
        let it = parse("ran 0:0:1 on 1-2 and  not GUEST.a[1].b:4 != 0x1f").unwrap();
        assert_eq!(
            it.to_string(),
            "reach ran 0:0:1 on 1-2 and not GUEST.a[1].b:4 != 0x1f"
        );
        assert!(!it.on_the_way && !it.is_never);
        let [one, other] = &it.parts[..] else {
            panic!("{it:?}");
        };
        let on: CpuSet = [1, 2].into_iter().collect();
        assert_eq!(one.says, Says::Ran("0:0:1".parse().unwrap(), on));
        assert!(!one.is_not && other.is_not);
        let word = Says::Word {
            name: "GUEST.a[1].b".to_owned(),
            bytes: Some(4),
            is: Comparison::Other,
            number: 0x1f,
        };
        assert_eq!(other.says, word);
        let it = Condition::parse(true, "on the way at 2 csd.rs:120 and at 0 idle", 3).unwrap();
        assert!(it.on_the_way && it.is_never && it.parts.len() == 2);
        assert_eq!(
            it.to_string(),
            "never on the way at 2 csd.rs:120 and at 0 idle"
        );
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (text, what) in [
            ("", "\"\" is no condition"),
            ("ran 0:0:1 on 1 and", "\"\" is no condition"),
            ("ran 0:2:1 on 1", "no name of a call"),
            ("ran 0:0:1 on 3", "no CPU 3"),
            ("ran 3:0:1 on 1", "no CPU 3"),
            ("ran 0:0:1 on x", "no list of CPUs"),
            ("at 0 csd.rs:120", "on the way"),
            ("on the way at 0 csd.rs", "FILE:LINE"),
            ("on the way at 4 idle", "no CPU 4"),
            ("x = y", "no number"),
            ("x:3 = 1", "\"3\" bytes"),
            ("x == 1", "is no condition"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(on the way|not|and|ran|at|0:0:1|on|[0-9]|=|:|x| |\\PC)*") {
            if let Ok(condition) = parse(&text) {
                let words = condition.to_string();
                let rest = words.strip_prefix("reach ").unwrap();
                prop_assert_eq!(parse(rest), Ok(condition));
            }
        }
    }
}
