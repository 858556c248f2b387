//! What this guest takes on its command line besides what the kit takes: what the CPUs do, with
//! which design, and what is left out on purpose.

use core::fmt;

use kit::manifest::Record;
use kit::options::{
    MachineOptions, OptionsError, choose, cpus_at_boot, milliseconds, number, switch,
};
use kit::{declare, declare_values};
use shared::manifest::Measure;

use crate::ipi::queue::QueueKind;
use crate::rules::{FailRate, HotplugMode, Rules};
use crate::workload::amount::{self, BY_CASE, Pairs};
use crate::workload::classic::Classic;
use crate::workload::round::{By, Receiver, Round, To};

/// `workload=`: what the CPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// [`Selftest`](crate::workload::selftest::Selftest).
    Selftest,
    /// [`Stress`](crate::workload::stress::Stress).
    Stress,
    /// [`Puppet`](crate::workload::puppet::Puppet).
    Puppet,
    /// [`Bench`](crate::workload::bench::Bench).
    Bench,
}

impl Workload {
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

declare! {
    Record::word("workload", "What the CPUs do.")
        .set_by_search("puppet")
        .because("in which the case says what each CPU does (workload=puppet)")
        .set_by_bench("bench"),
    Record::word("calls", "Calls, operations or rounds, of which the workload makes so many.")
        .without_effect_in_search()
        .because(BY_CASE)
        .measured_as(Measure::Rounds),
    Record::word("pairs", "Which pairs of CPUs selftest calls: a sample above 64 CPUs, or all.")
        .without_effect_in_search()
        .because(BY_CASE),
    Record::word("for", "How long stress goes on, such as 3s.")
        .without_effect_in_search()
        .because(BY_CASE),
    Record::word("maxcpus", "How many CPUs are started at boot. The others can be brought online."),
    Record::word("seed", "Where everything random comes from.")
        .without_effect_in_search()
        .because("whose choices --seed of vmm explore decides, and the case what each CPU does"),
}
declare_values!("workload", Workload);

/// The options of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `workload=`: what the CPUs do.
    pub workload: Workload,
    /// `queue=`: the design that carries calls to many.
    pub queue: QueueKind,
    /// `to=`, `by=`, `receiver=`: what `bench` measures.
    pub round: Round,
    /// `classic=`: what `bench` repeats instead of such rounds.
    pub classic: Option<Classic>,
    /// `calls=`: how many random calls (`selftest`) or operations (`stress`) every CPU makes, or
    /// how many rounds `bench` measures. If `None`, [`amount`] chooses, with fewer on a large
    /// machine.
    pub calls: Option<u32>,
    /// `pairs=`: how many of the others each CPU calls in `selftest`.
    pub pairs: Pairs,
    /// `for=`: how long `stress` goes on, in milliseconds.
    pub milliseconds: Option<u64>,
    /// `maxcpus=`: how many CPUs are started at boot, if not all, as in Linux.
    pub at_boot: Option<u32>,
    /// `seed=`: where everything random comes from; equal seeds give equal calls.
    pub seed: u64,
    /// `csd-barrier=`, `mask-check=`, `hotplug=`, `alloc-fail=`: what is left out or refused.
    pub rules: Rules,
}

impl Options {
    /// The options of a run when the command line says nothing.
    pub const DEFAULT: Self = Self {
        workload: Workload::Selftest,
        queue: QueueKind::Filo,
        round: Round::DEFAULT,
        classic: None,
        calls: None,
        pairs: Pairs::Sampled,
        milliseconds: None,
        at_boot: None,
        seed: 1,
        rules: Rules::DEFAULT,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn rate(text: &str) -> Option<FailRate> {
    let (refused, of) = text.split_once('/')?;
    let (refused, of) = (refused.parse().ok()?, of.parse().ok()?);
    (of != 0 && refused <= of).then_some(FailRate { refused, of })
}

impl kit::options::Options for Options {
    fn keys() -> &'static [&'static str] {
        &[
            "workload",
            "queue",
            "to",
            "by",
            "receiver",
            "classic",
            "calls",
            "pairs",
            "for",
            "maxcpus",
            "seed",
            "hotplug",
            "alloc-fail",
            "csd-barrier",
            "mask-check",
        ]
    }

    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), OptionsError<'a>> {
        match key {
            "workload" => {
                let workloads = Workload::ALL.map(|it| (it.name(), it));
                self.workload = choose(key, value, workloads)?;
            }
            "queue" => self.queue = choose(key, value, QueueKind::ALL.map(|it| (it.name(), it)))?,
            "to" => self.round.to = choose(key, value, To::ALL.map(|it| (it.name(), it)))?,
            "by" => self.round.by = choose(key, value, By::ALL.map(|it| (it.name(), it)))?,
            "receiver" => {
                let receivers = Receiver::ALL.map(|it| (it.name(), it));
                self.round.receiver = choose(key, value, receivers)?;
            }
            "classic" => {
                let rows = Classic::ALL.map(|it| (it.name(), it));
                self.classic = Some(choose(key, value, rows)?);
            }
            "calls" => self.calls = Some(number(key, value)?),
            "pairs" => self.pairs = choose(key, value, Pairs::ALL.map(|it| (it.name(), it)))?,
            "for" => self.milliseconds = Some(milliseconds(key, value)?),
            "maxcpus" => self.at_boot = Some(cpus_at_boot(key, value)?),
            "seed" => self.seed = number(key, value)?,
            "hotplug" => {
                let modes = HotplugMode::ALL.map(|it| (it.name(), it));
                self.rules.hotplug = choose(key, value, modes)?;
            }
            "alloc-fail" => {
                let not_a_rate = "is not a rate: alloc-fail=1/7 refuses one request in seven";
                let rate = rate(value).ok_or(OptionsError::Wrong(key, value, not_a_rate))?;
                self.rules.alloc_fail = Some(rate);
            }
            "csd-barrier" => self.rules.csd_barrier = switch(key, value)?,
            "mask-check" => self.rules.mask_check = switch(key, value)?,
            _ => unreachable!("{key} is none of the guest's keys"),
        }
        Ok(())
    }

    fn check(&self, machine: &MachineOptions) -> Result<(), OptionsError<'static>> {
        if self.classic.is_some() && self.round.receiver == Receiver::Stalled {
            let never = "cannot be with classic=, whose calls are waited for";
            return Err(OptionsError::Wrong("receiver", "stalled", never));
        }
        if self.workload != Workload::Puppet && self.at_boot.is_some() {
            let nobody = "needs workload=puppet: in no other is a CPU brought online that has \
                          never run";
            return Err(OptionsError::Wrong("maxcpus", "", nobody));
        }
        if self.workload == Workload::Puppet && machine.lab.is_none() {
            let nobody = "nobody would ever tell the CPUs what to do";
            return Err(OptionsError::NeedsLab("workload", "puppet", nobody));
        }
        Ok(())
    }

    fn cpus_at_boot(&self, cpus: usize) -> usize {
        self.at_boot.map_or(cpus, |some| cpus.min(some as usize))
    }

    fn write_words(&self, cpus: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload,
            queue,
            round,
            classic,
            // Written below, with the default of the workload.
            calls: _,
            pairs,
            milliseconds,
            at_boot,
            seed,
            rules,
        } = self;
        let switch = |is_on| if is_on { "on" } else { "off" };
        write!(f, " workload={} queue={}", workload.name(), queue.name())?;
        if *workload == Workload::Bench {
            match classic {
                Some(row) => write!(f, " classic={}", row.name())?,
                None => write!(f, " to={} by={}", round.to.name(), round.by.name())?,
            }
            write!(f, " receiver={}", round.receiver.name())?;
        }
        if let Some(calls) = self.calls_on(cpus) {
            write!(f, " calls={calls}")?;
        }
        if *workload == Workload::Selftest {
            write!(f, " pairs={}", pairs.on(cpus).name())?;
        }
        if let (Workload::Stress, Some(milliseconds)) = (workload, milliseconds) {
            write!(f, " for={milliseconds}ms")?;
        }
        if at_boot.is_some() {
            write!(f, " maxcpus={}", self.cpus_at_boot(cpus))?;
        }
        let (refused, of) = rules
            .alloc_fail
            .map_or((0, 1), |rate| (rate.refused, rate.of));
        write!(
            f,
            " seed={seed} hotplug={} alloc-fail={refused}/{of} csd-barrier={} mask-check={}",
            rules.hotplug.name(),
            switch(rules.csd_barrier),
            switch(rules.mask_check)
        )
    }

    fn write_title(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", queue {}", self.queue.name())
    }

    fn broken(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let Rules {
            csd_barrier,
            mask_check,
            hotplug,
            ..
        } = self.rules;
        let all = [
            (self.queue.is_broken(), "queue", self.queue.name()),
            (hotplug.is_broken(), "hotplug", hotplug.name()),
            (!csd_barrier, "csd-barrier", "off"),
            (!mask_check, "mask-check", "off"),
        ];
        let broken = all.into_iter().filter(|(is_broken, ..)| *is_broken);
        broken.map(|(_, key, value)| (key, value))
    }
}

impl Options {
    /// Calls, operations or rounds, if the workload counts any, on `cpus` CPUs.
    fn calls_on(&self, cpus: usize) -> Option<u64> {
        match self.workload {
            Workload::Selftest => Some(amount::random_calls(self.calls, cpus).into()),
            Workload::Stress => amount::operations(self.calls, self.milliseconds, cpus),
            Workload::Bench => Some(amount::rounds(self.calls).into()),
            Workload::Puppet => None,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::string::ToString;
    use core::fmt::Write;

    use kit::effective::Effective;
    use kit::options::{ApicMode, CommandLine};
    use kit::route::Choice;
    use shared::lab::{Transport, Words};

    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError<'_>> {
        CommandLine::parse(line).map(|read| read.guest)
    }

    #[test]
    fn every_option_is_read() {
        let line = "workload=stress queue=llist to=some by=call receiver=running calls=3 pairs=all \
                    for=2s classic=broadcast-lock seed=0x10 hotplug=keep alloc-fail=1/7 \
                    csd-barrier=off mask-check=off";
        assert_eq!(
            parse(line),
            Ok(Options {
                workload: Workload::Stress,
                queue: QueueKind::Llist,
                round: Round {
                    to: To::Some,
                    by: By::Call,
                    receiver: Receiver::Running,
                },
                classic: Some(Classic::BroadcastLock),
                calls: Some(3),
                pairs: Pairs::All,
                milliseconds: Some(2000),
                at_boot: None,
                seed: 16,
                rules: Rules {
                    csd_barrier: false,
                    mask_check: false,
                    hotplug: HotplugMode::Keep,
                    alloc_fail: Some(FailRate { refused: 1, of: 7 }),
                },
            })
        );
        assert_eq!(parse(" "), Ok(Options::default()));
    }

    #[test]
    fn every_key_is_taken() {
        for key in <Options as kit::options::Options>::keys() {
            let word = format!("{key}=?");
            let refusal = parse(&word).unwrap_err();
            assert!(
                !matches!(refusal, OptionsError::UnknownKey(..)),
                "{refusal}"
            );
        }
    }

    #[test]
    fn nothing_is_guessed() {
        let refused = |line| parse(line).unwrap_err();
        assert!(matches!(
            refused("quue=filo"),
            OptionsError::UnknownKey("quue=filo", _)
        ));
        assert!(matches!(
            refused("workload=x"),
            OptionsError::UnknownName("workload", "x", _)
        ));
        assert_eq!(refused("calls=x"), OptionsError::NotANumber("calls", "x"));
        assert_eq!(
            refused("calls=0x100000000"),
            OptionsError::NotANumber("calls", "0x100000000")
        );
        assert!(refused("queue=lifo").to_string().contains("filo"));
        assert!(refused("pairs=some").to_string().contains("sampled"));
        assert!(refused("hotplug=x").to_string().contains("no-stop"));
        assert!(refused("mask-check=0").to_string().contains("off"));
        for line in [
            "alloc-fail=7",
            "alloc-fail=1/0",
            "alloc-fail=2/1",
            "alloc-fail=1/x",
        ] {
            assert!(
                matches!(refused(line), OptionsError::Wrong("alloc-fail", ..)),
                "{line}"
            );
        }
        assert!(matches!(
            refused("classic=normal receiver=stalled"),
            OptionsError::Wrong("receiver", ..)
        ));
        assert_eq!(refused("for=1h"), OptionsError::NotANumber("for", "1h"));
    }

    #[test]
    fn puppets_need_a_monitor_with_a_lab() {
        let refusal = parse("workload=puppet").unwrap_err();
        assert!(matches!(refusal, OptionsError::NeedsLab(..)));
        assert!(refusal.to_string().contains("tell the CPUs what to do"));
        assert!(parse("lab=0x1000 workload=puppet").is_ok());
    }

    #[test]
    fn some_cpus_can_stay_down_at_boot_if_somebody_can_bring_them_up() {
        use kit::options::Options as _;
        let of = |line| parse(line).map(|options| options.cpus_at_boot(3));
        assert_eq!(of("lab=0x1000 workload=puppet maxcpus=2"), Ok(2));
        assert_eq!(of("lab=0x1000 workload=puppet maxcpus=9"), Ok(3));
        assert_eq!(of(""), Ok(3));
        for line in ["maxcpus=2", "lab=0x1000 workload=puppet maxcpus=0"] {
            let refusal = of(line).unwrap_err();
            assert!(
                matches!(refusal, OptionsError::Wrong("maxcpus", ..)),
                "{refusal}"
            );
        }
    }

    /// What a run with `line` comes to on 16 CPUs.
    fn effective(line: &str) -> alloc::string::String {
        effective_on(16, line)
    }

    fn effective_on(cpus: usize, line: &str) -> alloc::string::String {
        let line = alloc::format!("lab=0x1000 {line}");
        let asked = CommandLine::<Options>::parse(&line).unwrap();
        let unicast = match asked.machine.transport {
            Choice::One(Transport::Wire) => Transport::Wire,
            Choice::One(Transport::Xapic) => Transport::Xapic,
            _ => Transport::X2apic,
        };
        let apic = match unicast {
            Transport::Xapic => ApicMode::Xapic,
            _ => ApicMode::X2apic,
        };
        let effective = Effective {
            asked: &asked,
            apic,
            unicast,
            cpus,
        };
        effective.to_string()
    }

    #[test]
    fn a_run_with_what_it_came_to_is_the_same_run() {
        for line in [
            "",
            "workload=stress for=2s queue=llist",
            "workload=stress transport=wire alloc-fail=1/7",
            "workload=bench to=some by=call receiver=running transport=xapic calls=3",
            "workload=bench classic=dry-run receiver=running calls=3",
            "workload=puppet self-ipi=wire clock=stopped csd-barrier=off mask-check=off \
             icr-fence=off hotplug=no-stop maxcpus=2",
            "seed=0x10 eoi=pv transport=auto",
        ] {
            let first = effective(line);
            assert_eq!(effective(&first), first);
        }
        let said = effective("");
        for word in [
            "queue=filo",
            "transport=x2apic",
            "seed=1",
            "calls=",
            "pairs=all",
        ] {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_run_says_whether_its_pairs_are_a_sample() {
        for (cpus, line, said) in [
            (64, "", "all"),
            (65, "", "sampled"),
            (255, "pairs=all", "all"),
            (64, "pairs=sampled", "all"),
        ] {
            let first = effective_on(cpus, line);
            assert!(first.contains(&alloc::format!(" pairs={said} ")), "{first}");
            assert_eq!(effective_on(cpus, &first), first);
        }
        assert!(!effective("workload=stress").contains("pairs="));
    }

    #[test]
    fn the_longest_line_has_room_in_a_lab() {
        let line = "workload=bench to=nobody by=call receiver=running queue=shared-refs-naive \
                    transport=x2apic-cluster calls=4294967295 seed=18446744073709551615 \
                    hotplug=no-stop alloc-fail=4294967295/4294967295 csd-barrier=off \
                    mask-check=off icr-fence=off clock=stopped";
        let said = effective(line);
        let mut words = Words::EMPTY;
        words.write_str(&said).unwrap();
        assert_eq!(words.text(), said.as_bytes());
    }
}
