//! The events to which a client can subscribe: their names, and each as a line of JSON.
//! `docs/control-socket.md` is the reference.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answers;
use crate::control::operator::Event;
use crate::lab::finding;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Held,
    Done,
    Finding,
    Died,
    Ended,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Held,
        Self::Done,
        Self::Finding,
        Self::Died,
        Self::Ended,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Done => "done",
            Self::Finding => "finding",
            Self::Died => "died",
            Self::Ended => "ended",
        }
    }

    /// The kind of `event`.
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Held { .. } => Self::Held,
            Event::Done { .. } => Self::Done,
            Event::Finding { .. } => Self::Finding,
            Event::Died { .. } => Self::Died,
            Event::Ended { .. } => Self::Ended,
        }
    }
}

/// The line that tells of `event`.
pub(super) fn line(event: &Event) -> String {
    let mut line = match event {
        Event::Held { cpu, by, probe } => json!({
            "cpu": cpu,
            "held_by": answers::held_by(*by, probe.as_deref()),
        }),
        Event::Done {
            posted,
            deed,
            done,
            answer,
        } => {
            let mut line = json!({
                "cpu": posted.cpu,
                "number": posted.number,
                "deed": deed,
                "call": done.call.map(answers::call_id),
            });
            match &done.result {
                Ok(result) => line["result"] = (*result).into(),
                Err(why) => line["refused"] = why.to_string().into(),
            }
            if let Some(answer) = answer {
                line["answer"] = json!(answer);
            }
            line
        }
        Event::Finding {
            finding,
            oracle,
            sentence,
        } => json!({
            "cpu": finding.cpu,
            "oracle": oracle,
            "call": finding::call(finding).map(answers::call_id),
            "text": sentence,
        }),
        Event::Died { cpu, why } => json!({ "cpu": cpu, "why": why }),
        Event::Ended { why } => json!({ "why": why }),
    };
    line["event"] = Kind::of(event).name().into();
    Value::to_string(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::message::HeldBy;

    #[test]
    fn every_kind_is_read_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(
                serde_json::from_value::<Kind>(kind.name().into()).unwrap(),
                kind
            );
        }
    }

    #[test]
    fn an_event_is_one_line_with_its_name() {
        let event = Event::Held {
            cpu: 2,
            by: HeldBy::Steps,
            probe: None,
        };
        assert_eq!(
            line(&event),
            r#"{"cpu":2,"event":"held","held_by":"steps"}"#
        );
        let why = "two\nlines".to_owned();
        assert!(!line(&Event::Ended { why }).contains('\n'));
    }
}
