//! In what two runs or benches differ before any figure: the command, the host, the guest, its
//! words, the vCPUs, and who could count. Goes by what the documents say of where they come from.

use std::collections::{BTreeMap, BTreeSet};

use super::Differing;
use crate::provenance::{Build, Input, Provenance};
use crate::stats::sources::{Source, status};

/// What stands for something that is not there.
const NONE: &str = "none";

/// What differs in where the two come from, but for when they were made.
pub fn differing(a: &Provenance, b: &Provenance) -> Vec<Differing> {
    let pin = |it: &Provenance| it.pin.clone().unwrap_or_else(|| "not pinned".to_owned());
    let all = [
        Differing::between("vmm", &build(&a.vmm), &build(&b.vmm)),
        Differing::between("kernel", &a.host.kernel, &b.host.kernel),
        Differing::between("KVM", &a.host.kvm, &b.host.kvm),
        input("guest image", Some(&a.guest), Some(&b.guest)),
        Differing::between("vCPUs", &a.vcpus, &b.vcpus),
        Differing::between("pinning", &pin(a), &pin(b)),
        input("script", a.script.as_ref(), b.script.as_ref()),
        input("case", a.case.as_ref(), b.case.as_ref()),
    ];
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    match (&a.words, &b.words) {
        (Some(a), Some(b)) => all.extend(words(a, b)),
        _ => {
            let given = |it: &Provenance| match it.given.as_str() {
                "" => NONE.to_owned(),
                given => given.to_owned(),
            };
            all.extend(Differing::between("words given", &given(a), &given(b)));
        }
    }
    all
}

/// The build with the whole commit: two commits can begin with the same digits.
fn build(build: &Build) -> String {
    let commit = build.commit.as_deref().unwrap_or("unknown");
    let modified = if build.modified { ", modified" } else { "" };
    format!("{} (commit {commit}{modified})", build.version)
}

/// A file differs if what is in it does, whatever it is called.
fn input(what: &str, a: Option<&Input>, b: Option<&Input>) -> Option<Differing> {
    let hash = |input: Option<&Input>| input.map(|it| it.hash.clone());
    if hash(a) == hash(b) {
        return None;
    }
    let text = |input: Option<&Input>| {
        input.map_or_else(
            || NONE.to_owned(),
            |it| format!("{} (hash {})", it.name, it.hash),
        )
    };
    Some(Differing {
        what: what.to_owned(),
        a: text(a),
        b: text(b),
    })
}

/// The words of a guest that have different values, or that one does not have.
pub fn words<'a>(
    a: &'a BTreeMap<String, String>,
    b: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = Differing> + 'a {
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter_map(|key| {
        let value = |words: &BTreeMap<String, String>| {
            words.get(key).map_or_else(|| NONE.to_owned(), Clone::clone)
        };
        Differing::between(format!("word {key}"), &value(a), &value(b))
    })
}

/// The sources that can be believed in one of the two and not in the other, each as it is there.
pub fn sources<'a>(a: &'a [Source], b: &'a [Source]) -> impl Iterator<Item = Differing> + 'a {
    let names: BTreeSet<_> = a.iter().chain(b).map(|it| it.name.as_str()).collect();
    names.into_iter().filter_map(|name| {
        let told = |sources: &[Source]| {
            status(sources, name)
                .map_or_else(|| "not tried".to_owned(), |status| status.name().to_owned())
        };
        Differing::between(format!("who counts: {name}"), &told(a), &told(b))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stats::sources::Kvm;

    #[test]
    fn each_thing_that_was_run_is_held_against_the_other() {
        let guest = |bytes| Input::new(Path::new("guest.bin"), bytes);
        let a = Provenance::new(Kvm::Svm, guest(b"one"), 2, "queue=fifo");
        let mut b = a.clone();
        b.date = "later".to_owned();
        b.guest.name = "elsewhere/guest.bin".to_owned();
        assert_eq!(differing(&a, &b), []);

        b = Provenance::new(Kvm::Emulated, guest(b"other"), 4, "queue=filo");
        b.vmm.commit = Some("elsewhere".to_owned());
        b.host.kernel = "7.0".to_owned();
        b.pin = Some("0-3".to_owned());
        b.script = Some(guest(b"script"));
        let told = |all: Vec<Differing>| all.into_iter().map(|it| it.what).collect::<Vec<_>>();
        let expected = [
            "vmm",
            "kernel",
            "KVM",
            "guest image",
            "vCPUs",
            "pinning",
            "script",
            "words given",
        ];
        assert_eq!(told(differing(&a, &b)), expected);
    }

    #[test]
    fn words_are_told_one_by_one() {
        let map = |words: &[(&str, &str)]| {
            let words = words
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()));
            words.collect::<BTreeMap<_, _>>()
        };
        let a = map(&[("queue", "fifo"), ("seed", "1"), ("eoi", "pv")]);
        let b = map(&[("queue", "filo"), ("seed", "1")]);
        let told: Vec<_> = words(&a, &b).map(|it| [it.what, it.a, it.b]).collect();
        assert_eq!(
            told,
            [["word eoi", "pv", "none"], ["word queue", "fifo", "filo"]]
        );
    }
}
