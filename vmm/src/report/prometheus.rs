//! The report as Prometheus reads it, in its text format 0.0.4, which its textfile collector takes
//! as well: all names have one prefix, units are base units, and counters end with `_total`. Lays
//! out figures that [`Report`] and [`Window`] already have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Error, TextEncoder};

use shared::manifest::Total;

use super::{PerVcpu, Report, Traced};
use crate::kernel_log::ComplaintKind;
use crate::provenance::Provenance;
use crate::stats::cycles::nanoseconds;
use crate::stats::latency::Times;
use crate::stats::sources::Status;
use crate::stats::window::{Value, Window};

/// The prefix of every name.
const PREFIX: &str = "ipi_lab_";

/// Upper bounds of latencies, in seconds: three per decade, from below any IPI to above any stall.
const BOUNDS: [f64; 25] = [
    1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3,
    5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Renders the reports of all machines of a run, each with its window. If there are several, the
/// label `machine` of each sample is the machine's number, from 0.
///
/// # Errors
/// None are known: every sample has a name and a value.
pub fn render<'a>(
    machines: impl ExactSizeIterator<Item = (&'a Report, &'a Window)>,
) -> Result<String, Error> {
    let mut page = Page::default();
    let several = machines.len() > 1;
    let label = |number: usize| several.then(|| number.to_string());
    let machines: Vec<_> = machines.collect();
    for (number, (report, window)) in machines.iter().enumerate() {
        page.machine = label(number);
        page.add_run(report);
        page.add_calls(report);
        page.add_ipis(report);
        for vcpu in &report.per_vcpu {
            page.add_vcpu(vcpu, window);
        }
        page.add_findings(report);
        page.add_stalls(report);
        if let Some(trace) = &report.trace {
            page.add_trace(trace);
        }
    }
    // The guests' metrics come last, so that they cannot take a name that the VMM uses.
    let own: BTreeSet<_> = page.families.keys().cloned().collect();
    for (number, (report, _)) in machines.iter().enumerate() {
        page.machine = label(number);
        page.add_figures(report, &own);
        page.add_waits(report, &own);
    }
    let families: Vec<_> = page.families.into_values().collect();
    TextEncoder::new().encode_to_string(&families)
}

/// Families of samples, by name.
#[derive(Debug, Default)]
struct Page {
    families: BTreeMap<String, MetricFamily>,
    /// The machine whose samples are added, if there are several.
    machine: Option<String>,
}

/// A label and its value.
type Label<'a> = (&'a str, &'a str);

impl Page {
    fn add(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        labels: &[Label<'_>],
        mut metric: Metric,
    ) {
        let machine = self.machine.as_deref().map(|number| ("machine", number));
        let pair = |(name, value): Label<'_>| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        metric.set_label(
            machine
                .into_iter()
                .chain(labels.iter().copied())
                .map(pair)
                .collect(),
        );
        let name = format!("{PREFIX}{name}");
        let family = self.families.entry(name).or_insert_with_key(|name| {
            let mut family = MetricFamily::default();
            family.set_name(name.clone());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    /// Adds a counter, which only grows. Its name ends with `_total`.
    fn count(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.add(MetricType::COUNTER, name, help, labels, metric);
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let metric = Metric::from_gauge(gauge);
        self.add(MetricType::GAUGE, name, help, labels, metric);
    }

    /// Adds a histogram of times, in seconds.
    fn times(&mut self, name: &str, help: &str, times: &Times, tsc_khz: u32) {
        let seconds_per_cycle = nanoseconds(1, tsc_khz) / 1e9;
        let bucket = |bound: f64| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(times.at_most((bound / seconds_per_cycle) as u64));
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(BOUNDS.map(bucket).to_vec());
        histogram.set_sample_count(times.count());
        histogram.set_sample_sum(times.sum() * seconds_per_cycle);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.add(MetricType::HISTOGRAM, name, help, &[], metric);
    }

    fn add_run(&mut self, report: &Report) {
        let result = report.result.to_string();
        let Provenance {
            vmm,
            date,
            host,
            guest,
            script,
            ..
        } = &report.provenance;
        let words = report.provenance.options();
        let script = script.as_ref().map_or("", |script| &*script.hash);
        let kvm = host.kvm.name();
        self.gauge(
            "run_info",
            "How the run ended, what counts of exits and of KVM cover, and where they come from.",
            &[
                ("result", &result),
                ("window", report.window),
                ("version", &vmm.version),
                ("commit", vmm.commit.as_deref().unwrap_or_default()),
                ("modified", if vmm.modified { "true" } else { "false" }),
                ("kernel", &host.kernel),
                ("kvm", kvm),
                ("guest", &guest.hash),
                ("words", &words),
                ("script", script),
            ],
            1.0,
        );
        if let Ok(began) = humantime::parse_rfc3339(date)
            && let Ok(since) = began.duration_since(UNIX_EPOCH)
        {
            let help = "When the run began, since 1970 in UTC.";
            self.gauge("run_start_time_seconds", help, &[], since.as_secs() as f64);
        }
        self.gauge(
            "run_exit_status",
            "Exit status of the run, 0 if every oracle held.",
            &[],
            report.exit_status.into(),
        );
        self.gauge(
            "window_seconds",
            "Length of what counts of exits and of KVM cover.",
            &[],
            report.run_seconds,
        );
        if let Some(boot) = report.boot_seconds {
            let help = "Time from the first entry into the guest to its workload.";
            self.gauge("boot_seconds", help, &[], boot);
        }
        if let Some(end) = report.end_seconds {
            let help = "Time from the end of the workload to that of the guest.";
            self.gauge("end_seconds", help, &[], end);
        }
        if let Some(own) = report.vmm {
            let help = "Time that the VMM took before the first entry into the guest.";
            self.gauge("setup_seconds", help, &[], own.setup_seconds);
            let help = "Time that the VMM took from the end of the guest to the report.";
            self.gauge("teardown_seconds", help, &[], own.teardown_seconds);
        }
        self.gauge("vcpus", "vCPUs of the machine.", &[], report.vcpus.into());
        if let Some(online) = report.cpus_online {
            let help = "CPUs that the guest brought up.";
            self.gauge("cpus_online", help, &[], online.into());
        }
    }

    fn add_calls(&mut self, report: &Report) {
        let Some(calls) = &report.calls else { return };
        let counts = [
            ("calls_total", "Cross-CPU calls made.", calls.made),
            (
                "call_executions_expected_total",
                "Executions that the calls owe.",
                calls.expected,
            ),
            (
                "call_executions_total",
                "Executions of calls, counted where they happened.",
                calls.executed,
            ),
        ];
        for (name, help, count) in counts {
            self.count(name, help, &[], count as f64);
        }
    }

    /// Adds the figures that the guest wants shown, by the names that it gives them, with `guest_`
    /// in front of a name that is taken. A sum is a counter; a maximum is a gauge.
    fn add_figures(&mut self, report: &Report, own: &BTreeSet<String>) {
        for figure in report.figures.iter() {
            let Some(metric) = &figure.shown.metric else {
                continue;
            };
            let kind = match figure.total {
                Total::Sum => MetricType::COUNTER,
                Total::Max => MetricType::GAUGE,
            };
            let name = self.free_name(metric.clone(), kind, own);
            match figure.total {
                Total::Sum => self.count(&name, &figure.about, &[], figure.value as f64),
                Total::Max => self.gauge(&name, &figure.about, &[], figure.value as f64),
            }
        }
    }

    /// Adds how long the guest's CPUs waited, by the names that the guest gives its waits.
    fn add_waits(&mut self, report: &Report, own: &BTreeSet<String>) {
        let Some(trace) = &report.trace else { return };
        for wait in &trace.times.waits {
            let name = format!("{}_seconds", wait.key);
            let name = self.free_name(name, MetricType::HISTOGRAM, own);
            self.times(&name, &wait.about, &wait.times, trace.times.tsc_khz);
        }
    }

    /// The name that the guest gives a metric, or one like it if the VMM or another metric of the
    /// guest's has that name already.
    fn free_name(&self, mut name: String, kind: MetricType, own: &BTreeSet<String>) -> String {
        let is_taken = |name: &str| {
            let name = format!("{PREFIX}{name}");
            let family = self.families.get(&name);
            own.contains(&name) || family.is_some_and(|it| it.get_field_type() != kind)
        };
        while is_taken(&name) {
            name.insert_str(0, "guest_");
        }
        name
    }

    fn add_ipis(&mut self, report: &Report) {
        let Some(ipi) = &report.ipi else { return };
        for (transport, sent) in &ipi.by_transport {
            self.count(
                "ipi_sends_total",
                "Operations that sent IPIs, counted by the senders.",
                &[("transport", transport)],
                *sent as f64,
            );
        }
        let mut counts = vec![
            (
                "ipi_received_empty_total",
                "Handler entries that found nothing to do.",
                ipi.received_empty,
            ),
            (
                "ipi_added_total",
                "Interrupts that the VMM added to wake CPUs.",
                ipi.added,
            ),
            (
                "ipi_lost_total",
                "IPIs that the wire lost because somebody said so.",
                ipi.lost,
            ),
            (
                "ipi_dropped_total",
                "IPIs that the local APIC of a CPU that was being started dropped.",
                ipi.dropped,
            ),
            (
                "ipi_to_nobody_total",
                "IPIs on the wire to a CPU that does not exist.",
                ipi.to_nobody,
            ),
            (
                "ipi_starts_total",
                "INIT and start-up IPIs that went by the wire.",
                ipi.starts.sent,
            ),
            (
                "ipi_starts_lost_total",
                "INIT and start-up IPIs that the wire lost because somebody said so.",
                ipi.starts.lost,
            ),
        ];
        let help = "IPIs that became one with another of the same vector.";
        counts.extend(
            ipi.coalesced
                .map(|coalesced| ("ipi_coalesced_total", help, coalesced)),
        );
        for (name, help, count) in counts {
            self.count(name, help, &[], count as f64);
        }
        let help = "IPIs that were on the wire at the end.";
        self.gauge("ipi_in_flight", help, &[], ipi.in_flight as f64);
        let help = "INIT and start-up IPIs that were on the wire at the end.";
        let starts = ipi.starts.in_flight;
        self.gauge("ipi_starts_in_flight", help, &[], starts as f64);
        let help = "Interrupts that CPUs had not taken at the end.";
        self.gauge("ipi_pending", help, &[], ipi.pending as f64);
        if let Some(ratio) = ipi.exits_per_ipi {
            let help = "Exits over IPIs sent, both in the window.";
            self.gauge("exits_per_ipi", help, &[], ratio);
        }
        for source in &report.sources {
            self.gauge(
                "source_up",
                "Whether a source of figures has seen what it was shown.",
                &[("source", &source.name)],
                f64::from(u8::from(source.status == Status::Ok)),
            );
        }
    }

    fn add_vcpu(&mut self, vcpu: &PerVcpu, window: &Window) {
        let id = vcpu.id.to_string();
        let label = ("vcpu", id.as_str());
        let counts = [
            (
                "vcpu_ipi_sends_total",
                "Operations by which the vCPU sent IPIs.",
                vcpu.ipi_sent,
            ),
            (
                "vcpu_ipi_targets_total",
                "Targets of the IPIs that the vCPU sent.",
                vcpu.ipi_targets,
            ),
            (
                "vcpu_ipi_received_total",
                "Handler entries of the vCPU, counted by the handlers.",
                vcpu.ipi_received,
            ),
        ];
        for (name, help, count) in counts {
            if let Some(count) = count {
                self.count(name, help, &[label], count as f64);
            }
        }
        for (reason, count) in &vcpu.exits {
            self.count(
                "vcpu_user_exits_total",
                "Exits of the vCPU to the VMM, by reason.",
                &[label, ("reason", *reason)],
                *count as f64,
            );
        }
        for (event, count) in &vcpu.tracepoints {
            self.count(
                "vcpu_tracepoints_total",
                "Passages of the vCPU's thread through tracepoints of KVM's, by event.",
                &[label, ("event", event)],
                *count as f64,
            );
        }
        for (name, value) in &vcpu.kvm {
            self.add_kvm(name, value, window.vcpu_grows(name), &[label]);
        }
    }

    /// Adds one of KVM's statistics. Its histograms are left out, since they have no sum.
    fn add_kvm(&mut self, name: &str, value: &Value, grows: bool, labels: &[Label<'_>]) {
        let Value::One(value) = value else {
            return;
        };
        let help = format!("What KVM counts as {name} of the vCPU.");
        // KVM's name of a statistic ends with its unit, if it has one.
        let (name, value) = match name.strip_suffix("_ns") {
            Some(name) => (format!("{name}_seconds"), *value as f64 / 1e9),
            None => (name.to_owned(), *value as f64),
        };
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = name.chars().map(allowed).collect();
        if grows {
            self.count(&format!("kvm_{name}_total"), &help, labels, value);
        } else {
            self.gauge(&format!("kvm_{name}"), &help, labels, value);
        }
    }

    /// What the guest's kernel complained of, where there is no lab in which something can be found.
    fn add_complaints(&mut self, report: &Report) {
        for kind in ComplaintKind::ALL.map(ComplaintKind::name) {
            let count = report.complaints_by_kind.get(kind).copied();
            self.count(
                "complaints_total",
                "What the guest's kernel has complained of on its console.",
                &[("kind", kind)],
                count.unwrap_or_default() as f64,
            );
        }
    }

    fn add_findings(&mut self, report: &Report) {
        let Some(calls) = &report.calls else {
            return self.add_complaints(report);
        };
        let counts = [
            (
                "findings_total",
                "Findings of the guest's oracles.",
                report.findings_made,
            ),
            (
                "breaches_total",
                "Breaches that the VMM found in the ledger.",
                report.breaches_made,
            ),
            (
                "calls_judged_total",
                "Calls that the VMM has judged itself, by the ledger.",
                calls.judged,
            ),
        ];
        for (name, help, count) in counts {
            self.count(name, help, &[], count as f64);
        }
        for (name, help, by_oracle) in [
            (
                "findings_by_oracle_total",
                "Findings of each of the guest's oracles.",
                &report.findings_by_oracle,
            ),
            (
                "breaches_by_oracle_total",
                "Breaches that the VMM found, by the oracle that watches for such.",
                &report.breaches_by_oracle,
            ),
        ] {
            for oracle in &report.oracles {
                let count = by_oracle.get(oracle).copied().unwrap_or_default();
                self.count(name, help, &[("oracle", oracle)], count as f64);
            }
        }
        let help =
            "Contradictions in the lab; if there is any, no figure of the guest's says anything.";
        self.gauge(
            "contradictions",
            help,
            &[],
            report.contradictions_made as f64,
        );
        let help = "Calls that were still on their way at the end.";
        self.gauge("open_calls", help, &[], report.open_calls_made as f64);
        let strays = report.strays;
        for (kind, count) in [
            ("port", strays.ports),
            ("mmio", strays.mmio),
            ("doorbell", strays.doorbell),
        ] {
            self.count(
                "stray_accesses_total",
                "Accesses that no device knew.",
                &[("kind", kind)],
                count as f64,
            );
        }
    }

    fn add_stalls(&mut self, report: &Report) {
        let (count, seconds) = report
            .stalls
            .as_ref()
            .map_or((0, 0.0), |stalls| (stalls.count, stalls.away_seconds));
        let help = "Times a vCPU was kept out of the guest.";
        self.count("stalls_total", help, &[], count as f64);
        let help = "Time for which vCPUs were kept out of the guest.";
        self.count("stalled_seconds_total", help, &[], seconds);
    }

    fn add_trace(&mut self, trace: &Traced) {
        let help = "Events for which there was no room in the trace.";
        self.count("trace_dropped_total", help, &[], trace.dropped as f64);
        let times = &trace.times;
        for (name, help, of_kind) in [
            (
                "ipi_latency_seconds",
                "From just before an IPI was sent to the handler that served it.",
                &times.ipi,
            ),
            (
                "call_latency_seconds",
                "From the beginning of a call until it ran on the last of its targets.",
                &times.call,
            ),
        ] {
            self.times(name, help, of_kind, times.tsc_khz);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(page: Page) -> String {
        let families: Vec<_> = page.families.into_values().collect();
        TextEncoder::new().encode_to_string(&families).unwrap()
    }

    #[test]
    fn a_label_cannot_end_itself() {
        let mut page = Page::default();
        page.gauge("x", "An x.", &[("of", "a\"b\\c\nd")], 0.5);
        assert_eq!(
            text(page),
            "# HELP ipi_lab_x An x.\n# TYPE ipi_lab_x gauge\n\
             ipi_lab_x{of=\"a\\\"b\\\\c\\nd\"} 0.5\n"
        );
    }

    #[test]
    fn samples_of_one_name_are_one_family_whosever_they_are() {
        let mut page = Page::default();
        for machine in ["0", "1"] {
            page.machine = Some(machine.to_owned());
            page.count("b_total", "B.", &[("vcpu", "7")], 2.0);
            page.count("a_total", "A.", &[], 1.0);
        }
        assert_eq!(
            text(page),
            "# HELP ipi_lab_a_total A.\n# TYPE ipi_lab_a_total counter\n\
             ipi_lab_a_total{machine=\"0\"} 1\nipi_lab_a_total{machine=\"1\"} 1\n\
             # HELP ipi_lab_b_total B.\n# TYPE ipi_lab_b_total counter\n\
             ipi_lab_b_total{machine=\"0\",vcpu=\"7\"} 2\n\
             ipi_lab_b_total{machine=\"1\",vcpu=\"7\"} 2\n"
        );
    }

    #[test]
    fn times_are_in_seconds_and_buckets_add_up() {
        let mut times = Times::default();
        for cycles in [1_000, 3_000, 50_000_000_000] {
            times.record(cycles);
        }
        let mut page = Page::default();
        // Half a nanosecond each.
        page.times("x_seconds", "X.", &times, 2_000_000);
        let text = text(page);
        for line in [
            "# TYPE ipi_lab_x_seconds histogram",
            "ipi_lab_x_seconds_bucket{le=\"0.00000025\"} 0",
            "ipi_lab_x_seconds_bucket{le=\"0.000001\"} 1",
            "ipi_lab_x_seconds_bucket{le=\"0.0000025\"} 2",
            "ipi_lab_x_seconds_bucket{le=\"10\"} 2",
            "ipi_lab_x_seconds_bucket{le=\"+Inf\"} 3",
            "ipi_lab_x_seconds_count 3",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line}: {text}");
        }
        let sum = text.lines().find(|line| line.contains("_sum")).unwrap();
        let sum: f64 = sum.split(' ').next_back().unwrap().parse().unwrap();
        assert!((sum - 25.000002).abs() < 0.03, "{sum}");
    }

    #[test]
    fn statistics_of_kvm_have_its_names_and_base_units() {
        let mut page = Page::default();
        let vcpu = [("vcpu", "0")];
        let one = Value::One(2_500_000_000);
        page.add_kvm("halt_wait_ns", &one, true, &vcpu);
        page.add_kvm("guest-mode", &one, false, &vcpu);
        let many = Value::Many(vec![1, 2]);
        page.add_kvm("halt_wait_hist", &many, true, &vcpu);
        let text = text(page);
        assert!(text.contains("ipi_lab_kvm_halt_wait_seconds_total{vcpu=\"0\"} 2.5\n"));
        assert!(text.contains("# TYPE ipi_lab_kvm_guest_mode gauge\n"));
        assert!(!text.contains("hist"), "{text}");
    }
}
