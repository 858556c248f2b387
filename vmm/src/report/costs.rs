//! What IPIs and calls cost, as a table, beside the figures of an earlier bench if there is one.
//! Lays out figures that [`Costs`] already has.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell as TableCell, CellAlignment, Table};

use super::comparison::difference::Difference;
use super::comparison::{Differing, setup_of, whole_round};
use super::sources;
use crate::bench::{Cell, Cost, Costs, Handling, IpiHandling, Measured};
use crate::stats::latency::Spread;
use crate::stats::sources::{STATS, Source, is_proven};
use crate::stats::tracepoints::events::{ACCEPT_IRQ, APIC_IPI, EOI, EXIT};
use crate::table_style::RULED;

/// KVM's count of halts.
const HALTS: &str = "halt_exits";

/// Renders `costs`, and compares them to `baseline`.
pub fn table(costs: &Costs, baseline: Option<&Costs>) -> String {
    let mut table = Table::new();
    table.load_style(RULED);
    let mut header = vec!["", "to", "receiver", "by", "sends", "send µs", "all µs"];
    header.extend(["p99", "max", "runs ±", "exits", "each", "instr."]);
    if baseline.is_some() {
        header.extend(["was µs", "now/was", "difference"]);
    }
    table.set_header(header);
    let mut refused: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
    for Measured { cell, result } in &costs.cells {
        match result {
            Ok(cost) => {
                let before = baseline.map(|baseline| baseline.of(cell));
                table.add_row(row(cell, cost, &costs.sources, before));
            }
            Err(why) => refused.entry(why).or_default().push(cell),
        }
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n\n");
    for (name, fact) in &costs.provenance.facts() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10} {fact}");
    }
    if baseline.is_some_and(|before| costs.cells.iter().all(|it| before.of(&it.cell).is_none())) {
        let _ = writeln!(text, "baseline   has none of these lines");
    }
    let differs = baseline.map(|before| setup_of(before, costs));
    for Differing { what, a, b } in differs.into_iter().flatten() {
        let _ = writeln!(text, "{what:<10} was {a}, is {b}");
    }
    text.push('\n');
    // Writing to a string does not fail.
    let _ = legend(&mut text, costs);
    if !costs.sources.is_empty() {
        text.push_str(&handling(costs));
        text.push_str(&sources::table(&costs.sources));
    }
    for (why, cells) in refused {
        let mut ways: Vec<_> = cells.iter().map(|cell| cell.transport.as_str()).collect();
        ways.dedup();
        let _ = writeln!(
            text,
            "not measured: {} of {}: {why}",
            cells.len(),
            ways.join(", ")
        );
    }
    text
}

fn legend(text: &mut String, costs: &Costs) -> std::fmt::Result {
    writeln!(
        text,
        "{} vCPUs, {} rounds, {} runs each. send, all: median time until sent, until all have it; \
         p99 and max of all.\n\
         runs ±: half of what the runs' medians are apart. exits: of the sender, per round; each: \
         of the receivers,\n\
         per target (KVM's binary stats, less the background). instr.: instructions that KVM \
         emulated for the sender.",
        costs.vcpus, costs.rounds, costs.repetitions
    )
}

/// A table of the cells that send IPIs: whether hardware or KVM handles them, and for which reasons
/// vCPUs exit.
fn handling(costs: &Costs) -> String {
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header([
        "",
        "to",
        "receiver",
        "by",
        "IPIs are",
        "exits/IPI",
        "KVM sent",
        "accepted",
        "ended each",
        "hlt each",
        "exits of the sender",
        "of each receiver",
    ]);
    let sources = &costs.sources;
    for Measured { cell, result } in &costs.cells {
        let Ok(cost) = result else { continue };
        let Some(verdict) = &cost.verdict else {
            continue;
        };
        let of = |counts, source, name| counted(counts, sources, source, name);
        let at_receivers = |source, name| match cell.to.as_str() {
            "self" => of(&cost.sender, source, name),
            _ => of(&cost.receivers, source, name),
        };
        let figures = [
            handled(verdict),
            verdict.exits_per_send.map_or_else(unknown, figure),
            of(&cost.sender, APIC_IPI, APIC_IPI),
            of(&cost.sender, ACCEPT_IRQ, ACCEPT_IRQ),
            at_receivers(EOI, EOI),
            of(&cost.receivers, HALTS, HALTS),
            reasons(&cost.sender, sources),
            reasons(&cost.receivers, sources),
        ];
        let what = what(cell, cost).into_iter().chain(figures);
        table.add_row(what.map(TableCell::new));
    }
    if table.is_empty() {
        return String::new();
    }
    for column in table.column_iter_mut().skip(5).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "\n{}\n\n\
         exits/IPI: of the sender, for each send operation. KVM sent, accepted: {APIC_IPI} and \
         {ACCEPT_IRQ} on the sender's thread, per round;\n\
         ended, hlt: {EOI} and halt_exits of the receivers, per target. Exits by reason: {EXIT}, \
         as KVM names them,\n\
         less the background. ?: nobody who counts it can be believed; see below.\n\n",
        table.trim_fmt()
    )
}

fn handled(verdict: &IpiHandling) -> String {
    match (verdict.handling, verdict.exits_per_send) {
        (Handling::Partial, Some(exits)) => format!("partial ({:.0} % by KVM)", exits * 100.0),
        (handling, _) => handling.name().to_owned(),
    }
}

fn unknown() -> String {
    "?".to_owned()
}

/// The figure called `name`, or `?` if `source`, which counts it, cannot be believed.
fn counted(counts: &BTreeMap<String, f64>, sources: &[Source], source: &str, name: &str) -> String {
    if !is_proven(sources, source) {
        return unknown();
    }
    figure(counts.get(name).copied().unwrap_or(0.0))
}

/// Exits by reason, the most frequent first, without those that hardly occur.
fn reasons(counts: &BTreeMap<String, f64>, sources: &[Source]) -> String {
    const LEAST: f64 = 0.05;
    if !is_proven(sources, EXIT) {
        return unknown();
    }
    let mut named: Vec<_> = counts
        .iter()
        .filter(|(_, count)| **count >= LEAST)
        .filter_map(|(name, count)| {
            let reason = name.strip_prefix(EXIT)?.strip_prefix(' ')?;
            Some((reason, count))
        })
        .collect();
    named.sort_by(|left, right| right.1.total_cmp(left.1));
    let words = named
        .iter()
        .map(|(name, count)| format!("{name} {count:.2}"));
    words.collect::<Vec<_>>().join(", ")
}

/// What a line is about: an IPI or a call, its targets, their state, and the transport or design.
fn what(cell: &Cell, cost: &Cost) -> [String; 4] {
    let to = match cost.targets {
        1 => cell.to.clone(),
        several => format!("{} ({several})", cell.to),
    };
    [cell.by.clone(), to, cell.receiver.clone(), cell.how()]
}

fn row(
    cell: &Cell,
    cost: &Cost,
    sources: &[Source],
    before: Option<Option<&Cost>>,
) -> Vec<TableCell> {
    let sends: f64 = cost.operations.values().sum();
    let of =
        |counts: &BTreeMap<String, f64>, name: &str| counts.get(name).map(|value| figure(*value));
    let proven = |counts, name| match is_proven(sources, name) {
        true => of(counts, name).unwrap_or_default(),
        false => unknown(),
    };
    let mut row = what(cell, cost).to_vec();
    row.extend([
        figure(sends),
        micros(cost.sent.as_ref(), |spread| spread.p50.ns),
        micros(cost.all.as_ref(), |spread| spread.p50.ns),
        micros(cost.all.as_ref(), |spread| spread.p99.ns),
        micros(cost.all.as_ref(), |spread| spread.max.ns),
        unsteadiness(&cost.medians),
        proven(&cost.sender, STATS),
        proven(&cost.receivers, STATS),
        proven(&cost.sender, "insn_emulation"),
    ]);
    if let Some(before) = before {
        let was = before.and_then(|cost| cost.all.as_ref());
        row.push(micros(was, |spread| spread.p50.ns));
        let samples = before.and_then(whole_round).zip(whole_round(cost));
        let difference = samples.map(|(was, now)| Difference::between(&was, &now));
        let difference = difference.as_ref();
        let ratio = difference.and_then(|it| it.ratio);
        row.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        row.push(difference.map_or_else(String::new, |it| it.significance.name().to_owned()));
    }
    row.into_iter().map(TableCell::new).collect()
}

fn micros(spread: Option<&Spread>, time: impl Fn(&Spread) -> u64) -> String {
    spread.map_or_else(String::new, |spread| {
        format!("{:.1}", time(spread) as f64 / 1000.0)
    })
}

fn figure(value: f64) -> String {
    format!("{value:.2}")
}

/// Half the distance between the lowest and the highest median of a run, in percent of the middle
/// one; nothing of one run. `medians` ascend.
fn unsteadiness(medians: &[u64]) -> String {
    let [first, .., last] = medians else {
        return String::new();
    };
    let middle = medians[medians.len() / 2].max(1);
    format!("{:.0} %", (last - first) as f64 * 50.0 / middle as f64)
}
