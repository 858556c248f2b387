//! Output files: whole or not at all, whatever comes between. Bad input, a full disk, a signal and a
//! kill leave what was there before or what is complete, and nothing else.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Running, Vmm, need_kvm};

pub const EARLIER: &str = "of an earlier run\n";

/// A folder with the outputs of an earlier run.
pub struct Outputs(TempDir);

impl Outputs {
    pub fn new(names: &[&str]) -> Self {
        let folder = Self(TempDir::new().expect("a temporary directory"));
        folder.put_earlier(names);
        folder
    }

    /// Puts what an earlier run has written there.
    pub fn put_earlier(&self, names: &[&str]) {
        for name in names {
            fs::write(self.at(name), EARLIER).expect("room for a line");
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let names = entries.map(|it| it.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|it| it.into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[track_caller]
    fn are_the_earlier(&self, names: &[&str], run: &Run) {
        for name in names {
            assert_eq!(self.text(name), EARLIER, "{name}: {run}");
        }
        assert_eq!(self.names(), names, "{run}");
    }
}

/// What a run writes, in the order of the alphabet.
pub const OF_A_RUN: [&str; 3] = ["report", "stats-file", "trace"];

/// A run of the guest that writes all of these.
pub fn run_to(outputs: &Outputs) -> Vmm {
    let mut vmm = Vmm::boot("--stats json --vcpus 2");
    for name in OF_A_RUN {
        vmm = vmm.arg(format!("--{name}")).arg(outputs.at(name));
    }
    vmm
}

#[test]
fn bad_input_leaves_every_earlier_file() {
    let outputs = Outputs::new(&OF_A_RUN);
    let bad = run_to(&outputs).script("this is no script").run();
    bad.ends_with(2);
    outputs.are_the_earlier(&OF_A_RUN, &bad);
    let bad = run_to(&outputs)
        .args(["--stall", "cpu=7,at=1ms,for=1ms"])
        .run();
    bad.ends_with(2);
    outputs.are_the_earlier(&OF_A_RUN, &bad);

    let image = tests::explore_image();
    let of_a_search = ["checkpoint", "report", "result", "schedule", "stats-file"];
    let outputs = Outputs::new(&of_a_search);
    let inputs = TempDir::new().expect("a temporary directory");
    let case = inputs.path().join("a.case");
    fs::write(&case, "cpus 2\n0: no such deed\n").expect("room for a case");
    let mut bad = Vmm::with("explore").arg(&case).arg(&image);
    for name in of_a_search {
        bad = bad.arg(format!("--{name}")).arg(outputs.at(name));
    }
    let bad = bad.run();
    bad.ends_with(2);
    outputs.are_the_earlier(&of_a_search, &bad);

    let outputs = Outputs::new(&["json"]);
    let json = outputs.at("json");
    let bad = Vmm::with("bench --json").arg(&json).arg(&case).run();
    bad.ends_with(2);
    outputs.are_the_earlier(&["json"], &bad);
}

/// The script is refused before there is a machine of that image, and whatever ran before is not
/// written there: its report as soon as it has ended, all else at the end.
#[test]
fn an_image_that_only_a_script_names_is_no_output() {
    need_kvm();
    let outputs = Outputs::new(&[]);
    let (image, link) = (outputs.at("image"), outputs.at("link"));
    fs::copy(tests::guest(), &image).expect("room for an image");
    std::os::unix::fs::symlink("image", &link).expect("a link");
    let before = fs::read(&image).expect("an image");
    let (first, image) = (tests::guest(), image.display().to_string());
    let first = format!("boot(#{{ guest: \"{}\" }});", first.display());
    let boot = format!("boot(#{{ guest: \"{image}\" }});");
    for options in [
        "--report",
        "--trace",
        "--stats json --stats-file",
        "--stats junit --stats-file",
    ] {
        for (script, status) in [
            (boot.clone(), 2),
            (format!("{first} {boot}"), 2),
            (format!("try {{ {boot} }} catch {{}} {first}"), 3),
        ] {
            let run = Vmm::with(options).arg(&link).script(&script).run();
            run.ends_with(status);
            assert!(
                fs::read(&image).is_ok_and(|it| it == before),
                "{options}: {script}: {run}"
            );
            assert_eq!(outputs.names(), ["image", "link"], "{run}");
            if status == 2 {
                run.says(&format!("{image}, which the script boots, would be lost: "))
                    .says(&format!("{} is to be written", link.display()));
            } else {
                run.says("the script boots what is there");
            }
            if script == boot {
                assert!(!run.stdout.contains("CPUs up"), "{run}");
                run.says(":1:1: ");
            }
        }
    }
    // What the script does not boot is no image of it.
    let json = ["--stats", "json", "--stats-file"];
    let run = Vmm::new().args(json).arg(&link).script(&first).run();
    run.ends_with(0);
    let report: Result<Value, _> = serde_json::from_str(&outputs.text("image"));
    assert!(report.is_ok(), "{run}");
}

/// Not after the run. A name that is as long as it may be is none: temporary files beside it have
/// names of their own.
#[test]
fn a_name_that_no_file_can_have_is_refused_at_the_start() {
    need_kvm();
    let outputs = Outputs::new(&[]);
    // NAME_MAX
    let (long, longer) = ("a".repeat(255), "a".repeat(256));
    for options in ["--report", "--trace", "--stats json --stats-file"] {
        let boot = |name: &str| {
            let vmm = Vmm::with(options).arg(outputs.at(name));
            vmm.arg(tests::guest()).run()
        };
        let run = boot(&longer);
        run.ends_with(2).complains_of("File name too long");
        assert!(outputs.names().is_empty(), "{run}");
        let run = boot(&long);
        run.ends_with(0);
        assert_eq!(outputs.names(), [&*long], "{run}");
        fs::remove_file(outputs.at(&long)).expect("it was written");
    }
}

/// Waits until the guest runs.
fn started(vmm: Vmm) -> Running {
    let running = vmm.args(["--append", "calls=1000000000"]).start();
    running.wait_for("CPUs up");
    running
}

fn temporary(outputs: &Outputs) -> usize {
    let names = outputs.names();
    let is_temporary = |it: &&String| it.starts_with(".vmm-") && it.ends_with(".tmp");
    names.iter().filter(is_temporary).count()
}

#[test]
fn what_a_killed_run_leaves_is_removed_by_the_next_and_nothing_of_one_that_lives() {
    need_kvm();
    let outputs = Outputs::new(&OF_A_RUN);
    let killed = started(run_to(&outputs));
    killed.signal(libc::SIGKILL);
    killed.finish().ends_with(128 + libc::SIGKILL);
    assert_eq!(temporary(&outputs), OF_A_RUN.len());
    for name in OF_A_RUN {
        assert_eq!(outputs.text(name), EARLIER);
    }
    // Another that lives, and writes other files into the same folder.
    let living = Vmm::boot("--vcpus 2 --stats json").arg("--stats-file");
    let living = started(living.arg(outputs.at("living")));
    assert_eq!(temporary(&outputs), 1, "{:?}", outputs.names());
    let next = run_to(&outputs).script("this is no script").run();
    next.ends_with(2);
    assert_eq!(temporary(&outputs), 1, "{next}");
    living.signal(libc::SIGINT);
    living.finish().ends_with(128 + libc::SIGINT);
    let living: Value = serde_json::from_str(&outputs.text("living")).expect("a whole report");
    assert_eq!(living["result"], "interrupted");
    assert_eq!(temporary(&outputs), 0);
}

#[test]
fn a_closed_terminal_is_no_kill() {
    need_kvm();
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let outputs = Outputs::new(&OF_A_RUN);
        let socket = outputs.at("control");
        let vmm = run_to(&outputs).arg("--control").arg(&socket);
        let running = started(vmm.ignoring_hangups(false));
        assert!(socket.exists());
        running.signal(signal);
        let run = running.finish();
        run.ends_with(128 + signal).says("interrupted");
        assert_eq!(outputs.names(), OF_A_RUN, "{run}");
        for name in ["stats-file", "trace"] {
            let document: Value = serde_json::from_str(&outputs.text(name)).expect("JSON");
            assert!(document.is_object(), "{name}: {run}");
        }
        assert!(outputs.text("report").ends_with("</html>\n"), "{run}");
    }
}

/// The command with a limit on the size of files, in blocks of 512 bytes: as on a full disk, and
/// only for files.
fn with_little_room(blocks: u32) -> Vmm {
    let mut shell = Command::new("sh");
    let limited = format!("ulimit -f {blocks}; exec \"$@\"");
    shell.args(["-c", &limited, "sh"]).arg(tests::vmm());
    Vmm::from(shell)
}

#[test]
fn a_full_disk_is_a_status_and_loses_nothing_that_was_known() {
    need_kvm();
    let outputs = Outputs::new(&["file"]);
    let file = outputs.at("file");
    for arguments in [
        "--vcpus 2 --stats json --stats-file",
        "--vcpus 2 --stats csv --stats-file",
        "--vcpus 2 --stats prometheus --stats-file",
        "--vcpus 2 --trace",
        "--vcpus 2 --report",
    ] {
        let run = with_little_room(1)
            .args(arguments.split_whitespace())
            .arg(&file)
            .arg(tests::guest())
            .run();
        run.ends_with(3)
            .says("cannot write")
            .says("File too large")
            .says("pass: ");
        outputs.are_the_earlier(&["file"], &run);
    }
    const BENCH: &str =
        "bench --rounds 8 --runs 1 --by ipi --to one --receiver halted --transport x2apic --json";
    let words = BENCH.split_whitespace();
    let bench = with_little_room(1)
        .args(words.clone())
        .arg(&file)
        .arg(tests::guest())
        .run();
    bench.ends_with(3).says("cannot write").says("exits/IPI");
    outputs.are_the_earlier(&["file"], &bench);
    let bench = Vmm::new()
        .args(words)
        .arg("/dev/full")
        .arg(tests::guest())
        .run();
    bench.ends_with(3).says("cannot write").says("exits/IPI");
}

#[test]
fn what_cannot_be_printed_is_a_status() {
    let guest = tests::guest();
    let full = super::output::full;
    for words in [
        "probes",
        "describe",
        "describe --json",
        "schema report",
        "--help",
        "explore --help",
        "--version",
    ] {
        let mut vmm = Vmm::with(words).stdout(full());
        if words.starts_with("probes") || words.starts_with("describe") {
            vmm = vmm.arg(&guest);
        }
        vmm.run().ends_with(3).complains_of("No space left");
    }
    // Who has read enough has read what it wanted.
    for words in ["probes", "describe"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Vmm::with(words)
            .arg(&guest)
            .stdout(writer)
            .run()
            .ends_with(0);
    }
}

/// A redirected standard output stays the file that it is, with everything in its order.
#[test]
fn standard_output_by_its_name_is_written_to_where_it_stands() {
    need_kvm();
    let outputs = Outputs::new(&[]);
    for name in ["/dev/stdout", "/proc/self/fd/1"] {
        let path = outputs.at("out");
        let out = File::create(&path).expect("a file");
        let run = Vmm::boot("--vcpus 2 --stats json").arg("--stats-file");
        run.arg(name).stdout(out).run().ends_with(0);
        let text = outputs.text("out");
        let (console, document) = text.split_once("\n{").expect("a document");
        assert!(console.contains("CPUs up"), "{text}");
        let document: Value = serde_json::from_str(&format!("{{{document}")).expect("JSON");
        assert_eq!(document["result"], "pass");
        assert_eq!(outputs.names(), ["out"]);
    }
}

pub(super) fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

#[test]
fn a_pipe_stays_one_and_its_reader_gets_all() {
    need_kvm();
    let outputs = Outputs::new(&[]);
    let path = outputs.at("pipe");
    pipe(&path);
    for option in ["--stats-file", "--trace"] {
        let reader = {
            let path = path.clone();
            thread::spawn(move || {
                let mut text = String::new();
                let mut file = File::open(path).expect("a pipe");
                file.read_to_string(&mut text).expect("text");
                text
            })
        };
        let run = Vmm::boot("--vcpus 2 --stats json")
            .arg(option)
            .arg(&path)
            .run();
        run.ends_with(0);
        let text = reader.join().expect("a reader");
        let document: Result<Value, _> = serde_json::from_str(&text);
        assert!(document.is_ok(), "{option}: {text}");
    }
    assert_eq!(outputs.names(), ["pipe"]);
}
