//! `make install` into an empty folder, and what is there used from another one: the commands, the
//! images, cases and scripts that they find by themselves, the manual pages, the completions and
//! the documentation. Needs what `make build` has built.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use object::{Object, ObjectSymbol};
use tempfile::TempDir;
use tests::{Run, Vmm};

/// Bytes that an installed command may have. Of `vmm` a tenth is what unpacks kernels, and regular
/// expressions.
const MOST: u64 = 15_000_000;

/// Where it is installed below the folder that stands for the root.
const PREFIX: &str = "/usr";

/// All tests use the same, and change nothing there.
static INSTALLED: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new().expect("a temporary directory");
    make("install", folder.path());
    folder
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn make(target: &str, destination: &Path) {
    let mut make = Command::new("make");
    make.arg("-C").arg(root()).arg(target);
    make.arg(format!("PREFIX={PREFIX}"));
    make.arg(format!("DESTDIR={}", destination.display()));
    // Those of the make that runs the tests are not for this one.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let output = make.output().expect("make");
    assert!(output.status.success(), "make {target}: {}", said(&output));
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{out}{err}")
}

/// A file or folder below the prefix.
fn installed(path: &str) -> PathBuf {
    INSTALLED.path().join(&PREFIX[1..]).join(path)
}

fn text(path: &str) -> String {
    let path = installed(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs the installed `command` in an empty folder.
fn run(command: &str, arguments: &[&str], change: impl FnOnce(&mut Command, &Path)) -> Run {
    let folder = TempDir::new().expect("a temporary directory");
    let mut process = Command::new(installed("bin").join(command));
    process.args(arguments).current_dir(folder.path());
    process.env_remove("VMM_GUEST_PATH");
    change(&mut process, folder.path());
    Vmm::from(process).run()
}

fn vmm(arguments: &[&str]) -> Run {
    run("vmm", arguments, |_, _| {})
}

/// Whether no guest can run here, which is said.
fn has_no_kvm() -> bool {
    let has_none = tests::open_kvm().is_err();
    if has_none {
        tests::skip("runs of the installed command: no /dev/kvm");
    }
    has_none
}

/// The subcommands in the output of `--help`.
fn subcommands(help: &str) -> Vec<String> {
    let commands = help.split("Commands:\n").nth(1).expect("a list of them");
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

/// The long options in the output of `--help`.
fn options(help: &str) -> BTreeSet<String> {
    let words = help.split(|it: char| it.is_whitespace() || ",[]`.;()".contains(it));
    let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
    options.map(str::to_owned).collect()
}

#[test]
fn a_command_without_an_image_runs_the_installed_one() {
    if has_no_kvm() {
        return;
    }
    let run = vmm(&["--vcpus", "2", "--append", "calls=2"]);
    let image = installed("lib/ipi-lab/guest.bin").display().to_string();
    run.ends_with(0).says(&image);
    vmm(&["describe", "sum.bin"]).ends_with(0).says("sum");
    let explored = vmm(&["explore", "lost-addition.case", "sum-explore.bin"]);
    explored.ends_with(0).says("as expected: miscounted");
    let script = ["--script", "mckenney-2009.rhai", "--append", "queue=fifo"];
    vmm(&script).ends_with(0).says("pass: as expected: lost");
}

#[test]
fn a_search_and_its_replay_find_the_installed_image() {
    if has_no_kvm() {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let schedule = folder.path().join("lost.json").display().to_string();
    let search = ["explore", "lost-call.case", "--append", "queue=fifo"];
    let found = vmm(&[&search[..], &["--shorten", "0s", "--schedule", &schedule]].concat());
    found.ends_with(0).says("never ran");
    let replay = vmm(&["replay", &schedule, "--times", "3"]);
    replay.ends_with(0).says("3 of 3 replays broke");
}

#[test]
fn a_folder_of_the_variable_comes_before_what_is_installed() {
    let described = run("vmm", &["describe"], |process, folder| {
        let own = folder.join("images");
        fs::create_dir(&own).expect("an empty folder");
        fs::copy(installed("lib/ipi-lab/sum.bin"), own.join("guest.bin")).expect("a copy");
        process.env("VMM_GUEST_PATH", format!("/nonexistent:{}", own.display()));
    });
    described.ends_with(0).says("sum");
    // What is in the current folder comes before all.
    let named = run("vmm", &["describe", "guest.bin"], |_, folder| {
        let image = installed("lib/ipi-lab/litmus.bin");
        fs::copy(image, folder.join("guest.bin")).expect("a copy");
    });
    named.ends_with(0).says("litmus");
}

#[test]
fn what_is_nowhere_is_refused_with_the_places_and_a_guess() {
    let run = run("vmm", &["describe", "gest.bin"], |process, _| {
        process.env("VMM_GUEST_PATH", "/nonexistent/images");
    });
    let library = installed("lib/ipi-lab").display().to_string();
    run.ends_with(2)
        .complains_of("in the current folder")
        .complains_of("/nonexistent/images")
        .complains_of(&library)
        .complains_of("did you mean \"guest.bin\"?");
    vmm(&["explore", "lostcall.case"])
        .ends_with(2)
        .complains_of("did you mean \"lost-call.case\"?");
    vmm(&["--script", "mckenney.rhai"])
        .ends_with(2)
        .complains_of("did you mean \"mckenney-2009.rhai\"?");
}

#[test]
fn litmus_tests_run_as_installed() {
    if has_no_kvm() {
        return;
    }
    let test = installed("share/ipi-lab/litmus/SB.litmus")
        .display()
        .to_string();
    let run = run("litmus-case", &["run", &test, "--rounds", "10"], |_, _| {});
    run.ends_with(0);
}

#[test]
fn the_commands_are_small_and_still_know_their_functions() {
    for (command, function) in [("vmm", "3vmm7control"), ("litmus-case", "6litmus4herd")] {
        let path = installed("bin").join(command);
        let bytes = fs::read(&path).expect("an executable");
        let size = bytes.len() as u64;
        assert!(size < MOST, "{command} has {size} bytes");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let mut symbols = file.symbols().filter_map(|symbol| symbol.name().ok());
        assert!(symbols.any(|name| name.contains(function)), "{command}");
        assert!(file.section_by_name(".debug_info").is_none(), "{command}");
        assert!(file.section_by_name(".eh_frame").is_some(), "{command}");
    }
}

/// Of a program that is stripped as the installed commands are, which panics: `vmm` itself has no
/// panic that can be asked for.
#[test]
fn a_panic_names_functions_without_debug_information() {
    let folder = TempDir::new().expect("a temporary directory");
    let source = folder.path().join("program.rs");
    let text = "#[inline(never)] fn at_fault(n: usize) -> u8 { [1_u8, 2][n] }\n\
                fn main() { println!(\"{}\", at_fault(std::env::args().count() + 1)); }\n";
    fs::write(&source, text).expect("room");
    let [whole, program] = ["whole", "program"].map(|name| folder.path().join(name));
    let mut rustc = Command::new("rustc");
    rustc.args([
        "-O",
        "-Cdebuginfo=line-tables-only",
        "--crate-name=program",
        "-o",
    ]);
    let built = rustc.arg(&whole).arg(&source).output().expect("rustc");
    assert!(built.status.success(), "{}", said(&built));
    let mut copy = Command::new(root().join("vmm/manual/names-only"));
    let copied = copy.arg(&whole).arg(&program).output().expect("the script");
    assert!(copied.status.success(), "{}", said(&copied));
    let run = Command::new(&program).env("RUST_BACKTRACE", "1").output();
    let run = run.expect("the program");
    assert!(said(&run).contains("program::at_fault"), "{}", said(&run));
}

#[test]
fn every_subcommand_has_a_manual_page_with_its_options() {
    for command in ["vmm", "litmus-case"] {
        let help = |arguments: &[&str]| run(command, arguments, |_, _| {}).stdout;
        let top = help(&["--help"]);
        let of_top = subcommands(&top);
        assert!(of_top.len() >= 3, "{top}");
        let pages = of_top
            .iter()
            .map(|it| (format!("{command}-{it}"), help(&[it, "--help"])));
        for (name, help) in pages.chain([(command.to_owned(), top.clone())]) {
            let page = text(&format!("share/man/man1/{name}.1"));
            assert!(page.contains(&format!(".TH {name} 1")), "{page}");
            assert!(
                page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"),
                "{page}"
            );
            let shown = page.replace('\\', "");
            for option in options(&help) {
                assert!(shown.contains(&option), "{name} has no {option}: {page}");
            }
        }
        let page = text(&format!("share/man/man1/{command}.1"));
        for subcommand in of_top {
            let shown = page.replace('\\', "");
            assert!(
                shown.contains(&format!("{command}-{subcommand}(1)")),
                "{page}"
            );
        }
    }
    for hidden in ["vmm-help.1", "vmm-ctl-help.1"] {
        let page = installed("share/man/man1").join(hidden);
        assert!(!page.exists(), "{}", page.display());
    }
}

#[test]
fn shells_complete_subcommands_and_options() {
    for command in ["vmm", "litmus-case"] {
        let bash = installed("share/bash-completion/completions").join(command);
        let checked = Command::new("bash")
            .arg("-n")
            .arg(&bash)
            .output()
            .expect("bash");
        assert!(checked.status.success(), "{}", said(&checked));
        let scripts = [
            format!("share/bash-completion/completions/{command}"),
            format!("share/zsh/site-functions/_{command}"),
            format!("share/fish/vendor_completions.d/{command}.fish"),
        ];
        let top = run(command, &["--help"], |_, _| {}).stdout;
        for script in scripts {
            let text = text(&script);
            for subcommand in subcommands(&top) {
                assert!(text.contains(&subcommand), "{script}: {subcommand}");
            }
        }
        assert!(
            text(&format!("share/zsh/site-functions/_{command}"))
                .starts_with(&format!("#compdef {command}"))
        );
    }
}

/// What bash offers behind these words.
fn completed(words: &[&str]) -> Vec<String> {
    let script = installed("share/bash-completion/completions/vmm");
    let count = words.len() - 1;
    let line = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={count}; _vmm vmm '{}' '{}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" "),
        words[count],
        words[count.saturating_sub(1)],
    );
    let output = Command::new("bash").args(["--norc", "-c", &line]).output();
    let output = output.expect("bash");
    assert!(output.status.success(), "{}", said(&output));
    said(&output).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_as_the_script_says() {
    assert_eq!(completed(&["vmm", "expl"]), ["explore"]);
    assert_eq!(completed(&["vmm", "--vcp"]), ["--vcpus"]);
    assert_eq!(completed(&["vmm", "bench", "--trans"]), ["--transport"]);
    let levels = completed(&["vmm", "--log", "d"]);
    assert_eq!(levels, ["debug"]);
}

/// The targets of the links in a page.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let links = page
        .split("](")
        .skip(1)
        .filter_map(|it| it.split(')').next());
    links.filter(|link| !link.contains("://") && !link.starts_with('#'))
}

#[test]
fn the_pages_of_the_documentation_find_each_other() {
    let mut checked = 0;
    let folder = installed("share/doc/ipi-lab");
    let pages = fs::read_dir(folder.join("docs")).expect("pages");
    let pages = pages.map(|page| page.expect("a page").path());
    for page in pages.chain([folder.join("README.md")]) {
        let Ok(text) = fs::read_to_string(&page) else {
            continue;
        };
        let folder = page.parent().expect("it is in one");
        for link in links(&text) {
            let target = folder.join(link.split('#').next().expect("a path"));
            // The sources are not installed.
            if ["guest", "vmm", "shared", "tests"]
                .iter()
                .any(|it| link.starts_with(&format!("../{it}")))
            {
                continue;
            }
            assert!(target.exists(), "{}: {link}", page.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} links");
}

#[test]
fn uninstall_leaves_nothing() {
    let folder = TempDir::new().expect("a temporary directory");
    let files = || {
        let find = Command::new("find")
            .arg(folder.path())
            .args(["!", "-type", "d"])
            .output();
        said(&find.expect("find"))
    };
    make("install", folder.path());
    assert!(files().lines().count() > 50, "{}", files());
    make("uninstall", folder.path());
    assert_eq!(files(), "");
}
