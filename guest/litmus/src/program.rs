//! What the CPUs of a test do: a few instructions each, on named words of shared memory. And the
//! notation in which the programs are one word of the command line, such as
//! `0:store,x,1;load,y|1:load,x`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::syntax::{SyntaxError, number, refused};

/// Most programs of a test.
pub const MOST_PROGRAMS: usize = 16;

/// Most instructions of a program.
pub const MOST_STEPS: usize = 32;

/// A word of memory that CPUs share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Variable {
    /// `x`.
    X,
    /// `y`.
    Y,
    /// `z`.
    Z,
    /// `w`.
    W,
    /// `a`.
    A,
    /// `b`.
    B,
}

impl Variable {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::X, Self::Y, Self::Z, Self::W, Self::A, Self::B];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::Y => "y",
            Self::Z => "z",
            Self::W => "w",
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The one called `name`.
    ///
    /// # Errors
    /// If there is none; names those that there are.
    pub fn named(name: &str) -> Result<Self, SyntaxError> {
        match Self::ALL.into_iter().find(|it| it.name() == name) {
            Some(variable) => Ok(variable),
            None => refused(format!(
                "\"{name}\" is no variable; there are x, y, z, w, a and b"
            )),
        }
    }
}

/// What a CPU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Write.
    Store(Variable, i64),
    /// Read.
    Load(Variable),
    /// Write, and read the old value, in one access.
    Exchange(Variable, i64),
    /// Add, and read the old value, in one access.
    Add(Variable, i64),
    /// A full fence.
    Fence,
    /// Interrupt a CPU, whose handler reads the variable.
    Send(usize, Variable),
    /// Disable interrupts.
    IrqsOff,
    /// Enable them.
    IrqsOn,
}

impl Instruction {
    /// The variable that it accesses, if it does.
    pub const fn variable(self) -> Option<Variable> {
        match self {
            Self::Store(variable, _)
            | Self::Load(variable)
            | Self::Exchange(variable, _)
            | Self::Add(variable, _) => Some(variable),
            Self::Fence | Self::Send(..) | Self::IrqsOff | Self::IrqsOn => None,
        }
    }

    /// Whether it reads a value into a register.
    pub const fn loads(self) -> bool {
        matches!(self, Self::Load(_) | Self::Exchange(..) | Self::Add(..))
    }

    /// Whether it sends, disables or enables interrupts.
    pub const fn interrupts(self) -> bool {
        matches!(self, Self::Send(..) | Self::IrqsOff | Self::IrqsOn)
    }
}

/// An instruction of a program, and the name of the register into which it reads, if it was given
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the CPU does.
    pub instruction: Instruction,
    /// The name of the register.
    pub register: Option<String>,
}

impl From<Instruction> for Step {
    fn from(instruction: Instruction) -> Self {
        Self {
            instruction,
            register: None,
        }
    }
}

/// What one CPU does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// In this order.
    pub steps: Vec<Step>,
}

impl Program {
    /// How many values it reads.
    pub fn loads(&self) -> usize {
        self.reads().count()
    }

    /// Which of the values that it reads is in register `name` at the end: the last one that was
    /// read into it, or, for `r0`, `r1` and so on, the one with that number.
    pub fn register(&self, name: &str) -> Option<usize> {
        let mut named = self.reads().enumerate();
        let by_name = named.rfind(|(_, step)| step.register.as_deref() == Some(name));
        let by_number = || numbered(name, 'r').filter(|nth| *nth < self.loads());
        by_name.map(|(nth, _)| nth).or_else(by_number)
    }

    fn reads(&self) -> impl DoubleEndedIterator<Item = &Step> + ExactSizeIterator {
        let reads: Vec<_> = (self.steps.iter())
            .filter(|step| step.instruction.loads())
            .collect();
        reads.into_iter()
    }
}

/// The number N, if `name` consists of `first` and N.
pub(crate) fn numbered(name: &str, first: char) -> Option<usize> {
    let digits = name.strip_prefix(first)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = digits == "0" || !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_number && is_plain)
}

/// Whether `name` can be the name of a register.
pub(crate) fn is_register(name: &str) -> bool {
    let is_letter = |first: char| first.is_ascii_alphabetic();
    name.starts_with(is_letter) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Reads the programs of a test, that of CPU 0 first.
///
/// # Errors
/// Says what makes no sense.
pub fn parse(text: &str) -> Result<Vec<Program>, SyntaxError> {
    let mut programs = Vec::new();
    for part in text.split('|') {
        let Some((cpu, steps)) = part.split_once(':') else {
            return refused(format!(
                "\"{part}\" is no program such as 0:store,x,1;load,y"
            ));
        };
        let expected = programs.len();
        if number(cpu) != i64::try_from(expected).map_err(|_| SyntaxError(cpu.to_owned())) {
            return refused(format!(
                "\"{cpu}:\" stands where CPU {expected}'s program has to be"
            ));
        }
        if expected == MOST_PROGRAMS {
            return refused(format!("a test has at most {MOST_PROGRAMS} programs"));
        }
        let mut program = Program::default();
        for step in steps.split(';').filter(|step| !step.is_empty()) {
            if program.steps.len() == MOST_STEPS {
                return refused(format!("a program has at most {MOST_STEPS} instructions"));
            }
            program.steps.push(parse_step(step)?);
        }
        programs.push(program);
    }
    let cpus = programs.len();
    let steps = programs.iter().flat_map(|program| &program.steps);
    for step in steps {
        if let Instruction::Send(cpu, _) = step.instruction
            && cpu >= cpus
        {
            return refused(format!("\"{step}\": there are CPUs 0 to {}", cpus - 1));
        }
    }
    Ok(programs)
}

fn parse_step(text: &str) -> Result<Step, SyntaxError> {
    let mut words = text.split(',');
    let verb = words.next().unwrap_or_default();
    let mut argument = |what: &str| match words.next() {
        Some(word) => Ok(word),
        None => refused(format!("\"{text}\": {what} is missing")),
    };
    let mut variable = || Variable::named(argument("the variable")?);
    let instruction = match verb {
        "load" => Instruction::Load(variable()?),
        "store" | "xchg" | "add" => {
            let (variable, value) = (variable()?, number(argument("the number")?)?);
            match verb {
                "store" => Instruction::Store(variable, value),
                "xchg" => Instruction::Exchange(variable, value),
                _ => Instruction::Add(variable, value),
            }
        }
        "send" => {
            let cpu = argument("the CPU")?;
            let Ok(cpu) = number(cpu).map(usize::try_from) else {
                return refused(format!("\"{text}\": \"{cpu}\" is no CPU"));
            };
            let cpu = cpu.unwrap_or(usize::MAX);
            Instruction::Send(cpu, Variable::named(argument("the variable")?)?)
        }
        "fence" => Instruction::Fence,
        "irqs-off" => Instruction::IrqsOff,
        "irqs-on" => Instruction::IrqsOn,
        _ => {
            return refused(format!(
                "\"{verb}\" is nothing that a CPU can do; there are store,V,N load,V xchg,V,N \
                 add,V,N fence send,CPU,V irqs-off and irqs-on"
            ));
        }
    };
    let register = match words.next() {
        Some(name) if instruction.loads() && is_register(name) => Some(name.to_owned()),
        Some(word) => return refused(format!("\"{word}\" makes no sense in \"{text}\"")),
        None => None,
    };
    match words.next() {
        Some(word) => refused(format!("\"{word}\" makes no sense in \"{text}\"")),
        None => Ok(Step {
            instruction,
            register,
        }),
    }
}

/// As it is read.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instruction {
            Instruction::Store(variable, value) => write!(f, "store,{},{value}", variable.name())?,
            Instruction::Load(variable) => write!(f, "load,{}", variable.name())?,
            Instruction::Exchange(variable, value) => {
                write!(f, "xchg,{},{value}", variable.name())?;
            }
            Instruction::Add(variable, value) => write!(f, "add,{},{value}", variable.name())?,
            Instruction::Fence => f.write_str("fence")?,
            Instruction::Send(cpu, variable) => write!(f, "send,{cpu},{}", variable.name())?,
            Instruction::IrqsOff => f.write_str("irqs-off")?,
            Instruction::IrqsOn => f.write_str("irqs-on")?,
        }
        match &self.register {
            Some(name) => write!(f, ",{name}"),
            None => Ok(()),
        }
    }
}

/// Its instructions, as they are read.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator}{step}")?;
        }
        Ok(())
    }
}

/// `programs` in one word.
pub fn print(programs: &[Program]) -> String {
    let parts = programs.iter().enumerate();
    let parts: Vec<_> = parts
        .map(|(cpu, program)| format!("{cpu}:{program}"))
        .collect();
    parts.join("|")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn a_variable() -> impl Strategy<Value = Variable> {
        proptest::sample::select(&Variable::ALL[..])
    }

    fn a_step(cpus: usize) -> impl Strategy<Value = Step> {
        let instruction = prop_oneof![
            (a_variable(), any::<i64>()).prop_map(|(at, value)| Instruction::Store(at, value)),
            a_variable().prop_map(Instruction::Load),
            (a_variable(), any::<i64>()).prop_map(|(at, value)| Instruction::Exchange(at, value)),
            (a_variable(), any::<i64>()).prop_map(|(at, value)| Instruction::Add(at, value)),
            Just(Instruction::Fence),
            (0..cpus, a_variable()).prop_map(|(cpu, at)| Instruction::Send(cpu, at)),
            Just(Instruction::IrqsOff),
            Just(Instruction::IrqsOn),
        ];
        (instruction, proptest::option::of("[a-z][a-z0-9]{0,3}")).prop_map(
            |(instruction, register)| Step {
                instruction,
                register: register.filter(|_| instruction.loads()),
            },
        )
    }

    pub(crate) fn programs() -> impl Strategy<Value = Vec<Program>> {
        (1..4_usize).prop_flat_map(|cpus| {
            let program = proptest::collection::vec(a_step(cpus), 0..5);
            let program = program.prop_map(|steps| Program { steps });
            proptest::collection::vec(program, cpus)
        })
    }

    #[test]
    fn a_register_has_its_name_or_the_number_of_the_read() {
        let programs = parse("0:load,x;store,y,1;load,y,r0;add,z,1;load,x,rax|1:").unwrap();
        let [first, second] = &programs[..] else {
            panic!("{programs:?}")
        };
        assert_eq!(first.loads(), 4);
        for (name, nth) in [
            ("r0", Some(1)),
            ("r1", Some(1)),
            ("r2", Some(2)),
            ("rax", Some(3)),
            ("r3", Some(3)),
            ("r4", None),
            ("r00", None),
            ("r", None),
            ("rbx", None),
        ] {
            assert_eq!(first.register(name), nth, "{name}");
        }
        assert_eq!(second.register("r0"), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, what) in [
            ("", "is no program such as"),
            ("store,x,1", "is no program such as"),
            ("1:load,x", "where CPU 0's program has to be"),
            ("0:load,x|0:load,x", "where CPU 1's program has to be"),
            ("0:load", "\"load\": the variable is missing"),
            ("0:load,u", "there are x, y, z, w, a and b"),
            ("0:store,x", "the number is missing"),
            ("0:store,x,one", "\"one\" is no number"),
            ("0:store,x,1,rax", "\"rax\" makes no sense"),
            ("0:load,x,rax,rbx", "\"rbx\" makes no sense"),
            ("0:load,x,1", "\"1\" makes no sense"),
            ("0:send,1,x", "there are CPUs 0 to 0"),
            ("0:send,-1,x", "there are CPUs 0 to 0"),
            ("0:send,you,x", "\"you\" is no CPU"),
            ("0:jump", "there are store,V,N"),
        ] {
            let error = parse(text).unwrap_err().0;
            assert!(error.contains(what), "{text}: {error}");
        }
        let long = format!("0:{}", "fence;".repeat(MOST_STEPS + 1));
        assert!(
            parse(&long)
                .unwrap_err()
                .0
                .contains("at most 32 instructions")
        );
        let wide: Vec<_> = (0..=MOST_PROGRAMS).map(|cpu| format!("{cpu}:")).collect();
        assert!(
            parse(&wide.join("|"))
                .unwrap_err()
                .0
                .contains("at most 16 programs")
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(programs in programs()) {
            prop_assert_eq!(parse(&print(&programs)), Ok(programs));
        }

        #[test]
        fn no_text_panics(text in "([0-9]|:|;|\\||,|store|load|send|fence|x|-|\\PC)*") {
            let _ = parse(&text);
        }
    }
}
