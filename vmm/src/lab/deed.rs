//! What a CPU can be told, as people write it: a line of a case, a request of a client, a function
//! of a script. The guest's manifest declares the deeds and their arguments; here they become
//! commands for a mailbox. Knows no deed of any guest by name.

use std::borrow::Cow;
use std::fmt;

use shared::manifest::Argument;
use shared::program::STEPS;

use super::mailbox::Command;
use super::programs::NoRoom;
use crate::closest::did_you_mean;
use crate::cpus::CpuSet;
use crate::manifest::{Deed, Manifest};

/// The word after the arguments of a deed by which the CPU waits until the deed has been done
/// everywhere.
const WAIT: &str = "wait";

/// What stands around a program, and between its deeds.
const BRACES: [char; 2] = ['{', '}'];
const BETWEEN: char = ';';

/// The value of one argument of a deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentValue {
    /// A CPU, or a number.
    Number(u64),
    /// CPUs.
    Cpus(CpuSet),
    /// One of the values of the option that the deed names.
    Word(String),
}

/// Why a CPU of this guest cannot be told something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// The guest's manifest declares no deed.
    #[error(
        "the guest does not say what its CPUs can be told: vmm describe shows no deed of its image"
    )]
    NoDeeds,
    /// There is no deed of that name.
    #[error("there is no deed \"{name}\"; there are {known}{guess}")]
    Unknown {
        /// The name.
        name: String,
        /// The deeds there are.
        known: String,
        /// Which of them was perhaps meant, with a semicolon before it; empty if that is not known.
        guess: String,
    },
    /// The deed ends the workload, and is told to all CPUs together.
    #[error("\"{0}\" ends the workload, and is not for one CPU; finish tells it to all")]
    Ends(String),
    /// The deed cannot be one of a program.
    #[error("\"{name}\" cannot stand in the braces of another deed; there are {known}")]
    NotInProgram {
        /// The name.
        name: String,
        /// The deeds that can.
        known: String,
    },
    /// The program is too long.
    #[error(transparent)]
    Program(#[from] NoRoom),
    /// The arguments are not those of the deed.
    #[error("\"{deed}\" is told as \"{form}\"{why}")]
    Form {
        /// The deed.
        deed: String,
        /// The form in which it is told.
        form: String,
        /// What is wrong, with a comma before it; empty if arguments are missing.
        why: String,
    },
}

impl Manifest {
    /// The deed called `name`: by its name or its alias, where `_` can stand for `-`.
    ///
    /// # Errors
    /// [`TellError::Unknown`] lists the deeds there are; [`TellError::Ends`] if it ends the
    /// workload.
    pub fn deed(&self, name: &str) -> Result<&Deed, TellError> {
        let meant = name.replace('_', "-");
        let found = self.deeds.iter().find(|deed| deed.is_called(&meant));
        match found {
            Some(deed) if deed.ends => Err(TellError::Ends(name.to_owned())),
            Some(deed) => Ok(deed),
            None if self.deeds.is_empty() => Err(TellError::NoDeeds),
            None => {
                let told = self.deeds.iter().filter(|deed| !deed.ends);
                let names = told.flat_map(|it| [Some(&it.name), it.alias.as_ref()]);
                Err(TellError::Unknown {
                    name: name.to_owned(),
                    known: self.known(|_| true),
                    guess: did_you_mean(&meant, names.flatten().map(String::as_str)),
                })
            }
        }
    }

    /// The names of the deeds that one CPU can be told and of which `is_meant` holds, as a list.
    pub(crate) fn known(&self, is_meant: impl Fn(&Deed) -> bool) -> String {
        let known = self.deeds.iter().filter(|it| !it.ends && is_meant(it));
        let names = known.map(|it| match &it.alias {
            Some(alias) => format!("{} ({alias})", it.name),
            None => it.name.clone(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    /// Parses what a CPU is told, such as `call-many 1,3 wait`: the deed, and the command for it. A
    /// program stands behind that in braces: `call-many 1,3 { store x 1; store y 1 }`.
    ///
    /// # Errors
    /// [`TellError`] says which arguments the deed has.
    pub fn told(&self, text: &str) -> Result<(&Deed, Command), TellError> {
        let [opens, closes] = BRACES;
        let Some((head, rest)) = text.split_once(opens) else {
            return self.told_alone(text);
        };
        let (deed, command) = self.told_alone(head)?;
        let program = rest.trim_end().strip_suffix(closes).ok_or_else(|| {
            let why = format!(", and the braces of \"{opens}{rest}\" do not close at its end");
            deed.form(&why)
        })?;
        let command = self.with_program(deed, command, program)?;
        Ok((deed, command))
    }

    /// `command`, which tells `deed`, with the program that `text` says: deeds with semicolons
    /// between them.
    ///
    /// # Errors
    /// [`TellError`] if the deed has no program, or one of these deeds cannot be in one.
    pub fn with_program(
        &self,
        deed: &Deed,
        command: Command,
        text: &str,
    ) -> Result<Command, TellError> {
        if !deed.takes_program {
            return Err(deed.form(", and has no deeds in braces"));
        }
        let mut program = Vec::new();
        for text in text
            .split(BETWEEN)
            .map(str::trim)
            .filter(|it| !it.is_empty())
        {
            if text.contains(BRACES) {
                let why = format!(", and \"{text}\" in its braces can have none itself");
                return Err(deed.form(&why));
            }
            let (step, told) = self.told_alone(text)?;
            if !step.in_handler {
                return Err(TellError::NotInProgram {
                    name: step.name.clone(),
                    known: self.known(|it| it.in_handler),
                });
            }
            program.push(told);
        }
        if program.len() > STEPS {
            return Err(NoRoom::Long(program.len()).into());
        }
        Ok(Command { program, ..command })
    }

    /// As [`Manifest::told`], of a deed without a program.
    fn told_alone(&self, text: &str) -> Result<(&Deed, Command), TellError> {
        let mut words = text.split_whitespace();
        let deed = self.deed(words.next().unwrap_or_default())?;
        let mut words: Vec<_> = words.collect();
        let waits = deed.may_wait
            && words.len() == deed.arguments.len() + 1
            && words.pop_if(|last| *last == WAIT).is_some();
        let values = words
            .iter()
            .enumerate()
            .map(|(place, word)| deed.value(place, word));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        Ok((deed, self.command(deed, values, waits)?))
    }

    /// The command that tells `deed` with `values`.
    ///
    /// # Errors
    /// [`TellError::Form`] if these are not its arguments.
    pub fn command(
        &self,
        deed: &Deed,
        values: Vec<ArgumentValue>,
        waits: bool,
    ) -> Result<Command, TellError> {
        if waits && !deed.may_wait {
            return Err(deed.form(", and cannot wait"));
        }
        if values.len() > deed.arguments.len() {
            return Err(deed.form(", and with no more"));
        }
        if values.len() < deed.arguments.len() {
            return Err(deed.form(""));
        }
        let mut command = Command::new(deed.number).waiting(waits);
        for (place, (argument, value)) in deed.arguments.iter().zip(values).enumerate() {
            match (argument, value) {
                (Argument::Cpu | Argument::Number, ArgumentValue::Number(number)) => {
                    command.arguments[place] = number;
                }
                (Argument::Cpus, ArgumentValue::Cpus(cpus)) => command.mask = cpus,
                (Argument::Word, ArgumentValue::Word(word)) => {
                    command.arguments[place] = self.place(deed, &word)?;
                }
                (argument, _) => {
                    let why = format!(", where {} is something else", deed.says(*argument));
                    return Err(deed.form(&why));
                }
            }
        }
        Ok(command)
    }

    /// What `command` tells, in the words that [`Manifest::told`] parses.
    pub fn words(&self, command: &Command) -> String {
        let mut words = self.deed_name(command.verb).to_owned();
        let deed = self.deed_numbered(command.verb);
        let arguments = deed.map_or(&[][..], |deed| &deed.arguments);
        for (argument, number) in arguments.iter().zip(command.arguments) {
            let value = match argument {
                Argument::Cpu | Argument::Number => number.to_string(),
                Argument::Cpus => command.mask.to_string(),
                Argument::Word => self.word(deed, number).to_owned(),
            };
            words = format!("{words} {value}");
        }
        if command.wait {
            words = format!("{words} {WAIT}");
        }
        if !command.program.is_empty() {
            let steps: Vec<_> = command
                .program
                .iter()
                .map(|step| self.words(step))
                .collect();
            words = format!("{words} {{ {} }}", steps.join("; "));
        }
        words
    }

    /// The value with this place among those of the deed's option.
    fn word(&self, deed: Option<&Deed>, place: u64) -> &str {
        let key = deed.and_then(|deed| deed.words_of.as_ref());
        let option = self.options.iter().find(|it| Some(&it.name) == key);
        let value = usize::try_from(place).ok().and_then(|place| {
            let values = &option?.values;
            values.get(place)
        });
        value.map_or("?", |value| &value.name)
    }

    /// The command by which all of `cpus` end the workload, if the guest has one.
    pub fn ending(&self, cpus: CpuSet) -> Option<Command> {
        let deed = self.deeds.iter().find(|deed| deed.ends)?;
        Some(Command::among(deed.number, cpus))
    }

    /// The name of the deed with this number.
    pub fn deed_name(&self, number: u32) -> &str {
        let deed = self.deed_numbered(number);
        deed.map_or("a command that has no name", |deed| &deed.name)
    }

    /// The index of `word` among the values of the deed's option.
    fn place(&self, deed: &Deed, word: &str) -> Result<u64, TellError> {
        let key = self
            .options
            .iter()
            .find(|it| Some(&it.name) == deed.words_of.as_ref());
        let values = key.map_or(&[][..], |key| &key.values);
        let place = values.iter().position(|value| value.name == word);
        place.map(|place| place as u64).ok_or_else(|| {
            let names: Vec<_> = values.iter().map(|value| &*value.name).collect();
            let guess = did_you_mean(word, names.iter().copied());
            let why = format!(", where \"{word}\" is none of {}{guess}", names.join(", "));
            deed.form(&why)
        })
    }
}

impl Deed {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alias.as_deref() == Some(name)
    }

    /// The name of `argument` in the deed's form.
    fn says(&self, argument: Argument) -> Cow<'static, str> {
        match (argument, &self.words_of) {
            (Argument::Word, Some(key)) => key.to_uppercase().into(),
            _ => argument.name().into(),
        }
    }

    fn form(&self, why: &str) -> TellError {
        TellError::Form {
            deed: self.name.clone(),
            form: self.to_string(),
            why: why.to_owned(),
        }
    }

    /// Parses `word` as the argument at index `place`.
    fn value(&self, place: usize, word: &str) -> Result<ArgumentValue, TellError> {
        let Some(argument) = self.arguments.get(place) else {
            let why = format!(", and \"{word}\" makes no sense behind that");
            return Err(self.form(&why));
        };
        let wrong = |what: &str| self.form(&format!(", and \"{word}\" is {what}"));
        Ok(match argument {
            Argument::Cpu => ArgumentValue::Number(word.parse().map_err(|_| wrong("no CPU"))?),
            Argument::Number => {
                ArgumentValue::Number(word.parse().map_err(|_| wrong("no number"))?)
            }
            Argument::Cpus => {
                let what = "no list of CPUs of any machine, such as 1,3 or 0-2";
                ArgumentValue::Cpus(word.parse().map_err(|_| wrong(what))?)
            }
            Argument::Word => ArgumentValue::Word(word.to_owned()),
        })
    }
}

/// The form in which the deed is told.
impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for argument in &self.arguments {
            write!(f, " {}", self.says(*argument))?;
        }
        f.write_str(if self.may_wait { " [wait]" } else { "" })?;
        f.write_str(if self.takes_program {
            " [{ DEEDS }]"
        } else {
            ""
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use shared::manifest::Argument::{Cpu, Cpus, Number, Word};
    use shared::manifest::{ENDS, IN_CASE, IN_HANDLER, MAY_WAIT, Record, TAKES_PROGRAM};

    /// The manifest of a guest with deeds of each kind.
    pub(crate) fn manifest() -> Manifest {
        let deed = |number, name, arguments| Record::deed(number, name, arguments, "");
        let records = [
            deed(1, "call-single", &[Cpu]).with(IN_CASE),
            deed(2, "irqs-off", &[]).with(IN_CASE),
            deed(3, "call-many", &[Cpus])
                .or("many")
                .with(IN_CASE | MAY_WAIT),
            deed(4, "store", &[Word, Number])
                .words_of("var")
                .with(IN_CASE | IN_HANDLER),
            deed(6, "run", &[Cpu]).with(IN_CASE | IN_HANDLER | MAY_WAIT | TAKES_PROGRAM),
            deed(5, "online", &[Cpu]),
            deed(9, "finish", &[Cpus]).with(ENDS),
            Record::word("var", "What there is."),
            Record::value("var", 0, "x"),
            Record::value("var", 1, "y"),
        ];
        Manifest::saying(&records)
    }

    #[test]
    fn words_become_the_command_that_the_manifest_says() {
        let manifest = manifest();
        let told = |text| manifest.told(text).unwrap().1;
        assert_eq!(told("call-single 2"), Command::about(1, 2));
        assert_eq!(told("irqs_off"), Command::new(2));
        let many = Command::among(3, CpuSet::from_iter([1, 3]));
        assert_eq!(told("many 1,3"), many);
        assert_eq!(told("call-many 1,3 wait"), many.waiting(true));
        let mut stores = Command::new(4);
        stores.arguments = [1, 7, 0, 0];
        assert_eq!(told("store y 7"), stores);
        for text in [
            "call-single 2",
            "irqs-off",
            "call-many 1,3 wait",
            "store y 7",
            "run 1 { store x 1; run 0 wait }",
            "run 1 wait { store y 2 }",
        ] {
            assert_eq!(manifest.words(&told(text)), text);
        }
        assert_eq!(told("run 1{store x 1}").program, [told("store x 1")]);
        assert_eq!(told("run 1 {}"), told("run 1"));
        let long = format!("run 1 {{ {} }}", "store x 1; ".repeat(STEPS + 1));
        let error = manifest.told(&long).unwrap_err().to_string();
        assert!(
            error.contains("9 deeds are in one pair of braces"),
            "{error}"
        );
        let all = CpuSet::from_iter([0, 1]);
        assert_eq!(manifest.ending(all.clone()), Some(Command::among(9, all)));
    }

    #[test]
    fn what_is_not_told_so_is_answered_with_how_it_is() {
        let manifest = manifest();
        for (text, why) in [
            (
                "dance",
                "there is no deed \"dance\"; there are call-single, irqs-off, call-many (many), \
                 store, online, run",
            ),
            ("finish 0", "ends the workload"),
            ("call-single", "told as \"call-single CPU\""),
            ("call-single x", "\"x\" is no CPU"),
            ("call-single 1 wait", "\"wait\" makes no sense"),
            ("irqs-off 1", "\"1\" makes no sense"),
            ("many", "told as \"call-many CPUS [wait]\""),
            ("many wait", "\"wait\" is no list of CPUs"),
            ("many 1 wait wait", "makes no sense"),
            (
                "store z 1",
                "told as \"store VAR N\", where \"z\" is none of x, y",
            ),
            ("store x", "told as \"store VAR N\""),
            ("store x y", "\"y\" is no number"),
            ("run", "told as \"run CPU [wait] [{ DEEDS }]\""),
            ("run 1 { store x 1", "do not close at its end"),
            ("run 1 { store x 1 } wait", "do not close at its end"),
            ("run 1 { run 1 { store x 1 } }", "can have none itself"),
            ("run 1 { } }", "can have none itself"),
            ("run 1 { store x }", "told as \"store VAR N\""),
            (
                "run 1 { irqs-off }",
                "\"irqs-off\" cannot stand in the braces",
            ),
            ("run 1 { finish 0 }", "ends the workload"),
            ("run 1 { dance }", "there is no deed \"dance\""),
            ("store x 1 { store x 1 }", "has no deeds in braces"),
        ] {
            let error = manifest.told(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(
            Manifest::default().told("x").unwrap_err(),
            TellError::NoDeeds
        );
        assert_eq!(Manifest::default().ending(CpuSet::default()), None);
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let manifest = manifest();
        let tell = |name, values, waits| {
            let deed = manifest.deed(name).unwrap();
            manifest
                .command(deed, values, waits)
                .unwrap_err()
                .to_string()
        };
        let number = ArgumentValue::Number(1);
        assert!(tell("many", vec![number.clone()], true).contains("CPUS is something else"));
        let two = vec![number.clone(), number.clone()];
        assert!(tell("store", two, false).contains("where VAR is something else"));
        assert!(tell("call-single", vec![number.clone()], true).contains("cannot wait"));
        assert!(tell("irqs-off", vec![number], false).contains("no more"));
    }
}
