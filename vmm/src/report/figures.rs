//! The figures that a guest counts and wants shown, as its manifest groups them: in JSON a map for
//! each group, for people a line for each group, for Prometheus a metric for each figure. Knows
//! none of them by name.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::{Serialize, SerializeMap, Serializer};
use shared::manifest::Total;

use crate::lab::CounterValues;
use crate::manifest::{Manifest, Shown};

/// Width of the first column, as in every line above the table of vCPUs.
const MARGIN: usize = 10;

/// One figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// How it is shown, as the manifest says.
    pub shown: Shown,
    /// What it counts, in a sentence.
    pub about: String,
    /// How the counts of all CPUs are combined.
    pub total: Total,
    /// The figure.
    pub value: u64,
}

/// All figures, in the order of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// The figures that `manifest` wants shown, with the counts of all CPUs.
    pub fn new(manifest: &Manifest, counts: &CounterValues) -> Self {
        let counters = manifest.counters.iter().zip(&counts.values);
        let figures = counters.filter_map(|(counter, value)| {
            Some(Figure {
                shown: counter.shown.clone()?,
                about: counter.about.clone(),
                total: counter.total,
                value: *value,
            })
        });
        Self(figures.collect())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter()
    }

    /// The figures by group, groups in the order of their first figures.
    fn groups(&self) -> Vec<(&str, Vec<&Figure>)> {
        let mut groups: Vec<(&str, Vec<&Figure>)> = Vec::new();
        for figure in &self.0 {
            let group = &*figure.shown.group;
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, figures)) => figures.push(figure),
                None => groups.push((group, vec![figure])),
            }
        }
        groups
    }

    /// A line for each group whose first figure is not zero: the other figures of a group are about
    /// what the first one counts.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for (group, figures) in self.groups() {
            if figures.first().is_some_and(|first| first.value > 0) {
                let said = figures.iter().map(|it| {
                    let value = it.value.to_string();
                    it.shown.phrase.replacen("{}", &value, 1)
                });
                let said = said.collect::<Vec<_>>().join(", ");
                // Writing to a string does not fail.
                let _ = writeln!(text, "{group:<MARGIN$} {said}");
            }
        }
        text
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = self.groups();
        let mut map = serializer.serialize_map(Some(groups.len()))?;
        for (group, figures) in groups {
            map.serialize_entry(group, &Group(figures))?;
        }
        map.end()
    }
}

/// The figures of one group, which become a map by their keys.
struct Group<'a>(Vec<&'a Figure>);

impl Serialize for Group<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|it| (&it.shown.key, it.value)))
    }
}

impl JsonSchema for Figures {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Figures".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, BTreeMap<String, u64>>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(group: &str, key: &str, phrase: &str, value: u64) -> Figure {
        Figure {
            shown: Shown {
                group: group.to_owned(),
                key: key.to_owned(),
                phrase: phrase.to_owned(),
                metric: None,
            },
            about: String::new(),
            total: Total::Sum,
            value,
        }
    }

    #[test]
    fn figures_are_told_by_group() {
        let figures = Figures(vec![
            figure("walks", "visits", "stood on {} elements", 7),
            figure("memory", "requests", "{} requests", 0),
            figure("walks", "longest", "the longest on {}", 3),
            figure("memory", "refused", "{} refused", 2),
        ]);
        assert_eq!(
            figures.lines(),
            "walks      stood on 7 elements, the longest on 3\n"
        );
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"walks":{"visits":7,"longest":3},"memory":{"requests":0,"refused":2}}"#
        );
    }
}
