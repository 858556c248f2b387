//! The blocks of README.md and of docs/ that a reader would paste: each is run as it is written, in
//! the order of its page, in a scratch directory that has what the root of the repository has once
//! everything is built. A block that is not run says why, in a comment before it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::{guest, need_kvm, skip, vmm};
use wait_timeout::ChildExt;

/// How long one block may take.
const LIMIT: Duration = Duration::from_secs(900);

/// How long what a block has started may take to end after it.
const SOON: Duration = Duration::from_secs(30);

/// The first words of lines that are to be typed into a shell.
const COMMANDS: [&str; 8] = [
    "vmm",
    "make",
    "litmus-case",
    "target/release/vmm",
    "target/release/litmus-case",
    "guest/build",
    "scenarios/control.py",
    "python3",
];

/// The guests of `examples/c`, which are built where there is a C compiler.
const C_GUESTS: [&str; 4] = ["ticket", "treiber", "seqlock", "rcu"];

/// Before a block that is not run.
const MARK: (&str, &str) = ("<!-- not run: ", " -->");

/// The repository, if it is where it was when this was built.
pub(super) fn repository() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("docs").is_dir().then(|| root.to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Shell,
    Python,
}

/// A block that is to be run.
#[derive(Debug)]
struct Block {
    line: usize,
    language: Language,
    text: String,
    /// Why it is not run.
    not_run: Option<String>,
}

/// The blocks of a page that are to be run.
///
/// # Panics
/// If one is not marked as one, or a mark stands before something else.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut not_run = None;
    while let Some((index, line)) = lines.next() {
        let line_number = index + 1;
        let reason = line.strip_prefix(MARK.0);
        if let Some(reason) = reason.and_then(|reason| reason.strip_suffix(MARK.1)) {
            not_run = Some(reason.to_owned());
            continue;
        }
        let Some(kind) = line.strip_prefix("```") else {
            assert!(
                not_run.is_none(),
                "{page}:{line_number}: a mark before nothing"
            );
            continue;
        };
        let inside: Vec<_> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        let language = match kind {
            "sh" => Language::Shell,
            "python" => Language::Python,
            _ => {
                let first = inside.first().copied().unwrap_or_default();
                let word = first.split(' ').next().unwrap_or_default();
                assert!(
                    !COMMANDS.contains(&word) && not_run.is_none(),
                    "{page}:{line_number}: looks like a block for a shell, and is not marked as \
                     one: ```sh"
                );
                continue;
            }
        };
        blocks.push(Block {
            line: line_number,
            language,
            text: inside.join("\n") + "\n",
            not_run: not_run.take(),
        });
    }
    blocks
}

/// A directory that looks like the root of the repository after `make`.
struct Scratch {
    directory: TempDir,
    /// What `PATH` begins with.
    programs: PathBuf,
}

impl Scratch {
    fn new(repository: &Path) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let programs = directory.path().join("target/release");
        fs::create_dir_all(&programs).expect("room for directories");
        let link = |from: PathBuf, to: PathBuf| {
            let from = fs::canonicalize(&from)
                .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            symlink(from, &to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
        };
        link(vmm(), programs.join("vmm"));
        link(tests::litmus_case(), programs.join("litmus-case"));
        for image in ["guest", "litmus", "sum"] {
            for name in [format!("{image}.bin"), format!("{image}-explore.bin")] {
                let name = name.replace("guest-explore", "explore");
                let place = directory.path().join("target").join(&name);
                link(guest().with_file_name(name), place);
            }
        }
        for name in C_GUESTS.map(|name| format!("{name}-explore.bin")) {
            let image = guest().with_file_name(&name);
            if image.is_file() {
                link(image, directory.path().join("target").join(&name));
            }
        }
        for folder in ["scenarios", "examples"] {
            link(repository.join(folder), directory.path().join(folder));
        }
        Self {
            directory,
            programs,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a block, and checks that it succeeds and leaves no process behind.
    fn run(&self, place: &str, block: &Block) {
        let (interpreter, name) = match block.language {
            Language::Shell => ("sh -e", "block.sh"),
            Language::Python => ("python3", "block.py"),
        };
        fs::write(self.file(name), &block.text).expect("room for a block");
        // Files, not pipes: a process that is left behind would keep a pipe open.
        let said = self.file("said");
        let output = File::create(&said).expect("room for output");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.programs.clone()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {interpreter} {name}")])
            .current_dir(self.directory.path())
            .env("PATH", std::env::join_paths(path).expect("a path"))
            .env("PYTHONPATH", "scenarios")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the same file"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("a shell");
        let group = Group(libc::pid_t::try_from(child.id()).expect("a process id"));
        let status = child.wait_timeout(LIMIT).expect("a child to wait for");
        if status.is_none() {
            group.kill();
            let _ = child.wait();
        }
        let heard = || fs::read(&said).map(|said| String::from_utf8_lossy(&said).into_owned());
        let heard = || heard().unwrap_or_default();
        let status = status.unwrap_or_else(|| panic!("{place} did not end: {}", heard()));
        let deadline = Instant::now() + SOON;
        while group.has_processes() {
            if Instant::now() > deadline {
                group.kill();
                panic!("{place} leaves processes behind: {}", heard());
            }
            thread::yield_now();
        }
        assert!(
            status.success(),
            "{place} ended with {status}: {}\n{}",
            block.text,
            heard()
        );
    }
}

/// A group of processes.
struct Group(libc::pid_t);

impl Group {
    fn has_processes(&self) -> bool {
        // SAFETY: sends no signal, and asks only whether one could be sent.
        unsafe { libc::kill(-self.0, 0) == 0 }
    }

    fn kill(&self) {
        // SAFETY: the group was made for a child of this process, and some of it is alive, so that
        // its number means no other.
        unsafe { libc::kill(-self.0, libc::SIGKILL) };
    }
}

/// Whether there is a Python to run blocks with.
fn has_python() -> bool {
    let mut python = Command::new("python3");
    let python = python.args(["-c", "pass"]).stdout(Stdio::null());
    python
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
}

/// Runs all blocks of a page, and says which were not run and why.
fn follow(page: &str) {
    let Some(repository) = repository() else {
        return skip(&format!("{page}: the repository is not here"));
    };
    let text = fs::read_to_string(repository.join(page)).expect("a page");
    let blocks = blocks(page, &text);
    let (not_run, run): (Vec<_>, Vec<_>) = blocks.iter().partition(|it| it.not_run.is_some());
    let mut said = format!("{page}: {} blocks are run", run.len());
    for block in &not_run {
        let why = block.not_run.as_deref().unwrap_or_default();
        said.push_str(&format!("; that of line {} is not: {why}", block.line));
    }
    // Past the test harness, which hides the output of tests that pass.
    let _ = writeln!(io::stderr(), "{said}");
    if run.is_empty() {
        return;
    }
    need_kvm();
    let has_guests_in_c = guest().with_file_name("ticket-explore.bin").is_file();
    if !has_guests_in_c && run.iter().any(|it| it.text.contains("examples/c/")) {
        return skip(&format!(
            "{page}: no guests in C, for which make needs a C compiler"
        ));
    }
    let scratch = Scratch::new(&repository);
    for block in run {
        let place = format!("{page}:{}", block.line);
        if block.language == Language::Python && !has_python() {
            skip(&format!("{place}: no python3"));
            continue;
        }
        scratch.run(&place, block);
    }
}

/// A test for each page, and the list of them.
macro_rules! pages {
    ($($test:ident $page:literal)*) => {
        $(
            #[test]
            fn $test() {
                follow($page);
            }
        )*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    readme "README.md"
    contributing "CONTRIBUTING.md"
    contents "docs/README.md"
    architecture "docs/architecture.md"
    control_socket "docs/control-socket.md"
    costs "docs/costs.md"
    designs "docs/designs.md"
    exploration "docs/exploration.md"
    formats "docs/formats.md"
    guests_in_c "docs/guests-in-c.md"
    library "docs/library.md"
    litmus "docs/litmus.md"
    lost_call "docs/lost-call.md"
    manifest "docs/manifest.md"
    probes "docs/probes.md"
    reports "docs/reports.md"
    running "docs/running.md"
    scenarios "docs/scenarios.md"
    security "docs/security.md"
    testing "docs/testing.md"
    traces "docs/traces.md"
    writing_a_guest "docs/writing-a-guest.md"
}

/// Pages that have no test of their own above.
#[test]
fn every_other_page() {
    let Some(repository) = repository() else {
        return skip("other pages: the repository is not here");
    };
    let found = fs::read_dir(repository.join("docs")).expect("the documentation");
    let found = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let found = found.filter(|name| name.ends_with(".md"));
    let found: BTreeSet<_> = found.map(|name| format!("docs/{name}")).collect();
    for page in PAGES.iter().filter(|page| page.starts_with("docs/")) {
        assert!(found.contains(*page), "{page} is not there");
    }
    let others = found.iter().filter(|page| !PAGES.contains(&&***page));
    others.for_each(|page| follow(page));
}

#[test]
fn a_block_is_run_unless_it_says_why_not() {
    let found = blocks(
        "page",
        "text\n```sh\nvmm a\nvmm b\n```\n<!-- not run: hours -->\n```sh\nvmm c\n```\n```\nsaid\n```\n",
    );
    let seen: Vec<_> = found
        .iter()
        .map(|it| (it.line, &*it.text, it.not_run.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [(2, "vmm a\nvmm b\n", None), (7, "vmm c\n", Some("hours"))]
    );
    for wrong in [
        "```\nvmm --help\n```\n",
        "<!-- not run: hours -->\ntext\n",
        "<!-- not run: hours -->\n```\nsaid\n```\n",
    ] {
        let complaint = std::panic::catch_unwind(|| blocks("page", wrong));
        assert!(complaint.is_err(), "{wrong}");
    }
}
