//! A model of a machine, with a few words and instructions, for tests of searches. It stops where a
//! guest would stop, and what follows from a stop is decided by the same code as for the specimen.
//! Knows no KVM.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::thread;

use kvm_bindings::kvm_regs;
use shared::stop::{Kind, Manner};
use xxhash_rust::xxh3::Xxh3;

use super::breach::Breach;
use super::buffering::Buffering;
use super::data_race::{Party, between, sentence};
use super::errors::SpecimenError;
use super::signal::Signal;
use super::state::State;
use super::stepping::Moved;
use super::stopped::{FIRST_VECTOR, INTERRUPT_FLAG, Stop, Stopped, at_rest, bit, teach};
use super::store_buffer::{BufferedStore, Entry, Origin};
use super::system_state::SystemState;
use super::waiting::{Depth, Turns};
use crate::explore::schedule::{Act, Choice, Granularity};
use crate::explore::search::system::{Holding, TransitionSystem};
use crate::explore::sharing::Sharing;
use crate::explore::stop_reason::StopReason;

/// An instruction. Each context of a CPU has one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Reads a word into the register.
    Load(usize),
    /// Writes a number to a word.
    Store(usize, u64),
    /// Reads a word into the register, and adds one to the word.
    Add(usize),
    /// Sets a bit of a word without reading the word.
    Mark(usize),
    /// Skips the next instruction if the register is 0.
    IfSet,
    /// Takes a word as a lock, when it is free.
    Lock(usize),
    /// Releases the lock.
    Unlock(usize),
    /// Waits in an announced loop until a word has a value.
    Wait(usize, u64),
    /// The same, but the loop is not announced.
    Spin(usize, u64),
    /// Sends one of two interrupts to a CPU.
    Send(usize, usize),
    /// Sends an INIT to a CPU.
    Init(usize),
    /// Sends a start-up IPI to a CPU, which then begins its second task.
    StartUp(usize),
    /// Drains the store buffer.
    Fence,
    /// Disables interrupts.
    IrqsOff,
    /// Enables them.
    IrqsOn,
    /// Breaks something: an oracle of this number finds it.
    Break(u64),
}

/// The program of one CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The task.
    pub task: Vec<Op>,
    /// The task once it was started anew.
    pub second: Vec<Op>,
    /// The handlers, by interrupt.
    pub handlers: [Vec<Op>; 2],
}

/// The state of a CPU beyond where it has stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Cpu {
    /// The indices of the next instructions of its task and of its handler.
    next: [usize; 2],
    /// The registers of its task and of its handler.
    register: [u64; 2],
    /// Whether its task and its handler are at the end of a turn of a loop, and need another one.
    relaxes: [bool; 2],
    /// Whether its task is the second one.
    is_anew: bool,
    /// The handler that runs, if one does.
    handles: Option<usize>,
    /// Whether its task has interrupts enabled.
    irqs_on: bool,
    /// Whether its task has begun. Until then it is stopped at a point, so that even its first
    /// access is reached by a step.
    has_begun: bool,
}

/// Everything that can change.
#[derive(Debug, Clone)]
struct Now {
    words: Vec<u64>,
    cpus: Vec<Cpu>,
    stopped: Vec<Stopped>,
}

/// The model. What one of its clones has saved, the others can restore.
#[derive(Debug, Clone)]
pub struct Model {
    programs: Vec<Program>,
    buffering: Buffering,
    /// Whether IPIs stay behind earlier stores.
    is_xapic: bool,
    now: Now,
    root: State,
    /// Saved states, by key.
    saved: Arc<Mutex<HashMap<u128, Now>>>,
    /// How many steps it has made.
    steps: u64,
    /// After how many of them it has to stop.
    most_steps: u64,
    /// What the last step has broken.
    broken: Option<u64>,
    /// The conditions: whether each is about every state, and the numbers that words have to have.
    conditions: Vec<(bool, Vec<(usize, u64)>)>,
}

fn address(word: usize) -> u64 {
    8 + 8 * word as u64
}

fn place(address: u64) -> usize {
    (address as usize - 8) / 8
}

impl Model {
    fn end_if_over(&self) -> Result<(), SpecimenError> {
        match self.stop_reason() {
            Some(why) => Err(SpecimenError::Ended(why)),
            None => Ok(()),
        }
    }

    /// It has to stop after so many steps.
    pub fn stop_after(&mut self, steps: u64) {
        self.most_steps = steps;
    }

    /// A model with this number of words, all 0, in its initial state. Stores wait as `buffering`
    /// says, and IPIs behind them if the machine `is_xapic`.
    pub fn new(programs: Vec<Program>, words: usize, buffering: Buffering, is_xapic: bool) -> Self {
        let cpu = Cpu {
            irqs_on: true,
            ..Cpu::default()
        };
        let now = Now {
            words: vec![0; words],
            cpus: vec![cpu; programs.len()],
            stopped: vec![at_rest(kvm_regs::default()); programs.len()],
        };
        let mut model = Self {
            root: State {
                numbers: Arc::new([]),
                pages: Vec::new(),
                cpus: now.stopped.clone(),
                key: 0,
            },
            programs,
            buffering,
            is_xapic,
            now,
            saved: Arc::default(),
            steps: 0,
            most_steps: u64::MAX,
            broken: None,
            conditions: Vec::new(),
        };
        for cpu in 0..model.programs.len() {
            model.settle(cpu);
        }
        model.root = model.save();
        model
    }

    /// From now on knows whether `conditions` hold.
    pub fn heed(&mut self, conditions: &[(bool, Vec<(usize, u64)>)]) {
        self.conditions = conditions.to_vec();
    }

    /// What the last step has broken.
    pub fn broken(&self) -> Option<u64> {
        self.broken
    }

    /// Makes the step `choice`, to the next stop.
    pub fn step(&mut self, choice: Choice) {
        self.broken = None;
        let Choice { cpu, act } = choice;
        let was_in_handler = self.now.stopped[cpu].in_handler;
        match act {
            Act::Flush => return self.flush(cpu),
            Act::Take(vector) => {
                let (it, stopped) = (&mut self.now.cpus[cpu], &mut self.now.stopped[cpu]);
                stopped.pending &= !bit(vector);
                stopped.repeats = stopped.at != Stop::Idle;
                it.handles = Some(usize::from(vector - FIRST_VECTOR));
                (it.next[1], it.register[1], it.relaxes[1]) = (0, 0, false);
            }
            Act::Arrive => {
                let signal = self.now.stopped[cpu].arriving.take();
                self.now.cpus[cpu] = Cpu {
                    is_anew: true,
                    has_begun: true,
                    irqs_on: true,
                    ..Cpu::default()
                };
                if signal == Some(Signal::Init) {
                    self.now.stopped[cpu].reset(kvm_regs::default(), SystemState::default());
                    return;
                }
            }
            Act::GoOn => self.make(cpu),
        }
        self.settle(cpu);
        let stopped = &mut self.now.stopped[cpu];
        let returned = was_in_handler && !stopped.in_handler;
        stopped.drains = (stopped.drains || returned) && !stopped.buffer.is_empty();
    }

    /// The oldest entry of the store buffer of `cpu` leaves.
    fn flush(&mut self, cpu: usize) {
        for entry in self.now.stopped[cpu].buffer.take() {
            match entry {
                Entry::Store(store) => self.now.words[place(store.address)] = store.value,
                Entry::Ipi { target, signal } => self.now.stopped[target].is_sent(signal),
            }
        }
        let stopped = &mut self.now.stopped[cpu];
        stopped.drains &= !stopped.buffer.is_empty();
    }

    /// What `cpu` finds in the word at `address`.
    fn seen(&self, cpu: usize, address: u64) -> u64 {
        let word = self.now.words[place(address)];
        self.now.stopped[cpu].buffer.seen(address, word)
    }

    /// `cpu` writes `number` to the word at `address`: to memory, or to its store buffer.
    fn store(&mut self, cpu: usize, address: u64, number: u64, to_buffer: Option<Entry>) {
        match to_buffer {
            Some(Entry::Store(store)) => {
                let store = Entry::Store(store.of(number));
                self.now.stopped[cpu].buffer.push(store);
            }
            _ => self.now.words[place(address)] = number,
        }
    }

    /// Executes what `cpu` is about to do.
    fn make(&mut self, cpu: usize) {
        let at = self.now.stopped[cpu].at;
        let read = match at {
            Stop::Access(Kind::IrqsOff | Kind::Fence, _) => 0,
            Stop::Access(_, address) => self.seen(cpu, address),
            _ => 0,
        };
        if let Stop::Send { target, signal } = at {
            if self.is_xapic && !self.now.stopped[cpu].buffer.is_empty() {
                let ipi = Entry::Ipi { target, signal };
                self.now.stopped[cpu].buffer.push(ipi);
            } else {
                self.now.stopped[target].is_sent(signal);
            }
        }
        let to_buffer = self.now.stopped[cpu].store_to_buffer(&self.buffering);
        let origin = Some(self.origin(cpu));
        let to_buffer = to_buffer.map(|store| Entry::Store(BufferedStore { origin, ..store }));
        let (context, depth) = {
            let stopped = &self.now.stopped[cpu];
            (stopped.context(), stopped.depth)
        };
        let written = self.now.stopped[cpu].leave(read);
        if let Stop::Point(_) = at {
            self.now.cpus[cpu].has_begun = true;
            return;
        }
        let op = self.ops(cpu)[self.now.cpus[cpu].next[context]];
        let mut is_done = true;
        match op {
            Op::Load(_) => self.now.cpus[cpu].register[context] = read,
            Op::Store(word, number) => self.store(cpu, address(word), number, to_buffer),
            Op::Add(word) => {
                self.now.cpus[cpu].register[context] = read;
                self.now.words[word] = read + 1;
            }
            Op::Mark(word) => self.now.words[word] |= 1 << 32,
            Op::Lock(word) => self.now.words[word] |= 1,
            Op::Unlock(word) => self.store(cpu, address(word), 0, to_buffer),
            Op::Wait(_, number) | Op::Spin(_, number) => {
                is_done = at != Stop::Relax && read == number;
                self.now.cpus[cpu].relaxes[context] = at != Stop::Relax && !is_done;
            }
            Op::IrqsOff => self.now.cpus[cpu].irqs_on = false,
            Op::Send(..) | Op::Init(_) | Op::StartUp(_) | Op::Fence => {}
            Op::IfSet | Op::IrqsOn | Op::Break(_) => unreachable!("these are no stops"),
        }
        if is_done {
            self.now.cpus[cpu].next[context] += 1;
        }
        if let Some(address) = written {
            let value = self.seen(cpu, address);
            self.now.stopped[cpu].turns[context].find(depth, address, value);
        }
    }

    /// What `cpu` is about to do, for who looks for data races: a number for each instruction.
    fn origin(&self, cpu: usize) -> Origin {
        let it = &self.now.cpus[cpu];
        let context = usize::from(it.handles.is_some());
        let number = [
            cpu,
            it.handles.map_or(0, |handler| 1 + handler),
            usize::from(it.is_anew),
        ];
        let number = (number.iter()).fold(it.next[context], |all, one| 10 * all + one);
        Origin {
            address: number as u64,
            manner: self.now.stopped[cpu].manner,
        }
    }

    /// The program of the present context of `cpu`.
    fn ops(&self, cpu: usize) -> &[Op] {
        let program = &self.programs[cpu];
        match self.now.cpus[cpu].handles {
            Some(handler) => &program.handlers[handler],
            None if self.now.cpus[cpu].is_anew => &program.second,
            None => &program.task,
        }
    }

    /// Runs `cpu` to its next stop.
    fn settle(&mut self, cpu: usize) {
        let (at, loops, op_at) = loop {
            let ops = self.ops(cpu);
            let context = usize::from(self.now.cpus[cpu].handles.is_some());
            let next = self.now.cpus[cpu].next[context];
            if context == 0 && !self.now.cpus[cpu].has_begun {
                break (Stop::Point(0), 0, None);
            }
            let Some(op) = ops.get(next).copied() else {
                if self.now.cpus[cpu].handles.take().is_some() {
                    continue;
                }
                break (Stop::Idle, 0, None);
            };
            let it = &mut self.now.cpus[cpu];
            let stop = |kind, word| Stop::Access(kind, address(word));
            let at = match op {
                Op::Load(word) => stop(Kind::Load, word),
                Op::Store(word, _) | Op::Unlock(word) => stop(Kind::Store, word),
                Op::Add(word) => stop(Kind::ReadModifyWrite, word),
                Op::Mark(word) => stop(Kind::Mark, word),
                Op::Lock(word) => stop(Kind::Lock, word),
                Op::Wait(..) | Op::Spin(..) if it.relaxes[context] => Stop::Relax,
                Op::Wait(word, _) | Op::Spin(word, _) => stop(Kind::Load, word),
                Op::Send(target, interrupt) => Stop::Send {
                    target,
                    signal: Signal::Interrupt(FIRST_VECTOR + interrupt as u8),
                },
                Op::Init(target) => Stop::Send {
                    target,
                    signal: Signal::Init,
                },
                Op::StartUp(target) => Stop::Send {
                    target,
                    signal: Signal::StartUp(0),
                },
                // A handler runs with interrupts off anyway.
                Op::IrqsOff if context == 1 => {
                    it.next[1] += 1;
                    continue;
                }
                Op::IrqsOff => Stop::Access(Kind::IrqsOff, 0),
                Op::Fence => Stop::Access(Kind::Fence, 0),
                Op::IrqsOn => {
                    it.irqs_on |= context == 0;
                    it.next[context] += 1;
                    continue;
                }
                Op::Break(number) => {
                    self.broken.get_or_insert(number);
                    it.next[context] += 1;
                    continue;
                }
                Op::IfSet => {
                    it.next[context] += if it.register[context] == 0 { 2 } else { 1 };
                    continue;
                }
            };
            break (at, u64::from(matches!(op, Op::Wait(..))), Some(op));
        };
        let (it, stopped) = (&self.now.cpus[cpu], &mut self.now.stopped[cpu]);
        stopped.at = at;
        stopped.bytes = 8;
        stopped.manner = match op_at {
            Some(Op::Load(0) | Op::Store(0 | 1, _)) => Manner::Plain,
            Some(Op::Store(2, 2)) => Manner::Intended,
            _ => Manner::Marked,
        };
        stopped.in_handler = it.handles.is_some();
        stopped.repeats &= stopped.in_handler;
        if !stopped.in_handler {
            stopped.turns[1] = Turns::default();
        }
        let irqs_on = it.irqs_on && !stopped.in_handler;
        stopped.regs.rflags = if irqs_on { INTERRUPT_FLAG } else { 0 };
        stopped.depth = Depth::of(loops, 0);
        let (context, depth) = (stopped.context(), stopped.depth);
        stopped.turns[context].leave_to(depth);
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.now.words.get((address as usize - 8) / 8).copied()
    }
}

impl TransitionSystem for Model {
    fn attach(&mut self) {}

    fn detach(&mut self) {}

    fn adopt(&mut self, _: &State) -> Result<bool, SpecimenError> {
        Ok(false)
    }

    fn root(&self) -> &State {
        &self.root
    }

    fn granularity(&self) -> Granularity {
        Granularity::Access
    }

    fn cpus(&self) -> &[Stopped] {
        &self.now.stopped
    }

    fn describe(&self, at: Stop) -> String {
        format!("{at:?}")
    }

    fn vectors(&self) -> &[u8] {
        &[]
    }

    fn follow_sharing(&mut self, sharing: &Sharing) {
        self.buffering.follow(sharing);
    }

    fn is_behind(&self, sharing: &Sharing) -> bool {
        self.buffering.is_behind(sharing)
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (cpu, stopped) in self.now.stopped.iter().enumerate() {
            if stopped.can_go_on(|word| self.word(word)) {
                choices.push(Choice::go_on(cpu));
            }
            if stopped.can_take() {
                choices.extend(stopped.pending().map(|vector| Choice::take(cpu, vector)));
            }
            if !stopped.buffer.is_empty() {
                choices.push(Choice::flush(cpu));
            }
            if stopped.can_be_reached() {
                choices.push(Choice::arrive(cpu));
            }
        }
        choices
    }

    fn advance(&mut self, choice: Choice, sharing: &mut Sharing) -> Result<Moved, SpecimenError> {
        let mut choice = choice;
        let mut stops = 0;
        // What other workers do can come between any two steps.
        self.steps += 1;
        // A signal comes in the middle of a step as well, with some of these numbers.
        if self.most_steps % 2 == 1 {
            self.end_if_over()?;
        }
        if self.steps.is_multiple_of(4) && Arc::strong_count(&self.saved) > 1 {
            thread::yield_now();
        }
        loop {
            teach(&self.now.stopped, choice, sharing);
            self.step(choice);
            stops += 1;
            let stopped = &self.now.stopped[choice.cpu];
            // A guest waits in a loop for a lock that is taken; here the CPU stays before it.
            let is_contended = stopped.is_contended(choice.cpu, sharing, &self.buffering);
            let breach = self.broken.map(Breach::numbered);
            if breach.is_some() || is_contended || !stopped.can_go_on(|word| self.word(word)) {
                return Ok(Moved {
                    stops,
                    entries: 0,
                    breach,
                });
            }
            choice.act = Act::GoOn;
        }
    }

    fn advance_to_next_stop(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError> {
        teach(&self.now.stopped, choice, sharing);
        self.step(choice);
        Ok(Moved {
            stops: 1,
            entries: 0,
            breach: self.broken.map(Breach::numbered),
        })
    }

    fn holding(&self, is_end: bool) -> Holding {
        let is_end = is_end && self.now.stopped.iter().all(|it| it.at == Stop::Idle);
        let mut holding = Holding::default();
        for (index, (on_the_way, words)) in self.conditions.iter().enumerate() {
            let holds = (words.iter()).all(|(word, number)| self.now.words[*word] == *number);
            holding.holds |= u64::from(holds && (is_end || *on_the_way)) << index;
        }
        holding
    }

    fn data_races(&self) -> Vec<Breach> {
        let found = between(&self.now.stopped, &self.buffering);
        let place = |party: &Party| {
            let place = party
                .made_at
                .unwrap_or_else(|| self.origin(party.cpu).address);
            place.to_string()
        };
        let all = found
            .iter()
            .map(|parties| Breach::data_race(sentence(parties, place)));
        all.collect()
    }

    fn buffered(&self) -> Vec<u64> {
        self.buffering.addresses()
    }

    fn save(&mut self) -> State {
        let mut hash = Xxh3::new();
        (&self.now.words, &self.now.cpus, &self.now.stopped).hash(&mut hash);
        let key = hash.digest128();
        let mut saved = self.saved.lock().unwrap();
        saved.entry(key).or_insert_with(|| self.now.clone());
        State {
            cpus: self.now.stopped.clone(),
            key,
            ..self.root.clone()
        }
    }

    fn load(&mut self, state: &State) {
        self.now.clone_from(&self.saved.lock().unwrap()[&state.key]);
    }

    fn rewind(&mut self) {
        let root = self.root.clone();
        self.load(&root);
    }

    fn mend(&mut self) -> Result<(), SpecimenError> {
        Ok(())
    }

    fn keep_new_pages(&mut self) -> Result<bool, SpecimenError> {
        Ok(false)
    }

    fn is_over(&self) -> bool {
        self.choices().is_empty()
    }

    fn judge(&mut self) -> Result<Option<Breach>, SpecimenError> {
        // The guest runs to be judged, so that a signal can come then.
        self.end_if_over()?;
        Ok(None)
    }

    fn outcome(&self) -> u128 {
        let mut hash = Xxh3::new();
        let stopped = &self.now.stopped;
        // A handler can begin at several moments to wait for a lock that its own task holds. The
        // searches try only the last of them. So these final states are told apart only by where
        // the CPUs wait for ever.
        let is_at_rest = |stopped: &Stopped| stopped.at == Stop::Idle || stopped.is_down();
        if !stopped.iter().all(is_at_rest) {
            let waits = stopped.iter().map(|stopped| stopped.at);
            waits.for_each(|at| at.hash(&mut hash));
            return hash.digest128();
        }
        self.now.words.hash(&mut hash);
        for (it, stopped) in self.now.cpus.iter().zip(stopped) {
            (it.register[0], stopped.pending, stopped.at).hash(&mut hash);
        }
        hash.digest128()
    }

    fn stop_reason(&self) -> Option<StopReason> {
        (self.steps >= self.most_steps).then_some(StopReason::Signal)
    }
}
