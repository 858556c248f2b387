//! What a test claims of the values at its end: comparisons of registers and variables, with *and*,
//! *or* and *not*, in herd's syntax or without spaces (`0:r0=0&1:r0=0`).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::program::{MOST_PROGRAMS, Variable, is_register};
use crate::syntax::{SyntaxError, number, refused};

/// How deep a condition can be nested.
const DEEPEST: usize = 32;

/// How many comparisons it can have.
const MOST_COMPARISONS: usize = 64;

/// Where a value is at the end of a test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The register of this name, of this CPU.
    Register(usize, String),
    /// A word of memory.
    Variable(Variable),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(cpu, name) => write!(f, "{cpu}:{name}"),
            Self::Variable(variable) => f.write_str(variable.name()),
        }
    }
}

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The place has this value.
    Is(Place, i64),
    /// The claim does not hold.
    Not(Box<Self>),
    /// Both hold.
    And(Box<Self>, Box<Self>),
    /// At least one holds.
    Or(Box<Self>, Box<Self>),
    /// Holds, or does not, whatever the values are.
    Constant(bool),
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// Says what makes no sense.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut reader = Reader {
            rest: text,
            depth: 0,
            comparisons: 0,
        };
        let condition = reader.any()?;
        match reader.rest.trim() {
            "" => Ok(condition),
            rest => refused(format!("\"{rest}\" makes no sense behind a condition")),
        }
    }

    /// Whether it holds, where `value` gives the value of each place. A place without a value, such
    /// as a register into which nothing was read, equals nothing.
    pub fn holds(&self, value: &impl Fn(&Place) -> Option<i64>) -> bool {
        match self {
            Self::Is(place, wanted) => value(place) == Some(*wanted),
            Self::Not(claim) => !claim.holds(value),
            Self::And(one, other) => one.holds(value) && other.holds(value),
            Self::Or(one, other) => one.holds(value) || other.holds(value),
            Self::Constant(holds) => *holds,
        }
    }

    /// Every place that it names, each once, registers first.
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        self.collect(&mut places);
        places.sort();
        places.dedup();
        places
    }

    fn collect(&self, places: &mut Vec<Place>) {
        match self {
            Self::Is(place, _) => places.push(place.clone()),
            Self::Not(claim) => claim.collect(places),
            Self::And(one, other) | Self::Or(one, other) => {
                one.collect(places);
                other.collect(places);
            }
            Self::Constant(_) => {}
        }
    }

    /// The same condition on other places.
    pub fn renamed(&self, rename: &impl Fn(&Place) -> Place) -> Self {
        let boxed = |claim: &Self| Box::new(claim.renamed(rename));
        match self {
            Self::Is(place, value) => Self::Is(rename(place), *value),
            Self::Not(claim) => Self::Not(boxed(claim)),
            Self::And(one, other) => Self::And(boxed(one), boxed(other)),
            Self::Or(one, other) => Self::Or(boxed(one), boxed(other)),
            Self::Constant(holds) => Self::Constant(*holds),
        }
    }

    /// As herd writes it.
    pub fn in_words(&self) -> impl fmt::Display {
        Written {
            condition: self,
            and: " /\\ ",
            or: " \\/ ",
            not: "not ",
        }
    }
}

/// Without spaces.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written {
            condition: self,
            and: "&",
            or: "|",
            not: "~",
        };
        written.fmt(f)
    }
}

/// A condition, and the notation in which it is written.
struct Written<'a> {
    condition: &'a Condition,
    and: &'static str,
    or: &'static str,
    not: &'static str,
}

impl Written<'_> {
    /// Writes `condition`, in parentheses if it binds less than `strength`.
    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        condition: &Condition,
        strength: u8,
    ) -> fmt::Result {
        let (own, parts) = match condition {
            Condition::Is(place, value) => return write!(f, "{place}={value}"),
            Condition::Constant(holds) => return write!(f, "{holds}"),
            Condition::Not(claim) => {
                f.write_str(self.not)?;
                return self.write(f, claim, 2);
            }
            Condition::And(one, other) => (1, (one, self.and, other)),
            Condition::Or(one, other) => (0, (one, self.or, other)),
        };
        let [open, close] = if own < strength { ["(", ")"] } else { ["", ""] };
        let (one, between, other) = parts;
        f.write_str(open)?;
        self.write(f, one, own)?;
        f.write_str(between)?;
        // Without parentheses, a text is grouped from the left.
        self.write(f, other, own + 1)?;
        f.write_str(close)
    }
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, self.condition, 0)
    }
}

/// The rest of a text, which has not been read yet.
struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    comparisons: usize,
}

impl Reader<'_> {
    /// Skips the first of `tokens` with which the rest begins, and returns whether there was one.
    fn takes(&mut self, tokens: &[&str]) -> bool {
        self.rest = self.rest.trim_start();
        let found = tokens
            .iter()
            .find_map(|token| self.rest.strip_prefix(token));
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// Skips the word `not`, and returns whether it was there.
    fn takes_not(&mut self) -> bool {
        let rest = self.rest.strip_prefix("not");
        let rest = rest.filter(|rest| rest.starts_with([' ', '(', '~']));
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn any(&mut self) -> Result<Condition, SyntaxError> {
        let mut claim = self.all()?;
        while self.takes(&["\\/", "||", "|"]) {
            claim = Condition::Or(Box::new(claim), Box::new(self.all()?));
        }
        Ok(claim)
    }

    fn all(&mut self) -> Result<Condition, SyntaxError> {
        let mut claim = self.one()?;
        while self.takes(&["/\\", "&&", "&"]) {
            claim = Condition::And(Box::new(claim), Box::new(self.one()?));
        }
        Ok(claim)
    }

    fn one(&mut self) -> Result<Condition, SyntaxError> {
        if self.depth == DEEPEST {
            return refused(format!("a condition is nested at most {DEEPEST} deep"));
        }
        self.depth += 1;
        let claim = if self.takes(&["~"]) || self.takes_not() {
            Condition::Not(Box::new(self.one()?))
        } else if self.takes(&["("]) {
            let claim = self.any()?;
            if !self.takes(&[")"]) {
                return refused("a parenthesis is not closed");
            }
            claim
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(claim)
    }

    fn comparison(&mut self) -> Result<Condition, SyntaxError> {
        if self.comparisons == MOST_COMPARISONS {
            return refused(format!(
                "a condition has at most {MOST_COMPARISONS} comparisons"
            ));
        }
        self.comparisons += 1;
        let place = self.word();
        match place {
            "true" => return Ok(Condition::Constant(true)),
            "false" => return Ok(Condition::Constant(false)),
            "" => {
                return refused(format!(
                    "a comparison such as 0:r0=1 or x=2 is missing{}",
                    self.at()
                ));
            }
            _ => {}
        }
        let place = parse_place(place)?;
        if !self.takes(&["="]) {
            return refused(format!("\"{place}\" has to be followed by = and a number"));
        }
        self.rest = self.rest.trim_start();
        let value = number(self.word())?;
        Ok(Condition::Is(place, value))
    }

    /// The letters, digits, brackets, colons and signs that stand there.
    fn word(&mut self) -> &str {
        let is_part = |it: char| it.is_alphanumeric() || matches!(it, ':' | '[' | ']' | '-' | '_');
        let end = self.rest.find(|it| !is_part(it)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn at(&self) -> String {
        match self.rest {
            "" => String::new(),
            rest => format!(" before \"{rest}\""),
        }
    }
}

/// Reads a place, such as `0:r0`, `x` or `[x]`.
///
/// # Errors
/// Says what makes no sense.
pub fn parse_place(text: &str) -> Result<Place, SyntaxError> {
    let Some((cpu, register)) = text.split_once(':') else {
        let name = text
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        return Variable::named(name.unwrap_or(text)).map(Place::Variable);
    };
    let cpu = number(cpu).ok().and_then(|cpu| usize::try_from(cpu).ok());
    match cpu.filter(|cpu| *cpu < MOST_PROGRAMS) {
        Some(cpu) if is_register(register) => Ok(Place::Register(cpu, register.to_owned())),
        _ => refused(format!("\"{text}\" is no register of a CPU such as 0:r0")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::program::tests::a_variable;
    use proptest::prelude::*;

    fn conditions() -> impl Strategy<Value = Condition> {
        let place = prop_oneof![
            (0..MOST_PROGRAMS, "[a-z][a-z0-9]{0,3}")
                .prop_map(|(cpu, name)| Place::Register(cpu, name)),
            a_variable().prop_map(Place::Variable),
        ];
        let leaf = prop_oneof![
            4 => (place, any::<i64>()).prop_map(|(place, value)| Condition::Is(place, value)),
            1 => any::<bool>().prop_map(Condition::Constant),
        ];
        leaf.prop_recursive(5, 24, 2, |inner| {
            prop_oneof![
                inner
                    .clone()
                    .prop_map(|claim| Condition::Not(Box::new(claim))),
                (inner.clone(), inner.clone())
                    .prop_map(|(one, other)| Condition::And(Box::new(one), Box::new(other))),
                (inner.clone(), inner)
                    .prop_map(|(one, other)| Condition::Or(Box::new(one), Box::new(other))),
            ]
        })
    }

    fn holds(text: &str) -> bool {
        let value = |place: &Place| match &*format!("{place}") {
            "0:r0" | "x" => Some(1),
            "1:rax" => Some(-2),
            _ => None,
        };
        Condition::parse(text).unwrap().holds(&value)
    }

    #[test]
    fn a_condition_is_what_it_says() {
        for text in [
            "0:r0=1",
            "0:r0=1&x=1",
            "0:r0=1 /\\ 1:rax=-2",
            "( 0:r0=0 \\/ [x]=1 )",
            "~(0:r0=0)",
            "not 0:r0=0",
            "not (0:r0=0 \\/ x=7)",
            "0:r0=0&0:r0=0|x=0x1",
            "true",
            "~false&true",
            "~1:h0=0",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in ["0:r0=0", "0:r0=1&(x=0|1:rax=2)", "1:h0=0", "~(x=1)&true"] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn it_is_written_as_herd_does_or_without_blanks() {
        let condition = Condition::parse("(0:rax=0 /\\ (x=1 \\/ y=2)) /\\ ~(z=3)").unwrap();
        assert_eq!(condition.to_string(), "0:rax=0&(x=1|y=2)&~z=3");
        let written = condition.in_words().to_string();
        assert_eq!(written, "0:rax=0 /\\ (x=1 \\/ y=2) /\\ not z=3");
        assert_eq!(Condition::parse(&written), Ok(condition));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, what) in [
            ("", "is missing"),
            ("(x=1", "is not closed"),
            ("x=1)", "\")\" makes no sense"),
            ("x", "followed by ="),
            ("x=", "is no number"),
            ("x=1&", "is missing"),
            ("x==1", "is no number"),
            ("u=1", "there are x, y"),
            ("16:r0=1", "is no register"),
            ("0:=1", "is no register"),
            ("0:r 0=1", "followed by ="),
            ("&x=1", "before \"&x=1\""),
        ] {
            let error = Condition::parse(text).unwrap_err().0;
            assert!(error.contains(what), "{text}: {error}");
        }
        let deep = format!("{}x=1", "~".repeat(100_000));
        assert!(Condition::parse(&deep).unwrap_err().0.contains("32 deep"));
        let long = "x=1&".repeat(100_000);
        assert!(
            Condition::parse(&long)
                .unwrap_err()
                .0
                .contains("at most 64 comparisons")
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(condition in conditions()) {
            prop_assert_eq!(Condition::parse(&condition.to_string()), Ok(condition.clone()));
            prop_assert_eq!(Condition::parse(&condition.in_words().to_string()), Ok(condition));
        }

        #[test]
        fn no_text_panics(text in "([0-9]|:|=|&|\\||~|\\(|\\)|/\\\\|x|r0|not |\\PC)*") {
            let _ = Condition::parse(&text);
        }
    }
}
