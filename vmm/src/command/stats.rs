//! Where the reports of a run go, and in which form.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tempfile::NamedTempFile;
use vmm::report::prometheus;
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

/// Where reports are written to.
#[derive(Debug)]
enum Destination {
    Stdout,
    File(File),
    /// A file that is written in full and then takes the place of the one that was asked for, so that whoever
    /// reads that one finds the last report or this one, and never half of it.
    Replacement(NamedTempFile, PathBuf),
}

/// The reports of a run.
#[derive(Debug)]
pub struct Reports {
    form: Form,
    destination: Destination,
}

impl Form {
    /// Where the guest's console goes, so that it does not come between a report that a program reads.
    pub fn console(self, file: Option<&Path>) -> control::Stream {
        match (self, file) {
            (Self::Json | Self::Prometheus, None) => control::Stream::Stderr,
            _ => control::Stream::Stdout,
        }
    }
}

impl Reports {
    /// Reports for whoever reads standard output.
    pub fn to_stdout(form: Form) -> Self {
        Self {
            form,
            destination: Destination::Stdout,
        }
    }

    /// Makes a place for reports in the file at `path`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn to_file(form: Form, path: &Path) -> io::Result<Self> {
        let destination = if form == Form::Prometheus && is_replaceable(path) {
            replacement(path)?
        } else {
            Destination::File(File::create(path)?)
        };
        Ok(Self { form, destination })
    }

    /// Reports on a machine that has ended, unless all are to be reported on together; for people, with the
    /// verdict last.
    ///
    /// # Errors
    /// It cannot be written.
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
                // Nobody may be reading standard error, and then the document still counts.
                let _ = io::stderr().write_all(words.as_bytes());
                io::stdout().write_all(document.as_bytes())?;
            }
        }
        io::stdout().flush()
    }

    /// Reports on the machines that are to be reported on together, if there are any.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self, outcomes: &[Outcome]) -> io::Result<()> {
        if self.form != Form::Prometheus || outcomes.is_empty() {
            return Ok(());
        }
        let machines = outcomes.iter().map(|it| (&it.report, &it.window));
        let document = prometheus::render(machines).map_err(io::Error::other)?;
        let document = document.as_bytes();
        match self.destination {
            Destination::Replacement(mut file, path) => {
                file.write_all(document)?;
                file.persist(path)?;
                Ok(())
            }
            Destination::File(mut file) => file.write_all(document),
            Destination::Stdout => {
                let mut stdout = io::stdout();
                stdout.write_all(document)?;
                stdout.flush()
            }
        }
    }
}

/// Whether another file can take its place: not that of a device or a pipe.
fn is_replaceable(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.is_file())
}

/// A file beside that at `path`, as readable as one that is made there.
fn replacement(path: &Path) -> io::Result<Destination> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let mode = fs::metadata(&path).map_or(0o666, |found| found.permissions().mode());
    let file = tempfile::Builder::new()
        .prefix(".vmm-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    Ok(Destination::Replacement(file, path))
}
