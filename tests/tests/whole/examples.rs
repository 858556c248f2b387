//! The programs in `vmm/examples`: each does what it says with the library, and what it prints is
//! correct.

use std::process::Command;

use object::{Object, ObjectSymbol};
use tests::{Run, Vmm, example, guest, need_kvm};

fn run(name: &str, words: &[&str]) -> Run {
    let mut command = Command::new(example(name));
    command.arg(guest()).args(words);
    let run = Vmm::from(command).run();
    run.ends_with(0);
    run
}

/// The number after `name` in a line of its own.
fn register(run: &Run, name: &str) -> u64 {
    let lines = run.stdout.lines().map(str::trim);
    let value = lines.filter_map(|line| line.strip_prefix(name)?.trim().strip_prefix("0x"));
    let value = value.map(|digits| u64::from_str_radix(digits, 16)).next();
    value
        .and_then(Result::ok)
        .unwrap_or_else(|| panic!("no {name}: {run}"))
}

#[test]
fn a_paused_cpu_is_looked_at() {
    need_kvm();
    let run = run("pause_and_look", &[]);
    run.says("a second look finds the same")
        .says("CPU 1 has gone on to irq.enter, in ")
        .says("ended on request");
    let (rip, rflags) = (register(&run, "rip"), register(&run, "rflags"));
    let interrupts = if rflags & 1 << 9 == 0 { "off" } else { "on" };
    run.says(&format!("interrupts are {interrupts}"));

    // The function that it prints must be the one at the instruction pointer, by the image's own
    // symbols.
    let mut lines = run.stdout.lines();
    let place = lines.find_map(|line| line.strip_prefix("CPU 1 is paused in "));
    let place = place.and_then(|place| place.strip_prefix(&format!("{rip:#x} ")));
    let function = place.and_then(|place| place.rsplit_once("+0x"));
    let (function, offset) = function.unwrap_or_else(|| panic!("no function and offset: {run}"));
    let offset = u64::from_str_radix(offset, 16).expect("an offset");
    // However a name is mangled, its last part appears in it unchanged.
    let last = function.rsplit("::").next().unwrap_or(function);
    let bytes = std::fs::read(guest()).expect("a guest image");
    let image = object::File::parse(&*bytes).expect("an ELF file");
    let is_there = image.symbols().any(|symbol| {
        let is_it = symbol.name().is_ok_and(|name| name.contains(last));
        is_it && symbol.address() + offset == rip
    });
    assert!(
        is_there,
        "no symbol {last} at {rip:#x} - {offset:#x}: {run}"
    );
}

#[test]
fn the_call_of_2009_is_lost_with_one_queue_and_not_with_the_other() {
    need_kvm();
    let run = run("scenario", &[]);
    let line = |queue: &str| {
        let mut lines = run.stdout.lines();
        let line = lines.find(|line| line.starts_with(&format!("queue={queue}: ")));
        line.unwrap_or_else(|| panic!("not a word of {queue}: {run}"))
            .to_owned()
    };
    let (fifo, filo) = (line("fifo"), line("filo"));
    assert!(fifo.contains("CPU 3's call is lost on CPU 2"), "{run}");
    assert!(filo.contains("CPU 3's call ran on CPU 2"), "{run}");
    // The oracles have not been told which queue it is.
    assert!(fifo.contains(" 1 lost,"), "{run}");
    assert!(filo.contains("each exactly once where it had to"), "{run}");
}

#[test]
fn ipis_and_exits_are_counted() {
    need_kvm();
    let run = run("count_ipis", &["workload=selftest", "transport=x2apic"]);
    let rows: Vec<Vec<u64>> = run
        .stdout
        .lines()
        .skip(1)
        .take(4)
        .map(|row| {
            let words = row.split_whitespace().take(4);
            words.map(|word| word.parse().expect("a count")).collect()
        })
        .collect();
    assert_eq!(
        rows.iter().map(|row| row[0]).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    let sum = |column: usize| rows.iter().map(|row| row[column]).sum::<u64>();
    assert!(rows.iter().all(|row| row[2] > 0 && row[3] > 0), "{run}");
    // The figure of each sender, and their sum by what was sent.
    run.says(&format!("{} IPIs to ", sum(1)))
        .says(&format!("{} by x2apic\n", sum(1)))
        .says("exits for each IPI");
}

#[test]
fn a_bad_image_ends_them_with_its_name() {
    need_kvm();
    for name in ["pause_and_look", "scenario", "count_ipis"] {
        let mut command = Command::new(example(name));
        command.arg("/nowhere/guest.bin");
        let run = Vmm::from(command).run();
        run.ends_with(1).says("/nowhere/guest.bin");
    }
}

#[test]
#[ignore = "measures for twenty seconds: make test-long"]
fn a_table_on_disk_is_measured() {
    let mut command = Command::new(example("states_on_disk"));
    command.args(["100000", "9M"]);
    let run = Vmm::from(command).run();
    run.ends_with(0);
    for storage in ["limit", "none"] {
        let mut lines = run
            .stdout
            .lines()
            .filter(|line| line.trim().starts_with(storage));
        let last = lines
            .next_back()
            .unwrap_or_else(|| panic!("no {storage}: {run}"));
        assert!(last.contains(" 100000 "), "{run}");
    }
    // The process itself has more.
    let mut command = Command::new(example("states_on_disk"));
    command.args(["100000", "100K"]);
    Vmm::from(command).run().ends_with(5).says("--memory-limit");
    let mut command = Command::new(example("states_on_disk"));
    command.args(["100000", "9M", "/not/there"]);
    Vmm::from(command).run().ends_with(2).says("No such file");
}
