//! A test in the words of the bench: as a case for `vmm explore`, which searches its orders, and as
//! a command line for a run of many rounds.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::condition::Place;
use crate::interleavings::{self, Model};
use crate::program::{self, Instruction};
use crate::test::{Quantifier, Source, Test, print_initial};

/// Why a test cannot be made a case: it is too large to compute what is to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl core::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the test has too many orders to say what is to be expected of them")
    }
}

impl core::error::Error for TooLarge {}

/// The case in which every order of the steps of `test` is tried, with what is to be expected of
/// x86. A claim that an outcome exists is tested by forbidding that
/// outcome.
///
/// # Errors
/// [`TooLarge`].
pub fn case(test: &Test) -> Result<String, TooLarge> {
    let is_found = interleavings::decides(test, Model::Tso).ok_or(TooLarge)?;
    let by_number = |place: &Place| numbered(test, place);
    let condition = test.claim.condition.renamed(&by_number);
    let quantifier = match test.claim.quantifier {
        Quantifier::Exists | Quantifier::Never => Quantifier::Never,
        Quantifier::ForAll => Quantifier::ForAll,
    };
    let mut case = format!("# {}: {}\n", test.name, test.claim);
    let mut line = |text: String| {
        case.push_str(&text);
        case.push('\n');
    };
    line(format!("cpus {}", test.programs.len()));
    let initial = print_initial(&test.initial);
    if !initial.is_empty() {
        line(format!("append init={initial}"));
    }
    line(format!("append {}={condition}", quantifier.key()));
    for (cpu, program) in test.programs.iter().enumerate() {
        if !program.steps.is_empty() {
            let deeds: Vec<_> = program
                .steps
                .iter()
                .map(|step| deed(step.instruction))
                .collect();
            line(format!("{cpu}: {}", deeds.join("; ")));
        }
    }
    line(format!(
        "expect {}",
        if is_found { "forbidden" } else { "clean" }
    ));
    Ok(case)
}

/// `place` by its number, since in a case registers have no names.
fn numbered(test: &Test, place: &Place) -> Place {
    let index = test.places().iter().position(|known| known == place);
    match index.map(|index| test.sources()[index]) {
        Some(Source::Loaded(cpu, nth)) => Place::Register(cpu, format!("r{nth}")),
        Some(Source::Handled(cpu, nth)) => Place::Register(cpu, format!("h{nth}")),
        Some(Source::Memory(_)) | None => place.clone(),
    }
}

/// `instruction` as it is written in a case.
fn deed(instruction: Instruction) -> String {
    // Numbers in a case have no sign.
    match instruction {
        Instruction::Store(at, value) => format!("store {} {}", at.name(), value.cast_unsigned()),
        Instruction::Load(at) => format!("load {}", at.name()),
        Instruction::Exchange(at, value) => format!("xchg {} {}", at.name(), value.cast_unsigned()),
        Instruction::Add(at, value) => format!("add {} {}", at.name(), value.cast_unsigned()),
        Instruction::Fence => String::from("fence"),
        Instruction::Send(cpu, at) => format!("send {cpu} {}", at.name()),
        Instruction::IrqsOff => String::from("irqs-off"),
        Instruction::IrqsOn => String::from("irqs-on"),
    }
}

/// The command line with which the guest runs `test`.
pub fn words(test: &Test) -> String {
    let claim = &test.claim;
    let mut words = format!("workload=rounds name={} ", test.name);
    let initial = print_initial(&test.initial);
    if !initial.is_empty() {
        let _ = write!(words, "init={initial} ");
    }
    let _ = write!(words, "test={} ", program::print(&test.programs));
    let _ = write!(words, "{}={}", claim.quantifier.key(), claim.condition);
    let condition = claim.condition.places();
    let others = test
        .places()
        .iter()
        .filter(|place| !condition.contains(place));
    let others: Vec<_> = others.map(|place| format!("{place}")).collect();
    if !others.is_empty() {
        let _ = write!(words, " locations={}", others.join(","));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Condition;
    use crate::test::{Claim, Memory};

    fn test(quantifier: Quantifier) -> Test {
        let programs = "0:store,x,1;load,y,rax|1:xchg,y,-1,rbx;load,x,rax;send,0,x|2:";
        let claim = Claim {
            quantifier,
            condition: Condition::parse("0:rax=0&1:rax=0&0:h0=1").unwrap(),
        };
        let mut initial = Memory::default();
        initial[2] = 5;
        let z = [Place::Variable(program::Variable::Z)];
        Test::new(
            "SB+send",
            program::parse(programs).unwrap(),
            initial,
            claim,
            &z,
        )
        .unwrap()
    }

    #[test]
    fn a_case_names_registers_by_number() {
        let expected = "# SB+send: exists (0:rax=0 /\\ 1:rax=0 /\\ 0:h0=1)\n\
                        cpus 3\n\
                        append init=z=5\n\
                        append never=0:r0=0&1:r1=0&0:h0=1\n\
                        0: store x 1; load y\n\
                        1: xchg y 18446744073709551615; load x; send 0 x\n\
                        expect forbidden\n";
        assert_eq!(case(&test(Quantifier::Exists)).as_deref(), Ok(expected));
    }

    #[test]
    fn what_is_to_be_expected_is_what_orders_lead_to() {
        let case = case(&test(Quantifier::ForAll)).unwrap();
        assert!(
            case.contains("\nappend forall=0:r0=0&1:r1=0&0:h0=1\n"),
            "{case}"
        );
        assert!(case.ends_with("\nexpect forbidden\n"), "{case}");
    }

    #[test]
    fn words_keep_the_names() {
        assert_eq!(
            words(&test(Quantifier::Never)),
            "workload=rounds name=SB+send init=z=5 \
             test=0:store,x,1;load,y,rax|1:xchg,y,-1,rbx;load,x,rax;send,0,x|2: \
             never=0:rax=0&1:rax=0&0:h0=1 locations=z"
        );
    }
}
