//! Runs every target over its corpus, and over what comes of it by mutation, without `cargo fuzz` and
//! its compiler. Mutations are drawn at random, and nothing leads them but the corpus.
//!
//! `FUZZ_SECONDS` is the time for each target beside its corpus, `FUZZ_SEED` the seed, and
//! `FUZZ_TARGETS` names the targets, if not all. An input that a target does not survive is in
//! `fuzz/artifacts/TARGET/`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, panic, process, thread};

use fastrand::Rng;
use fuzz::{TARGETS, Target};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Most processor time that one input may take. The longest take a few milliseconds, and hundreds
/// where nothing is optimised.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most memory of the process, in bytes. Guests of 3 GiB are among what is read, of which hardly any is
/// ever touched.
const MEMORY: u64 = 16 << 30;

/// Longest input that mutation makes, in bytes.
const LONGEST: usize = 128 << 10;

/// What is put in place of something, as 1 to 8 bytes.
const NUMBERS: [u64; 14] = [
    0,
    1,
    7,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 63,
    u64::MAX,
];

/// The same in texts.
const WORDS: [&str; 18] = [
    "0",
    "-1",
    "1e999",
    "0x",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "\"\"",
    "null",
    "[]",
    "{}",
    "\n",
    "{",
    "}",
    ";",
    " ",
    "\u{1f600}",
    "\0",
];

fn folder(of: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of).join(target)
}

fn number(variable: &str, default: f64) -> f64 {
    env::var(variable).map_or(default, |it| it.parse().expect("a number"))
}

/// The names in a folder, without their extensions.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let stems = paths.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned));
    stems.collect()
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder("corpus", target.name)).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|it| it.expect("an entry").path()).collect();
    paths.sort();
    let files = paths.iter().map(|path| fs::read(path).expect("a file"));
    files.collect()
}

/// Changes a few things in one of the `inputs`.
fn mutated(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + 1 + rng.usize(..16)).min(bytes.len());
        match rng.u8(..10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 | 3 => {
                let number = NUMBERS[rng.usize(..NUMBERS.len())].wrapping_add(rng.u64(..2));
                let width = [1, 2, 4, 8][rng.usize(..4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
            4 => {
                let word = WORDS[rng.usize(..WORDS.len())];
                bytes.splice(at..end, word.bytes());
            }
            5 => drop(bytes.drain(at..end)),
            6 => bytes.truncate(at),
            7 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // A number in a text.
            8 => {
                let digits = bytes.iter().skip(at).position(u8::is_ascii_digit);
                if let Some(digit) = digits.and_then(|place| bytes.get_mut(at + place)) {
                    *digit = rng.u8(b'0'..=b'9');
                }
            }
            _ => {
                let other = &inputs[rng.usize(..inputs.len())];
                let from = rng.usize(..=other.len());
                let length = rng.usize(..=(other.len() - from).min(1024));
                bytes.splice(at..end, other[from..from + length].iter().copied());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// The input that is being read, in a file, so that it is still there if the process is not.
struct Current {
    file: File,
    path: PathBuf,
}

impl Current {
    fn of(target: &Target) -> Self {
        let folder = folder("artifacts", target.name);
        fs::create_dir_all(&folder).expect("room for a folder");
        let path = folder.join(format!("current-{}", process::id()));
        let file = File::create(&path).expect("room for a file");
        Self { file, path }
    }

    /// Has `target` read `input`.
    fn run(&self, target: &Target, input: &[u8]) {
        self.file.set_len(0).expect("room for a file");
        self.file.write_all_at(input, 0).expect("room for a file");
        let begun = processor_time();
        let survived = panic::catch_unwind(|| (target.read)(input));
        let took = processor_time() - begun;
        if survived.is_err() || took > PATIENCE {
            let path = &self.path;
            panic!("{}: {took:?} for the input {}", target.name, path.display());
        }
    }

    fn all_survived(self) {
        fs::remove_file(&self.path).expect("it is there");
        // Stays if there is anything else in it.
        let _ = fs::remove_dir(self.path.with_file_name(""));
    }
}

/// What this thread has taken of a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = time.tv_sec.try_into().expect("a short time");
    Duration::new(seconds, time.tv_nsec.try_into().expect("below a second"))
}

/// Runs `target` over its corpus and mutations of it, and returns over how many inputs.
fn run(target: &Target, time: Duration, seed: u64) -> u64 {
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "{}: no corpus", target.name);
    let current = Current::of(target);
    for input in inputs.iter().chain([&Vec::new()]) {
        current.run(target, input);
    }
    let mut rng = Rng::with_seed(seed);
    let (mut runs, begun) = (inputs.len() as u64, Instant::now());
    while begun.elapsed() < time {
        current.run(target, &mutated(&inputs, &mut rng));
        runs += 1;
    }
    current.all_survived();
    runs
}

#[test]
fn nothing_that_is_read_harms_who_reads_it() {
    setrlimit(
        Resource::As,
        Rlimit {
            current: Some(MEMORY),
            maximum: Some(MEMORY),
        },
    )
    .expect("a limit can be lowered");
    let time = Duration::from_secs_f64(number("FUZZ_SECONDS", 1.0));
    let seed = number("FUZZ_SEED", 1.0) as u64;
    let wanted = env::var("FUZZ_TARGETS").unwrap_or_default();
    let wanted: Vec<_> = wanted.split_whitespace().collect();
    let is_wanted = |target: &&Target| wanted.is_empty() || wanted.contains(&target.name);
    let left = Mutex::new(TARGETS.iter().filter(is_wanted).collect::<Vec<_>>());
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(target) = left.lock().ok().and_then(|mut left| left.pop()) else {
                        return;
                    };
                    println!("{:<12}{:>12} inputs", target.name, run(target, time, seed));
                }
            });
        }
    });
}

/// The list in the library, the targets of `cargo fuzz`, the corpora and the page name the same.
#[test]
fn every_target_is_everywhere() {
    let listed: BTreeSet<_> = TARGETS.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(names_in(&folder("fuzz_targets", "")), listed);
    assert_eq!(names_in(&folder("corpus", "")), listed);
    let manifest = include_str!("../Cargo.toml");
    let page = include_str!("../../docs/security.md");
    for name in &listed {
        let path = folder("fuzz_targets", name).with_extension("rs");
        let text = fs::read_to_string(path).expect("a target");
        assert!(text.contains(&format!("fuzz::{name}::read(")), "{text}");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        assert!(
            page.contains(&format!("\n| `{name}` | ")),
            "docs/security.md: {name}"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), listed.len());
}

/// A corpus whose inputs are all refused at once would try nothing.
#[test]
fn the_corpora_are_understood() {
    let read =
        |target: &str, name: &str| fs::read(folder("corpus", target).join(name)).expect(name);
    let text = |target: &str, name: &str| String::from_utf8(read(target, name)).expect("a text");
    let image = read("image", "bootable");
    vmm::machine::image::Image::from_bytes(Path::new("image"), image).expect("an image");
    vmm::explore::case::Case::parse(&text("case", "conditions.case")).expect("a case");
    vmm::explore::schedule::Schedule::parse(&text("schedule", "lost-call")).expect("a schedule");
    let packed = read("image", "packed");
    vmm::machine::image::Image::from_bytes(Path::new("image"), packed).expect("a packed image");
    let symbols = vmm::machine::kallsyms::find(&read("kernel", "kallsyms"));
    assert!(symbols.len() > 1000, "{}", symbols.len());
    for name in ["c", "rust"] {
        let image = read("dwarf", name);
        let memory = |address| (address < 0x100_0000).then_some(0);
        let names = vmm::machine::memory_names::names(&image, memory);
        assert!(!names.is_empty(), "{name}");
    }
}
