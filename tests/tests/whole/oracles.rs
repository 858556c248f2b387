//! What the VMM does with oracles that it does not know: this guest's images, with other names or
//! numbers in their manifests. The guest itself still reports by its own numbers.

use std::fs;
use std::path::Path;

use object::{Object, ObjectSection};
use serde_json::Value;
use shared::manifest::{Kind, RECORD_LEN, Record, SECTION, SourceRole};
use tempfile::TempDir;
use tests::image::Image;
use tests::{Run, Vmm, explore_image, guest, need_kvm};
use zerocopy::{FromBytes, IntoBytes};

const STORY: &str = include_str!("../../../scenarios/mckenney-2009.rhai");
const CASE: &str = include_str!("../../../scenarios/explore/freed-mask.case");

/// The image at `path` with other records in its manifest.
fn with_other_records(path: &Path, change: impl Fn(&mut Record)) -> Image {
    let mut bytes = fs::read(path).expect("an image");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let section = file.section_by_name(SECTION).expect("a manifest");
    let (start, length) = section.file_range().expect("records");
    let section = &mut bytes[start as usize..][..length as usize];
    for place in section.chunks_exact_mut(RECORD_LEN) {
        let mut record = Record::read_from_bytes(place).expect("a record");
        change(&mut record);
        place.copy_from_slice(record.as_bytes());
    }
    Image::new(&bytes)
}

fn is_oracle(record: &Record, name: &str) -> bool {
    let called = Record::oracle(0, name, "").name;
    record.kind == Kind::Oracle as u32 && record.name == called
}

/// The image at `path`, whose oracle `name` is called `other` and says something else.
fn renamed(path: &Path, name: &str, other: &str) -> Image {
    with_other_records(path, |record| {
        if is_oracle(record, name) {
            *record = Record::oracle(record.number, other, "was torn apart");
        }
    })
}

/// The lost call of 2009 on `image`, by the script with these replacements.
fn lost_call(image: &Image, words: &[(&str, &str)], arguments: &str) -> Run {
    let directory = TempDir::new().expect("a temporary directory");
    let script = directory.path().join("story.rhai");
    let replaced = |story: String, (word, other): &(&str, &str)| story.replace(word, other);
    let story = words.iter().fold(STORY.to_owned(), replaced);
    fs::write(&script, story).expect("room for a script");
    Vmm::with("--append queue=fifo --script")
        .arg(script)
        .args(arguments.split_whitespace())
        .arg(image.path())
        .run()
}

/// What `document` says of the oracle of this name: its findings, and the sentence about the first.
fn findings(document: &Value, name: &str) -> (u64, String) {
    let findings = document["findings"].as_array().expect("a list");
    let first = findings.iter().find(|it| it["oracle"] == name);
    let text = first.and_then(|it| it["text"].as_str()).unwrap_or_default();
    let count = &document["findings_by_oracle"][name];
    (count.as_u64().unwrap_or(0), text.to_owned())
}

#[test]
fn an_oracle_has_the_name_that_the_image_gives_it() {
    need_kvm();
    let image = renamed(&guest(), "left-locked", "torn");
    let words = [("left-locked", "torn")];
    let run = lost_call(&image, &words, "--stats json");
    let document = run.ends_with(0).json();
    let message = document["message"].as_str().expect("a sentence");
    assert!(message.starts_with("as expected: lost, torn, "), "{run}");
    let (count, text) = findings(&document, "torn");
    assert_eq!(count, 1, "{run}");
    assert!(text.contains(" was torn apart (seen on CPU "), "{text}");
    let run = lost_call(&image, &words, "--stats prometheus");
    run.ends_with(0)
        .says("ipi_lab_findings_by_oracle_total{oracle=\"torn\"} 1\n")
        .says("ipi_lab_findings_by_oracle_total{oracle=\"leak\"} 0\n");
    assert!(!run.stdout.contains("left-locked"), "{run}");
    // The old name is unknown now.
    lost_call(&image, &[], "")
        .ends_with(2)
        .says("there is no oracle \"left-locked\"; there are lost, ")
        .says("torn, ");
}

#[test]
fn what_guest_and_vmm_call_differently_is_not_one() {
    need_kvm();
    let image = renamed(&guest(), "lost", "torn");
    // The ledger shows it, and so does the guest, which was not expected to.
    lost_call(&image, &[], "")
        .ends_with(1)
        .says("found beside what was expected: torn\n");
}

#[test]
fn a_finding_of_an_oracle_that_nobody_declares_is_not_lost() {
    need_kvm();
    let nameless = with_other_records(&guest(), |record| {
        if record.kind == Kind::Oracle as u32 {
            // Anything else, of which there can be many.
            *record = Record::source(SourceRole::SkipFunction, "nowhere");
        }
    });
    let words = [
        (
            "must_break(\"lost\");",
            "must_break(\"oracle-1\"); may_break(\"lost\");",
        ),
        ("left-locked", "oracle-7"),
        ("broken-queue", "oracle-8"),
        ("bad-refs", "oracle-10"),
        (
            "may_break(\"accounting\");",
            "may_break(\"accounting\"); may_break(\"oracle-12\");",
        ),
    ];
    // A finding that was not expected is a failure.
    lost_call(&nameless, &words[..4], "")
        .ends_with(1)
        .says("found beside what was expected: oracle-12\n");
    let run = lost_call(&nameless, &words, "--stats json");
    let document = run.ends_with(0).json();
    let (count, text) = findings(&document, "oracle-1");
    assert_eq!(count, 1, "{run}");
    assert!(text.contains("oracle-1, of which the guest's image says nothing"));

    // If the image declares other oracles, the finding is reported but not believed.
    let image = with_other_records(&guest(), |record| {
        if is_oracle(record, "left-locked") {
            record.number = 31;
        }
    });
    let run = lost_call(&image, &[], "--stats json");
    let document = run.ends_with(1).json();
    assert_eq!(document["result"], "not-believed", "{run}");
    assert_eq!(findings(&document, "oracle-7").0, 1, "{run}");
    let first = &document["contradictions"][0];
    assert_eq!(
        first, "1 findings are of oracle 7, which there is not",
        "{run}"
    );
}

#[test]
fn a_case_expects_what_the_image_declares() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let (case, found) = (
        directory.path().join("a.case"),
        directory.path().join("found"),
    );
    let image = renamed(&explore_image(), "use-after-free", "torn");
    let explore = |text: &str| {
        fs::write(&case, text).expect("room for a case");
        let search = Vmm::with("explore --append hotplug=no-stop --shorten 0s");
        let search = search.args([&case, image.path()]);
        search.arg("--schedule").arg(&found).run()
    };
    explore(CASE)
        .ends_with(2)
        .complains_of("a.case, \"expect use-after-free, lost, ")
        .complains_of("no oracle \"use-after-free\"; there are lost, ")
        .complains_of(
            "torn, leak, reused-too-soon; besides, hang, livelock, died, not-believed, data-race, clean",
        );
    assert!(!found.exists());
    let renamed = CASE.replace("use-after-free", "torn");
    explore(&renamed).ends_with(0).says("as expected: torn\n");
    let replay = || Vmm::with("replay").args([&found, image.path()]).run();
    replay().ends_with(0).says("1 of 1 replays broke torn");
    // The case in a schedule is checked as well.
    let schedule = fs::read_to_string(&found).expect("a schedule");
    let other = schedule.replace("expect torn", "expect worn");
    fs::write(&found, other).expect("room for a schedule");
    replay()
        .ends_with(2)
        .complains_of("the schedule's case, \"expect worn, lost, ");
}
