//! Tells the subscriber of a machine what happens, as it happens: a CPU is held, a deed is done, the
//! guest reports a finding, dies, or the machine ends. Takes the news from the vCPU threads and from
//! the event loop, and must never make either wait.

use std::fmt;
use std::sync::Arc;

use super::Operator;
use super::events::{Event, Subscriber};
use crate::control::ending::Ending;
use crate::lab::finding::sentence;
use crate::lab::oracles;
use crate::machine::message::HeldBy;

impl Operator {
    /// Tells `subscriber` from now on what happens. A machine has one; only the first counts.
    pub(in crate::control) fn subscribe(&self, subscriber: Arc<dyn Subscriber>) {
        let _ = self.announcer.subscriber.set(subscriber);
    }

    /// Tells of the findings that there are, or passes over them if nobody wants to know, so that
    /// whoever wants to know from now on is told those that come.
    pub(in crate::control) fn settle_findings(&self) {
        let subscriber = self.announcer.subscriber.get();
        if subscriber.is_some_and(|it| it.wants_findings()) {
            self.announce_findings();
        } else {
            let findings = self.lab.findings();
            let written = findings.iter().take_while(|it| it.oracle != 0);
            self.announcer.told().findings = written.count();
        }
    }

    /// A vCPU is held by this, or was a moment ago.
    pub(in crate::control) fn announce_hold(&self, cpu: u32, by: HeldBy) {
        let Some(subscriber) = self.announcer.subscriber.get() else {
            return;
        };
        let probe = match by {
            HeldBy::Point { point, .. } => self.probe_name(point).map(str::to_owned),
            _ => None,
        };
        subscriber.hear(&Event::Held { cpu, by, probe });
    }

    /// A vCPU says that it has done what it was told. The guest is not trusted: what is told is
    /// what its mailbox says, once for each command.
    pub(super) fn announce_done(&self, cpu: u32) {
        let Some(subscriber) = self.announcer.subscriber.get() else {
            return;
        };
        // Also orders the events of one CPU: only one thread at a time announces.
        let mut told = self.announcer.told();
        let Ok(index) = usize::try_from(cpu) else {
            return;
        };
        if told.done.len() <= index {
            told.done.resize(index + 1, 0);
        }
        while let Some(posted) = self.commands.posted(cpu, told.done[index] + 1) {
            let Some(done) = self.commands.done(posted) else {
                break;
            };
            told.done[index] += 1;
            subscriber.hear(&Event::Done {
                posted,
                deed: self.told(posted).to_owned(),
                answer: self.answer(posted, &done),
                done,
            });
        }
    }

    /// Looks whether the guest has reported anything. It gives no notice of that.
    pub(in crate::control) fn announce_findings(&self) {
        let Some(subscriber) = self.announcer.subscriber.get() else {
            return;
        };
        if !subscriber.wants_findings() {
            return;
        }
        let mut told = self.announcer.told();
        let made = usize::try_from(self.lab.header().findings_made).unwrap_or(usize::MAX);
        if made <= told.findings {
            return;
        }
        let findings = self.lab.findings();
        // The place of a finding is taken before it is written: it has no oracle then, and is
        // looked at again.
        let new = findings.into_iter().skip(told.findings);
        for finding in new.take_while(|finding| finding.oracle != 0) {
            told.findings += 1;
            subscriber.hear(&Event::Finding {
                oracle: oracles::name(self.manifest(), finding.oracle).to_string(),
                sentence: sentence(&finding, self.manifest()),
                finding,
            });
        }
    }

    /// The machine has ended so, or by an error.
    pub(in crate::control) fn announce_end(&self, ending: Option<&Ending>, why: &dyn fmt::Display) {
        self.announce_findings();
        let Some(subscriber) = self.announcer.subscriber.get() else {
            return;
        };
        if let Some((cpu, why)) = ending.and_then(Ending::death) {
            subscriber.hear(&Event::Died { cpu, why });
        }
        let why = why.to_string();
        subscriber.hear(&Event::Ended { why });
    }
}
