//! The second guest, as a user of litmus tests sees it: a search gives the known verdicts, a run of
//! many rounds ends with a table that adds up, herdtools' files can be read, and errors are named.
//!
//! The VMM knows this guest only by its manifest, so this also tests the interface between them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use litmus::condition::Condition;
use litmus::interleavings::{Model, outcomes};
use litmus::program::Variable;
use litmus::test::{Claim, Quantifier, Test, parse_places};
use litmus::{case, herd, program};
use tests::{Run, Vmm, litmus_case, need_kvm, other_image};

use super::explore::{COMPLETE_SC, Workspace};

const SB: &str = "cpus 2\n0: store x 1; load y\n1: store y 1; load x\n";

/// The file of this name that is shipped.
macro_rules! shipped {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../../scenarios/litmus/", $name)))),+]
    };
}

const FILES: &[(&str, &str)] = shipped! {
    "2+2W+mfences.litmus" "2+2W.litmus" "3.2W.litmus" "3.LB.litmus" "3.SB+mfences.litmus"
    "3.SB.litmus" "CoRR.litmus" "CoRR2.litmus" "CoRW1.litmus" "CoRW2.litmus" "CoWR.litmus"
    "CoWW.litmus" "IRIW+xchgs.litmus" "IRIW.litmus" "ISA2.litmus" "LB+mfences.litmus" "LB.litmus"
    "MP+mfences.litmus" "MP.litmus" "R+mfence+po.litmus" "R+mfences.litmus" "R+po+mfence.litmus"
    "R.litmus" "RWC+po+mfence.litmus" "RWC.litmus" "S+mfences.litmus" "S.litmus"
    "SB+mfence+po.litmus" "SB+mfence+rfi.litmus" "SB+mfences.litmus" "SB+rfi-mfences.litmus"
    "SB+rfi.litmus" "SB+xadds.litmus" "SB+xchg+po.litmus" "SB+xchgs.litmus" "SB.litmus"
    "W+RWC+po+po+mfence.litmus" "W+RWC.litmus" "WRC.litmus" "WRR+2W.litmus" "WRW+2W.litmus"
    "WRW+WR.litmus" "WWC.litmus" "Z6.0.litmus" "Z6.1.litmus" "Z6.2.litmus" "Z6.3.litmus"
    "Z6.4.litmus" "Z6.5.litmus" "amd3.litmus" "inc+inc.litmus" "iwp2.3.b.litmus" "iwp2.8.b.litmus"
    "n5.litmus" "n6.litmus" "n7.litmus" "xadd+xadd.litmus"
};

const CASES: &[(&str, &str)] =
    shipped! { "MP+send.case" "late-send.case" "irqs-off.case" "irqs-on.case" };

/// The best known of them.
fn store_buffering() -> &'static str {
    let (_, text) = FILES
        .iter()
        .find(|(name, _)| *name == "SB.litmus")
        .expect("it is shipped");
    text
}

fn search(case: &str) -> Run {
    search_with(case, "")
}

fn search_with(case: &str, options: &str) -> Run {
    let image = other_image("litmus-explore.bin");
    Workspace::with(case).explore_on(&image, options).run()
}

fn boot(vcpus: u32, words: &str) -> Run {
    let vcpus = vcpus.to_string();
    let run = Vmm::with("--vcpus").arg(vcpus).args(["--append", words]);
    run.arg(other_image("litmus.bin")).run()
}

/// What the guest has written to its console, without the number of the CPU in front of each line.
fn console(run: &Run) -> Vec<&str> {
    run.stdout
        .lines()
        .filter_map(|line| line.strip_prefix("[cpu 0] "))
        .collect()
}

/// How often each state was seen, according to the table.
fn counts(run: &Run) -> Vec<(u64, &str)> {
    let states = console(run).into_iter().filter(|line| line.ends_with(';'));
    states
        .map(|line| {
            let (count, state) = line.split_once('>').expect("a state behind its count");
            let count = count.trim_end_matches([':', '*']).trim();
            (count.parse().expect("a count"), state)
        })
        .collect()
}

#[test]
fn a_store_waits_while_a_load_goes_ahead_unless_memory_is_sequentially_consistent() {
    need_kvm();
    let case = format!("{SB}append never=0:r0=0&1:r0=0\n");
    let run = search_with(&format!("{case}expect clean\n"), "--memory sc");
    run.ends_with(0).says(COMPLETE_SC);
    let run = search(&format!("{case}expect forbidden\n"));
    run.ends_with(0)
        .says("as expected: forbidden")
        .says("flushes ");
}

/// `test`, with all that its CPUs read and all that it writes as places.
fn with_all_places(test: &Test) -> Test {
    let mut places = Vec::new();
    let mut programs = test.programs.clone();
    for (cpu, program) in programs.iter_mut().enumerate() {
        places.extend((0..program.loads()).map(|nth| format!("{cpu}:r{nth}")));
        // A register that is read into twice has one value at the end.
        (program.steps.iter_mut()).for_each(|step| step.register = None);
    }
    let used = Variable::ALL.into_iter().zip(test.variables());
    let used = used.filter(|(_, is_used)| *is_used);
    places.extend(used.map(|(variable, _)| variable.name().to_owned()));
    let claim = Claim {
        quantifier: Quantifier::Never,
        condition: Condition::Constant(false),
    };
    let places = parse_places(&places.join(",")).unwrap();
    Test::new("exact", programs, test.initial, claim, &places).unwrap()
}

/// Every outcome of `test` as a condition, by the model.
fn known(test: &Test, model: Model) -> Vec<String> {
    let all = outcomes(test, model).unwrap();
    let one = |outcome: &Vec<Option<i64>>| {
        let places = test.places().iter().zip(outcome);
        let values = places.map(|(place, value)| format!("{place}={}", value.unwrap()));
        values.collect::<Vec<_>>().join("&")
    };
    all.iter().map(one).collect()
}

/// The case of `test`, which is to break nothing.
fn clean(test: &Test) -> String {
    let case = case::case(test).unwrap();
    let lines = case.lines().filter(|line| !line.starts_with("expect "));
    lines
        .chain(["expect clean\n"])
        .collect::<Vec<_>>()
        .join("\n")
}

/// Holds the outcomes of a search of `test` against those that its model has: no other comes out,
/// and there are as many.
fn must_be_exact(name: &str, test: &Test, memory: &str, strategy: &str) {
    let model = match memory {
        "sc" => Model::Sequential,
        _ => Model::Tso,
    };
    let mut test = with_all_places(test);
    let known = known(&test, model);
    let claim = format!("~({})", known.join("|"));
    // A claim has no room for more: then only their number is compared.
    if known.len() * test.places().len() <= 64 {
        test.claim.condition = Condition::parse(&claim).unwrap();
    }
    let workspace = Workspace::with(&clean(&test));
    let result = workspace.path("result.json");
    let options = format!("--memory {memory} --strategy {strategy}");
    let image = other_image("litmus-explore.bin");
    let run = workspace
        .explore_on(&image, &options)
        .arg("--result")
        .arg(&result)
        .run();
    let what = format!(
        "{name}, {memory}, {strategy}, {} outcomes: {run}",
        known.len()
    );
    assert!(
        run.status() == 0 && run.stdout.contains("complete ("),
        "{what}"
    );
    let text = fs::read_to_string(&result).expect("a result");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let found = document["outcomes"].as_array().expect("outcomes");
    assert_eq!(found.len(), known.len(), "{what}");
}

/// The shipped tests whose CPUs have `steps` to do together.
fn shipped(steps: RangeInclusive<usize>) -> impl Iterator<Item = (&'static str, Test)> {
    let parsed = FILES.iter().map(|(name, text)| {
        let test = herd::parse(text).unwrap_or_else(|why| panic!("{name}: {why}"));
        (*name, test)
    });
    parsed.filter(move |(_, test)| {
        let all: usize = test.programs.iter().map(|it| it.steps.len()).sum();
        steps.contains(&all)
    })
}

/// Steps of the tests that `make test` searches.
const FEW: RangeInclusive<usize> = 0..=4;

/// And of those that only `make test-long` does.
const MANY: RangeInclusive<usize> = 5..=usize::MAX;

/// The outcomes of each, by the searches that claim to find all.
fn shipped_tests_are_exact(steps: RangeInclusive<usize>) {
    need_kvm();
    let mut tried = 0;
    for (name, test) in shipped(steps) {
        for memory in ["sc", "tso"] {
            for strategy in ["races", "exhaustive"] {
                must_be_exact(name, &test, memory, strategy);
            }
        }
        tried += 1;
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn the_shipped_tests_have_the_outcomes_of_the_literature_and_no_others() {
    shipped_tests_are_exact(FEW);
}

#[test]
#[ignore = "more of the same: make test-long"]
fn the_large_shipped_tests_have_the_outcomes_of_the_literature_and_no_others() {
    shipped_tests_are_exact(MANY);
}

/// The strategies that take longer, on the smallest of them.
#[test]
fn the_reference_and_the_default_come_to_the_same_outcomes() {
    need_kvm();
    for (name, test) in shipped(0..=2) {
        for memory in ["sc", "tso"] {
            must_be_exact(name, &test, memory, "auto");
            must_be_exact(name, &test, memory, "reference");
        }
    }
}

/// Tests drawn at random. `LITMUS_CASES` is how many, `LITMUS_SEED` which; `make reference` draws
/// more.
#[test]
fn tests_drawn_at_random_have_the_outcomes_of_the_model() {
    need_kvm();
    let number = |variable: &str, default: u64| {
        let set = std::env::var(variable).ok();
        set.map_or(default, |number| number.parse().expect(variable))
    };
    let mut random = fastrand::Rng::with_seed(number("LITMUS_SEED", 1));
    for drawn in 0..number("LITMUS_CASES", 4) {
        let text = draw(&mut random);
        let programs = program::parse(&text).unwrap();
        let claim = Claim {
            quantifier: Quantifier::Never,
            condition: Condition::Constant(false),
        };
        let test = Test::new("drawn", programs, [0; 6], claim, &[]).unwrap();
        for memory in ["sc", "tso"] {
            for strategy in ["races", "exhaustive"] {
                must_be_exact(&format!("{drawn}: {text}"), &test, memory, strategy);
            }
        }
    }
}

/// Programs for two to four CPUs, of two to four instructions each, on two or three variables.
fn draw(random: &mut fastrand::Rng) -> String {
    let cpus = random.usize(2..=4);
    let variables = &["x", "y", "z"][..random.usize(2..=3)];
    let most = if cpus == 2 { 4 } else { 3 };
    let program = |random: &mut fastrand::Rng, cpu: usize| {
        let steps: Vec<_> = (0..random.usize(2..=most))
            .map(|_| {
                let at = variables[random.usize(..variables.len())];
                let value = random.u8(1..=2);
                match random.u8(0..10) {
                    0..4 => format!("store,{at},{value}"),
                    4..8 => format!("load,{at}"),
                    8 => "fence".to_owned(),
                    _ if random.bool() => format!("xchg,{at},{value}"),
                    _ => format!("add,{at},{value}"),
                }
            })
            .collect();
        format!("{cpu}:{}", steps.join(";"))
    };
    let programs: Vec<_> = (0..cpus).map(|cpu| program(random, cpu)).collect();
    programs.join("|")
}

/// The search finds every outcome of the model with interrupts, and no other.
#[test]
fn a_search_comes_to_the_outcomes_that_the_model_has() {
    need_kvm();
    for (programs, places) in [
        ("0:store,x,1;send,1,x;store,x,2|1:load,x", "1:r0,1:h0"),
        (
            "0:irqs-off;store,y,1;load,x;irqs-on|1:store,x,1;send,0,y",
            "0:r0,0:h0",
        ),
        ("0:send,2,x;store,x,1|1:send,2,y;store,y,1|2:", "2:h0,x"),
    ] {
        let claim = Claim {
            quantifier: Quantifier::Never,
            condition: Condition::Constant(false),
        };
        let places = parse_places(places).unwrap();
        let programs = program::parse(programs).unwrap();
        let mut test = Test::new("drawn", programs, [0; 6], claim, &places).unwrap();
        for (memory, model) in [("sc", Model::Sequential), ("tso", Model::Tso)] {
            let each = known(&test, model);
            assert!(each.len() > 1, "{test:?}");
            let others = format!("~({})", each.join("|"));
            for claim in each.iter().chain([&others]) {
                test.claim.condition = Condition::parse(claim).unwrap();
                let options = format!("--memory {memory}");
                if *claim == others {
                    let run = search_with(&clean(&test), &options);
                    run.ends_with(0).says("complete (");
                } else {
                    let case = clean(&test).replace("expect clean", "expect forbidden");
                    let run = search_with(&case, &options);
                    run.ends_with(0).says("as expected: forbidden");
                }
            }
        }
    }
}

/// Whether the IPI of an x2APIC can overtake the store that it tells of: not behind a fence, and not
/// if it is sent by an xAPIC.
#[test]
fn an_interrupt_overtakes_the_message_only_on_an_x2apic_without_a_fence() {
    need_kvm();
    let (_, text) = CASES[0];
    for (words, memory, overtakes) in [
        ("apic=x2apic icr-fence=on", "tso", false),
        ("apic=x2apic icr-fence=off", "tso", true),
        ("apic=xapic icr-fence=off", "tso", false),
        ("apic=x2apic icr-fence=off", "sc", false),
    ] {
        let expected = if overtakes {
            "expect forbidden"
        } else {
            "expect clean"
        };
        let case = text.replace("expect clean", expected);
        assert!(case.contains(expected));
        let workspace = Workspace::with(&case);
        let image = other_image("litmus-explore.bin");
        let run = workspace
            .explore_on(&image, &format!("--memory {memory}"))
            .args(["--append", words])
            .run();
        assert_eq!(run.status(), 0, "{words} {memory}: {run}");
    }
}

#[test]
fn what_is_found_comes_again() {
    need_kvm();
    let workspace = Workspace::with(&format!(
        "{SB}append never=0:r0=1&1:r0=1\nexpect forbidden\n"
    ));
    let image = other_image("litmus-explore.bin");
    let found = workspace.path("found.json");
    let run = workspace
        .explore_on(&image, "")
        .arg("--schedule")
        .arg(&found)
        .run();
    run.ends_with(0)
        .says("as expected: forbidden")
        .says("came to an outcome");
    let run = Vmm::with("replay")
        .arg(&found)
        .arg(&image)
        .args(["--times", "3"])
        .run();
    run.ends_with(0).says("3 of 3 replays broke");
}

#[test]
fn handlers_read_what_was_sent_before_them() {
    need_kvm();
    for (name, case) in CASES {
        let run = search(case);
        assert_eq!(run.status(), 0, "{name}: {run}");
    }
}

#[test]
fn a_claim_of_a_register_that_is_never_read_is_found() {
    need_kvm();
    let run = search("cpus 2\nappend never=1:r0=1\n0: load x\nexpect unread\n");
    run.ends_with(0).says("as expected: unread");
}

/// Each file claims what x86 does.
#[test]
fn every_shipped_test_claims_what_x86_does() {
    for (name, test) in shipped(0..=usize::MAX) {
        let is_decided = litmus::interleavings::decides(&test, Model::Tso).unwrap();
        assert_eq!(
            is_decided,
            test.claim.quantifier == Quantifier::Exists,
            "{name}"
        );
    }
}

/// And so do the cases that are made of them.
fn cases_claim_what_x86_does(steps: RangeInclusive<usize>) {
    need_kvm();
    for (name, test) in shipped(steps) {
        let run = search(&case::case(&test).unwrap());
        assert_eq!(run.status(), 0, "{name}: {run}");
    }
}

#[test]
fn every_shipped_case_claims_what_x86_does() {
    cases_claim_what_x86_does(FEW);
}

#[test]
#[ignore = "more of the same: make test-long"]
fn every_large_shipped_case_claims_what_x86_does() {
    cases_claim_what_x86_does(MANY);
}

#[test]
fn a_run_ends_with_a_table_that_adds_up() {
    need_kvm();
    for sync in ["round", "batch"] {
        let words = format!("rounds=300 batch=70 sync={sync}");
        let run = boot(2, &words);
        run.ends_with(0).says("Test SB Allowed").says("rounds=300");
        let counts = counts(&run);
        assert_eq!(
            counts.iter().map(|(count, _)| count).sum::<u64>(),
            300,
            "{run}"
        );
        run.says(&format!("Histogram ({} states)", counts.len()));
        // Whether this processor reorders a load before a store is not known here.
        let is_seen = counts.iter().any(|(_, state)| *state == "0:r0=0; 1:r0=0;");
        run.says(if is_seen {
            "is validated"
        } else {
            "is NOT validated"
        });
        run.says(if is_seen {
            "Observation SB Sometimes"
        } else {
            "Observation SB Never 0 300"
        });
    }
}

#[test]
fn what_no_x86_allows_is_never_seen() {
    need_kvm();
    for (name, text) in FILES {
        let test = herd::parse(text).unwrap();
        let vcpus = u32::try_from(test.programs.len()).unwrap();
        let run = boot(vcpus, &format!("{} rounds=60", case::words(&test)));
        run.ends_with(0)
            .says(&format!("Condition {} is ", test.claim));
        let allowed = outcomes(&test, Model::Tso).unwrap();
        let states = counts(&run);
        assert_eq!(
            states.iter().map(|(count, _)| count).sum::<u64>(),
            60,
            "{name}: {run}"
        );
        for (_, state) in states {
            let is_it = |outcome: &Vec<Option<i64>>| {
                let places = test.places().iter().zip(outcome);
                let told: Vec<_> = places
                    .map(|(place, value)| format!("{place}={};", value.unwrap()))
                    .collect();
                told.join(" ") == state
            };
            assert!(allowed.iter().any(is_it), "{name}: {state}: {run}");
        }
    }
}

#[test]
fn what_is_sent_in_a_round_is_read_in_it() {
    need_kvm();
    let run = boot(
        2,
        "test=0:store,x,1;send,1,x|1: forall=1:h0=1 rounds=100 batch=30",
    );
    run.ends_with(0).says("Observation test Always 100 0");
    assert_eq!(counts(&run), [(100, "1:h0=1;")]);
    run.says("IPIs sent");
}

#[test]
fn what_must_not_come_out_and_does_fails_the_run() {
    need_kvm();
    let run = boot(2, "name=late test=0:load,x|1:add,x,1 never=x=1 rounds=20");
    run.ends_with(1)
        .says("Test late Forbidden")
        .says("forbidden");
    run.says("Positive: 0, Negative: 20")
        .says("Condition ~exists (x=1) is NOT validated");
}

#[test]
fn a_test_that_makes_no_sense_is_refused() {
    need_kvm();
    for (vcpus, words, what) in [
        (2, "test=0:jump", "\"jump\" is nothing that a CPU can do"),
        (2, "test=0:load,x", "exists=, never= or forall="),
        (2, "never=0:r1=1", "\"0:r1\": CPU 0 reads 1 values"),
        (
            2,
            "never=0:r0=1)",
            "\")\" makes no sense behind a condition",
        ),
        (
            1,
            "rounds=10",
            "test SB needs 2 CPUs, and the machine has 1",
        ),
        (2, "rond=10", "\"rond=10\" is not an option"),
    ] {
        let run = boot(vcpus, words);
        run.ends_with(2).says(what);
    }
}

#[test]
fn a_case_that_makes_no_sense_is_refused() {
    need_kvm();
    for (case, what) in [
        ("cpus 2\n0: store u 1\n", "line 2"),
        ("cpus 2\n0: store x\n", "line 2"),
        ("cpus 2\n0: single 1\n", "line 2"),
        ("cpus 2\nappend never=0:rax=1\n0: load x\n", "r0 to r31"),
        (
            "cpus 2\nappend never=2:r0=1\n0: load x\n",
            "the claim needs 3 CPUs",
        ),
        ("cpus 2\nappend exists=0:r0=1\n0: load x\n", "exists="),
        ("cpus 2\nappend rounds=7\n0: load x\n", "no effect"),
    ] {
        let run = search(case);
        run.ends_with(2).says(what);
    }
}

/// A script has CPUs do the deeds of this guest, by name.
#[test]
fn a_script_tells_deeds_too() {
    need_kvm();
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let script = dir.path().join("a.rhai");
    let text = "boot(#{ vcpus: 2, append: \"workload=puppet never=1:r0=0\" });\n\
                cpu(0).store(\"x\", 7).wait_done();\n\
                cpu(1).load(\"x\").wait_done();\n\
                cpu(1).tell(\"send 0 x\").wait_done();\n\
                finish();\n";
    fs::write(&script, text).expect("room for a script");
    let run = Vmm::with("--script")
        .arg(&script)
        .arg(other_image("litmus.bin"))
        .run();
    run.ends_with(0).says("Outcome 0:h0=7; 1:r0=7; x=7;");
}

fn litmus_case_with(arguments: &[&str], file: &Path) -> Run {
    let mut command = Command::new(litmus_case());
    command.args(arguments).arg(file);
    Vmm::from(command).run()
}

/// A file of its own with this text.
fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).expect("room for a test");
    path
}

#[test]
fn a_file_of_herdtools_becomes_a_case_or_a_run() {
    need_kvm();
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let sb = file(&dir, "SB.litmus", store_buffering());
    let case = litmus_case_with(&["case"], &sb);
    case.ends_with(0);
    search(&case.stdout)
        .ends_with(0)
        .says("as expected: forbidden");
    let words = litmus_case_with(&["words"], &sb);
    words
        .ends_with(0)
        .says("workload=rounds name=SB test=0:store,x,1;load,y,eax|");
    let mut command = Command::new(litmus_case());
    command.arg("run").arg("--vmm").arg(tests::vmm());
    command.arg("--guest").arg(other_image("litmus.bin"));
    command
        .args(["--rounds", "40"])
        .arg(&sb)
        .args(["--", "--timeout", "100"]);
    let run = Vmm::from(command).run();
    // Which outcomes there are in so few rounds is a matter of chance.
    run.ends_with(0).says("Test SB Allowed").says(":>0:eax=");
    assert_eq!(
        counts(&run).iter().map(|(count, _)| count).sum::<u64>(),
        40,
        "{run}"
    );
}

#[test]
fn a_file_that_cannot_be_run_is_refused_with_its_line() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let text = "X86_64 T\n{ }\nP0;\nmovl (x),%eax;\nmovl %eax,(y);\nexists (y=1)\n";
    let run = litmus_case_with(&["case"], &file(&dir, "T.litmus", text));
    run.ends_with(2)
        .says("T.litmus: line 5: \"movl %eax,(y)\" goes on with a value");
    let run = litmus_case_with(&["words"], &dir.path().join("none"));
    run.ends_with(2).says("none: No such file");
}

#[test]
fn what_cannot_be_read_or_printed_ends_with_a_status() {
    let endless = litmus_case_with(&["words"], Path::new("/dev/zero"));
    endless.ends_with(2).says("it has more than 1 MiB");
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let sb = file(&dir, "SB.litmus", store_buffering());
    for task in ["case", "words"] {
        let mut command = Command::new(litmus_case());
        command.arg(task).arg(&sb);
        let run = Vmm::from(command).stdout(super::output::full()).run();
        run.ends_with(3).says("cannot print it: No space");
        let mut command = Command::new(litmus_case());
        command.arg(task).arg(&sb);
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        Vmm::from(command).stdout(writer).run().ends_with(0);
    }
}
