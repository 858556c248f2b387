//! How runs end in every form of the report, and which sentence says so.

use super::Report;
use crate::control::operator::{Expected, StartCounts, VmmIpiCounts};
use crate::control::{Ending, RunResult, StallSummary};
use crate::kernel_log::KernelLog;
use crate::lab::Lab;
use crate::lab::counts::tests::{
    DEPARTED, EMPTY, LONGEST, RECEIVED, SENT, SENT_OTHERWISE, TARGETS, VISITS, manifest,
};
use crate::lab::oracles::tests::{LOST, WRONG_CPU};
use crate::machine::devices::Strays;
use crate::machine::exit::Death;
use crate::machine::inspect::{Activity, VcpuDump};
use crate::machine::lifecycle::StallTotals;
use crate::machine::pause_latency::PauseLatency;
use crate::provenance::{Input, Provenance};
use crate::stats::sources::Kvm;
use crate::stats::window::Window;
use crate::verdict::{self, Kind, Verdict};
use shared::exit::ExitCode;
use shared::lab::{Counters, Finding, Header, Layout, MAX_FINDINGS};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const CPUS: u32 = 3;

fn ended(ending: Ending) -> RunResult {
    RunResult {
        kernel_log: KernelLog::default(),
        has_lab: true,
        trace: None,
        vmm_ipis: VmmIpiCounts::default(),
        console: String::new(),
        ending,
        ended: Instant::now(),
        window: Window::empty(),
        stall_totals: Vec::new(),
        debugged_totals: Vec::new(),
        pause_latency: None,
        stalls: StallSummary::default(),
        dumps: Vec::new(),
        expected: Expected::default(),
        sources: Vec::new(),
        uncounted: None,
        blind: None,
        strays: Strays::default(),
        console_loss: None,
        vcpus: CPUS,
    }
}

fn report_on(run_result: &RunResult, lab: &Lab) -> Report {
    let guest = Input::new(Path::new("guest.bin"), b"");
    let provenance = Provenance::new(Kvm::Unknown, guest, CPUS, "");
    let judgement = verdict::judge(run_result, lab);
    let verdict = Verdict::on(run_result, &judgement, None);
    Report::new(run_result, lab, judgement, &verdict, provenance)
}

fn exited(code: ExitCode) -> RunResult {
    ended(Ending::GuestExit {
        vcpu: 1,
        code: code as u32,
    })
}

fn lab(guest: impl FnOnce(&mut Header)) -> Lab {
    let layout = Layout::new(CPUS).unwrap();
    let size = usize::try_from(layout.size).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
    let lab = Lab::prepare(memory.clone(), 0, layout).unwrap();
    let lab = lab.knowing(manifest());
    let mut header = layout.header();
    guest(&mut header);
    memory
        .write_slice(header.as_bytes(), GuestAddress(0))
        .unwrap();
    lab
}

fn all_up() -> Lab {
    lab(|header| header.cpus_online = CPUS)
}

#[test]
fn a_pass_is_believed_only_if_everything_bears_it_out() {
    let pass = exited(ExitCode::Pass);
    let kind = |lab: &Lab| report_on(&pass, lab).result;
    assert_eq!(kind(&all_up()), Kind::Pass);
    assert_eq!(
        kind(&lab(|_| ())),
        Kind::Pass,
        "a guest that does not use the lab"
    );
    assert_eq!(kind(&lab(|header| header.cpus_online = 2)), Kind::Fail);
    let with_finding = lab(|header| {
        header.cpus_online = CPUS;
        header.findings_made = 1;
    });
    assert_eq!(kind(&with_finding), Kind::NotBelieved);
    let with_finding_alone = lab(|header| header.findings_made = 1);
    assert_eq!(kind(&with_finding_alone), Kind::NotBelieved);
    let too_many = lab(|header| header.cpus_online = u32::MAX);
    let report = report_on(&pass, &too_many);
    assert_eq!((report.result, report.exit_status), (Kind::NotBelieved, 1));
    assert_eq!(report.cpus_online, None);
    assert_eq!(report.contradictions_made, 1);
    assert!(report.table().contains("4294967295 CPUs came up, of 3\n"));
    // The lab is not believed either if the guest says that it failed, or cannot go on.
    let fail = exited(ExitCode::Fail);
    assert_eq!(report_on(&fail, &too_many).result, Kind::NotBelieved);
    let report = report_on(&exited(ExitCode::BadMachine), &too_many);
    assert_eq!(report.message, "the guest cannot use this machine");
}

#[test]
fn every_ending_has_the_status_of_its_kind() {
    let status = |run_result: &RunResult| report_on(run_result, &all_up()).exit_status;
    assert_eq!(status(&exited(ExitCode::Pass)), 0);
    assert_eq!(status(&exited(ExitCode::Fail)), 1);
    assert_eq!(status(&exited(ExitCode::BadOptions)), 2);
    assert_eq!(status(&exited(ExitCode::Panic)), 4);
    assert_eq!(status(&exited(ExitCode::BadMachine)), 4);
    assert_eq!(
        status(&ended(Ending::GuestExit {
            vcpu: 0,
            code: 0x99
        })),
        4
    );
    assert_eq!(
        status(&ended(Ending::Dead {
            vcpu: 0,
            death: Death::TripleFault
        })),
        4
    );
    assert_eq!(status(&ended(Ending::Panicked { vcpu: 0 })), 4);
    assert_eq!(status(&ended(Ending::TimeOut(Duration::from_secs(1)))), 5);
    assert_eq!(
        status(&ended(Ending::NoProgress(Duration::from_secs(1)))),
        5
    );
    assert_eq!(status(&ended(Ending::Signal(2))), 130);
    assert_eq!(status(&ended(Ending::Signal(15))), 143);
}

#[test]
fn the_document_has_its_keys_without_any_statistics() {
    let report = report_on(&exited(ExitCode::Pass), &all_up());
    let document = report.json().unwrap();
    assert_eq!(document.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(json["schema"], "ipi-lab/3");
    assert_eq!(json["result"], "pass");
    assert_eq!(json["exit_status"], 0);
    assert_eq!(json["vcpus"], CPUS);
    assert_eq!(json["ipi"]["exits_per_ipi"], serde_json::Value::Null);
    let why = json["ipi"]["exits_unknown"].as_str().unwrap();
    assert!(
        report
            .table()
            .contains(&format!("exits/IPI  not known ({why})"))
    );
    assert_eq!(json["provenance"]["guest"]["name"], "guest.bin");
    assert_eq!(json["provenance"]["words"], serde_json::Value::Null);
    assert_eq!(json["ipi"]["by_transport"]["x2apic"], 0);
    assert_eq!(json["per_vcpu"][2]["id"], 2);
    assert_eq!(json["stalls"], serde_json::Value::Null);
    assert_eq!(json["findings"], serde_json::json!([]));
    assert!(report.table().contains("vCPUs      3\n"));
}

#[test]
fn stalls_are_reported_with_what_came_of_them() {
    let run_result = RunResult {
        stall_totals: [(0, 0), (3, 200), (1, 100)]
            .map(|(times, millis)| StallTotals {
                times,
                total: Duration::from_millis(millis),
            })
            .to_vec(),
        pause_latency: Some(PauseLatency {
            count: 4,
            min: Duration::from_micros(20),
            median: Duration::from_micros(40),
            p99: Duration::from_millis(5),
            max: Duration::from_millis(6),
        }),
        stalls: StallSummary {
            asked: true,
            time: Some(Duration::from_secs(1)),
            missed: vec!["cpu=2,at=1h,for=5ms".parse().unwrap()],
        },
        ..exited(ExitCode::Pass)
    };
    let report = report_on(&run_result, &all_up());
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let stalls = &json["stalls"];
    assert_eq!(stalls["count"], 4);
    assert_eq!(stalls["latency"]["median_seconds"], 40e-6);
    assert_eq!(stalls["per_vcpu"][1]["id"], 2);
    assert_eq!(stalls["missed"][0], "cpu=2,at=1h,for=5ms");
    let table = report.table();
    for line in [
        "stalls     4 of CPUs 1-2, away 15.0 % of the time\n",
        "           confirmed after 40 µs (median), 5.0 ms (99 in 100), 6.0 ms at most\n",
        "note: the run was over before --stall 'cpu=2,at=1h,for=5ms' began\n",
    ] {
        assert!(table.contains(line), "{line}{table}");
    }
}

#[test]
fn a_guest_without_a_workload_is_not_stalled() {
    let run_result = RunResult {
        stalls: StallSummary {
            asked: true,
            ..StallSummary::default()
        },
        ..exited(ExitCode::Pass)
    };
    let table = report_on(&run_result, &all_up()).table();
    assert!(table.contains("note: no vCPU was stalled: "), "{table}");
}

/// A lab whose first CPU has counted this.
fn counted(counters: Counters) -> Lab {
    let layout = Layout::new(CPUS).unwrap();
    let size = usize::try_from(layout.size).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
    let lab = Lab::prepare(memory.clone(), 0, layout).unwrap();
    let lab = lab.knowing(manifest());
    let at = GuestAddress(layout.counters.offset);
    memory.write_slice(counters.as_bytes(), at).unwrap();
    lab
}

fn dump(vcpu: u32, requested: &[u8], in_service: &[u8]) -> VcpuDump {
    VcpuDump {
        vcpu,
        activity: Activity::Halted,
        stalled: None,
        regs: Default::default(),
        fault_address: 0,
        page_tables: 0,
        requested: requested.to_vec(),
        in_service: in_service.to_vec(),
        code: Vec::new(),
        callers: Vec::new(),
    }
}

#[test]
fn every_ipi_is_accounted_for() {
    let mut counters = Counters::default();
    for (number, value) in [
        (TARGETS, 100),
        (SENT, 27),
        (SENT_OTHERWISE, 3),
        (RECEIVED, 40),
        (EMPTY, 6),
    ] {
        counters.words[number as usize] = value;
    }
    let run_result = RunResult {
        vmm_ipis: VmmIpiCounts {
            added: 9,
            lost: 2,
            dropped: 1,
            to_nobody: 5,
            in_flight: 3,
            starts: StartCounts {
                sent: 70,
                lost: 40,
                in_flight: 7,
            },
        },
        dumps: vec![
            dump(0, &[], &[]),
            dump(1, &[0xfb, 0xfc], &[0xfd]),
            dump(2, &[0xfc], &[]),
        ],
        ..exited(ExitCode::Pass)
    };
    let report = |counters, run_result: &RunResult| report_on(run_result, &counted(counters));
    let ipi = report(counters, &run_result).ipi.unwrap();
    assert_eq!((ipi.sent, ipi.targets, ipi.received), (30, 100, 40));
    assert_eq!((ipi.added, ipi.lost, ipi.in_flight), (9, 2, 3));
    assert_eq!((ipi.dropped, ipi.to_nobody), (1, 5));
    // These are counted by themselves, and do not change what is left of the others.
    let starts = &ipi.starts;
    assert_eq!((starts.sent, starts.lost, starts.in_flight), (70, 40, 7));
    assert_eq!((ipi.pending, ipi.entering), (3, 1));
    assert_eq!(ipi.coalesced, Some(100 + 9 - 40 - 2 - 1 - 5 - 3 - 3));
    let table = report(counters, &run_result).table();
    let line = "not received: 55 coalesced, 2 lost, 1 dropped by the local APIC of a CPU that was \
                being started, 5 to CPUs that do not exist, 3 on the wire, 3 pending; 9 added by \
                the VMM\n";
    assert!(table.contains(line), "{table}");

    // Nothing is said where it cannot be known: a CPU that came back online has dropped what was
    // pending; in a run that was cut off senders may not have counted yet; a CPU that could not be
    // inspected may have anything pending.
    let mut came_back = counters;
    came_back.words[DEPARTED as usize] = 1;
    assert_eq!(report(came_back, &run_result).ipi.unwrap().coalesced, None);
    let cut_off = RunResult {
        ending: Ending::TimeOut(Duration::from_secs(1)),
        ..run_result
    };
    assert_eq!(report(counters, &cut_off).ipi.unwrap().coalesced, None);
    assert!(report(counters, &cut_off).time_limit_reached);
    let unseen = exited(ExitCode::Pass);
    assert_eq!(report(counters, &unseen).ipi.unwrap().coalesced, None);
    assert!(!report(counters, &unseen).time_limit_reached);
    // Nor where the counts contradict each other.
    let mut made_up = counters;
    made_up.words[RECEIVED as usize] = 1000;
    let run_result = RunResult {
        ending: exited(ExitCode::Pass).ending,
        ..cut_off
    };
    assert_eq!(
        report(counters, &run_result).ipi.unwrap().coalesced,
        Some(55)
    );
    assert_eq!(report(made_up, &run_result).ipi.unwrap().coalesced, None);
}

#[test]
fn what_was_expected_hides_nothing_that_comes_after_many_findings() {
    let layout = Layout::new(CPUS).unwrap();
    let size = usize::try_from(layout.size).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
    let lab = Lab::prepare(memory.clone(), 0, layout).unwrap();
    let lab = lab.knowing(manifest());
    let kept = u64::from(MAX_FINDINGS);
    let write = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    for index in 0..kept {
        let lost = Finding {
            oracle: LOST,
            ..Finding::default()
        };
        write(layout.findings.entry(index).unwrap(), lost.as_bytes());
    }
    let found = |oracle: u32, count: u64| {
        write(layout.found.entry(oracle.into()).unwrap(), count.as_bytes());
    };
    let made = |count: u32| {
        write(
            std::mem::offset_of!(Header, findings_made) as u64,
            count.as_bytes(),
        );
    };
    found(LOST, kept);
    made(MAX_FINDINGS);
    let mut expected = Expected::default();
    expected.must("lost");
    let run_result = RunResult {
        expected,
        ..exited(ExitCode::Fail)
    };
    let report = report_on(&run_result, &lab);
    assert_eq!(report.message, "as expected: lost");
    assert_eq!(report.result, Kind::Pass);

    found(WRONG_CPU, 1);
    made(MAX_FINDINGS + 1);
    let report = report_on(&run_result, &lab);
    assert_eq!(report.result, Kind::Fail);
    assert_eq!(report.message, "found beside what was expected: wrong-cpu");
    // Every form of the report says so.
    assert!(
        report
            .table()
            .contains("found by the guest, 64 lost, 1 wrong-cpu: 65\n")
    );
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!(json["findings_by_oracle"]["wrong-cpu"], 1);
    assert_eq!(json["findings"][0]["oracle"], "lost");
    let machines = [(&report, &run_result.window)];
    let text = crate::report::prometheus::render(machines.into_iter()).unwrap();
    assert!(text.contains("findings_by_oracle_total{oracle=\"wrong-cpu\"} 1\n"));
    // Oracles that found nothing are there too, so that a missing one is not taken for one of them.
    assert!(text.contains("findings_by_oracle_total{oracle=\"torn\"} 0\n"));
    assert!(text.contains("breaches_by_oracle_total{oracle=\"accounting\"} 0\n"));
    let text = report.findings[0].text.as_str();
    assert_eq!(text, "the guest never ran on a target (seen on CPU 0: 0x0)");

    // A guest that declares no oracles is judged all the same, with its oracles' numbers as names.
    let nameless = lab.knowing(Arc::default());
    let report = report_on(&run_result, &nameless);
    assert_eq!(report.message, "nothing was lost, as was expected");
    let report = report_on(&exited(ExitCode::Pass), &nameless);
    assert_eq!(report.result, Kind::Fail);
    let said = "65 findings of its own: 64 oracle-1, 1 oracle-3";
    assert!(report.message.ends_with(said), "{}", report.message);
    assert_eq!(report.findings[0].oracle, "oracle-1");
    let said = "the guest broke oracle-1, of which the guest's image says nothing";
    assert!(report.findings[0].text.starts_with(said));
}

#[test]
fn what_the_guest_counts_is_told_by_the_names_that_it_gives() {
    let mut counters = Counters::default();
    counters.words[VISITS as usize] = 5;
    counters.words[LONGEST as usize] = 3;
    let run_result = exited(ExitCode::Pass);
    let report = report_on(&run_result, &counted(counters));
    let line = "walks      stood on 5, the longest 3\n";
    assert!(report.table().contains(line), "{}", report.table());
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!(
        json["walks"],
        serde_json::json!({"visits": 5, "longest": 3})
    );
    let machines = [(&report, &run_result.window)];
    let text = crate::report::prometheus::render(machines.into_iter()).unwrap();
    // A name that the VMM uses itself stays its own.
    assert!(text.contains("\nipi_lab_calls_total 0\n"));
    assert!(text.contains("\nipi_lab_vcpus 3\n"));
    let sum = "# TYPE ipi_lab_guest_calls_total counter\nipi_lab_guest_calls_total 5\n";
    assert!(text.contains(sum), "{text}");
    let most = "# TYPE ipi_lab_guest_vcpus gauge\nipi_lab_guest_vcpus 3\n";
    assert!(text.contains(most), "{text}");
}
