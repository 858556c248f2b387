//! The specimen itself: what it consists of, and what can be read from it. What it does is in the
//! files beside this one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use shared::lab::Contexts;
use shared::stop::Kind;

use super::buffering::Buffering;
use super::conditions::Conditions;
use super::errors::SpecimenError;
use super::lines::Lines;
use super::passing::Passing;
use super::racing::Racing;
use super::state::{SavedPage, State};
use super::stop_points::StopPoints;
use super::stopped::{Stop, Stopped};
use super::store_buffer::Entry;
use super::system_state::SystemStates;
use crate::explore::answers::Answers;
use crate::explore::schedule::Granularity;
use crate::explore::stop_reason::StopReason;
use crate::explore::until::Until;
use crate::lab::Lab;
use crate::lab::judge;
use crate::lab::mailbox::Command;
use crate::machine::inspect;
use crate::machine::kick::Alarm;
use crate::machine::points::Points;
use crate::machine::serial::Serial;
use crate::machine::symbols::Symbols;
use crate::manifest::Manifest;

/// The machine that is explored.
#[derive(Debug)]
pub struct Specimen {
    pub(super) serial: Serial,
    pub(super) lab: Lab,
    pub(super) points: Points,
    /// What the case wants to be reached, or never to be.
    pub(super) conditions: Conditions,
    /// The lines of the guest's source.
    pub(super) lines: Lines,
    /// Data races, if they are looked for.
    pub(super) races: Racing,
    pub(super) symbols: Symbols,
    pub(super) stop_points: StopPoints,
    pub(super) granularity: Granularity,
    pub(super) programs: Vec<Vec<Command>>,
    /// What the CPUs have answered to their deeds, over all orders.
    pub(super) answers: Answers,
    pub(super) contexts: Vec<Contexts>,
    /// By CPU: the address at which the guest counts the waiting loops that it is in.
    pub(super) waits_at: Vec<u64>,
    /// The vectors by which CPUs are told to do something.
    pub(super) vectors: Vec<u8>,
    /// Whether a vCPU has changed in more than its general registers, because the guest died or
    /// ended on it.
    pub(super) is_hurt: bool,
    pub(super) cpus: Vec<Stopped>,
    /// Which stores wait in store buffers.
    pub(super) buffering: Buffering,
    /// Whether the CPUs send IPIs as with an xAPIC.
    pub(super) is_xapic: bool,
    /// What the last step has brought out of a store buffer.
    pub(super) left: Vec<Entry>,
    /// By page number, ascending: the pages that are saved with each state, as they are in RAM.
    pub(super) kept: Vec<(usize, Arc<SavedPage>)>,
    /// The numbers of these pages.
    pub(super) numbers: Arc<[usize]>,
    /// Whether a schedule has written pages that were not saved before, since
    /// [`Specimen::keep_new_pages`] was last called.
    pub(super) has_grown: bool,
    /// The numbers of pages whose contents do not matter: counters and traces.
    pub(super) unobserved: Vec<usize>,
    /// Those of them that are saved with each state.
    pub(super) counted: Vec<usize>,
    /// What CPUs pass over without an exit.
    pub(super) passing: Passing,
    /// All of RAM in the initial state.
    pub(super) origin: Vec<u8>,
    /// What the vCPUs have besides their general registers.
    pub(super) systems: SystemStates,
    pub(super) root: State,
    /// The keys of final states in which nothing was broken.
    pub(super) sound_ends: HashSet<u128>,
    pub(super) image: u128,
    pub(super) beginning: u128,
    pub(super) until: Until,
    /// Interrupts a vCPU that stays in the guest for too long. It rings for the thread that runs the
    /// vCPUs.
    pub(super) alarm: Option<Alarm>,
}

impl Specimen {
    /// From now on this thread runs the vCPUs.
    pub fn attach(&mut self) {
        self.alarm = Some(Alarm::set());
    }

    /// This thread runs them no longer. To be called before it ends.
    pub fn detach(&mut self) {
        self.alarm = None;
    }

    /// The guest's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.lab.manifest()
    }

    /// A hash of the initial state. It can differ between hosts.
    pub fn beginning(&self) -> u128 {
        self.beginning
    }

    /// Whether the initial states of both are equal, down to the vCPUs: then the one can restore what
    /// the other has saved.
    pub fn begins_as(&self, other: &Self) -> bool {
        let mut vcpus = self.systems.first().zip(other.systems.first());
        self.beginning == other.beginning
            && self.root.key() == other.root.key()
            && vcpus.all(|(ours, theirs)| ours.difference(theirs).is_none())
    }

    /// The initial state, at which every schedule begins.
    pub fn root(&self) -> &State {
        &self.root
    }

    /// A hash of the guest's image.
    pub fn image(&self) -> u128 {
        self.image
    }

    /// What the CPUs have answered to their deeds, over all orders that were tried. None is left
    /// here.
    pub fn take_answers(&mut self) -> Answers {
        std::mem::take(&mut self.answers)
    }

    /// The options of the run, as reported by the guest.
    pub fn words(&self) -> Option<BTreeMap<String, String>> {
        self.lab.words()
    }

    /// Which stores wait in store buffers.
    pub fn buffering(&self) -> &Buffering {
        &self.buffering
    }

    /// From now on stores to `addresses` wait in store buffers, if not all of them or none do.
    pub fn buffer(&mut self, addresses: &[u64]) {
        if let Buffering::Addresses(known) = &mut self.buffering {
            *known = addresses.iter().copied().collect();
        }
    }

    /// Where CPUs stop.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Whether CPUs announce each access to memory.
    pub fn knows_accesses(&self) -> bool {
        matches!(self.granularity, Granularity::Access | Granularity::Every)
    }

    /// The CPUs in the present state.
    pub fn cpus(&self) -> &[Stopped] {
        &self.cpus
    }

    /// The functions of the image.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The calls that are not complete.
    pub fn open_calls(&self) -> Vec<String> {
        let open = judge::open_calls(&self.lab).first;
        open.iter().map(ToString::to_string).collect()
    }

    /// The eight bytes of guest RAM at `address`.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.serial.ram().word(address)
    }

    /// The return addresses on the stack of `cpu`, innermost first, as far as its frames can be
    /// followed.
    pub fn callers(&self, cpu: usize) -> Vec<u64> {
        let regs = &self.cpus[cpu].regs;
        // The function that rings the doorbell has no stack frame of its own.
        let innermost = self.word(regs.rsp).into_iter();
        let callers = inspect::callers(regs.rbp, |address| self.word(address));
        innermost.chain(callers).collect()
    }

    /// Why the search or the replay has to stop now, if it has to.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.until.is_over()
    }

    /// As [`Specimen::stop_reason`], as an error.
    pub(super) fn check_end(&self) -> Result<(), SpecimenError> {
        self.until
            .is_over()
            .map_or(Ok(()), |why| Err(SpecimenError::Ended(why)))
    }

    /// In words, that the oldest entry leaves the store buffer of `cpu`.
    pub fn describe_flush(&self, cpu: usize) -> String {
        let oldest = self.cpus[cpu].buffer.oldest();
        let what = oldest.map(|entry| self.describe_entry(entry));
        format!("flush {}", what.unwrap_or_default())
    }

    /// In words, that an INIT or a start-up IPI arrives at `cpu`.
    pub fn describe_arrival(&self, cpu: usize) -> String {
        let first = self.cpus[cpu].arriving.first();
        let what = first.map(|signal| signal.name(&self.manifest().vectors));
        format!("takes {}", what.unwrap_or_default())
    }

    /// An entry of a store buffer in words.
    pub fn describe_entry(&self, entry: &Entry) -> String {
        match *entry {
            Entry::Store(store) => format!("{:#x}", store.address),
            Entry::Ipi { target, signal } => {
                let signal = signal.name(&self.manifest().vectors);
                format!("{signal} to {target}")
            }
        }
    }

    /// A stop in words.
    pub fn describe(&self, at: Stop) -> String {
        match at {
            Stop::Access(Kind::IrqsOff, _) => "irqs-off".to_owned(),
            Stop::Access(Kind::Fence, _) => "fence".to_owned(),
            Stop::Access(kind, address) => {
                let kind = match kind {
                    Kind::Load => "load",
                    Kind::Store => "store",
                    Kind::ReadModifyWrite => "rmw",
                    Kind::Lock => "lock",
                    Kind::Mark => "mark",
                    Kind::Change => "change",
                    Kind::IrqsOff => "irqs-off",
                    Kind::Fence => "fence",
                };
                format!("{kind} {address:#x}")
            }
            Stop::Send { target, signal } => {
                let signal = signal.name(&self.manifest().vectors);
                format!("send {signal} to {target}")
            }
            Stop::Idle => "idle".to_owned(),
            Stop::Relax => "relax".to_owned(),
            Stop::Left => "left".to_owned(),
            Stop::NotStarted => "not started".to_owned(),
            Stop::WaitsForStartUp => "waits for start-up IPI".to_owned(),
            Stop::Point(index) => {
                let point = self.points.iter().nth(index);
                point.map_or_else(|| index.to_string(), |point| point.name.clone())
            }
        }
    }
}
