//! Searches under shuttle: one program in the schedules that a scheduler chooses, sequentially
//! consistent, until an oracle fires, a schedule has no end, or there are enough. Knows nothing of
//! the program.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use kit::lab::Lab;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner};

use crate::oracle::Oracle;

/// Steps after which a schedule is taken for a hang; a finished one takes a few thousand.
const MAX_STEPS: u64 = 200_000;

std::thread_local! {
    static FOUND: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct SearchOutcome {
    /// Schedules that were run, the one in which something broke included.
    pub schedules: u64,
    /// How often the scheduler chose the task that goes on.
    pub steps: u64,
    /// How long the search took.
    pub time: Duration,
    /// The oracles that fired in the last schedule, none of them for a hang; `None` if nothing
    /// broke.
    pub broke: Option<Vec<Oracle>>,
}

/// Takes the findings of one schedule, when it is over. The program must call it.
pub fn judge(lab: Lab) {
    let oracles = lab.findings().map(|finding| finding.oracle);
    FOUND.with_borrow_mut(|found| found.extend(oracles));
}

/// Runs `program`, which ends with [`judge`], in each schedule of `scheduler` until something
/// breaks, the scheduler has no more, or `time` has passed.
pub fn search(
    scheduler: impl Scheduler + 'static,
    time: Option<Duration>,
    program: impl Fn() + Send + Sync + 'static,
) -> SearchOutcome {
    let mut config = Config::new();
    config.max_steps = MaxSteps::None;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_time = time;
    // That only sequentially consistent schedules are tried is said above.
    config.silence_warnings = true;
    FOUND.with_borrow_mut(BTreeSet::clear);
    let tally = Rc::new(Tally::default());
    let counted = Counted {
        scheduler: ManuallyDrop::new(scheduler),
        tally: tally.clone(),
        steps: 0,
    };
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(counted, config).run(program)
    }));
    let time = begun.elapsed();
    let found = FOUND.with_borrow(|found| {
        let oracles = found.iter().map(|number| Oracle::try_from(*number));
        oracles.flatten().collect::<Vec<_>>()
    });
    // A panic is a deadlock that shuttle has found, or a panic of the program.
    let is_broken = outcome.is_err() || tally.hangs.get() || !found.is_empty();
    SearchOutcome {
        schedules: tally.schedules.get(),
        steps: tally.steps.get(),
        time,
        broke: is_broken.then_some(found),
    }
}

#[derive(Debug, Default)]
struct Tally {
    schedules: Cell<u64>,
    steps: Cell<u64>,
    hangs: Cell<bool>,
}

/// A scheduler whose choices are counted, and which ends with the first schedule in which something
/// broke.
#[derive(Debug)]
struct Counted<S> {
    /// Never dropped: shuttle's random one would say that its last seed failed, unless it had used
    /// up all its schedules.
    scheduler: ManuallyDrop<S>,
    tally: Rc<Tally>,
    /// Steps of this schedule.
    steps: u64,
}

impl<S: Scheduler> Scheduler for Counted<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.steps = 0;
        if self.tally.hangs.get() || FOUND.with_borrow(|found| !found.is_empty()) {
            return None;
        }
        let schedule = self.scheduler.new_execution()?;
        self.tally.schedules.update(|schedules| schedules + 1);
        Some(schedule)
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        if self.steps == MAX_STEPS {
            self.tally.hangs.set(true);
            return None;
        }
        self.steps += 1;
        self.tally.steps.update(|steps| steps + 1);
        self.scheduler.next_task(runnable, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.scheduler.next_u64()
    }
}

/// Schedules with few switches, and now and then a stall: a CPU stops wherever it is, as a vCPU
/// does that the host preempts, while the others go on for long. In every race of these designs one
/// CPU is late. If each step is chosen at random, no CPU is ever late by much.
#[derive(Debug)]
pub struct Stalls {
    random: fastrand::Rng,
    schedules: usize,
    /// At most [`STALLED`].
    stalled: Vec<TaskId>,
}

/// The most CPUs that are stalled at a time.
const STALLED: usize = 2;
/// Steps between stalls, and steps of a stall, on average.
const BETWEEN_STALLS: u32 = 40;
const STALL: u32 = 150;

impl Stalls {
    /// So many schedules; equal seeds make equal ones.
    pub fn new(seed: u64, schedules: usize) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            schedules,
            stalled: Vec::new(),
        }
    }
}

impl Scheduler for Stalls {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.schedules = self.schedules.checked_sub(1)?;
        self.stalled.clear();
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let random = &mut self.random;
        self.stalled.retain(|_| random.u32(0..STALL) != 0);
        if self.stalled.len() < STALLED && random.u32(0..BETWEEN_STALLS) == 0 {
            self.stalled.extend(current);
        }
        let may_run = |task: TaskId| !self.stalled.contains(&task);
        let stays = current.filter(|task| {
            !is_yielding && may_run(*task) && runnable.iter().any(|other| other.id() == *task)
        });
        if stays.is_some() {
            return stays;
        }
        let others = || {
            (runnable.iter().map(|task| task.id()))
                .filter(|task| may_run(*task) && !(is_yielding && Some(*task) == current))
        };
        let choice = match others().count() {
            0 => None,
            count => others().nth(random.usize(0..count)),
        };
        choice.or_else(|| {
            self.stalled.clear();
            Some(runnable[random.usize(0..runnable.len())].id())
        })
    }

    fn next_u64(&mut self) -> u64 {
        self.random.u64(..)
    }
}
