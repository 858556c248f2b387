//! The commands of `vmm ctl`, one for each verb of the protocol, and the request that each makes.

use clap::{Args, Subcommand, ValueEnum};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::time::Duration;
use vmm::cpus::CpuSet;
use vmm::duration;

#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// Who answers: the protocol, and the version of the VMM
    Hello,
    /// The verbs of the protocol, with their fields
    Verbs,
    /// Wait until the guest's CPUs are up and its workload has started
    Ready {
        #[command(flatten)]
        limit: Limit,
    },
    /// Where every vCPU is, what it is told and armed for, and what is on the wire
    Status,
    /// Hold a vCPU, or all, out of the guest
    Pause {
        /// Its number, or all
        cpu: Cpus,
    },
    /// Undo one pause, or the hold at a probe
    Resume {
        /// Its number, or all
        cpu: Cpus,
    },
    /// Hold all vCPUs out of the guest
    PauseAll,
    /// Undo one pause or hold of every vCPU that has one
    ResumeAll,
    /// Hold a vCPU when it comes to a probe, or to an instruction
    Hold {
        cpu: u32,
        /// A name that `vmm probes` lists
        #[arg(required_unless_present = "at", conflicts_with = "at")]
        probe: Option<String>,
        /// When it comes there that often
        #[arg(long)]
        nth: Option<u64>,
        /// Only with this call at hand, such as 0:0:2
        #[arg(long)]
        call: Option<String>,
        /// As `break`: a symbol or an address, in place of a probe
        #[arg(long, conflicts_with_all = ["nth", "call"])]
        at: Option<String>,
    },
    /// Hold a stalled vCPU before an instruction, on hosts with breakpoints
    Break {
        cpu: u32,
        /// A symbol or an address
        at: String,
    },
    /// Hold a vCPU nowhere any more, where it was to be held
    Disarm { cpu: u32 },
    /// Wait until a vCPU is held, and look at it
    #[command(alias = "wait")]
    WaitHeld {
        cpu: u32,
        #[command(flatten)]
        limit: Limit,
    },
    /// Undo the hold at a probe
    Release { cpu: u32 },
    /// Have a stalled vCPU execute instructions, and look at it
    Step {
        cpu: u32,
        #[arg(default_value_t = 1)]
        count: u64,
        #[command(flatten)]
        limit: Limit,
    },
    /// Place, callers, pending interrupts and registers of a stalled vCPU
    Look { cpu: u32 },
    /// What a CPU of this guest can be told
    Deeds,
    /// Tell a CPU of a puppet guest to do something, and wait until it is done
    Tell {
        cpu: u32,
        /// Such as `call-many 1-3,5 wait`; `deeds` lists what this guest can be told
        #[arg(required = true)]
        deed: Vec<String>,
        /// What to wait for: that it is told, that the call it makes is in the ledger, or that it
        /// is done
        #[arg(long, value_enum, value_name = "WHAT", default_value = "done")]
        until: Until,
        #[command(flatten)]
        limit: Limit,
    },
    /// Wait until the call that a CPU was told to make is in the ledger, and say which it is
    WaitMade {
        cpu: u32,
        /// The number of the deed, as `tell` says it
        number: u64,
        #[command(flatten)]
        limit: Limit,
    },
    /// Wait until a CPU has done what it was told, and say what has come of it
    WaitDone {
        cpu: u32,
        /// The number of the deed, as `tell` says it
        number: u64,
        #[command(flatten)]
        limit: Limit,
    },
    /// To whom a call was made, and where it has run
    Call {
        /// Its name, such as 0:0:2
        call: String,
    },
    /// Whether a call has run on a CPU
    RanOn {
        /// Its name, such as 0:0:2
        call: String,
        cpu: u32,
    },
    /// Wait until a call has run on some CPUs, or has returned and run on all its targets
    WaitRan {
        /// Its name, such as 0:0:2
        call: String,
        /// Such as 1-3,5
        cpus: Option<CpuSet>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Hold, delay, release, reorder or lose IPIs, with transport=wire
    #[command(subcommand)]
    Wire(Wire),
    /// Exits, KVM's statistics and what the guest has counted
    Stats,
    /// Judge the machine by this: the oracle has to find something
    MustBreak {
        /// A name that `vmm describe` lists
        oracle: String,
    },
    /// Judge the machine by this: the oracle may find something
    MayBreak {
        /// A name that `vmm describe` lists
        oracle: String,
    },
    /// Have CPUs take no part in the end
    Abandon {
        /// Such as 1-3,5
        cpus: CpuSet,
    },
    /// Turn the trace on or off
    Trace {
        #[arg(value_name = "WAY")]
        state: OnOff,
    },
    /// End the workload of a puppet guest, and have it judged
    Finish {
        #[command(flatten)]
        limit: Limit,
    },
    /// End the run
    Quit,
    /// Print what happens, as it happens, until the run is over
    Subscribe {
        /// What to print [default: all]
        events: Vec<Kind>,
    },
    /// A request as it is, or those of standard input, one a line
    Raw {
        /// JSON, or -
        request: String,
    },
}

/// The verbs about IPIs on their way. Each is the request that it makes.
#[derive(Debug, Subcommand, Serialize)]
#[serde(tag = "verb")]
pub(super) enum Wire {
    /// Hold what a CPU sends another from now on; without --vector or --call, all but wake-ups
    #[serde(rename = "wire_hold")]
    Hold {
        from: u32,
        to: u32,
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Hold what any CPU sends from now on; without --vector or --call, all but wake-ups
    #[serde(rename = "wire_hold_all")]
    HoldAll {
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Delay what a CPU sends another; without --vector or --call, all but wake-ups
    #[serde(rename = "wire_delay")]
    Delay {
        from: u32,
        to: u32,
        milliseconds: u32,
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Deliver what is held, in order, and hold no longer
    #[serde(rename = "wire_release")]
    Release {
        from: u32,
        to: u32,
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Deliver all that is held, and hold no longer
    #[serde(rename = "wire_release_all")]
    ReleaseAll {
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Deliver one that is held ahead of the others
    #[serde(rename = "wire_deliver")]
    Deliver {
        from: u32,
        to: u32,
        /// Counted from 0
        #[arg(default_value_t = 0)]
        nth: usize,
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Lose one that is held
    #[serde(rename = "wire_lose")]
    Lose {
        from: u32,
        to: u32,
        /// Counted from 0
        #[arg(default_value_t = 0)]
        nth: usize,
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
    },
    /// Wait until so many that a CPU has sent another are in flight
    #[serde(rename = "wire_wait_held")]
    WaitHeld {
        from: u32,
        to: u32,
        /// How many
        #[arg(default_value_t = 1)]
        count: usize,
        #[command(flatten)]
        #[serde(flatten)]
        which: Which,
        #[command(flatten)]
        #[serde(flatten)]
        limit: Limit,
    },
    /// The IPIs in flight
    #[serde(rename = "wire_in_flight")]
    InFlight,
}

/// Which of the IPIs of a pair of CPUs; all of them without either.
#[derive(Debug, Clone, Args, Serialize)]
#[group(multiple = false)]
pub(super) struct Which {
    /// Those of a vector, by its name or number, such as single or 0xfb; or init, or sipi
    #[arg(long, value_name = "VECTOR")]
    vector: Option<String>,
    /// Those that tell of a call, such as 0:0:2
    #[arg(long, value_name = "CALL")]
    call: Option<String>,
}

#[derive(Debug, Clone, Copy, Args, Serialize)]
pub(super) struct Limit {
    /// How long to wait for it at most, such as 5, 5s or 500ms [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(serialize_with = "as_seconds")]
    limit: Option<Duration>,
}

fn as_seconds<S: Serializer>(limit: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    limit.map(|limit| limit.as_secs_f64()).serialize(out)
}

impl Limit {
    /// In seconds, as requests have it.
    pub fn seconds(self) -> Option<f64> {
        self.limit.map(|limit| limit.as_secs_f64())
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Cpus {
    All,
    One(u32),
}

impl std::str::FromStr for Cpus {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::One),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OnOff {
    On,
    Off,
}

/// What `tell` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    Told,
    Made,
    Done,
}

/// What one can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A CPU is held
    Held,
    /// A CPU has done what it was told
    Done,
    /// An oracle of the guest has found something
    Finding,
    /// The guest has died
    Died,
    /// The machine is over
    Ended,
}

impl Kind {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Ask {
    /// What is sent first.
    pub fn request(&self) -> Value {
        let list = |cpus: &CpuSet| cpus.iter().collect::<Vec<_>>();
        match self {
            Self::Hello => json!({ "verb": "hello" }),
            Self::Verbs => json!({ "verb": "verbs" }),
            Self::Ready { limit } => json!({ "verb": "ready", "limit": limit.seconds() }),
            Self::Status => json!({ "verb": "status" }),
            Self::PauseAll | Self::Pause { cpu: Cpus::All } => json!({ "verb": "pause_all" }),
            Self::Pause {
                cpu: Cpus::One(cpu),
            } => json!({ "verb": "pause", "cpu": cpu }),
            Self::ResumeAll | Self::Resume { cpu: Cpus::All } => json!({ "verb": "resume_all" }),
            Self::Resume {
                cpu: Cpus::One(cpu),
            } => json!({ "verb": "resume", "cpu": cpu }),
            Self::Hold {
                cpu, at: Some(at), ..
            }
            | Self::Break { cpu, at } => json!({ "verb": "break", "cpu": cpu, "at": at }),
            Self::Hold {
                cpu,
                probe,
                nth,
                call,
                ..
            } => {
                json!({ "verb": "hold", "cpu": cpu, "probe": probe, "nth": nth, "call": call })
            }
            Self::Disarm { cpu } => json!({ "verb": "disarm", "cpu": cpu }),
            Self::WaitHeld { cpu, limit } => {
                json!({ "verb": "wait_held", "cpu": cpu, "limit": limit.seconds() })
            }
            Self::Release { cpu } => json!({ "verb": "release", "cpu": cpu }),
            Self::Step { cpu, count, limit } => {
                json!({ "verb": "step", "cpu": cpu, "count": count, "limit": limit.seconds() })
            }
            Self::Look { cpu } => json!({ "verb": "look", "cpu": cpu }),
            Self::Deeds => json!({ "verb": "deeds" }),
            Self::Tell {
                cpu,
                deed,
                until,
                limit,
            } => json!({
                "verb": "tell",
                "cpu": cpu,
                "deed": deed.join(" "),
                "until": match until {
                    Until::Told => "told",
                    // Of a deed that is waited for it is said first which call it makes.
                    Until::Made | Until::Done => "made",
                },
                "limit": limit.seconds(),
            }),
            Self::WaitMade { cpu, number, limit } => json!({
                "verb": "wait_made", "cpu": cpu, "number": number, "limit": limit.seconds(),
            }),
            Self::WaitDone { cpu, number, limit } => json!({
                "verb": "wait_done", "cpu": cpu, "number": number, "limit": limit.seconds(),
            }),
            Self::Call { call } => json!({ "verb": "call", "call": call }),
            Self::RanOn { call, cpu } => json!({ "verb": "ran_on", "call": call, "cpu": cpu }),
            Self::WaitRan { call, cpus, limit } => json!({
                "verb": "wait_ran",
                "call": call,
                "cpus": cpus.as_ref().map(list),
                "limit": limit.seconds(),
            }),
            Self::Wire(wire) => json!(wire),
            Self::Stats => json!({ "verb": "stats" }),
            Self::MustBreak { oracle } => json!({ "verb": "must_break", "oracle": oracle }),
            Self::MayBreak { oracle } => json!({ "verb": "may_break", "oracle": oracle }),
            Self::Abandon { cpus } => json!({ "verb": "abandon", "cpus": list(cpus) }),
            Self::Trace { state } => {
                json!({ "verb": "trace", "on": matches!(state, OnOff::On) })
            }
            Self::Finish { limit } => json!({ "verb": "finish", "limit": limit.seconds() }),
            Self::Quit => json!({ "verb": "quit" }),
            Self::Subscribe { events } => {
                let names: Vec<_> = events.iter().map(|kind| kind.name()).collect();
                let names = (!names.is_empty()).then_some(names);
                json!({ "verb": "subscribe", "events": names })
            }
            Self::Raw { .. } => Value::Null,
        }
    }
}
