//! What a run, a search or a replay has shown, as results of tests: a suite for each machine,
//! search or replay, and in it a test for each thing that was watched. For continuous integration,
//! which keeps such results by the names of the tests: these stay the same from run to run. Only
//! says what the verdict and the report say; [`junit`] and [`ktap`] have the forms.

pub mod junit;
pub mod ktap;
mod run;
mod search;

pub use run::of_run;
pub use search::{of_replay, of_search};

/// The test that tells how the whole of a suite ended. Every suite has it, and it is the first.
const VERDICT: &str = "verdict";

/// Results about one machine, search or replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// What it is about.
    pub name: String,
    /// When it began, as RFC 3339 has it, if that is known.
    pub date: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Where it comes from: names and values.
    pub facts: Vec<(String, String)>,
    /// The tests.
    pub tests: Vec<Test>,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub came_to: CameTo,
    /// What else there is to say, in lines.
    pub remarks: Vec<String>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameTo {
    /// It held.
    Passed,
    /// It did not hold.
    Failed(String),
    /// A time limit came first, or nothing moved any more.
    TimedOut(String),
    /// It could not be carried to its end.
    Error(String),
    /// Nothing can be said of it.
    Skipped(String),
}

impl Suite {
    /// The suite of something that was refused before there was anything to report, with the exit
    /// status of the command.
    pub fn refused(name: &str, message: &str, status: u8) -> Self {
        let message = message.to_owned();
        Self {
            name: name.to_owned(),
            date: None,
            seconds: 0.0,
            facts: Vec::new(),
            tests: vec![Test::new(
                VERDICT,
                match status {
                    1 => CameTo::Failed(message),
                    5 => CameTo::TimedOut(message),
                    _ => CameTo::Error(message),
                },
            )],
        }
    }

    /// How many of the tests are so.
    fn count(&self, is_so: impl Fn(&CameTo) -> bool) -> usize {
        self.tests.iter().filter(|it| is_so(&it.came_to)).count()
    }
}

impl Test {
    fn new(name: impl Into<String>, came_to: CameTo) -> Self {
        Self {
            name: name.into(),
            came_to,
            remarks: Vec::new(),
        }
    }
}

impl CameTo {
    /// Whether it is no obstacle to the whole having passed.
    fn is_good(&self) -> bool {
        matches!(self, Self::Passed | Self::Skipped(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of every kind, with texts that no form could take as they are.
    pub(super) fn suites() -> Vec<Suite> {
        let test = |name: &str, came_to| Test::new(name, came_to);
        vec![
            Suite {
                name: "a <b> \"c\"".to_owned(),
                date: Some("2026-11-29T15:54:26Z".to_owned()),
                seconds: 1.5,
                facts: vec![("words".to_owned(), "queue=fifo\nseed=1".to_owned())],
                tests: vec![
                    Test {
                        remarks: vec!["where CPU 0 stood\n\u{1b}[2J".to_owned()],
                        ..test(
                            VERDICT,
                            CameTo::Failed("lost # </failure>\nok 7 x".to_owned()),
                        )
                    },
                    test("oracle.lost", CameTo::Passed),
                    test("oracle.#", CameTo::Skipped("SKIP it\0".to_owned())),
                    test("more", CameTo::TimedOut("30 s".to_owned())),
                ],
            },
            Suite::refused("refused", "no KVM", 3),
        ]
    }
}
