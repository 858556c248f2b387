//! The report as people read it: what happened first, then what it cost, and last what was found.
//! Lays out figures that [`Report`] already has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table};

use super::sources;
use super::{Debugged, Ipis, PerVcpu, Report, Stalls, Traced};
use crate::counted::counted;
use crate::cpus::CpuSet;
use crate::stats::latency::Spread;
use crate::stats::sources::Source;
use crate::stats::window::Value;
use crate::table_style::RULED;

/// Most vCPUs that have a line each. Of more, a summary is shown.
const LINES: usize = 16;
/// What KVM counts of a guest without a lab that tells of interrupts and hypercalls beside exits.
const ENTERED: [&str; 2] = ["hypercalls", "irq_injections"];
/// Most findings, breaches, open calls or contradictions that are shown.
const SHOWN: usize = 10;

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = head(&mut text, report);
    text.push_str(&per_vcpu(report));
    text.push('\n');
    let findings = report.findings.iter().map(|finding| finding.text.as_str());
    let title = titled("found by the guest", &report.findings_by_oracle);
    list(&mut text, &title, findings, report.findings_made);
    let breaches = report.breaches.iter().map(|breach| breach.text.as_str());
    let title = titled("found in the ledger", &report.breaches_by_oracle);
    list(&mut text, &title, breaches, report.breaches_made);
    let open = report.open_calls.iter().map(String::as_str);
    list(&mut text, "open calls", open, report.open_calls_made);
    let complaints: Vec<_> = report.complaints.iter().map(ToString::to_string).collect();
    let title = titled("said by the guest's kernel", &report.complaints_by_kind);
    list(
        &mut text,
        &title,
        complaints.iter().map(String::as_str),
        report.complaints_made,
    );
    let contradictions = report.contradictions.iter().map(String::as_str);
    let made = report.contradictions_made;
    list(&mut text, "not to be believed", contradictions, made);
    text.push_str(&tracepoints(report));
    // If no tracepoint was asked for, the notes say what is missing.
    if report.sources.iter().any(Source::is_tracepoint) {
        text.push_str(&sources::table(&report.sources));
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn head(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text)?;
    for (name, fact) in report.provenance.facts() {
        writeln!(text, "{name:<10} {fact}")?;
    }
    write!(text, "vCPUs      {}", report.vcpus)?;
    match report.cpus_online {
        Some(online) if online != report.vcpus => writeln!(text, ", of which {online} came up")?,
        _ => writeln!(text)?,
    }
    let boot = report
        .boot_seconds
        .map_or_else(String::new, |boot| format!("boot {}, ", time(boot)));
    let end = report
        .end_seconds
        .map_or_else(String::new, |end| format!(", end {}", time(end)));
    write!(
        text,
        "time       {boot}{} {}{end}",
        report.window,
        time(report.run_seconds)
    )?;
    match report.vmm {
        Some(own) => writeln!(
            text,
            "; VMM {} before and {} after",
            time(own.setup_seconds),
            time(own.teardown_seconds)
        )?,
        None => writeln!(text)?,
    }
    if let (Some(_), Some(calls), Some(ipi)) = (report.cpus_online, &report.calls, &report.ipi) {
        writeln!(
            text,
            "calls      {} made, {} of {}",
            calls.made,
            calls.executed,
            counted(calls.expected, "execution")
        )?;
        if calls.judged > 0 && calls.judged < calls.made {
            let (judged, others) = (calls.judged, calls.made - calls.judged);
            writeln!(
                text,
                "           the last {judged} judged by the VMM, \
                 the {others} before them by the guest"
            )?;
        }
        let transports: Vec<_> = ipi
            .by_transport
            .iter()
            .filter(|(_, sent)| **sent > 0)
            .map(|(name, sent)| format!("{sent} {name}"))
            .collect();
        let transports = if transports.is_empty() {
            "none".to_owned()
        } else {
            transports.join(", ")
        };
        writeln!(
            text,
            "IPIs sent  {transports}, to {}; {} received, {} found nothing to do",
            counted(ipi.targets, "target"),
            ipi.received,
            ipi.received_empty
        )?;
        not_received(text, ipi)?;
    }
    text.push_str(&report.figures.lines());
    if let Some(ratio) = report.calls.as_ref().and_then(|calls| calls.ipis_per_call) {
        writeln!(
            text,
            "IPIs/call  {ratio:.2} (those that tell of calls; both since boot)"
        )?;
    }
    if let Some(ipi) = &report.ipi {
        per_ipi(text, ipi, report.window)?;
    }
    if let Some(Debugged { count, seconds }) = report.debugger {
        writeln!(
            text,
            "debugger   stopped a vCPU {} at most, for {}",
            counted(count, "time"),
            time(seconds)
        )?;
    }
    if let Some(stalls) = &report.stalls {
        stalled(text, stalls)?;
    }
    // Without a lab there is nothing of the guest's in it.
    if let Some(trace) = report.trace.as_ref().filter(|_| report.calls.is_some()) {
        traced(text, trace)?;
    }
    writeln!(text)
}

/// What became of INIT and start-up IPIs, and what an IPI costs in exits.
fn per_ipi(text: &mut String, ipi: &Ipis, window: &str) -> std::fmt::Result {
    let starts = &ipi.starts;
    if starts.lost + starts.in_flight > 0 {
        writeln!(
            text,
            "           of {} INIT and start-up IPIs {} lost, {} on the wire",
            starts.sent, starts.lost, starts.in_flight
        )?;
    }
    match (ipi.exits_per_ipi, ipi.exits_source, &ipi.exits_unknown) {
        (Some(ratio), Some(source), _) => {
            writeln!(text, "exits/IPI  {ratio:.1} ({source}; {window})")
        }
        (_, _, Some(why)) => writeln!(text, "exits/IPI  not known ({why})"),
        _ => Ok(()),
    }
}

/// What became of the IPIs for which no handler was entered.
fn not_received(text: &mut String, ipi: &Ipis) -> std::fmt::Result {
    let parts = [
        (ipi.coalesced.unwrap_or(0), "coalesced"),
        (ipi.lost, "lost"),
        (
            ipi.dropped,
            "dropped by the local APIC of a CPU that was being started",
        ),
        (ipi.to_nobody, "to CPUs that do not exist"),
        (ipi.in_flight, "on the wire"),
        (ipi.pending, "pending"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    write!(text, "           not received: {}", parts.join(", "))?;
    match ipi.added {
        0 => writeln!(text),
        added => writeln!(text, "; {added} added by the VMM"),
    }
}

fn traced(text: &mut String, trace: &Traced) -> std::fmt::Result {
    writeln!(
        text,
        "trace      {}, {} dropped",
        counted(trace.records as u64, "event"),
        trace.dropped
    )?;
    let all = [
        ("IPI sent to handler", &trace.ipi),
        ("call to last run", &trace.call),
    ];
    let waits = trace.times.waits.iter();
    let waits = waits.filter_map(|it| Some((it.lane.as_str(), trace.waits.get(&it.key)?)));
    for (what, spread) in all.into_iter().chain(waits) {
        if let Some(spread) = spread {
            latency(text, what, spread)?;
        }
    }
    Ok(())
}

fn latency(text: &mut String, what: &str, spread: &Spread) -> std::fmt::Result {
    let times = [spread.p50, spread.p90, spread.p99, spread.p99_9, spread.max];
    let [p50, p90, p99, p99_9, max] = in_one_unit(times.map(|it| it.ns as f64 / 1e9));
    writeln!(
        text,
        "           {what}: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max} ({} of them)",
        spread.count
    )
}

/// Times that are compared, in the unit that fits the first, which is the shortest.
fn in_one_unit<const N: usize>(seconds: [f64; N]) -> [String; N] {
    let (unit, size, digits) = match seconds.first() {
        Some(first) if *first >= 1.0 => ("s", 1.0, 2),
        Some(first) if *first >= 1e-3 => ("ms", 1e-3, 1),
        _ => ("µs", 1e-6, 0),
    };
    seconds.map(|it| format!("{:.digits$} {unit}", it / size))
}

fn stalled(text: &mut String, stalls: &Stalls) -> std::fmt::Result {
    let cpus: CpuSet = stalls.per_vcpu.iter().map(|vcpu| vcpu.id).collect();
    write!(text, "stalls     {} of {}", stalls.count, cpus.noun())?;
    match stalls.share {
        Some(share) => writeln!(text, ", away {:.1} % of the time", share * 100.0)?,
        None => writeln!(text)?,
    }
    if let Some(latency) = &stalls.latency {
        writeln!(
            text,
            "           confirmed after {} (median), {} (99 in 100), {} at most",
            time(latency.median_seconds),
            time(latency.p99_seconds),
            time(latency.max_seconds)
        )?;
    }
    Ok(())
}

/// A time in the unit that fits, without digits that mean nothing.
fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// A column of figures, with one value for each vCPU.
struct Column {
    title: String,
    values: Vec<u64>,
}

fn columns(per_vcpu: &[PerVcpu]) -> Vec<Column> {
    let column = |title: &str, value: &dyn Fn(&PerVcpu) -> u64| Column {
        title: title.to_owned(),
        values: per_vcpu.iter().map(value).collect(),
    };
    let mut columns = Vec::new();
    let has_lab = per_vcpu.iter().any(|vcpu| vcpu.ipi_sent.is_some());
    if has_lab {
        columns.push(column("IPIs sent", &|vcpu| vcpu.ipi_sent.unwrap_or(0)));
        columns.push(column("received", &|vcpu| vcpu.ipi_received.unwrap_or(0)));
    }
    let reasons: BTreeSet<_> = per_vcpu.iter().flat_map(|vcpu| vcpu.exits.keys()).collect();
    let mut exits: Vec<_> = reasons
        .into_iter()
        .map(|reason| {
            column(&format!("user {reason}"), &|vcpu| {
                vcpu.exits.get(reason).copied().unwrap_or_default()
            })
        })
        .collect();
    let kinds: BTreeSet<_> = per_vcpu
        .iter()
        .flat_map(|vcpu| vcpu.kvm.keys())
        .filter(|name| name.ends_with("exits") || !has_lab && ENTERED.contains(&name.as_str()))
        .collect();
    exits.extend(kinds.into_iter().map(|kind| {
        column(
            &format!("kvm {}", kind.replace('_', " ")),
            &|vcpu| match vcpu.kvm.get(kind) {
                Some(Value::One(count)) => *count,
                _ => 0,
            },
        )
    }));
    // Without columns of zeroes.
    columns.extend(
        exits
            .into_iter()
            .filter(|column| column.values.iter().any(|value| *value > 0)),
    );
    columns
}

fn per_vcpu(report: &Report) -> String {
    let columns = columns(&report.per_vcpu);
    let mut table = Table::new();
    table.load_style(RULED);
    let right = |content: String| Cell::new(content).set_alignment(CellAlignment::Right);
    let row = |name: &str, value: &dyn Fn(&Column) -> u64| {
        std::iter::once(Cell::new(name))
            .chain(
                columns
                    .iter()
                    .map(|column| right(value(column).to_string())),
            )
            .collect::<Vec<_>>()
    };
    table.set_header(
        std::iter::once(Cell::new("CPU"))
            .chain(columns.iter().map(|column| right(column.title.clone()))),
    );
    if report.per_vcpu.len() <= LINES {
        for (index, vcpu) in report.per_vcpu.iter().enumerate() {
            table.add_row(row(&vcpu.id.to_string(), &|column| column.values[index]));
        }
    } else {
        table.add_row(row("min", &|column| at(&column.values, 0, 1)));
        table.add_row(row("median", &|column| at(&column.values, 1, 2)));
        table.add_row(row("max", &|column| at(&column.values, 1, 1)));
    }
    table.add_row(row("sum", &|column| {
        column
            .values
            .iter()
            .fold(0, |sum, value| sum.wrapping_add(*value))
    }));
    table.trim_fmt() + "\n"
}

/// Counts at tracepoints, a line for each tracepoint: there are too many for columns.
fn tracepoints(report: &Report) -> String {
    let vcpus = &report.per_vcpu;
    let names: BTreeSet<_> = vcpus
        .iter()
        .flat_map(|vcpu| vcpu.tracepoints.keys())
        .collect();
    if names.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(["tracepoint", "sum", "least", "median", "most of a CPU"]);
    for name in names {
        let of = |vcpu: &PerVcpu| vcpu.tracepoints.get(name).copied().unwrap_or_default();
        let values: Vec<_> = vcpus.iter().map(of).collect();
        let sum = values.iter().fold(0_u64, |sum, it| sum.wrapping_add(*it));
        // Without lines of zeroes.
        if sum > 0 {
            let spread = [(0, 1), (1, 2), (1, 1)].map(|(part, whole)| at(&values, part, whole));
            let figures = std::iter::once(sum).chain(spread).map(|it| it.to_string());
            table.add_row(std::iter::once(name.clone()).chain(figures));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt() + "\n\n"
}

/// The value `part / whole` of the way up the sorted values.
fn at(values: &[u64], part: usize, whole: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
        .get(sorted.len().saturating_sub(1) * part / whole)
        .copied()
        .unwrap_or_default()
}

/// A title, with how often each oracle found something.
fn titled(title: &str, counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<_> = counts
        .iter()
        .map(|(oracle, count)| format!("{count} {oracle}"))
        .collect();
    format!("{title}, {}", counts.join(", "))
}

fn list<'a>(text: &mut String, title: &str, entries: impl Iterator<Item = &'a str>, total: u64) {
    if total == 0 {
        return;
    }
    let _ = writeln!(text, "{title}: {total}");
    let mut shown = 0;
    for entry in entries.take(SHOWN) {
        shown += 1;
        let _ = writeln!(text, "  {entry}");
    }
    if total > shown {
        let _ = writeln!(text, "  and {} more", total - shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(at(&[5, 1, 9], 1, 2), 5);
        assert_eq!((at(&[5, 1, 9], 0, 1), at(&[5, 1, 9], 1, 1)), (1, 9));
        assert_eq!(at(&[], 1, 2), 0);
    }

    #[test]
    fn times_that_are_compared_have_one_unit() {
        assert_eq!(in_one_unit([2.5e-5, 0.0412]), ["25 µs", "41200 µs"]);
        assert_eq!(in_one_unit([0.0025, 1.5]), ["2.5 ms", "1500.0 ms"]);
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let mut text = String::new();
        list(&mut text, "open calls", ["a"; 64].into_iter(), 100);
        assert_eq!(text.lines().count(), 12);
        assert!(text.ends_with("and 90 more\n"), "{text}");
    }
}
