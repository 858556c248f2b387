//! A test as a whole: programs, what memory holds before they run, and what is claimed of the
//! values at the end. Here it is checked that its parts fit each other.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::condition::{Condition, Place, parse_place};
use crate::program::{self, Program, Variable, numbered};
use crate::syntax::{SyntaxError, number, refused};

/// What memory holds before a test, by variable.
pub type Memory = [i64; Variable::COUNT];

/// For how many outcomes the condition is claimed to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// At least one.
    Exists,
    /// None.
    Never,
    /// All.
    ForAll,
}

impl Quantifier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exists, Self::Never, Self::ForAll];

    /// The key on the command line.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Never => "never",
            Self::ForAll => "forall",
        }
    }

    /// As herd writes it.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Never => "~exists",
            Self::ForAll => "forall",
        }
    }

    /// What herd calls such a test.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Exists => "Allowed",
            Self::Never => "Forbidden",
            Self::ForAll => "Required",
        }
    }
}

/// What a test claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For how many outcomes it holds.
    pub quantifier: Quantifier,
    /// The condition.
    pub condition: Condition,
}

impl Claim {
    /// Whether an outcome decides the claim: a witness for *exists* and against *never*, a
    /// counterexample to *forall*.
    pub fn is_decided_by(&self, value: &impl Fn(&Place) -> Option<i64>) -> bool {
        self.condition.holds(value) != (self.quantifier == Quantifier::ForAll)
    }

    /// Whether an outcome is one that must not be.
    pub fn forbids(&self, value: &impl Fn(&Place) -> Option<i64>) -> bool {
        self.quantifier != Quantifier::Exists && self.is_decided_by(value)
    }
}

/// As herd writes it.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            quantifier,
            condition,
        } = self;
        write!(f, "{} ({})", quantifier.in_words(), condition.in_words())
    }
}

/// Where the value of a place comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The value that this CPU has read, by the number of the read from 0.
    Loaded(usize, usize),
    /// The value that a handler of this CPU has read, by the number of the read from 0.
    Handled(usize, usize),
    /// The value in memory at the end.
    Memory(Variable),
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// By CPU: what it does.
    pub programs: Vec<Program>,
    /// What memory holds before.
    pub initial: Memory,
    /// What is claimed.
    pub claim: Claim,
    places: Vec<Place>,
    sources: Vec<Source>,
}

impl Test {
    /// The test that is made of these parts. Outcomes consist of the places of the condition and of
    /// `others`.
    ///
    /// # Errors
    /// For a place that does not exist.
    pub fn new(
        name: &str,
        programs: Vec<Program>,
        initial: Memory,
        claim: Claim,
        others: &[Place],
    ) -> Result<Self, SyntaxError> {
        let mut places = claim.condition.places();
        places.extend_from_slice(others);
        places.sort();
        places.dedup();
        let mut test = Self {
            name: name.to_owned(),
            programs,
            initial,
            claim,
            places: Vec::new(),
            sources: Vec::new(),
        };
        let sources: Result<_, _> = places.iter().map(|place| test.source(place)).collect();
        test.sources = sources?;
        test.places = places;
        Ok(test)
    }

    /// The places that make up an outcome: those that the condition names, and those that were
    /// asked for besides, in order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Where the value of each place comes from.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn source(&self, place: &Place) -> Result<Source, SyntaxError> {
        let (cpu, name) = match place {
            Place::Variable(variable) => return Ok(Source::Memory(*variable)),
            Place::Register(cpu, name) => (*cpu, name),
        };
        let Some(program) = self.programs.get(cpu) else {
            let cpus = self.programs.len();
            return refused(format!(
                "\"{place}\": the test has {cpus} programs, from 0 on"
            ));
        };
        if let Some(nth) = program.register(name) {
            return Ok(Source::Loaded(cpu, nth));
        }
        match numbered(name, 'h') {
            Some(nth) if nth < self.sent_to(cpu) => Ok(Source::Handled(cpu, nth)),
            _ => refused(format!(
                "\"{place}\": CPU {cpu} reads {} values, and its handler at most {}",
                program.loads(),
                self.sent_to(cpu)
            )),
        }
    }

    /// How many interrupts are sent to `cpu`. Several can be coalesced into one.
    pub fn sent_to(&self, cpu: usize) -> usize {
        let steps = self.programs.iter().flat_map(|program| &program.steps);
        let is_to =
            |instruction| matches!(instruction, program::Instruction::Send(to, _) if to == cpu);
        steps.filter(|step| is_to(step.instruction)).count()
    }

    /// Whether it sends, disables or enables interrupts.
    pub fn interrupts(&self) -> bool {
        let mut steps = self.programs.iter().flat_map(|program| &program.steps);
        steps.any(|step| step.instruction.interrupts())
    }

    /// By variable: whether the test accesses it, or an outcome contains it.
    pub fn variables(&self) -> [bool; Variable::COUNT] {
        let mut used = [false; Variable::COUNT];
        let steps = self.programs.iter().flat_map(|program| &program.steps);
        let accessed = steps.filter_map(|step| match step.instruction {
            program::Instruction::Send(_, variable) => Some(variable),
            other => other.variable(),
        });
        let reported = self.places.iter().filter_map(|place| match place {
            Place::Variable(variable) => Some(*variable),
            Place::Register(..) => None,
        });
        accessed
            .chain(reported)
            .for_each(|variable| used[variable as usize] = true);
        used
    }
}

/// Checks that `name` can be the name of a test, which is a word of a command line.
///
/// # Errors
/// If it cannot.
pub fn check_name(name: &str) -> Result<(), SyntaxError> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_.[]".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_part) {
        return refused(format!(
            "\"{name}\" is no name of a test, such as SB+mfences"
        ));
    }
    Ok(())
}

/// Reads what memory holds before a test, such as `x=1,y=2`; it is 0 where nothing is said.
///
/// # Errors
/// Says what makes no sense.
pub fn parse_initial(text: &str) -> Result<Memory, SyntaxError> {
    let mut initial = Memory::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return refused(format!("\"{part}\" is no initial value such as x=1"));
        };
        initial[Variable::named(name)? as usize] = number(value)?;
    }
    Ok(initial)
}

/// `initial` as it is read.
pub fn print_initial(initial: &Memory) -> String {
    let values = Variable::ALL
        .iter()
        .zip(initial)
        .filter(|(_, value)| **value != 0);
    let values: Vec<_> = values
        .map(|(at, value)| format!("{}={value}", at.name()))
        .collect();
    values.join(",")
}

/// Reads a list of places, such as `0:r0,x`.
///
/// # Errors
/// Says what makes no sense.
pub fn parse_places(text: &str) -> Result<Vec<Place>, SyntaxError> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(parse_place)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The test with these programs and this claim, on memory that is zero.
    pub(crate) fn test_of(programs: &str, quantifier: Quantifier, condition: &str) -> Test {
        let claim = Claim {
            quantifier,
            condition: Condition::parse(condition).unwrap(),
        };
        let programs = program::parse(programs).unwrap();
        Test::new("T", programs, Memory::default(), claim, &[]).unwrap()
    }

    #[test]
    fn a_place_has_a_source() {
        let programs = "0:load,x;xchg,y,1,rax;send,1,x|1:irqs-off";
        let test = test_of(programs, Quantifier::Exists, "0:rax=1&1:h0=0&y=1");
        let sources: Vec<_> = test.places.iter().map(|place| test.source(place)).collect();
        assert_eq!(
            sources,
            [
                Ok(Source::Loaded(0, 1)),
                Ok(Source::Handled(1, 0)),
                Ok(Source::Memory(Variable::Y))
            ]
        );
        for (place, what) in [
            (Place::Register(0, "rbx".into()), "CPU 0 reads 2 values"),
            (Place::Register(1, "r0".into()), "CPU 1 reads 0 values"),
            (Place::Register(1, "h1".into()), "its handler at most 1"),
            (Place::Register(2, "r0".into()), "the test has 2 programs"),
        ] {
            let error = test.source(&place).unwrap_err().0;
            assert!(error.contains(what), "{place}: {error}");
        }
    }

    #[test]
    fn an_outcome_decides_by_the_quantifier() {
        let value = |_: &Place| Some(1);
        for (quantifier, condition, decides, forbids) in [
            (Quantifier::Exists, "x=1", true, false),
            (Quantifier::Exists, "x=0", false, false),
            (Quantifier::Never, "x=1", true, true),
            (Quantifier::Never, "x=0", false, false),
            (Quantifier::ForAll, "x=1", false, false),
            (Quantifier::ForAll, "x=0", true, true),
        ] {
            let claim = test_of("0:", quantifier, condition).claim;
            assert_eq!(claim.is_decided_by(&value), decides, "{claim}");
            assert_eq!(claim.forbids(&value), forbids, "{claim}");
        }
    }

    #[test]
    fn initial_values_are_read_and_written() {
        let initial = parse_initial("y=2,x=-1").unwrap();
        assert_eq!(initial, [-1, 2, 0, 0, 0, 0]);
        assert_eq!(print_initial(&initial), "x=-1,y=2");
        for text in ["x", "u=1", "x=y", "x=1;y=2"] {
            assert!(parse_initial(text).is_err(), "{text}");
        }
    }
}
