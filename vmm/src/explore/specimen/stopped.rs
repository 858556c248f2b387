//! A stopped CPU: where it has stopped, everything that is needed to go on from there, and what
//! follows by the rules of the search: whether it can go on, and whether other CPUs can interfere.
//! Plain data: knows no machine.

use std::hash::{Hash, Hasher};

use kvm_bindings::kvm_regs;
use shared::stop::{Kind, Manner};
use xxhash_rust::xxh3::Xxh3;

use super::buffering::Buffering;
use super::signal::{Arriving, Signal};
use super::store_buffer::{BufferedStore, Entry, StoreBuffer, part};
use super::system_state::SystemState;
use super::waiting::{Depth, Turns};
use crate::explore::schedule::{Act, Choice};
use crate::explore::sharing::{AccessKind, CpuContext, Sharing};

/// The lowest vector that can be pending in a search. The vectors from here to 0xff can.
pub(super) const FIRST_VECTOR: u8 = 0xf0;

/// The interrupt flag in RFLAGS.
pub(super) const INTERRUPT_FLAG: u64 = 1 << 9;

/// The one flag that is always set (SDM Vol. 1, 3.4.3).
const FIXED_FLAG: u64 = 1 << 1;

/// Where a CPU has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Before an access to shared memory, or before it disables interrupts.
    Access(Kind, u64),
    /// Before it sends an IPI.
    Send {
        /// The CPU to which it is sent.
        target: usize,
        /// What is sent.
        signal: Signal,
    },
    /// Waiting for an interrupt.
    Idle,
    /// In a loop that waits for another CPU.
    Relax,
    /// It has left the workload, and does nothing more, unless it is started anew.
    Left,
    /// It has never run, and does nothing until it is started.
    NotStarted,
    /// An INIT has arrived, and the start-up IPI that it waits for has not.
    WaitsForStartUp,
    /// At a named point, by its index in the image's table of points.
    Point(usize),
}

/// A stopped CPU.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub(super) regs: kvm_regs,
    /// Where it has stopped.
    pub at: Stop,
    /// Of how many bytes the access is that it has stopped before. It follows from its registers.
    pub(super) bytes: u8,
    /// Whether that access is a piece of one to several words, which is made behind the last of its
    /// stops. It follows from its registers.
    pub(super) is_piece: bool,
    /// How the source makes that access. It follows from its registers.
    pub(super) manner: Manner,
    /// What its stores have not brought to memory yet.
    pub(super) buffer: StoreBuffer,
    /// Whether it has executed something that waits until its store buffer is empty: it has
    /// returned from a handler (`iret`; SDM Vol. 3A, "Serializing Instructions").
    pub(super) drains: bool,
    /// Whether it runs a handler, and not its task.
    pub in_handler: bool,
    /// What its task and its handler have read in the loops in which they wait.
    pub(super) turns: [Turns; 2],
    /// How many nested loops its present context waits in.
    pub(super) depth: Depth,
    /// How many nested loops its task waits in, while a handler runs.
    pub(super) below: u64,
    /// The addresses of the locks that its task and its handler hold.
    pub(super) locks: [Vec<u64>; 2],
    /// Where accesses are not announced: whether another turn of the loop in which it waits would
    /// change nothing, which is found out by trying. It follows from the rest of the state.
    pub(super) is_stuck: bool,
    /// Whether its task will announce again what it was about to do when it took an interrupt.
    pub(super) repeats: bool,
    /// The pending vectors, as bits from [`FIRST_VECTOR`] on.
    pub(super) pending: u16,
    /// The INITs and start-up IPIs on their way to it.
    pub(super) arriving: Arriving,
    /// What its vCPU has besides the general registers.
    pub(super) system: SystemState,
    /// The number of commands that it was given so far.
    pub(super) given: usize,
}

impl Stopped {
    /// The index of its present context: 0 for the task, 1 for the handler.
    pub(super) fn context(&self) -> usize {
        usize::from(self.in_handler)
    }

    /// Its present context, of the CPU with this number.
    pub(super) fn cpu_context(&self, cpu: usize) -> CpuContext {
        CpuContext {
            cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
            in_handler: self.in_handler,
        }
    }

    /// Whether it has interrupts enabled here.
    pub fn irqs_on(&self) -> bool {
        self.regs.rflags & INTERRUPT_FLAG != 0 || self.at == Stop::Idle
    }

    /// Whether it executes nothing until it is started.
    pub fn is_down(&self) -> bool {
        matches!(
            self.at,
            Stop::Left | Stop::NotStarted | Stop::WaitsForStartUp
        )
    }

    /// Whether it takes pending interrupts here.
    pub(super) fn takes_interrupts(&self) -> bool {
        self.irqs_on() && !self.is_down()
    }

    /// Whether what is on its way to it can arrive now. Like an interrupt, that finds the store
    /// buffer empty.
    pub(super) fn can_be_reached(&self) -> bool {
        !self.arriving.is_empty() && self.buffer.is_empty()
    }

    /// `signal` is sent to it. An interrupt is lost while its APIC is as after a reset, disabled by
    /// software (SDM Vol. 3A, 11.4.7.2).
    pub(super) fn is_sent(&mut self, signal: Signal) {
        let is_waiting = self.at == Stop::WaitsForStartUp;
        match signal {
            Signal::Interrupt(_) if is_waiting || self.at == Stop::NotStarted => {}
            Signal::Interrupt(vector) => self.pending |= bit(vector),
            Signal::Init | Signal::StartUp(_) => self.arriving.push(signal, is_waiting),
        }
    }

    /// An INIT has arrived, and has left it with these registers. It stops whatever it was doing, and
    /// forgets what was pending.
    pub(super) fn reset(&mut self, regs: kvm_regs, system: SystemState) {
        *self = Self {
            at: Stop::WaitsForStartUp,
            arriving: std::mem::take(&mut self.arriving),
            given: self.given,
            system,
            ..at_rest(regs)
        };
    }

    /// Whether it can take one now: that drains the store buffer.
    pub(super) fn can_take(&self) -> bool {
        self.takes_interrupts() && self.buffer.is_empty()
    }

    /// Whether it can go on with what it is about to do, where every access is a stop. `word` reads
    /// memory.
    pub(super) fn can_go_on(&self, word: impl Fn(u64) -> Option<u64>) -> bool {
        if self.waits_for_its_buffer() {
            return false;
        }
        match self.at {
            Stop::Idle | Stop::Left | Stop::NotStarted | Stop::WaitsForStartUp => false,
            Stop::Relax => {
                let turns = &self.turns[self.context()];
                let seen = |address| Some(self.buffer.seen(address, word(address)?));
                turns.can_differ(self.depth, |address, value| seen(address) == Some(value))
            }
            // A lock is the four bytes at its address.
            Stop::Access(Kind::Lock, address) => {
                part(word(address & !7).unwrap_or(0), address, 4) == 0
            }
            Stop::Access(..) | Stop::Send { .. } | Stop::Point(_) => true,
        }
    }

    /// Whether an entry of its store buffer has to leave before it can go on ("Memory" in
    /// `docs/exploration.md` has the sources).
    pub(super) fn waits_for_its_buffer(&self) -> bool {
        if self.drains && !self.buffer.is_empty() {
            return true;
        }
        match self.at {
            // Locked instructions and fences.
            Stop::Access(Kind::ReadModifyWrite | Kind::Lock | Kind::Fence, _) => {
                !self.buffer.is_empty()
            }
            Stop::Access(Kind::Store, _) | Stop::Send { .. } => self.buffer.is_full(),
            Stop::Access(Kind::Load, address) => self.buffer.delays(address, self.bytes),
            // Ghost state is not stored to. If a guest does so all the same, its own stores come
            // first, as they do in the program.
            Stop::Access(Kind::Mark | Kind::Change, address) => self.buffer.holds(address),
            _ => false,
        }
    }

    /// Whether it waits for nothing but its own store buffer, as far as its stop tells.
    pub fn waits_only_for_its_buffer(&self) -> bool {
        self.waits_for_its_buffer()
            && matches!(
                self.at,
                Stop::Access(
                    Kind::ReadModifyWrite
                        | Kind::Fence
                        | Kind::Store
                        | Kind::Load
                        | Kind::Mark
                        | Kind::Change,
                    _
                ) | Stop::Send { .. }
            )
    }

    /// The store that it has stopped before, if by `buffering` it goes to the store buffer; yet
    /// without its value. What need not wait does so all the same where it would be seen to overtake
    /// what does: a release, and a store over one that waits.
    pub(super) fn store_to_buffer(&self, buffering: &Buffering) -> Option<BufferedStore> {
        let Stop::Access(Kind::Store, address) = self.at else {
            return None;
        };
        let waits = buffering.holds(address);
        let follows = self.holds(address) && !self.buffer.is_empty()
            || self.buffer.newest_over(address, self.bytes).is_some();
        (waits || follows).then_some(BufferedStore {
            address,
            bytes: self.bytes,
            value: 0,
            follows: !waits,
            origin: None,
        })
    }

    /// Its store buffer.
    pub fn buffer(&self) -> &StoreBuffer {
        &self.buffer
    }

    /// Whether other CPUs can interfere where it is, as far as `sharing` knows. `sharing` learns
    /// from it.
    pub(super) fn is_contended(
        &self,
        cpu: usize,
        sharing: &mut Sharing,
        buffering: &Buffering,
    ) -> bool {
        let locks = &self.locks[self.context()];
        let context = self.cpu_context(cpu);
        let waits = self.waits_for_its_buffer();
        let is_contended = match self.at {
            Stop::Access(Kind::IrqsOff, _) => sharing.is_interrupted(cpu) || waits,
            Stop::Access(Kind::Fence, _) => waits,
            Stop::Access(Kind::Store, address) => {
                let releases = self.holds(address);
                let kind = if releases {
                    AccessKind::Unlocks
                } else {
                    AccessKind::Writes
                };
                let conflicts = sharing.conflicts(context, kind, address, self.bytes, locks);
                // No other CPU sees a store that goes to the buffer.
                let waits_unseen = self.store_to_buffer(buffering).is_some();
                let is_seen = conflicts && !waits_unseen;
                // But once it is there, no interrupt can be taken until it has left. And while a CPU
                // that wants a lock waits until it is released, the CPU's own handler can want it
                // too, and then waits for ever: the last moment for that is before the release.
                is_seen
                    || waits
                    || (releases || waits_unseen)
                        && self.takes_interrupts()
                        && sharing.is_interrupted(cpu)
            }
            Stop::Access(kind, address) => {
                let (bytes, kind_of) = (self.bytes, AccessKind::of(kind));
                let conflicts = sharing.conflicts(context, kind_of, address, bytes, locks);
                // A context that wants the lock that it holds itself waits for ever.
                conflicts || waits || kind == Kind::Lock && self.holds(address)
            }
            _ => true,
        };
        // What an INIT puts an end to is seen by the CPU itself, once it is started again, and what
        // the CPU has written before by whoever runs later.
        is_contended || !self.arriving.is_empty() || self.writes() && sharing.is_reset(cpu)
    }

    /// Whether what it has stopped before changes memory.
    fn writes(&self) -> bool {
        use Kind::{Change, Lock, Mark, ReadModifyWrite, Store};
        matches!(
            self.at,
            Stop::Access(Store | ReadModifyWrite | Mark | Change | Lock, _)
        )
    }

    /// Whether its present context holds the lock at `address`.
    pub(super) fn holds(&self, address: u64) -> bool {
        self.locks[self.context()].contains(&address)
    }

    /// The locks that its present context holds once it has made the access that it has stopped
    /// before.
    pub(super) fn locks_after(&self) -> Vec<u64> {
        let mut locks = self.locks[self.context()].clone();
        match self.at {
            Stop::Access(Kind::Lock, address) => locks.push(address),
            Stop::Access(Kind::Store, address) => locks.retain(|lock| *lock != address),
            _ => {}
        }
        locks
    }

    /// Updates what is known of the CPU when it makes the access or the send that it has stopped
    /// before. `read` is what the accessed word holds. Returns the address of the word that it
    /// writes, if its new value can matter to a loop that the CPU waits in.
    pub(super) fn leave(&mut self, read: u64) -> Option<u64> {
        let (context, depth) = (self.context(), self.depth);
        let after = match self.at {
            // Taking a lock and releasing it again leaves the word as it was.
            Stop::Access(Kind::Lock, _) => Some(self.locks_after()),
            Stop::Access(Kind::Store, address) if self.holds(address) => Some(self.locks_after()),
            _ => None,
        };
        if let Some(locks) = after {
            self.locks[context] = locks;
            return None;
        }
        let turns = &mut self.turns[context];
        match self.at {
            Stop::Access(Kind::Load, address) => turns.find(depth, address & !7, read),
            Stop::Access(Kind::Store, address) => return Some(address & !7),
            Stop::Access(Kind::ReadModifyWrite | Kind::Mark | Kind::Change, address) => {
                turns.find(depth, address & !7, read);
                return Some(address & !7);
            }
            Stop::Send { .. } => turns.act(depth),
            Stop::Relax => turns.begin(depth),
            Stop::Access(Kind::IrqsOff | Kind::Fence | Kind::Lock, _)
            | Stop::Idle
            | Stop::Left
            | Stop::NotStarted
            | Stop::WaitsForStartUp
            | Stop::Point(_) => {}
        }
        None
    }

    /// The pending vectors, ascending.
    pub fn pending(&self) -> impl Iterator<Item = u8> + use<> {
        let pending = self.pending;
        (0..16)
            .filter(move |bit| pending >> bit & 1 != 0)
            .map(|bit| FIRST_VECTOR + bit)
    }

    /// The addresses of the words that it waits to see changed, if it waits in a loop.
    pub fn watched(&self) -> impl Iterator<Item = u64> {
        let waits = self.at == Stop::Relax;
        let words = waits.then(|| self.turns[self.context()].words(self.depth));
        words.into_iter().flatten()
    }

    /// Gives fixed values to the registers that are dead at a stop, as defined in [`shared::stop`].
    /// The registers with which the doorbell is rung stay as they are, because it is rung again if
    /// an interrupt is taken first.
    pub(super) fn forget_dead(&mut self) {
        let regs = &mut self.regs;
        (regs.rcx, regs.r8, regs.r9, regs.r10, regs.r11) = (0, 0, 0, 0, 0);
        if !matches!(self.at, Stop::Access(..)) {
            regs.rsi = 0;
        }
        regs.rflags = FIXED_FLAG | regs.rflags & INTERRUPT_FLAG;
    }

    /// Whether it equals `other` in everything that can matter later.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let number = |stopped: &Self| {
            let mut hash = Xxh3::new();
            stopped.hash(&mut hash);
            hash.digest128()
        };
        number(self) == number(other)
    }

    /// Its instruction pointer.
    pub fn rip(&self) -> u64 {
        self.regs.rip
    }
}

/// Everything that can matter later. `is_stuck`, `bytes`, `is_piece` and `manner` are left out: they follow
/// from that and from memory.
impl Hash for Stopped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
        } = self.regs;
        [
            rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
            rflags,
        ]
        .hash(state);
        let Self { at, in_handler, .. } = self;
        (at, in_handler, &self.buffer, self.drains).hash(state);
        for (turns, locks) in self.turns.iter().zip(&self.locks) {
            turns.hash(state);
            let mut locks = locks.clone();
            locks.sort_unstable();
            locks.hash(state);
        }
        (self.below, self.repeats).hash(state);
        (self.pending, self.given).hash(state);
        (&self.arriving, &self.system).hash(state);
    }
}

/// Has `sharing` learn what the CPUs that have stopped like this are sent when one of them makes
/// `choice`.
pub(super) fn teach(cpus: &[Stopped], choice: Choice, sharing: &mut Sharing) {
    let stopped = &cpus[choice.cpu];
    let mut is_sent = |target: usize, signal| match signal {
        Signal::Interrupt(_) => sharing.interrupts(target),
        // There is nothing to put an end to on a CPU that has done nothing yet.
        Signal::Init if !matches!(cpus[target].at, Stop::NotStarted | Stop::WaitsForStartUp) => {
            sharing.resets(target);
        }
        Signal::Init | Signal::StartUp(_) => {}
    };
    match (choice.act, stopped.at) {
        (Act::GoOn, Stop::Send { target, signal }) => is_sent(target, signal),
        (Act::Flush, _) => {
            for entry in stopped.buffer.leaving() {
                if let Entry::Ipi { target, signal } = entry {
                    is_sent(*target, *signal);
                }
            }
        }
        _ => {}
    }
}

/// The bit of `vector`, which is [`FIRST_VECTOR`] or above, among those that are pending.
pub(super) fn bit(vector: u8) -> u16 {
    1 << (vector - FIRST_VECTOR)
}

/// An idle CPU with these registers, which was given nothing yet.
pub(super) fn at_rest(regs: kvm_regs) -> Stopped {
    Stopped {
        regs,
        at: Stop::Idle,
        bytes: 0,
        is_piece: false,
        manner: Manner::Marked,
        buffer: StoreBuffer::default(),
        drains: false,
        in_handler: false,
        turns: Default::default(),
        depth: Depth::of(0, 0),
        below: 0,
        locks: Default::default(),
        is_stuck: false,
        repeats: false,
        pending: 0,
        arriving: Arriving::default(),
        system: SystemState::First,
        given: 0,
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::Xxh3;

    use super::*;

    fn key(stopped: &[Stopped]) -> u128 {
        let mut hash = Xxh3::new();
        stopped.hash(&mut hash);
        hash.digest128()
    }

    /// Lists of different lengths lie side by side in a key. Which list a lock is in, and where one
    /// list ends, must show.
    #[test]
    fn the_same_locks_held_otherwise_make_another_key() {
        let of = |task: &[u64], handler: &[u64]| Stopped {
            locks: [task.to_vec(), handler.to_vec()],
            ..at_rest(kvm_regs::default())
        };
        let all = [
            of(&[8, 16], &[]),
            of(&[8], &[16]),
            of(&[], &[8, 16]),
            of(&[8], &[]),
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[..at] {
                let [one, other] = [one, other].map(|it| key(std::slice::from_ref(it)));
                assert_ne!(one, other);
            }
        }
        // In whichever order it has taken them.
        assert_eq!(key(&[of(&[8, 16], &[])]), key(&[of(&[16, 8], &[])]));
        assert_ne!(key(&all[..1]), key(&[]));
    }
    /// A CPU that has left the workload has passed something over on its way there.
    #[test]
    fn an_init_teaches_that_its_target_is_reset_if_that_has_ever_run() {
        let sends = Stop::Send {
            target: 1,
            signal: Signal::Init,
        };
        let waits = Entry::Ipi {
            target: 1,
            signal: Signal::Init,
        };
        let is_reset = |sender: &Stopped, choice, target| {
            let target = Stopped {
                at: target,
                ..at_rest(kvm_regs::default())
            };
            let mut sharing = Sharing::new(2);
            teach(&[sender.clone(), target], choice, &mut sharing);
            assert!(!sharing.is_reset(0));
            sharing.is_reset(1)
        };
        let mut by_store = at_rest(kvm_regs::default());
        let by_step = Stopped {
            at: sends,
            ..by_store.clone()
        };
        by_store.buffer.push(waits);
        for (sender, choice) in [(by_step, Choice::go_on(0)), (by_store, Choice::flush(0))] {
            assert!(is_reset(&sender, choice, Stop::Left));
            assert!(is_reset(&sender, choice, Stop::Access(Kind::Load, 8)));
            assert!(!is_reset(&sender, choice, Stop::NotStarted));
            assert!(!is_reset(&sender, choice, Stop::WaitsForStartUp));
            assert!(!is_reset(&sender, Choice::go_on(1), Stop::Left));
        }
    }
}
