//! What IPIs and calls cost, as a table; beside an earlier bench, if there is one. Lays out figures that
//! [`Costs`] already has.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell as TableCell, CellAlignment, Table};

use super::table::RULED;
use crate::bench::{Cell, Cost, Costs, Measured};
use crate::stats::latency::Spread;

/// Renders `costs`, and how they stand to `baseline`.
pub fn table(costs: &Costs, baseline: Option<&Costs>) -> String {
    let mut table = Table::new();
    table.load_style(RULED);
    let mut header = vec![
        "", "to", "receiver", "by", "sends", "send µs", "all µs", "p99", "max", "runs ±", "exits",
        "each", "instr.",
    ];
    if baseline.is_some() {
        header.extend(["was µs", "now/was"]);
    }
    table.set_header(header);
    let mut refused: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
    for Measured { cell, result } in &costs.cells {
        match result {
            Ok(cost) => {
                let before = baseline.map(|baseline| baseline.of(cell));
                table.add_row(row(cell, cost, before));
            }
            Err(why) => refused.entry(why).or_default().push(cell),
        }
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n\n");
    // Writing to a string does not fail.
    let _ = legend(&mut text, costs);
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
        "{} vCPUs, {} rounds, {} runs each. send, all: median time until sent, until all have it; p99 and max \
         of all.\nruns ±: half of what the runs' medians are apart. exits: of the sender, per round; each: of \
         the receivers,\nper target (KVM's binary stats, less the background). instr.: instructions that KVM \
         emulated for the sender.",
        costs.vcpus, costs.rounds, costs.repetitions
    )
}

fn row(cell: &Cell, cost: &Cost, before: Option<Option<&Cost>>) -> Vec<TableCell> {
    let how = cell.queue.as_deref().unwrap_or(&cell.transport);
    let how = match &cell.apic {
        Some(apic) => format!("{how} ({apic})"),
        None => how.to_owned(),
    };
    let sends: f64 = cost.operations.values().sum();
    let to = match cost.targets {
        1 => cell.to.clone(),
        several => format!("{} ({several})", cell.to),
    };
    let of =
        |counts: &BTreeMap<String, f64>, name: &str| counts.get(name).map(|value| figure(*value));
    let mut row = vec![
        cell.by.clone(),
        to,
        cell.receiver.clone(),
        how,
        figure(sends),
        micros(cost.sent.as_ref(), |spread| spread.p50.ns),
        micros(cost.all.as_ref(), |spread| spread.p50.ns),
        micros(cost.all.as_ref(), |spread| spread.p99.ns),
        micros(cost.all.as_ref(), |spread| spread.max.ns),
        unsteadiness(&cost.medians),
        of(&cost.sender, "exits").unwrap_or_default(),
        of(&cost.receivers, "exits").unwrap_or_default(),
        of(&cost.sender, "insn_emulation").unwrap_or_default(),
    ];
    if let Some(before) = before {
        let was = before.and_then(|cost| cost.all.as_ref());
        row.push(micros(was, |spread| spread.p50.ns));
        row.push(match (&cost.all, was) {
            (Some(now), Some(was)) if was.p50.ns > 0 => {
                format!("{:.2}", now.p50.ns as f64 / was.p50.ns as f64)
            }
            _ => String::new(),
        });
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

/// Half of what the medians of the runs are apart, of the middle one.
fn unsteadiness(medians: &[u64]) -> String {
    let (Some(first), Some(last)) = (medians.first(), medians.last()) else {
        return String::new();
    };
    let middle = medians[medians.len() / 2].max(1);
    format!("{:.0} %", (last - first) as f64 * 50.0 / middle as f64)
}
