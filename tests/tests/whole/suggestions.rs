//! Words that are nearly right: whoever mistypes one is told which was perhaps meant, whether it is
//! the command's own or one of the guest's.

use std::fs;

use tempfile::TempDir;
use tests::{Vmm, need_kvm};

#[test]
fn subcommands_options_and_their_values() {
    Vmm::with("explroe a.case b.bin")
        .run()
        .ends_with(2)
        .complains_of("did you mean \"explore\"?");
    Vmm::with("bnech")
        .run()
        .ends_with(2)
        .complains_of("did you mean \"bench\"?");
    Vmm::with("--log info explore a.case")
        .run()
        .ends_with(2)
        .complains_of("the subcommand \"explore\" comes first");
    Vmm::with("--vcpu 4").run().ends_with(2).says("--vcpus");
    Vmm::with("--stats jsn").run().ends_with(2).says("'json'");
    Vmm::boot("--steal sed=7,mean=2ms,share=20%")
        .run()
        .ends_with(2)
        .complains_of("did you mean \"seed\"?");
    // A file of that name is a guest image, whatever subcommand it is like.
    let folder = TempDir::new().expect("a temporary directory");
    fs::write(folder.path().join("bnech"), "no image").expect("room");
    let mut vmm = Vmm::with("bnech");
    vmm.command().current_dir(folder.path());
    let run = vmm.run();
    run.ends_with(2);
    assert!(!run.stderr.contains("bench"), "{run}");
}

#[test]
fn words_and_values_of_the_guest() {
    need_kvm();
    for (mistyped, meant) in [
        ("quue=fifo", "queue=fifo"),
        ("queue=fiffo", "queue=fifo"),
        ("transport=x2apc", "transport=x2apic"),
    ] {
        let run = Vmm::with("--append")
            .arg(mistyped)
            .arg(tests::guest())
            .run();
        let guess = format!("did you mean \"{meant}\" by \"{mistyped}\"?");
        run.ends_with(2).says(&guess);
    }
    Vmm::boot("--append=zzz=1").run().ends_with(2);
}

#[test]
fn lines_of_the_table_of_a_bench() {
    Vmm::with("bench --transport x2apc")
        .arg(tests::guest())
        .run()
        .ends_with(2)
        .complains_of("did you mean \"x2apic\"?");
    Vmm::with("bench --queue filo,kmaloc")
        .arg(tests::guest())
        .run()
        .ends_with(2)
        .complains_of("did you mean \"kmalloc\"?");
}

#[test]
fn deeds_and_oracles_of_a_case() {
    need_kvm();
    let folder = TempDir::new().expect("a temporary directory");
    let case = folder.path().join("a.case");
    for (text, meant) in [
        ("cpus 2\n0: sngle 1\n", "single"),
        ("cpus 2\n0: single 1\nexpect lots\n", "lost"),
    ] {
        fs::write(&case, text).expect("room");
        let run = Vmm::with("explore")
            .arg(&case)
            .arg(tests::explore_image())
            .run();
        run.ends_with(2)
            .complains_of(&format!("did you mean \"{meant}\"?"));
    }
}

#[test]
fn probes_functions_and_oracles_of_a_script() {
    need_kvm();
    for (line, meant) in [
        ("cpu(1).hold_at(\"queue.vist\");", "queue.visit"),
        ("must_break(\"lots\");", "lost"),
    ] {
        let script = format!("boot(#{{ vcpus: 2, append: \"workload=puppet\" }}); {line}");
        let run = Vmm::scripted(&script).run();
        run.ends_with(2).says(&format!("did you mean \"{meant}\"?"));
    }
    let run = Vmm::scripted("boot(#{ vcpu: 2 });").run();
    run.ends_with(2).says("did you mean \"vcpus\"?");
}
