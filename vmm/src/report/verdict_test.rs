use super::*;
use crate::control::Carried;
use crate::control::operator::Expected;
use crate::machine::devices::Strays;
use crate::machine::lifecycle::Absence;
use crate::machine::pausing::Latency;
use crate::machine::vcpu::Death;
use crate::report::Report;
use crate::stats::window::Window;
use shared::lab::{Header, Layout};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const CPUS: u32 = 3;

fn ended(ending: Ending) -> Aftermath {
    Aftermath {
        trace: None,
        console: String::new(),
        ending,
        window: Window::empty(),
        absences: Vec::new(),
        pause_latency: None,
        stalls: Carried::default(),
        standings: Vec::new(),
        expected: Expected::default(),
        blind: None,
        strays: Strays::default(),
        console_loss: None,
        vcpus: CPUS,
    }
}

fn exited(code: ExitCode) -> Aftermath {
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
    let kind = |lab: &Lab| Verdict::on(&pass, lab).kind;
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
    assert_eq!(kind(&with_finding), Kind::Fail);
}

#[test]
fn every_ending_has_the_status_of_its_kind() {
    let status = |aftermath: &Aftermath| Verdict::on(aftermath, &all_up()).exit_status();
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
    let report = Report::new(&exited(ExitCode::Pass), &all_up());
    let document = report.json().unwrap();
    assert_eq!(document.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(json["schema"], "ipi-lab/1");
    assert_eq!(json["result"], "pass");
    assert_eq!(json["exit_status"], 0);
    assert_eq!(json["vcpus"], CPUS);
    assert_eq!(json["ipi"]["exits_per_ipi"], serde_json::Value::Null);
    assert_eq!(json["ipi"]["by_transport"]["x2apic"], 0);
    assert_eq!(json["per_vcpu"][2]["id"], 2);
    assert_eq!(json["stalls"], serde_json::Value::Null);
    assert_eq!(json["findings"], serde_json::json!([]));
    assert!(report.table().contains("vCPUs      3\n"));
}

#[test]
fn stalls_are_reported_with_what_came_of_them() {
    let aftermath = Aftermath {
        absences: [(0, 0), (3, 200), (1, 100)]
            .map(|(times, millis)| Absence {
                times,
                total: Duration::from_millis(millis),
            })
            .to_vec(),
        pause_latency: Some(Latency {
            count: 4,
            min: Duration::from_micros(20),
            median: Duration::from_micros(40),
            p99: Duration::from_millis(5),
            max: Duration::from_millis(6),
        }),
        stalls: Carried {
            asked: true,
            time: Some(Duration::from_secs(1)),
            missed: vec!["cpu=2,at=1h,for=5ms".parse().unwrap()],
        },
        ..exited(ExitCode::Pass)
    };
    let report = Report::new(&aftermath, &all_up());
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
    let aftermath = Aftermath {
        stalls: Carried {
            asked: true,
            ..Carried::default()
        },
        ..exited(ExitCode::Pass)
    };
    let table = Report::new(&aftermath, &all_up()).table();
    assert!(table.contains("note: no vCPU was stalled: "), "{table}");
}
