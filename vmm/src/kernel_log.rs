//! What the kernel of a guest says of itself on its console: that it has panicked, that a CPU hangs,
//! that a call to another CPU is not answered. These are the oracles of a guest without a lab. Knows
//! the words of Linux (the files are named at each), and nothing of consoles.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::Serialize;

/// Most characters of a line that are kept.
const LONGEST: usize = 500;
/// Most complaints that are kept of a run. All are counted.
const KEPT: usize = 256;

/// What a kernel can complain of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComplaintKind {
    /// It has panicked (`kernel/panic.c`).
    Panic,
    /// It has met a fault in its own code (`arch/x86/kernel/dumpstack.c`).
    Oops,
    /// A CPU does not schedule any more (`kernel/watchdog.c`).
    SoftLockup,
    /// A CPU takes no interrupts any more (`kernel/watchdog.c`).
    HardLockup,
    /// A CPU holds up RCU (`kernel/rcu/tree_stall.h`).
    RcuStall,
    /// A call to another CPU is not answered (`kernel/smp.c`).
    CsdLock,
    /// A task waits for too long (`kernel/hung_task.c`).
    HungTask,
    /// It has caught itself at what must not be (`BUG:`), or a CPU did not start.
    Bug,
    /// It met what it did not expect (`kernel/panic.c`).
    Warning,
}

impl ComplaintKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Panic,
        Self::Oops,
        Self::SoftLockup,
        Self::HardLockup,
        Self::RcuStall,
        Self::CsdLock,
        Self::HungTask,
        Self::Bug,
        Self::Warning,
    ];

    /// Its name, by which a script expects it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::SoftLockup => "soft-lockup",
            Self::HardLockup => "hard-lockup",
            Self::RcuStall => "rcu-stall",
            Self::CsdLock => "csd-lock",
            Self::HungTask => "hung-task",
            Self::Bug => "bug",
            Self::Warning => "warning",
        }
    }

    /// Whether a kernel that complains of it has failed. One that warns goes on, and distributions'
    /// kernels warn of processors that they do not know.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Warning)
    }

    /// The words by which it is known, with the CPU if they name it.
    const fn words(self) -> &'static str {
        match self {
            // The second, of a fault before there is a handler, is all that is said.
            Self::Panic => r"Kernel panic - not syncing|PANIC: early exception",
            // `Oops: 0002 [#1] PREEMPT SMP`, `general protection fault, …: 0000 [#1]`, `invalid opcode:
            // 0000 [#1]`: of what the processor calls its exceptions (`arch/x86/kernel/traps.c`).
            Self::Oops => {
                r"(?:Oops|error|fault|opcode|overrun|TSS|not present|segment|check|bounds|overflow|exception)\b.*: [0-9a-f]{4} \[#\d+\]"
            }
            Self::SoftLockup => r"BUG: soft lockup - CPU#(\d+) stuck for",
            Self::HardLockup => r"Watchdog detected hard LOCKUP on cpu (\d+)",
            Self::RcuStall => {
                r"INFO: rcu_?\S* (?:self-detected stall on CPU|detected (?:expedited )?stalls on (?:CPUs/)?tasks: ?(?:\{ (\d+)-)?)"
            }
            Self::CsdLock => {
                r"csd: Detected non-responsive CSD lock \(#\d+\) on CPU#\d+, waiting .* for CPU#(\d+)"
            }
            Self::HungTask => r"INFO: task .* blocked (?:in I/O wait )?for more than \d+ seconds",
            Self::Bug => {
                r"BUG: (?:workqueue lockup|scheduling while atomic|sleeping function called|(?:spin|rw)lock |KASAN:|KFENCE:|KCSAN:|Bad )|smpboot: do_boot_cpu failed|failed to report alive state"
            }
            // `WARNING: CPU: 0 PID: 1 at kernel/…`, since 6.18 `WARNING: kernel/… at …, CPU#0: …`; the
            // others are lockdep's.
            Self::Warning => {
                r"WARNING: (?:CPU: (\d+) PID: \d+ at |.* at .*, CPU#(\d+)|suspicious |possible |inconsistent |\S+-safe -> )"
            }
        }
    }

    /// Where a later line names the CPU.
    fn line_of_cpu(self) -> Option<&'static Regex> {
        // `CPU: 1 PID: 17 Comm: …`, since 6.12 with `UID: 0` between (`dump_stack_print_info`).
        static OF_DUMP: LazyLock<Regex> =
            LazyLock::new(|| regex(r"^CPU: (\d+) (?:UID: \d+ )?PID: "));
        // `rcu: 	1-...0: (1 GPs behind) idle=…` (`print_cpu_stall_info`).
        static OF_STALL: LazyLock<Regex> =
            LazyLock::new(|| regex(r"^rcu: \s*(\d+)-[.O!oN?\d]{4}[:!]"));
        match self {
            Self::Panic | Self::Oops => Some(&OF_DUMP),
            Self::RcuStall => Some(&OF_STALL),
            _ => None,
        }
    }
}

impl fmt::Display for ComplaintKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this module")
}

/// Something that a kernel complained of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Complaint {
    /// Of what.
    pub kind: ComplaintKind,
    /// The CPU, if it was named.
    pub cpu: Option<u32>,
    /// The line, without its time, or the first 500 characters of it.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cpu {
            Some(cpu) => write!(f, "{}, CPU {cpu}: {}", self.kind, self.text),
            None => write!(f, "{}: {}", self.kind, self.text),
        }
    }
}

/// What a line of the log means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing that matters here.
    None,
    /// The kernel complains.
    Complaint,
    /// The kernel has panicked, and will not do anything any more.
    Over,
}

/// The log of a kernel, as far as it matters.
#[derive(Debug, Clone, Default)]
pub struct KernelLog {
    complaints: Vec<Complaint>,
    /// How many there were of each kind.
    counts: [u64; ComplaintKind::ALL.len()],
    /// Whether the CPU of the last complaint can still be named.
    is_open: bool,
    /// Whether it has said last that it restarts the machine.
    restarts: bool,
    /// The times of those that are kept, as they were printed: a line that is printed again, as
    /// `dmesg` does, is no other complaint.
    times: Vec<String>,
}

impl KernelLog {
    /// Reads a line, without its end.
    pub fn read(&mut self, line: &str) -> Meaning {
        static WORDS: LazyLock<[Regex; ComplaintKind::ALL.len()]> =
            LazyLock::new(|| ComplaintKind::ALL.map(|kind| regex(kind.words())));
        // Printed last, if the kernel is not to restart (`panic()`).
        const OVER: &str = "---[ end Kernel panic - not syncing";
        // The last that it says before it does (`kernel_restart()`, kernel/reboot.c).
        const RESTARTS: &str = "reboot: Restarting system";
        let (time, line) = divided(line);
        self.restarts = line.starts_with(RESTARTS);
        if line.contains(OVER) {
            return Meaning::Over;
        }
        for (index, (kind, words)) in ComplaintKind::ALL.into_iter().zip(&*WORDS).enumerate() {
            let Some(found) = words.captures(line) else {
                continue;
            };
            let cpu = found.iter().skip(1).flatten().next();
            let text: String = line.chars().take(LONGEST).collect();
            let is_again = |(known, at): (&Complaint, &String)| known.text == text && at == time;
            let mut kept = self.complaints.iter().zip(&self.times);
            if !time.is_empty() && kept.any(is_again) {
                return Meaning::None;
            }
            self.counts[index] += 1;
            self.is_open = self.complaints.len() < KEPT;
            if self.is_open {
                self.complaints.push(Complaint {
                    kind,
                    cpu: cpu.and_then(|cpu| cpu.as_str().parse().ok()),
                    text,
                });
                self.times.push(time.to_owned());
            }
            // It halts for ever, without a last line.
            return match line.contains("PANIC: early exception") {
                true => Meaning::Over,
                false => Meaning::Complaint,
            };
        }
        self.name_cpu(line);
        Meaning::None
    }

    /// Whether the last that it has said is that it restarts the machine.
    pub fn restarts(&self) -> bool {
        self.restarts
    }

    /// Names the CPU of the last complaint, if this line does.
    fn name_cpu(&mut self, line: &str) {
        let open = self.complaints.last_mut().filter(|_| self.is_open);
        let Some(last) = open.filter(|last| last.cpu.is_none()) else {
            return;
        };
        let named = last.kind.line_of_cpu().and_then(|it| it.captures(line));
        last.cpu = named.and_then(|it| it[1].parse().ok());
    }

    /// The complaints, in their order, as far as they are kept.
    pub fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// How many complaints there were of each kind, of which there were any.
    pub fn counts(&self) -> impl Iterator<Item = (ComplaintKind, u64)> {
        let all = ComplaintKind::ALL.into_iter().zip(self.counts);
        all.filter(|(_, count)| *count > 0)
    }

    /// How many complaints there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The time of `line`, as it was printed, and what is behind it and its caller, as in
/// `[    1.234567][    T1] text`. Something that is no line of the log can stand before it, such as a
/// shell's prompt. Without a time, the first is empty and the second the whole line.
fn divided(line: &str) -> (&str, &str) {
    static TIME: LazyLock<Regex> =
        LazyLock::new(|| regex(r"\[( *\d+\.\d{6})\](?:\[ *[TC]\d+\])? "));
    match TIME.captures(line) {
        Some(found) => {
            let (whole, time) = (found.get(0), found.get(1));
            let end = whole.map_or(0, |it| it.end());
            (time.map_or("", |it| it.as_str()), &line[end..])
        }
        None => ("", line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The complaints of a log, and whether it says that all is over.
    fn read(lines: &str) -> (Vec<(ComplaintKind, Option<u32>)>, bool) {
        let mut log = KernelLog::default();
        let is_over = lines.lines().any(|line| log.read(line) == Meaning::Over);
        let all = log.complaints().iter().map(|it| (it.kind, it.cpu));
        (all.collect(), is_over)
    }

    #[test]
    fn it_restarts_if_that_is_its_last_word() {
        let mut log = KernelLog::default();
        log.read("[    7.689192] reboot: Restarting system with command 'x'");
        assert!(log.restarts());
        log.read("[    7.689193] general protection fault: 0000 [#1]");
        assert!(!log.restarts());
        log.read("reboot: Power down");
        assert!(!log.restarts());
    }

    // Each as Linux 6.1 or 6.12 has printed it.
    #[test]
    fn linux_is_understood() {
        let panic = "\
[    0.584123] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
[    0.584123] CPU: 2 PID: 1 Comm: swapper/0 Not tainted 6.1.0-28-amd64 #1  Debian 6.1.119-1
[    0.584123] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---";
        assert_eq!(read(panic), (vec![(ComplaintKind::Panic, Some(2))], true));
        let early = "PANIC: early exception 0x0e IP 10:ffffffff81f0 error 0 cr2 0x0";
        assert_eq!(read(early), (vec![(ComplaintKind::Panic, None)], true));
        let oops = "\
[    0.060000] BUG: kernel NULL pointer dereference, address: 0000000000000028
[    0.060000] #PF: supervisor read access in kernel mode
[    0.060000] Oops: 0000 [#1] PREEMPT SMP NOPTI
[    0.060000] CPU: 0 UID: 0 PID: 0 Comm: swapper/0 Not tainted 6.12.9-amd64 #1";
        assert_eq!(read(oops), (vec![(ComplaintKind::Oops, Some(0))], false));
        let stall = "\
[   26.020000] rcu: INFO: rcu_preempt self-detected stall on CPU
[   26.020000] rcu: \t0-....: (5250 ticks this GP) idle=4f74/1/0x4000000000000000 softirq=71/71 fqs=2625
[   26.020000] \t(t=5250 jiffies g=-1039 q=31 ncpus=4)
[   26.020000] CPU: 0 PID: 45 Comm: sh Not tainted 6.1.0-28-amd64 #1";
        assert_eq!(
            read(stall),
            (vec![(ComplaintKind::RcuStall, Some(0))], false)
        );
        let others = "\
[   26.030000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
[   26.030000] rcu: \t1-...0: (1 GPs behind) idle=2c1c/1/0x4000000000000000 softirq=60/60 fqs=2100";
        assert_eq!(
            read(others),
            (vec![(ComplaintKind::RcuStall, Some(1))], false)
        );
        let expedited = "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 3-.... } 25 jiffies s: 81";
        assert_eq!(
            read(expedited),
            (vec![(ComplaintKind::RcuStall, Some(3))], false)
        );
        for (line, kind, cpu) in [
            (
                "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [sh:45]",
                ComplaintKind::SoftLockup,
                Some(1),
            ),
            (
                "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
                ComplaintKind::HardLockup,
                Some(3),
            ),
            (
                "smp: csd: Detected non-responsive CSD lock (#1) on CPU#0, waiting 5000000005 ns for CPU#02 flush_tlb_func+0x0/0x1f0(0xffff).",
                ComplaintKind::CsdLock,
                Some(2),
            ),
            (
                "INFO: task kworker/1:1:33 blocked for more than 120 seconds.",
                ComplaintKind::HungTask,
                None,
            ),
            (
                "WARNING: CPU: 1 PID: 8 at kernel/smp.c:912 smp_call_function_many_cond+0x2d6/0x2e0",
                ComplaintKind::Warning,
                Some(1),
            ),
            (
                "WARNING: kernel/smp.c:912 at smp_call_function_many_cond+0x2d6/0x2e0, CPU#2: sh/45",
                ComplaintKind::Warning,
                Some(2),
            ),
            (
                "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
                ComplaintKind::Oops,
                None,
            ),
            (
                "INFO: task dd:12 blocked in I/O wait for more than 120 seconds.",
                ComplaintKind::HungTask,
                None,
            ),
            (
                "INFO: rcu_tasks detected stalls on tasks:",
                ComplaintKind::RcuStall,
                None,
            ),
            (
                "BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 31s!",
                ComplaintKind::Bug,
                None,
            ),
            (
                "BUG: scheduling while atomic: sh/45/0x00000002",
                ComplaintKind::Bug,
                None,
            ),
            (
                "WARNING: inconsistent lock state",
                ComplaintKind::Warning,
                None,
            ),
            (
                "general protection fault, probably for non-canonical address 0x6b6b: 0000 [#1] SMP",
                ComplaintKind::Oops,
                None,
            ),
        ] {
            for time in [
                "",
                "[    1.500000] ",
                "[    1.500000][   T45] ",
                "/ # [    1.500000] ",
            ] {
                assert_eq!(read(&format!("{time}{line}")).0, [(kind, cpu)], "{line}");
            }
        }
    }

    #[test]
    fn a_healthy_kernel_complains_of_nothing() {
        let lines = "\
[    0.000000] Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)
[    0.000000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible
[    0.010000] rcu: Preemptible hierarchical RCU implementation.
[    0.010000] rcu: \tRCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=4.
[    0.200000] NMI watchdog: Perf NMI watchdog permanently disabled
abc: 0000 [#1]
[    0.300000] smpboot: CPU0: AMD 17/01 (family: 0x17, model: 0x1, stepping: 0x2)";
        assert_eq!(read(lines), (vec![], false));
    }

    #[test]
    fn a_line_that_is_printed_again_is_no_other_complaint() {
        let line = "[    1.500000] WARNING: possible recursive locking detected";
        let other = line.replace("1.5", "2.5");
        let all = [line, "dmesg:", line, &other].join("\n");
        assert_eq!(read(&all).0.len(), 2);
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let mut log = KernelLog::default();
        for _ in 0..3 * KEPT {
            log.read("WARNING: possible recursive locking detected");
        }
        assert_eq!(
            (log.complaints().len(), log.total()),
            (KEPT, 3 * KEPT as u64)
        );
        assert_eq!(
            log.counts().collect::<Vec<_>>(),
            [(ComplaintKind::Warning, 3 * KEPT as u64)]
        );
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(lines in "(\\PC|\n){0,200}") {
            let _ = read(&lines);
        }
    }
}
