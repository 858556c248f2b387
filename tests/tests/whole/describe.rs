//! `vmm describe`: the manifests of the guest images are complete, and a manifest that makes no
//! sense is refused with the record and the reason, whatever command the image is given to.

use std::collections::BTreeSet;
use std::path::Path;

use object::{Object, ObjectSection, SectionFlags};
use serde_json::Value;
use shared::lab::Transport;
use shared::mailbox::WAKE_VECTOR;
use shared::manifest::{
    Argument, MAX_RECORDS, MAY_WAIT, PointRole, RECORD_LEN, Record, SECTION, VectorRole,
};
use tests::image::{Image, bootable, bootable_with_section};
use tests::{Vmm, explore_image, guest};
use zerocopy::IntoBytes;

use crate::formats::hold_described;

const CLI_HLT: [u8; 2] = [0xfa, 0xf4];

const GUEST: Record = Record::guest("litmus", "3", "Loads and stores.");

fn described(image: &Path) -> Value {
    let run = Vmm::with("describe --json").arg(image).run();
    let document = run.ends_with(0).json();
    hold_described(&document);
    document["manifest"].clone()
}

/// The strings under `key` of every entry of a list.
fn all<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    let entries = list.as_array().expect("a list").iter();
    entries.map(|it| it[key].as_str().expect("text")).collect()
}

fn numbers(list: &Value) -> Vec<u64> {
    let entries = list.as_array().expect("a list").iter();
    entries
        .map(|it| it["number"].as_u64().expect("a number"))
        .collect()
}

#[test]
fn an_image_says_all_that_it_has() {
    for image in [guest(), explore_image()] {
        let manifest = described(&image);
        assert_eq!(manifest["guest"]["name"], "ipi-lab");
        let verbs = numbers(&manifest["deeds"]);
        assert_eq!(verbs, (1..=verbs.len() as u64).collect::<Vec<_>>());
        let deeds = all(&manifest["deeds"], "name");
        for name in ["call-many", "irqs-off", "leave-mask", "finish"] {
            assert!(deeds.contains(&name), "{deeds:?}");
        }
        let oracles = &manifest["oracles"];
        // As the guest numbers them, without a gap.
        let numbered = numbers(oracles);
        assert_eq!(numbered, (1..=numbered.len() as u64).collect::<Vec<_>>());
        let names = all(oracles, "name");
        for name in ["lost", "wrong-cpu", "accounting", "interrupts-on"] {
            // What the VMM knows too has the same name.
            assert!(names.contains(&name), "{names:?}");
        }
        assert_eq!(names[0], "lost");
        assert_eq!(all(oracles, "about")[0], "never ran on a target");
        // Every word that the guest counts in is declared: those of the kit, one for each vector,
        // and the guest's own, which begin at 32, without a gap.
        let (kit, own): (Vec<_>, Vec<_>) =
            (numbers(&manifest["counters"]).into_iter()).partition(|word| *word < 32);
        let received = numbers(&manifest["vectors"])
            .into_iter()
            .map(|vector| 8 + vector - 0xf0);
        assert_eq!(kit, (0..8).chain(received).collect::<Vec<_>>());
        assert_eq!(own, (32..32 + own.len() as u64).collect::<Vec<_>>());
        let names = all(&manifest["counters"], "name");
        for name in ["wait_spins", "visits", "longest_walk", "call_ipis_sent"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let counters = manifest["counters"].as_array().expect("a list").iter();
        let sent: Vec<_> = counters.filter_map(|it| it["transport"].as_str()).collect();
        assert_eq!(sent, Transport::ALL.map(Transport::name));
        let vectors = &manifest["vectors"];
        assert_eq!(numbers(vectors), [0xf1, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe]);
        let wakes = vectors.as_array().expect("a list").iter();
        let wakes: Vec<_> = wakes.filter(|it| it["role"] == "wake").collect();
        assert_eq!(wakes[0]["number"], WAKE_VECTOR);
        assert_eq!(wakes.len(), 1);
        // Every point that is declared exists in the image.
        let probes = Vmm::with("probes").arg(&image).run();
        let lines = probes.ends_with(0).stdout.lines();
        let probes: BTreeSet<_> = lines
            .filter_map(|it| it.split_whitespace().next())
            .collect();
        for name in all(&manifest["points"], "name") {
            assert!(probes.contains(name), "{name} is no probe");
        }
        let options = manifest["options"].as_array().expect("a list");
        let queue = options.iter().find(|it| it["name"] == "queue");
        assert_eq!(queue.expect("the word queue=")["values"][2]["name"], "filo");
    }
}

/// A guest refuses an unknown word, and lists all that it knows.
#[test]
fn the_words_are_those_that_the_guest_takes() {
    tests::need_kvm();
    let manifest = described(&guest());
    let options = manifest["options"].as_array().expect("a list");
    let run = Vmm::boot("--append x").run();
    let said = run.ends_with(2).stdout.clone() + &run.stderr;
    let known = said.split_whitespace().map(|it| it.trim_end_matches(','));
    let known: BTreeSet<_> = known.filter_map(|it| it.strip_suffix('=')).collect();
    let declared: BTreeSet<_> = all(&manifest["options"], "name").into_iter().collect();
    // The address of the lab is a matter between the monitor and the guest.
    assert_eq!(&known - &BTreeSet::from(["lab"]), declared, "{run}");
    for option in options {
        let values = all(&option["values"], "name");
        if values.is_empty() {
            continue;
        }
        let word = format!("{}=x", option["name"].as_str().expect("text"));
        let run = Vmm::with("--append").arg(&word).arg(guest()).run();
        let list = run.ends_with(2).stdout.clone() + &run.stderr;
        let (_, list) = list.split_once("takes one of ").expect("the values");
        let list = list.lines().next().unwrap_or_default();
        assert_eq!(list.split(' ').collect::<Vec<_>>(), values, "{run}");
    }
}

#[test]
fn what_an_image_says_takes_none_of_its_memory() {
    for path in [guest(), explore_image()] {
        let bytes = std::fs::read(&path).expect("an image");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let section = file.section_by_name(SECTION).expect("a manifest");
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            panic!("no ELF file");
        };
        assert_eq!(sh_flags.0 & object::elf::SHF_ALLOC.0, 0, "SHF_ALLOC");
        assert_eq!(section.address(), 0);
    }
}

#[test]
fn people_read_the_same() {
    let run = Vmm::with("describe").arg(guest()).run();
    run.ends_with(0);
    for text in [
        "0xfd",
        "call-many CPUS [wait]",
        "longest_walk",
        "reused-too-soon",
        "lockless-2011a (broken)",
    ] {
        assert!(run.stdout.contains(text), "{text}: {run}");
    }
}

#[track_caller]
fn section_refused(section: &[u8], why: &[&str]) {
    let image = Image::new(&bootable_with_section(&CLI_HLT, SECTION, section));
    for form in ["describe", "describe --json", "--vcpus 1"] {
        let run = Vmm::with(form).arg(image.path()).run();
        let name = image.path().file_name().expect("a name").to_string_lossy();
        run.ends_with(2).complains_of(&name);
        for why in why {
            run.says(why);
        }
        assert_eq!(run.stdout, "");
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
    }
}

#[track_caller]
fn refused(records: &[Record], why: &[&str]) {
    section_refused([&[GUEST], records].concat().as_bytes(), why);
}

#[test]
fn a_manifest_that_makes_no_sense_is_refused_with_the_record_and_the_reason() {
    let oracle = Record::oracle(1, "lost", "never ran");
    let damaged = |damage: fn(&mut Record)| {
        let mut record = oracle;
        damage(&mut record);
        record
    };
    section_refused(&GUEST.as_bytes()[..500], &["500 bytes", "512"]);
    section_refused(
        &oracle.as_bytes().repeat(MAX_RECORDS + 1),
        &["1025 records"],
    );
    section_refused(oracle.as_bytes(), &["no record of kind guest"]);
    refused(
        &[damaged(|it| it.version = 9)],
        &["record 1", "\"lost\"", "version 9"],
    );
    refused(&[damaged(|it| it.kind = 99)], &["record 1", "kind 99"]);
    refused(
        &[damaged(|it| it.number = 32)],
        &["oracle \"lost\"", "number 32"],
    );
    refused(
        &[damaged(|it| it.name[0] = 0xff)],
        &["of kind oracle", "its name is no UTF-8"],
    );
    refused(&[damaged(|it| it.text[0] = 0x1b)], &["its text", "control"]);
    refused(
        &[damaged(|it| it.name[9] = b'x')],
        &["its name", "zeroes behind it"],
    );
    refused(&[damaged(|it| it.name[0] = b'L')], &["\"Lost\"", "a to z"]);
    refused(
        &[damaged(|it| it.name = [0; 32])],
        &["of kind oracle", "it has no name"],
    );
    refused(&[damaged(|it| it.total = 1)], &["it has a total"]);
    refused(
        &[oracle, oracle],
        &["record 2", "record 1 has the same number"],
    );
    let second = Record::oracle(2, "lost", "never ran");
    refused(
        &[oracle, second],
        &["record 2", "record 1 has the same name"],
    );
    refused(&[GUEST], &["record 1", "record 0 has the same kind"]);
    let wake = Record::vector(3, "wake", VectorRole::Wake, "");
    refused(&[wake], &["vector \"wake\"", "number 3", "32 to 255"]);
    let counter = Record::counter(500, "visits", "Visits.");
    refused(&[counter], &["counter \"visits\"", "number 500"]);
    let deed = Record::deed(1, "load", &[Argument::Cpu], "").with(MAY_WAIT | 128);
    refused(&[deed], &["deed \"load\"", "flags 128"]);
    refused(
        &[Record::value("queue", 0, "fifo")],
        &["value \"fifo\"", "word"],
    );
    refused(
        &[Record::point("a", PointRole::Begin)],
        &["point \"a\"", "no group"],
    );
    assert_eq!(GUEST.as_bytes().len(), RECORD_LEN);
}

#[test]
fn an_image_that_says_nothing_is_told_so() {
    let image = Image::new(&bootable(&CLI_HLT));
    let run = Vmm::with("describe").arg(image.path()).run();
    run.ends_with(2).says("says nothing of itself");
}
