//! Writes the reports of a run where the user wants them, in the form that the user wants.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use vmm::report::prometheus;
use vmm::whole_file::WholeFile;
use vmm::{Outcome, control};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// One JSON document for each machine
    Json,
    /// Prometheus' text format, of all machines at the end
    Prometheus,
}

/// Where reports are written.
#[derive(Debug)]
enum Destination {
    Stdout,
    /// A file to which each report is appended as soon as its machine has ended.
    File(File),
    /// A file that is written once, at the end.
    Whole(WholeFile),
}

/// The reports of a run.
#[derive(Debug)]
pub struct Reports {
    form: Form,
    destination: Destination,
}

impl Form {
    /// Where the guest's console goes, so that it does not mix with a report that a program reads.
    pub fn console(self, file: Option<&Path>) -> control::Stream {
        match (self, file) {
            (Self::Json | Self::Prometheus, None) => control::Stream::Stderr,
            _ => control::Stream::Stdout,
        }
    }
}

impl Reports {
    /// Reports that go to standard output.
    pub fn to_stdout(form: Form) -> Self {
        Self {
            form,
            destination: Destination::Stdout,
        }
    }

    /// Reports that go to the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn to_file(form: Form, path: &Path) -> io::Result<Self> {
        let destination = if form == Form::Prometheus {
            Destination::Whole(WholeFile::create(path)?)
        } else {
            Destination::File(File::create(path)?)
        };
        Ok(Self { form, destination })
    }

    /// Reports on a machine that has ended, unless all machines are reported together; for people
    /// with the verdict last.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, outcome: &Outcome) -> io::Result<()> {
        let report = &outcome.report;
        let words = format!(
            "{}{}: {}\n",
            outcome.post_mortem, report.result, report.message
        );
        let document = match self.form {
            Form::Table => report.table(),
            Form::Json => report.json()?,
            Form::Prometheus => String::new(),
        };
        match (&mut self.destination, self.form) {
            (Destination::File(file), Form::Table | Form::Json) => {
                file.write_all(document.as_bytes())?;
                io::stderr().write_all(words.as_bytes())?;
            }
            (_, Form::Table) => io::stdout().write_all((document + words.as_str()).as_bytes())?,
            _ => {
                // Standard error may be closed; the document still has to be written.
                let _ = io::stderr().write_all(words.as_bytes());
                io::stdout().write_all(document.as_bytes())?;
            }
        }
        io::stdout().flush()
    }

    /// Reports on the machines that are reported together, if there are any.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self, outcomes: &[Outcome]) -> io::Result<()> {
        if self.form != Form::Prometheus || outcomes.is_empty() {
            return Ok(());
        }
        let machines = outcomes.iter().map(|it| (&it.report, &it.window));
        let document = prometheus::render(machines).map_err(io::Error::other)?;
        let document = document.as_bytes();
        match self.destination {
            Destination::Whole(file) => file.write(|out| out.write_all(document)),
            Destination::File(mut file) => file.write_all(document),
            Destination::Stdout => {
                let mut stdout = io::stdout();
                stdout.write_all(document)?;
                stdout.flush()
            }
        }
    }
}
