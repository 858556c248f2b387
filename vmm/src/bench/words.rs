//! What a bench has to know of a guest: the keys by which the guest is told what to measure, the
//! values that each key takes, and the point at which the rounds begin. All of it is in the guest's
//! manifest, which is held against the probes of its image. Knows no key by name.

use shared::manifest::{Measure, PointRole};

use super::cell::{AUTO, Cell};
use super::classic::ClassicCell;
use crate::machine::points::Points;
use crate::manifest::{Manifest, Word};

/// What a guest has to have a key for, or it cannot be measured.
const NEEDED: [Measure; 5] = [
    Measure::To,
    Measure::By,
    Measure::Receiver,
    Measure::Transport,
    Measure::Rounds,
];

/// Why a guest cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmeasurable {
    /// Its manifest does not say how.
    #[error(
        "the guest cannot be measured: its manifest has no {}; see docs/manifest.md",
        .0.join(", no ")
    )]
    Unsaid(Vec<String>),
    /// Its manifest names a point that is not in its image, and so is never reached: a bench would
    /// wait for it until it gives up.
    #[error(
        "the guest cannot be measured: its manifest says that the point \"{name}\" is a \
         \"{role}\", and the image has no probe of that name (section {section}); `vmm probes` \
         lists those it has",
        section = shared::probe::SECTION
    )]
    NoProbe {
        /// The point.
        name: String,
        /// What it is in a bench.
        role: &'static str,
    },
}

/// A key of the command line, and its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Key {
    name: String,
    /// The values that are not marked as broken; none if the key takes any value.
    sound: Vec<String>,
}

/// The keys by which a guest is told what to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchWords {
    /// What the guest is told whatever is measured.
    set: String,
    to: Key,
    by: Key,
    receiver: Key,
    transport: Key,
    apic: Option<Key>,
    design: Option<Key>,
    rounds: Key,
    classic: Option<Key>,
    /// What is missing for the loop that `classic` asks for.
    unsaid_of_loop: Vec<String>,
    /// The point at which the rounds begin.
    start: String,
}

impl Key {
    fn of(word: &Word) -> Self {
        let sound = word.values.iter().filter(|value| !value.broken);
        Self {
            name: word.name.clone(),
            sound: sound.map(|value| value.name.clone()).collect(),
        }
    }

    fn takes(&self, value: &str) -> bool {
        self.sound.iter().any(|it| it == value)
    }

    fn says(&self, value: &str) -> String {
        format!("{}={value}", self.name)
    }
}

impl BenchWords {
    /// Those of the guest that says `manifest` of itself, and whose image has the probes `points`.
    ///
    /// # Errors
    /// [`Unmeasurable`] names all that the manifest does not say, or the first point of a bench in
    /// it that is no probe of the image.
    pub fn of(manifest: &Manifest, points: &Points) -> Result<Self, Unmeasurable> {
        let key = |measure| {
            let mut words = manifest.options.iter();
            words.find(|word| word.bench == Some(measure)).map(Key::of)
        };
        let start = manifest.points_of(PointRole::Start).next();
        let round = manifest.points_of(PointRole::Round).next();
        let missing = NEEDED.into_iter().filter(|measure| key(*measure).is_none());
        let missing = missing.map(|measure| format!("word for \"{}\" of a bench", measure.name()));
        let unnamed = [(PointRole::Start, start), (PointRole::Round, round)];
        let unnamed = unnamed.into_iter().filter(|(_, point)| point.is_none());
        let unnamed = unnamed.map(|(role, _)| format!("point that is a \"{}\"", role.name()));
        let missing: Vec<_> = missing.chain(unnamed).collect();
        if !missing.is_empty() {
            return Err(Unmeasurable::Unsaid(missing));
        }
        for role in [PointRole::Start, PointRole::Round] {
            let mut names = manifest.points_of(role);
            if let Some(name) = names.find(|name| points.named(name).next().is_none()) {
                return Err(Unmeasurable::NoProbe {
                    name: name.to_owned(),
                    role: role.name(),
                });
            }
        }
        let needed = |measure| key(measure).unwrap_or_default();
        let set = manifest.options.iter().filter_map(|word| {
            let value = word.bench_sets.as_ref()?;
            Some(format!("{}={value}", word.name))
        });
        Ok(Self {
            set: set.collect::<Vec<_>>().join(" "),
            to: needed(Measure::To),
            by: needed(Measure::By),
            receiver: needed(Measure::Receiver),
            transport: needed(Measure::Transport),
            apic: key(Measure::Apic),
            design: key(Measure::Design),
            rounds: needed(Measure::Rounds),
            classic: key(Measure::Classic),
            unsaid_of_loop: unsaid_of_loop(manifest, points),
            start: start.unwrap_or_default().to_owned(),
        })
    }

    /// The point at which the rounds begin.
    pub(super) fn start(&self) -> &str {
        &self.start
    }

    /// The queue designs that are not marked as broken.
    pub(super) fn designs(&self) -> &[String] {
        self.design.as_ref().map_or(&[], |key| &key.sound)
    }

    /// A transport to name where nothing is sent.
    pub(super) fn any_transport(&self) -> &str {
        match self.transport.takes(AUTO) {
            true => AUTO,
            false => self.transport.sound.first().map_or(AUTO, String::as_str),
        }
    }

    /// Whether the guest has all that `cell` asks for.
    pub(super) fn has(&self, cell: &Cell) -> bool {
        let takes = |key: &Option<Key>, value: &Option<String>| {
            let takes = |value| key.as_ref().is_some_and(|key| key.takes(value));
            value.as_deref().is_none_or(takes)
        };
        self.to.takes(&cell.to)
            && self.by.takes(&cell.by)
            && self.receiver.takes(&cell.receiver)
            && self.transport.takes(&cell.transport)
            && takes(&self.apic, &cell.apic)
            && takes(&self.design, &cell.queue)
    }

    /// What the guest is told to measure `cell`.
    pub fn tell(&self, cell: &Cell) -> String {
        let said = |key: &Option<Key>, value: &Option<String>| {
            key.as_ref()
                .zip(value.as_ref())
                .map(|(key, value)| key.says(value))
        };
        let told = [
            (!self.set.is_empty()).then(|| self.set.clone()),
            Some(self.by.says(&cell.by)),
            Some(self.to.says(&cell.to)),
            Some(self.receiver.says(&cell.receiver)),
            Some(self.transport.says(&cell.transport)),
            said(&self.apic, &cell.apic),
            said(&self.design, &cell.queue),
        ];
        told.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Checks that the guest has the loops of the classic benchmark.
    ///
    /// # Errors
    /// [`Unmeasurable`] names what is missing.
    pub(super) fn check_classic(&self) -> Result<(), Unmeasurable> {
        match &self.unsaid_of_loop[..] {
            [] => Ok(()),
            missing => Err(Unmeasurable::Unsaid(missing.to_vec())),
        }
    }

    /// Whether the guest has all that `cell` asks for.
    pub(super) fn has_classic(&self, cell: &ClassicCell) -> bool {
        let takes = |key: &Option<Key>, value: &str| key.as_ref().is_some_and(|it| it.takes(value));
        let design = |value: &String| takes(&self.design, value);
        let transport = |value: &String| self.transport.takes(value);
        takes(&self.classic, &cell.row)
            && self.receiver.takes(&cell.receiver)
            && cell.transport.as_ref().is_none_or(transport)
            && cell.queue.as_ref().is_none_or(design)
    }

    /// What the guest is told to repeat `cell`.
    pub fn tell_classic(&self, cell: &ClassicCell) -> String {
        let said = |key: Option<&Key>, value: Option<&String>| {
            key.zip(value).map(|(key, value)| key.says(value))
        };
        let told = [
            (!self.set.is_empty()).then(|| self.set.clone()),
            said(self.classic.as_ref(), Some(&cell.row)),
            Some(self.receiver.says(&cell.receiver)),
            said(Some(&self.transport), cell.transport.as_ref()),
            said(self.design.as_ref(), cell.queue.as_ref()),
        ];
        told.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// What the guest is told to make this many rounds.
    pub(super) fn tell_rounds(&self, rounds: u32) -> String {
        self.rounds.says(&rounds.to_string())
    }
}

/// What a guest does not say, or have in its image, that the classic benchmark needs.
fn unsaid_of_loop(manifest: &Manifest, points: &Points) -> Vec<String> {
    let has_word = (manifest.options.iter()).any(|it| it.bench == Some(Measure::Classic));
    let word = (!has_word).then(|| format!("word for \"{}\" of a bench", Measure::Classic.name()));
    let roles = [PointRole::Delivered, PointRole::Total];
    let roles = roles.into_iter().filter(|role| {
        let mut names = manifest.points_of(*role);
        !names.any(|name| points.named(name).next().is_some())
    });
    let roles = roles.map(|role| format!("probe that is a \"{}\"", role.name()));
    word.into_iter().chain(roles).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use shared::manifest::{BROKEN, Record};
    use shared::probe::{Point, SECTION};

    fn word(key: &str, measure: Measure, values: &[&str]) -> Vec<Record> {
        let word = Record::word(key, "").measured_as(measure);
        let values = (0..).zip(values);
        let values = values.map(|(number, value)| Record::value(key, number, value));
        [word].into_iter().chain(values).collect()
    }

    fn records() -> Vec<Record> {
        let mut records = [
            word(
                "whom",
                Measure::To,
                &["nobody", "self", "one", "some", "all"],
            ),
            word("what", Measure::By, &["ipi", "call"]),
            word(
                "state",
                Measure::Receiver,
                &["halted", "running", "stalled"],
            ),
            word("way", Measure::Transport, &["xapic", "x2apic", "shorthand"]),
            word("mode", Measure::Apic, &["xapic", "x2apic"]),
            word("design", Measure::Design, &["good", "bad", "better"]),
            word("rounds", Measure::Rounds, &[]),
            word(
                "loop",
                Measure::Classic,
                &["dry-run", "self", "normal", "broadcast", "broadcast-lock"],
            ),
        ]
        .concat();
        for record in &mut records {
            if record.name.starts_with(b"bad") {
                *record = record.with(BROKEN);
            }
        }
        records.extend([
            Record::word("does", "").set_by_bench("rounds"),
            Record::point("begin", PointRole::Start),
            Record::point("over", PointRole::Round),
            Record::point("sum", PointRole::Delivered),
            Record::point("whole", PointRole::Total),
        ]);
        records
    }

    /// Those of an image with probes of these names.
    fn points(names: &[&str]) -> Points {
        let mut section = Vec::new();
        for name in names {
            let point = Point::new(name, "a.rs", 1);
            section.extend(point.name);
            section.extend(point.file);
            section.extend(point.line.to_le_bytes());
            section.resize(section.len().next_multiple_of(size_of::<Point>()), 0);
        }
        let image = ::tests::image::with_section(SECTION, &section, 0);
        Points::read(&image).unwrap()
    }

    /// Of a guest that can be measured.
    pub(in crate::bench) fn words() -> BenchWords {
        let points = points(&["other", "begin", "over", "sum", "whole"]);
        BenchWords::of(&Manifest::saying(&records()), &points).unwrap()
    }

    #[test]
    fn a_guest_is_told_in_its_own_words() {
        let words = words();
        let mut cell = Cell {
            by: "call".to_owned(),
            to: "all".to_owned(),
            receiver: "halted".to_owned(),
            transport: "x2apic".to_owned(),
            apic: None,
            queue: Some("better".to_owned()),
        };
        assert!(words.has(&cell));
        assert_eq!(
            words.tell(&cell),
            "does=rounds what=call whom=all state=halted way=x2apic design=better"
        );
        assert_eq!(words.tell_rounds(7), "rounds=7");
        assert_eq!(words.designs(), ["good", "better"]);
        assert_eq!(words.any_transport(), "xapic");
        assert_eq!(words.start(), "begin");
        for queue in ["bad", "none"] {
            cell.queue = Some(queue.to_owned());
            assert!(!words.has(&cell), "{queue}");
        }
    }

    #[test]
    fn what_a_guest_does_not_say_is_named() {
        let all = records();
        let without = all
            .iter()
            .filter(|it| !it.name.starts_with(b"rounds") && !it.name.starts_with(b"over"));
        let without: Vec<_> = without.copied().collect();
        let points = points(&["begin"]);
        let error = BenchWords::of(&Manifest::saying(&without), &points)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no word for \"rounds\" of a bench"),
            "{error}"
        );
        assert!(error.contains("no point that is a \"round\""), "{error}");
        assert!(!error.contains("\"to\""), "{error}");
        let nothing = BenchWords::of(&Manifest::default(), &points).unwrap_err();
        assert!(matches!(nothing, Unmeasurable::Unsaid(missing) if missing.len() == 7));
    }

    #[test]
    fn a_guest_without_the_loops_is_measured_otherwise() {
        let all = records();
        let without = all.iter().filter(|it| {
            // The key, and its values.
            !it.name.starts_with(b"loop") && !it.group.starts_with(b"loop")
        });
        let without: Vec<_> = without.copied().collect();
        let points = points(&["begin", "over", "sum"]);
        let words = BenchWords::of(&Manifest::saying(&without), &points).unwrap();
        let error = words.check_classic().unwrap_err().to_string();
        assert!(
            error.contains("no word for \"classic\" of a bench"),
            "{error}"
        );
        assert!(error.contains("no probe that is a \"total\""), "{error}");
        assert!(!error.contains("\"delivered\""), "{error}");
    }

    #[test]
    fn a_point_that_is_not_in_the_image_is_named() {
        let manifest = Manifest::saying(&records());
        for (probes, name, role) in [
            (&["other", "over"][..], "begin", "start"),
            (&["begin"], "over", "round"),
            (&[], "begin", "start"),
        ] {
            let error = BenchWords::of(&manifest, &points(probes)).unwrap_err();
            let name = name.to_owned();
            assert_eq!(error, Unmeasurable::NoProbe { name, role });
        }
    }
}
