//! The results of a run: its verdict, and each oracle.

use std::collections::{BTreeMap, BTreeSet};

use super::{CameTo, Suite, Test, VERDICT};
use crate::report::Report;
use crate::verdict::Kind;

/// The results of the run that `report` is on, in a suite called `name`. `post_mortem` says where
/// the vCPUs stood if it did not end well.
pub fn of_run(name: String, report: &Report, post_mortem: &str) -> Suite {
    let verdict = Test {
        remarks: post_mortem.lines().map(str::to_owned).collect(),
        ..Test::new(VERDICT, verdict(report))
    };
    let mut known = BTreeSet::new();
    let oracles = report.oracles.iter().filter(|it| known.insert(*it));
    let oracles = oracles.map(|oracle| of_oracle(report, oracle));
    let facts = report.provenance.facts().into_iter();
    Suite {
        name,
        date: Some(report.provenance.date.clone()),
        seconds: report.boot_seconds.unwrap_or(0.0) + report.run_seconds,
        facts: facts
            .map(|(name, fact)| (name.to_owned(), fact))
            .chain([("vCPUs".to_owned(), report.vcpus.to_string())])
            .collect(),
        tests: [verdict].into_iter().chain(oracles).collect(),
    }
}

fn verdict(report: &Report) -> CameTo {
    let message = report.message.clone();
    match report.result {
        Kind::Pass => CameTo::Passed,
        Kind::Fail | Kind::NotBelieved => CameTo::Failed(message),
        Kind::Stalled => CameTo::TimedOut(message),
        Kind::Died | Kind::BadOptions | Kind::BadScript => CameTo::Error(message),
        // A client of the control socket may end a run, and that is no failure.
        Kind::Interrupted if report.exit_status == 0 => CameTo::Skipped(message),
        Kind::Interrupted => CameTo::Error(message),
    }
}

/// Whether all that an oracle watches was seen to its end.
fn is_through(report: &Report) -> bool {
    match report.result {
        Kind::Pass => true,
        // The expectation of a script can fail in the middle.
        Kind::Fail => report.calls.is_none() || report.window == super::super::WINDOWS[0],
        _ => false,
    }
}

fn of_oracle(report: &Report, oracle: &str) -> Test {
    let by = |counts: &BTreeMap<String, u64>| counts.get(oracle).copied();
    // The guest and the VMM look at the same calls, each for itself.
    let found = by(&report.findings_by_oracle).max(by(&report.breaches_by_oracle));
    // Of a guest without a lab its kernel has found it.
    let found = found.max(by(&report.complaints_by_kind));
    let found = found.unwrap_or(0);
    let findings = report.findings.iter().filter(|it| it.oracle == oracle);
    let breaches = report.breaches.iter().filter(|it| it.oracle == oracle);
    let complaints = report.complaints.iter();
    let complaints = complaints.filter(|it| it.kind.name() == oracle);
    // The VMM's sentences first: they name all CPUs.
    let mut sentences: Vec<_> = breaches
        .map(|it| it.text.clone())
        .chain(findings.map(|it| it.text.clone()))
        .chain(complaints.map(ToString::to_string))
        .collect();
    sentences.dedup();
    let came_to = match (report.result, found) {
        (Kind::NotBelieved, _) => {
            CameTo::Skipped("what the guest has recorded is not to be believed".to_owned())
        }
        // What a run that passed has found was expected of it.
        (Kind::Pass, _) => CameTo::Passed,
        (_, 0) if is_through(report) => CameTo::Passed,
        (_, 0) => CameTo::Skipped(format!(
            "the run did not come to its end: {}",
            report.message
        )),
        (_, _) => CameTo::Failed(said(&sentences, found)),
    };
    let remarks = match &came_to {
        CameTo::Passed if found > 0 => [format!("found {found} times, which is no failure here")]
            .into_iter()
            .chain(sentences)
            .collect(),
        CameTo::Failed(_) => sentences,
        _ => Vec::new(),
    };
    Test {
        remarks,
        ..Test::new(format!("oracle.{oracle}"), came_to)
    }
}

/// The first sentence, and how many more times the oracle found something.
fn said(sentences: &[String], found: u64) -> String {
    match (sentences.first(), found) {
        (Some(first), 1) => first.clone(),
        (Some(first), _) => format!("{first}; found {found} times"),
        (None, _) => format!("found {found} times; no finding of it was kept"),
    }
}
