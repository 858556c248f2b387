//! The report on a run: its figures, the verdict on it, and how they are shown. Computes from what
//! [`crate::control`] has left of the run and from the lab, and controls nothing.

pub mod classic;
pub mod comparison;
pub mod costs;
pub mod csv;
mod debugged;
mod figures;
mod ipis;
mod leaves;
pub mod page;
pub mod perfetto;
pub mod postmortem;
pub mod prometheus;
pub mod schema;
mod sources;
mod stalls;
mod table;
pub mod test_results;
mod traced;
#[cfg(test)]
mod verdict_test;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use shared::lab::Finding;

use crate::control::{Ending, RunResult};
use crate::kernel_log::{Complaint, ComplaintKind};
use crate::lab::call_name::CallName;
use crate::lab::finding;
use crate::lab::judge;
use crate::lab::judgement::Judgement;
use crate::lab::oracles::{self, ByOracle};
use crate::lab::{CpuCounts, Lab};
use crate::machine::devices::Strays;
use crate::machine::exit_counts::REASONS;
use crate::manifest::Manifest;
use crate::provenance::Provenance;
use crate::stats::sources::Source;
use crate::stats::window::{Value, Window};
use crate::verdict::{Kind, Verdict};

pub use debugged::Debugged;
pub use figures::{Figure, Figures};
pub use ipis::Ipis;
pub use stalls::{Latencies, Stalled, Stalls};
pub use traced::{Pair, Traced};

/// Version of the JSON document. It changes when a program that reads it could take harm: see
/// docs/formats.md.
pub const SCHEMA: &str = "ipi-lab/3";

/// The windows that the figures of KVM and of exits can cover.
const WINDOWS: [&str; 3] = ["workload", "unfinished workload", "whole run"];

/// Everything that is known about a run, as the JSON document has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Where it comes from.
    pub provenance: Provenance,
    /// How it ended, in one word.
    pub result: Kind,
    /// The exit status that says so.
    pub exit_status: u8,
    /// How it ended, in a sentence.
    pub message: String,
    /// Whether the time limit ended it. Then `stalled` says no more than that the guest was not
    /// done by then.
    pub time_limit_reached: bool,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPUs the guest says it brought up; `null` if it did not use the lab, or says that more came
    /// up than there are.
    pub cpus_online: Option<u32>,
    /// Seconds from the first entry into the guest to its workload.
    pub boot_seconds: Option<f64>,
    /// Seconds of the window.
    pub run_seconds: f64,
    /// Seconds from the end of the workload to that of the guest: its last words. `null` if the
    /// workload was cut short.
    pub end_seconds: Option<f64>,
    /// What the VMM itself took of the time of the run; `null` if the machine was not run as a
    /// whole.
    pub vmm: Option<Own>,
    /// What the figures of KVM and of exits cover.
    #[schemars(extend("enum" = WINDOWS))]
    pub window: &'static str,
    /// Cross-CPU calls since boot; `null` if the guest was told of no lab, where it would count
    /// them.
    pub calls: Option<Calls>,
    /// What else the guest has counted since boot, in the groups of its manifest: of this guest
    /// `walks`, `hotplug`, `memory` and `selftest`.
    #[serde(flatten)]
    pub figures: Figures,
    /// Inter-processor interrupts since boot; `null` if the guest was told of no lab.
    pub ipi: Option<Ipis>,
    /// Stalls of vCPUs; `null` if nothing was stalled and nothing was to be.
    pub stalls: Option<Stalls>,
    /// Stops by a debugger, which are no stalls; `null` if there were none.
    pub debugger: Option<Debugged>,
    /// What the trace says of latencies; `null` without one.
    pub trace: Option<Traced>,
    /// Who counted, and whether it can be believed. Nothing is told of what a source counted that
    /// is not `ok`.
    pub sources: Vec<Source>,
    /// By vCPU, in order.
    pub per_vcpu: Vec<PerVcpu>,
    /// What the guest's oracles found, as far as it was kept.
    pub findings: Vec<FoundByGuest>,
    /// How many findings the guest made.
    pub findings_made: u64,
    /// How many findings each of the guest's oracles made, by its name.
    pub findings_by_oracle: BTreeMap<String, u64>,
    /// What the VMM's own look at the ledger found, as far as it was kept; the first of each oracle
    /// is.
    pub breaches: Vec<FoundHere>,
    /// How many breaches there are.
    pub breaches_made: u64,
    /// How many breaches there are of what each oracle watches, by its name.
    pub breaches_by_oracle: BTreeMap<String, u64>,
    /// The names of all oracles, those of the guest's manifest first; of a guest without a lab those
    /// of what its kernel can complain of.
    #[serde(skip)]
    pub oracles: Vec<String>,
    /// Calls still on their way, as far as they were kept.
    pub open_calls: Vec<String>,
    /// How many calls were still on their way.
    pub open_calls_made: u64,
    /// Where the lab contradicts itself or the machine, as far as it was kept. If it does, nothing
    /// else that the guest has counted or found says anything.
    pub contradictions: Vec<String>,
    /// How many contradictions there are.
    pub contradictions_made: u64,
    /// What the guest's kernel has complained of on its console, as far as it was kept: only of a
    /// guest that was told of no lab.
    pub complaints: Vec<Complaint>,
    /// How many complaints there were.
    pub complaints_made: u64,
    /// How many there were of each kind, by its name.
    pub complaints_by_kind: BTreeMap<String, u64>,
    /// Accesses that no device knew.
    pub strays: Strays,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// What the VMM itself took of the time of a run. The rest of it, `boot_seconds`, `run_seconds` and
/// `end_seconds`, is the guest's.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Own {
    /// Seconds from the request to run to the first entry into the guest: image read, machine
    /// built.
    pub setup_seconds: f64,
    /// Seconds from the end of the guest to this report: the machine wound up and judged.
    pub teardown_seconds: f64,
}

/// Cross-CPU calls.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Calls {
    /// Calls made.
    pub made: u64,
    /// Executions those calls owe. Of calls under way when a run is cut off, the most that they can
    /// owe.
    pub expected: u64,
    /// Executions counted where they happened.
    pub executed: u64,
    /// Calls that the VMM has judged itself, by the ledger: the last of each CPU and context. The
    /// others were judged by the guest, each as it was complete and its record used again. 0 if the
    /// run was cut off, or the lab is not to be believed.
    pub judged: u64,
    /// IPIs sent to tell CPUs of calls, for each call made, since boot; `null` without a call.
    pub ipis_per_call: Option<f64>,
}

/// One vCPU.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PerVcpu {
    /// Its number.
    pub id: u32,
    /// IPIs it sent, since boot; `null` if the guest was told of no lab, as the next two.
    pub ipi_sent: Option<u64>,
    /// Targets of those, since boot.
    pub ipi_targets: Option<u64>,
    /// Its handler entries, since boot.
    pub ipi_received: Option<u64>,
    /// Exits to userspace in the window, by reason.
    pub exits: BTreeMap<&'static str, u64>,
    /// Of KVM's statistics those that can be believed, over the window.
    pub kvm: BTreeMap<String, Value>,
    /// Passages of tracepoints in the window, of those sources that can be believed.
    pub tracepoints: BTreeMap<String, u64>,
}

/// A finding of the guest's.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FoundByGuest {
    /// The name of the oracle; `oracle-` and its number if the guest's image does not declare it.
    pub oracle: String,
    /// The call, if one is known.
    pub call: Option<String>,
    /// Where it was seen.
    pub cpu: u32,
    /// When, in TSC cycles.
    pub tsc: u64,
    /// What was seen.
    pub seen: u64,
    /// All that as a sentence.
    pub text: String,
}

/// A breach that the VMM found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FoundHere {
    /// The name of the oracle that watches for such.
    pub oracle: &'static str,
    /// The call, if it is one call's.
    pub call: Option<String>,
    /// On which CPUs.
    pub cpus: Vec<u32>,
    /// All that as a sentence.
    pub text: String,
}

impl Report {
    /// The report on a run with this result: with the lab it used, the judgement on
    /// that, the verdict on the run, and where the figures come from. What the guest says of its
    /// options is added to that.
    pub fn new(
        run_result: &RunResult,
        lab: &Lab,
        judgement: Judgement,
        verdict: &Verdict,
        provenance: Provenance,
    ) -> Self {
        let window = &run_result.window;
        let totals = judgement.totals;
        let counted: Vec<CpuCounts> = match run_result.has_lab {
            true => lab.counted().collect(),
            false => Vec::new(),
        };
        let traced = run_result.trace.as_ref().map(Traced::new);
        Self {
            schema: SCHEMA,
            provenance: Provenance {
                words: lab.words(),
                ..provenance
            },
            result: verdict.kind,
            exit_status: verdict.exit_status(),
            message: verdict.message.clone(),
            time_limit_reached: matches!(run_result.ending, Ending::TimeOut(_)),
            vcpus: run_result.vcpus,
            cpus_online: judgement.cpus_online,
            boot_seconds: window.boot.map(|boot| boot.as_secs_f64()),
            run_seconds: window.length().as_secs_f64(),
            end_seconds: window.complete.then(|| {
                let end = run_result.ended.saturating_duration_since(window.ended());
                end.as_secs_f64()
            }),
            vmm: None,
            window: match (window.workload, window.complete) {
                (true, true) => WINDOWS[0],
                (true, false) => WINDOWS[1],
                (false, _) => WINDOWS[2],
            },
            calls: run_result.has_lab.then(|| Calls {
                made: totals.made,
                expected: totals.expected,
                executed: totals.executed,
                judged: judgement.judged,
                ipis_per_call: (totals.made > 0)
                    .then(|| totals.counts.sent_for_calls as f64 / totals.made as f64),
            }),
            figures: Figures::new(lab.manifest(), &totals.counts),
            ipi: (run_result.has_lab)
                .then(|| Ipis::of(run_result, lab.manifest(), &totals.counts, judgement.ended)),
            sources: run_result.sources.clone(),
            stalls: Stalls::of(run_result),
            debugger: Debugged::of(&run_result.debugged_totals),
            per_vcpu: (0..run_result.vcpus)
                .map(|id| per_vcpu(id, counted.get(id as usize), window))
                .collect(),
            findings_made: judgement.found.total(),
            findings_by_oracle: by_oracle(&judgement.found),
            oracles: match run_result.has_lab {
                true => (judgement.found.iter())
                    .map(|(name, _)| name.to_owned())
                    .collect(),
                false => ComplaintKind::ALL.map(|kind| kind.name().to_owned()).into(),
            },
            findings: (judgement.findings.into_iter())
                .map(|finding| found_by_guest(finding, lab.manifest()))
                .collect(),
            breaches_made: judgement.breaches.total,
            breaches_by_oracle: by_oracle(&judgement.breached),
            breaches: (judgement.breaches.first.into_iter())
                .map(found_here)
                .collect(),
            open_calls: (judgement.open.first.iter())
                .map(ToString::to_string)
                .collect(),
            open_calls_made: judgement.open.total,
            contradictions_made: judgement.contradictions.total,
            contradictions: judgement.contradictions.first,
            complaints_made: run_result.kernel_log.total(),
            complaints_by_kind: (run_result.kernel_log.counts())
                .map(|(kind, count)| (kind.name().to_owned(), count))
                .collect(),
            complaints: run_result.kernel_log.complaints().to_vec(),
            strays: run_result.strays,
            notes: run_result
                .blind
                .iter()
                .chain(&run_result.console_loss)
                .chain(&run_result.uncounted)
                .cloned()
                .chain(sources::left_out(window))
                .chain(stalls::notes(run_result))
                .chain(traced.iter().flat_map(Traced::notes))
                .collect(),
            trace: traced,
        }
    }

    /// The report for people.
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// The report for programs: one JSON document on one line.
    ///
    /// # Errors
    /// None are known: every figure has a JSON form.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|document| document + "\n")
    }
}

fn per_vcpu(id: u32, counted: Option<&CpuCounts>, window: &Window) -> PerVcpu {
    let counts = counted.map(|counted| &counted.counts);
    PerVcpu {
        id,
        ipi_sent: counts.map(|counts| counts.sent),
        ipi_targets: counts.map(|counts| counts.targets),
        ipi_received: counts.map(|counts| counts.received),
        exits: REASONS.into_iter().zip(window.exits(id as usize)).collect(),
        kvm: owned(window.kvm(id as usize)),
        tracepoints: window.tracepoints(id as usize).into_iter().collect(),
    }
}

fn owned(values: Vec<(&str, Value)>) -> BTreeMap<String, Value> {
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn by_oracle(counts: &ByOracle) -> BTreeMap<String, u64> {
    counts
        .found()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// What `finding` says, of a guest that says this of itself.
fn found_by_guest(finding: Finding, manifest: &Manifest) -> FoundByGuest {
    FoundByGuest {
        text: finding::sentence(&finding, manifest),
        oracle: oracles::name(manifest, finding.oracle).into_owned(),
        call: finding::call_name(&finding),
        cpu: finding.cpu,
        tsc: finding.tsc,
        seen: finding.seen,
    }
}

fn found_here(breach: judge::Breach) -> FoundHere {
    FoundHere {
        oracle: breach.property.name(),
        call: breach.call.map(|call| CallName(call).to_string()),
        cpus: breach.cpus.iter().collect(),
        text: breach.text,
    }
}
