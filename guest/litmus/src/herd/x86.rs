//! A line of a program in herdtools' files for x86, in both of their dialects: AT&T's, source
//! first, and an older one, destination first. It keeps track of what the registers hold, as far as
//! that is known before the test runs.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::program::{Instruction, Step, Variable};
use crate::syntax::{SyntaxError, number, refused};

/// How instructions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `movl $1,(x)`, of `X86_64`.
    Att,
    /// `MOV [x],$1`, of `X86`.
    Intel,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// This.
    Known(i64),
    /// The address of the variable.
    Address(Variable),
    /// What the program has read, by the number of the read from 0.
    Read(usize),
}

/// The registers: the names of all 64 bits and of the low 32.
const REGISTERS: [[&str; 2]; 16] = [
    ["rax", "eax"],
    ["rbx", "ebx"],
    ["rcx", "ecx"],
    ["rdx", "edx"],
    ["rsi", "esi"],
    ["rdi", "edi"],
    ["rbp", "ebp"],
    ["rsp", "esp"],
    ["r8", "r8d"],
    ["r9", "r9d"],
    ["r10", "r10d"],
    ["r11", "r11d"],
    ["r12", "r12d"],
    ["r13", "r13d"],
    ["r14", "r14d"],
    ["r15", "r15d"],
];

/// The register called `name`, by the name of its 64 bits.
pub(super) fn register(name: &str) -> Result<&'static str, SyntaxError> {
    let is_it = |names: &&[&str; 2]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
    match REGISTERS.iter().find(is_it) {
        Some([whole, _]) => Ok(whole),
        None => refused(format!("\"{name}\" is no register of 32 or 64 bits")),
    }
}

/// What the registers of a CPU hold; 0 at first.
#[derive(Clone, Debug, Default)]
pub(super) struct Registers(Vec<(&'static str, Value)>);

impl Registers {
    pub(super) fn get(&self, register: &str) -> Value {
        let held = self.0.iter().find(|(name, _)| *name == register);
        held.map_or(Value::Known(0), |(_, value)| *value)
    }

    pub(super) fn set(&mut self, register: &'static str, value: Value) {
        self.0.retain(|(name, _)| *name != register);
        self.0.push((register, value));
    }
}

enum Operand {
    Immediate(i64),
    Register(&'static str),
    Memory(Variable),
}

/// The instruction in `text`, of a program that has read `reads` values before it; `None` if it
/// only touches registers.
pub(super) fn step(
    text: &str,
    dialect: Dialect,
    registers: &mut Registers,
    reads: usize,
) -> Result<Option<Step>, SyntaxError> {
    let text = text.to_ascii_lowercase();
    let (is_locked, rest) = match text.strip_prefix("lock") {
        Some(rest) if rest.starts_with(char::is_whitespace) => (true, rest.trim_start()),
        _ => (false, &*text),
    };
    let (mnemonic, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let operands = operands
        .split(',')
        .map(str::trim)
        .filter(|operand| !operand.is_empty());
    let operands: Result<Vec<_>, _> = operands.map(|it| operand(it, registers)).collect();
    let wanted = |how_many: &str| refused(format!("\"{text}\" needs {how_many}"));
    let unknown = || {
        refused(format!(
            "\"{}{mnemonic}\" is not understood; there are mov, xchg, mfence, and with lock add, \
             sub, inc, dec and xadd, each of 32 or 64 bits",
            if is_locked { "lock " } else { "" }
        ))
    };
    let known = ["mov", "xchg", "add", "sub", "inc", "dec", "xadd", "mfence"];
    let bare = mnemonic
        .strip_suffix(['l', 'q'])
        .filter(|bare| *bare != "mfence");
    let Some(name) = known
        .into_iter()
        .find(|name| bare == Some(name) || mnemonic == *name)
    else {
        return unknown();
    };
    if is_locked && matches!(name, "mov" | "mfence") {
        return unknown();
    }
    if !is_locked && !matches!(name, "mov" | "xchg" | "mfence") {
        return refused(format!(
            "\"{text}\": without lock it is not one access to memory"
        ));
    }
    let mut operands = operands?;
    if dialect == Dialect::Intel {
        operands.reverse();
    }
    let mut load = |into: &'static str, instruction| {
        registers.set(into, Value::Read(reads));
        Some(Step {
            instruction,
            register: Some(into.to_owned()),
        })
    };
    Ok(match (name, &operands[..]) {
        ("mfence", []) => Some(Instruction::Fence.into()),
        ("mov", [Operand::Memory(from), Operand::Register(into)]) => {
            load(into, Instruction::Load(*from))
        }
        ("mov", [Operand::Register(from), Operand::Register(into)]) => {
            let value = registers.get(from);
            if let Value::Read(_) = value {
                return was_read(&text);
            }
            registers.set(into, value);
            None
        }
        ("mov", [Operand::Immediate(value), Operand::Register(into)]) => {
            registers.set(into, Value::Known(*value));
            None
        }
        ("mov", [from, Operand::Memory(at)]) => {
            let Some(value) = value(from, registers, &text)? else {
                return wanted("two operands, of which one is no memory");
            };
            Some(Instruction::Store(*at, value).into())
        }
        ("xchg", [Operand::Register(register), Operand::Memory(at)])
        | ("xchg", [Operand::Memory(at), Operand::Register(register)])
        | ("xadd", [Operand::Register(register), Operand::Memory(at)]) => {
            let from = Operand::Register(register);
            let value = value(&from, registers, &text)?.unwrap_or_default();
            let instruction = match name {
                "xchg" => Instruction::Exchange(*at, value),
                _ => Instruction::Add(*at, value),
            };
            registers.set(register, Value::Read(reads));
            Some(Step {
                instruction,
                register: Some(String::from(*register)),
            })
        }
        ("add" | "sub", [from, Operand::Memory(at)]) => {
            let Some(value) = value(from, registers, &text)? else {
                return wanted("two operands, of which one is no memory");
            };
            let value = if name == "add" {
                value
            } else {
                value.wrapping_neg()
            };
            Some(Instruction::Add(*at, value).into())
        }
        ("inc", [Operand::Memory(at)]) => Some(Instruction::Add(*at, 1).into()),
        ("dec", [Operand::Memory(at)]) => Some(Instruction::Add(*at, -1).into()),
        ("mfence", _) => return wanted("no operand"),
        ("inc" | "dec", _) => return wanted("one operand in memory"),
        ("mov", _) => return wanted("two operands, and one to write to"),
        _ => return wanted("two operands, the other in memory"),
    })
}

/// The number that `operand` is known to be, or nothing if it is memory.
fn value(operand: &Operand, registers: &Registers, text: &str) -> Result<Option<i64>, SyntaxError> {
    match operand {
        Operand::Immediate(value) => Ok(Some(*value)),
        Operand::Memory(_) => Ok(None),
        Operand::Register(name) => match registers.get(name) {
            Value::Known(value) => Ok(Some(value)),
            Value::Read(_) => was_read(text),
            Value::Address(_) => refused(format!("\"{text}\" goes on with an address as a value")),
        },
    }
}

fn was_read<T>(text: &str) -> Result<T, SyntaxError> {
    refused(format!(
        "\"{text}\" goes on with a value that was read, which no program here does"
    ))
}

fn operand(text: &str, registers: &Registers) -> Result<Operand, SyntaxError> {
    if let Some(immediate) = text.strip_prefix('$') {
        return Ok(Operand::Immediate(number(immediate)?));
    }
    let within = |open, close| {
        text.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
    };
    let memory = within("(", ")")
        .or_else(|| within("0(", ")"))
        .or_else(|| within("[", "]"));
    let Some(address) = memory else {
        let name = text.strip_prefix('%');
        return match (name, register(name.unwrap_or(text))) {
            (Some(_), Err(why)) => Err(why),
            (_, Ok(name)) => Ok(Operand::Register(name)),
            (None, Err(_)) => match number(text) {
                Ok(immediate) => Ok(Operand::Immediate(immediate)),
                Err(_) => Variable::named(text).map(Operand::Memory),
            },
        };
    };
    let address = address.trim();
    let name = address.strip_prefix('%').unwrap_or(address);
    match register(name) {
        Err(_) => Variable::named(name).map(Operand::Memory),
        Ok(register) => match registers.get(register) {
            Value::Address(variable) => Ok(Operand::Memory(variable)),
            _ => refused(format!(
                "\"{text}\": the register holds no address of a variable"
            )),
        },
    }
}
