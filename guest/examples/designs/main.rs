//! Counts what a call to many costs in each queue design, and prints it as the tables of
//! `docs/designs.md`. Nothing is timed: every number is the same on every host.

mod coherence;
mod heap;
mod linux;
mod machine;
mod words;

use std::env;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest::counters::CpuCounters;
use guest::ipi::csd::Call;
use guest::ipi::list::ElementList;
use guest::ipi::queue::QueueKind;
use guest::ipi::single::Singles;
use guest::ipi::{Functions, Ipi};
use guest::machine::Machine;
use kit::lab::Lab;
use linux::Linux;
use machine::{CPUS, OneThread, Tally};

/// Rounds before anything is counted: caches warm up, and memory comes back for the first time.
const WARM_UP: u64 = 8;

/// Rounds that are counted.
const COUNTED: u64 = 16;

const CALL: Call = Call { func: 0, info: 0 };

/// Functions that only count that they ran.
#[derive(Debug, Default)]
struct Ran(AtomicU64);

impl Functions<OneThread> for Ran {
    fn run(&self, _: &Ipi<OneThread, Self>, _: Call) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Path = Ipi<OneThread, Ran>;

/// What a number of calls took.
#[derive(Debug)]
struct Cost {
    calls: u64,
    tally: Tally,
    visits: u64,
    requests: u64,
}

impl Cost {
    const HEADERS: [&str; 8] = [
        "IPIs", "locks", "RMWs", "fences", "lines C", "lines T", "visits", "mem",
    ];

    fn columns(&self) -> [String; 8] {
        let Tally {
            ipis,
            locks,
            read_modify_writes,
            fences,
            lines_to_callers,
            lines_to_targets,
        } = self.tally;
        [
            ipis,
            locks,
            read_modify_writes,
            fences,
            lines_to_callers,
            lines_to_targets,
            self.visits,
            self.requests,
        ]
        .map(|sum| per(sum, self.calls))
    }
}

/// The quotient, with one decimal if it is no integer.
fn per(sum: u64, calls: u64) -> String {
    if sum.is_multiple_of(calls) {
        return (sum / calls).to_string();
    }
    format!("{:.1}", sum as f64 / calls as f64)
}

fn sum_over_cpus(path: &Path, counter: impl Fn(&CpuCounters) -> &AtomicU64) -> u64 {
    (0..CPUS)
        .map(|cpu| counter(path.machine.lab.own_counters(cpu)).load(Ordering::Relaxed))
        .sum()
}

/// What `round`, which makes `calls` calls, takes in the long run. `executions` says how often
/// functions have run in a round: each call must run everywhere once. Elements that were visited
/// and requests for memory are what `counted` says more behind than before.
fn cost(
    calls: u64,
    round: impl Fn(),
    executions: impl Fn() -> u64,
    counted: impl Fn() -> [u64; 2],
) -> Cost {
    let checked_round = || {
        round();
        assert_eq!(executions(), calls * (CPUS as u64 - 1), "in a round");
    };
    (0..WARM_UP).for_each(|_| checked_round());
    machine::clear_tally();
    let before = counted();
    (0..COUNTED).for_each(|_| checked_round());
    let [visits, requests] = counted();
    Cost {
        calls: calls * COUNTED,
        tally: machine::tally(),
        visits: visits - before[0],
        requests: requests - before[1],
    }
}

/// What the calls of CPU 0 cost, and of all at once, where `call` makes one and can wait for it.
fn costs_of(
    call: impl Fn(bool),
    executions: impl Fn() -> u64,
    counted: impl Fn() -> [u64; 2],
) -> [Cost; 2] {
    let alone = || machine::on(0, || call(true));
    let all = || {
        (0..CPUS).for_each(|cpu| machine::on(cpu, || call(false)));
        machine::take_interrupts();
    };
    [
        cost(1, alone, &executions, &counted),
        cost(CPUS as u64, all, &executions, &counted),
    ]
}

/// Makes a call from one CPU's task, after the point between two operations of a task.
fn call(path: &Path, wait: bool) {
    let _ = path.cond_resched();
    path.call_all(CALL, wait);
}

/// What calls of one CPU cost, and of all at once, in `design`.
fn costs(design: QueueKind) -> [Cost; 2] {
    let lab = Lab::allocate(CPUS as u32).expect("a lab has room for so many");
    let machine = Machine::new(OneThread, CPUS, lab);
    let path: Rc<Path> = Rc::new(Ipi::new(machine, design, Ran::default()));
    let handler = path.clone();
    machine::boot(move |vector| handler.handle(vector));
    let visits = || sum_over_cpus(&path, |counters| &counters.visits);
    let requests = || sum_over_cpus(&path, |counters| &counters.allocations);
    let costs = costs_of(
        |wait| call(&path, wait),
        || path.functions.0.swap(0, Ordering::Relaxed),
        || [visits(), requests()],
    );
    path.audit();
    machine::shut_down();
    assert_eq!(path.machine.lab.findings_made(), 0, "{}", design.name());
    costs
}

/// The versions of Linux's own file that are counted too, where `LINUX_CENSUS` names the folder with
/// the libraries of them.
const LINUX: [&str; 2] = ["6.1", "6.12"];

fn linux(version: &str) -> Option<Linux> {
    let folder = PathBuf::from(env::var_os("LINUX_CENSUS")?);
    Linux::boot(&folder.join(format!("linux-{version}-census.so")))
}

/// Its row. It walks no list that CPUs share, and asks for no memory.
fn linux_row(version: &str) -> Option<Vec<String>> {
    let linux = linux(version)?;
    let call = |wait| linux.call_all(wait);
    let [alone, all] = costs_of(call, Linux::executions, || [0, 0]).map(|cost| cost.columns());
    machine::shut_down();
    let name = format!("`linux-{version}`");
    Some(row(name, alone, all, linux.bytes.to_string()))
}

/// Bytes of memory per CPU in which `design` keeps its calls.
fn state(design: QueueKind) -> usize {
    let singles = Arc::new(Singles::new(CPUS, design.allocates_singles()));
    let bytes = heap::bytes_kept(|| design.build::<OneThread>(CPUS, &singles));
    let watched = match design {
        QueueKind::Llist => 0,
        _ => ElementList::WATCHED,
    };
    bytes / CPUS - watched
}

/// Prints a table, the columns after the first `left` to the right.
fn print_table(left: usize, rows: &[Vec<String>]) {
    let columns = rows[0].len();
    let widths: Vec<_> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(|width| width.unwrap_or(0).max(3))
        .collect();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            match column < left {
                true => print!("| {cell:width$} "),
                false => print!("| {cell:>width$} "),
            }
        }
        println!("|");
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                match column < left {
                    true => print!("| {} ", "-".repeat(width)),
                    false => print!("| {}: ", "-".repeat(width - 1)),
                }
            }
            println!("|");
        }
    }
}

/// A row: the name, what one caller costs, what all at once cost, the state.
fn row(
    name: String,
    alone: [String; 8],
    all: impl IntoIterator<Item = String>,
    state: String,
) -> Vec<String> {
    let counted = alone.into_iter().chain(all);
    [name].into_iter().chain(counted).chain([state]).collect()
}

fn numbers() -> Vec<Vec<String>> {
    let all = Cost::HEADERS.map(|header| format!("{header} ×{CPUS}"));
    let alone = Cost::HEADERS.map(str::to_owned);
    let mut rows = vec![row("design".to_owned(), alone, all, "bytes".to_owned())];
    rows.extend(QueueKind::ALL.map(|design| {
        let [alone, all] = costs(design).map(|cost| cost.columns());
        row(code(design), alone, all, state(design).to_string())
    }));
    rows.extend(LINUX.into_iter().filter_map(linux_row));
    rows
}

fn qualities() -> Vec<Vec<String>> {
    let header = [
        "design",
        "Linux",
        "its caller waits for",
        "it allocates",
        "what is wrong",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(QueueKind::ALL.map(|design| {
        let words = words::words(design);
        let wrong = match design.is_broken() {
            true => format!("**broken**: {}", words.wrong),
            false => words.wrong.to_owned(),
        };
        let [linux, waits, allocates] =
            [words.linux, words.waits, words.allocates].map(str::to_owned);
        vec![code(design), linux, waits, allocates, wrong]
    }));
    rows
}

fn code(design: QueueKind) -> String {
    format!("`{}`", design.name())
}

fn main() {
    print_table(1, &numbers());
    println!();
    print_table(5, &qualities());
}
