//! Theirs: the calls of a case, made by the portable path on fibres that shuttle switches at every
//! access to an atomic. No machine, no guest image.

use std::sync::Arc;
use std::time::Duration;

use guest::checking::search::{self, SearchOutcome, Stalls, judge};
use guest::ipi::csd::Call;
use guest::ipi::queue::QueueKind;
use guest::ipi::{Functions, Ipi};
use guest::ledger::Ledger;
use guest::machine::Machine;
use guest::workload::deeds::Verb;
use kit::lab::Lab;
use kit::platform::{CpuId, Platform};
use kit::specimen::Part;
use kit::sync::mask::CpuMask;
use kit::threads::Threads;
use serde::Serialize;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use vmm::explore::case::Case;
use vmm::lab::mailbox::Command;
use vmm::manifest::Manifest;

use crate::search::{HANG, PCT_DEPTH, SearchResult};

/// The scheduler that chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShuttleStrategy {
    /// Shuttle's random scheduler.
    Random,
    /// Shuttle's PCT.
    Pct,
    /// The scheduler that `make test-schedules` has for these designs.
    Stalls,
}

impl ShuttleStrategy {
    /// The name that the table and the figures have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Pct => "pct",
            Self::Stalls => "stalls",
        }
    }
}

/// A call that a CPU is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlannedCall {
    verb: Verb,
    target: CpuId,
    mask: CpuMask,
    wait: bool,
}

/// What each CPU does.
#[derive(Clone, Debug)]
pub struct Program {
    calls: Arc<[Vec<PlannedCall>]>,
    lab: Lab,
}

impl Program {
    /// The program of `case`, whose words are those of the guest with this manifest.
    ///
    /// # Errors
    /// A sentence that names the first thing in it that is no call.
    pub fn new(case: &Case, manifest: &Manifest) -> Result<Self, String> {
        let cpus = case.cpus as usize;
        let call = |command: &Command| {
            let verb = Verb::try_from(command.verb).ok();
            let verb = verb.filter(|verb| {
                matches!(
                    verb,
                    Verb::CallSingle
                        | Verb::CallMany
                        | Verb::CallAll
                        | Verb::OnEach
                        | Verb::CallAny
                )
            });
            let verb = verb.ok_or_else(|| {
                let name = manifest.deed_name(command.verb);
                format!("\"{name}\" is nothing that is played under shuttle; calls are")
            })?;
            let mut mask = CpuMask::none(cpus);
            let targets = command.mask.iter();
            targets.for_each(|cpu| mask.insert(cpu as CpuId));
            Ok(PlannedCall {
                verb,
                target: command.arguments[0] as CpuId,
                mask,
                wait: command.wait,
            })
        };
        let commands = case.commands(manifest).map_err(|error| error.to_string())?;
        let calls = commands
            .iter()
            .map(|deeds| deeds.iter().map(call).collect());
        Ok(Self {
            calls: calls.collect::<Result<Vec<_>, String>>()?.into(),
            lab: Lab::allocate(case.cpus).expect("a case has as many CPUs as a lab can"),
        })
    }

    /// One schedule.
    fn play(&self, queue: QueueKind) {
        let cpus = self.calls.len();
        self.lab.clear();
        let platform = Threads::new(cpus);
        let machine = Machine::new(platform.clone(), cpus, self.lab);
        let functions = LedgerFunctions(Ledger::new(cpus));
        let ipi = Arc::new(Ipi::new(machine, queue, functions));
        let (handler, caller, calls) = (ipi.clone(), ipi.clone(), self.calls.clone());
        platform.run(
            move |vector| handler.handle(vector),
            move |cpu| {
                // As in the guest, two functions in turn, so that a mix-up of two calls is seen.
                let functions = [0, 1].into_iter().cycle();
                (calls[cpu].iter().zip(functions))
                    .for_each(|(planned, function)| make(&caller, planned, function));
                Part::Done
            },
        );
        ipi.audit();
        ipi.functions.0.audit(&ipi.machine);
        judge(self.lab);
    }
}

/// Functions that enter in the ledger that they ran.
#[derive(Debug)]
struct LedgerFunctions(Ledger);

impl<P: Platform> Functions<P> for LedgerFunctions {
    fn run(&self, ipi: &Ipi<P, Self>, call: Call) {
        self.0.ran(&ipi.machine, call);
    }
}

/// Makes a call of `function`, as a CPU of the guest does when its mailbox says so.
fn make<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, planned: &PlannedCall, function: u8) {
    const ONLINE: &str = "no CPU leaves";
    let PlannedCall {
        verb,
        target,
        mask,
        wait,
    } = *planned;
    let machine = &ipi.machine;
    let mut others = CpuMask::all(machine.cpus);
    others.remove(machine.this_cpu());
    let mut among = match verb {
        Verb::CallSingle => CpuMask::only(target, machine.cpus),
        Verb::CallAll => others,
        Verb::OnEach => CpuMask::all(machine.cpus),
        _ => mask,
    };
    if verb == Verb::CallMany {
        among.remove(machine.this_cpu());
    }
    let id = ipi.functions.0.open(machine, function, &among, wait);
    let call = Call {
        func: function.into(),
        info: id.raw(),
    };
    let targets = match verb {
        Verb::CallSingle => {
            ipi.call_single(target, call, wait).expect(ONLINE);
            among
        }
        Verb::CallAll => ipi.call_all(call, wait),
        Verb::OnEach => ipi.on_each_cpu(call, wait),
        Verb::CallAny => {
            let chosen = ipi.call_any(&mask, call, wait).expect(ONLINE);
            CpuMask::only(chosen, machine.cpus)
        }
        _ => ipi.call_many(&mask, call, wait),
    };
    ipi.functions.0.returned(machine, id, &targets);
}

/// Plays `program` in one schedule after another, for at most `time` or until something breaks.
pub fn search(
    program: &Program,
    strategy: ShuttleStrategy,
    queue: QueueKind,
    seed: u64,
    time: Duration,
) -> SearchResult {
    match strategy {
        ShuttleStrategy::Random => played(
            program,
            queue,
            time,
            RandomScheduler::new_from_seed(seed, usize::MAX),
        ),
        ShuttleStrategy::Pct => played(
            program,
            queue,
            time,
            PctScheduler::new_from_seed(seed, PCT_DEPTH, usize::MAX),
        ),
        ShuttleStrategy::Stalls => played(program, queue, time, Stalls::new(seed, usize::MAX)),
    }
}

fn played(
    program: &Program,
    queue: QueueKind,
    time: Duration,
    scheduler: impl Scheduler + 'static,
) -> SearchResult {
    let program = program.clone();
    let SearchOutcome {
        schedules,
        steps,
        time,
        broke,
    } = search::search(scheduler, Some(time), move || program.play(queue));
    SearchResult {
        schedules,
        steps,
        states: None,
        seconds: time.as_secs_f64(),
        broke: broke.map(|oracles| match &oracles[..] {
            [] => vec![HANG.to_owned()],
            some => some.iter().map(|oracle| oracle.name().to_owned()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const TIME: Duration = Duration::from_secs(3600);

    /// The manifest of the guest that is compared.
    fn manifest() -> Manifest {
        let image = ::tests::guest();
        Manifest::read(&std::fs::read(image).unwrap())
            .unwrap()
            .unwrap()
    }

    fn case() -> Case {
        Case::parse(include_str!("../../../scenarios/explore/lost-call.case")).unwrap()
    }

    #[test]
    fn what_is_played_is_what_the_case_says() {
        let case = case();
        let program = Program::new(&case, &manifest()).unwrap();
        let played = program.clone();
        let once = RandomScheduler::new_from_seed(1, 1);
        let searched = search::search(once, None, move || played.play(QueueKind::Filo));
        assert_eq!((searched.schedules, searched.broke), (1, None));
        let commands = case.commands(&manifest()).unwrap();
        for (cpu, commands) in commands.iter().enumerate() {
            let planned: Vec<_> = (commands.iter())
                .map(|command| (command.mask.words()[0], command.wait))
                .collect();
            let mut made: Vec<_> = (program.lab.records_of(cpu))
                .filter(|record| record.head.id.load(Ordering::Relaxed) != 0)
                .map(|record| {
                    let targets = record.targets[0].load(Ordering::Relaxed);
                    assert_eq!(record.ran[0].load(Ordering::Relaxed), targets);
                    (targets, record.head.wait.load(Ordering::Relaxed) != 0)
                })
                .collect();
            made.sort_unstable();
            assert_eq!(made, planned, "CPU {cpu}");
        }
    }

    #[test]
    fn the_call_is_lost_where_it_should_be() {
        let program = Program::new(&case(), &manifest()).unwrap();
        let played = |queue, schedules| played(&program, queue, TIME, Stalls::new(1, schedules));
        let fifo = played(QueueKind::Fifo, 1_000_000);
        let broke = fifo.broke.expect("fifo loses a call");
        assert!(
            broke.iter().any(|name| name == "lost" || name == HANG),
            "{broke:?}"
        );
        assert!(fifo.schedules < 1_000_000);
        let filo = played(QueueKind::Filo, 2_000);
        assert_eq!((filo.schedules, filo.broke), (2_000, None));
        assert!(filo.steps > filo.schedules);
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let case = Case::parse("cpus 2\n0: single 1; irqs-off").unwrap();
        let refusal = Program::new(&case, &manifest()).unwrap_err();
        assert!(refusal.contains("irqs-off"), "{refusal}");
    }

    #[test]
    fn every_call_of_a_case_can_be_played() {
        let text = "cpus 3\n0: single 1 wait; many 0,1,2; all\n1: each wait; any 0,2 wait";
        let program = Program::new(&Case::parse(text).unwrap(), &manifest()).unwrap();
        let result = played(
            &program,
            QueueKind::Filo,
            TIME,
            RandomScheduler::new_from_seed(1, 200),
        );
        assert_eq!((result.schedules, result.broke), (200, None));
    }
}
