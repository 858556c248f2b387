use proptest::prelude::*;
use shared::mailbox::WAKE_VECTOR;
use shared::manifest::Argument::{Cpu, Cpus, Number};
use shared::manifest::{MAX_RECORDS, NAME_LEN};
use zerocopy::IntoBytes;

use super::*;
use crate::explore::case::OTHER_BREACHES;
use crate::explore::specimen::Breach;

const GUEST: Record = Record::guest("litmus", "3", "Loads and stores.");

fn image(section: &[u8]) -> Vec<u8> {
    ::tests::image::with_section(SECTION, section, 0)
}

fn read(records: &[Record]) -> Result<Manifest, ManifestError> {
    let image = image(records.as_bytes());
    Manifest::read(&image).map(|manifest| manifest.expect("it has the section"))
}

/// The problem with the last of these records, in front of which stands a good one.
#[track_caller]
fn refused(records: &[Record]) -> Problem {
    let all = [&[GUEST], records].concat();
    match read(&all).unwrap_err() {
        ManifestError::Record { index, problem, .. } => {
            assert_eq!(index, records.len());
            problem
        }
        error => panic!("{error}"),
    }
}

#[test]
fn what_is_said_is_read_in_an_order_of_its_own() {
    let [begin, end] = Record::stretch("a.begin", "a.end", "waits for it");
    let manifest = read(&[
        Record::value("order", 1, "late"),
        end,
        Record::oracle(2, "outcome", "came out as it must not"),
        Record::counter(5, "most", "The most.").largest().part_of(4),
        Record::counter(4, "all", "All.").shown("sums", "all", "{} in all", "all_total"),
        Record::value("order", 0, "early").with(BROKEN),
        Record::word("order", "Who is first.").set_by_search("late"),
        GUEST,
        begin,
        Record::deed(1, "store", &[Cpus, Number], "Stores.")
            .or("st")
            .with(MAY_WAIT | IN_CASE),
        Record::source(SourceRole::SkipFunction, "below::"),
        Record::source(SourceRole::Root, "src/"),
    ])
    .unwrap();
    assert_eq!(manifest.guest.name, "litmus");
    let [word] = &manifest.options[..] else {
        panic!("{manifest:?}")
    };
    let values: Vec<_> = word
        .values
        .iter()
        .map(|it| (&*it.name, it.broken))
        .collect();
    assert_eq!(values, [("early", true), ("late", false)]);
    assert_eq!(word.set_to.as_deref(), Some("late"));
    assert_eq!(manifest.points[0].name, "a.begin");
    assert_eq!(manifest.points[1].lane.as_deref(), Some("waits for it"));
    assert_eq!(manifest.deeds[0].arguments, [Cpus, Number]);
    assert!(manifest.deeds[0].may_wait && !manifest.deeds[0].answers);
    let counters: Vec<_> = manifest
        .counters
        .iter()
        .map(|it| (it.total, it.part_of))
        .collect();
    assert_eq!(counters, [(Total::Sum, None), (Total::Max, Some(4))]);
    assert_eq!(manifest.source.root.as_deref(), Some("src/"));
    assert_eq!(manifest.source.skip_functions, ["below::"]);
    let shown = manifest.counters[0].shown.as_ref().unwrap();
    assert_eq!(shown.phrase, "{} in all");
}

#[test]
fn an_image_that_says_nothing_is_none_that_is_wrong() {
    let none = ::tests::image::with_section(".other", GUEST.as_bytes(), 0);
    assert_eq!(Manifest::read(&none), Ok(None));
    assert_eq!(Manifest::read(b"no image"), Ok(None));
}

#[test]
fn a_section_of_another_make_is_refused() {
    let read = |bytes: &[u8]| Manifest::read(&image(bytes)).unwrap_err();
    assert_eq!(read(&[0; 500]), ManifestError::Size(500));
    assert_eq!(read(&[]), ManifestError::NoGuest);
    let many = GUEST.as_bytes().repeat(MAX_RECORDS + 1);
    assert_eq!(read(&many), ManifestError::TooMany(MAX_RECORDS + 1));
}

#[test]
fn a_record_that_fits_its_kind_in_no_way_is_refused() {
    let good = Record::oracle(1, "outcome", "came out wrong");
    let mut bad = good;
    bad.version = 2;
    assert_eq!(refused(&[bad]), Problem::Version(2));
    bad = good;
    bad.kind = 77;
    assert_eq!(refused(&[bad]), Problem::Kind(77));
    bad = good;
    bad.metric[0] = b'x';
    assert_eq!(refused(&[bad]), Problem::Surplus("metric"));
    bad = good;
    bad.flags = 1;
    assert_eq!(refused(&[bad]), Problem::Surplus("set of flags"));
    bad = good;
    bad.name[NAME_LEN - 1] = b'x';
    assert_eq!(refused(&[bad]), Problem::Text("name"));
    bad = good;
    bad.text[3] = b'\n';
    assert_eq!(refused(&[bad]), Problem::Text("text"));
    assert_eq!(
        refused(&[Record::oracle(0, "outcome", "x")]),
        Problem::Number(0, 1, 31)
    );
    assert_eq!(refused(&[good, good]), Problem::Twice("number", 1));
    assert_eq!(
        refused(&[good, Record::oracle(2, "outcome", "x")]),
        Problem::Twice("name", 1)
    );
    assert_eq!(refused(&[GUEST]), Problem::Twice("kind", 0));
}

#[test]
fn what_belongs_together_has_to_be_there() {
    let [begin, _] = Record::stretch("a", "b", "lane");
    assert_eq!(
        refused(&[begin]),
        Problem::Dangling("other end of the lane")
    );
    assert_eq!(
        refused(&[Record::value("key", 0, "value")]),
        Problem::Dangling("word")
    );
    let counter = Record::counter(1, "part", "A part.");
    assert_eq!(refused(&[counter.part_of(2)]), Problem::Dangling("whole"));
    assert_eq!(refused(&[counter.part_of(1)]), Problem::Dangling("whole"));
    let shown = |phrase| counter.shown("group", "key", phrase, "");
    assert_eq!(refused(&[shown("{} of {}")]), Problem::Phrase);
    assert_eq!(refused(&[shown("none")]), Problem::Phrase);
    let metric = |name| counter.shown("group", "key", "{}", name);
    assert_eq!(refused(&[metric("visits")]), Problem::Metric);
    assert_eq!(
        refused(&[metric("visits_total").largest()]),
        Problem::Metric
    );
    assert_eq!(refused(&[counter.sent_by("")]), Problem::Missing("key"));
    let deed = |arguments: &[Argument]| Record::deed(1, "deed", arguments, "");
    assert!(matches!(
        refused(&[deed(&[Cpus, Number, Cpus])]),
        Problem::Surplus(_)
    ));
    assert!(read(&[GUEST, deed(&[Cpu, Number, Cpu, Cpu])]).is_ok());
    let word = deed(&[Argument::Word]);
    assert_eq!(refused(&[word]), Problem::Missing("group"));
    assert_eq!(
        refused(&[word.words_of("var")]),
        Problem::Dangling("word with values")
    );
    let key = Record::word("var", "What there is.");
    assert_eq!(
        refused(&[key, word.words_of("var")]),
        Problem::Dangling("word with values")
    );
    assert_eq!(
        refused(&[key, Record::value("var", 1, "y")]),
        Problem::Number(1, 0, 0)
    );
    assert_eq!(
        refused(&[deed(&[Cpu]).words_of("var")]),
        Problem::Surplus("group")
    );
    assert_eq!(refused(&[deed(&[]).with(ENDS)]), Problem::Ending);
    let mut gap = deed(&[Cpu]);
    gap.arguments = [0, 1, 0, 0];
    assert!(matches!(refused(&[gap]), Problem::Surplus(_)));
    let named = deed(&[]).or("other");
    let other = Record::deed(2, "other", &[], "");
    assert_eq!(refused(&[named, other]), Problem::Twice("name", 1));
}

#[test]
fn what_is_said_of_points_vectors_and_words_has_to_make_sense() {
    let wake = Record::vector(0xf0, "wake", VectorRole::Wake, "");
    let other = Record::vector(0xf1, "other", VectorRole::Wake, "");
    assert_eq!(refused(&[wake, other]), Problem::Twice("role", 1));
    let [begin, end] = Record::wait("a", "b", "lane", "lane_wait", "Waits.");
    let changed = |change: fn(&mut Record)| {
        let mut record = begin;
        change(&mut record);
        record
    };
    let nameless = changed(|it| it.key = [0; NAME_LEN]);
    assert_eq!(refused(&[nameless]), Problem::Missing("key"));
    let silent = changed(|it| it.text = [0; 256]);
    assert_eq!(refused(&[silent]), Problem::Missing("text"));
    let idle = changed(|it| it.flags = 0);
    assert_eq!(refused(&[idle]), Problem::Surplus("key"));
    assert_eq!(refused(&[end.with(WAITS)]), Problem::Unknown("flags", 1));
    let [other, _] = Record::wait("c", "d", "other", "lane_wait", "Waits.");
    assert_eq!(refused(&[begin, other]), Problem::Twice("key", 1));
    let [taken, _] = Record::wait("a", "b", "lane", "records", "Waits.");
    assert!(matches!(refused(&[taken]), Problem::Taken("key", _)));
    let [taken, _] = Record::stretch("a", "b", "paused");
    assert!(matches!(refused(&[taken]), Problem::Taken("group", _)));

    let word = Record::word("key", "Key.");
    assert_eq!(refused(&[word.because("why")]), Problem::Surplus("phrase"));
    let unset = word.measured_as(Measure::Set);
    assert_eq!(refused(&[unset]), Problem::Missing("group"));
    let mut set = word.set_by_bench("value");
    set.number = Measure::To as u32;
    assert_eq!(refused(&[set]), Problem::Surplus("group"));
    set.number = 99;
    assert_eq!(refused(&[set]), Problem::Unknown("number", 99));
    let to = word.measured_as(Measure::To);
    let too = Record::word("too", "").measured_as(Measure::To);
    assert_eq!(refused(&[to, too]), Problem::Twice("number", 1));
    let mut value = Record::value("key", 0, "value").harmless("is kind");
    value.flags = 0;
    assert_eq!(refused(&[value]), Problem::Surplus("text"));
}

#[test]
fn no_wait_has_a_name_that_the_reports_have_themselves() {
    let schema: serde_json::Value = serde_json::from_str(&crate::report::schema::report()).unwrap();
    for of in ["Traced", "Pair"] {
        let pointer = format!("/$defs/{of}/properties");
        let properties = schema.pointer(&pointer).unwrap().as_object().unwrap();
        for key in properties.keys() {
            assert!(TAKEN_WAITS.contains(&&**key), "{key}");
        }
    }
}

#[test]
fn a_cpu_is_woken_by_the_vector_that_the_guest_has_for_it() {
    assert_eq!(Manifest::default().wake_vector(), WAKE_VECTOR);
    let manifest = read(&[
        GUEST,
        Record::vector(0xf0, "call", VectorRole::Call, ""),
        Record::vector(0xf5, "up", VectorRole::Wake, ""),
    ]);
    assert_eq!(manifest.unwrap().wake_vector(), 0xf5);
}

#[test]
fn no_counter_has_a_name_that_the_reports_have_themselves() {
    let counter = Record::counter(1, "calls_made", "All.");
    assert!(matches!(refused(&[counter]), Problem::Taken("name", _)));
    let counter = Record::counter(1, "all", "All.").shown("provenance", "all", "{}", "");
    assert!(matches!(refused(&[counter]), Problem::Taken("group", _)));
    // All names that a report uses: its schema has them.
    let schema: serde_json::Value = serde_json::from_str(&crate::report::schema::report()).unwrap();
    for key in schema["properties"].as_object().unwrap().keys() {
        assert!(TAKEN.contains(&&**key), "{key}");
    }
}

#[test]
fn no_oracle_has_a_name_that_stands_for_something_else() {
    // All names of what a search itself finds, but for those that a guest can have an oracle for.
    let breaches = OTHER_BREACHES.into_iter();
    let breaches = breaches.filter(|name| *name != Breach::INTERRUPTS_ON);
    for name in ["clean", "oracle-7"].into_iter().chain(breaches) {
        let taken = Problem::Taken("name", name.to_owned());
        assert_eq!(refused(&[Record::oracle(7, name, "broke")]), taken);
    }
}

/// Records most of which are valid alone, but often not together.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let samples = [
        GUEST,
        Record::vector(0xf0, "wake", VectorRole::Wake, ""),
        Record::point("a", PointRole::Run),
        Record::word("key", "Key."),
        Record::value("key", 0, "value"),
        Record::deed(1, "deed", &[Cpu], "Does."),
        Record::counter(1, "count", "Counts.").shown("group", "key", "{}", "metric_total"),
        Record::oracle(1, "oracle", "broke"),
        Record::source(SourceRole::Root, "src/"),
    ];
    let record = prop::sample::select(samples.to_vec());
    let damage = prop::collection::vec((0..RECORD_LEN, any::<u8>()), 0..3);
    let bytes = (record, damage).prop_map(|(record, damage)| {
        let mut bytes = record.as_bytes().to_vec();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        bytes
    });
    prop::collection::vec(bytes, 0..12).prop_map(|all| all.concat())
}

proptest! {
    #[test]
    fn nothing_in_an_image_makes_it_panic(
        mut section in records(), cut in 0_usize..RECORD_LEN, at in 0_usize..8192, byte: u8,
    ) {
        if cut < 8 {
            section.truncate(section.len().saturating_sub(cut));
        }
        let mut image = image(&section);
        if at % 4 == 0 && let Some(place) = image.get_mut(at) {
            *place = byte;
        }
        match Manifest::read(&image) {
            Ok(Some(manifest)) => prop_assert!(!manifest.table().is_empty()),
            Ok(None) => {}
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }
}
