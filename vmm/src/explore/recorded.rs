//! A case from a run that failed: what each CPU did around the failure, as deeds that a search can
//! put into another order. It is read from the ledger, in which every CPU has entered the calls that it
//! has made, and the deeds besides that the guest enters there. Needs no machine.

use std::fmt::Write;

use shared::ledger::{CallId, Lane};
use shared::manifest::{Argument, Search};

use crate::cpus::CpuSet;
use crate::explore::options::key;
use crate::lab::call_name::CallName;
use crate::lab::command::Command;
use crate::lab::judgement::Judgement;
use crate::lab::oracles::{self, Property};
use crate::lab::{Lab, Record};
use crate::manifest::{Deed, Manifest};

/// Why no case was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// Nothing failed.
    #[error("nothing has failed, so that there is no case to record")]
    NothingFailed,
    /// The guest was told of no lab.
    #[error(
        "the guest was told of no lab, so that no call of it is known, and no case can be recorded"
    )]
    NoLab,
    /// The guest does not say by which of its deeds it makes calls.
    #[error(
        "the guest does not say which of its deeds make the calls of its ledger (flag 64 of a deed, \
         docs/manifest.md), so that no case can be recorded"
    )]
    NoDeeds,
    /// The ledger holds no call that a task has made.
    #[error("the ledger has no call that a task has made, so that there is no case to record")]
    NoCalls,
}

/// The deeds by which a guest makes calls to one CPU, and to several.
struct CallDeeds<'a> {
    manifest: &'a Manifest,
    one: Option<&'a Deed>,
    several: Option<&'a Deed>,
}

impl<'a> CallDeeds<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let with = |arguments: &[Argument]| {
            let mut deeds = manifest.deeds.iter();
            deeds.find(|it| it.enters_call && it.in_case && it.arguments == arguments)
        };
        Self {
            manifest,
            one: with(&[Argument::Cpu]),
            several: with(&[Argument::Cpus]),
        }
    }

    /// The deed of `record`, or the one that makes its call, as a command. A CPU that is among several
    /// targets of its own call runs the function itself, which concerns nobody else.
    fn command(&self, record: &Record) -> Option<Command> {
        if !record.is_call() {
            let number = u32::from(record.head.deed);
            let mut deeds = self.manifest.deeds.iter();
            let deed = deeds.find(|it| it.number == number && it.in_case)?;
            let is_about_one = deed.arguments == [Argument::Cpu];
            let about = record.targets.iter().next().filter(|_| is_about_one)?;
            return Some(Command::about(deed.number, about));
        }
        let waits = record.head.wait != 0;
        let own: CpuSet = [record.row].into_iter().collect();
        let others = record.targets.without(&own);
        let targets = if others.is_empty() {
            &record.targets
        } else {
            &others
        };
        let mut each = targets.iter();
        let (first, second) = (each.next()?, each.next());
        let (deed, command) = match (second, self.one, self.several) {
            (None, Some(one), _) => (one, Command::about(one.number, first)),
            (_, _, Some(several)) => {
                let command = Command::among(several.number, targets.clone());
                (several, command)
            }
            _ => return None,
        };
        Some(command.waiting(waits && deed.may_wait))
    }
}

/// The call with which the failure that `judgement` says began, as far as it is known: of those that
/// are named the one that was made first. Otherwise the time of the first finding.
fn failure(lab: &Lab, judgement: &Judgement) -> (Option<CallId>, u64) {
    let found = judgement
        .findings
        .iter()
        .map(|it| CallId::from_raw(it.call));
    let breached = judgement.breaches.first.iter().filter_map(|it| it.call);
    let open = judgement.open.first.iter();
    let open = open.map(|it| CallId::from_raw(it.0.head.id));
    let calls = found.chain(breached).chain(open);
    let made = calls.filter_map(|call| Some((lab.record(call)?.head.made_tsc, call)));
    match made.min_by_key(|(made, _)| *made) {
        Some((made, call)) => (Some(call), made),
        None => {
            let times = judgement.findings.iter().map(|finding| finding.tsc);
            (None, times.min().unwrap_or(u64::MAX))
        }
    }
}

/// Of `records`, in their order, the `most` nearest to `time`: half of them made until then, as far as
/// there are so many, and the others after it.
fn nearest(mut records: Vec<Record>, time: u64, most: usize) -> Vec<Record> {
    records.sort_by_key(|record| CallId::from_raw(record.head.id).sequence());
    let until = records
        .iter()
        .filter(|record| record.head.made_tsc <= time)
        .count();
    let later = records.len() - until;
    let before = until.min(most.div_ceil(2).max(most.saturating_sub(later)));
    let start = until - before;
    records.into_iter().skip(start).take(most).collect()
}

/// What `judgement` says is broken, and what `besides` is, as names that a case can expect.
fn expected(judgement: &Judgement, besides: &[&str], manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<String> = judgement.oracles().into_iter().map(str::to_owned).collect();
    if besides.contains(&"hang") && !judgement.open.first.is_empty() {
        names.push(Property::Lost.name().to_owned());
    }
    names.retain(|name| oracles::check(manifest, name).is_ok());
    names.extend(besides.iter().map(|name| (*name).to_owned()));
    names.sort();
    names.dedup();
    names
}

/// The words of `append` that decide something in a search.
fn words(append: &str, manifest: &Manifest) -> String {
    let decides = |word: &&str| {
        let mut options = manifest.options.iter();
        options.any(|it| it.name == key(word) && it.search == Search::Decides)
    };
    let words: Vec<_> = append.split_whitespace().filter(decides).collect();
    words.join(" ")
}

/// The case of a run that failed, of whose guest this is the lab: of each CPU the `most` calls of its
/// task that were made nearest to the failure. `besides` are names of what broke and is no oracle's;
/// `append` is what the guest was given.
///
/// # Errors
/// [`NotRecorded`] if there is nothing to record.
pub fn case(
    lab: &Lab,
    judgement: &Judgement,
    besides: &[&str],
    append: &str,
    most: usize,
) -> Result<String, NotRecorded> {
    let manifest = lab.manifest();
    let expected = expected(judgement, besides, manifest);
    if expected.is_empty() {
        return Err(match lab.is_told() {
            true => NotRecorded::NothingFailed,
            false => NotRecorded::NoLab,
        });
    }
    let deeds = CallDeeds::of(manifest);
    if deeds.one.is_none() && deeds.several.is_none() {
        return Err(NotRecorded::NoDeeds);
    }
    let (call, time) = failure(lab, judgement);
    let mut rows: Vec<Vec<Record>> = vec![Vec::new(); lab.cpus() as usize];
    for record in lab.records_and_deeds() {
        let id = CallId::from_raw(record.head.id);
        if id.lane() == Lane::Task
            && u32::from(id.source()) == record.row
            && let Some(row) = rows.get_mut(record.row as usize)
        {
            row.push(record);
        }
    }
    let mut text = String::new();
    let around = match call {
        Some(call) => format!("the moment at which {} was made", CallName(call)),
        None if time == u64::MAX => "the end of the run".to_owned(),
        None => "the first finding".to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "# Recorded from a run that failed ({}): up to {most} deeds of each CPU, those done nearest to\n\
         # {around}.\ncpus {}",
        expected.join(", "),
        lab.cpus()
    );
    let words = words(append, manifest);
    if !words.is_empty() {
        let _ = writeln!(text, "append {words}");
    }
    let mut are_any = false;
    for (cpu, row) in rows.into_iter().enumerate() {
        let commands = nearest(row, time, most);
        let commands = commands.iter().filter_map(|record| deeds.command(record));
        let said: Vec<_> = commands.map(|command| manifest.words(&command)).collect();
        if !said.is_empty() {
            are_any = true;
            let _ = writeln!(text, "{cpu}: {}", said.join("; "));
        }
    }
    let _ = writeln!(text, "expect {}", expected.join(", "));
    if are_any {
        Ok(text)
    } else {
        Err(NotRecorded::NoCalls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ledger::RecordHead;

    fn record(row: u32, sequence: u64, made: u64, targets: &[u32]) -> Record {
        let id = CallId::new(row as u16, 0, Lane::Task, sequence);
        Record {
            row,
            index: 0,
            head: RecordHead {
                id: id.raw(),
                made_tsc: made,
                wait: u16::from(sequence == 2),
                ..RecordHead::default()
            },
            targets: targets.iter().copied().collect(),
            ran: CpuSet::default(),
        }
    }

    #[test]
    fn the_calls_nearest_to_the_failure_are_taken() {
        let all = || (1..=6).map(|number| record(0, number, 10 * number, &[1]));
        let chosen = |time, most| -> Vec<u64> {
            let records = nearest(all().rev().collect(), time, most);
            let ids = records.iter().map(|it| CallId::from_raw(it.head.id));
            ids.map(CallId::sequence).collect()
        };
        assert_eq!(chosen(30, 4), [2, 3, 4, 5]);
        assert_eq!(chosen(30, 3), [2, 3, 4]);
        assert_eq!(chosen(60, 4), [3, 4, 5, 6], "the last of them");
        assert_eq!(chosen(u64::MAX, 2), [5, 6]);
        assert_eq!(chosen(0, 2), [1, 2]);
        assert_eq!(chosen(30, 99), [1, 2, 3, 4, 5, 6]);
        assert!(chosen(30, 0).is_empty());
    }

    #[test]
    fn a_call_is_made_by_the_deed_for_as_many_cpus() {
        let deed = |number, arguments: &[Argument]| {
            use shared::manifest::{ENTERS_CALL, IN_CASE, MAY_WAIT, Record};
            let name = if arguments == [Argument::Cpu] {
                "one"
            } else {
                "some"
            };
            Record::deed(number, name, arguments, "").with(IN_CASE | MAY_WAIT | ENTERS_CALL)
        };
        use shared::manifest::{IN_CASE, Record as Said};
        let manifest = Manifest::saying(&[
            deed(1, &[Argument::Cpu]),
            deed(3, &[Argument::Cpus]),
            Said::deed(9, "offline", &[Argument::Cpu], "").with(IN_CASE),
        ]);
        let deeds = CallDeeds::of(&manifest);
        let said = |record: Record| {
            let command = deeds.command(&record)?;
            Some(manifest.words(&command))
        };
        assert_eq!(said(record(0, 1, 0, &[2])).unwrap(), "one 2");
        assert_eq!(said(record(0, 2, 0, &[1, 2])).unwrap(), "some 1-2 wait");
        assert_eq!(said(record(0, 1, 0, &[0, 2])).unwrap(), "one 2");
        assert_eq!(said(record(0, 1, 0, &[0])).unwrap(), "one 0");
        assert_eq!(said(record(0, 1, 0, &[])), None);
        let besides = |number| {
            let mut besides = record(0, 1, 0, &[2]);
            besides.head.deed = number;
            besides
        };
        assert_eq!(said(besides(9)).unwrap(), "offline 2");
        assert_eq!(said(besides(3)), None, "that is about several CPUs");
        assert_eq!(said(besides(10)), None);
        let nothing = Manifest::saying(&[]);
        let none = CallDeeds::of(&nothing);
        assert!(none.one.is_none() && none.command(&record(0, 1, 0, &[1])).is_none());
    }
}
