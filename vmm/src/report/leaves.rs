//! The figures of a report one by one, as its JSON document has them: name, number, and the vCPU
//! that it is of. Works on the document, so that a report from a file can be taken apart like one
//! that was just made, and no figure is forgotten that a later version adds.

use serde_json::{Map, Number, Value};

/// Keys at the top that are no figures: they say what was run, how it ended, and who counted.
const NO_FIGURES: [&str; 6] = [
    "schema",
    "provenance",
    "exit_status",
    "vcpus",
    "sources",
    "per_vcpu",
];

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// The vCPU that it is of; `None` if it is of the whole machine.
    pub vcpu: Option<u32>,
    /// The keys that lead to it, with dots between them.
    pub name: String,
    /// The figure.
    pub value: Number,
}

/// Every number in `document`: those of the machine, then those of each vCPU. Lists are left out
/// (findings, pairs of CPUs), as are keys without a number.
pub fn leaves(document: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    let Value::Object(keys) = document else {
        return found;
    };
    let figures = keys.iter();
    for (key, value) in figures.filter(|(key, _)| !NO_FIGURES.contains(&key.as_str())) {
        gather(&mut found, None, key, value);
    }
    let vcpus = keys.get("per_vcpu").and_then(Value::as_array);
    for (place, vcpu) in (0..).zip(vcpus.into_iter().flatten()) {
        let Value::Object(keys) = vcpu else { continue };
        let id = id(keys).unwrap_or(place);
        for (key, value) in keys.iter().filter(|(key, _)| *key != "id") {
            gather(&mut found, Some(id), key, value);
        }
    }
    found
}

fn id(keys: &Map<String, Value>) -> Option<u32> {
    u32::try_from(keys.get("id")?.as_u64()?).ok()
}

fn gather(found: &mut Vec<Leaf>, vcpu: Option<u32>, name: &str, value: &Value) {
    match value {
        Value::Number(value) => found.push(Leaf {
            vcpu,
            name: name.to_owned(),
            value: value.clone(),
        }),
        Value::Object(keys) => {
            for (key, value) in keys {
                gather(found, vcpu, &format!("{name}.{key}"), value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_number_is_found_once_with_its_vcpu() {
        let document = json!({
            "schema": "ipi-lab/3", "exit_status": 1, "vcpus": 2, "provenance": {"vcpus": 2},
            "boot_seconds": null, "run_seconds": 0.5, "calls": {"made": 3, "ipis_per_call": null},
            "ipi": {"by_transport": {"pv": 7}}, "findings": [{"cpu": 1}], "message": "12",
            "sources": [{"canary": {"seen": 1}}],
            "per_vcpu": [{"id": 0, "kvm": {"exits": 4}}, {"id": 1, "ipi_sent": 5}],
        });
        let told: Vec<_> = leaves(&document)
            .into_iter()
            .map(|leaf| (leaf.vcpu, leaf.name, leaf.value.to_string()))
            .collect();
        let expected = [
            (None, "calls.made", "3"),
            (None, "ipi.by_transport.pv", "7"),
            (None, "run_seconds", "0.5"),
            (Some(0), "kvm.exits", "4"),
            (Some(1), "ipi_sent", "5"),
        ];
        let expected =
            expected.map(|(vcpu, name, value)| (vcpu, name.to_owned(), value.to_owned()));
        assert_eq!(told, expected);
        assert!(leaves(&json!([1, 2])).is_empty());
        assert!(leaves(&json!({"per_vcpu": [3, {"id": -1}]})).is_empty());
    }
}
