//! What this guest takes on its command line besides what the kit takes: the test and its claim,
//! and how often it is run.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use kit::declare;
use kit::manifest::Record;
use kit::options::{MachineOptions, OptionsError, choose, number};

use crate::condition::{Condition, Place};
use crate::program::{self, Program};
use crate::registers::{self, REGISTERS};
use crate::syntax::SyntaxError;
use crate::test::{self, Claim, Memory, Quantifier, Test};

/// The most rounds between two collections of outcomes.
const MOST_IN_BATCH: usize = 4096;

declare! {
    Record::word("workload", "Whether CPUs run a test by themselves, or do as they are told.")
        .set_by_search("puppet"),
    Record::value("workload", 0, "rounds"),
    Record::value("workload", 1, "puppet"),
    Record::word("name", "The name of the test.").without_effect_in_search(),
    Record::word("test", "What each CPU does in each round.").without_effect_in_search(),
    Record::word("init", "What variables hold before, such as x=1,y=2."),
    Record::word("exists", "An outcome that may be.").without_effect_in_search(),
    Record::word("never", "An outcome that must not be, such as 0:r0=0&1:r0=0."),
    Record::word("forall", "What every outcome must be."),
    Record::word("locations", "Places to tell beside those of the claim.")
        .without_effect_in_search(),
    Record::word("rounds", "How often the test is run.").without_effect_in_search(),
    Record::word("batch", "Rounds between two looks at what came out.").without_effect_in_search(),
    Record::word("sync", "When CPUs meet: before each round, or each batch.")
        .without_effect_in_search(),
    Record::value("sync", 0, "round"),
    Record::value("sync", 1, "batch"),
}

/// `workload=`: what the CPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// They run a test, round after round.
    Rounds,
    /// They do as their mailboxes say.
    Puppet,
}

/// `sync=`: when all CPUs meet, so that their programs run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before each round.
    Round,
    /// Before each batch of rounds.
    Batch,
}

/// The options of a run. `None` for those that the command line does not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    workload: Option<Workload>,
    name: Option<String>,
    programs: Option<Vec<Program>>,
    initial: Memory,
    claim: Option<Claim>,
    locations: Vec<Place>,
    rounds: Option<u64>,
    batch: Option<usize>,
    sync: Option<Sync>,
}

impl Options {
    /// What the CPUs do.
    pub fn workload(&self) -> Workload {
        self.workload.unwrap_or(Workload::Rounds)
    }

    /// What variables hold before.
    pub fn initial(&self) -> Memory {
        self.initial
    }

    /// What is claimed.
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// How often the test is run.
    pub fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(10_000)
    }

    /// Rounds between two collections of outcomes.
    pub fn batch(&self) -> usize {
        self.batch.unwrap_or(500)
    }

    /// When CPUs meet.
    pub fn sync(&self) -> Sync {
        self.sync.unwrap_or(Sync::Round)
    }

    /// The test to run: store buffering by default.
    ///
    /// # Errors
    /// The key whose value is missing or does not fit, and why.
    pub fn test(&self) -> Result<Test, (&'static str, SyntaxError)> {
        let text = "0:store,x,1;load,y|1:store,y,1;load,x";
        let (name, programs) = match &self.programs {
            Some(programs) => ("test", programs.clone()),
            None => ("SB", program::parse(text).map_err(|why| ("test", why))?),
        };
        let claim = match (&self.claim, &self.programs) {
            (Some(claim), _) => claim.clone(),
            (None, None) => Claim {
                quantifier: Quantifier::Exists,
                condition: Condition::parse("0:r0=0&1:r0=0").map_err(|why| ("exists", why))?,
            },
            (None, Some(_)) => {
                let why = "goes with a claim of what comes out: exists=, never= or forall=";
                return Err(("test", SyntaxError(why.into())));
            }
        };
        let key = claim.quantifier.key();
        let name = self.name.as_deref().unwrap_or(name);
        (Test::new(name, programs, self.initial, claim, &self.locations)).map_err(|why| (key, why))
    }

    /// Refuses `sync=batch` for a test in which all CPUs have to meet before each round.
    fn check_sync(&self, test: &Test) -> Result<(), (&'static str, SyntaxError)> {
        if self.sync() == Sync::Batch && test.interrupts() {
            let why = "is not for a test with interrupts, which are taken in the round they are of";
            return Err(("sync", SyntaxError(why.into())));
        }
        Ok(())
    }

    /// Refuses options that make no sense with `workload=puppet`.
    fn check_puppet(&self) -> Result<(), (&'static str, SyntaxError)> {
        let without_effect = [
            ("name", self.name.is_some()),
            ("test", self.programs.is_some()),
            ("locations", !self.locations.is_empty()),
            ("rounds", self.rounds.is_some()),
            ("batch", self.batch.is_some()),
            ("sync", self.sync.is_some()),
        ];
        if let Some((key, _)) = without_effect.into_iter().find(|(_, is_given)| *is_given) {
            let why = "has no effect with workload=puppet, with which CPUs do as they are told";
            return Err((key, SyntaxError(why.into())));
        }
        let Some(claim) = &self.claim else {
            return Ok(());
        };
        let key = claim.quantifier.key();
        if claim.quantifier == Quantifier::Exists {
            let why = "can be seen in many runs only, and here is one; say never= or forall=";
            return Err((key, SyntaxError(why.into())));
        }
        for place in claim.condition.places() {
            if let Place::Register(_, name) = &place
                && registers::numbered(name).is_none()
            {
                let why = format!(
                    "names {place}, and registers of CPUs that are told what to do are r0 to \
                     r{last} and h0 to h{last}",
                    last = REGISTERS - 1
                );
                return Err((key, SyntaxError(why)));
            }
        }
        Ok(())
    }
}

/// The error that says what is wrong with `value` of `key`. Its text is leaked, since a guest that
/// reports it ends.
fn wrong<'a>(key: &'a str, value: &'a str) -> impl Fn(SyntaxError) -> OptionsError<'a> {
    move |why| OptionsError::Wrong(key, value, format!("is not understood: {why}").leak())
}

impl kit::options::Options for Options {
    fn keys() -> &'static [&'static str] {
        &[
            "workload",
            "name",
            "test",
            "init",
            "exists",
            "never",
            "forall",
            "locations",
            "rounds",
            "batch",
            "sync",
        ]
    }

    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), OptionsError<'a>> {
        let wrong = wrong(key, value);
        match key {
            "workload" => {
                let known = [("rounds", Workload::Rounds), ("puppet", Workload::Puppet)];
                self.workload = Some(choose(key, value, known)?);
            }
            "name" => {
                test::check_name(value).map_err(wrong)?;
                self.name = Some(value.to_owned());
            }
            "test" => self.programs = Some(program::parse(value).map_err(wrong)?),
            "init" => self.initial = test::parse_initial(value).map_err(wrong)?,
            "locations" => self.locations = test::parse_places(value).map_err(wrong)?,
            "rounds" => self.rounds = Some(positive(key, value, u64::MAX)?),
            "batch" => self.batch = Some(positive(key, value, MOST_IN_BATCH as u64)? as usize),
            "sync" => {
                let known = [("round", Sync::Round), ("batch", Sync::Batch)];
                self.sync = Some(choose(key, value, known)?);
            }
            _ => {
                let quantifier = Quantifier::ALL.into_iter().find(|it| it.key() == key);
                let quantifier =
                    quantifier.ok_or_else(|| OptionsError::UnknownKey(key, Self::keys()))?;
                self.claim = Some(Claim {
                    quantifier,
                    condition: Condition::parse(value).map_err(wrong)?,
                });
            }
        }
        Ok(())
    }

    fn check(&self, machine: &MachineOptions) -> Result<(), OptionsError<'static>> {
        let checked = match self.workload() {
            Workload::Puppet if machine.lab.is_none() => {
                let nobody = "nobody would ever tell the CPUs what to do";
                return Err(OptionsError::NeedsLab("workload", "puppet", nobody));
            }
            Workload::Puppet => self.check_puppet(),
            Workload::Rounds => self.test().and_then(|test| self.check_sync(&test)),
        };
        checked.map_err(|(key, why)| OptionsError::Wrong(key, "...", why.0.leak()))
    }

    fn check_cpus(&self, cpus: usize) -> Result<(), String> {
        let (what, needed) = match self.workload() {
            Workload::Rounds => {
                let test = self.test().map_err(|(_, why)| why.to_string())?;
                (format!("test {}", test.name), test.programs.len())
            }
            Workload::Puppet => {
                let places = self.claim.iter().flat_map(|claim| claim.condition.places());
                let needed = places.map(|place| match place {
                    Place::Register(cpu, _) => cpu + 1,
                    Place::Variable(_) => 0,
                });
                ("the claim".into(), needed.max().unwrap_or_default())
            }
        };
        if cpus < needed {
            return Err(format!(
                "{what} needs {needed} CPUs, and the machine has {cpus}"
            ));
        }
        Ok(())
    }

    fn write_words(&self, _: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let initial = test::print_initial(&self.initial);
        match self.workload() {
            Workload::Puppet => f.write_str(" workload=puppet")?,
            Workload::Rounds => {
                let Ok(test) = self.test() else {
                    return Err(fmt::Error);
                };
                let sync = match self.sync() {
                    Sync::Round => "round",
                    Sync::Batch => "batch",
                };
                write!(
                    f,
                    " {} rounds={} batch={} sync={sync}",
                    crate::case::words(&test),
                    self.rounds(),
                    self.batch()
                )?;
                return Ok(());
            }
        }
        if !initial.is_empty() {
            write!(f, " init={initial}")?;
        }
        match &self.claim {
            Some(claim) => write!(f, " {}={}", claim.quantifier.key(), claim.condition),
            None => Ok(()),
        }
    }

    fn write_title(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.workload(), self.test()) {
            (Workload::Rounds, Ok(test)) => write!(f, ", test {}", test.name),
            _ => Ok(()),
        }
    }
}

/// The number `value`, 1 to `most`.
fn positive<'a>(key: &'a str, value: &'a str, most: u64) -> Result<u64, OptionsError<'a>> {
    match number(key, value)? {
        number if (1..=most).contains(&number) => Ok(number),
        _ => {
            let why = format!("is none of 1 to {most}");
            Err(OptionsError::Wrong(key, value, why.leak()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::options::{CommandLine, Options as _};

    fn parse(line: &str) -> Result<Options, String> {
        let line = CommandLine::parse(line).map_err(|why| why.to_string());
        line.map(|line: CommandLine<Options>| line.guest)
    }

    fn words(options: &Options) -> String {
        struct Words<'a>(&'a Options);
        impl fmt::Display for Words<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_words(2, f)
            }
        }
        Words(options).to_string()
    }

    #[test]
    fn nothing_said_is_store_buffering() {
        let options = parse("").unwrap();
        assert_eq!(
            words(&options),
            " workload=rounds name=SB test=0:store,x,1;load,y|1:store,y,1;load,x \
             exists=0:r0=0&1:r0=0 rounds=10000 batch=500 sync=round"
        );
        assert_eq!(options.check_cpus(2), Ok(()));
        let why = options.check_cpus(1).unwrap_err();
        assert_eq!(why, "test SB needs 2 CPUs, and the machine has 1");
    }

    #[test]
    fn what_a_run_is_made_of_asks_for_the_same() {
        for line in [
            "",
            "name=MP test=0:store,x,1;store,y,1|1:load,y,rax;load,x,rbx never=1:rax=1&1:rbx=0",
            "test=0:load,x forall=x=3&~y=1 init=x=3 locations=0:r0 rounds=7 batch=2 sync=batch",
            "workload=puppet lab=0x1000",
            "workload=puppet lab=0x1000 init=x=1,b=-2 never=0:r0=1&(1:h31=2|x=3)",
        ] {
            let options = parse(line).unwrap();
            let again = words(&options);
            let read = parse(&format!("lab=0x1000{again}")).unwrap();
            assert_eq!(words(&read), again, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (line, what) in [
            (
                "tset=0:",
                "\"tset=0:\" is not an option; there are workload=, name=, test=,",
            ),
            ("workload=stress", "takes one of rounds puppet"),
            ("name=#", "name=# is not understood: \"#\" is no name"),
            (
                "test=0:jump",
                "test=0:jump is not understood: \"jump\" is nothing",
            ),
            (
                "test=0:load,x",
                "goes with a claim of what comes out: exists=, never= or forall=",
            ),
            (
                "test=0:load,x never=0:r1=1",
                "never=... \"0:r1\": CPU 0 reads 1 values",
            ),
            (
                "never=0:r0=2&1:r7=1",
                "never=... \"1:r7\": CPU 1 reads 1 values",
            ),
            ("exists=x=1&", "exists=x=1& is not understood: a comparison"),
            (
                "init=u=1",
                "init=u=1 is not understood: \"u\" is no variable",
            ),
            ("locations=0:", "locations=0: is not understood"),
            ("rounds=0", "rounds=0 is none of 1 to"),
            ("rounds=many", "rounds=many is not a number"),
            ("batch=5000", "batch=5000 is none of 1 to 4096"),
            ("sync=never", "takes one of round batch"),
            (
                "test=0:irqs-off never=x=1 sync=batch",
                "sync=... is not for a test with interrupts",
            ),
            ("workload=puppet", "needs a monitor that offers a lab"),
            (
                "lab=0x1000 workload=puppet rounds=3",
                "rounds=... has no effect with workload=puppet",
            ),
            (
                "lab=0x1000 workload=puppet exists=x=1",
                "say never= or forall=",
            ),
            (
                "lab=0x1000 workload=puppet never=0:rax=1",
                "names 0:rax, and registers",
            ),
            (
                "lab=0x1000 workload=puppet never=0:r32=1",
                "are r0 to r31 and h0 to h31",
            ),
        ] {
            let why = parse(line).unwrap_err();
            assert!(
                why.starts_with("command line: ") && why.contains(what),
                "{line}: {why}"
            );
        }
        let options = parse("lab=0x1000 workload=puppet never=2:r0=1").unwrap();
        let why = options.check_cpus(2).unwrap_err();
        assert_eq!(why, "the claim needs 3 CPUs, and the machine has 2");
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(
            line in "((workload|test|never|init|rounds)=|0:|load,|x|r0|=|,|;| |\\PC)*",
        ) {
            let _ = parse(&line);
        }
    }
}
