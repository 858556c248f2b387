//! Random cases, small enough for the reference search: what two or three CPUs do, with all deeds
//! that a case may use. Equal seeds give equal cases.

use fastrand::Rng;
use tests::SOUND_QUEUES;

/// Designs that are broken, by the guest's names.
const BROKEN_QUEUES: [&str; 4] = ["fifo", "lockless", "lockless-2011a", "shared-refs-naive"];

/// A case without its expectations.
pub fn case(random: &mut Rng) -> String {
    let cpus = if random.u8(0..10) < 7 { 2 } else { 3 };
    let deeds = if cpus == 2 { 3 } else { 1 };
    let mut programs = vec![Vec::new(); cpus];
    for _ in 0..random.usize(1..=deeds) {
        let cpu = random.usize(0..cpus);
        programs[cpu].extend(deed(random, cpus, cpu));
    }
    let mut text = format!("cpus {cpus}\n");
    for (cpu, program) in programs.iter().enumerate() {
        if !program.is_empty() {
            text += &format!("{cpu}: {}\n", program.join("; "));
        }
    }
    text
}

/// What a CPU does: one thing, or one with its interrupts off or a lock held.
fn deed(random: &mut Rng, cpus: usize, cpu: usize) -> Vec<String> {
    let within = |before: &str, inside: Vec<String>, behind: &str| {
        let around = |it: &str| it.split("; ").map(str::to_owned).collect();
        [around(before), inside, around(behind)].concat()
    };
    match random.u8(0..19) {
        0 => within("irqs-off", vec![one_deed(random, cpus, cpu)], "irqs-on"),
        1 => within("lock 0", vec![], "unlock 0"),
        2 => within("lock 0", vec![one_deed(random, cpus, cpu)], "unlock 0"),
        3 => within("irqs-off; lock 0", vec![], "unlock 0; irqs-on"),
        4 => within("irqs-off", vec![], "halt"),
        5 => vec![timer(random, cpus, cpu)],
        6 | 7 => vec![with_program(random, cpus, cpu)],
        _ => vec![one_deed(random, cpus, cpu)],
    }
}

/// A timer, which can come more than once.
fn timer(random: &mut Rng, cpus: usize, cpu: usize) -> String {
    let times = random.u8(1..=2);
    format!("timer {times} {{ {} }}", program(random, cpus, cpu))
}

/// A call whose function does something.
fn with_program(random: &mut Rng, cpus: usize, cpu: usize) -> String {
    let other = (cpu + random.usize(1..cpus)) % cpus;
    let call = match random.u8(0..6) {
        0 | 1 => format!("single {other}"),
        2 => format!("single {other} wait"),
        3 => format!("async {other}"),
        4 => "each".to_owned(),
        _ => format!("cond {other} 0 wait"),
    };
    format!("{call} {{ {} }}", program(random, cpus, other))
}

/// What a function or a timer on `cpu` does.
fn program(random: &mut Rng, cpus: usize, cpu: usize) -> String {
    let other = (cpu + random.usize(1..cpus)) % cpus;
    match random.u8(0..10) {
        0..3 => "lock 0; unlock 0".to_owned(),
        3 => format!("set 0 {}", random.u8(0..3)),
        4 => format!("lock 0; set 0 {}; unlock 0", random.u8(0..3)),
        5 | 6 => format!("async {other}"),
        7 => format!("single {cpu}"),
        8 => format!("requeue {other}"),
        _ => ["lock 0", "until 0 1", "single 0 wait"][random.usize(0..3)].to_owned(),
    }
}

fn one_deed(random: &mut Rng, cpus: usize, cpu: usize) -> String {
    let wait = ["", " wait"][random.usize(0..2)];
    let one = random.usize(0..cpus);
    let other = (cpu + random.usize(1..cpus)) % cpus;
    let some: Vec<_> = (0..cpus).filter(|_| random.bool()).collect();
    let some = if some.is_empty() { vec![other] } else { some };
    let some: Vec<_> = some.iter().map(usize::to_string).collect();
    let some = some.join(",");
    match random.u8(0..18) {
        0 | 1 => format!("single {one}{wait}"),
        2 => format!("async {other}"),
        3 | 4 => format!("many {some}{wait}"),
        5 => format!("all{wait}"),
        6 => format!("each{wait}"),
        7 => format!("any {some}{wait}"),
        8 => format!("leave-mask {other}"),
        9 => match random.u8(0..3) {
            0 => format!("offline {other}"),
            1 => format!("online {other}"),
            _ => format!("offline {other}; online {other}"),
        },
        10 => "irqs-off".to_owned(),
        11 => ["lock 0", "lock 1"][random.usize(0..2)].to_owned(),
        12 => "unlock 0".to_owned(),
        13 | 14 => format!("set 0 {}", random.u8(0..3)),
        15 => format!("until 0 {}", random.u8(0..2)),
        16 => format!("cond {some} 0{wait}"),
        _ => ["halt", "halt", "spin"][random.usize(0..3)].to_owned(),
    }
}

/// Words for the guest.
pub fn words(random: &mut Rng) -> String {
    let queues: Vec<_> = SOUND_QUEUES.iter().chain(&BROKEN_QUEUES).collect();
    let queue = queues[random.usize(0..queues.len())];
    let more = [
        "",
        "",
        "",
        " mask-check=off",
        " hotplug=no-stop",
        " hotplug=keep",
        " alloc-fail=1/2",
        " maxcpus=1",
        " hotplug=online-first",
    ];
    format!("queue={queue}{}", more[random.usize(0..more.len())])
}
