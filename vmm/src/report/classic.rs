//! The rows of the classic benchmark as a table, in the order and with the columns in which they
//! have been published since 2017. Lays out figures that [`Costs`] already has.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table};

use crate::bench::{ClassicCell, ClassicCost, ClassicRow, Costs};
use crate::stats::latency::Time;
use crate::table_style::RULED;

/// Renders the rows of `costs`.
pub fn table(costs: &Costs) -> String {
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header([
        "",
        "receiver",
        "by",
        "delivered ns",
        "total ns",
        "each ns",
        "delivered",
        "total",
        "runs ±",
    ]);
    let mut refused = String::new();
    for ClassicRow { cell, result } in &costs.classic {
        match result {
            Ok(cost) => {
                table.add_row(row(cell, cost, costs.rounds).map(Cell::new));
            }
            // Writing to a string does not fail.
            Err(why) => {
                let _ = writeln!(refused, "not measured: {}: {why}", cell.row);
            }
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = match table.is_empty() {
        true => String::new(),
        false => format!("{}\n\n", table.trim_fmt()),
    };
    for (name, fact) in &costs.provenance.facts() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10} {fact}");
    }
    let _ = writeln!(
        text,
        "\n{} vCPUs, {} calls a row, {} runs each, of which the one in the middle is shown. \
         delivered ns: of all calls\n\
         together, from just before each to its function; total ns: until the last has returned; \
         each: the total by call.\n\
         delivered, total: over the total of the dry run. runs ±: half of what the totals of the \
         runs are apart.",
        costs.vcpus, costs.rounds, costs.repetitions
    );
    text.push_str(&refused);
    text
}

fn row(cell: &ClassicCell, cost: &ClassicCost, rounds: u32) -> [String; 9] {
    let how = [&cell.transport, &cell.queue].into_iter().flatten();
    let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |it| format!("{it:.2}"));
    [
        cell.row.clone(),
        cell.receiver.clone(),
        how.cloned().collect::<Vec<_>>().join(" "),
        cost.delivered.ns.to_string(),
        cost.total.ns.to_string(),
        format!("{:.0}", cost.total.ns as f64 / f64::from(rounds.max(1))),
        ratio(cost.delivered_to_dry_run),
        ratio(cost.total_to_dry_run),
        unsteadiness(&cost.total_runs),
    ]
}

/// Half of what the shortest and the longest of the runs are apart, in percent of the middle one;
/// nothing of one run.
fn unsteadiness(runs: &[Time]) -> String {
    let [first, .., last] = runs else {
        return String::new();
    };
    let middle = runs[runs.len() / 2].cycles.max(1);
    let apart = last.cycles.saturating_sub(first.cycles);
    format!("{:.0} %", apart as f64 * 50.0 / middle as f64)
}
