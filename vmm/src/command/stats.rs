//! Writes the reports of a run where the user wants them, in the form that the user wants.

use std::io;
use std::path::Path;

use clap::ValueEnum;
use vmm::control_characters::{spell_out, spell_out_json};
use vmm::report::test_results::{Suite, junit, ktap, of_run};
use vmm::report::{csv, prometheus};
use vmm::whole_file::{GrowingFile, WholeFile};
use vmm::{Outcome, control};

use super::outputs::may_be_image;
use super::printing::{print, say};
use super::{Refused, complain};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// One JSON document for each machine
    Json,
    /// Prometheus' text format, of all machines at the end
    Prometheus,
    /// CSV in the long form: one figure in a row
    Csv,
    /// Test results as XML, of all machines at the end
    Junit,
    /// Test results as the kernel has them, KTAP version 1, of all machines at the end
    Ktap,
}

/// Where reports are written.
#[derive(Debug)]
enum Destination {
    Stdout,
    /// A file to which each report is added as soon as its machine has ended.
    Growing(GrowingFile),
    /// A file that is written once, at the end.
    Whole(WholeFile),
    /// A file that must stay what it is.
    Spared,
}

/// The reports of a run.
#[derive(Debug)]
pub struct Reports {
    form: Form,
    destination: Destination,
    /// What is run: the name of the script, or of the guest image.
    of: String,
    /// Whether that can have any number of machines.
    is_script: bool,
    /// How many machines were reported on.
    machines: usize,
    /// Their test results, if these are what is to be written.
    suites: Vec<Suite>,
    /// Their reports, if each has its own, and all are to be written at the end.
    documents: String,
}

impl Form {
    /// Where the guest's console goes, so that it does not mix with a report that a program reads.
    pub fn console(self, file: Option<&Path>) -> control::Stream {
        match (self, file) {
            (Self::Table, _) | (_, Some(_)) => control::Stream::Stdout,
            (_, None) => control::Stream::Stderr,
        }
    }

    /// Whether it is a form for test results.
    pub fn is_of_tests(self) -> bool {
        matches!(self, Self::Junit | Self::Ktap)
    }

    /// Whether the report is one document on all machines.
    fn is_of_all(self) -> bool {
        self == Self::Prometheus || self.is_of_tests()
    }
}

/// `suites` in a form for test results.
///
/// # Errors
/// None are known.
pub fn test_results(form: Form, suites: &[Suite]) -> io::Result<String> {
    match form {
        Form::Junit => junit::document(suites),
        _ => Ok(ktap::document(suites)),
    }
}

impl Reports {
    /// Reports on what `script` does, or else `guest`, for standard output, or a file at `path`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn new(
        form: Form,
        path: Option<&Path>,
        script: Option<&Path>,
        guest: Option<&Path>,
    ) -> io::Result<Self> {
        let destination = match path {
            None => Destination::Stdout,
            // What is there can be the image that the script boots next.
            Some(path) if form.is_of_all() || script.is_some() && may_be_image(path) => {
                Destination::Whole(WholeFile::create(path)?)
            }
            Some(path) => Destination::Growing(GrowingFile::create(path)?),
        };
        Ok(Self {
            form,
            destination,
            of: script.or(guest).map_or_else(String::new, short_name),
            is_script: script.is_some(),
            machines: 0,
            suites: Vec::new(),
            documents: String::new(),
        })
    }

    /// Has the file stay as it is from now on. That a report cannot be written is said of the next.
    pub fn spare(&mut self) {
        self.destination = Destination::Spared;
    }

    /// Reports on a machine that has ended, unless all machines are reported together; for people
    /// with the verdict last.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, outcome: &Outcome) -> io::Result<()> {
        let report = &outcome.report;
        let machine = self.machines;
        self.machines += 1;
        let words = format!(
            "{}{}: {}\n",
            outcome.post_mortem, report.result, report.message
        );
        let document = match self.form {
            Form::Table => spell_out(&report.table()).into_owned(),
            Form::Json => spell_out_json(&report.json()?).into_owned(),
            Form::Csv => {
                let mut rows = Vec::new();
                csv::write(&mut rows, machine, report)?;
                spell_out(&String::from_utf8_lossy(&rows)).into_owned()
            }
            Form::Junit | Form::Ktap => {
                let name = match self.is_script {
                    true => format!("{} machine {machine}", self.of),
                    false => self.of.clone(),
                };
                self.suites.push(of_run(name, report, &outcome.post_mortem));
                String::new()
            }
            Form::Prometheus => String::new(),
        };
        match (&mut self.destination, self.form) {
            (Destination::Growing(file), _) => {
                let written = file.add(document.as_bytes());
                // One that cannot be written is no reason to leave out the other.
                let said = say(&words);
                written.and(said)?;
            }
            (Destination::Whole(_), _) if !self.form.is_of_all() => {
                self.documents += &document;
                say(&words)?;
            }
            (Destination::Spared, _) => {
                say(&words)?;
                return Err(spared());
            }
            (_, Form::Table) => print(&(document + words.as_str()))?,
            _ => {
                // Standard error may be closed or not read; the document still has to be written.
                let _ = say(&words);
                print(&document)?;
            }
        }
        Ok(())
    }

    /// Reports on the machines that are reported together, and for test results on why there were
    /// no more of them, if `refused` says so.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self, outcomes: &[Outcome], refused: Option<&Refused>) -> io::Result<()> {
        let document = match self.form {
            Form::Prometheus if !outcomes.is_empty() => {
                let machines = outcomes.iter().map(|it| (&it.report, &it.window));
                prometheus::render(machines).map_err(io::Error::other)?
            }
            form @ (Form::Junit | Form::Ktap) => {
                let refusal = refused.map(|it| Suite::refused(&self.of, &it.message, it.status));
                self.suites.extend(refusal);
                test_results(form, &self.suites)?
            }
            _ if self.documents.is_empty() => return Ok(()),
            _ => self.documents,
        };
        match self.destination {
            Destination::Whole(file) => {
                file.write(|out| out.write_all(spell_out(&document).as_bytes()))
            }
            Destination::Growing(mut file) => file.add(spell_out(&document).as_bytes()),
            Destination::Stdout => print(&document),
            Destination::Spared => Err(spared()),
        }
    }

    /// Has test results say that there was no machine, and returns why.
    pub fn refuse(self, refused: Refused) -> Refused {
        if let Err(error) = self.finish(&[], Some(&refused)) {
            complain(&format!("cannot write the report: {error}"));
        }
        refused
    }
}

/// Why a file is not written that is an image which a script boots.
pub fn spared() -> io::Error {
    io::Error::other("the script boots what is there")
}

/// The last part of `path`, which does not depend on where it is run.
pub fn short_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
