//! Measures one cell: makes its runs, and takes the background from their counts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::info;

use super::cell::Cell;
use super::costs::{Cost, Effort};
use super::error::BenchError;
use super::handling::IpiHandling;
use super::words::BenchWords;
use crate::control::Tracing;
use crate::control::operator::{Operator, OperatorError, Wait, Watch};
use crate::machine::exit_counts::REASONS;
use crate::stats::rounds::Rounds;
use crate::stats::sources::{STATS, Source, Trials, is_proven};
use crate::stats::tracepoints::events::EXIT;
use crate::stats::window::Window;
use crate::verdict::{Kind, Verdict};
use crate::{Config, Outcome};

/// Shortest time over which the background is counted. A timer tick is some milliseconds.
const QUIET: Duration = Duration::from_millis(200);

/// Longest time to wait until the CPUs are stalled.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts of the sender, or of the receivers, by name.
type Counts = BTreeMap<String, u64>;

/// Counts per second, per round or per delivery, by name.
type Rates = BTreeMap<String, f64>;

/// The count that grows with the instructions that a guest executes, and not with time. A round
/// that sends nothing has as many of them as the loop around any other round.
const BY_INSTRUCTION: &str = "insn_emulation";

/// What is counted while nothing is sent.
#[derive(Debug)]
pub(super) struct Background {
    /// At the sender, per second.
    sender: Rates,
    /// At all receivers together, per second.
    receivers: Rates,
    /// [`BY_INSTRUCTION`] at the sender, per round that sends nothing.
    instructions: f64,
}

impl Background {
    /// Counts on a machine whose sender only reads its clock, and whose other CPUs are in the state
    /// `receiver`.
    pub fn measure(
        config: &Config,
        words: &BenchWords,
        receiver: &str,
        effort: Effort,
    ) -> Result<Self, BenchError> {
        let cell = Cell {
            by: "ipi".to_owned(),
            to: "nobody".to_owned(),
            receiver: receiver.to_owned(),
            transport: words.any_transport().to_owned(),
            apic: None,
            queue: None,
        };
        let mut rounds = effort.rounds;
        loop {
            let outcome = run(config, words, &cell, rounds)?;
            if outcome.verdict.kind == Kind::Interrupted {
                return Err(interrupted(outcome.verdict));
            }
            let length = outcome.window.length();
            if length >= QUIET || rounds > u32::MAX / 8 || !passed(&outcome) {
                let per_second = |vcpus: Range<u32>| -> Rates {
                    let window = &outcome.window;
                    let mut counts = counts(window, vcpus.clone());
                    counts.extend(at_tracepoints(window, vcpus));
                    leave_out_page_faults(&mut counts);
                    let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
                    let rate = |(name, count)| (name, count as f64 / seconds);
                    counts.into_iter().map(rate).collect()
                };
                let mut sender = per_second(0..1);
                let instructions = sender.remove(BY_INSTRUCTION).unwrap_or(0.0);
                return Ok(Self {
                    sender,
                    receivers: per_second(1..config.vcpus),
                    instructions: instructions * length.as_secs_f64() / f64::from(rounds),
                });
            }
            let missing = QUIET.as_secs_f64() / length.as_secs_f64().max(1e-6);
            rounds = rounds.saturating_mul((missing * 1.5).ceil().clamp(2.0, 100.0) as u32);
        }
    }
}

/// Why a cell was not measured.
#[derive(Debug)]
pub(super) struct Unmeasured {
    /// The reason, in a sentence for people.
    pub why: String,
    /// Whether the reason is a fault: an oracle found something, or nothing moved. It is not where
    /// the guest ended by itself or did not accept its options: then this host or this guest cannot
    /// do what the cell asks for.
    pub is_finding: bool,
    /// The exit status of the run.
    pub status: u8,
}

impl Unmeasured {
    pub(super) fn of(outcome: &Outcome) -> Self {
        Self {
            why: why(outcome),
            is_finding: !matches!(outcome.verdict.kind, Kind::BadOptions | Kind::Died),
            status: outcome.verdict.exit_status(),
        }
    }
}

/// Measures `cell`. The inner error says why this host or guest does not do what the cell asks for.
pub(super) fn cell(
    config: &Config,
    words: &BenchWords,
    cell: &Cell,
    effort: Effort,
    background: &Background,
) -> Result<Result<Cost, Unmeasured>, BenchError> {
    let targets = cell.targets(config.vcpus);
    let mut times = Rounds::default();
    let mut medians = Vec::new();
    let mut sent_medians = Vec::new();
    let mut tsc_khz = 0;
    let mut counted = Counted::default();
    let mut operations: BTreeMap<String, f64> = BTreeMap::new();
    // Counting at tracepoints makes exits longer, so it has a run of its own.
    let untouched = Config {
        sources: config
            .sources
            .as_ref()
            .map(|sources| sources.result().without_tracepoints().into()),
        ..config.clone()
    };
    let mut options = None;
    for _ in 0..effort.repetitions {
        let outcome = run(&untouched, words, cell, effort.rounds)?;
        if outcome.verdict.kind == Kind::Interrupted {
            return Err(interrupted(outcome.verdict));
        }
        if !passed(&outcome) {
            return Ok(Err(Unmeasured::of(&outcome)));
        }
        let trace = outcome.trace.as_ref();
        let own = trace.map(Rounds::new).unwrap_or_default();
        if own.all.count() != u64::from(effort.rounds) {
            let (rounds, traced) = (effort.rounds, own.all.count());
            return Ok(Err(Unmeasured {
                why: format!("of {rounds} rounds {traced} are in the trace"),
                is_finding: false,
                status: 1,
            }));
        }
        options = outcome.words;
        tsc_khz = trace.map_or(0, |trace| trace.tsc_khz);
        medians.push(own.all.median());
        if own.sent.count() > 0 {
            sent_medians.push(own.sent.median());
        }
        times.sent.merge(&own.sent);
        times.all.merge(&own.all);
        counted.add(&outcome.window, effort, config.vcpus, counts);
        for (transport, sent) in outcome.window.sent() {
            *operations.entry(transport.to_owned()).or_default() += sent as f64;
        }
    }
    medians.sort_unstable();
    sent_medians.sort_unstable();
    let rounds = f64::from(effort.rounds) * f64::from(effort.repetitions);
    operations.values_mut().for_each(|sent| *sent /= rounds);
    operations.retain(|_, sent| *sent > 0.0);
    let (mut sender, mut receivers) = counted.net(background, targets);
    if let Some(instructions) = sender.get_mut(BY_INSTRUCTION) {
        *instructions -= background.instructions;
    }
    let sources = config.sources.as_ref().map(Trials::result);
    if sources.is_some_and(|sources| !sources.tracepoints.is_empty()) {
        let outcome = run(config, words, cell, effort.rounds)?;
        if outcome.verdict.kind == Kind::Interrupted {
            return Err(interrupted(outcome.verdict));
        }
        if !passed(&outcome) {
            return Ok(Err(Unmeasured::of(&outcome)));
        }
        let mut counted = Counted::default();
        counted.add(&outcome.window, effort, config.vcpus, at_tracepoints);
        let net = counted.net(background, targets);
        sender.extend(net.0);
        receivers.extend(net.1);
    }
    let verdict = IpiHandling::of(
        cell.is_xapic(),
        &operations,
        &sender,
        sources.map_or(&[], |sources| &sources.list),
    );
    let sources = sources.map_or(&[][..], |sources| &sources.list);
    for counts in [&mut sender, &mut receivers] {
        counts.retain(|figure, _| is_counted_by_proven(figure, sources));
    }
    Ok(Ok(Cost {
        targets,
        sent: times.sent.spread(tsc_khz),
        all: times.all.spread(tsc_khz),
        medians,
        sent_medians,
        operations,
        words: options,
        sender,
        receivers,
        verdict,
    }))
}

/// Whether the source that counts `figure` can be believed. The figure's name begins with that of
/// the source.
fn is_counted_by_proven(figure: &str, sources: &[Source]) -> bool {
    let source = figure.split(' ').next().unwrap_or_default();
    is_proven(sources, source)
}

/// What was counted in runs of one cell.
#[derive(Debug, Default)]
struct Counted {
    sender: Counts,
    receivers: Counts,
    seconds: f64,
    rounds: f64,
}

impl Counted {
    /// Adds the counts of a run, which `counts` takes from its window.
    fn add(
        &mut self,
        window: &Window,
        effort: Effort,
        vcpus: u32,
        counts: impl Fn(&Window, Range<u32>) -> Counts,
    ) {
        self.seconds += window.length().as_secs_f64();
        self.rounds += f64::from(effort.rounds);
        add(&mut self.sender, counts(window, 0..1));
        add(&mut self.receivers, counts(window, 1..vcpus));
    }

    /// The counts less `background`: of the sender per round, of the receivers per round and
    /// target.
    fn net(self, background: &Background, targets: u32) -> (Rates, Rates) {
        let per = |counts: Counts, background: &Rates, times: f64| -> Rates {
            let net = |(name, count): (String, u64)| {
                let anyway = background.get(&name).copied().unwrap_or(0.0) * self.seconds;
                ((count as f64 - anyway) / times, name)
            };
            let all = counts.into_iter().map(net);
            all.filter(|(per, _)| per.abs() >= 0.0005)
                .map(|(per, name)| (name, per))
                .collect()
        };
        let deliveries = self.rounds * f64::from(targets.max(1));
        (
            per(self.sender, &background.sender, self.rounds),
            per(self.receivers, &background.receivers, deliveries),
        )
    }
}

pub(super) fn interrupted(verdict: Verdict) -> BenchError {
    BenchError::Interrupted {
        status: verdict.exit_status(),
        message: verdict.message,
    }
}

pub(super) fn passed(outcome: &Outcome) -> bool {
    outcome.verdict.kind == Kind::Pass
}

/// Why the guest did not pass: its last line on the console, if it died and left one.
fn why(outcome: &Outcome) -> String {
    let said = outcome.console.lines().last().unwrap_or_default();
    let said = said.strip_prefix("[cpu 0] ").unwrap_or(said);
    match outcome.verdict.kind {
        Kind::Died if !said.is_empty() => said.to_owned(),
        _ => outcome.verdict.message.clone(),
    }
}

/// One run of `cell`.
fn run(
    config: &Config,
    words: &BenchWords,
    cell: &Cell,
    rounds: u32,
) -> Result<Outcome, BenchError> {
    let (told, rounds) = (words.tell(cell), words.tell_rounds(rounds));
    info!("measure {told} {rounds}");
    let config = Config {
        append: format!("{} {told} {rounds}", config.append),
        trace: Tracing {
            rounds: true,
            ..config.trace
        },
        ..config.clone()
    };
    if cell.receiver != "stalled" {
        return Ok(crate::run(&config)?);
    }
    let mut stalling = None;
    let outcome = crate::run_attended(&config, None, |operator| {
        let operator = Arc::clone(operator);
        let start = Watch::at(words.start());
        // Set before the sender has executed a single instruction.
        let held = operator.hold_at(0, start);
        stalling = Some(thread::spawn(move || {
            held.and_then(|()| stall_others(&operator))
        }));
    })?;
    if let Some(stalling) = stalling {
        match stalling.join() {
            // If the machine ended meanwhile, its verdict says how.
            Ok(Ok(()) | Err(OperatorError::Over(_))) => {}
            Ok(Err(error)) => return Err(BenchError::Stall(error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(outcome)
}

/// Pauses every CPU but the sender, which is held meanwhile, and then resumes the sender.
fn stall_others(operator: &Operator) -> Result<(), OperatorError> {
    operator.wait_held(0, Wait::up_to(PATIENCE))?;
    for cpu in 1..operator.cpus() {
        operator.pause(cpu)?;
    }
    operator.resume(0)
}

/// Counts of these vCPUs together: KVM's statistics by their names, exits to userspace as `user `
/// and their reason.
fn counts(window: &Window, vcpus: Range<u32>) -> Counts {
    let mut counts = Counts::new();
    for vcpu in vcpus {
        let id = vcpu as usize;
        for (name, count) in window.counted(id) {
            *counts.entry(name.to_owned()).or_default() += count;
        }
        for (reason, count) in REASONS.iter().zip(window.exits(id)) {
            *counts.entry(format!("user {reason}")).or_default() += count;
        }
    }
    counts
}

/// Counts at tracepoints on the threads of these vCPUs together, by the names that
/// [`Window::tracepoints`] gives them.
fn at_tracepoints(window: &Window, vcpus: Range<u32>) -> Counts {
    let mut counts = Counts::new();
    for vcpu in vcpus {
        add(&mut counts, window.tracepoints(vcpu as usize));
    }
    counts
}

/// Takes page faults out of the counts of the background, which are per second. Pages are touched
/// for the first time only once, above all by a trace: twice the time does not have twice as many.
fn leave_out_page_faults(counts: &mut Counts) {
    let by_page_fault = [
        (STATS, &["pf_taken"][..]),
        (EXIT, &["kvm_exit npf", "kvm_exit EPT_VIOLATION"]),
    ];
    for (sum, parts) in by_page_fault {
        let faults: u64 = parts.iter().filter_map(|part| counts.get(*part)).sum();
        if let Some(sum) = counts.get_mut(sum) {
            *sum = sum.saturating_sub(faults);
        }
        counts.retain(|name, _| !parts.contains(&name.as_str()));
    }
}

fn add(sum: &mut Counts, counts: impl IntoIterator<Item = (String, u64)>) {
    for (name, count) in counts {
        *sum.entry(name).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_faults_are_no_background() {
        let counted = [
            ("exits", 50),
            ("pf_taken", 16),
            ("irq_exits", 30),
            ("kvm_exit", 52),
            ("kvm_exit npf", 17),
            ("kvm_exit interrupt", 31),
        ];
        let mut counts = counted.map(|(name, count)| (name.to_owned(), count)).into();
        leave_out_page_faults(&mut counts);
        let left = [
            ("exits", 34),
            ("irq_exits", 30),
            ("kvm_exit", 35),
            ("kvm_exit interrupt", 31),
        ];
        assert_eq!(
            counts,
            left.map(|(name, count)| (name.to_owned(), count)).into()
        );
    }
}
