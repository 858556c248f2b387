//! The guest's command line: `key=value` words, separated by spaces.
//!
//! A word that is not understood is an error, not a default: a misspelled queue that ran as another
//! would give a wrong answer with a straight face.

use core::fmt;
use core::num::ParseIntError;
use core::str::SplitAsciiWhitespace;

use shared::lab::Transport;
use shared::manifest::{BROKEN, Measure};

use crate::ipi::queue::QueueKind;
use crate::manifest::Record;
use crate::route::Choice;
use crate::rules::{FailRate, HotplugMode, Rules};
use crate::workload::bench::{By, Receiver, Round, To};
use crate::{declare, declare_values};

/// `workload=`: what the CPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// [`Selftest`](crate::workload::selftest::Selftest).
    Selftest,
    /// [`Stress`](crate::workload::stress::Stress).
    Stress,
    /// [`Puppet`](crate::workload::puppet::Puppet).
    Puppet,
    /// [`Bench`](crate::workload::bench::Bench).
    Bench,
}

impl Program {
    /// Every workload.
    pub const ALL: [Self; 4] = [Self::Selftest, Self::Stress, Self::Puppet, Self::Bench];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Selftest => "selftest",
            Self::Stress => "stress",
            Self::Puppet => "puppet",
            Self::Bench => "bench",
        }
    }
}

/// `apic=`: how software reaches the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// As a page of registers.
    Xapic,
    /// As MSRs.
    X2apic,
}

impl ApicMode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Xapic, Self::X2apic];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xapic => "xapic",
            Self::X2apic => "x2apic",
        }
    }

    /// How an IPI to one CPU leaves an APIC in this mode.
    pub fn transport(self) -> Transport {
        match self {
            Self::Xapic => Transport::Xapic,
            Self::X2apic => Transport::X2apic,
        }
    }
}

/// `eoi=`: how a CPU says that an interrupt has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eoi {
    /// By its APIC's register.
    Register,
    /// In memory shared with KVM where that suffices (`MSR_KVM_PV_EOI_EN`), else by the register.
    Pv,
}

impl Eoi {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Register, Self::Pv];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Pv => "pv",
        }
    }
}

/// Why what says how much is done has no effect in a search.
pub const BY_CASE: &str = "in which the case says what each CPU does and how often";

declare! {
    Record::word("workload", "What the CPUs do.")
        .set_by_search("puppet")
        .because("in which the case says what each CPU does (workload=puppet)")
        .set_by_bench("bench"),
    Record::word("transport", "How IPIs leave a CPU.")
        .set_by_search("wire")
        .because("in which IPIs go by transport=wire, so that each moment of arrival is tried")
        .measured_as(Measure::Transport),
    Record::value("transport", Transport::ALL.len() as u32, Choice::AUTO),
    Record::word("apic", "How software reaches the local APICs.")
        .without_effect_in_search()
        .because("in which no IPI goes through the local APICs' registers")
        .measured_as(Measure::Apic),
    Record::word("eoi", "How a CPU says that an interrupt has been taken.")
        .without_effect_in_search()
        .because("in which interrupts are taken singly, and how each ends decides nothing"),
    Record::word("calls", "Calls, operations or rounds, of which the workload makes so many.")
        .without_effect_in_search()
        .because(BY_CASE)
        .measured_as(Measure::Rounds),
    Record::word("for", "How long stress goes on, such as 3s.")
        .without_effect_in_search()
        .because(BY_CASE),
    Record::word("seed", "Where everything random comes from.")
        .without_effect_in_search()
        .because("whose choices --seed of vmm explore decides, and the case what each CPU does"),
    Record::word("icr-fence", "A fence before the ICR of an x2APIC is written."),
    Record::value("icr-fence", 0, "on"),
    Record::value("icr-fence", 1, "off")
        .with(BROKEN)
        .harmless("leaves out a fence, without which an IPI can overtake a store, and here none does"),
    Record::word("self-ipi", "How an IPI of a CPU to itself travels.")
        .set_by_search("wire")
        .because("in which IPIs to oneself go by the wire as well (self-ipi=wire)"),
    Record::value("self-ipi", 0, "apic"),
    Record::value("self-ipi", 1, "wire"),
    Record::word("clock", "Whether time passes.")
        .set_by_search("stopped")
        .because("in which time stands still (clock=stopped), so that nothing depends on it"),
    Record::value("clock", 0, "running"),
    Record::value("clock", 1, "stopped"),
}
declare_values!("workload", Program);
declare_values!("transport", Transport);
declare_values!("apic", ApicMode);
declare_values!("eoi", Eoi);

/// What a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `workload=`: what the CPUs do.
    pub workload: Program,
    /// `queue=`: the design that carries calls to many.
    pub queue: QueueKind,
    /// `transport=`: how IPIs leave a CPU.
    pub transport: Choice,
    /// `apic=`: the mode of the APICs; `None` takes what the transport needs, else the x2APIC where there
    /// is one.
    pub apic: Option<ApicMode>,
    /// `eoi=`: how a CPU says that an interrupt has been taken.
    pub eoi: Eoi,
    /// `to=`, `by=`, `receiver=`: what `bench` measures.
    pub round: Round,
    /// `calls=`: how many random calls (`selftest`) or operations (`stress`) every CPU makes, or how many
    /// rounds `bench` measures; `None` makes so many that a large machine does not take for ever.
    pub calls: Option<u32>,
    /// `for=`: how long `stress` goes on, in milliseconds.
    pub milliseconds: Option<u64>,
    /// `seed=`: where everything random comes from; equal seeds give equal calls.
    pub seed: u64,
    /// `csd-barrier=`, `mask-check=`, `hotplug=`, `alloc-fail=`: what is left out or refused.
    pub rules: Rules,
    /// `icr-fence=`: the fence before the x2APIC's ICR is written, which does not order itself behind
    /// earlier stores (Linux ce4e240c279a).
    pub icr_fence: bool,
    /// `self-ipi=wire`: an IPI of a CPU to itself goes by the wire as well, for a monitor that is to say when each
    /// arrives. By the APIC if not said, whatever the transport.
    pub self_ipi_by_wire: bool,
    /// `clock=stopped`: time does not pass: every time stamp is the same, and no wait is ever long. So that what
    /// CPUs do depends on their order alone.
    pub clock_stopped: bool,
    /// `lab=`: guest-physical address of the lab pages, if the monitor offers them.
    pub lab: Option<u64>,
}

impl Options {
    /// What a run is made of when nothing is asked for.
    pub const DEFAULT: Self = Self {
        workload: Program::Selftest,
        queue: QueueKind::Filo,
        transport: Choice::Unicast,
        apic: None,
        eoi: Eoi::Register,
        round: Round::DEFAULT,
        calls: None,
        milliseconds: None,
        seed: 1,
        rules: Rules::DEFAULT,
        icr_fence: true,
        self_ipi_by_wire: false,
        clock_stopped: false,
        lab: None,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError<'a> {
    /// A word without `=`, or with an unknown key.
    UnknownKey(&'a str),
    /// A value that is not one of the names the key takes.
    UnknownName(&'a str, &'a str),
    /// A value that is not a number.
    NotANumber(&'a str, &'a str),
    /// A value that is not a rate, such as 1/7.
    NotARate(&'a str, &'a str),
    /// A transport that the mode of the APICs, asked for in the same line, does not have.
    NotInThatMode(Transport, ApicMode),
    /// A value that asks for something only a monitor with a lab does, which this one has not named.
    NeedsLab(&'static str, &'static str),
}

impl fmt::Display for OptionsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey(word) => write!(
                f,
                "command line: \"{word}\" is not an option; there are workload=, queue=, \
                 transport=, apic=, eoi=, to=, by=, receiver=, calls=, for=, seed=, hotplug=, alloc-fail=, csd-barrier=, \
                 mask-check=, icr-fence=, self-ipi=, clock= and lab="
            ),
            Self::UnknownName(key, value) => {
                write!(
                    f,
                    "command line: {key}={value} is unknown; {key}= takes one of"
                )?;
                let mut list = |name| write!(f, " {name}");
                match *key {
                    "workload" => Program::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "queue" => QueueKind::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "transport" => {
                        let names = Transport::ALL.iter().map(|kind| kind.name());
                        names.chain([Choice::AUTO]).try_for_each(list)
                    }
                    "apic" => ApicMode::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "eoi" => Eoi::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "to" => To::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "by" => By::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "receiver" => Receiver::ALL.iter().try_for_each(|kind| list(kind.name())),
                    "self-ipi" => ["apic", "wire"].into_iter().try_for_each(list),
                    "clock" => ["running", "stopped"].into_iter().try_for_each(list),
                    "hotplug" => HotplugMode::ALL
                        .iter()
                        .try_for_each(|kind| list(kind.name())),
                    _ => ["on", "off"].into_iter().try_for_each(list),
                }
            }
            Self::NotARate(key, value) => write!(
                f,
                "command line: {key}={value} is not a rate: {key}=1/7 refuses one request in seven"
            ),
            Self::NotInThatMode(transport, mode) => write!(
                f,
                "command line: with apic={} there is no transport={}",
                mode.name(),
                transport.name()
            ),
            Self::NeedsLab(key, value) => write!(
                f,
                "command line: {key}={value} needs a monitor that offers a lab (lab=), as vmm does; \
                 under another {}",
                match *value {
                    "wire" => "nobody would ever deliver an IPI",
                    "pv" => "KVM might retry the first hypercall for ever",
                    _ => "nobody would ever tell the CPUs what to do",
                }
            ),
            Self::NotANumber(key, value) => {
                write!(
                    f,
                    "command line: {key}={value} is not a number, decimal or 0x…"
                )
            }
        }
    }
}

fn number(text: &str) -> Result<u64, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// A time as `500ms`, `3s`, or a number of milliseconds.
fn milliseconds(text: &str) -> Result<u64, ParseIntError> {
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse(),
        (None, Some(seconds)) => seconds.parse::<u32>().map(|s| u64::from(s) * 1000),
        (None, None) => text.parse(),
    }
}

/// The variant of `all` that `name` calls `value`.
fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, value: &str) -> Option<T> {
    all.iter().copied().find(|kind| name(*kind) == value)
}

fn rate(text: &str) -> Option<FailRate> {
    let (refused, of) = text.split_once('/')?;
    let (refused, of) = (refused.parse().ok()?, of.parse().ok()?);
    (of != 0 && refused <= of).then_some(FailRate { refused, of })
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

impl Options {
    /// Reads a command line. Later words override earlier ones.
    ///
    /// # Errors
    /// For the first word that is not understood; then for what cannot be without a lab.
    pub fn parse(line: &str) -> Result<Self, OptionsError<'_>> {
        let words: SplitAsciiWhitespace<'_> = line.split_ascii_whitespace();
        let mut options = Self::default();
        for word in words {
            let (key, value) = word.split_once('=').ok_or(OptionsError::UnknownKey(word))?;
            let unknown = OptionsError::UnknownName(key, value);
            let not_a_number = |_| OptionsError::NotANumber(key, value);
            match key {
                "workload" => {
                    let program = named(&Program::ALL, Program::name, value);
                    options.workload = program.ok_or(unknown)?;
                }
                "queue" => {
                    let queue = named(&QueueKind::ALL, QueueKind::name, value);
                    options.queue = queue.ok_or(unknown)?;
                }
                "transport" => {
                    let transport = named(&Transport::ALL, Transport::name, value);
                    options.transport = match (transport, value) {
                        (Some(transport), _) => Choice::One(transport),
                        (None, Choice::AUTO) => Choice::Auto,
                        _ => return Err(unknown),
                    };
                }
                "apic" => {
                    let mode = named(&ApicMode::ALL, ApicMode::name, value);
                    options.apic = Some(mode.ok_or(unknown)?);
                }
                "eoi" => options.eoi = named(&Eoi::ALL, Eoi::name, value).ok_or(unknown)?,
                "to" => options.round.to = named(&To::ALL, To::name, value).ok_or(unknown)?,
                "by" => options.round.by = named(&By::ALL, By::name, value).ok_or(unknown)?,
                "receiver" => {
                    let receiver = named(&Receiver::ALL, Receiver::name, value);
                    options.round.receiver = receiver.ok_or(unknown)?;
                }
                "hotplug" => {
                    let mode = named(&HotplugMode::ALL, HotplugMode::name, value);
                    options.rules.hotplug = mode.ok_or(unknown)?;
                }
                "alloc-fail" => {
                    let rate = rate(value).ok_or(OptionsError::NotARate(key, value))?;
                    options.rules.alloc_fail = Some(rate);
                }
                "csd-barrier" => {
                    options.rules.csd_barrier = switch(value).ok_or(unknown)?;
                }
                "mask-check" => options.rules.mask_check = switch(value).ok_or(unknown)?,
                "icr-fence" => options.icr_fence = switch(value).ok_or(unknown)?,
                "self-ipi" => {
                    options.self_ipi_by_wire = match value {
                        "wire" => true,
                        "apic" => false,
                        _ => return Err(unknown),
                    };
                }
                "clock" => {
                    options.clock_stopped = match value {
                        "stopped" => true,
                        "running" => false,
                        _ => return Err(unknown),
                    };
                }
                "for" => options.milliseconds = Some(milliseconds(value).map_err(not_a_number)?),
                "calls" => {
                    let calls = number(value).map_err(not_a_number)?;
                    let calls = u32::try_from(calls);
                    options.calls = Some(calls.map_err(|_| OptionsError::NotANumber(key, value))?);
                }
                "seed" => options.seed = number(value).map_err(not_a_number)?,
                "lab" => options.lab = Some(number(value).map_err(not_a_number)?),
                _ => return Err(OptionsError::UnknownKey(word)),
            }
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), OptionsError<'static>> {
        if self.lab.is_none() {
            let transport = "transport";
            match (self.workload, self.transport) {
                (Program::Puppet, _) => return Err(OptionsError::NeedsLab("workload", "puppet")),
                (_, Choice::One(Transport::Wire)) => {
                    return Err(OptionsError::NeedsLab(transport, "wire"));
                }
                (_, Choice::One(Transport::Pv)) => {
                    return Err(OptionsError::NeedsLab(transport, "pv"));
                }
                _ => {}
            }
        }
        match (self.transport, self.apic) {
            (
                Choice::One(transport @ (Transport::X2apic | Transport::X2apicCluster)),
                Some(mode @ ApicMode::Xapic),
            )
            | (Choice::One(transport @ Transport::Xapic), Some(mode @ ApicMode::X2apic)) => {
                Err(OptionsError::NotInThatMode(transport, mode))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_read() {
        let line = "workload=stress queue=llist transport=xapic apic=xapic eoi=pv to=some by=call \
                    receiver=running calls=3 for=2s seed=0x10 \
                    hotplug=keep alloc-fail=1/7 csd-barrier=off mask-check=off icr-fence=off \
                    self-ipi=wire clock=stopped lab=0x3f00000";
        assert_eq!(
            Options::parse(line),
            Ok(Options {
                workload: Program::Stress,
                queue: QueueKind::Llist,
                transport: Choice::One(Transport::Xapic),
                apic: Some(ApicMode::Xapic),
                eoi: Eoi::Pv,
                round: Round {
                    to: To::Some,
                    by: By::Call,
                    receiver: Receiver::Running,
                },
                calls: Some(3),
                milliseconds: Some(2000),
                seed: 16,
                rules: Rules {
                    csd_barrier: false,
                    mask_check: false,
                    hotplug: HotplugMode::Keep,
                    alloc_fail: Some(FailRate { refused: 1, of: 7 }),
                },
                icr_fence: false,
                self_ipi_by_wire: true,
                clock_stopped: true,
                lab: Some(0x3f0_0000),
            })
        );
        assert_eq!(Options::parse(" "), Ok(Options::default()));
    }

    #[test]
    fn nothing_is_guessed() {
        let refused = |line| Options::parse(line).unwrap_err();
        assert_eq!(refused("quue=filo"), OptionsError::UnknownKey("quue=filo"));
        assert_eq!(refused("quiet"), OptionsError::UnknownKey("quiet"));
        assert_eq!(
            refused("queue=lifo"),
            OptionsError::UnknownName("queue", "lifo")
        );
        assert_eq!(
            refused("workload=x"),
            OptionsError::UnknownName("workload", "x")
        );
        assert_eq!(refused("calls=x"), OptionsError::NotANumber("calls", "x"));
        assert_eq!(
            refused("calls=0x100000000"),
            OptionsError::NotANumber("calls", "0x100000000")
        );
        assert!(refused("queue=lifo").to_string().contains("filo"));
        assert!(refused("hotplug=x").to_string().contains("no-stop"));
        assert!(refused("mask-check=0").to_string().contains("off"));
        for line in [
            "alloc-fail=7",
            "alloc-fail=1/0",
            "alloc-fail=2/1",
            "alloc-fail=1/x",
        ] {
            assert!(matches!(
                refused(line),
                OptionsError::NotARate("alloc-fail", _)
            ));
        }
        assert!(refused("transport=x").to_string().contains("auto"));
        assert!(refused("apic=x").to_string().contains("x2apic"));
        for line in [
            "transport=x2apic-cluster apic=xapic",
            "apic=x2apic transport=xapic",
        ] {
            assert!(
                matches!(refused(line), OptionsError::NotInThatMode(..)),
                "{line}"
            );
        }
        let auto = Options::parse("transport=auto apic=xapic").map(|options| options.transport);
        assert_eq!(auto, Ok(Choice::Auto));
        assert_eq!(refused("for=1h"), OptionsError::NotANumber("for", "1h"));
    }

    #[test]
    fn what_only_a_monitor_with_a_lab_does_needs_one() {
        for (line, nobody) in [
            ("workload=puppet", "tell the CPUs what to do"),
            ("transport=wire", "deliver an IPI"),
            ("transport=pv", "retry the first hypercall"),
        ] {
            let refusal = Options::parse(line).unwrap_err();
            assert!(matches!(refusal, OptionsError::NeedsLab(..)), "{line}");
            assert!(refusal.to_string().contains(nobody), "{refusal}");
            let with_lab = format!("lab=0x1000 {line}");
            assert!(Options::parse(&with_lab).is_ok(), "{with_lab}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*") {
            let _ = Options::parse(&line);
        }
    }
}
