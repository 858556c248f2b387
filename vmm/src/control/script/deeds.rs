//! The functions by which a script tells a CPU to do something. The guest's manifest declares the
//! deeds, and a script can boot several guests one after the other. So every word of the script is
//! registered as a function on a CPU, and looked up among the deeds of that CPU's guest when it is
//! called.

use std::collections::BTreeSet;

use rhai::{Array, Dynamic, Engine, EvalAltResult, NativeCallContext};

use super::cpu::CpuHandle;
use super::deed_handle::DeedHandle;
use super::failure::bad;
use super::machine::set;
use crate::lab::deed::{ArgumentValue, TellError};

type Answer<T> = Result<T, Box<EvalAltResult>>;

/// Functions that the language has for every value, a CPU included. A deed cannot be called by
/// these names in a script.
const OF_ANY_VALUE: [&str; 3] = ["debug", "print", "to_debug"];

/// Registers `tell`, and a function on a CPU for each name in `text`. Functions that are registered
/// later, or with more specific types, take precedence.
pub(super) fn register(engine: &mut Engine, text: &str) {
    engine.register_fn(
        "tell",
        |at: NativeCallContext, cpu: &mut CpuHandle, words: &str| -> Answer<DeedHandle> {
            cpu.tell(&at, |operator, cpu, wait| operator.tell(cpu, words, wait))
        },
    );
    for name in names(text) {
        register_name(engine, name);
    }
}

/// All words of `text` that could be the name of a deed.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(|it: char| !is_part(it));
    words
        .filter(|word| word.starts_with(|it: char| it.is_ascii_lowercase()))
        .filter(|word| !OF_ANY_VALUE.contains(word))
        .collect()
}

fn register_name(engine: &mut Engine, name: &str) {
    let deed = || name.to_owned();
    let it = deed();
    engine.register_fn(name, move |at: NativeCallContext, cpu: &mut CpuHandle| {
        tell(&at, cpu, &it, vec![])
    });
    let it = deed();
    engine.register_fn(
        name,
        move |at: NativeCallContext, cpu: &mut CpuHandle, one: Dynamic| {
            tell(&at, cpu, &it, vec![one])
        },
    );
    let it = deed();
    engine.register_fn(
        name,
        move |at: NativeCallContext, cpu: &mut CpuHandle, one: Dynamic, two: Dynamic| {
            tell(&at, cpu, &it, vec![one, two])
        },
    );
    let it = deed();
    engine.register_fn(
        name,
        move |at: NativeCallContext,
              cpu: &mut CpuHandle,
              one: Dynamic,
              two: Dynamic,
              three: Dynamic| { tell(&at, cpu, &it, vec![one, two, three]) },
    );
    let it = deed();
    engine.register_fn(
        name,
        move |at: NativeCallContext,
              cpu: &mut CpuHandle,
              one: Dynamic,
              two: Dynamic,
              three: Dynamic,
              four: Dynamic| { tell(&at, cpu, &it, vec![one, two, three, four]) },
    );
    let it = deed();
    engine.register_fn(
        name,
        move |at: NativeCallContext,
              cpu: &mut CpuHandle,
              one: Dynamic,
              two: Dynamic,
              three: Dynamic,
              four: Dynamic,
              five: Dynamic| tell(&at, cpu, &it, vec![one, two, three, four, five]),
    );
}

/// Tells `cpu` the deed `name` with the arguments `given`. Behind the deed's own stand a boolean,
/// which says whether the deed waits, and a string, which is its program. If the deed answers with
/// a list, this waits for it and returns the list.
fn tell(
    at: &NativeCallContext,
    cpu: &mut CpuHandle,
    name: &str,
    mut given: Vec<Dynamic>,
) -> Answer<Dynamic> {
    let manifest = cpu.manifest();
    let deed = manifest.deed(name).map_err(|error| match error {
        error @ TellError::Unknown { .. } => bad(format!(
            "nothing is called \"{name}\" on a CPU, and of its guest {error}"
        )),
        error => bad(error.to_string()),
    })?;
    let has_more = given.len() > deed.arguments.len();
    let program = given.pop_if(|last| has_more && last.is_string());
    let wait = given.pop_if(|last| last.is_bool());
    let wait = wait.is_some_and(|wait| wait.as_bool().unwrap_or(false));
    let values = given.into_iter().map(value).collect::<Result<_, _>>()?;
    let command = manifest.command(deed, values, wait);
    let command = command.and_then(|command| match program {
        Some(text) => manifest.with_program(deed, command, &text.to_string()),
        None => Ok(command),
    });
    let command = command.map_err(|error| bad(error.to_string()))?;
    let told = cpu.tell(at, |operator, cpu, wait| operator.post(cpu, &command, wait))?;
    Ok(match deed.answers {
        true => told.answer()?.into(),
        false => Dynamic::from(told),
    })
}

fn value(given: Dynamic) -> Answer<ArgumentValue> {
    let kind = given.type_name();
    if let Ok(number) = given.as_int() {
        let number = u64::try_from(number);
        return number
            .map(ArgumentValue::Number)
            .map_err(|_| bad(format!("{given} is no CPU, and no number to tell a CPU")));
    }
    if let Some(cpus) = given.clone().try_cast::<Array>() {
        return Ok(ArgumentValue::Cpus(set(cpus)?));
    }
    let word = given.into_string();
    word.map(ArgumentValue::Word)
        .map_err(|_| bad(format!("a CPU is told nothing with a {kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_could_be_a_deed_is_looked_for_and_what_prints_a_cpu_is_not() {
        let text = "print(cpu(0)); let it = cpu(1).call_many([N2], wait); debug(it.to_debug());";
        let found = ["call_many", "cpu", "it", "let", "wait"];
        assert!(names(text).into_iter().eq(found));
    }
}
