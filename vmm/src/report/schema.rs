//! The JSON Schemas of the documents that this version writes, made from the types that are
//! written. They are also in `docs/schema/`; a test checks that those files are the same.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::Report;
use crate::bench::Costs;

/// The schema of the report on a run, [`super::SCHEMA`].
pub fn report() -> String {
    text(&of::<Report>(super::SCHEMA))
}

/// The schema of the figures of a bench, [`crate::bench::SCHEMA`].
pub fn bench() -> String {
    text(&of::<Costs>(crate::bench::SCHEMA))
}

/// The schema of a comparison, [`super::comparison::SCHEMA`].
pub fn compare() -> String {
    text(&of::<super::comparison::Comparison>(
        super::comparison::SCHEMA,
    ))
}

/// The schema of what a search came to, [`crate::explore::result::SCHEMA`].
pub fn explore() -> String {
    text(&of::<crate::explore::result::Document>(
        crate::explore::result::SCHEMA,
    ))
}

/// The schema of what a guest says of itself, [`crate::manifest::SCHEMA`].
pub fn guest() -> String {
    text(&of::<crate::manifest::Document<'_>>(
        crate::manifest::SCHEMA,
    ))
}

/// The schema of a document `T` whose key `schema` has the value `version`.
fn of<T: JsonSchema>(version: &str) -> Schema {
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), version.into());
    if let Some(Value::Object(key)) = schema.pointer_mut("/properties/schema") {
        key.insert("const".to_owned(), version.into());
    }
    schema
}

fn text(schema: &Schema) -> String {
    // Text and numbers always have a JSON form.
    serde_json::to_string_pretty(schema.as_value()).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_schemas_are_those_of_the_types() {
        for (document, written, name) in [
            (
                include_str!("../../../docs/schema/ipi-lab-3.json"),
                report(),
                "report > docs/schema/ipi-lab-3.json",
            ),
            (
                include_str!("../../../docs/schema/ipi-lab-bench-1.json"),
                bench(),
                "bench > docs/schema/ipi-lab-bench-1.json",
            ),
            (
                include_str!("../../../docs/schema/ipi-lab-compare-1.json"),
                compare(),
                "compare > docs/schema/ipi-lab-compare-1.json",
            ),
            (
                include_str!("../../../docs/schema/ipi-lab-explore-1.json"),
                explore(),
                "explore > docs/schema/ipi-lab-explore-1.json",
            ),
            (
                include_str!("../../../docs/schema/ipi-lab-guest-1.json"),
                guest(),
                "guest > docs/schema/ipi-lab-guest-1.json",
            ),
        ] {
            assert_eq!(
                document, written,
                "a document has changed. If a program that reads it could take harm, \
                 docs/formats.md says, change its version; then: vmm schema {name}"
            );
        }
    }

    #[test]
    fn a_document_names_its_version_and_has_all_its_keys() {
        for (schema, version) in [
            (report(), "ipi-lab/3"),
            (bench(), "ipi-lab-bench/1"),
            (compare(), "ipi-lab-compare/1"),
            (explore(), "ipi-lab-explore/1"),
            (guest(), "ipi-lab-guest/1"),
        ] {
            let schema: Value = serde_json::from_str(&schema).unwrap();
            assert_eq!(schema["properties"]["schema"]["const"], version);
            let keys = schema["properties"].as_object().unwrap();
            assert_eq!(schema["required"].as_array().unwrap().len(), keys.len());
        }
    }
}
