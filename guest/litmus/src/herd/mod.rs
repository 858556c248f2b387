//! Files of herdtools (`.litmus`) for x86: the sections of such a file, and the test that they
//! make. The lines of programs are read by [`x86`].
//!
//! What a [`Test`] cannot express is refused, with its line: values that depend on what was read,
//! branches, accesses of less than 32 bits, variables that the guest does not have.

mod x86;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::condition::{Condition, Place, parse_place};
use crate::program::{MOST_PROGRAMS, MOST_STEPS, Program, Variable};
use crate::syntax::{SyntaxError, number, refused};
use crate::test::{Claim, Memory, Quantifier, Test};
use x86::{Dialect, Registers, Value};

/// Why a file is no test that can be run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HerdError {
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub what: SyntaxError,
}

impl fmt::Display for HerdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl core::error::Error for HerdError {}

/// Reads a file.
///
/// # Errors
/// [`HerdError`] for the first line that makes no sense, or cannot be run here.
pub fn parse(text: &str) -> Result<Test, HerdError> {
    let text = without_comments(text)?;
    let mut scanner = Scanner {
        rest: &text,
        line: 1,
    };
    let (dialect, name) = scanner.head()?;
    let mut file = File {
        dialect,
        initial: Memory::default(),
        programs: Vec::new(),
        registers: Vec::new(),
    };
    file.read_initial(&mut scanner)?;
    file.read_programs(&mut scanner)?;
    let others = scanner.locations()?;
    let (line, claim) = scanner.claim()?;
    (file.test(&name, &claim, others)).map_err(|what| HerdError { line, what })
}

/// `text` with spaces in place of comments, which can be nested.
fn without_comments(text: &str) -> Result<String, HerdError> {
    let mut depth = 0_usize;
    let (mut line, mut began) = (1, 1);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        if rest.starts_with("(*") {
            length = 2;
            if depth == 0 {
                began = line;
            }
            depth += 1;
        } else if rest.starts_with("*)") && depth > 0 {
            length = 2;
            depth -= 1;
        } else if first == '\n' {
            kept.push('\n');
            line += 1;
        } else {
            kept.push(if depth > 0 { ' ' } else { first });
        }
        rest = &rest[length..];
    }
    match depth {
        0 => Ok(kept),
        _ => Err(HerdError {
            line: began,
            what: SyntaxError("a comment is not closed".into()),
        }),
    }
}

/// The rest of a file, which has not been read yet, and the line where it begins.
struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn refused<T>(&self, why: impl Into<String>) -> Result<T, HerdError> {
        refused(why).map_err(|what| HerdError {
            line: self.line,
            what,
        })
    }

    fn advance(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        self.advance(self.rest.len() - self.rest.trim_start().len());
    }

    /// Everything up to `end`, which is skipped too, with the line where it begins.
    fn until(&mut self, end: char) -> Option<(usize, &'a str)> {
        self.skip_blanks();
        let line = self.line;
        let length = self.rest.find(end)?;
        let taken = self.advance(length);
        self.advance(end.len_utf8());
        Some((line, taken))
    }

    /// Skips `word`, if the rest begins with exactly that word, and returns whether it does.
    fn takes(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(word);
        let is_whole = |rest: &&str| !rest.starts_with(|next: char| next.is_alphanumeric());
        let is_it = rest.is_some_and(|rest| is_whole(&rest));
        if is_it {
            self.advance(word.len());
        }
        is_it
    }

    /// Architecture and name.
    fn head(&mut self) -> Result<(Dialect, String), HerdError> {
        self.skip_blanks();
        let head = self.rest.lines().next().unwrap_or_default();
        let mut words = head.split_whitespace();
        let architecture = words.next().unwrap_or_default();
        let dialect = match architecture {
            "X86_64" => Dialect::Att,
            "X86" => Dialect::Intel,
            _ => {
                let why = "the file has to begin with X86_64 (or X86) and the name of the test";
                return self.refused(format!("{why}, not with \"{architecture}\""));
            }
        };
        let name = words.next().unwrap_or_default();
        if let Err(why) = crate::test::check_name(name) {
            return self.refused(why.0);
        }
        let name = String::from(name);
        self.advance(head.len());
        Ok((dialect, name))
    }

    /// The places to report besides those of the condition.
    fn locations(&mut self) -> Result<Vec<Place>, HerdError> {
        if !self.takes("locations") {
            return Ok(Vec::new());
        }
        let Some((line, list)) = self.until(']') else {
            return self.refused("a list such as locations [x; 0:rax;] is not closed");
        };
        let list = list.strip_prefix('[').unwrap_or(list);
        let places = list
            .split(';')
            .map(str::trim)
            .filter(|place| !place.is_empty());
        let places: Result<_, _> = places.map(parse_place).collect();
        places.map_err(|what| HerdError { line, what })
    }

    fn claim(&mut self) -> Result<(usize, Claim), HerdError> {
        let quantifier = if self.takes("~exists") || self.takes("~ exists") {
            Quantifier::Never
        } else if self.takes("exists") {
            Quantifier::Exists
        } else if self.takes("forall") {
            Quantifier::ForAll
        } else {
            return self.refused("exists, ~exists or forall is missing behind the programs");
        };
        let line = self.line;
        let condition = Condition::parse(self.rest).map_err(|what| HerdError { line, what })?;
        Ok((
            line,
            Claim {
                quantifier,
                condition,
            },
        ))
    }
}

/// What has been read.
struct File {
    dialect: Dialect,
    initial: Memory,
    programs: Vec<Program>,
    /// By CPU: what its registers hold before its program, and, as that is read, after it.
    registers: Vec<Registers>,
}

impl File {
    fn read_initial(&mut self, scanner: &mut Scanner<'_>) -> Result<(), HerdError> {
        // Before that are the title and lines such as Cycle=..., which are for people.
        if scanner.until('{').is_none() {
            return scanner.refused("the initial values, { ... }, are missing");
        }
        let Some((mut line, text)) = scanner.until('}') else {
            return scanner.refused("the initial values, { ... }, are not closed");
        };
        for item in text.split(';') {
            let blank = item.len() - item.trim_start().len();
            let at = line + item[..blank].matches('\n').count();
            line += item.matches('\n').count();
            self.read_initial_value(item.trim())
                .map_err(|what| HerdError { line: at, what })?;
        }
        Ok(())
    }

    fn read_initial_value(&mut self, item: &str) -> Result<(), SyntaxError> {
        let (place, value) = match item.split_once('=') {
            Some((place, value)) => (place.trim(), Some(value.trim())),
            None => (item, None),
        };
        // A type may stand in front.
        let Some(place) = place.split_whitespace().last() else {
            return Ok(());
        };
        let Some((cpu, register)) = place.split_once(':') else {
            let name = place
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'));
            let variable = Variable::named(name.unwrap_or(place))?;
            self.initial[variable as usize] = value.map_or(Ok(0), number)?;
            return Ok(());
        };
        let cpu = number(cpu).ok().and_then(|cpu| usize::try_from(cpu).ok());
        let Some(cpu) = cpu.filter(|cpu| *cpu < MOST_PROGRAMS) else {
            return refused(format!("\"{place}\" is no register of a CPU such as 0:rax"));
        };
        let register = x86::register(register)?;
        let value = value.unwrap_or("0");
        let value = match value.strip_prefix('&').unwrap_or(value) {
            name if name.starts_with(|first: char| first.is_alphabetic()) => {
                Value::Address(Variable::named(name)?)
            }
            text => Value::Known(number(text)?),
        };
        self.of_cpu(cpu).set(register, value);
        Ok(())
    }

    fn of_cpu(&mut self, cpu: usize) -> &mut Registers {
        if self.registers.len() <= cpu {
            self.registers.resize_with(cpu + 1, Registers::default);
        }
        &mut self.registers[cpu]
    }

    fn read_programs(&mut self, scanner: &mut Scanner<'_>) -> Result<(), HerdError> {
        loop {
            scanner.skip_blanks();
            let ends = ["exists", "~", "forall", "locations", "filter"];
            if ends.iter().any(|end| scanner.rest.starts_with(end)) {
                break;
            }
            let Some((line, row)) = scanner.until(';') else {
                return scanner.refused("a row of the programs has to end with a semicolon");
            };
            self.read_row(row)
                .map_err(|what| HerdError { line, what })?;
        }
        match self.programs.len() {
            0 => scanner.refused("the programs are missing: P0 | P1 ;"),
            cpus if cpus < self.registers.len() => {
                let last = self.registers.len() - 1;
                scanner.refused(format!("CPU {last} has initial values and no program"))
            }
            _ => Ok(()),
        }
    }

    fn read_row(&mut self, row: &str) -> Result<(), SyntaxError> {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if self.programs.is_empty() {
            if cells.len() > MOST_PROGRAMS {
                return refused(format!("a test has at most {MOST_PROGRAMS} programs"));
            }
            for (cpu, cell) in cells.iter().enumerate() {
                if *cell != format!("P{cpu}") {
                    return refused(format!("\"{cell}\" stands where P{cpu} has to be"));
                }
            }
            self.programs.resize_with(cells.len(), Program::default);
            return Ok(());
        }
        if cells.len() != self.programs.len() {
            return refused(format!(
                "the row has {} columns, and there are {} programs",
                cells.len(),
                self.programs.len()
            ));
        }
        for (cpu, cell) in cells
            .into_iter()
            .enumerate()
            .filter(|(_, cell)| !cell.is_empty())
        {
            let (dialect, program) = (self.dialect, self.programs[cpu].loads());
            let step = x86::step(cell, dialect, self.of_cpu(cpu), program)?;
            let steps = &mut self.programs[cpu].steps;
            if steps.len() == MOST_STEPS {
                return refused(format!("a program has at most {MOST_STEPS} instructions"));
            }
            steps.extend(step);
        }
        Ok(())
    }

    /// The test. Registers keep the names by which it speaks of them.
    fn test(
        mut self,
        name: &str,
        claim: &Claim,
        mut others: Vec<Place>,
    ) -> Result<Test, SyntaxError> {
        let mut named: Vec<(usize, &str, String)> = Vec::new();
        let mut places = claim.condition.places();
        places.append(&mut others);
        for place in &places {
            let Place::Register(cpu, spelt) = place else {
                continue;
            };
            let register = x86::register(spelt)?;
            if self.programs.get(*cpu).is_none() {
                return refused(format!("\"{place}\": there is no P{cpu}"));
            }
            if !matches!(self.of_cpu(*cpu).get(register), Value::Read(_)) {
                return refused(format!(
                    "\"{place}\" is left without a value that P{cpu} has read"
                ));
            }
            if !named
                .iter()
                .any(|(other, known, _)| (*other, *known) == (*cpu, register))
            {
                named.push((*cpu, register, spelt.clone()));
            }
        }
        let spelling = |cpu: usize, register: &str| {
            let known = named
                .iter()
                .find(|(other, known, _)| (*other, *known) == (cpu, register));
            known.map(|(.., spelt)| spelt.clone())
        };
        for (cpu, program) in self.programs.iter_mut().enumerate() {
            for step in &mut program.steps {
                step.register = step.register.take().and_then(|name| spelling(cpu, &name));
            }
        }
        let rename = |place: &Place| match place {
            Place::Register(cpu, spelt) => {
                let known = x86::register(spelt)
                    .ok()
                    .and_then(|name| spelling(*cpu, name));
                Place::Register(*cpu, known.unwrap_or_else(|| spelt.clone()))
            }
            Place::Variable(_) => place.clone(),
        };
        let claim = Claim {
            quantifier: claim.quantifier,
            condition: claim.condition.renamed(&rename),
        };
        let places: Vec<_> = places.iter().map(rename).collect();
        Test::new(name, self.programs, self.initial, claim, &places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::words;
    use proptest::prelude::*;

    const SB: &str = "X86_64 SB\n\
        \"PodWR Fre PodWR Fre\"\n\
        Orig=PodWR Fre PodWR Fre\n\
        { (* all zero, (* as at first *) *) }\n \
        P0            | P1            ;\n \
        movl $1,(x)   | movl $1,(y)   ;\n \
        movl (y),%eax | movl (x),%eax ;\n\
        exists (0:rax=0 /\\ 1:rax=0)\n";

    #[test]
    fn a_file_is_read() {
        assert_eq!(
            words(&parse(SB).unwrap()),
            "workload=rounds name=SB test=0:store,x,1;load,y,rax|1:store,y,1;load,x,rax \
             exists=0:rax=0&1:rax=0"
        );
    }

    #[test]
    fn the_older_dialect_is_read_too() {
        let text = "X86 SB+xchgs\n{ x=0; int y=2; 0:EBX=7; }\n\
                    P0          | P1          ;\n\
                    MOV EAX,$1  | MOV [y],$1  ;\n\
                    XCHG [x],EAX| MFENCE      ;\n\
                    MOV EBX,[y] | MOV EAX,[x] ;\n\
                    locations [x; 1:EAX;]\n\
                    forall 0:EBX=0 \\/ 0:RBX=1 \\/\n 0:EBX=2\n";
        assert_eq!(
            words(&parse(text).unwrap()),
            "workload=rounds name=SB+xchgs init=y=2 \
             test=0:xchg,x,1;load,y,EBX|1:store,y,1;fence;load,x,EAX \
             forall=0:EBX=0|0:EBX=1|0:EBX=2 locations=1:EAX,x"
        );
    }

    #[test]
    fn every_instruction_is_read() {
        let text = "X86_64 all\n{ 0:rdi=x; 0:rsi=&y; [z]=3; 0:r8=-4; }\nP0;\n\
                    movq $0x10,(%rdi);\nmovq %r8,0(%rsi);\nmovl $2,%ecx;\nmovl %ecx,%edx;\n\
                    xchgl %edx,(z);\nlock addl $1,(x);\nlock incq y;\nlock decl (y);\n\
                    lock subl $2,[x];\nlock xaddl %ecx,(w);\nmfence;\nmovq (%rsi),%r9;\n\
                    ~exists (0:edx=0 /\\ 0:rcx=1 /\\ 0:r9=2 /\\ x=3)";
        assert_eq!(
            words(&parse(text).unwrap()),
            "workload=rounds name=all init=z=3 \
             test=0:store,x,16;store,y,-4;xchg,z,2,edx;add,x,1;add,y,1;add,y,-1;add,x,-2;\
             add,w,2,rcx;fence;load,y,r9 never=0:edx=0&0:rcx=1&0:r9=2&x=3"
        );
    }

    #[test]
    fn what_cannot_be_run_is_named_with_its_line() {
        let of = |program: &str| format!("X86_64 T\n{{\n}}\nP0;\n{program}\nexists (x=1)");
        for (text, line, what) in [
            ("".into(), 1, "has to begin with X86_64"),
            ("\nAArch64 SB".into(), 2, "not with \"AArch64\""),
            ("X86_64\n{}".into(), 1, "name"),
            ("X86_64 T\n(*\n{}".into(), 2, "comment is not closed"),
            (
                "X86_64 T\nP0;".into(),
                2,
                "initial values, { ... }, are missing",
            ),
            ("X86_64 T\n{ x=1;".into(), 2, "are not closed"),
            (
                "X86_64 T\n{ x=1;\n u=1; }".into(),
                3,
                "\"u\" is no variable",
            ),
            ("X86_64 T\n{\nx=y}".into(), 3, "\"y\" is no number"),
            (
                "X86_64 T\n{ 0:xmm0=1; }".into(),
                2,
                "\"xmm0\" is no register",
            ),
            ("X86_64 T\n{ 77:rax=1; }".into(), 2, "no register of a CPU"),
            (
                "X86_64 T\n{ 1:rax=1; }\nP0;\nexists (x=1)".into(),
                4,
                "CPU 1 has initial",
            ),
            ("X86_64 T\n{}\nP1;".into(), 3, "where P0 has to be"),
            (
                "X86_64 T\n{}\nexists (x=1)".into(),
                3,
                "programs are missing",
            ),
            (
                "X86_64 T\n{}\nP0 | P1;\nmfence;".into(),
                4,
                "1 columns, and there are 2",
            ),
            (
                "X86_64 T\n{}\nP0;\nmfence\n".into(),
                4,
                "end with a semicolon",
            ),
            (
                "X86_64 T\n{}\nP0;\nmfence;\nfilter (x=1)".into(),
                5,
                "is missing behind",
            ),
            (
                "X86_64 T\n{}\nP0;\nexists\n (x=1 /\\)".into(),
                4,
                "is missing before",
            ),
            ("X86_64 T\n{}\nP0;\nexists (0:rax=1)".into(), 4, "has read"),
            (
                "X86_64 T\n{}\nP0;\nexists (1:rax=1)".into(),
                4,
                "there is no P1",
            ),
            (of("movl (x),%eax;\nmovl %eax,(y);"), 6, "that was read"),
            (of("movl (x),%eax;\nmovl %eax,%ebx;"), 6, "that was read"),
            (of("movb $1,(x);"), 5, "\"movb\""),
            (of("movl $1,(u);"), 5, "\"u\" is no variable"),
            (of("movl $1,(%rax);"), 5, "no address"),
            (
                of("movl %edi,(x);").replace("{\n}", "{ 0:rdi=x; }"),
                4,
                "an address",
            ),
            (of("movl $1,$2;"), 5, "two operands"),
            (of("movl (x),(y);"), 5, "two operands"),
            (of("movl $1;"), 5, "two operands"),
            (of("incl (x);"), 5, "without lock"),
            (of("lock movl $1,(x);"), 5, "\"lock movl\""),
            (of("lock addl $1,%eax;"), 5, "in memory"),
            (of("jmp L0;"), 5, "\"jmp\""),
            (of("movl $1,2(%rax);"), 5, "\"2(%rax)\""),
            (of(&"mfence;\n".repeat(33)), 37, "at most 32"),
        ] {
            let error = parse(&text).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(what), "{text}: {message}");
            assert_eq!(error.line, line, "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(
            text in "(X86(_64)? T\n|\\{|\\}|P[0-2]|\\||;|\n|mov|lock |xadd|%eax|EAX|\
                     ,|\\(|\\)|x|\\$[0-9]|\\(\\*|\\*\\)|exists|:|=|\\PC)*"
        ) {
            let _ = parse(&text);
        }

        #[test]
        fn nor_does_a_file_with_a_change(at in 0..SB.len(), text in "\\PC{0,3}") {
            if let (Some(before), Some(after)) = (SB.get(..at), SB.get(at + 1..)) {
                let _ = parse(&format!("{before}{text}{after}"));
            }
        }
    }
}
