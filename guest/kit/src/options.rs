//! A guest's command line: `key=value` words, separated by spaces. The kit takes those that say how
//! IPIs are sent and where the lab is; the guest takes the others ([`Options`]).
//!
//! A word that is not understood is an error, and never a default: a misspelled queue that ran as
//! another would give a wrong result without a warning.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use shared::lab::Transport;

use crate::manifest::{BROKEN, Measure, Record};
use crate::route::Choice;
use crate::{declare, declare_values};

/// What a guest takes on its command line besides what the kit takes.
pub trait Options: Default {
    /// Its keys. None is one of the kit's ([`MachineOptions::KEYS`]).
    fn keys() -> &'static [&'static str];

    /// Takes `value` for `key`, one of [`Options::keys`].
    ///
    /// # Errors
    /// If it is not understood; [`choose`], [`number`] and [`switch`] say so.
    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), OptionsError<'a>>;

    /// Refuses what does not go together with the kit's options, once all words are read.
    ///
    /// # Errors
    /// Says what that is.
    fn check(&self, machine: &MachineOptions) -> Result<(), OptionsError<'static>> {
        let _ = machine;
        Ok(())
    }

    /// Refuses what a machine of `cpus` CPUs cannot do.
    ///
    /// # Errors
    /// A sentence that says so.
    fn check_cpus(&self, cpus: usize) -> Result<(), String> {
        let _ = cpus;
        Ok(())
    }

    /// How many of a machine's `cpus` CPUs, the first of them included, are started at boot. The
    /// others can be started later ([`Platform::start_cpu`](crate::platform::Platform::start_cpu)).
    fn cpus_at_boot(&self, cpus: usize) -> usize {
        cpus
    }

    /// Writes the effective options of a run on a machine of `cpus` CPUs as such words, defaults
    /// included, but only those that affect the run. Each word begins with a space: ` queue=filo
    /// seed=1`.
    ///
    /// # Errors
    /// If `f` has any.
    fn write_words(&self, cpus: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Writes what the console is to say after the number of CPUs when they are up: `, queue filo`.
    ///
    /// # Errors
    /// If `f` has any.
    fn write_title(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        Ok(())
    }

    /// The keys and values that ask for something which is broken on purpose.
    fn broken(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        core::iter::empty()
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

/// The options of a guest that takes none, and does nothing but what its mailboxes say.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToldOnly;

impl Options for ToldOnly {
    fn keys() -> &'static [&'static str] {
        &[]
    }

    fn set<'a>(&mut self, key: &'a str, _: &'a str) -> Result<(), OptionsError<'a>> {
        Err(OptionsError::UnknownKey(key, Self::keys()))
    }

    fn check(&self, machine: &MachineOptions) -> Result<(), OptionsError<'static>> {
        match machine.lab {
            Some(_) => Ok(()),
            None => Err(OptionsError::NobodyTells),
        }
    }

    fn write_words(&self, _: usize, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

declare! {
    Record::word("transport", "How IPIs leave a CPU.")
        .set_by_search("wire")
        .because("in which IPIs go by transport=wire, so that each moment of arrival is tried")
        .measured_as(Measure::Transport),
    Record::value("transport", Transport::ALL.len() as u32, Choice::AUTO),
    Record::word("apic", "How software reaches the local APICs.").measured_as(Measure::Apic),
    Record::value("apic", 0, "xapic")
        .harmless("says whether IPIs stay behind earlier stores, and here all do"),
    Record::value("apic", 1, "x2apic")
        .harmless("says whether IPIs stay behind earlier stores, and here all do"),
    Record::word("eoi", "How a CPU says that an interrupt has been taken.")
        .without_effect_in_search()
        .because("in which interrupts are taken singly, and how each ends decides nothing"),
    Record::word("icr-fence", "A fence before the ICR of an x2APIC is written."),
    Record::value("icr-fence", 0, "on"),
    Record::value("icr-fence", 1, "off")
        .with(BROKEN)
        .harmless(
            "leaves out a fence, without which an IPI can overtake a store, and here none does",
        ),
    Record::word("self-ipi", "How an IPI of a CPU to itself travels.")
        .set_by_search("wire")
        .because("in which IPIs to oneself go by the wire as well (self-ipi=wire)"),
    Record::value("self-ipi", 0, "apic"),
    Record::value("self-ipi", 1, "wire"),
    Record::word(
        "start-limit",
        "Milliseconds that a CPU which is started has to come up, after a second start-up IPI.",
    )
    .without_effect_in_search()
    .because("in which a CPU that is started is waited for as long as it takes"),
    Record::word("clock", "Whether time passes.")
        .set_by_search("stopped")
        .because("in which time stands still (clock=stopped), so that nothing depends on it"),
    Record::value("clock", 0, "running"),
    Record::value("clock", 1, "stopped"),
}
declare_values!("transport", Transport);
declare_values!("eoi", Eoi);

/// A host with more vCPUs than processors may need long to start one.
const START_LIMIT_MILLIS: u32 = 30_000;

/// What the kit takes: how the machine is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// `transport=`: how IPIs leave a CPU.
    pub transport: Choice,
    /// `apic=`: the mode of the APICs; `None` takes what the transport needs, else the x2APIC where
    /// there is one.
    pub apic: Option<ApicMode>,
    /// `eoi=`: how a CPU says that an interrupt has been taken.
    pub eoi: Eoi,
    /// `icr-fence=`: the fence before the x2APIC's ICR is written, which does not order itself
    /// behind earlier stores (Linux ce4e240c279a).
    pub icr_fence: bool,
    /// `self-ipi=wire`: an IPI of a CPU to itself goes through the monitor as well, which then
    /// decides when it arrives. By default it goes by the APIC, whatever the transport.
    pub self_ipi_by_wire: bool,
    /// `clock=stopped`: time does not pass. Every time stamp is the same and no wait is ever long,
    /// so that what CPUs do depends on their order alone.
    pub clock_stopped: bool,
    /// `start-limit=`: how many milliseconds a CPU that is started has to come up, after the second
    /// start-up IPI.
    pub start_limit_millis: u32,
    /// `lab=`: guest-physical address of the lab pages, if the monitor offers them.
    pub lab: Option<u64>,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            transport: Choice::Unicast,
            apic: None,
            eoi: Eoi::Register,
            icr_fence: true,
            self_ipi_by_wire: false,
            clock_stopped: false,
            start_limit_millis: START_LIMIT_MILLIS,
            lab: None,
        }
    }
}

impl MachineOptions {
    /// The keys that the kit takes.
    pub const KEYS: &'static [&'static str] = &[
        "transport",
        "apic",
        "eoi",
        "icr-fence",
        "self-ipi",
        "clock",
        "start-limit",
        "lab",
    ];

    /// Takes `value` for `key`, and says whether it is one of [`MachineOptions::KEYS`].
    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<bool, OptionsError<'a>> {
        match key {
            "transport" => {
                let transports = Transport::ALL.map(|it| (it.name(), Choice::One(it)));
                let auto = [(Choice::AUTO, Choice::Auto)];
                self.transport = choose(key, value, transports.into_iter().chain(auto))?;
            }
            "apic" => {
                let modes = ApicMode::ALL.map(|it| (it.name(), it));
                self.apic = Some(choose(key, value, modes)?);
            }
            "eoi" => self.eoi = choose(key, value, Eoi::ALL.map(|it| (it.name(), it)))?,
            "icr-fence" => self.icr_fence = switch(key, value)?,
            "self-ipi" => {
                self.self_ipi_by_wire = choose(key, value, [("apic", false), ("wire", true)])?;
            }
            "clock" => {
                self.clock_stopped = choose(key, value, [("running", false), ("stopped", true)])?;
            }
            "start-limit" => self.start_limit_millis = number(key, value)?,
            "lab" => self.lab = Some(number(key, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses what cannot be together.
    fn check(&self) -> Result<(), OptionsError<'static>> {
        if self.lab.is_none() {
            let undelivered = "nobody would ever deliver an IPI";
            if self.self_ipi_by_wire {
                return Err(OptionsError::NeedsLab("self-ipi", "wire", undelivered));
            }
            let nobody = match self.transport {
                Choice::One(Transport::Wire) => Some(undelivered),
                Choice::One(Transport::Pv) => Some("KVM might retry the first hypercall for ever"),
                _ => None,
            };
            if let (Some(nobody), Choice::One(transport)) = (nobody, self.transport) {
                return Err(OptionsError::NeedsLab(
                    "transport",
                    transport.name(),
                    nobody,
                ));
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

/// A command line that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandLine<O> {
    /// How the machine is used.
    pub machine: MachineOptions,
    /// What the guest was told.
    pub guest: O,
}

impl<O: Options> CommandLine<O> {
    /// Reads a command line. Later words override earlier ones.
    ///
    /// # Errors
    /// For the first word that is not understood; then for words that do not go together.
    pub fn parse(line: &str) -> Result<Self, OptionsError<'_>> {
        let mut read = Self {
            machine: MachineOptions::default(),
            guest: O::default(),
        };
        for word in line.split_ascii_whitespace() {
            let unknown = OptionsError::UnknownKey(word, O::keys());
            let Some((key, value)) = word.split_once('=') else {
                return Err(unknown);
            };
            if O::keys().contains(&key) {
                read.guest.set(key, value)?;
            } else if !read.machine.set(key, value)? {
                return Err(unknown);
            }
        }
        read.guest.check(&read.machine)?;
        read.machine.check()?;
        Ok(read)
    }
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError<'a> {
    /// A word without `=`, or with an unknown key, where the guest has these keys of its own.
    UnknownKey(&'a str, &'static [&'static str]),
    /// For this key a value that is not one of the names it takes.
    UnknownName(&'a str, &'a str, Vec<&'static str>),
    /// For this key a value that is not a number.
    NotANumber(&'a str, &'a str),
    /// For this key a value that is wrong in another respect: how, as a clause without a subject.
    Wrong(&'a str, &'a str, &'static str),
    /// A transport that does not exist in the mode of the APICs that the same line asks for.
    NotInThatMode(Transport, ApicMode),
    /// A key and a value that ask for something which only a monitor with a lab does, and what
    /// would happen without. The line names no lab.
    NeedsLab(&'static str, &'static str, &'static str),
    /// The guest does only what a monitor with a lab tells it, and the line names no lab.
    NobodyTells,
}

impl fmt::Display for OptionsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command line: ")?;
        match self {
            Self::UnknownKey(word, keys) => {
                write!(f, "\"{word}\" is not an option; there are")?;
                let mut keys = keys.iter().chain(MachineOptions::KEYS).peekable();
                while let Some(key) = keys.next() {
                    match keys.peek() {
                        Some(_) => write!(f, " {key}=,")?,
                        None => write!(f, " and {key}=")?,
                    }
                }
                Ok(())
            }
            Self::UnknownName(key, value, names) => {
                write!(f, "{key}={value} is unknown; {key}= takes one of")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::NotANumber(key, value) => {
                write!(f, "{key}={value} is not a number, decimal or 0x…")
            }
            Self::Wrong(key, value, what) => write!(f, "{key}={value} {what}"),
            Self::NotInThatMode(transport, mode) => write!(
                f,
                "with apic={} there is no transport={}",
                mode.name(),
                transport.name()
            ),
            Self::NeedsLab(key, value, nobody) => write!(
                f,
                "{key}={value} needs a monitor that offers a lab (lab=), as vmm does; \
                 under another {nobody}"
            ),
            Self::NobodyTells => f.write_str(
                "this guest needs a monitor that offers a lab (lab=), as vmm does; \
                 under another nobody tells it anything",
            ),
        }
    }
}

/// The choice that is called `value`.
///
/// # Errors
/// [`OptionsError::UnknownName`] if none is called so.
pub fn choose<'a, T>(
    key: &'a str,
    value: &'a str,
    choices: impl IntoIterator<Item = (&'static str, T)>,
) -> Result<T, OptionsError<'a>> {
    let mut names = Vec::new();
    for (name, choice) in choices {
        if name == value {
            return Ok(choice);
        }
        names.push(name);
    }
    Err(OptionsError::UnknownName(key, value, names))
}

/// `on` or `off`.
///
/// # Errors
/// [`OptionsError::UnknownName`] for anything else.
pub fn switch<'a>(key: &'a str, value: &'a str) -> Result<bool, OptionsError<'a>> {
    choose(key, value, [("on", true), ("off", false)])
}

/// A number, decimal or with `0x` in front.
///
/// # Errors
/// [`OptionsError::NotANumber`] for anything else, or if it does not fit.
pub fn number<'a, T: TryFrom<u64>>(key: &'a str, value: &'a str) -> Result<T, OptionsError<'a>> {
    let number = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    (number.ok())
        .and_then(|number| T::try_from(number).ok())
        .ok_or(OptionsError::NotANumber(key, value))
}

/// How many CPUs are started at boot (`maxcpus`): one at least.
///
/// # Errors
/// [`OptionsError::NotANumber`], and [`OptionsError::Wrong`] for none.
pub fn cpus_at_boot<'a>(key: &'a str, value: &'a str) -> Result<u32, OptionsError<'a>> {
    match number(key, value)? {
        0 => Err(OptionsError::Wrong(key, value, "leaves no CPU to boot")),
        some => Ok(some),
    }
}

/// A time as `500ms`, `3s`, or a number of milliseconds, in milliseconds.
///
/// # Errors
/// [`OptionsError::NotANumber`] for anything else.
pub fn milliseconds<'a>(key: &'a str, value: &'a str) -> Result<u64, OptionsError<'a>> {
    let time = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(number), _) => number.parse(),
        (None, Some(seconds)) => seconds.parse::<u32>().map(|s| u64::from(s) * 1000),
        (None, None) => value.parse(),
    };
    time.map_err(|_| OptionsError::NotANumber(key, value))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::string::ToString;

    /// A guest with one option.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Own {
        rounds: u32,
    }

    impl Options for Own {
        fn keys() -> &'static [&'static str] {
            &["rounds"]
        }

        fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), OptionsError<'a>> {
            self.rounds = number(key, value)?;
            Ok(())
        }

        fn write_words(&self, _: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, " rounds={}", self.rounds)
        }
    }

    fn parse(line: &str) -> Result<CommandLine<Own>, OptionsError<'_>> {
        CommandLine::parse(line)
    }

    #[test]
    fn every_option_is_read_by_whom_it_is_for() {
        let line = "rounds=7 transport=xapic apic=xapic eoi=pv icr-fence=off self-ipi=wire \
                    clock=stopped start-limit=250 lab=0x3f00000";
        let read = CommandLine {
            machine: MachineOptions {
                transport: Choice::One(Transport::Xapic),
                apic: Some(ApicMode::Xapic),
                eoi: Eoi::Pv,
                icr_fence: false,
                self_ipi_by_wire: true,
                clock_stopped: true,
                start_limit_millis: 250,
                lab: Some(0x3f0_0000),
            },
            guest: Own { rounds: 7 },
        };
        assert_eq!(parse(line), Ok(read));
        assert_eq!(parse(" "), Ok(CommandLine::default()));
    }

    #[test]
    fn nothing_is_guessed() {
        let refused = |line| parse(line).unwrap_err();
        for word in ["quue=filo", "quiet"] {
            assert_eq!(refused(word), OptionsError::UnknownKey(word, Own::keys()));
        }
        let said = refused("quiet").to_string();
        assert!(said.contains("there are rounds=, transport=,") && said.ends_with("and lab="));
        assert!(refused("transport=x").to_string().contains("auto"));
        assert!(refused("apic=x").to_string().contains("x2apic"));
        assert!(refused("icr-fence=0").to_string().contains("off"));
        assert_eq!(refused("lab=x"), OptionsError::NotANumber("lab", "x"));
        let too_large = "0x100000000";
        assert_eq!(
            refused("rounds=0x100000000"),
            OptionsError::NotANumber("rounds", too_large)
        );
        for line in [
            "transport=x2apic-cluster apic=xapic",
            "apic=x2apic transport=xapic",
        ] {
            assert!(
                matches!(refused(line), OptionsError::NotInThatMode(..)),
                "{line}"
            );
        }
        let auto = parse("transport=auto apic=xapic").map(|read| read.machine.transport);
        assert_eq!(auto, Ok(Choice::Auto));
    }

    #[test]
    fn what_only_a_monitor_with_a_lab_does_needs_one() {
        for (line, nobody) in [
            ("transport=wire", "deliver an IPI"),
            ("self-ipi=wire", "deliver an IPI"),
            ("transport=pv", "retry the first hypercall"),
        ] {
            let refusal = parse(line).unwrap_err();
            assert!(matches!(refusal, OptionsError::NeedsLab(..)), "{line}");
            assert!(refusal.to_string().contains(nobody), "{refusal}");
            let with_lab = format!("lab=0x1000 {line}");
            assert!(parse(&with_lab).is_ok(), "{with_lab}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*") {
            let _ = parse(&line);
        }
    }
}
