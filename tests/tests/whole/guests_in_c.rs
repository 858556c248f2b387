//! Guests in C: those of `examples/c`, which docs/guests-in-c.md shows, and one with an access of every kind. A
//! search has to see each access, and a C file of which it would not is refused when it is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::{Run, Vmm, guest, need_kvm, other_image, skip};

use super::documented::repository;
use super::explore::{COMPLETE, Workspace};

/// The name of a case of `examples/c`, and the case.
macro_rules! case {
    ($name:literal) => {
        include_str!(concat!("../../../examples/c/", $name, ".case"))
    };
}

/// Whether there is a C compiler, without which `make` builds no guests in C.
fn has_compiler() -> bool {
    Command::new("cc").arg("--version").output().is_ok()
}

/// An image of a guest in C, if there can be one.
pub(super) fn image(name: &str) -> Option<PathBuf> {
    if !guest().with_file_name(name).is_file() && !has_compiler() {
        skip(&format!(
            "{name}: no C compiler; Debian has one in the package gcc"
        ));
        return None;
    }
    Some(other_image(name))
}

/// What a search of `case` says, with these options.
fn search(guest: &str, case: &str, options: &str) -> Option<Run> {
    need_kvm();
    let image = image(&format!("{guest}-explore.bin"))?;
    Some(Workspace::with(case).explore_on(&image, options).run())
}

fn finds(guest: &str, case: &str, options: &str, what: &str) {
    if let Some(run) = search(guest, case, options) {
        run.ends_with(0).says(&format!("as expected: {what}"));
    }
}

fn completes(guest: &str, case: &str, options: &str) {
    if let Some(run) = search(guest, case, options) {
        run.ends_with(0).says(COMPLETE);
    }
}

#[test]
fn a_ticket_lock_excludes_unless_two_draw_one_number() {
    completes("ticket", case!("ticket"), "");
    completes("ticket", case!("ticket"), "--strategy exhaustive");
    completes("ticket", "cpus 2\n0: add 1; add 2\n1: add 3", "");
    // By the reference, which leaves nothing out.
    completes("ticket", case!("ticket"), "--strategy reference");
    let broken = "--append draw=in-two-steps --keep-going --shorten 1s";
    if let Some(run) = search("ticket", case!("ticket"), broken) {
        run.ends_with(0)
            .says("in some order each: hang, miscounted, not-alone")
            .says("the guest let two CPUs have the lock at once");
    }
}

#[test]
fn a_treiber_stack_gives_a_node_to_two_by_aba_and_not_with_a_count() {
    completes("treiber", case!("treiber"), "--strategy races");
    completes("treiber", case!("treiber"), "--strategy exhaustive");
    finds(
        "treiber",
        case!("treiber"),
        "--append top=naive",
        "held-twice",
    );
    completes("treiber", "cpus 2\n0: pop\n1: pop", "--strategy reference");
}

#[test]
fn a_seqlock_without_its_barrier_is_complete_on_x86_and_found_without_its_second_look() {
    completes("seqlock", case!("seqlock"), "--strategy races");
    completes(
        "seqlock",
        case!("seqlock"),
        "--append reader=no-barrier --strategy exhaustive",
    );
    finds("seqlock", case!("seqlock"), "--append reader=once", "torn");
}

#[test]
fn an_rcu_reader_needs_its_barrier_where_stores_wait_in_buffers() {
    completes("rcu", case!("rcu"), "--strategy races");
    completes("rcu", case!("rcu"), "--strategy exhaustive");
    finds("rcu", case!("rcu"), "--append wait=no", "use-after-free");
    finds(
        "rcu",
        case!("rcu"),
        "--append reader=no-barrier",
        "use-after-free",
    );
    if let Some(run) = search(
        "rcu",
        case!("rcu"),
        "--append reader=no-barrier --memory sc",
    ) {
        run.ends_with(1).says("complete (sequentially consistent");
    }
}

#[test]
fn guests_in_c_run_on_machines_of_any_size() {
    need_kvm();
    for (name, deeds) in [
        ("ticket", &["add(1)", "add(2)"][..]),
        ("treiber", &["pop()", "push()"]),
        ("seqlock", &["write(3)", "read()"]),
        ("rcu", &["update(4)", "read()"]),
        ("c-parts", &["bump_guarded()", "say()"]),
    ] {
        let Some(image) = image(&format!("{name}.bin")) else {
            return;
        };
        let each = |deed: &str| {
            format!(
                "let told = []; for n in 0..cpus() {{ told.push(cpu(n).{deed}); }}\n\
                 for one in told {{ one.wait_done(); }}\n"
            )
        };
        let round: String = deeds.iter().map(|deed| each(deed)).collect();
        let script = format!("for round in 0..5 {{\n{round}}}");
        for vcpus in [2, 16] {
            let run = Vmm::with(&format!("--vcpus {vcpus}")).script(&script);
            run.arg(&image).run().ends_with(0).says("pass");
        }
    }
}

#[test]
fn what_a_guest_in_c_says_of_itself_counts_and_prints() {
    need_kvm();
    let Some(image) = image("c-parts.bin") else {
        return;
    };
    let run = Vmm::with("describe").arg(&image).run();
    run.ends_with(0)
        .says("parts 1: One of everything that a guest in C can have")
        .says("calls_taken")
        .says("lost-update")
        .says("call CPU")
        .says("none (broken)");
    let script = r#"
        cpu(0).hold_at("parts.say");
        let said = cpu(0).say();
        cpu(0).wait_held();
        cpu(0).resume();
        said.wait_done();
        let called = cpu(0).tell("call 1");
        called.wait_done();
        expect_eq(cpu(1).counters().calls_taken, 1, "calls");
    "#;
    let run = Vmm::with("--vcpus 2").script(script).arg(&image).run();
    run.ends_with(0)
        .says("[cpu 0] constructed 7 (0x7)\n[cpu 0] said")
        .says("pass: 1 call, each exactly once");
    let run = Vmm::with("--append sends=some --vcpus 1").arg(&image).run();
    run.ends_with(2)
        .says("sends=some is unknown; sends= takes one of all none");
}

/// A search of the guest with an access of every kind.
fn parts(deeds: &str, expected: &str) {
    let case = format!("cpus 2\n{deeds}\nexpect {expected}");
    // With this seed the first random run does not spin for ever before the flag is raised.
    match expected {
        "clean" => completes("c-parts", &case, "--seed 4"),
        what => finds("c-parts", &case, "--seed 4", what),
    }
}

#[test]
fn no_access_goes_unseen_however_the_source_makes_it() {
    parts("0: bump-plain\n1: bump-plain", "lost-update");
    parts("0: bump-volatile\n1: bump-volatile", "lost-update");
    parts("0: bump-guarded\n1: bump-guarded", "clean");
    // A word is written in halves, and read as a whole.
    parts("0: write-halves 1\n1: read-whole", "torn");
    parts("0: write-whole 1\n1: read-whole", "clean");
    // memcpy() is a loop of accesses.
    parts("0: write-four 1\n1: copy-four", "torn");
    parts("0: write-four 1\n1: write-four 2", "clean");
    // A loop that nobody has announced ends if somebody sets what it waits for.
    parts("0: raise\n1: spin", "clean");
    // The handler of a call interrupts what its CPU does.
    parts("0: call 1\n1: say", "clean");
    parts("0: call 1\n1: bump-plain", "lost-update");
}

/// What a search says of the data races of the guest with an access of every kind.
fn races(deeds: &str, options: &str, says: &str) {
    let case = format!("cpus 2\n{deeds}");
    let options = format!("--data-races report --shorten 1s {options}");
    if let Some(run) = search("c-parts", &case, &options) {
        run.ends_with(0).says(says);
    }
}

const NO_RACE: &str = "breaks anything; no data race\n";

#[test]
fn two_accesses_at_once_race_if_one_of_them_is_plain() {
    let of_look = "races      data-race in 2 turns with 1 changes of the CPU (from 2 turns): load at \
                   guest-in-c/parts.c:";
    races("0: bump-plain\n1: peek", "", of_look);
    races("0: bump-plain\n1: say", "", NO_RACE);
    races("0: bump-guarded\n1: bump-guarded", "", NO_RACE);
    races("0: bump-intended\n1: bump-intended", "", NO_RACE);
    races("0: bump-intended\n1: publish", "", NO_RACE);
    races("0: write-four 1\n1: write-four 2", "", "data race\n");
    // The order is that of a release and an acquire.
    races("0: publish\n1: take", "", NO_RACE);
    races("0: publish\n1: take-early", "", "; a data race\n");
    // Only where both stores wait do both come in.
    let both = "0: enter\n1: enter";
    races(both, "--memory sc", NO_RACE);
    races(both, "", "; 2 data races\n");
    races(both, "--jobs 2", "; 2 data races\n");
    races(both, "--strategy exhaustive", "; 2 data races\n");
}

#[test]
fn a_data_race_is_a_breach_where_that_is_wanted() {
    let case = "cpus 2\n0: bump-volatile\n1: bump-volatile\nexpect lost-update";
    finds("c-parts", case, "--data-races fail", "lost-update");
    let (looks, adds) = (
        "cpus 2\n0: bump-plain\n1: peek",
        "cpus 2\n0: bump-plain\n1: bump-plain",
    );
    for (case, options, expected, says) in [
        (looks, "", "data-race", "as expected: data-race\n"),
        (
            adds,
            "--keep-going",
            "data-race, lost-update",
            "as expected, in some order each: data-race, lost-update; complete",
        ),
        (
            looks,
            "--jobs 2",
            "",
            "broken: data-race (expected: nothing to break)",
        ),
    ] {
        let expect = if expected.is_empty() { "" } else { "\nexpect " };
        let workspace = Workspace::with(&format!("{case}{expect}{expected}"));
        need_kvm();
        let Some(image) = image("c-parts-explore.bin") else {
            return;
        };
        let schedule = workspace.path("race.json");
        let options = format!(
            "--data-races fail --schedule {} {options}",
            schedule.display()
        );
        let run = workspace.explore_on(&image, &options).run();
        run.ends_with(i32::from(expected.is_empty())).says(says);
        let replay = Vmm::with("replay --times 20")
            .arg(&schedule)
            .arg(&image)
            .run();
        replay
            .ends_with(0)
            .says("and plain store at guest-in-c/parts.c:");
    }
    if let Some(run) = search("c-parts", looks, "--data-races report --strategy reference") {
        run.ends_with(2).complains_of("--data-races is for");
    }
}

/// The compiler announces the structure as a whole, and then sets it word by word.
#[test]
fn a_structure_on_the_stack_that_others_reach_is_seen_word_by_word() {
    parts("0: ask; ask\n1: answer; answer", "clean");
    if let Some(run) = search(
        "c-parts",
        "cpus 2\n0: ask; ask\n1: answer; answer",
        "--strategy exhaustive",
    ) {
        run.ends_with(0).says(COMPLETE);
    }
}

#[test]
fn a_call_that_is_not_sent_is_lost() {
    let case = "cpus 2\n0: call 1\n1: say\nexpect hang";
    finds("c-parts", case, "--append sends=none", "hang, lost");
}

#[test]
fn a_copy_as_a_whole_of_what_others_access_is_refused_and_no_other() {
    for (deeds, place) in [
        ("0: write-four 1\n1: assign-four", "parts.c:10"),
        ("0: assign-one\n1: assign-one", "parts.c:1"),
    ] {
        let case = format!("cpus 2\n{deeds}");
        for options in ["", "--strategy exhaustive", "--strategy random"] {
            if let Some(run) = search("c-parts", &case, options) {
                run.ends_with(2)
                    .complains_of("copies memory as a whole")
                    .complains_of(place);
            }
        }
    }
    parts("0: write-four 1; assign-four\n1: say", "clean");
    parts("0: assign-one\n1: say", "clean");
}

/// Builds a guest of the C file with this text, in `directory`, if that can be done here, with this
/// compiler, behind which can stand options. Returns what was said, and the status.
fn build_in(directory: &Path, text: &str, compiler: &str) -> Option<(i32, String)> {
    let root = repository().filter(|root| root.join("guest/ckit/build").is_file());
    let Some(root) = root.filter(|_| has_compiler()) else {
        skip("building guests in C: the repository is not here, or there is no C compiler");
        return None;
    };
    let file = directory.join("a.c");
    fs::write(&file, text).expect("room for a C file");
    let (compiler, flags) = compiler.split_once(' ').unwrap_or((compiler, ""));
    let output = Command::new(root.join("guest/ckit/build"))
        .arg("-o")
        .arg(directory.join("a"))
        .arg(&file)
        .env("CC", compiler)
        .env("CFLAGS", flags)
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output.status.code().unwrap_or(-1), said))
}

/// There are 72 places of races, and one order that breaks something.
#[test]
fn races_displace_no_breach_and_those_of_a_cpu_that_is_started_anew_count() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let text = include_str!("../../c/racing.c");
    let Some((status, said)) = build_in(directory.path(), text, "cc") else {
        return;
    };
    assert_eq!(status, 0, "{said}");
    let image = directory.path().join("a-explore.bin");
    let search = |case: &str, options: &str| {
        let options = format!("--memory sc --shorten 0s {options}");
        Workspace::with(case).explore_on(&image, &options).run()
    };
    let many = "cpus 2\n0: write\n1: read";
    for strategy in ["races", "exhaustive"] {
        let options = format!("--data-races report --keep-going --strategy {strategy}");
        search(many, &options)
            .ends_with(1)
            .says("bad")
            .says("; 64 data races, and more kinds than there is room for\n");
    }
    search(
        &format!("{many}\nexpect data-race"),
        "--data-races fail --keep-going",
    )
    .ends_with(1);
    search("cpus 2\n0: restart\n1: add", "--data-races report")
        .ends_with(0)
        .says("data races\n");
}

/// Compilers announce the write of a bit-field as one access.
#[test]
fn a_bit_field_is_read_and_written_back_and_a_byte_of_it_is_not() {
    need_kvm();
    let text = r#"
        #include "lab.h"
        LAB_GUEST("a", "1", "Bits");
        LAB_ORACLE(LOST, 1, "lost-bits", "lost what was written to some bits");
        static struct { unsigned a : 3, b : 5, c : 8; } bits;
        LAB_DEED(a, 1, "a", "Writes a.") { bits.a = 5; return 0; }
        LAB_DEED(b, 2, "b", "Writes b.") { bits.b = 9; return 0; }
        LAB_DEED(c, 3, "c", "Writes c, which has a byte of its own.") { bits.c = 7; return 0; }
        LAB_DEED(set, 4, "set", "Sets one bit of b.") { bits.b |= 1; return 0; }
        LAB_JUDGE(judge) { if (bits.a != 5 || !(bits.b || bits.c)) lab_report(LOST, 0, 0); }"#;
    let directory = TempDir::new().expect("a temporary directory");
    let Some((status, said)) = build_in(directory.path(), text, "cc") else {
        return;
    };
    assert_eq!(status, 0, "{said}");
    let image = directory.path().join("a-explore.bin");
    for (deeds, options, says) in [
        (
            "0: a\n1: b\nexpect lost-bits",
            "--memory sc",
            "as expected: lost-bits",
        ),
        (
            "0: a\n1: set\nexpect lost-bits",
            "--memory sc",
            "as expected: lost-bits",
        ),
        ("0: a\n1: c", "--memory tso", "no order of steps"),
    ] {
        let case = format!("cpus 2\n{deeds}");
        let run = Workspace::with(&case).explore_on(&image, options).run();
        run.ends_with(0).says(says);
    }
}

/// What is said of such a file that cannot be built.
fn build(text: &str, compiler: &str) -> Option<(i32, String)> {
    let directory = TempDir::new().expect("a temporary directory");
    let text = format!("#include \"lab.h\"\n{text}\n");
    let said = build_in(directory.path(), &text, compiler);
    assert!(!directory.path().join("a-explore.bin").exists());
    said
}

#[test]
fn the_page_begins_with_a_file_whose_bug_is_found() {
    need_kvm();
    let page = include_str!("../../../docs/guests-in-c.md");
    let block = |mark: &str| {
        let from = page.split_once(mark).expect("a block of the page").1;
        from.split_once("```").expect("its end").0
    };
    let (file, case) = (block("```c\n"), block("and not when:\n\n```\n"));
    for (text, verdict) in [
        (file.to_owned(), "as expected: lost-update"),
        (
            file.replace("static unsigned count;", "static _Atomic unsigned count;"),
            COMPLETE,
        ),
    ] {
        let directory = TempDir::new().expect("a temporary directory");
        let Some((status, said)) = build_in(directory.path(), &text, "cc") else {
            return;
        };
        assert_eq!(status, 0, "{said}");
        let image = directory.path().join("a-explore.bin");
        let run = Workspace::with(case).explore_on(&image, "").run();
        run.says(verdict);
    }
}

#[test]
fn ordinary_c_becomes_a_guest_however_it_is_optimised() {
    for optimised in ["-O0", "-O2", "-O3"] {
        let directory = TempDir::new().expect("a temporary directory");
        let text = include_str!("../../c/ordinary.c");
        let compiler = format!("cc {optimised}");
        let Some((status, said)) = build_in(directory.path(), text, &compiler) else {
            return;
        };
        assert_eq!(status, 0, "{optimised}: {said}");
    }
}

#[test]
fn a_c_file_that_cannot_become_a_guest_is_refused_with_the_reason() {
    const DEED: &str = "LAB_GUEST(\"a\", \"1\", \"A\");\nLAB_DEED(d, 1, \"d\", \"D.\")";
    for (status, text, reason) in [
        (1, "int x = ;".to_owned(), "a.c:2"),
        (
            1,
            format!(
                "struct s {{ long a, b, c; }} s;\nlong f(struct s);\n{DEED} {{ return f(s); }}"
            ),
            "/guest-in-c/a.c:5: an access to memory that the compiler has not announced",
        ),
        (
            1,
            format!(
                "struct s {{ long a, b; }} s;\nstruct s f(void);\n{DEED} {{ s = f(); return 0; }}"
            ),
            "that the compiler has not announced",
        ),
        // Also behind a jump, and where a register has another address than of the stack.
        (
            1,
            format!(
                "struct s {{ long a, b; }} s[9];\nstruct s f(long *);\n\
                 {DEED} {{ long m[9] = {{0}}; for (int i = 0; i < 9; i++) if (m[i] % 2 == 0) s[i] = f(m); return 0; }}"
            ),
            "that the compiler has not announced",
        ),
        // Behind a structure that is copied, whose hooks are good for that copy only.
        (
            1,
            format!(
                "struct s {{ long a, b, c; }} s[3];\n__attribute__((noipa)) long f(struct s s) {{ return s.a; }}\n\
                 __attribute__((noipa)) long g(struct s *to, struct s *from, struct s *q) {{ *to = *from; return f(*q); }}\n\
                 {DEED} {{ return g(s, s + 1, s + 2); }}"
            ),
            "that the compiler has not announced",
        ),
        // In another section, without hooks.
        (
            1,
            format!(
                "int x;\n__attribute__((section(\".noinstr.text\"), no_sanitize_thread, noinline)) void f(void) {{ x++; }}\n\
                 {DEED} {{ f(); return 0; }}"
            ),
            "that the compiler has not announced",
        ),
        (
            1,
            format!("int x;\n{DEED} {{ asm volatile(\"incl %0\" : \"+m\"(x)); return 0; }}"),
            "inline assembly accesses x(%rip), which a search cannot see",
        ),
        (
            1,
            format!("__int128 x;\n{DEED} {{ return __atomic_load_n(&x, 5) != 0; }}"),
            "atomics of 16 bytes",
        ),
        (
            1,
            format!("void __tsan_made_up(void);\n{DEED} {{ __tsan_made_up(); return 0; }}"),
            "the compiler calls hooks that the C kit does not have: __tsan_made_up",
        ),
        (
            1,
            format!("char *strdup(const char *);\n{DEED} {{ return *strdup(\"a\"); }}"),
            "nothing defines strdup : a guest has no C library",
        ),
        (
            1,
            format!("__thread int x;\n{DEED} {{ return x++; }}"),
            "LAB_PER_CPU",
        ),
    ] {
        let Some((ended, said)) = build(&text, "cc") else {
            return;
        };
        assert!(
            ended == status && said.contains(reason),
            "{text}\n{ended}: {said}"
        );
    }
    if let Some((ended, said)) = build("", "no-such-compiler") {
        assert!(
            ended == 3 && said.contains("there is no no-such-compiler; Debian"),
            "{said}"
        );
    }
}
