//! `workload=rounds`: every CPU runs its program of the test, all at the same time, again and
//! again, and the outcomes are counted.
//!
//! Rounds are made in batches, as litmus7 does: each round of a batch has variables of its own, in
//! different cache lines, so that nothing has to be reset between two rounds. Before each round, or
//! each batch, all CPUs synchronize. After a batch the first CPU collects the outcomes and resets
//! the variables.
//!
//! If a test has interrupts, all CPUs synchronize before each round and after it, and then take
//! what is pending: so what is sent in a round is read in that round.
//!
//! A CPU makes the accesses of its program in order, each with one machine instruction; the
//! compiler may not reorder them. Between two of them are the few instructions that find the next.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, compiler_fence, fence};

use kit::counters::count;
use kit::lab::Lab;
use kit::platform::{Platform, Vector};
use kit::specimen::Part;
use kit::sync::barrier::Barrier;
use kit::sync::pending::Pending;
use kit::sync::waiting::spin_until;

use crate::counters::CpuCounters;
use crate::histogram::{Histogram, decides};
use crate::manifest::FORBIDDEN;
use crate::options::{Options, Sync};
use crate::program::{Instruction, Variable};
use crate::syntax::SyntaxError;
use crate::table::Table;
use crate::test::{Source, Test};
use crate::vectors::ASKED;

/// Turns of a wait that do nothing else, so that CPUs leave it at nearly the same time.
const EAGER_TURNS: u32 = 200;

/// A test that is run round after round.
#[derive(Debug)]
pub struct Rounds {
    test: Test,
    rounds: u64,
    batch: usize,
    sync: Sync,
    /// By variable, if the test uses it: the variable of each round of a batch.
    variables: [Option<Box<[Cell]>>; Variable::COUNT],
    /// By CPU: what it has read in each round, one round after the other.
    loaded: Box<[Box<[AtomicU64]>]>,
    /// By CPU: what its handlers do.
    handlers: Box<[Handlers]>,
    pending: Pending,
    batches: Barrier,
    /// How often a CPU has arrived at a synchronization, in all.
    arrivals: AtomicU64,
    /// Null until all rounds are over.
    histogram: AtomicPtr<Histogram>,
}

/// A variable of one round: two cache lines, since processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Cell(AtomicU64);

/// What the handlers of one CPU are to read, and what they have read.
#[derive(Debug)]
#[repr(align(128))]
struct Handlers {
    /// A bit for each variable that is to be read.
    asked: AtomicU64,
    /// The round in which the CPU is.
    round: AtomicUsize,
    /// By round: how many values have been read.
    reads: Box<[AtomicUsize]>,
    /// Those values, with room in each round for as many as can be asked for.
    values: Box<[AtomicU64]>,
}

impl Handlers {
    fn new(most: usize, batch: usize) -> Self {
        let rounds = if most == 0 { 0 } else { batch };
        Self {
            asked: AtomicU64::new(0),
            round: AtomicUsize::new(0),
            reads: (0..rounds).map(|_| AtomicUsize::new(0)).collect(),
            values: (0..rounds * most).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The values of `round`.
    fn values(&self, round: usize) -> &[AtomicU64] {
        let most = self
            .values
            .len()
            .checked_div(self.reads.len())
            .unwrap_or_default();
        &self.values[round * most..][..most]
    }

    fn push(&self, round: usize, value: u64) {
        let reads = self.reads[round].load(Ordering::Relaxed);
        if let Some(place) = self.values(round).get(reads) {
            place.store(value, Ordering::Relaxed);
            self.reads[round].store(reads + 1, Ordering::Relaxed);
        }
    }
}

impl Rounds {
    /// The test that `options` ask for.
    ///
    /// # Errors
    /// If that is no test.
    pub fn new(options: &Options) -> Result<Self, SyntaxError> {
        let test = options.test().map_err(|(_, why)| why)?;
        let batch = options
            .batch()
            .min(usize::try_from(options.rounds()).unwrap_or(usize::MAX));
        let used = test.variables();
        let variables = Variable::ALL.map(|variable| {
            let cell = |_| {
                Cell(AtomicU64::new(
                    test.initial[variable as usize].cast_unsigned(),
                ))
            };
            used[variable as usize].then(|| (0..batch).map(cell).collect())
        });
        let row = |loads| (0..loads * batch).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            rounds: options.rounds(),
            batch,
            sync: options.sync(),
            variables,
            loaded: test
                .programs
                .iter()
                .map(|program| row(program.loads()))
                .collect(),
            handlers: (0..test.programs.len())
                .map(|cpu| Handlers::new(test.sent_to(cpu), batch))
                .collect(),
            pending: Pending::new(test.programs.len()),
            batches: Barrier::new(test.programs.len()),
            arrivals: AtomicU64::new(0),
            histogram: AtomicPtr::new(null_mut()),
            test,
        })
    }

    /// This CPU's part.
    pub fn run<P: Platform>(&self, platform: &P, lab: Lab) -> Part {
        let me = platform.this_cpu();
        if me >= self.test.programs.len() {
            return Part::Done;
        }
        let counters = lab.own_counters::<CpuCounters>(me);
        count(&counters.programs_planned, self.rounds);
        let has_interrupts = self.test.interrupts();
        let mut histogram = Histogram::default();
        let mut arrivals = 0;
        let mut left = self.rounds;
        while left > 0 {
            let rounds = self.batch.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.batches.wait(platform);
            for round in 0..rounds {
                self.handlers[me].round.store(round, Ordering::Relaxed);
                if round == 0 || self.sync == Sync::Round {
                    arrivals += 1;
                    self.synchronize(platform, lab, arrivals);
                }
                self.run_program(platform, me, round);
                if has_interrupts {
                    platform.irqs_enable();
                    arrivals += 1;
                    self.synchronize(platform, lab, arrivals);
                    self.pending.take(platform);
                }
            }
            count(&counters.programs, rounds as u64);
            // Its Acquire and Release order all accesses of the batch before what follows.
            self.batches.wait(platform);
            if me == 0 {
                self.collect(rounds, &mut histogram);
            }
            left -= rounds as u64;
        }
        if me != 0 {
            return Part::Done;
        }
        let histogram = Box::leak(Box::new(histogram));
        self.histogram.store(histogram, Ordering::Release);
        Part::Over
    }

    /// The handler of `vector`.
    pub fn handle<P: Platform>(&self, platform: &P, vector: Vector) {
        let me = platform.this_cpu();
        let Some(handlers) = self.handlers.get(me) else {
            return;
        };
        if vector == Vector::LAST {
            self.pending.has_caught_up(me);
        } else if vector == ASKED {
            let round = handlers.round.load(Ordering::Relaxed);
            // Acquire pairs with the Release of the CPU that asked: what it wrote before is
            // visible.
            let asked = handlers.asked.swap(0, Ordering::Acquire);
            for variable in Variable::ALL {
                if asked >> variable as usize & 1 != 0 {
                    handlers.push(round, self.cell(variable, round).load(Ordering::Relaxed));
                }
            }
        }
    }

    /// Waits until all CPUs have arrived here for the `nth` time, from 1.
    fn synchronize<P: Platform>(&self, platform: &P, lab: Lab, nth: u64) {
        let all = nth * self.test.programs.len() as u64;
        let have_arrived = || self.arrivals.load(Ordering::Acquire) >= all;
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        for _ in 0..EAGER_TURNS {
            if have_arrived() {
                return;
            }
            spin_loop();
        }
        spin_until(platform, &lab, have_arrived);
    }

    /// Runs the program of CPU `me` in `round` of the batch.
    fn run_program<P: Platform>(&self, platform: &P, me: usize, round: usize) {
        let program = &self.test.programs[me];
        let mut registers = self.loaded[me]
            .chunks_exact(program.loads().max(1))
            .nth(round);
        let mut registers = registers.take().unwrap_or_default().iter();
        let mut keep = |value| {
            if let Some(register) = registers.next() {
                register.store(value, Ordering::Relaxed);
            }
        };
        for step in &program.steps {
            // Relaxed: on x86 a plain `mov`. How it can be reordered is what is tested.
            match step.instruction {
                Instruction::Store(at, value) => {
                    self.cell(at, round)
                        .store(value.cast_unsigned(), Ordering::Relaxed);
                }
                Instruction::Load(at) => keep(self.cell(at, round).load(Ordering::Relaxed)),
                Instruction::Exchange(at, value) => {
                    let cell = self.cell(at, round);
                    keep(cell.swap(value.cast_unsigned(), Ordering::Relaxed));
                }
                Instruction::Add(at, value) => {
                    let cell = self.cell(at, round);
                    keep(cell.fetch_add(value.cast_unsigned(), Ordering::Relaxed));
                }
                Instruction::Fence => fence(Ordering::SeqCst),
                Instruction::Send(target, variable) => {
                    let asked = 1 << variable as usize;
                    self.handlers[target]
                        .asked
                        .fetch_or(asked, Ordering::Release);
                    platform.send_ipi(target, ASKED);
                }
                Instruction::IrqsOff => platform.irqs_disable(),
                Instruction::IrqsOn => platform.irqs_enable(),
            }
            compiler_fence(Ordering::SeqCst);
        }
    }

    fn cell(&self, variable: Variable, round: usize) -> &AtomicU64 {
        let cells = self.variables[variable as usize].as_ref();
        &cells.expect("the test has every variable that it accesses")[round].0
    }

    /// Counts the outcomes of the first `rounds` rounds of a batch, and resets the variables.
    fn collect(&self, rounds: usize, histogram: &mut Histogram) {
        let mut outcome: Vec<Option<i64>> = Vec::with_capacity(self.test.sources().len());
        for round in 0..rounds {
            outcome.clear();
            outcome.extend(
                self.test
                    .sources()
                    .iter()
                    .map(|source| self.value(*source, round)),
            );
            histogram.add(&outcome);
        }
        let reads = self.handlers.iter().flat_map(|handlers| &handlers.reads);
        reads.for_each(|reads| reads.store(0, Ordering::Relaxed));
        for (cells, initial) in self.variables.iter().zip(self.test.initial) {
            for cell in cells.iter().flatten() {
                cell.0.store(initial.cast_unsigned(), Ordering::Relaxed);
            }
        }
    }

    fn value(&self, source: Source, round: usize) -> Option<i64> {
        let value = match source {
            Source::Loaded(cpu, nth) => {
                let loads = self.test.programs[cpu].loads();
                self.loaded[cpu].get(round * loads + nth)?
            }
            Source::Memory(variable) => self.cell(variable, round),
            Source::Handled(cpu, nth) => {
                let handlers = &self.handlers[cpu];
                let is_read = nth < handlers.reads[round].load(Ordering::Relaxed);
                handlers.values(round).get(nth).filter(|_| is_read)?
            }
        };
        Some(value.load(Ordering::Relaxed).cast_signed())
    }

    /// The outcomes; `None` before all rounds are over.
    pub fn table(&self) -> Option<Table<'_>> {
        // SAFETY: null, or what `run` has leaked, which is not changed any more.
        let histogram = unsafe { self.histogram.load(Ordering::Acquire).as_ref() }?;
        Some(Table {
            test: &self.test,
            histogram,
        })
    }

    /// Reports each outcome that must not be. To be called once, when all rounds are over.
    pub fn judge<P: Platform>(&self, platform: &P, lab: Lab) -> Option<Table<'_>> {
        let table = self.table()?;
        if table.is_breach() {
            let forbidden = table
                .histogram
                .iter()
                .filter(|(it, _)| decides(&self.test, it));
            for (_, rounds) in forbidden {
                lab.report(
                    FORBIDDEN,
                    platform.this_cpu(),
                    0,
                    platform.timestamp(),
                    rounds,
                );
            }
        }
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kit::options::CommandLine;
    use kit::specimen::Specimen;
    use kit::threads::{Threads, run_guest};

    use super::*;
    use crate::guest::Litmus;
    use crate::interleavings::{Model, outcomes};

    fn run(cpus: usize, line: &str) -> Arc<Litmus<Arc<Threads>>> {
        let line: CommandLine<Options> = CommandLine::parse(line).unwrap();
        run_guest::<Litmus<Arc<Threads>>>(cpus, &line.guest)
    }

    /// Threads are truly concurrent, and this is no emulator: what comes out is what the processor
    /// allows.
    #[test]
    fn nothing_comes_out_that_x86_does_not_allow() {
        for line in [
            "test=0:store,x,1;load,y|1:store,y,1;load,x exists=0:r0=0&1:r0=0",
            "test=0:store,x,1;store,y,1|1:load,y;load,x exists=1:r0=1&1:r1=0",
            "test=0:store,x,1;fence;load,y|1:xchg,y,1;load,x exists=0:r0=0&1:r1=0",
            "test=0:add,x,2;load,x|1:add,x,-1|2:load,x;load,x init=x=5 \
             exists=2:r0=1&2:r1=2&x=6&0:r1=0",
            "test=0:store,x,1;store,y,2|1:store,y,1;store,x,2 exists=x=1&y=1",
            "test=0:store,x,1;send,1,x;store,x,2|1:load,x exists=1:h0=0&1:r0=0",
            "test=0:send,1,x;send,1,y|1:irqs-off;store,x,1;store,x,2;irqs-on exists=1:h0=0&1:h1=0",
            "test=0:send,0,x;store,x,1|1:send,0,x exists=0:h0=1&0:h1=1&x=0",
        ] {
            let has_interrupts = line.contains("send");
            for sync in if has_interrupts {
                &["round"][..]
            } else {
                &["round", "batch"]
            } {
                let line = format!("{line} rounds=1050 batch=100 sync={sync}");
                let guest = run(3, &line);
                let table = guest.table().unwrap();
                assert_eq!(table.histogram.total(), 1050, "{line}");
                let allowed = outcomes(table.test, Model::Tso).unwrap();
                for (outcome, _) in table.histogram.iter() {
                    assert!(allowed.contains(outcome), "{line}: {outcome:?}\n{table}");
                }
            }
        }
    }

    #[test]
    fn an_outcome_that_must_not_be_is_reported() {
        let guest = run(
            2,
            "test=0:load,x|1:add,x,1 never=x=4&1:r0=3 init=x=3 rounds=20",
        );
        let said = guest.verdict().to_string();
        assert!(said.contains("Positive: 0, Negative: 20\n"), "{said}");
        assert!(said.contains("is NOT validated"), "{said}");
        let found: Vec<_> = guest
            .lab()
            .findings()
            .map(|it| (it.oracle, it.seen))
            .collect();
        assert_eq!(found, [(FORBIDDEN, 20)]);
    }

    #[test]
    fn what_may_be_and_is_not_is_none() {
        let guest = run(2, "test=0:load,x|1:add,x,1 exists=x=5 rounds=20");
        let said = guest.verdict().to_string();
        assert!(
            said.contains("is NOT validated\nObservation test Never 0 20"),
            "{said}"
        );
        assert_eq!(guest.lab().findings_made(), 0);
    }
}
