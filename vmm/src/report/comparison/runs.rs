//! The figures of two runs side by side. Each is one sample: what a run comes to differs from the
//! next, and one of each says nothing of how much.

use std::collections::BTreeMap;

use super::difference::Sample;
use super::read::Run;
use super::{Comparison, Differing, Figure, Group, Kind, Side, setup};
use crate::report::leaves::Leaf;

/// The group of the figures of vCPUs, which are added up.
const VCPUS: &str = "all vCPUs together";

/// The group of figures that have none.
const WHOLE: &str = "run";

/// Figures by group and name.
type Figures<'a> = BTreeMap<(String, &'a str), f64>;

/// Compares the runs `a` and `b`.
pub fn compare(sides: (Side, Side), a: &Run, b: &Run) -> Comparison {
    let mut comparison = Comparison::new(Kind::Runs, sides);
    let ended = [
        Differing::between("result", &a.result, &b.result),
        Differing::between("window", &a.window, &b.window),
    ];
    comparison.differs.extend(ended.into_iter().flatten());
    comparison
        .differs
        .extend(setup::sources(&a.sources, &b.sources));
    comparison.notes.push(
        "one run is one sample and has no spread: whether a difference is chance, it cannot say"
            .to_owned(),
    );
    let (a, b) = (figures(&a.leaves), figures(&b.leaves));
    for ((group, name), value) in &a {
        let Some(other) = b.get(&(group.clone(), *name)) else {
            comparison.only_a.push(format!("{group}: {name}"));
            continue;
        };
        let (a, b) = (Sample::single(*value), Sample::single(*other));
        let figure = Figure::new(*name, unit(name), a, b);
        match comparison.groups.last_mut().filter(|it| it.name == *group) {
            Some(group) => group.figures.push(figure),
            None => comparison.groups.push(Group {
                name: group.clone(),
                figures: vec![figure],
            }),
        }
    }
    let only_b = b.keys().filter(|key| !a.contains_key(*key));
    comparison.only_b = only_b
        .map(|(group, name)| format!("{group}: {name}"))
        .collect();
    comparison
}

/// The figures of the machine by the key they stand under, and the sums of those of the vCPUs.
fn figures(leaves: &[Leaf]) -> Figures<'_> {
    let mut figures = Figures::new();
    for leaf in leaves {
        let value = leaf.value.as_f64().unwrap_or(f64::NAN);
        let (group, name) = match (leaf.vcpu, leaf.name.split_once('.')) {
            (Some(_), _) => (VCPUS, leaf.name.as_str()),
            (None, Some((group, name))) => (group, name),
            (None, None) => (WHOLE, leaf.name.as_str()),
        };
        *figures.entry((group.to_owned(), name)).or_default() += value;
    }
    figures
}

fn unit(name: &str) -> &'static str {
    match name.rsplit(['.', '_']).next() {
        Some("ns") => "ns",
        Some("cycles") => "cycles",
        Some("seconds") => "s",
        _ => "",
    }
}
