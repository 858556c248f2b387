//! The VMM knows no word of its guest: what a guest declares in its manifest (names of points,
//! lanes, vectors, deeds, counters and oracles, values of options, numbers of vectors) occurs in no
//! string and no number of `vmm/src` outside of tests. The words are taken from the image, so that
//! new ones are looked for too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;
use shared::lab::Transport;
use shared::mailbox::WAKE_VECTOR;
use tests::{Vmm, guest, skip};

/// Words of the guest that are also the VMM's own, each with its meaning there.
const OWN: &[(&str, &str)] = &[
    ("apic", "a part of a processor"),
    (
        "x2apic",
        "the mode of an APIC, and a transport of the lab's",
    ),
    ("xapic", "the mode of an APIC, and a transport of the lab's"),
    ("bench", "a command"),
    (
        "ipi",
        "what `vmm bench` measures: the value of by=, as shared::manifest::Measure has it",
    ),
    ("call", "the same"),
    ("nobody", "to whom, as shared::manifest::Measure has it"),
    ("self", "the same"),
    (
        "dry-run",
        "a row of the classic bench, as shared::manifest::Measure has it",
    ),
    ("normal", "the same"),
    ("broadcast", "the same"),
    ("broadcast-lock", "the same"),
    ("one", "the same"),
    ("some", "the same"),
    ("all", "the same; and more, as in stall(all)"),
    (
        "halted",
        "a state of a CPU, and what receivers do, as shared::manifest::Measure has it",
    ),
    ("running", "the same"),
    ("stalled", "the same"),
    ("auto", "a transport, as shared::manifest::Measure has it"),
    ("counters", "what a CPU has counted, in scripts"),
    (
        "refused",
        "what became of a command, of a run, and a part of a page",
    ),
    ("on", "a switch of clients: trace on"),
    ("off", "the same"),
    ("stop", "what signals do"),
    ("finish", "how whoever drives a machine ends its workload"),
    ("irqs-on", "what is shown of a stalled CPU"),
    ("irqs-off", "a kind of stop in a schedule"),
    ("idle", "the same"),
    ("lock", "the same"),
    ("until", "a field of schedules and of requests"),
    ("interrupts-on", "what a search sees of a handler itself"),
    ("lost", "what the VMM judges itself, by the ledger"),
    ("wrong-cpu", "the same"),
    ("accounting", "the same"),
    ("each", "every one of them"),
];

/// The directory of the VMM's source, if it is on this host: it is not in the nested one.
fn source() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/src");
    path.is_dir().then_some(path)
}

/// A word that the guest declares, and as what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    kind: &'static str,
    text: String,
    /// The key of a value.
    key: Option<String>,
}

/// All words that the guest declares.
struct Guest {
    words: BTreeSet<Word>,
    vectors: BTreeSet<u64>,
}

impl Guest {
    fn read() -> Self {
        let run = Vmm::with("describe --json").arg(guest()).run();
        let manifest = run.ends_with(0).json()["manifest"].clone();
        let mut words = BTreeSet::new();
        let mut add = |kind, list: &Value, field: &str, key: Option<&str>| {
            for entry in list.as_array().expect("a list") {
                let Some(text) = entry[field].as_str() else {
                    continue;
                };
                words.insert(Word {
                    kind,
                    text: text.to_owned(),
                    key: key.map(str::to_owned),
                });
            }
        };
        add("points", &manifest["points"], "name", None);
        add("points", &manifest["points"], "lane", None);
        add("vectors", &manifest["vectors"], "name", None);
        add("deeds", &manifest["deeds"], "name", None);
        add("deeds", &manifest["deeds"], "alias", None);
        add("counters", &manifest["counters"], "name", None);
        add("oracles", &manifest["oracles"], "name", None);
        for option in manifest["options"].as_array().expect("a list") {
            let key = option["name"].as_str();
            add("values", &option["values"], "name", key);
        }
        let vectors = manifest["vectors"].as_array().expect("a list").iter();
        let vectors = vectors.map(|it| it["number"].as_u64().expect("a number"));
        Self {
            words,
            vectors: vectors.filter(|it| *it != u64::from(WAKE_VECTOR)).collect(),
        }
    }

    /// The words that are in `text`.
    fn found_in(&self, text: &str) -> Vec<&Word> {
        let found = self.words.iter().filter(|word| {
            let is_own = OWN.iter().any(|(own, _)| *own == word.text)
                || Transport::ALL.iter().any(|it| it.name() == word.text);
            let said = word.key.as_ref().map(|key| format!("{key}={}", word.text));
            let is_said = said.is_some_and(|said| has(text, &said));
            is_said || !is_own && word.spellings().iter().any(|it| is_in(text, it))
        });
        found.collect()
    }
}

impl Word {
    /// As in the manifest, and as in scripts.
    fn spellings(&self) -> [String; 2] {
        [self.text.clone(), self.text.replace('-', "_")]
    }
}

/// Whether a string is `word`. A word that is not English may also be a part of the string.
fn is_in(text: &str, word: &str) -> bool {
    let is_english = word.chars().all(|it| it.is_ascii_lowercase());
    text == word || !is_english && has(text, word)
}

/// Whether `word` is in a string, and not a part of a longer word.
fn has(text: &str, word: &str) -> bool {
    let goes_on = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let behind = text[at + word.len()..].chars().next();
        ![before, behind].into_iter().flatten().any(goes_on)
    })
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect();
    paths.sort();
    paths
}

/// The literals of Rust source, without comments and without code for tests.
fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Literal(literal) => found.push(literal.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                tokens.next_if(|it| it.to_string() == "!");
                let Some(TokenTree::Group(attribute)) = tokens.peek() else {
                    continue;
                };
                let said = attribute.stream().to_string().replace(' ', "");
                let is_test = said == "cfg(test)";
                let is_doc = said.starts_with("doc=");
                if !is_test && !is_doc {
                    continue;
                }
                tokens.next();
                // Up to the end of the item, which can have other attributes.
                while is_test && let Some(token) = tokens.next() {
                    let ends = match &token {
                        TokenTree::Group(group) => {
                            group.delimiter() == proc_macro2::Delimiter::Brace
                        }
                        other => other.to_string() == ";",
                    };
                    if ends {
                        break;
                    }
                }
            }
            TokenTree::Group(group) => literals(group.stream(), found),
            _ => {}
        }
    }
}

/// The strings of a script or a page: the text between quotes.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(from) = rest.find(['\'', '"', '`']) {
            let quote = rest[from..].chars().next().expect("a quote");
            let inside = &rest[from + 1..];
            let Some(to) = inside.find(quote) else { break };
            found.push(inside[..to].to_owned());
            rest = &inside[to + 1..];
        }
    }
    found
}

/// The guest's words in a file, each with the string that contains it.
fn look(guest: &Guest, path: &Path) -> Vec<(&'static str, String)> {
    let name = path.file_name().expect("a name").to_string_lossy();
    if name.ends_with("_test.rs") {
        return Vec::new();
    }
    let text = fs::read_to_string(path).expect("a source file");
    let mut found = Vec::new();
    let strings = if name.ends_with(".rs") {
        let tokens = text.parse().expect("Rust");
        let mut all = Vec::new();
        literals(tokens, &mut all);
        let (strings, numbers): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.contains('"'));
        for number in numbers {
            let hex = number.strip_prefix("0x").unwrap_or_default();
            let value = u64::from_str_radix(hex.trim_end_matches("u8"), 16);
            if value.is_ok_and(|it| guest.vectors.contains(&it)) {
                found.push(("vectors", number));
            }
        }
        let inside = |it: String| {
            it.split_once('"')
                .map(|(_, it)| it.trim_end_matches(['"', '#']).to_owned())
        };
        strings.into_iter().filter_map(inside).collect()
    } else {
        quoted(&text)
    };
    for string in strings {
        for word in guest.found_in(&string) {
            found.push((word.kind, format!("{:?} in {string:?}", word.text)));
        }
    }
    found
}

#[test]
fn no_word_of_the_guest_is_in_the_vmm() {
    let Some(source) = source() else {
        return skip("no words are looked for: the source of the VMM is not here");
    };
    let guest = Guest::read();
    let mut wrong = Vec::new();
    for path in files(&source) {
        for (kind, what) in look(&guest, &path) {
            let path = path.strip_prefix(&source).unwrap_or(&path);
            wrong.push(format!("{}: of the guest's {kind}: {what}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn words_are_found_where_they_are_and_nowhere_else() {
    let word = |kind, text: &str, key: Option<&str>| Word {
        kind,
        text: text.to_owned(),
        key: key.map(str::to_owned),
    };
    let guest = Guest {
        words: BTreeSet::from([
            word("points", "many.enter", None),
            word("vectors", "single", None),
            word("deeds", "leave-mask", None),
            word("values", "all", Some("to")),
        ]),
        vectors: BTreeSet::from([0xfb]),
    };
    let found = |text: &str| guest.found_in(text).len();
    for text in [
        "many.enter",
        "at many.enter, \n",
        "single",
        "leave_mask",
        "say leave-mask",
        "by to=all",
    ] {
        assert_eq!(found(text), 1, "{text}");
    }
    for text in [
        "many.entered",
        "a single one",
        "leave-masks",
        "all",
        "to=allow",
        "",
    ] {
        assert_eq!(found(text), 0, "{text}");
    }
    let source = r##"
        //! many.enter
        /// single
        const A: &str = "single"; // leave-mask
        const B: &[u8] = br#"many.enter"#;
        #[cfg(test)]
        mod tests { const A: &str = "leave-mask"; }
        #[derive(Debug)]
        struct Single(u8);
        #[cfg(test)]
        #[path = "leave-mask.rs"]
        mod more;
        fn vector() -> u8 { 0xfb }
    "##;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("source.rs");
    fs::write(&path, source).expect("a file");
    let kinds: Vec<_> = look(&guest, &path)
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, ["vectors", "vectors", "points"]);
    let path = folder.path().join("page.js");
    fs::write(&path, "const it = { name: 'single', more: \"a single\" };").expect("a file");
    assert_eq!(look(&guest, &path).len(), 1);
    let path = folder.path().join("source_test.rs");
    fs::write(&path, source).expect("a file");
    assert!(look(&guest, &path).is_empty());
}
