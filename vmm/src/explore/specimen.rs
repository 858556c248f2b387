//! The specimen: a machine whose CPUs go on one at a time, from stop to stop, and can be put back to where they
//! were. It is the transition system that a search explores: which choices there are, what one leads to, and
//! whether anything broke. It makes no choice itself.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;
use shared::lab::{Oracle, Stacks};
use shared::mailbox::{Verb, WAKE_VECTOR};
use shared::probe::{Arms, HELD};
use shared::stop::{self, Access, Kind};
use vmm_sys_util::errno;
use xxhash_rust::xxh3::{Xxh3, xxh3_128, xxh3_128_with_seed};

use super::case::Case;
use super::schedule::{Choice, Granularity};
use super::sharing::{Sharing, Who};
use crate::cpus::CpuSet;
use crate::lab::Lab;
use crate::lab::judge;
use crate::lab::mailbox::Command;
use crate::machine::image::Image;
use crate::machine::kick::Alarm;
use crate::machine::layout::{Layout, LayoutError};
use crate::machine::points::{Point, Points};
use crate::machine::ram::{PAGE, Page};
use crate::machine::serial::{Halt, Serial};
use crate::machine::state::CpuState;
use crate::machine::symbols::Symbols;
use crate::machine::threads::{Crew, CrewError, End, Event, Message, OnMessage, Reaction};
use crate::machine::vm::HostError;
use crate::machine::{Machine, MachineError, Parts, boot};

/// MiB of RAM beside what image and lab need.
const SPARE_MIB: u64 = 8;

/// How long the machine may take to boot.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// How long a CPU may go on without coming to a stop. One that is sound does within microseconds.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Stops in one turn after which a CPU is said to go round and round.
const ENDLESS: u32 = 100_000;

/// The first of the vectors that can be pending; the others come behind it.
const FIRST_VECTOR: u8 = 0xf0;

/// Bytes below the stack pointer that are cleared at each stop: more than any turn leaves behind, so that what
/// is left there by chance does not make two states of one.
const CLEARED: usize = PAGE;

/// The point at which a handler says that it has begun.
const HANDLER: &str = "irq.enter";

const INTERRUPT_FLAG: u64 = 1 << 9;

/// Why there is no specimen, or why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SpecimenError {
    /// No machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No lab.
    #[error("cannot write the lab to guest memory")]
    Lab(#[source] vm_memory::GuestMemoryError),
    /// No threads to boot it on.
    #[error(transparent)]
    Crew(#[from] CrewError),
    /// No host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The image has not the points that a search needs.
    #[error(
        "the guest image has no point \"{point}\", without which it cannot be explored{hint}",
        hint = if *.point == stop::NAME {
            "; build one that stops at each access (guest/build explore), or take --granularity probe"
        } else { "" }
    )]
    NoPoint {
        /// Its name.
        point: &'static str,
    },
    /// The guest ended before it could be told anything.
    #[error("the guest ended before its CPUs were ready: {0}")]
    NotReady(String),
    /// The guest did not come to where it can be told anything.
    #[error(
        "not all CPUs of the guest were ready after {} s", BOOT_LIMIT.as_secs()
    )]
    Late,
    /// KVM refused.
    #[error("KVM refused to {0}")]
    Kvm(&'static str, #[source] errno::Error),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// The machine is not what it was, where nothing should have changed.
    #[error("CPU {cpu} differs at a stop in what no stop can change: {what}")]
    NotExact {
        /// The CPU.
        cpu: usize,
        /// In what.
        what: &'static str,
    },
}

fn kvm(what: &'static str) -> impl FnOnce(errno::Error) -> SpecimenError {
    move |error| SpecimenError::Kvm(what, error)
}

/// What broke, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Names of oracles, or of [`super::case::OTHER_BREACHES`]; sorted, each once.
    pub names: Vec<String>,
    /// Sentences about it.
    pub texts: Vec<String>,
}

impl Breach {
    fn new(name: &str, text: String) -> Self {
        Self {
            names: vec![name.to_owned()],
            texts: vec![text],
        }
    }

    fn add(&mut self, name: &str, text: String) {
        if let Err(at) = self.names.binary_search_by(|known| (**known).cmp(name)) {
            self.names.insert(at, name.to_owned());
        }
        if !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }
}

/// Where a CPU has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Before an access to shared memory, or before it disables interrupts.
    Access(Kind, u64),
    /// Before an IPI leaves it.
    Send {
        /// To which CPU.
        target: usize,
        /// Which.
        vector: u8,
    },
    /// It waits for an interrupt.
    Idle,
    /// In a loop that waits for another CPU.
    Relax,
    /// It has left, and does nothing any more.
    Left,
    /// At a named point, by its place among the image's points.
    Point(usize),
    /// Before the instruction at this address.
    Instruction(u64),
}

/// One CPU, stopped.
#[derive(Debug, Clone)]
pub struct Stopped {
    regs: kvm_regs,
    /// Where.
    pub at: Stop,
    /// Whether one of its handlers runs, and not its task.
    pub in_handler: bool,
    /// Words that its task and its handler have read since they last did anything else, with what they held.
    seen: [Vec<(u64, u64)>; 2],
    /// Locks that its task and its handler hold.
    locks: [Vec<u64>; 2],
    /// The lock that it has been said to take, whose accesses still follow.
    taking: Option<u64>,
    /// What memory that CPUs share looked like when it came to a loop in which it waits, where nobody says
    /// what it has read.
    waits_since: Option<u128>,
    /// Whether its task will announce once more what it was about to do when it took an interrupt.
    repeats: bool,
    /// Vectors that are pending, from [`FIRST_VECTOR`] on.
    pending: u16,
    /// Commands that it was given so far.
    given: usize,
    /// Whether others can get in its way here.
    is_contended: bool,
}

impl Stopped {
    /// The place of its context in what is kept for each.
    fn context(&self) -> usize {
        usize::from(self.in_handler)
    }

    fn who(&self, cpu: usize) -> Who {
        Who {
            cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
            in_handler: self.in_handler,
        }
    }

    /// Whether it takes interrupts here.
    pub fn irqs_on(&self) -> bool {
        self.regs.rflags & INTERRUPT_FLAG != 0 || self.at == Stop::Idle
    }

    /// The vectors that are pending.
    pub fn pending(&self) -> impl Iterator<Item = u8> + use<> {
        let pending = self.pending;
        (0..16)
            .filter(move |bit| pending >> bit & 1 != 0)
            .map(|bit| FIRST_VECTOR + bit)
    }

    /// Words that it waits to see changed, if it does.
    pub fn watched(&self) -> impl Iterator<Item = u64> {
        let seen = if self.at == Stop::Relax {
            &self.seen[self.context()][..]
        } else {
            &[]
        };
        seen.iter().map(|(word, _)| *word)
    }

    /// Its instruction pointer.
    pub fn rip(&self) -> u64 {
        self.regs.rip
    }
}

/// A page as it was.
#[derive(Debug)]
struct Kept {
    bytes: Page,
    /// What it adds to the key of a state: nothing, as long as it is what it was at first. Keys so do not depend
    /// on which pages happen to be kept.
    share: u128,
}

/// A state of the machine, to which it can be put back.
#[derive(Debug, Clone)]
pub struct State {
    /// The numbers of the pages that were kept by then, ascending.
    numbers: Arc<[usize]>,
    /// Those pages. All others were as they were at first.
    pages: Vec<Arc<Kept>>,
    cpus: Vec<Stopped>,
    key: u128,
}

impl State {
    /// A number that tells it from other states. Equal states, in all that can matter from there on, have
    /// equal numbers.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// The CPUs.
    pub fn cpus(&self) -> &[Stopped] {
        &self.cpus
    }
}

/// What to explore.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The guest image.
    pub image: &'a Image,
    /// The case.
    pub case: &'a Case,
    /// Words for the guest beyond the case's own.
    pub append: &'a str,
    /// Where CPUs stop.
    pub granularity: Granularity,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Stops that the CPU came to, the last of which it is at.
    pub stops: u32,
    /// What broke on the way.
    pub breach: Option<Breach>,
}

/// Addresses of the points that mean something to a search.
#[derive(Debug, Clone, Copy)]
struct Known {
    access: Option<u64>,
    idle: u64,
    relax: [u64; 8],
    left: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Specimen {
    serial: Serial,
    lab: Lab,
    points: Points,
    symbols: Symbols,
    known: Known,
    granularity: Granularity,
    programs: Vec<Vec<Command>>,
    stacks: Vec<Stacks>,
    cpus: Vec<Stopped>,
    /// The pages that are kept, and what is in RAM now.
    kept: Vec<(usize, Arc<Kept>)>,
    /// Their numbers.
    numbers: Arc<[usize]>,
    /// Whether a schedule has written pages that were not kept before, since that was last asked.
    has_grown: bool,
    /// Pages whose contents do not matter: counts, and traces.
    unobserved: Vec<usize>,
    /// All of RAM as it was at first.
    origin: Vec<u8>,
    origin_cpus: Vec<CpuState>,
    root: State,
    image: u128,
    beginning: u128,
    interrupted: fn() -> bool,
    /// Ends each stay in the guest that lasts too long.
    _alarm: Alarm,
}

/// How the guest is told to behave so that only the order of its CPUs decides what happens.
const FIXED_WORDS: &str = "workload=puppet transport=wire clock=stopped";

impl Specimen {
    /// Boots the machine, up to where every CPU waits for its first command. `interrupted` is asked when a
    /// signal comes.
    ///
    /// # Errors
    /// [`SpecimenError`] says what is in the way.
    pub fn boot(setup: &Setup<'_>, interrupted: fn() -> bool) -> Result<Self, SpecimenError> {
        let points = Points::read(setup.image.bytes()).map_err(MachineError::from)?;
        let known = Known::find(&points, setup.granularity)?;
        let vcpus = setup.case.cpus;
        let pages = shared::lab::Layout::new(vcpus).expect("a case has as many CPUs as a lab can");
        let layout = smallest(setup.image, vcpus, pages.size).map_err(MachineError::from)?;
        let words = format!("{} {} {FIXED_WORDS}", setup.case.append, setup.append);
        let line =
            boot::command_line(words.trim(), layout.lab.start).map_err(MachineError::from)?;
        let machine = Machine::build(&Parts {
            image: setup.image,
            vcpus,
            layout: &layout,
            command_line: &line,
        })?;
        let lab = Lab::prepare(machine.memory.clone(), layout.lab.start, pages)
            .map_err(SpecimenError::Lab)?;
        let mut serial = run_to_idle(machine, &lab, &points, known.idle)?;
        drain(&mut serial, known.idle)?;
        let stacks: Vec<_> = (0..vcpus).map(|cpu| lab.stacks(cpu)).collect();

        let mut specimen = Self {
            cpus: (0..serial.cpus())
                .map(|cpu| at_rest(serial.regs(cpu)))
                .collect(),
            programs: programs(setup.case),
            unobserved: lab.unobserved_pages(),
            origin: Vec::new(),
            origin_cpus: Vec::new(),
            root: State {
                numbers: Arc::from([]),
                pages: Vec::new(),
                cpus: Vec::new(),
                key: 0,
            },
            kept: Vec::new(),
            numbers: Arc::from([]),
            has_grown: false,
            granularity: setup.granularity,
            image: xxh3_128(setup.image.bytes()),
            beginning: 0,
            _alarm: Alarm::set(),
            symbols: Symbols::read(setup.image.bytes()),
            serial,
            lab,
            points,
            known,
            stacks,
            interrupted,
        };
        specimen.begin()?;
        Ok(specimen)
    }

    /// Makes what is there now the beginning of every schedule.
    fn begin(&mut self) -> Result<(), SpecimenError> {
        self.lab.forget_times();
        for cpu in 0..self.cpus.len() {
            let stacks = self.stacks[cpu];
            let rsp = self.cpus[cpu].regs.rsp;
            self.clear(stacks.task[0], rsp.min(stacks.task[1]));
            self.clear(stacks.handler[0], stacks.handler[1]);
        }
        self.arm(true);
        self.serial
            .newly_written()
            .map_err(kvm("say which pages were written"))?;
        for cpu in 0..self.cpus.len() {
            if self.give(cpu) {
                // It sleeps, and looks for commands when it is woken.
                self.cpus[cpu].pending |= bit(WAKE_VECTOR);
            }
        }
        self.origin_cpus = self.serial.capture().map_err(kvm("show all of a vCPU"))?;
        let ram = self.serial.ram();
        let mut origin = Vec::with_capacity(ram.pages() * PAGE);
        (0..ram.pages()).for_each(|number| origin.extend_from_slice(ram.page(number)));
        self.beginning = self.number_of(&origin);
        self.origin = origin;
        self.root = self.save();
        Ok(())
    }

    /// A number for all that memory holds, but for what does not matter.
    fn number_of(&self, ram: &[u8]) -> u128 {
        let mut hash = Xxh3::new();
        for (number, page) in ram.chunks(PAGE).enumerate() {
            if !self.unobserved.contains(&number) {
                hash.update(page);
            }
        }
        hash.digest128()
    }

    /// A number that tells this beginning from that of another boot, or on another host.
    pub fn beginning(&self) -> u128 {
        self.beginning
    }

    /// The beginning of every schedule.
    pub fn root(&self) -> &State {
        &self.root
    }

    /// A number that tells the guest's image from others.
    pub fn image(&self) -> u128 {
        self.image
    }

    /// Where CPUs stop.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The CPUs as they stand.
    pub fn cpus(&self) -> &[Stopped] {
        &self.cpus
    }

    /// The functions of the image.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The calls on their way.
    pub fn open_calls(&self) -> Vec<String> {
        let open = judge::open_calls(&self.lab).first;
        open.iter().map(ToString::to_string).collect()
    }

    /// Guest RAM, to look at.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.serial.ram().word(address)
    }

    /// The addresses to which the functions that `cpu` is in will return, innermost first, as far as they can
    /// be followed.
    pub fn callers(&self, cpu: usize) -> Vec<u64> {
        const DEPTH: usize = 8;
        let regs = &self.cpus[cpu].regs;
        let mut callers: Vec<u64> = self.word(regs.rsp).into_iter().collect();
        let mut frame = regs.rbp;
        while callers.len() < DEPTH {
            let (Some(next), Some(caller)) = (self.word(frame), self.word(frame.wrapping_add(8)))
            else {
                break;
            };
            callers.push(caller);
            // Frames lie one above the other.
            if next <= frame {
                break;
            }
            frame = next;
        }
        callers
    }

    /// Whether a signal came that is to end the search.
    pub fn is_to_end(&self) -> bool {
        (self.interrupted)()
    }

    /// A stop in words.
    pub fn describe(&self, at: Stop) -> String {
        match at {
            Stop::Access(Kind::IrqsOff, _) => "irqs-off".to_owned(),
            Stop::Access(kind, address) => {
                let kind = match kind {
                    Kind::Load => "load",
                    Kind::Store => "store",
                    Kind::ReadModifyWrite => "rmw",
                    Kind::Lock => "lock",
                    Kind::Mark => "mark",
                    Kind::IrqsOff => "irqs-off",
                };
                format!("{kind} {address:#x}")
            }
            Stop::Send { target, vector } => format!("send {vector:#x} to {target}"),
            Stop::Idle => "idle".to_owned(),
            Stop::Relax => "relax".to_owned(),
            Stop::Left => "left".to_owned(),
            Stop::Point(index) => {
                let point = self.points.iter().nth(index);
                point.map_or_else(|| index.to_string(), |point| point.name.clone())
            }
            Stop::Instruction(rip) => format!("at {rip:#x}"),
        }
    }

    /// The choices there are. None means that it is over.
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (cpu, stopped) in self.cpus.iter().enumerate() {
            if self.can_run(stopped) {
                choices.push(Choice { cpu, takes: None });
            }
            // Behind the instruction by which an IPI leaves nothing happens that others see before the next
            // stop, so that interrupts can as well be taken there.
            let takes = stopped.irqs_on() && !matches!(stopped.at, Stop::Left | Stop::Send { .. });
            if takes {
                // The highest first, as it is when they arrive together.
                let mut pending: Vec<_> = stopped.pending().collect();
                pending.reverse();
                choices.extend(pending.into_iter().map(|vector| Choice {
                    cpu,
                    takes: Some(vector),
                }));
            }
        }
        choices
    }

    fn can_run(&self, stopped: &Stopped) -> bool {
        match stopped.at {
            Stop::Idle | Stop::Left => false,
            Stop::Relax => match stopped.waits_since {
                Some(before) => self.shared_memory() != before,
                None => {
                    let ram = self.serial.ram();
                    (stopped.seen[stopped.context()].iter())
                        .any(|(word, value)| ram.word(*word) != Some(*value))
                }
            },
            Stop::Access(Kind::Lock, address) => self.half_word(address) == 0,
            Stop::Access(..) | Stop::Send { .. } | Stop::Point(_) | Stop::Instruction(_) => true,
        }
    }

    /// The four bytes at `address`.
    fn half_word(&self, address: u64) -> u32 {
        let word = self.serial.ram().word(address & !7).unwrap_or(0);
        let bytes = word >> (address % 8 * 8) & u64::from(u32::MAX);
        u32::try_from(bytes).unwrap_or(0)
    }

    /// Does what `choice` says, and goes on as long as nobody can get in the way of that CPU.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails, or a signal comes. What the guest does is no error.
    pub fn advance(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError> {
        let mut choice = choice;
        let mut stops = 0;
        loop {
            let breach = self.step(choice, sharing)?;
            stops += 1;
            if breach.is_some() || self.cpus[choice.cpu].is_contended {
                self.tidy(choice.cpu);
                return Ok(Moved { stops, breach });
            }
            if stops == ENDLESS {
                let text = format!("CPU {} goes round and round without waiting", choice.cpu);
                return Ok(Moved {
                    stops,
                    breach: Some(Breach::new("livelock", text)),
                });
            }
            choice.takes = None;
        }
    }

    /// As [`Specimen::advance`], to the `stops`th stop and whoever may get in the way. `on_stop` is shown each.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub fn follow(
        &mut self,
        choice: Choice,
        stops: u32,
        sharing: &mut Sharing,
        on_stop: &mut dyn FnMut(&Self),
    ) -> Result<Moved, SpecimenError> {
        let mut choice = choice;
        for done in 1..=stops {
            let breach = self.step(choice, sharing)?;
            on_stop(self);
            if breach.is_some() || done == stops {
                self.tidy(choice.cpu);
                return Ok(Moved {
                    stops: done,
                    breach,
                });
            }
            choice.takes = None;
        }
        Ok(Moved {
            stops: 0,
            breach: None,
        })
    }

    /// Runs one CPU to its next stop.
    fn step(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Option<Breach>, SpecimenError> {
        let cpu = choice.cpu;
        // One that sleeps is not stepped out of its sleep, of which not every KVM knows an end then, but runs
        // to where its handler says that it has begun.
        let stepping =
            self.granularity == Granularity::Instruction && self.cpus[cpu].at != Stop::Idle;
        if let Some(vector) = choice.takes {
            let stopped = &mut self.cpus[cpu];
            stopped.pending &= !bit(vector);
            // What it is about to do comes behind the interrupt, and is announced once more then.
            if !matches!(stopped.at, Stop::Idle | Stop::Instruction(_)) {
                stopped.repeats = true;
                self.serial.repeat(cpu);
            }
            self.cpus[cpu].seen[1].clear();
            self.serial
                .interrupt(cpu, vector)
                .map_err(kvm("deliver an interrupt"))?;
        } else {
            self.leave_stop(cpu, sharing);
        }
        let begun = Instant::now();
        let at = loop {
            if stepping {
                self.serial
                    .set_stepping(cpu, true)
                    .map_err(kvm("execute a single instruction"))?;
            }
            match self.serial.run(cpu) {
                Halt::Reached { point, word } => match self.reached(cpu, point, word) {
                    Ok(Some(at)) => break at,
                    Ok(None) => {}
                    Err(breach) => return Ok(Some(breach)),
                },
                Halt::Done => {
                    self.give(cpu);
                }
                Halt::Dispatch(dispatch) => {
                    let (target, vector) = (dispatch.target as usize, dispatch.vector);
                    if target >= self.cpus.len() || vector < FIRST_VECTOR {
                        let text = format!("CPU {cpu} sent {vector:#x} to CPU {target}");
                        return Ok(Some(Breach::new("died", text)));
                    }
                    break Stop::Send { target, vector };
                }
                Halt::Stepped => {
                    let regs = self.serial.regs(cpu);
                    // An interrupt that was sent and not yet taken is a state of the local APIC.
                    let is_on_its_way = choice.takes.is_some() && !self.is_handling(cpu, regs.rsp);
                    if !is_on_its_way && !self.is_half_way(regs.rip) {
                        break Stop::Instruction(regs.rip);
                    }
                }
                Halt::Other(_) => {}
                Halt::Interrupted => {
                    if (self.interrupted)() {
                        return Err(SpecimenError::Interrupted);
                    }
                    if begun.elapsed() >= STEP_LIMIT {
                        let limit = STEP_LIMIT.as_secs();
                        let text = format!("CPU {cpu} has not come to a stop for {limit} s");
                        return Ok(Some(Breach::new("livelock", text)));
                    }
                }
                Halt::GuestExit(code) => {
                    let text = format!("the guest ended on CPU {cpu} with {code:#x}");
                    return Ok(Some(Breach::new("died", self.with_console(text))));
                }
                Halt::Dead(death) => {
                    let text = format!("the guest died on CPU {cpu}: {death}");
                    return Ok(Some(Breach::new("died", self.with_console(text))));
                }
            }
        };
        let regs = self.serial.regs(cpu);
        let in_handler = self.is_handling(cpu, regs.rsp);
        let waits = at == Stop::Relax && self.known.access.is_none();
        let waits_since = waits.then(|| self.shared_memory());
        let stopped = &mut self.cpus[cpu];
        stopped.regs = regs;
        stopped.at = at;
        stopped.in_handler = in_handler;
        // One that comes back to where it waited waits for what it waited for before.
        let comes_back = stopped.repeats && !in_handler;
        stopped.repeats &= in_handler;
        if !comes_back {
            stopped.waits_since = waits_since;
        }
        self.cpus[cpu].is_contended = self.is_contended(cpu, sharing);
        Ok(self.findings())
    }

    /// Whether `rsp` is on the stack of the handlers of `cpu`.
    fn is_handling(&self, cpu: usize, rsp: u64) -> bool {
        let [start, end] = self.stacks[cpu].handler;
        (start..end).contains(&rsp)
    }

    /// Whether a CPU that has come to `rip` by one step has just enabled interrupts, or halted: it is then in a
    /// state that is more than its registers, until the next instruction.
    fn is_half_way(&self, rip: u64) -> bool {
        const STI: u8 = 0xfb;
        const HLT: u8 = 0xf4;
        let last = usize::try_from(rip.wrapping_sub(1)).unwrap_or(usize::MAX);
        let ram = self.serial.ram();
        let (number, offset) = (last / PAGE, last % PAGE);
        number < ram.pages() && [STI, HLT].contains(&ram.page(number)[offset])
    }

    /// What happens between a stop and the first instruction behind it.
    fn leave_stop(&mut self, cpu: usize, sharing: &mut Sharing) {
        let at = self.cpus[cpu].at;
        let word = match at {
            Stop::Access(_, address) => self.serial.ram().word(address & !7),
            _ => None,
        };
        let stopped = &mut self.cpus[cpu];
        let context = stopped.context();
        let (locks, seen) = (&mut stopped.locks[context], &mut stopped.seen[context]);
        match at {
            Stop::Access(Kind::Load, address) => {
                let address = address & !7;
                let value = word.unwrap_or(0);
                match seen.iter_mut().find(|(seen, _)| *seen == address) {
                    Some((_, old)) => *old = value,
                    None => seen.push((address, value)),
                }
            }
            Stop::Access(kind, address) => {
                seen.clear();
                match kind {
                    Kind::Lock => {
                        locks.push(address);
                        stopped.taking = Some(address);
                    }
                    Kind::Store => locks.retain(|lock| *lock != address),
                    _ => {}
                }
            }
            Stop::Send { target, vector } => {
                seen.clear();
                self.cpus[target].pending |= bit(vector);
                sharing.interrupts(target);
            }
            _ => {}
        }
    }

    /// What it means that `cpu` has come to `point`: a stop, or nothing.
    fn reached(&mut self, cpu: usize, point: u64, word: u64) -> Result<Option<Stop>, Breach> {
        if Some(point) == self.known.access {
            let Some((kind, address)) = Access::from_word(word) else {
                let text = format!("CPU {cpu} is about to access {word:#x}, which is no access");
                return Err(Breach::new("died", text));
            };
            let stopped = &mut self.cpus[cpu];
            // The lock is free, and one exchange takes it.
            if kind == Kind::ReadModifyWrite && stopped.taking.take() == Some(address) {
                return Ok(None);
            }
            return Ok(Some(Stop::Access(kind, address)));
        }
        if point == self.known.idle {
            return Ok(Some(Stop::Idle));
        }
        if self.known.relax.contains(&point) {
            return Ok(Some(Stop::Relax));
        }
        if point == self.known.left {
            return Ok(Some(Stop::Left));
        }
        match self.points.at(point) {
            Some(point) => Ok(Some(Stop::Point(point.index))),
            None => Err(Breach::new(
                "died",
                format!("CPU {cpu} says it has come to {point:#x}, where no point is"),
            )),
        }
    }

    /// Whether others can get in the way of `cpu` where it is.
    fn is_contended(&self, cpu: usize, sharing: &mut Sharing) -> bool {
        let stopped = &self.cpus[cpu];
        let locks = &stopped.locks[stopped.context()];
        match stopped.at {
            Stop::Access(Kind::IrqsOff, _) => sharing.is_interrupted(cpu),
            // Whoever wants the lock waits for it to be let go, and can do nothing else with it.
            Stop::Access(Kind::Store, address) if locks.contains(&address) => false,
            Stop::Access(kind, address) => {
                sharing.conflicts(stopped.who(cpu), kind, address, locks)
            }
            _ => true,
        }
    }

    /// Gives `cpu` its next command, if it has one.
    fn give(&mut self, cpu: usize) -> bool {
        let given = self.cpus[cpu].given;
        let Some(command) = self.programs[cpu].get(given) else {
            return false;
        };
        self.cpus[cpu].given = given + 1;
        let id = u32::try_from(cpu).unwrap_or(u32::MAX);
        self.lab.post(id, given as u64 + 1, command);
        true
    }

    /// What the guest's own oracles have found.
    fn findings(&self) -> Option<Breach> {
        let at = self.lab.findings_made_at();
        let word = self.serial.ram().word(at & !7)?;
        if word >> (at % 8 * 8) & u64::from(u32::MAX) == 0 {
            return None;
        }
        let mut breach: Option<Breach> = None;
        for finding in self.lab.findings() {
            let found = crate::report::found_by_guest(finding);
            let name = Oracle::try_from(finding.oracle).map_or("died", Oracle::name);
            match &mut breach {
                None => breach = Some(Breach::new(name, found.text)),
                Some(breach) => breach.add(name, found.text),
            }
        }
        breach
    }

    fn with_console(&self, text: String) -> String {
        let said = self.serial.devices().console().take();
        let said = String::from_utf8_lossy(&said);
        match said.trim() {
            "" => text,
            said => format!("{text}\n{said}"),
        }
    }

    /// What broke, if nothing can go on.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub fn judge(&mut self) -> Result<Option<Breach>, SpecimenError> {
        let waiting: Vec<_> = (0..self.cpus.len())
            .filter(|cpu| !self.is_done(*cpu))
            .collect();
        if waiting.is_empty() {
            return self.finish();
        }
        let cpus: CpuSet = waiting.iter().map(|cpu| *cpu as u32).collect();
        let text = format!("{} waits for ever", cpus.noun());
        let mut breach = Breach::new("hang", text);
        for open in judge::open_calls(&self.lab).first {
            let record = &open.0;
            let is_lost = !record.targets.without(&record.ran).is_empty();
            breach.add(if is_lost { "lost" } else { "hang" }, open.to_string());
        }
        Ok(Some(breach))
    }

    /// Whether `cpu` has done all it was told.
    fn is_done(&self, cpu: usize) -> bool {
        let id = u32::try_from(cpu).unwrap_or(u32::MAX);
        let done = self.lab.mailbox(id).map_or(0, |mailbox| mailbox.done);
        self.cpus[cpu].at == Stop::Left || done == self.programs[cpu].len() as u64
    }

    /// Has the guest look for what was left behind, and looks itself. The machine is then as it was before.
    fn finish(&mut self) -> Result<Option<Breach>, SpecimenError> {
        // What the schedule has written by now is its own; what comes from here on is not.
        self.has_grown |= self.keep_written()?;
        let before = self.save();
        self.arm(false);
        let breach = self.run_to_end();
        self.arm(true);
        self.serial
            .restore(&self.origin_cpus)
            .map_err(kvm("take back all of a vCPU"))?;
        self.keep_written()?;
        self.load(&before);
        // Whatever it printed on the way.
        let _ = self.serial.devices().console().take();
        breach
    }

    fn run_to_end(&mut self) -> Result<Option<Breach>, SpecimenError> {
        let members: Vec<_> = (0..self.cpus.len())
            .filter(|cpu| self.cpus[*cpu].at != Stop::Left)
            .collect();
        let mask: CpuSet = members.iter().map(|cpu| *cpu as u32).collect();
        for &cpu in &members {
            let command = Command::among(Verb::Finish, mask.clone());
            let id = u32::try_from(cpu).unwrap_or(u32::MAX);
            self.lab.post(id, self.cpus[cpu].given as u64 + 1, &command);
            self.serial
                .interrupt(cpu, WAKE_VECTOR)
                .map_err(kvm("deliver an interrupt"))?;
        }
        let begun = Instant::now();
        loop {
            let mut has_moved = false;
            for &cpu in &members {
                // One that spins has its interrupts off, and needs none to find its command.
                let spins = self.cpus[cpu].at != Stop::Idle && !has_moved;
                let wakes = self
                    .serial
                    .is_interrupted(cpu)
                    .map_err(kvm("show an APIC"))?;
                if !spins && !wakes {
                    continue;
                }
                has_moved = true;
                loop {
                    match self.serial.run(cpu) {
                        Halt::Reached { .. } => break,
                        Halt::Dispatch(dispatch) => {
                            let target = dispatch.target as usize;
                            if target < self.cpus.len() {
                                self.serial
                                    .interrupt(target, dispatch.vector)
                                    .map_err(kvm("deliver an interrupt"))?;
                            }
                        }
                        Halt::Done | Halt::Other(_) | Halt::Stepped => {}
                        Halt::Interrupted => {
                            if (self.interrupted)() {
                                return Err(SpecimenError::Interrupted);
                            }
                            if begun.elapsed() >= STEP_LIMIT {
                                let text = "the guest does not come to its end".to_owned();
                                return Ok(Some(Breach::new("hang", text)));
                            }
                        }
                        Halt::GuestExit(_) => return Ok(self.verdict()),
                        Halt::Dead(death) => {
                            let text = format!("the guest died on CPU {cpu}: {death}");
                            return Ok(Some(Breach::new("died", self.with_console(text))));
                        }
                    }
                }
            }
            if !has_moved {
                let text = "the guest does not come to its end".to_owned();
                return Ok(Some(Breach::new("hang", text)));
            }
        }
    }

    /// What the guest found at its end, and what we find in the ledger.
    fn verdict(&self) -> Option<Breach> {
        let mut breach = self.findings();
        for found in judge::judge(&self.lab).first {
            match &mut breach {
                None => breach = Some(Breach::new(found.oracle.name(), found.text)),
                Some(breach) => breach.add(found.oracle.name(), found.text),
            }
        }
        breach
    }

    /// Has CPUs stop where a search wants them to, or only where they are idle.
    fn arm(&mut self, on: bool) {
        let mut arms = Arms::default();
        for point in self.points.iter() {
            let always = point.address == self.known.idle || point.address == self.known.left;
            let is_access = Some(point.address) == self.known.access;
            let relaxes = self.known.relax.contains(&point.address);
            let wanted = match self.granularity {
                Granularity::Probe => !is_access,
                Granularity::Access => relaxes || is_access,
                Granularity::Instruction => relaxes || point.name == HANDLER,
            };
            let armed = always || (on && wanted);
            self.lab
                .arm_point(point.armed_address(), if armed { HELD } else { 0 });
            if armed {
                arms[point.index / 64] |= 1 << (point.index % 64);
            }
        }
        for cpu in 0..self.lab.cpus() {
            self.lab.arm(cpu, &arms);
        }
    }

    /// Clears what `cpu` has left behind where nobody will read it.
    fn tidy(&mut self, cpu: usize) {
        if self.granularity == Granularity::Instruction {
            return;
        }
        let Stacks { task, handler } = self.stacks[cpu];
        let rsp = self.cpus[cpu].regs.rsp;
        let within = |[start, end]: [u64; 2]| (start..=end).contains(&rsp);
        if within(handler) {
            self.clear(handler[0].max(rsp.saturating_sub(CLEARED as u64)), rsp);
        } else if within(task) {
            self.clear(task[0].max(rsp.saturating_sub(CLEARED as u64)), rsp);
            self.clear(
                handler[0].max(handler[1].saturating_sub(CLEARED as u64)),
                handler[1],
            );
        }
    }

    /// Clears RAM from `start` to `end`, as far as there is any, and, once there is a beginning to go back to,
    /// only in pages that are kept.
    fn clear(&mut self, start: u64, end: u64) {
        let (Ok(mut at), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return;
        };
        while at < end {
            let (number, offset) = (at / PAGE, at % PAGE);
            let length = (PAGE - offset).min(end - at);
            let has_begun = !self.origin.is_empty();
            let is_kept = self
                .kept
                .binary_search_by_key(&number, |(kept, _)| *kept)
                .is_ok();
            if number < self.serial.ram().pages() && (is_kept || !has_begun) {
                self.serial.ram_mut().page_mut(number)[offset..offset + length].fill(0);
            }
            at += length;
        }
    }

    /// Keeps, from now on, the pages that the guest has written for the first time. Whether there were any:
    /// then states that were saved before it last was asked may lack them.
    ///
    /// # Errors
    /// If KVM does not say.
    pub fn keep_new_pages(&mut self) -> Result<bool, SpecimenError> {
        let is_new = self.keep_written()?;
        Ok(std::mem::take(&mut self.has_grown) || is_new)
    }

    /// Keeps the pages that were written for the first time. Whether there were any.
    fn keep_written(&mut self) -> Result<bool, SpecimenError> {
        let new = self
            .serial
            .newly_written()
            .map_err(kvm("say which pages were written"))?;
        for number in &new {
            if let Err(at) = self.kept.binary_search_by_key(number, |(kept, _)| *kept) {
                let kept = Arc::new(self.keep(*number, self.serial.ram().page(*number)));
                self.kept.insert(at, (*number, kept));
                let first = self.original(*number);
                self.root.pages.insert(at, Arc::new(first));
            }
        }
        if !new.is_empty() {
            self.numbers = self.kept.iter().map(|(number, _)| *number).collect();
            self.root.numbers = Arc::clone(&self.numbers);
        }
        Ok(!new.is_empty())
    }

    /// Page `number` as it was at first.
    fn original(&self, number: usize) -> Kept {
        Kept {
            bytes: *self.origin(number),
            share: 0,
        }
    }

    fn origin(&self, number: usize) -> &Page {
        let start = number * PAGE;
        self.origin[start..start + PAGE]
            .try_into()
            .expect("a page is a page long")
    }

    /// Page `number` as it is.
    fn keep(&self, number: usize, bytes: &Page) -> Kept {
        let is_same = self.unobserved.contains(&number) || bytes == self.origin(number);
        Kept {
            bytes: *bytes,
            share: if is_same {
                0
            } else {
                xxh3_128_with_seed(bytes, number as u64)
            },
        }
    }

    /// The state as it is.
    pub fn save(&mut self) -> State {
        for at in 0..self.kept.len() {
            let (number, kept) = &self.kept[at];
            let now = self.serial.ram().page(*number);
            if *now != kept.bytes {
                self.kept[at].1 = Arc::new(self.keep(*number, now));
            }
        }
        let pages: Vec<_> = self.kept.iter().map(|(_, kept)| Arc::clone(kept)).collect();
        let key = self.key(&pages);
        State {
            numbers: Arc::clone(&self.numbers),
            pages,
            cpus: self.cpus.clone(),
            key,
        }
    }

    /// Puts the machine back to `state`.
    pub fn load(&mut self, state: &State) {
        let aligned;
        let pages = if Arc::ptr_eq(&state.numbers, &self.numbers) {
            &state.pages
        } else {
            aligned = self.aligned(state);
            &aligned
        };
        for ((number, now), then) in self.kept.iter_mut().zip(pages) {
            if !Arc::ptr_eq(now, then) || *self.serial.ram().page(*number) != now.bytes {
                *self.serial.ram_mut().page_mut(*number) = then.bytes;
                *now = Arc::clone(then);
            }
        }
        for (cpu, (now, then)) in self.cpus.iter_mut().zip(&state.cpus).enumerate() {
            self.serial.set_regs(cpu, &then.regs);
            now.clone_from(then);
        }
    }

    /// The pages of `state`, and of those that were not kept when it was saved, what they were at first: they had
    /// not been written by then.
    fn aligned(&self, state: &State) -> Vec<Arc<Kept>> {
        let page = |number: &usize| match state.numbers.binary_search(number) {
            Ok(at) => Arc::clone(&state.pages[at]),
            Err(_) => Arc::new(self.original(*number)),
        };
        self.numbers.iter().map(page).collect()
    }

    /// Puts the machine back to its beginning.
    pub fn rewind(&mut self) {
        let root = self.root.clone();
        self.load(&root);
    }

    /// Checks that the vCPUs are, but for their general registers, what they were at first: which is why
    /// [`Specimen::load`] need not put that back.
    ///
    /// # Errors
    /// [`SpecimenError::NotExact`] if one is not.
    pub fn check_rest(&mut self) -> Result<(), SpecimenError> {
        let now = self.serial.capture().map_err(kvm("show all of a vCPU"))?;
        for (cpu, (now, then)) in now.iter().zip(&self.origin_cpus).enumerate() {
            if let Some(what) = now.difference(then) {
                return Err(SpecimenError::NotExact { cpu, what });
            }
        }
        Ok(())
    }

    fn key(&self, pages: &[Arc<Kept>]) -> u128 {
        let mut hash = Xxh3::new();
        let memory = pages
            .iter()
            .fold(0_u128, |sum, page| sum.wrapping_add(page.share));
        hash.update(&memory.to_le_bytes());
        for stopped in &self.cpus {
            let regs = &stopped.regs;
            // Of the others none matters where CPUs stop; see `shared::stop`.
            let preserved = [
                regs.rip, regs.rsp, regs.rbp, regs.rbx, regs.r12, regs.r13, regs.r14, regs.r15,
            ];
            let rest = [
                regs.rax, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10,
                regs.r11,
            ];
            preserved
                .iter()
                .for_each(|reg| hash.update(&reg.to_le_bytes()));
            let flags = if matches!(stopped.at, Stop::Instruction(_)) {
                rest.iter().for_each(|reg| hash.update(&reg.to_le_bytes()));
                regs.rflags
            } else {
                regs.rflags & INTERRUPT_FLAG
            };
            hash.update(&flags.to_le_bytes());
            let (kind, what) = match stopped.at {
                Stop::Access(kind, address) => (kind as u64, address),
                Stop::Send { target, vector } => (0x10, (target as u64) << 8 | u64::from(vector)),
                Stop::Idle => (0x11, 0),
                Stop::Relax => (0x12, 0),
                Stop::Left => (0x13, 0),
                Stop::Point(index) => (0x14, index as u64),
                Stop::Instruction(_) => (0x15, 0),
            };
            let given = stopped.given as u64;
            for word in [kind, what, stopped.pending.into(), given] {
                hash.update(&word.to_le_bytes());
            }
            for (word, value) in stopped.seen.iter().flatten() {
                hash.update(&word.to_le_bytes());
                hash.update(&value.to_le_bytes());
            }
            let waits = stopped.waits_since.unwrap_or(0);
            hash.update(&waits.to_le_bytes());
        }
        hash.digest128()
    }

    /// A number for what memory holds, stacks left out.
    fn shared_memory(&self) -> u128 {
        let mut hash = Xxh3::new();
        let on_stack = |number: usize| {
            let at = (number * PAGE) as u64;
            self.stacks.iter().any(|stacks| {
                [stacks.task, stacks.handler]
                    .iter()
                    .any(|[start, end]| (*start..*end).contains(&at))
            })
        };
        for (number, _) in &self.kept {
            if !on_stack(*number) && !self.unobserved.contains(number) {
                hash.update(self.serial.ram().page(*number));
            }
        }
        hash.digest128()
    }
}

fn bit(vector: u8) -> u16 {
    1 << (vector - FIRST_VECTOR)
}

fn at_rest(regs: kvm_regs) -> Stopped {
    Stopped {
        regs,
        at: Stop::Idle,
        in_handler: false,
        seen: Default::default(),
        locks: Default::default(),
        taking: None,
        waits_since: None,
        repeats: false,
        pending: 0,
        given: 0,
        is_contended: true,
    }
}

fn programs(case: &Case) -> Vec<Vec<Command>> {
    let commands = |program: &Vec<super::case::Deed>| {
        program.iter().map(|deed| deed.command.clone()).collect()
    };
    case.programs.iter().map(commands).collect()
}

/// A layout with little more RAM than is needed: all of it is copied.
fn smallest(image: &Image, vcpus: u32, lab: u64) -> Result<Layout, LayoutError> {
    match Layout::new(Some(1), vcpus, image.end(), lab) {
        Err(LayoutError::TooSmall { needed, .. }) => {
            Layout::new(Some(needed + SPARE_MIB), vcpus, image.end(), lab)
        }
        other => other,
    }
}

impl Known {
    fn find(points: &Points, granularity: Granularity) -> Result<Self, SpecimenError> {
        let named = |point: &'static str| {
            let found = points.named(point).next();
            found
                .map(|it| it.address)
                .ok_or(SpecimenError::NoPoint { point })
        };
        let access = match granularity {
            Granularity::Access => Some(named(stop::NAME)?),
            Granularity::Probe | Granularity::Instruction => None,
        };
        let mut relax = [0; 8];
        let found = points.named(stop::RELAX).map(|point: &Point| point.address);
        for (place, address) in relax.iter_mut().zip(found) {
            *place = address;
        }
        Ok(Self {
            access,
            idle: named(stop::IDLE)?,
            relax,
            left: named(stop::LEFT)?,
        })
    }
}

/// Boots `machine` on threads, until every CPU is held where it waits for commands, and gathers its vCPUs.
fn run_to_idle(
    machine: Machine,
    lab: &Lab,
    points: &Points,
    idle: u64,
) -> Result<Serial, SpecimenError> {
    let Machine {
        vcpus,
        vm,
        devices,
        memory,
    } = machine;
    let point = points.at(idle).expect("it was found among them");
    let mut arms = Arms::default();
    arms[point.index / 64] |= 1 << (point.index % 64);
    (0..lab.cpus()).for_each(|cpu| lab.arm(cpu, &arms));
    lab.arm_point(point.armed_address(), HELD);

    let (held, is_held) = mpsc::channel();
    let held = std::sync::Mutex::new(held);
    let interrupts = vm.interrupts();
    let on_message: Arc<OnMessage> = Arc::new(move |vcpu, message| match message {
        Message::Reached { point, .. } if point == idle => {
            let held = held
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // Nobody listens any more when the boot was given up.
            let _ = held.send(vcpu);
            Reaction::Hold
        }
        Message::Dispatch(dispatch) => {
            // A target that does not exist gets nothing, as on the wire of any machine.
            let _ = interrupts.send(dispatch.target, dispatch.vector);
            Reaction::GoOn
        }
        _ => Reaction::GoOn,
    });
    let cpus = vcpus.len();
    let crew = Crew::new(vcpus, &devices, &on_message, None)?;
    crew.run();
    let deadline = Instant::now() + BOOT_LIMIT;
    let mut ready = 0;
    while ready < cpus {
        match is_held.recv_timeout(Duration::from_millis(20)) {
            Ok(_) => ready += 1,
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                if let Some(Event::Ended { vcpu, end }) = crew.events().take() {
                    let said = devices.console().take();
                    let said = String::from_utf8_lossy(&said).trim().to_owned();
                    return Err(SpecimenError::NotReady(match end {
                        End::GuestExit(_) if !said.is_empty() => said,
                        End::Dead(death) => format!("it died on CPU {vcpu}: {death}"),
                        End::GuestExit(code) => format!("CPU {vcpu} wrote {code:#x}"),
                        End::Panicked => "a thread of the VMM panicked".to_owned(),
                    }));
                }
            }
            Err(_) => return Err(SpecimenError::Late),
        }
    }
    let vcpus = crew.stop()?;
    let _ = devices.console().take();
    Ok(Serial::new(vcpus, vm, devices, &memory)?)
}

/// Has every CPU take the interrupts that are still pending from the boot.
fn drain(serial: &mut Serial, idle: u64) -> Result<(), SpecimenError> {
    for cpu in 0..serial.cpus() {
        while serial.is_interrupted(cpu).map_err(kvm("show an APIC"))? {
            loop {
                match serial.run(cpu) {
                    Halt::Reached { point, .. } if point == idle => break,
                    Halt::GuestExit(code) => {
                        let text = format!("CPU {cpu} wrote {code:#x}");
                        return Err(SpecimenError::NotReady(text));
                    }
                    Halt::Dead(death) => {
                        let text = format!("it died on CPU {cpu}: {death}");
                        return Err(SpecimenError::NotReady(text));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}
