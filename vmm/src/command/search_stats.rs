//! Where a search or a replay says what it came to: for people, or as results of tests for
//! continuous integration. The same options as those of a run, whose figures it does not have.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmm::control_characters::spell_out;
use vmm::report::test_results::Suite;
use vmm::whole_file::WholeFile;

use super::outputs::Outputs;
use super::printing::{print, say};
use super::{Refused, complain, stats};

/// What to write, and where.
#[derive(Debug, Default, Args)]
pub struct StatsArguments {
    /// Form of the result. With junit or ktap the report for people goes to standard error, unless
    /// --stats-file is given; see docs/formats.md
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Table)]
    stats: Form,

    /// Write the result in that form here instead of to standard output
    #[arg(long, value_name = "FILE")]
    stats_file: Option<PathBuf>,
}

/// The form of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    #[default]
    Table,
    /// A test result as XML
    Junit,
    /// A test result as the kernel has them, KTAP version 1
    Ktap,
}

impl Form {
    /// As the form of a report on a run; `None` if it is for people.
    fn of_tests(self) -> Option<stats::Form> {
        match self {
            Self::Table => None,
            Self::Junit => Some(stats::Form::Junit),
            Self::Ktap => Some(stats::Form::Ktap),
        }
    }
}

/// The files, made before the search.
#[derive(Debug, Default)]
pub struct Output {
    form: Form,
    file: Option<WholeFile>,
}

impl StatsArguments {
    /// The file that is written, if any.
    pub fn file(&self) -> Option<&PathBuf> {
        self.stats_file.as_ref()
    }

    /// Whether anything is asked for that is not the default.
    pub fn are_given(&self) -> bool {
        self.stats != Form::Table || self.stats_file.is_some()
    }

    /// Makes the file, if one is asked for.
    ///
    /// # Errors
    /// [`Refused`] if it cannot be made, or is an input or another output.
    pub fn open(&self, outputs: &Outputs) -> Result<Output, Refused> {
        let file = self.stats_file.as_ref();
        Ok(Output {
            form: self.stats,
            file: file.map(|path| outputs.create(path)).transpose()?,
        })
    }
}

impl StatsArguments {
    /// Writes that what is called `name` was refused before `inputs` could be used, and returns why.
    pub fn refuse<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a PathBuf>,
        name: &str,
        refused: Refused,
    ) -> Refused {
        // Why there is no result is said in any case.
        let path = self.stats_file.as_deref();
        if path.is_some_and(|path| Outputs::beside(inputs).check_result(path).is_err()) {
            return refused;
        }
        match self.open(&Outputs::default()) {
            Ok(output) => output.refuse(name, refused),
            Err(_) => refused,
        }
    }
}

impl Output {
    /// Writes `report`, for people, and `suite` in the form that was asked for.
    ///
    /// # Errors
    /// If either cannot be written.
    pub fn write(self, report: &str, suite: impl FnOnce() -> Suite) -> io::Result<()> {
        let Some(form) = self.form.of_tests() else {
            return match self.file {
                Some(file) => file.write(|out| out.write_all(spell_out(report).as_bytes())),
                None => print(report),
            };
        };
        let document = stats::test_results(form, &[suite()])?;
        let said = match self.file {
            Some(file) => {
                let written = file.write(|out| out.write_all(document.as_bytes()));
                // One that cannot be written is no reason to leave out the other.
                let printed = print(report);
                return written.and(printed);
            }
            // Standard error may be closed; the document still has to be written.
            None => say(report),
        };
        print(&document).and(said)
    }

    /// Writes that what is called `name` was refused, and returns why.
    pub fn refuse(self, name: &str, refused: Refused) -> Refused {
        if self.form.of_tests().is_some()
            && let Err(error) = self.write("", || {
                Suite::refused(name, &refused.message, refused.status)
            })
        {
            complain(&format!("cannot write the result: {error}"));
        }
        refused
    }
}
