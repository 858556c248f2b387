//! Cases: the number of CPUs, what each of them is told to do, and what must come out, as a few
//! lines of text. A case says nothing about the order of steps; orders are what is searched. A case
//! is parsed without the guest. Its deeds become commands by the guest's manifest, which says what
//! they mean. Runs nothing.
//!
//! ```text
//! # The lost call of February 2009.
//! cpus 4
//! 0: many 1,3; many 1,3
//! 3: many 1,2
//! expect lost with queue=fifo
//! reach ran 0:0:2 on 1
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use shared::lab::MAX_CPUS;
use shared::manifest::{Argument, Search};

use crate::explore::condition::{self, Condition};
use crate::explore::options::key;
use crate::explore::program_text;
use crate::explore::specimen::Breach;
use crate::lab::judgement::NOT_BELIEVED;
use crate::lab::mailbox::Command;
use crate::lab::oracles::{self, NoSuchOracle};
use crate::manifest::Manifest;

/// The greatest number of commands of one CPU.
const MOST_COMMANDS: usize = 1000;

/// A case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Case {
    /// The number of CPUs.
    pub cpus: u32,
    /// Options for the guest.
    pub append: String,
    /// By CPU: what it is told to do, in this order.
    pub programs: Vec<Vec<Deed>>,
    /// What must come out, and when.
    pub expectations: Vec<Expectation>,
    /// What some order must reach, and what none may.
    pub conditions: Vec<Condition>,
    /// All of it as it was written, with comments, for people.
    pub written: String,
}

/// A deed: one thing that a CPU is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Its words in the case, with a blank between them.
    pub text: String,
    /// Its line in the case, from 1.
    line: usize,
}

/// What must come out if the guest was given certain options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Any one of these breaches; if it is empty, nothing may break.
    pub breaches: Vec<String>,
    /// The options.
    pub with: Vec<String>,
}

/// Why a text is not a case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CaseError {
    /// The line, from 1; 0 for the text as a whole.
    pub line: usize,
    what: String,
}

/// An expectation that no search can meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{line}\": {error}; besides, {}, clean", besides.join(", "))]
pub struct NeverBreaks {
    line: String,
    error: NoSuchOracle,
    besides: Vec<&'static str>,
}

/// What a case can expect in addition to the oracles.
pub const OTHER_BREACHES: [&str; 6] = [
    "hang",
    "livelock",
    "died",
    NOT_BELIEVED,
    Breach::INTERRUPTS_ON,
    Breach::DATA_RACE,
];

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// [`CaseError`] for the first line that cannot be parsed.
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        let mut case = Self {
            cpus: 0,
            append: String::new(),
            programs: Vec::new(),
            expectations: Vec::new(),
            conditions: Vec::new(),
            written: text.to_owned(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                case.read(number, line)
                    .map_err(|what| CaseError { line: number, what })?;
            }
        }
        if case.cpus == 0 {
            return Err(CaseError {
                line: 0,
                what: "there is no line \"cpus N\"".to_owned(),
            });
        }
        Ok(case)
    }

    fn read(&mut self, number: usize, line: &str) -> Result<(), String> {
        // Options for the guest can contain a colon as well.
        let program = line.split_once(':').map(|(cpu, deeds)| (cpu.trim(), deeds));
        if let Some((cpu, deeds)) = program.filter(|(cpu, _)| !cpu.contains(char::is_whitespace)) {
            return self.read_program(number, cpu, deeds);
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "cpus" if self.cpus != 0 => Err("the number of CPUs was given before".to_owned()),
            "cpus" => {
                let cpus = rest
                    .parse()
                    .ok()
                    .filter(|cpus| (1..=MAX_CPUS).contains(cpus));
                self.cpus = cpus.ok_or_else(|| format!("\"{rest}\" is not 1 to {MAX_CPUS}"))?;
                self.programs = vec![Vec::new(); self.cpus as usize];
                Ok(())
            }
            "append" => {
                if !self.append.is_empty() {
                    self.append.push(' ');
                }
                self.append += rest;
                Ok(())
            }
            "expect" => {
                self.expectations.push(expectation(rest)?);
                Ok(())
            }
            "reach" | "never" if self.cpus == 0 => {
                Err("the number of CPUs comes first (cpus N)".to_owned())
            }
            "reach" | "never" if self.conditions.len() == condition::MOST => Err(format!(
                "there are more than {} conditions",
                condition::MOST
            )),
            "reach" | "never" => {
                let condition = Condition::parse(word == "never", rest, self.cpus)?;
                self.conditions.push(condition);
                Ok(())
            }
            _ => Err(format!(
                "\"{word}\" is not cpus, append, expect, reach, never, or the number of a CPU with a \
                 colon"
            )),
        }
    }

    fn read_program(&mut self, line: usize, cpu: &str, deeds: &str) -> Result<(), String> {
        if self.cpus == 0 {
            return Err("the number of CPUs comes first (cpus N)".to_owned());
        }
        let index = self.cpu(cpu)? as usize;
        let program = &mut self.programs[index];
        let deeds = program_text::deeds(deeds, MOST_COMMANDS)?;
        if program.len() + deeds.len() > MOST_COMMANDS {
            return Err(program_text::too_many(MOST_COMMANDS));
        }
        program.extend(deeds.into_iter().map(|text| Deed { line, text }));
        Ok(())
    }

    fn cpu(&self, text: &str) -> Result<u32, String> {
        let cpu = text.parse().ok().filter(|cpu| *cpu < self.cpus);
        cpu.ok_or_else(|| {
            let last = self.cpus - 1;
            format!("\"{text}\" is no CPU of this case; they are 0 to {last}")
        })
    }

    /// By CPU: the commands for what the case says, in a guest with this manifest.
    ///
    /// # Errors
    /// [`CaseError`] for the first deed that the guest does not have, or that is not for cases.
    pub fn commands(&self, manifest: &Manifest) -> Result<Vec<Vec<Command>>, CaseError> {
        let command = |deed: &Deed| {
            self.command(manifest, &deed.text)
                .map_err(|what| CaseError {
                    line: deed.line,
                    what,
                })
        };
        let program = |deeds: &Vec<Deed>| deeds.iter().map(command).collect();
        self.programs.iter().map(program).collect()
    }

    fn command(&self, manifest: &Manifest, text: &str) -> Result<Command, String> {
        let (_, command) = manifest.told(text).map_err(|error| error.to_string())?;
        self.check(manifest, text, &command)?;
        for step in &command.program {
            self.check(manifest, text, step)?;
        }
        Ok(command)
    }

    /// Checks that `command`, which stands in `text`, is one that a case can have, about CPUs of
    /// this one.
    fn check(&self, manifest: &Manifest, text: &str, command: &Command) -> Result<(), String> {
        let deed = manifest.deed_numbered(command.verb);
        let Some(deed) = deed.filter(|it| it.in_case) else {
            let known = manifest.known(|it| it.in_case);
            return Err(format!(
                "\"{}\" cannot stand in a case; there are {known}",
                manifest.deed_name(command.verb)
            ));
        };
        let one = deed.arguments.iter().zip(command.arguments);
        let one = one.filter_map(|(it, cpu)| (*it == Argument::Cpu).then_some(cpu));
        let mut cpus = one.chain(command.mask.iter().map(u64::from));
        let stranger = cpus.find(|cpu| *cpu >= u64::from(self.cpus));
        match stranger {
            Some(cpu) => Err(format!(
                "there is no CPU {cpu} in \"{text}\"; they are 0 to {}",
                self.cpus - 1
            )),
            None => Ok(()),
        }
    }

    /// What must come out of a guest that was given `options`: any one of these breaches; if there
    /// are none, nothing may break. The first expectation that applies decides. If none applies,
    /// nothing may break.
    pub fn expected(&self, options: &str) -> &[String] {
        let given = |word: &String| {
            // As in the guest, the last option with a key counts.
            options.split_whitespace().rfind(|it| key(it) == key(word)) == Some(word)
        };
        self.expectations
            .iter()
            .find(|expectation| expectation.with.iter().all(given))
            .map_or(&[], |expectation| &expectation.breaches)
    }

    /// Checks that what the case expects can break at all in a guest with this manifest. What it expects
    /// with words that the guest does not know, or cannot be given in a search, is about another guest.
    ///
    /// # Errors
    /// [`NeverBreaks`] for the first expectation of something that cannot. It lists what can.
    pub fn check_expected(&self, manifest: &Manifest) -> Result<(), NeverBreaks> {
        let is_known = |word: &String| {
            let mut options = manifest.options.iter();
            options.any(|option| option.name == key(word) && option.search != Search::Without)
        };
        let about_it = |it: &&Expectation| it.with.iter().all(is_known);
        for expectation in self.expectations.iter().filter(about_it) {
            let names = expectation.breaches.iter().map(String::as_str);
            for name in names.filter(|name| !OTHER_BREACHES.contains(name)) {
                oracles::check(manifest, name).map_err(|error| {
                    let is_other = |name: &&str| !oracles::names(manifest).any(|it| it == *name);
                    NeverBreaks {
                        line: expectation.to_string(),
                        error,
                        besides: OTHER_BREACHES.into_iter().filter(is_other).collect(),
                    }
                })?;
            }
        }
        Ok(())
    }
}

fn expectation(text: &str) -> Result<Expectation, String> {
    let (breaches, with) = match text.split_once(" with ") {
        Some((breaches, with)) => (breaches, with),
        None => (text, ""),
    };
    let breaches: Vec<String> = match breaches.trim() {
        "clean" => Vec::new(),
        list => list.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    let with: Vec<String> = with.split_whitespace().map(str::to_owned).collect();
    match with.iter().find(|word| !word.contains('=')) {
        Some(word) => Err(format!(
            "\"{word}\" is no option of the guest, which are KEY=VALUE"
        )),
        None => Ok(Expectation { breaches, with }),
    }
}

impl TryFrom<String> for Case {
    type Error = CaseError;

    fn try_from(text: String) -> Result<Self, CaseError> {
        Self::parse(&text)
    }
}

impl From<Case> for String {
    fn from(case: Case) -> Self {
        case.written
    }
}

/// In the form in which it is parsed, without comments.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cpus {}", self.cpus)?;
        if !self.append.is_empty() {
            writeln!(f, "append {}", self.append)?;
        }
        for (cpu, program) in self.programs.iter().enumerate() {
            if !program.is_empty() {
                let deeds: Vec<_> = program.iter().map(|deed| &*deed.text).collect();
                writeln!(f, "{cpu}: {}", deeds.join("; "))?;
            }
        }
        for expectation in &self.expectations {
            writeln!(f, "{expectation}")?;
        }
        for condition in &self.conditions {
            writeln!(f, "{condition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breaches = match &self.breaches[..] {
            [] => "clean".to_owned(),
            breaches => breaches.join(", "),
        };
        match &self.with[..] {
            [] => write!(f, "expect {breaches}"),
            with => write!(f, "expect {breaches} with {}", with.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::deed::tests::manifest;
    use proptest::prelude::*;
    use shared::manifest::Record;

    const STORY: &str = "# a story\ncpus 4\nappend queue=fifo\n0: many 1,3; many 1,3 wait\n\
                         3: call-single 2\nexpect lost, hang with queue=fifo\nexpect clean\n";

    #[test]
    fn a_case_is_read_and_written() {
        let case = Case::parse(STORY).unwrap();
        assert_eq!(case.cpus, 4);
        assert_eq!(case.programs[0].len(), 2);
        assert_eq!(case.programs[0][1].text, "many 1,3 wait");
        let commands = case.commands(&manifest()).unwrap();
        assert!(commands[0][1].wait);
        assert_eq!(commands[3][0], Command::about(1, 2));
        let again = Case::parse(&case.to_string()).unwrap();
        assert_eq!(again.to_string(), case.to_string());
        assert_eq!(String::from(case.clone()), STORY, "comments are kept");
        assert_eq!(again.commands(&manifest()), Ok(commands));
    }

    #[test]
    fn a_colon_in_a_word_for_the_guest_begins_no_program() {
        let case = Case::parse("cpus 2\nappend never=0:r0=0&1:r0=0\n1 : all\n").unwrap();
        assert_eq!(case.append, "never=0:r0=0&1:r0=0");
        assert_eq!(case.programs[1][0].text, "all");
        let error = Case::parse("cpus 2\nexpekt x:y").unwrap_err().to_string();
        assert!(error.contains("\"expekt\" is not cpus"), "{error}");
    }

    #[test]
    fn what_is_expected_depends_on_the_last_word() {
        let case = Case::parse(STORY).unwrap();
        assert_eq!(case.expected("queue=filo queue=fifo"), ["lost", "hang"]);
        assert!(case.expected("queue=fifo queue=filo").is_empty());
    }

    #[test]
    fn a_line_that_cannot_be_parsed_is_named() {
        for (text, line, what) in [
            ("", 0, "cpus N"),
            ("cpus 0", 1, "1 to"),
            ("cpus 2\ncpus 2", 2, "before"),
            ("0: many 1", 1, "comes first"),
            ("cpus 2\n2: many 1", 2, "0 to 1"),
            ("cpus 2\nexpect lost with fifo", 2, "KEY=VALUE"),
            ("cpus 2\nwhat", 2, "append"),
            ("cpus 2\n0: run 1 {", 2, "not closed"),
        ] {
            let error = Case::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn what_the_guest_cannot_be_told_is_named_with_its_line() {
        for (text, line, what) in [
            ("cpus 2\n0: many", 2, "told as \"call-many CPUS [wait]\""),
            ("cpus 2\n\n0: many 1; many 2", 3, "no CPU 2"),
            ("cpus 2\n0: call-single 2", 2, "no CPU 2"),
            ("cpus 2\n0: run 1 { run 2 }", 2, "no CPU 2"),
            ("cpus 2\n0: repeat 2 { many 2 }", 2, "no CPU 2"),
            ("cpus 2\n0: store x 2\n1: dance", 3, "no deed \"dance\""),
            ("cpus 2\n0: finish 0", 2, "ends the workload"),
            (
                "cpus 2\n0: online 1",
                2,
                "cannot stand in a case; there are call-single,",
            ),
        ] {
            let error = Case::parse(text).unwrap().commands(&manifest());
            let error = error.unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn what_no_oracle_of_the_guest_finds_is_not_expected() {
        let manifest = Manifest::saying(&[
            Record::oracle(1, "torn", "was torn"),
            Record::word("a", "Decides."),
            Record::word("b", "Does not.").without_effect_in_search(),
        ]);
        let check = |expected: &str| {
            let case = Case::parse(&format!(
                "cpus 2\nexpect clean with a=b\nexpect {expected}\n"
            ));
            case.unwrap().check_expected(&manifest)
        };
        for known in [
            "torn, hang",
            "lost",
            "interrupts-on with a=c",
            "not-believed",
            "what-another-guest-watches with a=b queue=fifo",
            "what-another-guest-watches with b=fifo",
        ] {
            assert_eq!(check(known), Ok(()));
        }
        assert_eq!(
            check("torn, loss with a=c").unwrap_err().to_string(),
            "\"expect torn, loss with a=c\": there is no oracle \"loss\" (did you mean \"lost\"?); \
             there are torn, lost, wrong-cpu, accounting; besides, hang, livelock, died, \
             not-believed, interrupts-on, data-race, clean"
        );
        // If the guest has an oracle of that name, the name is listed once.
        let watched = Record::oracle(1, "interrupts-on", "was interrupted");
        let manifest = Manifest::saying(&[watched]);
        let case = Case::parse("cpus 2\nexpect torn").unwrap();
        let error = case.check_expected(&manifest).unwrap_err().to_string();
        assert_eq!(error.matches("interrupts-on").count(), 1, "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cpus|[0-9]|:|many|expect|with|,|;|-|=| |\n|\\PC)*") {
            if let Ok(case) = Case::parse(&text) {
                let _ = case.commands(&manifest());
            }
        }
    }
}
