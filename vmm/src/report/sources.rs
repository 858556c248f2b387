//! The sources of counts on this host, as people read them: a line for each, and below what to do
//! about those that do not count.

use std::collections::BTreeSet;
use std::fmt::Write;

use comfy_table::Table;

use crate::stats::sources::Source;
use crate::stats::window::Window;
use crate::table_style::RULED;

/// Renders `sources`; nothing if there are none.
pub(super) fn table(sources: &[Source]) -> String {
    if sources.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(["source", "by", "was shown", "saw", ""]);
    for source in sources {
        let (shown, saw) = source
            .canary
            .as_ref()
            .map_or_else(Default::default, |shown| {
                (
                    format!("{} {}", shown.expected, shown.what),
                    shown.seen.to_string(),
                )
            });
        let (name, via) = (source.name.clone(), source.via.clone());
        table.add_row([name, via, shown, saw, source.status.name().to_owned()]);
    }
    let mut text = table.trim_fmt() + "\n";
    let unlike_shown = |source: &&Source| source.canary.is_none();
    let reasons: BTreeSet<_> = sources
        .iter()
        .filter(unlike_shown)
        .filter_map(|source| Some((source.reason.as_ref()?, source.remedy.as_ref())))
        .collect();
    for (reason, remedy) in reasons {
        // Writing to a string does not fail.
        let _ = match remedy {
            Some(remedy) => writeln!(text, "not counted: {reason}; {remedy}"),
            None => writeln!(text, "not counted: {reason}"),
        };
    }
    text + "\n"
}

/// A note on which of KVM's statistics are left out of the report, and why.
pub(super) fn left_out(window: &Window) -> Option<String> {
    let reasons: Vec<_> = window
        .left_out()
        .map(|(name, why)| format!("{name} ({why})"))
        .collect();
    let all = reasons.join(", ");
    (!reasons.is_empty()).then(|| format!("of KVM's statistics these are left out: {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::sources::{Shown, Status};

    #[test]
    fn what_is_missing_is_said_once() {
        let denied = |name: &str| Source {
            name: name.to_owned(),
            via: "perf".to_owned(),
            canary: None,
            status: Status::Denied,
            reason: Some("may not".to_owned()),
            remedy: Some("setcap".to_owned()),
        };
        let blind = Source {
            canary: Some(Shown {
                what: "things".to_owned(),
                expected: 500,
                seen: 0,
            }),
            status: Status::Blind,
            ..denied("c")
        };
        let text = table(&[denied("a"), denied("b"), blind]);
        assert_eq!(text.matches("may not; setcap").count(), 1, "{text}");
        assert!(text.contains("500 things"), "{text}");
        assert_eq!(table(&[]), "");
    }
}
