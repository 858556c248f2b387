//! Reads a manifest from an image. Nothing in there is trusted: a manifest that is incomplete or
//! makes no sense is refused as a whole, with the record that is wrong and the reason.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use object::{Object, ObjectSection};
use shared::lab::{COUNTER_SLOTS, ORACLE_SLOTS};
use shared::manifest::{
    ANSWERS, ARGUMENTS, Argument, BROKEN, CounterRole, ENDS, ENTERS_CALL, HARMLESS, IN_CASE,
    IN_HANDLER, Kind, MAX_RECORDS, MAY_WAIT, Measure, PROGRESS, PointRole, RECORD_LEN, Record,
    SECTION, Search, SourceRole, TAKES_PROGRAM, Total, VERSION, VectorRole, WAITS,
};
use zerocopy::FromBytes;

use super::{
    Choice, Counter, Deed, Guest, Manifest, Oracle, Point, Shown, Vector, WaitTimes, Word,
};

use crate::control_characters::spell_out_path;
use crate::lab::judgement::NOT_BELIEVED;
use crate::lab::oracles;
use crate::machine::image::Image;

/// Names that reports use themselves, or that scripts and clients are told of a CPU: no counter and
/// no group of counters may have them.
pub(crate) const TAKEN: [&str; 42] = [
    "boot_seconds",
    "breaches",
    "breaches_by_oracle",
    "breaches_made",
    "calls",
    "calls_executed",
    "calls_made",
    "complaints",
    "complaints_by_kind",
    "complaints_made",
    "contradictions",
    "contradictions_made",
    "cpu",
    "cpus_online",
    "end_seconds",
    "exit_status",
    "exits",
    "findings",
    "findings_by_oracle",
    "findings_made",
    "ipi",
    "ipis_received",
    "ipis_sent",
    "kvm",
    "message",
    "notes",
    "open_calls",
    "open_calls_made",
    "per_vcpu",
    "provenance",
    "result",
    "run_seconds",
    "schema",
    "sources",
    "debugger",
    "stalls",
    "strays",
    "time_limit_reached",
    "trace",
    "vcpus",
    "vmm",
    "window",
];

/// Names by which cases, searches and reports mean something other than an oracle: no oracle may
/// have them.
const NO_ORACLES: [&str; 6] = [
    "clean",
    "data-race",
    "died",
    "hang",
    "livelock",
    NOT_BELIEVED,
];

/// Names that a trace uses itself: no lane of the guest may have them.
pub(crate) const TAKEN_LANES: [&str; 9] = [
    "IPI",
    "IPI without handler",
    "exit",
    "held",
    "interrupt",
    "paused",
    "point",
    "run",
    "waiting",
];

/// Names that reports on a trace use themselves: no wait of the guest may have them.
pub(crate) const TAKEN_WAITS: [&str; 11] = [
    "call",
    "coalesced",
    "dropped",
    "from",
    "host_blind",
    "ipi",
    "pairs",
    "records",
    "times",
    "to",
    "untaken",
];

/// The first vector that is not reserved for the processor's exceptions.
const FIRST_VECTOR: u32 = 32;

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The section is not made of records.
    #[error(
        "the guest image's section {SECTION} has {0} bytes, which is no whole number of records \
         of {RECORD_LEN}"
    )]
    Size(u64),
    /// The image has several such sections.
    #[error("the guest image has {0} sections {SECTION}; link them into one")]
    Sections(usize),
    /// The section has too many records.
    #[error("the guest image's section {SECTION} has {0} records; a guest can have {MAX_RECORDS}")]
    TooMany(usize),
    /// No record names the guest.
    #[error("the guest image's section {SECTION} has no record of kind guest, which names it")]
    NoGuest,
    /// A record makes no sense.
    #[error("record {index} of the guest image's section {SECTION}{about}: {problem}")]
    Record {
        /// Its place in the section, from 0.
        index: usize,
        /// What it seems to describe.
        about: About,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// A manifest that is refused, and the image it is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", spell_out_path(.path))]
pub struct Unusable {
    path: PathBuf,
    problem: ManifestError,
}

/// What a record seems to describe: its kind and its name, as far as they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About(Option<(Kind, String)>);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => Ok(()),
            Some((kind, name)) if name.is_empty() => write!(f, ", of kind {}", kind.name()),
            Some((kind, name)) => write!(f, ", {} \"{name}\"", kind.name()),
        }
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has another version.
    #[error(
        "version {0}, where this vmm reads {VERSION}; build the guest and the vmm from one source"
    )]
    Version(u32),
    /// Its kind is not known.
    #[error("kind {0} is not known")]
    Kind(u32),
    /// A field has a number that means nothing.
    #[error("{0} {1} is not known")]
    Unknown(&'static str, u32),
    /// A number is out of its range.
    #[error("number {0} is not among {1} to {2}")]
    Number(u32, u32, u32),
    /// A field is not a text.
    #[error("its {0} is no UTF-8 without control characters and with zeroes behind it")]
    Text(&'static str),
    /// A name has characters that names do not have.
    #[error("its {0} \"{1}\" has other characters than a to z, 0 to 9 and {2}")]
    Characters(&'static str, String, &'static str),
    /// A field that its kind needs is empty.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A field that its kind does not have is not empty.
    #[error("it has a {0}, for which its kind has no use")]
    Surplus(&'static str),
    /// The VMM uses the name for something else.
    #[error("its {0} \"{1}\" is what the vmm itself calls something in its reports")]
    Taken(&'static str, String),
    /// Another record has the same.
    #[error("record {1} has the same {0}")]
    Twice(&'static str, usize),
    /// The phrase has no place for the figure, or several.
    #[error("its phrase has to have {{}} once, for the figure")]
    Phrase,
    /// The metric is not of the kind that its name says.
    #[error("its metric has to end with _total if it is a sum, and not otherwise")]
    Metric,
    /// The deed that ends the workload takes other arguments than it must.
    #[error("it ends the workload, and so has to be told with CPUS and nothing else")]
    Ending,
    /// It belongs to a record that does not exist.
    #[error("no record is the {0} that it belongs to")]
    Dangling(&'static str),
}

/// The texts of a record.
struct Texts {
    name: String,
    group: String,
    key: String,
    metric: String,
    phrase: String,
    text: String,
}

/// A field that not every kind of record has: its name, and whether it says anything.
type Field = (&'static str, bool);

/// Values that may occur only once, and the record in which each was seen first.
#[derive(Default)]
struct Seen(HashMap<(&'static str, Kind, String), usize>);

impl Seen {
    fn once(
        &mut self,
        what: &'static str,
        kind: Kind,
        value: &impl ToString,
        index: usize,
    ) -> Result<(), Problem> {
        match self.0.insert((what, kind, value.to_string()), index) {
            None => Ok(()),
            Some(first) => Err(Problem::Twice(what, first)),
        }
    }
}

/// The manifest while it is read, with what can only be checked when all records have been read.
#[derive(Default)]
struct Reading {
    manifest: Manifest,
    seen: Seen,
    has_guest: bool,
    /// Values of keys: the key, the place among its values, the value, and the record.
    values: Vec<(String, u32, Choice, usize)>,
    /// Ends of stretches: the lane, whether it is the beginning, and the record.
    lanes: Vec<(String, bool, usize)>,
    /// Keys whose values are arguments of deeds, and the record of the deed.
    words: Vec<(String, usize)>,
    /// Counters of which others count a part, and the record of the other.
    parts: Vec<(u32, usize)>,
}

impl Manifest {
    /// The manifest of `image`; `None` if it has no such section.
    ///
    /// # Errors
    /// [`Unusable`] names the image, the first record that makes no sense, and why.
    pub fn of(image: &Image) -> Result<Option<Self>, Unusable> {
        Self::read(image.bytes()).map_err(|problem| Unusable {
            path: image.path().to_owned(),
            problem,
        })
    }

    /// The manifest in the bytes of an image; `None` if it has no such section, or is no ELF file.
    ///
    /// # Errors
    /// [`ManifestError`] names the first record that makes no sense, and why.
    pub fn read(image: &[u8]) -> Result<Option<Self>, ManifestError> {
        let Ok(file) = object::File::parse(image) else {
            return Ok(None);
        };
        let sections = file.sections();
        let named = |section: &object::Section<'_, '_>| section.name() == Ok(SECTION);
        let sections: Vec<_> = sections.filter(named).collect();
        let section = match &sections[..] {
            [] => return Ok(None),
            [section] => section,
            several => return Err(ManifestError::Sections(several.len())),
        };
        let bytes = section.data().unwrap_or_default();
        if bytes.len() as u64 != section.size() || bytes.len() % RECORD_LEN != 0 {
            return Err(ManifestError::Size(section.size()));
        }
        if bytes.len() / RECORD_LEN > MAX_RECORDS {
            return Err(ManifestError::TooMany(bytes.len() / RECORD_LEN));
        }
        let records = bytes.chunks_exact(RECORD_LEN);
        let records = records.filter_map(|bytes| Record::read_from_bytes(bytes).ok());
        of(&records.collect::<Vec<_>>()).map(Some)
    }
}

/// The manifest that `records` are.
fn of(records: &[Record]) -> Result<Manifest, ManifestError> {
    let mut reading = Reading::default();
    let refused = |index, problem| ManifestError::Record {
        index,
        about: about(&records[index]),
        problem,
    };
    for (index, record) in records.iter().enumerate() {
        reading
            .add(index, record)
            .map_err(|problem| refused(index, problem))?;
    }
    if !reading.has_guest {
        return Err(ManifestError::NoGuest);
    }
    reading
        .finish()
        .map_err(|(index, problem)| refused(index, problem))
}

fn about(record: &Record) -> About {
    let kind = Kind::try_from(record.kind).ok();
    About(kind.map(|kind| (kind, text("name", &record.name).unwrap_or_default())))
}

/// The text in a field: UTF-8 without control characters, padded with zeroes. It may be empty.
fn text(field: &'static str, bytes: &[u8]) -> Result<String, Problem> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    let text = str::from_utf8(text).ok();
    text.filter(|text| !text.contains(char::is_control) && rest.iter().all(|byte| *byte == 0))
        .map(str::to_owned)
        .ok_or(Problem::Text(field))
}

/// Checks that `text` is a name: made of small letters, digits and `others`.
fn check_name(field: &'static str, text: &str, others: &'static str) -> Result<(), Problem> {
    let is_of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c);
    match text {
        "" => Err(Problem::Missing(field)),
        text if text.chars().all(is_of_names) => Ok(()),
        text => Err(Problem::Characters(field, text.to_owned(), others)),
    }
}

/// Checks that a name is not among those that are `taken`.
fn check_free(field: &'static str, text: &str, taken: &[&str]) -> Result<(), Problem> {
    match taken.contains(&text) {
        true => Err(Problem::Taken(field, text.to_owned())),
        false => Ok(()),
    }
}

/// The text of a field that must not be empty.
fn needed(field: &'static str, text: String) -> Result<String, Problem> {
    match text.is_empty() {
        true => Err(Problem::Missing(field)),
        false => Ok(text),
    }
}

fn optional(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The value of an enumeration that a number stands for.
fn known<T: TryFrom<u32, Error = u32>>(field: &'static str, number: u32) -> Result<T, Problem> {
    T::try_from(number).map_err(|number| Problem::Unknown(field, number))
}

fn check_number(number: u32, least: u32, most: u32) -> Result<(), Problem> {
    match (least..=most).contains(&number) {
        true => Ok(()),
        false => Err(Problem::Number(number, least, most)),
    }
}

fn check_flags(flags: u32, known: u32) -> Result<(), Problem> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Problem::Unknown("flags", unknown)),
    }
}

/// The fields that not every kind of record has, and whether each says something.
fn fields(record: &Record, texts: &Texts) -> [Field; 11] {
    [
        ("number", record.number != 0),
        ("role", record.role != 0),
        ("set of flags", record.flags != 0),
        ("list of arguments", record.arguments != [0; ARGUMENTS]),
        ("total", record.total != 0),
        ("whole", record.whole != 0),
        ("name", !texts.name.is_empty()),
        ("group", !texts.group.is_empty()),
        ("key", !texts.key.is_empty()),
        ("metric", !texts.metric.is_empty()),
        ("phrase", !texts.phrase.is_empty()),
    ]
}

/// Which of [`fields`] a kind has. The text is not among them: every kind has one, though of points
/// only those that wait.
fn used(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Guest => &["name", "key"],
        Kind::Vector => &["number", "role", "name"],
        Kind::Point => &["role", "set of flags", "name", "group", "key"],
        Kind::Word => &["number", "role", "name", "group", "key", "phrase"],
        Kind::Value => &["number", "set of flags", "name", "group"],
        Kind::Deed => &[
            "number",
            "set of flags",
            "list of arguments",
            "name",
            "group",
            "key",
        ],
        Kind::Counter => &[
            "number",
            "role",
            "set of flags",
            "total",
            "whole",
            "name",
            "group",
            "key",
            "metric",
            "phrase",
        ],
        Kind::Oracle => &["number", "name"],
        Kind::Source => &["role"],
    }
}

impl Reading {
    fn add(&mut self, index: usize, record: &Record) -> Result<(), Problem> {
        if record.version != VERSION {
            return Err(Problem::Version(record.version));
        }
        let kind = Kind::try_from(record.kind).map_err(Problem::Kind)?;
        let texts = Texts {
            name: text("name", &record.name)?,
            group: text("group", &record.group)?,
            key: text("key", &record.key)?,
            metric: text("metric", &record.metric)?,
            phrase: text("phrase", &record.phrase)?,
            text: text("text", &record.text)?,
        };
        let mut surplus = fields(record, &texts).into_iter();
        if let Some((field, _)) = surplus.find(|(field, says)| *says && !used(kind).contains(field))
        {
            return Err(Problem::Surplus(field));
        }
        match kind {
            Kind::Guest => self.add_guest(index, texts),
            Kind::Vector => self.add_vector(index, record, texts),
            Kind::Point => self.add_point(index, record, texts),
            Kind::Word => self.add_word(index, record, texts),
            Kind::Value => self.add_value(index, record, texts),
            Kind::Deed => self.add_deed(index, record, texts),
            Kind::Counter => self.add_counter(index, record, texts),
            Kind::Oracle => self.add_oracle(index, record, texts),
            Kind::Source => self.add_source(index, record, texts),
        }
    }

    fn add_guest(&mut self, index: usize, texts: Texts) -> Result<(), Problem> {
        self.seen.once("kind", Kind::Guest, &"", index)?;
        self.has_guest = true;
        self.manifest.guest = Guest {
            name: needed("name", texts.name)?,
            version: needed("key", texts.key)?,
            about: texts.text,
        };
        Ok(())
    }

    fn add_vector(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        let role: VectorRole = known("role", record.role)?;
        check_name("name", &texts.name, "-")?;
        check_number(record.number, FIRST_VECTOR, u8::MAX.into())?;
        self.seen
            .once("number", Kind::Vector, &record.number, index)?;
        self.seen.once("name", Kind::Vector, &texts.name, index)?;
        if role == VectorRole::Wake {
            self.seen.once("role", Kind::Vector, &role.name(), index)?;
        }
        self.manifest.vectors.push(Vector {
            number: record.number as u8,
            name: texts.name,
            role,
            about: texts.text,
        });
        Ok(())
    }

    fn add_point(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        let role: PointRole = known("role", record.role)?;
        check_name("name", &texts.name, ".-_")?;
        self.seen.once("name", Kind::Point, &texts.name, index)?;
        let has_lane = matches!(role, PointRole::Begin | PointRole::End);
        let lane = match has_lane {
            true => Some(needed("group", texts.group)?),
            false if texts.group.is_empty() => None,
            false => return Err(Problem::Surplus("group")),
        };
        if let Some(lane) = &lane {
            check_free("group", lane, &TAKEN_LANES)?;
            let begins = role == PointRole::Begin;
            self.lanes.push((lane.clone(), begins, index));
        }
        let known_flags = if role == PointRole::Begin { WAITS } else { 0 };
        check_flags(record.flags, known_flags)?;
        let wait = match record.flags & WAITS {
            0 if !texts.key.is_empty() => return Err(Problem::Surplus("key")),
            0 if !texts.text.is_empty() => return Err(Problem::Surplus("text")),
            0 => None,
            _ => {
                check_name("key", &texts.key, "_")?;
                check_free("key", &texts.key, &TAKEN_WAITS)?;
                self.seen.once("key", Kind::Point, &texts.key, index)?;
                Some(WaitTimes {
                    key: texts.key,
                    about: needed("text", texts.text)?,
                })
            }
        };
        self.manifest.points.push(Point {
            name: texts.name,
            role,
            lane,
            wait,
        });
        Ok(())
    }

    fn add_word(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        let search: Search = known("role", record.role)?;
        check_name("name", &texts.name, "-_")?;
        self.seen.once("name", Kind::Word, &texts.name, index)?;
        let set_to = match search {
            Search::Set => Some(needed("key", texts.key)?),
            _ if texts.key.is_empty() => None,
            _ => return Err(Problem::Surplus("key")),
        };
        let because = optional(texts.phrase);
        if search == Search::Decides && because.is_some() {
            return Err(Problem::Surplus("phrase"));
        }
        let bench: Option<Measure> = match record.number {
            0 => None,
            number => Some(known("number", number)?),
        };
        let bench_sets = match bench {
            Some(Measure::Set) => Some(needed("group", texts.group)?),
            _ if texts.group.is_empty() => None,
            _ => return Err(Problem::Surplus("group")),
        };
        if let Some(measure) = bench.filter(|it| *it != Measure::Set) {
            let number = measure as u32;
            self.seen.once("number", Kind::Word, &number, index)?;
        }
        self.manifest.options.push(Word {
            name: texts.name,
            about: texts.text,
            search,
            set_to,
            because,
            bench,
            bench_sets,
            values: Vec::new(),
        });
        Ok(())
    }

    fn add_value(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        check_flags(record.flags, BROKEN | HARMLESS)?;
        check_name("name", &texts.name, "-/.")?;
        check_name("group", &texts.group, "-_")?;
        let (key, number) = (&texts.group, record.number);
        let named = format!("{key}={}", texts.name);
        self.seen.once("name", Kind::Value, &named, index)?;
        let numbered = format!("{key} {number}");
        self.seen.once("number", Kind::Value, &numbered, index)?;
        let choice = Choice {
            name: texts.name,
            broken: record.flags & BROKEN != 0,
            harmless: record.flags & HARMLESS != 0,
            because: optional(texts.text),
        };
        if choice.because.is_some() && !choice.harmless {
            return Err(Problem::Surplus("text"));
        }
        self.values.push((texts.group, number, choice, index));
        Ok(())
    }

    fn add_deed(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        let known_flags =
            MAY_WAIT | IN_HANDLER | ANSWERS | IN_CASE | ENDS | TAKES_PROGRAM | ENTERS_CALL;
        check_flags(record.flags, known_flags)?;
        check_number(record.number, 1, u32::MAX)?;
        check_name("name", &texts.name, "-")?;
        self.seen
            .once("number", Kind::Deed, &record.number, index)?;
        self.seen.once("name", Kind::Deed, &texts.name, index)?;
        let alias = optional(texts.key);
        if let Some(alias) = &alias {
            check_name("key", alias, "-")?;
            self.seen.once("name", Kind::Deed, alias, index)?;
        }
        let (told, rest) = record.arguments.split_at(
            (record.arguments.iter().position(|it| *it == 0)).unwrap_or(record.arguments.len()),
        );
        let mut arguments = Vec::new();
        for number in told.iter().chain(rest.iter().filter(|it| **it != 0)) {
            arguments.push(known("argument", (*number).into())?);
        }
        let are = |kind: Argument| arguments.iter().filter(move |it| **it == kind).count();
        // The mailbox has room for one mask.
        if are(Argument::Cpus) > 1 || rest.iter().any(|it| *it != 0) {
            return Err(Problem::Surplus("list of arguments that fits no mailbox"));
        }
        let words_of = match are(Argument::Word) {
            0 if texts.group.is_empty() => None,
            0 => return Err(Problem::Surplus("group")),
            _ => Some(needed("group", texts.group)?),
        };
        if let Some(key) = &words_of {
            self.words.push((key.clone(), index));
        }
        if record.flags & ENDS != 0 {
            self.seen.once("flag", Kind::Deed, &"ends", index)?;
            if arguments != [Argument::Cpus] {
                return Err(Problem::Ending);
            }
        }
        let has = |flag| record.flags & flag != 0;
        self.manifest.deeds.push(Deed {
            number: record.number,
            name: texts.name,
            alias,
            arguments,
            words_of,
            about: texts.text,
            may_wait: has(MAY_WAIT),
            in_handler: has(IN_HANDLER),
            takes_program: has(TAKES_PROGRAM),
            enters_call: has(ENTERS_CALL),
            answers: has(ANSWERS),
            in_case: has(IN_CASE),
            ends: has(ENDS),
        });
        Ok(())
    }

    fn add_counter(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        let role: CounterRole = known("role", record.role)?;
        let total: Total = known("total", record.total)?;
        check_flags(record.flags, PROGRESS)?;
        check_number(record.number, 0, COUNTER_SLOTS as u32 - 1)?;
        check_name("name", &texts.name, "_")?;
        self.seen
            .once("number", Kind::Counter, &record.number, index)?;
        self.seen.once("name", Kind::Counter, &texts.name, index)?;
        check_free("name", &texts.name, &TAKEN)?;
        let is_sent = role == CounterRole::Sent;
        let transport = is_sent.then(|| texts.key.clone());
        if let Some(transport) = &transport {
            check_name("key", transport, "-")?;
            self.seen.once("key", Kind::Counter, transport, index)?;
        }
        let shown = if texts.group.is_empty() {
            for (field, text) in [
                ("key without a group", if is_sent { "" } else { &texts.key }),
                ("phrase without a group", &texts.phrase),
                ("metric without a group", &texts.metric),
            ] {
                if !text.is_empty() {
                    return Err(Problem::Surplus(field));
                }
            }
            None
        } else if is_sent {
            return Err(Problem::Surplus("group"));
        } else {
            Some(self.shown(index, total, &texts)?)
        };
        if record.whole != 0 {
            self.parts.push((record.whole - 1, index));
        }
        self.manifest.counters.push(Counter {
            number: record.number,
            name: texts.name,
            about: needed("text", texts.text)?,
            role,
            total,
            part_of: record.whole.checked_sub(1),
            progress: record.flags & PROGRESS != 0,
            transport,
            shown,
        });
        Ok(())
    }

    fn shown(&mut self, index: usize, total: Total, texts: &Texts) -> Result<Shown, Problem> {
        check_name("group", &texts.group, "_")?;
        check_free("group", &texts.group, &TAKEN)?;
        check_name("key", &texts.key, "_")?;
        let place = format!("{}.{}", texts.group, texts.key);
        self.seen
            .once("key in its group", Kind::Counter, &place, index)?;
        let phrase = needed("phrase", texts.phrase.clone())?;
        if phrase.matches("{}").count() != 1 {
            return Err(Problem::Phrase);
        }
        let metric = optional(texts.metric.clone());
        if let Some(metric) = &metric {
            check_name("metric", metric, "_")?;
            if metric.ends_with("_total") != (total == Total::Sum) {
                return Err(Problem::Metric);
            }
            self.seen.once("metric", Kind::Counter, metric, index)?;
        }
        Ok(Shown {
            group: texts.group.clone(),
            key: texts.key.clone(),
            phrase,
            metric,
        })
    }

    fn add_oracle(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        check_number(record.number, 1, ORACLE_SLOTS as u32 - 1)?;
        check_name("name", &texts.name, "-")?;
        if NO_ORACLES.contains(&&*texts.name) || oracles::is_undeclared(&texts.name) {
            return Err(Problem::Taken("name", texts.name));
        }
        self.seen
            .once("number", Kind::Oracle, &record.number, index)?;
        self.seen.once("name", Kind::Oracle, &texts.name, index)?;
        self.manifest.oracles.push(Oracle {
            number: record.number,
            name: texts.name,
            about: needed("text", texts.text)?,
        });
        Ok(())
    }

    fn add_source(&mut self, index: usize, record: &Record, texts: Texts) -> Result<(), Problem> {
        let role: SourceRole = known("role", record.role)?;
        let path = needed("text", texts.text)?;
        let source = &mut self.manifest.source;
        match role {
            SourceRole::Root => {
                self.seen.once("role", Kind::Source, &"root", index)?;
                source.root = Some(path);
            }
            SourceRole::SkipFile => source.skip_files.push(path),
            SourceRole::SkipFunction => source.skip_functions.push(path),
        }
        Ok(())
    }

    /// Joins records that belong together, and sorts all of them, so that the order in which the
    /// linker put them does not matter.
    fn finish(mut self) -> Result<Manifest, (usize, Problem)> {
        let manifest = &mut self.manifest;
        for (whole, index) in self.parts {
            let own = |counter: &Counter| counter.part_of == Some(counter.number);
            let mut counters = manifest.counters.iter();
            if !counters.any(|counter| counter.number == whole && !own(counter)) {
                return Err((index, Problem::Dangling("whole")));
            }
        }
        for (lane, begins, index) in &self.lanes {
            let is_other_end =
                |(of, other, _): &(String, bool, usize)| of == lane && other != begins;
            if !self.lanes.iter().any(is_other_end) {
                return Err((*index, Problem::Dangling("other end of the lane")));
            }
        }
        self.values.sort_by_key(|(_, number, ..)| *number);
        for (key, number, choice, index) in self.values {
            let word = manifest.options.iter_mut().find(|word| word.name == key);
            let word = word.ok_or((index, Problem::Dangling("word")))?;
            // A command in a mailbox names a value by its place, so that there must be no gap.
            let place = word.values.len() as u32;
            check_number(number, place, place).map_err(|problem| (index, problem))?;
            word.values.push(choice);
        }
        for (key, index) in self.words {
            let word = manifest.options.iter().find(|word| word.name == key);
            if word.is_none_or(|word| word.values.is_empty()) {
                return Err((index, Problem::Dangling("word with values")));
            }
        }
        manifest.vectors.sort_by_key(|it| it.number);
        let order = |it: &Point| it.role as u32;
        manifest
            .points
            .sort_by(|one, other| (order(one), &one.name).cmp(&(order(other), &other.name)));
        manifest
            .options
            .sort_by(|one, other| one.name.cmp(&other.name));
        manifest.deeds.sort_by_key(|it| it.number);
        manifest.counters.sort_by_key(|it| it.number);
        manifest.oracles.sort_by_key(|it| it.number);
        manifest.source.skip_files.sort();
        manifest.source.skip_functions.sort();
        Ok(self.manifest)
    }
}

#[cfg(test)]
#[path = "read_test.rs"]
mod tests;
