//! The figures of two benches side by side, line by line. Times have an interval by the medians of
//! the runs; counts were made over all runs together, and have none.

use std::collections::{BTreeMap, BTreeSet};

use super::difference::Sample;
use super::{Comparison, Differing, Figure, Group, Kind, Side, setup};
use crate::bench::{Cell, ClassicCell, ClassicCost, ClassicRow, Cost, Costs, Measured};
use crate::stats::latency::{Spread, Time};
use crate::stats::sources::is_proven;

/// Compares the benches `a` and `b`.
pub fn compare(sides: (Side, Side), a: &Costs, b: &Costs) -> Comparison {
    let mut comparison = Comparison::new(Kind::Benches, sides);
    comparison.differs.extend(effort(a, b));
    comparison
        .differs
        .extend(setup::sources(&a.sources, &b.sources));
    comparison.notes = notes(a, b);
    for Measured { cell, result } in &a.cells {
        let name = name(cell);
        match (result, b.of(cell)) {
            (Ok(before), Some(after)) => {
                told_apart(&mut comparison.differs, &name, before, after);
                let (figures, only_a, only_b) = figures((before, a), (after, b));
                comparison.groups.push(Group { name, figures });
                let line = comparison.groups.last().map_or("", |it| it.name.as_str());
                let named = |figure: &String| format!("{line}: {figure}");
                comparison.only_a.extend(only_a.iter().map(named));
                comparison.only_b.extend(only_b.iter().map(named));
            }
            (Ok(_), None) => comparison.only_a.push(name),
            (Err(_), _) => {}
        }
    }
    compare_classic(&mut comparison, a, b);
    let measured = b.cells.iter().filter(|it| it.result.is_ok());
    let only_b = measured.filter(|it| a.of(&it.cell).is_none());
    comparison.only_b.extend(only_b.map(|it| name(&it.cell)));
    comparison
}

/// In what the benches `a` and `b` differ before anything was measured.
pub fn setup_of(a: &Costs, b: &Costs) -> Vec<Differing> {
    let mut all = setup::differing(&a.provenance, &b.provenance);
    all.extend(effort(a, b));
    all
}

/// In how they were to measure.
fn effort(a: &Costs, b: &Costs) -> impl Iterator<Item = Differing> {
    let effort = [
        Differing::between("rounds", &a.rounds, &b.rounds),
        Differing::between("runs", &a.repetitions, &b.repetitions),
        Differing::between("traced", &a.traced, &b.traced),
    ];
    effort.into_iter().flatten()
}

/// Adds the rows of the classic benchmark.
fn compare_classic(comparison: &mut Comparison, a: &Costs, b: &Costs) {
    let measured = |costs: &Costs| -> BTreeMap<ClassicCell, ClassicCost> {
        let rows = costs.classic.iter();
        rows.filter_map(|it| Some((it.cell.clone(), it.result.clone().ok()?)))
            .collect()
    };
    let (in_a, in_b) = (measured(a), measured(b));
    for ClassicRow { cell, .. } in &a.classic {
        match (in_a.get(cell), in_b.get(cell)) {
            (Some(one), Some(other)) => {
                let figure = |name: &str, time: fn(&ClassicCost) -> (Time, &[Time])| {
                    let sample = |cost| {
                        let (middle, runs) = time(cost);
                        let runs: Vec<_> = runs.iter().map(|it| it.ns as f64).collect();
                        Sample::of_runs(middle.ns as f64, &runs)
                    };
                    Figure::new(name, "ns", sample(one), sample(other))
                };
                comparison.groups.push(Group {
                    name: classic_name(cell),
                    figures: vec![
                        figure("delivered, of all calls", |it| {
                            (it.delivered, &it.delivered_runs)
                        }),
                        figure("total", |it| (it.total, &it.total_runs)),
                    ],
                });
                if let (Some(one), Some(other)) = (&one.words, &other.words) {
                    add_words(&mut comparison.differs, one, other);
                }
            }
            (Some(_), None) => comparison.only_a.push(classic_name(cell)),
            (None, _) => {}
        }
    }
    let only_b = in_b.keys().filter(|cell| !in_a.contains_key(*cell));
    comparison.only_b.extend(only_b.map(classic_name));
}

fn classic_name(cell: &ClassicCell) -> String {
    let how = [&cell.transport, &cell.queue].into_iter().flatten();
    let words = ["classic", &cell.row, &cell.receiver].into_iter();
    let words = words.chain(how.map(String::as_str));
    words.collect::<Vec<_>>().join(" ")
}

/// Adds the words that differ, each once for all lines.
fn add_words(
    differs: &mut Vec<Differing>,
    a: &BTreeMap<String, String>,
    b: &BTreeMap<String, String>,
) {
    for word in setup::words(a, b) {
        if !differs.contains(&word) {
            differs.push(word);
        }
    }
}

/// How long a round takes until all have it: the median, with the medians of the runs.
pub fn whole_round(cost: &Cost) -> Option<Sample> {
    Some(median(cost.all.as_ref()?, &cost.medians))
}

fn until_sent(cost: &Cost) -> Option<Sample> {
    Some(median(cost.sent.as_ref()?, &cost.sent_medians))
}

/// The median in nanoseconds of the runs' `medians`, which are ascending and in cycles, with these:
/// what the interval is of. The median of all rounds together can lie outside of that. Where the
/// runs were not kept apart, that of `spread`.
fn median(spread: &Spread, medians: &[u64]) -> Sample {
    // By the longest time, of which both have the most digits.
    let scale = spread.max.ns as f64 / spread.max.cycles.max(1) as f64;
    let runs: Vec<_> = medians.iter().map(|it| *it as f64 * scale).collect();
    let Some(last) = runs.len().checked_sub(1) else {
        return Sample::single(spread.p50.ns as f64);
    };
    Sample::of_runs(runs[last / 2].midpoint(runs[last.div_ceil(2)]), &runs)
}

/// The name of a line.
fn name(cell: &Cell) -> String {
    format!("{} {} {} {}", cell.by, cell.to, cell.receiver, cell.how())
}

/// What a reader has to know of the intervals.
fn notes(a: &Costs, b: &Costs) -> Vec<String> {
    let mut notes = Vec::new();
    for (side, costs) in [("a", a), ("b", b)] {
        match costs.repetitions {
            0 | 1 => notes.push(format!(
                "{side}: one run, so that no time has a spread (--runs 6)"
            )),
            runs @ 2..=5 => notes.push(format!(
                "{side}: {runs} runs; from the lowest to the highest of their medians is an \
                 interval of {:.1} % (--runs 6: 96.9 %)",
                (1.0 - 0.5_f64.powi(i32::try_from(runs).unwrap_or(1) - 1)) * 100.0
            )),
            _ => {}
        }
    }
    notes.push("times have the spread of the runs' medians; counts, of all runs, have none".into());
    notes
}

/// Adds what differs in one line that is no figure.
fn told_apart(differs: &mut Vec<Differing>, line: &str, a: &Cost, b: &Cost) {
    let handled = |cost: &Cost| {
        cost.verdict
            .as_ref()
            .map_or("nothing is sent", |it| it.handling.name())
    };
    differs.extend(Differing::between(
        format!("{line}: IPIs are"),
        &handled(a),
        &handled(b),
    ));
    if let (Some(a), Some(b)) = (&a.words, &b.words) {
        add_words(differs, a, b);
    }
}

/// A figure of a line: name, unit, and the figure.
type Named = (String, &'static str, Sample);

/// The figures of a line that both have, and the names of those that only one has.
fn figures(
    (a, of_a): (&Cost, &Costs),
    (b, of_b): (&Cost, &Costs),
) -> (Vec<Figure>, Vec<String>, Vec<String>) {
    let names = counted(a).chain(counted(b)).collect::<BTreeSet<_>>();
    let (a, b) = (samples(a, of_a, &names), samples(b, of_b, &names));
    let find = |all: &[Named], name: &str| all.iter().find(|it| it.0 == name).cloned();
    let mut figures = Vec::new();
    let mut only_a = Vec::new();
    for (name, unit, sample) in &a {
        match find(&b, name) {
            Some((.., other)) => {
                figures.push(Figure::new(name.as_str(), unit, sample.clone(), other));
            }
            None => only_a.push(name.clone()),
        }
    }
    let only_b = b.iter().filter(|it| find(&a, &it.0).is_none());
    (figures, only_a, only_b.map(|it| it.0.clone()).collect())
}

/// A count of a line: the map that it is in, and its name there.
type Counted<'a> = (&'static str, &'a str);

/// The counts that a line has. A document leaves out those that are zero.
fn counted(cost: &Cost) -> impl Iterator<Item = Counted<'_>> {
    maps(cost).into_iter().flat_map(|(side, counts)| {
        let names = counts.keys();
        names.map(move |name| (side, name.as_str()))
    })
}

fn maps(cost: &Cost) -> [(&'static str, &BTreeMap<String, f64>); 3] {
    [
        ("sends by", &cost.operations),
        ("sender:", &cost.sender),
        ("receivers:", &cost.receivers),
    ]
}

/// The figures of a line of the bench `costs`, with all counts called `names` that it could count.
fn samples(cost: &Cost, costs: &Costs, names: &BTreeSet<Counted<'_>>) -> Vec<Named> {
    let time =
        |name: &str, sample: Option<Sample>| sample.map(|sample| (name.to_owned(), "ns", sample));
    let p99 = cost.all.map(|all| Sample::single(all.p99.ns as f64));
    let times = [
        time("until sent, median", until_sent(cost)),
        time("until all have it, median", whole_round(cost)),
        time("until all have it, p99", p99),
    ];
    let per_send = cost.verdict.as_ref().and_then(|it| it.exits_per_send);
    let per_send = per_send.map(|exits| ("exits/IPI".to_owned(), "", Sample::single(exits)));
    let counts = names.iter().filter_map(|(side, name)| {
        let (_, counts) = maps(cost).into_iter().find(|(it, _)| it == side)?;
        let source = name.split(' ').next().unwrap_or_default();
        let value = match counts.get(*name) {
            Some(value) => *value,
            // The guest counts its own sends.
            None if *side == "sends by" || is_proven(&costs.sources, source) => 0.0,
            None => return None,
        };
        Some((format!("{side} {name}"), "", Sample::single(value)))
    });
    (times.into_iter().flatten())
        .chain(per_send)
        .chain(counts)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::comparison::difference::Significance;
    use serde_json::json;

    fn costs(median: u64, runs: &[u64], sender: &serde_json::Value) -> Costs {
        let time = |cycles: u64| json!({"cycles": cycles, "ns": cycles / 2});
        let spread = |p50: u64| {
            json!({"count": 9, "min": time(1), "p50": time(p50), "p90": time(900),
                   "p99": time(990), "p99_9": time(999), "max": time(1000)})
        };
        let document = json!({
            "schema": "ipi-lab-bench/1", "vcpus": 2, "rounds": 9, "repetitions": runs.len(),
            "traced": false,
            "provenance": {"vmm": {"version": "1", "commit": null, "modified": false},
                "date": "", "host": {"kernel": "", "kvm": "svm"},
                "guest": {"name": "", "hash": ""}, "vcpus": 2, "given": "", "words": null,
                "script": null, "case": null},
            "sources": [{"name": "exits", "via": "", "canary": null, "status": "ok",
                         "reason": null, "remedy": null}],
            "cells": [{"cell": {"by": "ipi", "to": "one", "receiver": "halted",
                                "transport": "x2apic", "apic": null, "queue": null},
                "result": {"Ok": {"targets": 1, "sent": null, "all": spread(median),
                    "medians": runs, "operations": {"x2apic": 1.0}, "sender": sender,
                    "receivers": {}}}}],
        });
        serde_json::from_value(document).unwrap()
    }

    fn compared(a: &Costs, b: &Costs) -> Comparison {
        let side = |costs: &Costs| Side {
            file: "x".to_owned(),
            provenance: costs.provenance.clone(),
        };
        compare((side(a), side(b)), a, b)
    }

    #[test]
    fn times_are_held_against_their_runs() {
        let a = costs(100, &[90, 100, 110], &json!({}));
        let median = |b: &Costs| {
            let compared = compared(&a, b);
            let figures = compared.groups[0].figures.iter();
            let mut figures = figures.filter(|it| it.name == "until all have it, median");
            figures.next().unwrap().clone()
        };
        let within = median(&costs(108, &[105, 108, 130], &json!({})));
        assert_eq!(within.difference.significance, Significance::WithinSpread);
        assert_eq!((within.a.value, within.b.value), (50.0, 54.0));
        assert_eq!(within.a.interval.unwrap().high, 55.0);
        let apart = median(&costs(200, &[190, 200, 210], &json!({})));
        assert_eq!(apart.difference.significance, Significance::Apart);
        assert_eq!(apart.difference.ratio, Some(2.0));
        let single = median(&costs(200, &[200], &json!({})));
        assert_eq!(single.difference.significance, Significance::NoSpread);
    }

    #[test]
    fn a_count_that_is_left_out_is_zero_if_its_source_can_be_believed() {
        let a = costs(100, &[100], &json!({"exits": 2.0, "kvm_exit msr": 1.0}));
        let b = costs(100, &[100], &json!({}));
        let compared = compared(&a, &b);
        let figures = &compared.groups[0].figures;
        let exits = figures.iter().find(|it| it.name == "sender: exits");
        let exits = exits.unwrap();
        assert_eq!((exits.a.value, exits.b.value), (2.0, 0.0));
        assert_eq!(
            compared.only_a,
            ["ipi one halted x2apic: sender: kvm_exit msr"]
        );
        assert!(compared.only_b.is_empty());
    }

    #[test]
    fn lines_of_one_bench_alone_are_named() {
        let a = costs(100, &[100], &json!({}));
        let mut b = costs(100, &[100], &json!({}));
        b.cells[0].cell.receiver = "running".to_owned();
        let compared = compared(&a, &b);
        assert!(compared.groups.is_empty());
        assert_eq!(compared.only_a, ["ipi one halted x2apic"]);
        assert_eq!(compared.only_b, ["ipi one running x2apic"]);
    }
}
