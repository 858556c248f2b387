//! The manifest: what a guest says of itself, in a section of its image ([`shared::manifest`]). It
//! has the guest's vectors and points, the words of its command line, its deeds, its counters and
//! its oracles. An image without that section says nothing; `docs/manifest.md` says what works
//! without it. Knows no machine, and no entry of any particular manifest.

mod mistyped;
mod read;
mod table;
pub mod vectors;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use shared::mailbox::WAKE_VECTOR;
use shared::manifest::{Argument, CounterRole, Measure, PointRole, Search, Total, VectorRole};

use crate::provenance::Input;

pub use read::{ManifestError, Problem, Unusable};

/// Version of the JSON document. It changes when a program that reads it could take harm: see
/// docs/formats.md.
pub const SCHEMA: &str = "ipi-lab-guest/1";

/// What a guest says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Manifest {
    /// The guest itself.
    pub guest: Guest,
    /// The vectors at which it takes interrupts, in their order.
    pub vectors: Vec<Vector>,
    /// What its points mean in a trace, by role and name. Points that have no other meaning than
    /// their name are not here; `vmm probes` lists all.
    pub points: Vec<Point>,
    /// The keys of its command line, by name.
    pub options: Vec<Word>,
    /// What a CPU can be told, by verb.
    pub deeds: Vec<Deed>,
    /// What each CPU counts, in the order in which it is told.
    pub counters: Vec<Counter>,
    /// What it watches, by number.
    pub oracles: Vec<Oracle>,
    /// How its source is to be shown.
    pub source: Source,
}

/// A guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is.
    pub about: String,
}

/// A vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Vector {
    /// The vector.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// What it is for: `call`, `wake`, `last`, `measured` or `timer`.
    #[serde(serialize_with = "vector_role_name")]
    #[schemars(with = "String")]
    pub role: VectorRole,
    /// A sentence about it.
    pub about: String,
}

/// What points of one name mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Point {
    /// Their name.
    pub name: String,
    /// What they mean: `begin` and `end` of a stretch of time, `handler-begin` and `handler-end`,
    /// `send`, `run`, `round`, `start`, `delivered` or `total`.
    #[serde(serialize_with = "point_role_name")]
    #[schemars(with = "String")]
    pub role: PointRole,
    /// The lane of the stretch, which is also its name.
    pub lane: Option<String>,
    /// What of the stretch is reported, if the CPU only waits in it. Of its beginning.
    pub wait: Option<WaitTimes>,
}

/// How the times of a wait are reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WaitTimes {
    /// Their name.
    pub key: String,
    /// What they are, in a sentence.
    pub about: String,
}

/// A key of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Word {
    /// The key.
    pub name: String,
    /// A sentence about it.
    pub about: String,
    /// What a search makes of it: its value `decides` something there, the search `set`s it itself,
    /// or it is `without-effect`.
    #[serde(serialize_with = "search_name")]
    #[schemars(with = "String")]
    pub search: Search,
    /// The value to which a search sets it.
    pub set_to: Option<String>,
    /// Why it has no other value in a search.
    pub because: Option<String>,
    /// What a bench does with it: it `set`s it, or says by it what it measures: `to`, `by`,
    /// `receiver`, `transport`, `apic`, `design` or `rounds`.
    #[serde(serialize_with = "measure_name")]
    #[schemars(with = "Option<String>")]
    pub bench: Option<Measure>,
    /// The value to which a bench sets it.
    pub bench_sets: Option<String>,
    /// The values it takes, in their order; none if they are numbers and the like.
    pub values: Vec<Choice>,
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Choice {
    /// The value.
    pub name: String,
    /// Whether it asks for a design that is kept for what is wrong with it.
    pub broken: bool,
    /// Whether it can break nothing where memory is sequentially consistent.
    pub harmless: bool,
    /// Why.
    pub because: Option<String>,
}

/// What a CPU can be told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Deed {
    /// The verb in its mailbox.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Another name of it.
    pub alias: Option<String>,
    /// What it is told with, in this order: `CPU`, `CPUS`, `N` for a number, or `WORD`.
    #[serde(serialize_with = "argument_names")]
    #[schemars(with = "Vec<String>")]
    pub arguments: Vec<Argument>,
    /// The key of which each `WORD` is a value.
    pub words_of: Option<String>,
    /// A sentence about it.
    pub about: String,
    /// Whether it can be asked to wait until it has been done everywhere.
    pub may_wait: bool,
    /// Whether it can be told to an interrupt handler, as one of a program.
    pub in_handler: bool,
    /// Whether it can have a program: deeds that the function of its call does, or the interrupt
    /// that it asks for.
    pub takes_program: bool,
    /// Whether it makes a call that the ledger has with just the targets that it is told.
    pub enters_call: bool,
    /// Whether it answers with a list.
    pub answers: bool,
    /// Whether a case can have it.
    pub in_case: bool,
    /// Whether it ends the workload, so that only who ends that tells it.
    pub ends: bool,
}

/// What each CPU counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counter {
    /// Which word of a CPU's row.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// A sentence about it.
    pub about: String,
    /// What the VMM reckons with it: `plain`, `sent`, `targets`, `received`, `empty`,
    /// `sent-for-calls`, `departed`, `planned` or `done`.
    #[serde(serialize_with = "role_name")]
    #[schemars(with = "String")]
    pub role: CounterRole,
    /// How the counts of all CPUs become one: `sum` or `max`.
    #[serde(serialize_with = "total_name")]
    #[schemars(with = "String")]
    pub total: Total,
    /// The counter of which it counts a part, by its number.
    pub part_of: Option<u32>,
    /// Whether it moves only when a CPU gets anywhere.
    pub progress: bool,
    /// The transport, of one that is `sent`.
    pub transport: Option<String>,
    /// How a report shows it, if it does.
    pub shown: Option<Shown>,
}

fn argument_names<S: Serializer>(arguments: &[Argument], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(arguments.iter().map(|argument| argument.name()))
}

fn vector_role_name<S: Serializer>(role: &VectorRole, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

fn point_role_name<S: Serializer>(role: &PointRole, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

fn search_name<S: Serializer>(search: &Search, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(search.name())
}

fn measure_name<S: Serializer>(
    measure: &Option<Measure>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    measure.map(Measure::name).serialize(serializer)
}

fn role_name<S: Serializer>(role: &CounterRole, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

fn total_name<S: Serializer>(total: &Total, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(total.name())
}

/// How a report shows a counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Shown {
    /// The group that it belongs to.
    pub group: String,
    /// Its name there.
    pub key: String,
    /// How people are told, with `{}` for the figure.
    pub phrase: String,
    /// Its name for Prometheus.
    pub metric: Option<String>,
}

/// What a guest watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Oracle {
    /// Its number in findings.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What went wrong if it finds something, as a clause without a subject.
    pub about: String,
}

/// How a guest's source is to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Source {
    /// Where a path within it begins.
    pub root: Option<String>,
    /// Files whose path has one of these in it are left out.
    pub skip_files: Vec<String>,
    /// Functions whose name begins with one of these are left out.
    pub skip_functions: Vec<String>,
}

/// A manifest as programs read it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Document<'a> {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The image that it is in.
    pub image: Input,
    /// What the guest says.
    pub manifest: &'a Manifest,
}

impl Source {
    /// The path by which `file`, in which `function` stands, is shown; `None` if the guest wants it
    /// left out.
    pub fn shown<'a>(&self, file: &'a str, function: &str) -> Option<&'a str> {
        let file = match &self.root {
            Some(root) => &file[file.find(root.as_str())?..],
            None => file,
        };
        let skips_file = self.skip_files.iter().any(|it| file.contains(it.as_str()));
        let mut functions = self.skip_functions.iter();
        let skips = skips_file || functions.any(|it| function.starts_with(it.as_str()));
        (!skips).then_some(file)
    }
}

impl Manifest {
    /// The deed with this number.
    pub fn deed_numbered(&self, number: u32) -> Option<&Deed> {
        self.deeds.iter().find(|it| it.number == number)
    }

    /// The counter with this number.
    pub fn counter(&self, number: u32) -> Option<&Counter> {
        self.counters.iter().find(|it| it.number == number)
    }

    /// The oracle with this number.
    pub fn oracle(&self, number: u32) -> Option<&Oracle> {
        self.oracles.iter().find(|it| it.number == number)
    }

    /// The vector that wakes a CPU to look for its next command: the guest's own, if its manifest
    /// has one, or else [`WAKE_VECTOR`].
    pub fn wake_vector(&self) -> u8 {
        let mut vectors = self.vectors.iter();
        let wakes = vectors.find(|it| it.role == VectorRole::Wake);
        wakes.map_or(WAKE_VECTOR, |it| it.number)
    }

    /// The vectors that do nothing but wake a CPU: those of the manifest, or else [`WAKE_VECTOR`].
    pub fn wakes(&self) -> Vec<u8> {
        let wakes = self.vectors.iter().filter(|it| it.role == VectorRole::Wake);
        let declared: Vec<_> = wakes.map(|it| it.number).collect();
        match declared.is_empty() {
            true => vec![WAKE_VECTOR],
            false => declared,
        }
    }

    /// The names of the points with this role.
    pub fn points_of(&self, role: PointRole) -> impl Iterator<Item = &str> {
        let points = self.points.iter().filter(move |it| it.role == role);
        points.map(|it| it.name.as_str())
    }

    /// The manifest for people.
    pub fn table(&self) -> String {
        table::render(self)
    }
}

#[cfg(test)]
mod tests {
    use shared::manifest::{Record, SECTION};
    use zerocopy::IntoBytes;

    use super::*;

    impl Manifest {
        /// The manifest of an image with these records, and one that names the guest.
        pub(crate) fn saying(records: &[Record]) -> Self {
            let records = [&[Record::guest("test", "1", "")], records].concat();
            let image = ::tests::image::with_section(SECTION, records.as_bytes(), 0);
            Self::read(&image).unwrap().unwrap()
        }
    }

    #[test]
    fn source_is_shown_as_the_guest_says() {
        let source = Source {
            root: Some("guest/src/".to_owned()),
            skip_files: vec!["/sync/".to_owned()],
            skip_functions: vec!["guest::probe".to_owned()],
        };
        let shown = |file, function| source.shown(file, function);
        assert_eq!(
            shown("/ipi-lab/guest/src/ipi/csd.rs", "guest::ipi"),
            Some("guest/src/ipi/csd.rs")
        );
        assert_eq!(shown("/rustc/core/src/ptr.rs", "core::ptr"), None);
        assert_eq!(
            shown("/ipi-lab/guest/src/sync/spin.rs", "guest::sync"),
            None
        );
        assert_eq!(shown("guest/src/a.rs", "guest::probe::reached"), None);
        // If the guest says nothing of its source, everything is shown.
        let file = "/rustc/core/src/ptr.rs";
        assert_eq!(Source::default().shown(file, "core::ptr"), Some(file));
    }
}
