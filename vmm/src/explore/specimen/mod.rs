//! The specimen: a machine whose CPUs go on one at a time, from stop to stop, and can be put back
//! to where they were. It is the transition system that a search explores: which choices there are,
//! what one leads to, and whether anything broke. It makes no choice itself.

mod as_subject;
mod booting;
mod breach;
mod judging;
mod keeping;
#[cfg(test)]
pub mod model;
mod on_stack;
mod single;
mod stacks;
mod stepping;
mod stopped;
mod waiting;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use shared::lab::Contexts;
use shared::stop::{self, Kind};
use vmm_sys_util::errno;

use super::answers::Answers;
use super::case::{Case, CaseError};
use super::schedule::Granularity;
use super::search::Why;
use super::until::Until;
use crate::lab::Lab;
use crate::lab::judge;
use crate::lab::mailbox::Command;
use crate::machine::MachineError;
use crate::machine::image::Image;
use crate::machine::inspect;
use crate::machine::kick::Alarm;
use crate::machine::points::Points;
use crate::machine::serial::Serial;
use crate::machine::state::CpuState;
use crate::machine::symbols::Symbols;
use crate::machine::threads::ThreadsError;
use crate::machine::vm::HostError;
use crate::manifest::Manifest;

use booting::BOOT_LIMIT;
pub use breach::Breach;
use keeping::Kept;
pub use keeping::State;
pub use stepping::ENDLESS;
use stopped::FIRST_VECTOR;
pub use stopped::{Stop, Stopped};

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
    VcpuThreads(#[from] ThreadsError),
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
    /// The case has something that the guest cannot be told.
    #[error("the case, {0}")]
    Case(#[from] CaseError),
    /// The guest has no end that it can be told.
    #[error(
        "the guest does not say by which deed its workload ends (vmm describe shows its deeds), without which no \
         schedule can be judged"
    )]
    NoEnding,
    /// A search has no room for a vector of the guest.
    #[error(
        "the guest's vector \"{name}\" is {number:#x}, and a search knows of {FIRST_VECTOR:#x} to 0xff whether they \
         are pending; give it one of those"
    )]
    Vector {
        /// Its name.
        name: String,
        /// Its number.
        number: u8,
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
    /// A signal came, or the time was up.
    #[error("{}", .0.reason())]
    Ended(Why),
    /// What the guest says of its stacks cannot be.
    #[error(
        "the guest says that the {which} of CPU {cpu} is from {start:#x} to {end:#x}, {why}; a guest that can be \
         explored says in the lab where its stacks are, see shared::lab::Contexts"
    )]
    Stack {
        /// The CPU.
        cpu: usize,
        /// Which of its stacks.
        which: &'static str,
        /// The first address, as the guest says.
        start: u64,
        /// The first address behind it, as the guest says.
        end: u64,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A state that was met again led elsewhere.
    #[error(
        "a bug of the explorer: CPU {cpu} led from state {from} to {before} once, and to {to} another time, so that \
         states that are taken for the same are not"
    )]
    NotCanonical {
        /// The CPU that went on.
        cpu: usize,
        /// From where.
        from: String,
        /// Where it led.
        to: String,
        /// Where it led before.
        before: String,
    },
    /// Memory is not what it was, where it was put back, or was never written, as KVM says.
    #[error(
        "the page of guest memory at {address:#x} is not what it was at the beginning, though KVM says that it was not written since"
    )]
    OtherPage {
        /// Where it begins.
        address: usize,
    },
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
    /// A guest whose CPUs never leave has none.
    left: Option<u64>,
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
    /// What the CPUs have answered so far, in all orders.
    answers: Answers,
    contexts: Vec<Contexts>,
    /// By CPU: where the guest counts the loops it waits in.
    waits_at: Vec<u64>,
    /// The vectors by which CPUs are told of something to do.
    vectors: Vec<u8>,
    /// Whether a vCPU is more than its general registers say, since the guest died or ended on it.
    is_hurt: bool,
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
    /// The keys of ends at which nothing was broken.
    sound_ends: HashSet<u128>,
    image: u128,
    beginning: u128,
    until: Until,
    /// Ends each stay in the guest that lasts too long.
    _alarm: Alarm,
}

impl Specimen {
    /// What the guest says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.lab.manifest()
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

    /// What the CPUs have answered to their deeds, in all orders that were tried.
    pub fn take_answers(&mut self) -> Answers {
        std::mem::take(&mut self.answers)
    }

    /// The options of the run, as the guest says.
    pub fn words(&self) -> Option<BTreeMap<String, String>> {
        self.lab.words()
    }

    /// Where CPUs stop.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Whether CPUs say before each access which it is.
    pub fn knows_accesses(&self) -> bool {
        matches!(self.granularity, Granularity::Access | Granularity::Every)
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

    /// The addresses to which the functions that `cpu` is in will return, innermost first, as far
    /// as they can be followed.
    pub fn callers(&self, cpu: usize) -> Vec<u64> {
        let regs = &self.cpus[cpu].regs;
        // What it rings the doorbell in has no frame of its own.
        let innermost = self.word(regs.rsp).into_iter();
        let callers = inspect::callers(regs.rbp, |address| self.word(address));
        innermost.chain(callers).collect()
    }

    /// Why the search or the replay is to end now, if it is.
    pub fn is_to_end(&self) -> Option<Why> {
        self.until.is_over()
    }

    /// As [`Specimen::is_to_end`], as an error.
    fn check_end(&self) -> Result<(), SpecimenError> {
        self.until
            .is_over()
            .map_or(Ok(()), |why| Err(SpecimenError::Ended(why)))
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
        }
    }
}
