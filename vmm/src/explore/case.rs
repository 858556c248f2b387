//! Cases: how many CPUs there are, what each is told to do, and what must come out, as a few lines of text.
//! A case says nothing of order; orders are what is searched. Parses, and runs nothing.
//!
//! ```text
//! # The lost call of February 2009.
//! cpus 4
//! 0: many 1,3; many 1,3
//! 3: many 1,2
//! expect lost with queue=fifo
//! ```

use std::fmt;

use shared::lab::MAX_CPUS;
use shared::mailbox::Verb;

use crate::cpus::CpuSet;
use crate::lab::judgement::NOT_BELIEVED;
use crate::lab::mailbox::Command;

/// Most commands that one CPU can be given.
const MOST_COMMANDS: usize = 1000;

/// A case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Number of CPUs.
    pub cpus: u32,
    /// Words for the guest.
    pub append: String,
    /// By CPU: what it is told, one thing after the other.
    pub programs: Vec<Vec<Deed>>,
    /// What must come out, and when.
    pub expectations: Vec<Expectation>,
}

/// One thing that a CPU is told to do, and the words in which the case says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The command.
    pub command: Command,
    /// The words.
    pub text: String,
}

/// What must come out if the guest was given all of some words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Any of these; nothing at all if there is none.
    pub breaches: Vec<String>,
    /// The words.
    pub with: Vec<String>,
}

/// Why a text is no case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CaseError {
    /// The line, from 1; 0 for the text as a whole.
    pub line: usize,
    what: String,
}

/// What a case can expect besides the oracles of the lab.
pub const OTHER_BREACHES: [&str; 4] = ["hang", "livelock", "died", NOT_BELIEVED];

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// [`CaseError`] for the first line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        let mut case = Self {
            cpus: 0,
            append: String::new(),
            programs: Vec::new(),
            expectations: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                case.read(line)
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

    fn read(&mut self, line: &str) -> Result<(), String> {
        if let Some((cpu, deeds)) = line.split_once(':') {
            return self.read_program(cpu.trim(), deeds);
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
            _ => Err(format!(
                "\"{word}\" is not cpus, append, expect, or the number of a CPU with a colon"
            )),
        }
    }

    fn read_program(&mut self, cpu: &str, deeds: &str) -> Result<(), String> {
        if self.cpus == 0 {
            return Err("the number of CPUs comes first (cpus N)".to_owned());
        }
        let index = self.cpu(cpu)? as usize;
        for deed in deeds
            .split(';')
            .map(str::trim)
            .filter(|deed| !deed.is_empty())
        {
            let command = self.command(deed)?;
            if self.programs[index].len() == MOST_COMMANDS {
                return Err(format!("more than {MOST_COMMANDS} commands for one CPU"));
            }
            self.programs[index].push(Deed {
                command,
                text: deed.split_whitespace().collect::<Vec<_>>().join(" "),
            });
        }
        Ok(())
    }

    fn cpu(&self, text: &str) -> Result<u32, String> {
        let cpu = text.parse().ok().filter(|cpu| *cpu < self.cpus);
        cpu.ok_or_else(|| {
            let last = self.cpus - 1;
            format!("\"{text}\" is no CPU of this case; they are 0 to {last}")
        })
    }

    fn command(&self, deed: &str) -> Result<Command, String> {
        let mut words = deed.split_whitespace();
        let name = words.next().unwrap_or_default();
        let (verb, about) = VERBS
            .into_iter()
            .find(|(known, ..)| *known == name)
            .map(|(_, verb, about)| (verb, about))
            .ok_or_else(|| {
                let known = VERBS.map(|(name, ..)| name).join(", ");
                format!("\"{name}\" is nothing that a CPU can do; there are {known}")
            })?;
        let mut argument = || {
            words
                .next()
                .ok_or_else(|| format!("\"{name}\" whom? {}", about.asked()))
        };
        let command = match about {
            About::Nothing | About::All => Command::new(verb),
            About::One => Command::about(verb, self.cpu(argument()?)?),
            About::Some => {
                let cpus = argument()?;
                let set: CpuSet = cpus
                    .parse()
                    .map_err(|_| format!("\"{cpus}\" is no list of CPUs such as 1,3 or 0-2"))?;
                if let Some(cpu) = set.iter().find(|cpu| *cpu >= self.cpus) {
                    return Err(format!("there is no CPU {cpu}; there are {}", self.cpus));
                }
                Command::among(verb, set)
            }
        };
        let is_call = matches!(
            verb,
            Verb::CallSingle | Verb::CallMany | Verb::CallAll | Verb::OnEach | Verb::CallAny
        );
        let wait = match (words.next(), words.next()) {
            (None, _) => false,
            (Some("wait"), None) if is_call => true,
            (Some(word), _) => return Err(format!("\"{word}\" makes no sense after \"{name}\"")),
        };
        Ok(command.waiting(wait))
    }

    /// What must come out of a guest that was given `options`: any of these breaches, or none if there is
    /// none. The first expectation that fits says so; if none does, nothing may break.
    pub fn expected(&self, options: &str) -> &[String] {
        let given = |word: &String| {
            let key = word.split_once('=').map_or(word.as_str(), |(key, _)| key);
            // As in the guest, the last word for a key counts.
            options
                .split_whitespace()
                .rfind(|it| it.split_once('=').map_or(*it, |(key, _)| key) == key)
                == Some(word)
        };
        self.expectations
            .iter()
            .find(|expectation| expectation.with.iter().all(given))
            .map_or(&[], |expectation| &expectation.breaches)
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
    for name in &breaches {
        if !OTHER_BREACHES.contains(&name.as_str()) {
            crate::control::operator::oracle(name).map_err(|error| {
                format!("{error}; besides, {}, clean", OTHER_BREACHES.join(", "))
            })?;
        }
    }
    let with: Vec<String> = with.split_whitespace().map(str::to_owned).collect();
    match with.iter().find(|word| !word.contains('=')) {
        Some(word) => Err(format!(
            "\"{word}\" is no option of the guest, which are KEY=VALUE"
        )),
        None => Ok(Expectation { breaches, with }),
    }
}

/// What a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Nothing,
    All,
    One,
    Some,
}

impl About {
    fn asked(self) -> &'static str {
        match self {
            Self::Nothing | Self::All => "",
            Self::One => "Give a CPU, such as 2",
            Self::Some => "Give CPUs, such as 1,3",
        }
    }
}

const VERBS: [(&str, Verb, About); 10] = [
    ("single", Verb::CallSingle, About::One),
    ("async", Verb::CallAsync, About::One),
    ("many", Verb::CallMany, About::Some),
    ("all", Verb::CallAll, About::All),
    ("each", Verb::OnEach, About::All),
    ("any", Verb::CallAny, About::Some),
    ("irqs-off", Verb::IrqsOff, About::Nothing),
    ("irqs-on", Verb::IrqsOn, About::Nothing),
    ("offline", Verb::Offline, About::One),
    ("leave-mask", Verb::LeaveMask, About::One),
];

/// As it is read, without comments.
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
            let breaches = match &expectation.breaches[..] {
                [] => "clean".to_owned(),
                breaches => breaches.join(", "),
            };
            match &expectation.with[..] {
                [] => writeln!(f, "expect {breaches}")?,
                with => writeln!(f, "expect {breaches} with {}", with.join(" "))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORY: &str = "# a story\ncpus 4\nappend queue=fifo\n0: many 1,3; many 1,3 wait\n3: single 2\n\
                         expect lost, hang with queue=fifo\nexpect clean\n";

    #[test]
    fn a_case_is_read_and_written() {
        let case = Case::parse(STORY).unwrap();
        assert_eq!(case.cpus, 4);
        assert_eq!(case.programs[0].len(), 2);
        assert!(case.programs[0][1].command.wait);
        assert_eq!(case.programs[3][0].command.argument, 2);
        assert_eq!(Case::parse(&case.to_string()), Ok(case));
    }

    #[test]
    fn what_is_expected_depends_on_the_last_word() {
        let case = Case::parse(STORY).unwrap();
        assert_eq!(case.expected("queue=filo queue=fifo"), ["lost", "hang"]);
        assert!(case.expected("queue=fifo queue=filo").is_empty());
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        for (text, line, what) in [
            ("", 0, "cpus N"),
            ("cpus 0", 1, "1 to"),
            ("cpus 2\ncpus 2", 2, "before"),
            ("0: many 1", 1, "comes first"),
            ("cpus 2\n2: many 1", 2, "0 to 1"),
            ("cpus 2\n0: many", 2, "such as 1,3"),
            ("cpus 2\n0: many 2", 2, "no CPU 2"),
            ("cpus 2\n0: single x", 2, "no CPU"),
            ("cpus 2\n0: dance", 2, "single"),
            ("cpus 2\n0: async 1 wait", 2, "makes no sense"),
            ("cpus 2\n0: many 1 wait wait", 2, "makes no sense"),
            ("cpus 2\nexpect loss", 2, "lost"),
            ("cpus 2\nexpect lost with fifo", 2, "KEY=VALUE"),
            ("cpus 2\nwhat", 2, "append"),
        ] {
            let error = Case::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cpus|[0-9]|:|many|expect|with|,|;|-|=| |\n|\\PC)*") {
            let _ = Case::parse(&text);
        }
    }
}
