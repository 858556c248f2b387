//! Searches under shuttle: one play in the schedules that a scheduler chooses, sequentially
//! consistent, until an oracle fires, one has no end, or there are enough. Knows nothing of what is
//! played.

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
    static CAUGHT: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Searched {
    /// Schedules that were played, that in which something broke included.
    pub schedules: u64,
    /// Times that the scheduler was asked which task goes on.
    pub steps: u64,
    /// For how long it was searched.
    pub time: Duration,
    /// What broke in the last schedule: oracles, none of them for a hang; `None` if nothing did.
    pub broke: Option<Vec<Oracle>>,
}

/// Says what has become of the play of this schedule, when it is over, if an oracle has found
/// anything.
pub fn judge(lab: Lab) {
    let found = lab.findings().map(|finding| finding.oracle);
    CAUGHT.with_borrow_mut(|caught| caught.extend(found));
}

/// Plays `play`, which ends with [`judge`], in each schedule of `scheduler` until something breaks,
/// the scheduler has no more, or `time` has passed.
pub fn search(
    scheduler: impl Scheduler + 'static,
    time: Option<Duration>,
    play: impl Fn() + Send + Sync + 'static,
) -> Searched {
    let mut config = Config::new();
    config.max_steps = MaxSteps::None;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_time = time;
    // That only sequentially consistent schedules are tried is said above.
    config.silence_warnings = true;
    CAUGHT.with_borrow_mut(BTreeSet::clear);
    let tally = Rc::new(Tally::default());
    let counted = Counted {
        scheduler: ManuallyDrop::new(scheduler),
        tally: tally.clone(),
        steps: 0,
    };
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| Runner::new(counted, config).run(play)));
    let time = begun.elapsed();
    let caught = CAUGHT.with_borrow(|caught| {
        let oracles = caught.iter().map(|number| Oracle::try_from(*number));
        oracles.flatten().collect::<Vec<_>>()
    });
    // A panic is a deadlock that shuttle has found, or one of the code that plays.
    let is_broken = outcome.is_err() || tally.hangs.get() || !caught.is_empty();
    Searched {
        schedules: tally.schedules.get(),
        steps: tally.steps.get(),
        time,
        broke: is_broken.then_some(caught),
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
        if self.tally.hangs.get() || CAUGHT.with_borrow(|caught| !caught.is_empty()) {
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

/// Schedules with few switches and now and then a stall: a CPU is taken away wherever it is, as a
/// host does with a vCPU, and stays away while the others go on for long. Every race of these
/// designs has one CPU that comes late; chosen step by step at random, nobody ever is late by much.
#[derive(Debug)]
pub struct Stalls {
    random: fastrand::Rng,
    schedules: usize,
    /// At most [`STALLED`].
    stalled: Vec<TaskId>,
}

/// CPUs that are away at a time.
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
