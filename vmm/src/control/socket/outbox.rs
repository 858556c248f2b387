//! What is to be sent to one client: answers to its requests, and the events to which it has
//! subscribed, in the order in which they came about. Events have a bound: of a client that does
//! not read, the later ones are dropped, and it is told how many. Knows no connection.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::events::Kind;
use crate::control::operator::Event;

/// Most events that wait for a client.
pub(super) const MOST_EVENTS: usize = 1024;

/// A line on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Answer(String),
    Event(String),
}

impl Line {
    pub fn text(&self) -> &str {
        match self {
            Self::Answer(text) | Self::Event(text) => text,
        }
    }
}

/// The lines on their way to one client.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// How many of `lines` are events.
    events: usize,
    /// Events for which there was no room, since the client was last told.
    dropped: u64,
    /// The events that the client wants.
    wanted: Vec<Kind>,
    /// Answers that are not sent yet.
    unsent: usize,
    /// When it was closed.
    closed: Option<Instant>,
}

impl State {
    fn put_event(&mut self, text: String) {
        self.lines.push_back(Line::Event(text));
        self.events += 1;
    }

    fn tell_dropped(&mut self) {
        let count = std::mem::take(&mut self.dropped);
        let told = json!({ "event": "dropped", "count": count });
        self.put_event(told.to_string());
    }
}

impl Outbox {
    /// From now on the client wants these events, in place of those before.
    pub fn want(&self, kinds: Vec<Kind>) {
        self.state().wanted = kinds;
    }

    /// Whether the client wants events of this kind.
    pub fn wants(&self, kind: Kind) -> bool {
        self.state().wanted.contains(&kind)
    }

    /// Whether the client wants any events.
    pub fn wants_any(&self) -> bool {
        !self.state().wanted.is_empty()
    }

    /// Something has happened, of which `line` tells.
    pub fn hear(&self, event: &Event, line: &str) {
        let mut state = self.state();
        if state.closed.is_some() || !state.wanted.contains(&Kind::of(event)) {
            return;
        }
        // Once events were dropped there has to be some room, or each that is sent would be
        // followed by a line that says what was dropped.
        let room = if state.dropped == 0 {
            MOST_EVENTS
        } else {
            MOST_EVENTS / 2
        };
        if state.events >= room {
            state.dropped += 1;
            return;
        }
        if state.dropped > 0 {
            state.tell_dropped();
        }
        state.put_event(line.to_owned());
        self.changed.notify_all();
    }

    /// Puts in an answer.
    pub fn answer(&self, text: String) {
        let mut state = self.state();
        state.lines.push_back(Line::Answer(text));
        state.unsent += 1;
        self.changed.notify_all();
    }

    /// Waits until every answer is sent, and returns whether they are, at most for `limit`.
    pub fn wait_answered(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| state.unsent > 0 && state.closed.is_none();
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), limit, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        state.unsent == 0
    }

    /// The next line to send, which is waited for; `None` once the outbox is closed and empty.
    pub fn next(&self) -> Option<Line> {
        let mut state = self.state();
        loop {
            if state.lines.is_empty() && state.dropped > 0 {
                state.tell_dropped();
            }
            if let Some(line) = state.lines.pop_front() {
                state.events -= usize::from(matches!(line, Line::Event(_)));
                return Some(line);
            }
            if state.closed.is_some() {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An answer that was taken by [`Outbox::next`] has been sent.
    pub fn answer_sent(&self) {
        self.state().unsent -= 1;
        self.changed.notify_all();
    }

    /// Nothing more is put in; what is in it is still sent.
    pub fn close(&self) {
        self.state().closed.get_or_insert_with(Instant::now);
        self.changed.notify_all();
    }

    /// How long it has been closed, if it is.
    pub fn closed_for(&self) -> Option<Duration> {
        self.state().closed.map(|closed| closed.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Event {
        Event::Ended { why: String::new() }
    }

    #[test]
    fn only_what_is_wanted_is_put_in_and_in_order() {
        let outbox = Outbox::default();
        outbox.hear(&ended(), "unheard");
        outbox.want(vec![Kind::Ended]);
        outbox.hear(&ended(), "first");
        outbox.answer("second".to_owned());
        outbox.hear(&ended(), "third");
        outbox.want(vec![Kind::Held]);
        outbox.hear(&ended(), "unheard");
        outbox.close();
        let all: Vec<_> = std::iter::from_fn(|| outbox.next()).collect();
        let texts: Vec<_> = all.iter().map(Line::text).collect();
        assert_eq!(texts, ["first", "second", "third"]);
    }

    #[test]
    fn a_client_that_does_not_read_is_told_what_was_dropped() {
        let outbox = Outbox::default();
        outbox.want(vec![Kind::Ended]);
        for number in 0..MOST_EVENTS + 10 {
            outbox.hear(&ended(), &number.to_string());
        }
        assert_eq!(outbox.state().lines.len(), MOST_EVENTS);
        // With little room nothing is put in, so that one line tells of all that was dropped.
        for _ in 0..MOST_EVENTS / 2 {
            outbox.next();
            outbox.hear(&ended(), "dropped too");
        }
        outbox.next();
        outbox.hear(&ended(), "heard");
        outbox.close();
        let rest: Vec<_> = std::iter::from_fn(|| outbox.next()).collect();
        let texts: Vec<_> = rest.iter().map(Line::text).collect();
        let count = 10 + MOST_EVENTS / 2;
        let told = format!("{{\"count\":{count},\"event\":\"dropped\"}}");
        assert_eq!(&texts[texts.len() - 2..], [told.as_str(), "heard"]);
        assert_eq!(
            texts.iter().filter(|text| text.contains("event")).count(),
            1
        );
    }

    #[test]
    fn what_was_dropped_last_is_told_at_the_end() {
        let outbox = Outbox::default();
        outbox.want(vec![Kind::Ended]);
        for _ in 0..=MOST_EVENTS {
            outbox.hear(&ended(), "x");
        }
        outbox.close();
        let last = std::iter::from_fn(|| outbox.next()).last().unwrap();
        assert!(last.text().contains("\"count\":1"), "{last:?}");
    }

    #[test]
    fn an_answer_is_waited_for_until_it_is_sent() {
        let outbox = Outbox::default();
        outbox.answer("it".to_owned());
        assert!(!outbox.wait_answered(Duration::ZERO));
        outbox.next().unwrap();
        assert!(!outbox.wait_answered(Duration::ZERO));
        outbox.answer_sent();
        assert!(outbox.wait_answered(Duration::ZERO));
    }
}
