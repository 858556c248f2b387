//! A debugger on a run: a real gdb in batch mode, and clients that are none. GDB names the program, which is
//! otherwise looked for on the PATH; where there is none, what needs it is skipped.

use std::env;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Running, Vmm, need_kvm, skip};

use super::guests_in_c::image;

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(60);

/// The function that makes a call to one CPU, as gdb names it.
const CALL_SINGLE: &str = "call_single<kit::metal::platform::Metal, \
                           guest::workload::functions::LedgerFunctions>";

/// The program, if there is one.
pub(super) fn gdb() -> Option<PathBuf> {
    let program = env::var_os("GDB").map_or_else(|| PathBuf::from("gdb"), PathBuf::from);
    let found = Command::new(&program).arg("--version").output();
    if found.is_err() {
        skip("there is no gdb; Debian's package is gdb");
        return None;
    }
    Some(program)
}

/// A machine that can be debugged.
struct Debuggee {
    image: PathBuf,
    running: Running,
    directory: TempDir,
}

impl Debuggee {
    fn boot(arguments: &str, words: &str) -> Self {
        Self::of(tests::guest(), arguments, words)
    }

    fn of(image: PathBuf, arguments: &str, words: &str) -> Self {
        need_kvm();
        let directory = tempfile::tempdir().unwrap();
        let running = Vmm::with(arguments)
            .arg(&image)
            .args(["--append", words, "--gdb"])
            .arg(directory.path().join("gdb"))
            .arg("--control")
            .arg(directory.path().join("control"))
            .start();
        let it = Self {
            image,
            running,
            directory,
        };
        let deadline = Instant::now() + SOON;
        while !it.socket().exists() {
            assert!(Instant::now() < deadline, "nobody listens for gdb");
            thread::yield_now();
        }
        it
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("gdb")
    }

    /// Waits until all CPUs are up.
    fn once_ready(self) -> Self {
        self.ctl(&["--wait", "60", "ready"]).ends_with(0);
        self
    }

    fn ctl(&self, words: &[&str]) -> Run {
        let control = self.directory.path().join("control");
        Vmm::with("ctl").arg(control).args(words).run()
    }

    /// What a gdb says that does this once it is connected.
    fn with(&self, gdb: &Path, commands: &str) -> String {
        debug(gdb, &self.socket(), Some(&self.image), commands)
    }

    fn connect(&self) -> Client {
        Client::connect(&self.socket())
    }

    /// It has to end well: every call has run everywhere.
    fn passes(self) -> Run {
        let run = self.running.finish();
        run.ends_with(0).says("pass");
        run
    }
}

/// What a gdb says that does this once it is connected to `socket`, with the symbols of `image`.
pub(super) fn debug(gdb: &Path, socket: &Path, image: Option<&Path>, commands: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.gdb");
    let text = format!(
        "set pagination off\nset confirm off\nset width 0\nset architecture i386:x86-64\n\
         target remote {}\n{commands}\n",
        socket.to_str().unwrap()
    );
    fs::write(&script, text).unwrap();
    let mut command = Command::new(gdb);
    command.args(["-nx", "-batch", "-x"]).arg(&script);
    command.args(image);
    let run = Vmm::from(command).limit(SOON * 2).run();
    format!("{}\n{}", run.stdout, run.stderr)
}

/// A client that speaks gdb's protocol by hand.
pub(super) struct Client(UnixStream);

impl Client {
    pub(super) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    fn say(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    /// The next packet, which is acknowledged.
    fn hear(&mut self) -> String {
        let mut byte = || {
            let mut one = [0];
            self.0.read_exact(&mut one).unwrap();
            one[0]
        };
        while byte() != b'$' {}
        let packet: Vec<u8> =
            std::iter::from_fn(|| Some(byte()).filter(|it| *it != b'#')).collect();
        byte();
        byte();
        // Whoever has let this client go does not hear that.
        let _ = self.0.write_all(b"+");
        expanded(&packet)
    }

    pub(super) fn ask(&mut self, packet: &str) -> String {
        self.say(packet);
        self.hear()
    }

    /// Has `monitor` do what these words say, and does not listen.
    pub(super) fn say_monitor(&mut self, words: &str) {
        let hex: String = words.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.say(&format!("qRcmd,{hex}"));
    }

    /// What `monitor` says to these words.
    pub(super) fn monitor(&mut self, words: &str) -> String {
        self.say_monitor(words);
        let mut said = String::new();
        loop {
            let packet = self.hear();
            let Some(hex) = packet.strip_prefix('O').filter(|_| packet != "OK") else {
                return said;
            };
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            said.extend((0..hex.len()).step_by(2).map(byte).map(char::from));
        }
    }

    /// Takes all breakpoints of the hardware, if there are any, where nobody comes any more.
    fn use_up_hardware(&mut self) {
        let start = address_of("pvh_start");
        for address in start..start + 3 {
            self.ask(&format!("Z1,{address:x},1"));
        }
    }

    /// Why the last packet was refused.
    pub(super) fn why(&mut self) -> String {
        self.monitor("why")
    }
}

/// A packet without its run-length encoding (gdb's manual, Overview of the remote protocol).
fn expanded(packet: &[u8]) -> String {
    let mut text = String::new();
    let mut bytes = packet.iter();
    while let Some(byte) = bytes.next() {
        match (byte, text.chars().last()) {
            (b'*', Some(last)) => {
                let times = bytes.next().expect("a count") - 29;
                text.extend(std::iter::repeat_n(last, times.into()));
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

/// How often `text` has `words`.
fn count(text: &str, words: &str) -> usize {
    text.matches(words).count()
}

#[track_caller]
pub(super) fn says(text: &str, words: &str) {
    assert!(text.contains(words), "not a word of {words:?}: {text}");
}

#[test]
fn every_vcpu_is_a_thread_before_its_first_instruction() {
    let Some(gdb) = gdb() else { return };
    for vcpus in [1, 16, 64] {
        let debuggee = Debuggee::boot(&format!("--vcpus {vcpus} --gdb-wait"), "workload=puppet");
        let said = debuggee.with(
            &gdb,
            "info threads\np $cr3\np/x $rip\np/x (unsigned long)&pvh_start\nkill",
        );
        assert_eq!(count(&said, "(CPU "), vcpus, "{said}");
        assert_eq!(count(&said, "waits to be started"), vcpus - 1, "{said}");
        says(&said, "$1 = 0\n");
        let entry = said.lines().find_map(|line| line.strip_prefix("$2 = "));
        assert!(entry.is_some(), "{said}");
        says(&said, &format!("$3 = {}", entry.unwrap()));
        let run = debuggee.running.finish();
        run.says("ended on request before the guest was done");
    }
}

#[test]
fn a_cpu_stops_at_a_breakpoint_while_others_run() {
    let Some(gdb) = gdb() else { return };
    let debuggee = Debuggee::boot("--vcpus 4 --gdb-wait", "workload=stress calls=300");
    let said = debuggee.with(
        &gdb,
        &format!("break {CALL_SINGLE} thread 3\ncontinue\nbt 1\ncontinue\ninfo threads\ndetach"),
    );
    assert_eq!(count(&said, "Thread 3 hit Breakpoint 1"), 2, "{said}");
    assert_eq!(count(&said, " hit Breakpoint"), 2, "{said}");
    says(&said, "#0  call_single");
    says(&said, "(CPU 3 ");
    debuggee.passes();
}

#[test]
fn of_two_cpus_at_one_breakpoint_neither_is_lost() {
    let Some(gdb) = gdb() else { return };
    let debuggee = Debuggee::boot("--vcpus 9", "workload=puppet").once_ready();
    let round = |pair: u32| {
        format!(
            "monitor tell {} call-single 0 --until told\n\
             monitor tell {} call-single 0 --until told\n\
             continue\ncontinue\n",
            2 * pair + 1,
            2 * pair + 2
        )
    };
    let rounds: String = (0..4).map(round).collect();
    let said = debuggee.with(&gdb, &format!("break {CALL_SINGLE}\n{rounds}kill"));
    for thread in 2..=9 {
        let hit = format!("Thread {thread} hit Breakpoint 1");
        assert_eq!(count(&said, &hit), 1, "{hit}: {said}");
    }
}

#[test]
fn sti_and_hlt_are_stepped_over() {
    let Some(gdb) = gdb() else { return };
    let debuggee = Debuggee::boot("--vcpus 2 --gdb-wait", "workload=puppet");
    let step = "stepi\nprintf \"at +%d\\n\", (int)($rip - (unsigned long)&idle_hlt)\n";
    let said = debuggee.with(
        &gdb,
        &format!(
            "set language c\nbreak *((unsigned long)&idle_hlt - 4)\ncontinue\ndelete\n\
             set scheduler-locking on\n{step}{step}\
             if $rip == (unsigned long)&idle_hlt\n{step}end\ninfo threads\n\
             set scheduler-locking off\n\
             monitor tell 0 call-single 1 --until told\n\
             monitor tell 1 call-single 0 --until told\ndetach"
        ),
    );
    // After the move, `sti` and `hlt`; then the CPU sleeps until it has something to do. QEMU's emulated
    // processor takes the step over `sti` and that behind it as one.
    assert_eq!(count(&said, "at +-1\n"), 1, "{said}");
    assert!(count(&said, "at +0\n") <= 1, "{said}");
    assert_eq!(count(&said, "at +1\n"), 1, "{said}");
    let is_current = |line: &&str| line.starts_with("* ");
    let current = said.lines().find(is_current).unwrap_or_default();
    assert!(current.contains("is halted"), "{said}");
    let mut client = debuggee.connect();
    // It goes on: both calls have been made by now, or will be.
    assert!(client.ask("?").starts_with("T05"));
    client.say("k");
    debuggee.running.finish();
}

#[test]
fn registers_and_memory_are_read_and_written() {
    let Some(gdb) = gdb() else { return };
    let debuggee = Debuggee::boot("--vcpus 2", "workload=puppet").once_ready();
    let said = debuggee.with(
        &gdb,
        "set language c\nthread 2\n\
         set $r15 = 0x1234567890\np/x $r15\np $eflags\n\
         set $xmm3.v2_int64[1] = 77\np $xmm3.v2_int64[1]\n\
         set $was = *(unsigned long*)$rsp\nset {unsigned long}$rsp = 4711\n\
         p *(unsigned long*)$rsp\nthread 1\np $r15 == 0x1234567890\nthread 2\n\
         monitor physical on\nmonitor physical off\n\
         set {unsigned long}$rsp = $was\np *(unsigned long*)$rsp == $was\n\
         monitor nonsense\nmonitor status\nx/i 0x7ffffffffff0",
    );
    for words in [
        "$1 = 0x1234567890\n",
        "IF",
        "$3 = 77\n",
        "$4 = 4711\n",
        "$5 = 0\n",
        "addresses are those of guest memory now",
        "$6 = 1\n",
        "Cannot access memory at address 0x7ffffffffff0",
        "unrecognized subcommand 'nonsense'",
        "to be held at",
    ] {
        says(&said, words);
    }
}

#[test]
fn a_guest_in_c_is_debugged_by_its_variables() {
    let (Some(gdb), Some(image)) = (gdb(), image("ticket.bin")) else {
        return;
    };
    let debuggee = Debuggee::of(image, "--vcpus 2", "").once_ready();
    let said = debuggee.with(
        &gdb,
        "monitor tell 1 add 5 --until told\nbreak ticket_unlock\ncontinue\n\
         print sum\nprint lock.next - lock.served\nset var sum = 7\ndetach",
    );
    says(&said, "Thread 2 hit Breakpoint 1, ticket_unlock");
    says(&said, "$1 = 5\n");
    says(&said, "$2 = 1\n");
    // The guest sees what gdb has written.
    debuggee.ctl(&["finish"]);
    let run = debuggee.running.finish();
    run.ends_with(1).says("miscounted");
}

#[test]
fn what_this_host_lacks_is_refused_by_name() {
    let debuggee = Debuggee::boot("--vcpus 2 --gdb-wait", "workload=puppet");
    let mut client = debuggee.connect();
    assert!(client.ask("?").starts_with("T05"));
    let halt = address_of("idle_hlt");
    // The hardware's, of which there are some or none.
    let has_breakpoints = client.ask(&format!("Z1,{halt:x},1")) == "OK";
    match has_breakpoints {
        true => assert_eq!(client.ask(&format!("z1,{halt:x},1")), "OK"),
        false => says(
            &client.why(),
            "this host's KVM has no breakpoints that work",
        ),
    }
    // `hlt` has one byte. Where the hardware has none, that is too short.
    match client.ask(&format!("Z0,{halt:x},1")) == "OK" {
        true => assert!(has_breakpoints),
        false => says(
            &client.why(),
            &format!("break at the next one, at {:#x}", halt + 1),
        ),
    }
    // All the hardware has, and more: those are instructions that exit.
    for nth in 0..6 {
        let address = address_of("pvh_start") + [0, 1, 2, 3, 4, 5][nth];
        let set = client.ask(&format!("Z1,{address:x},1"));
        assert_eq!(set == "OK", has_breakpoints && nth < 2, "{nth}: {set}");
    }
    if has_breakpoints {
        says(&client.why(), "all 3 of the processor's are taken");
    }
    assert_eq!(client.ask(&format!("Z0,{:x},1", halt - 4)), "OK");
    match &*client.ask("Z2,200000,4") {
        "OK" => {}
        _ => says(
            &client.why(),
            "this host's KVM has no watchpoints that work",
        ),
    }
    for (packet, why) in [
        ("Z3,200000,4", "not reads alone"),
        ("Z0,fffffffffffff000,1", "is not mapped there"),
    ] {
        assert_ne!(client.ask(packet), "OK");
        says(&client.why(), why);
    }
    for (packet, why) in [
        (
            "P12=0800000000000000",
            "what a selector means is in a table",
        ),
        ("P40=ff00000000000000", "cr8 is a priority"),
    ] {
        assert_ne!(client.ask(packet), "OK", "{packet}");
        says(&client.why(), why);
    }
    client.say("k");
    debuggee.running.finish();
}

#[test]
fn an_interrupt_that_crosses_a_stop_does_not_come_after_it() {
    let debuggee = Debuggee::boot("--vcpus 2", "workload=stress for=600s");
    let mut client = debuggee.connect();
    assert!(client.ask("?").starts_with("T05"));
    for _ in 0..20 {
        // All is stopped already.
        client.0.write_all(&[3]).unwrap();
        client.say("vCont;c");
        client.0.write_all(&[3]).unwrap();
        assert!(client.hear().starts_with("T02"));
        // It is stopped, and nobody has been told too early.
        let registers = client.ask("g");
        assert!(registers.len() > 100, "{registers}");
    }
    client.say("k");
    debuggee.running.finish();
}

#[test]
fn instructions_that_are_replaced_are_told_apart_and_put_back() {
    let debuggee = Debuggee::boot("--vcpus 2", "workload=puppet").once_ready();
    let mut client = debuggee.connect();
    assert!(client.ask("?").starts_with("T05"));
    client.use_up_hardware();
    // What every interrupt executes: a jump of two bytes, and the instruction behind it.
    let jumps = jumps_of_entries();
    for jump in &jumps {
        assert_eq!(client.ask(&format!("Z0,{jump:x},1")), "OK");
        assert_eq!(client.ask(&format!("Z0,{:x},1", jump + 2)), "OK");
    }
    client.monitor("tell 0 call-single 1 --until told");
    client.say("vCont;c");
    assert!(client.hear().starts_with("T05"));
    let rips = [1, 2].map(|thread| {
        assert_eq!(client.ask(&format!("Hgp1.{thread}")), "OK");
        u64::from_str_radix(&client.ask("p10"), 16)
            .unwrap()
            .swap_bytes()
    });
    assert!(
        rips.iter().any(|rip| jumps.contains(rip)),
        "{rips:x?} {jumps:x?}"
    );
    // Read as they were, and written below what is there.
    let [first, ..] = jumps[..] else {
        panic!("no entry")
    };
    let read = |client: &mut Client| client.ask(&format!("m{first:x},4"));
    let was = read(&mut client);
    assert!(was.starts_with("75"), "{was}");
    let overlap = client.ask(&format!("Z0,{:x},1", first + 1));
    assert_ne!(overlap, "OK");
    says(&client.why(), "shares bytes with the one");
    // Once is enough, as often as it is said.
    assert_eq!(client.ask(&format!("Z0,{first:x},1")), "OK");
    assert_eq!(client.ask(&format!("M{first:x},1:74")), "OK");
    assert_eq!(read(&mut client), format!("74{}", &was[2..]));
    for address in [first, first + 2] {
        assert_eq!(client.ask(&format!("z0,{address:x},1")), "OK");
    }
    assert_eq!(read(&mut client), format!("74{}", &was[2..]));
    assert_eq!(client.ask(&format!("M{first:x},1:75")), "OK");
    // One that lies in two pages, of memory that nobody uses, is written below in both, and is come to.
    const ACROSS: u64 = 0x640_0fff;
    assert_eq!(client.ask("Hgp1.1"), "OK");
    let was_at = client.ask("p10");
    let little_endian = format!("{:016x}", ACROSS.swap_bytes());
    for packet in [
        // xor eax, eax, and a jump to itself behind it.
        format!("M{ACROSS:x},4:31c0ebfe"),
        format!("Z0,{ACROSS:x},1"),
        format!("M{ACROSS:x},2:31db"),
        format!("P10={little_endian}"),
    ] {
        assert_eq!(client.ask(&packet), "OK", "{packet}");
    }
    assert!(client.ask("vCont;c:p1.1").starts_with("T05"));
    assert_eq!(client.ask("p10"), little_endian);
    assert_eq!(client.ask(&format!("z0,{ACROSS:x},1")), "OK");
    assert_eq!(client.ask(&format!("m{ACROSS:x},4")), "31dbebfe");
    assert_eq!(client.ask(&format!("P10={was_at}")), "OK");
    assert_eq!(client.ask("D"), "OK");
    debuggee.ctl(&["finish"]).ends_with(0);
    debuggee.passes();
}

#[test]
fn steps_of_an_operator_are_taken_besides_those_of_gdb() {
    let debuggee = Debuggee::boot("--vcpus 2", "workload=stress for=600s").once_ready();
    debuggee.ctl(&["pause", "1"]).ends_with(0);
    let mut client = debuggee.connect();
    assert!(client.ask("?").starts_with("T05"));
    let control = debuggee.directory.path().join("control");
    let step = Vmm::with("ctl")
        .arg(control)
        .args(["step", "1", "5"])
        .start();
    // It is paused until the operator's steps are set, and then takes gdb's first.
    let stopped = client.ask("vCont;s:p1.2");
    assert!(stopped.starts_with("T05thread:"), "{stopped}");
    assert_eq!(client.ask("D"), "OK");
    step.finish().ends_with(0);
    debuggee.ctl(&["status"]).ends_with(0).says("held");
    debuggee.ctl(&["quit"]);
    debuggee.running.finish();
}

#[test]
fn gdb_is_told_how_the_guest_ended() {
    let Some(gdb) = gdb() else { return };
    let debuggee = Debuggee::boot("--vcpus 2 --gdb-wait", "workload=stress calls=10");
    let said = debuggee.with(&gdb, "continue");
    says(&said, "exited normally");
    debuggee.passes();
    let debuggee = Debuggee::boot("--vcpus 1 --gdb-wait", "workload=nonsense");
    let said = debuggee.with(&gdb, "continue");
    says(&said, "exited with code 023");
    debuggee.running.finish().ends_with(2);
}

#[test]
fn a_thousand_clients_come_and_go_and_no_call_is_lost() {
    const CYCLES: u64 = 1000;
    let debuggee = Debuggee::boot("--vcpus 4 --stats json", "workload=puppet").once_ready();
    let mut told = 0;
    for cycle in 0..CYCLES {
        let mut client = debuggee.connect();
        let stopped = client.ask("?");
        assert!(stopped.starts_with("T05thread:"), "{cycle}: {stopped}");
        // One that has not done the last yet is told nothing.
        let (from, to) = (cycle % 4, (cycle + 1) % 4);
        let said = client.monitor(&format!("tell {from} call-single {to} --until told"));
        told += u64::from(said.starts_with("told CPU"));
        match cycle % 3 {
            0 => assert_eq!(client.ask("D"), "OK"),
            // It goes on, and is stopped by ^C.
            1 => {
                client.say("vCont;c");
                client.0.write_all(&[3]).unwrap();
                let stopped = client.hear();
                assert!(stopped.starts_with("T02thread:"), "{cycle}: {stopped}");
                assert_eq!(client.ask("D"), "OK");
            }
            // It vanishes, with the machine stopped.
            _ => {}
        }
    }
    assert!(told > CYCLES / 4, "{told}");
    debuggee.ctl(&["finish"]).ends_with(0);
    let report = debuggee.passes().json();
    assert_eq!(report["calls"]["made"], told, "{report:#}");
    assert_eq!(report["calls"]["executed"], told, "{report:#}");
    // They are no stalls.
    assert!(
        report["debugger"]["count"].as_u64() >= Some(CYCLES),
        "{report:#}"
    );
    assert_eq!(report["stalls"], Value::Null, "{report:#}");
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let debuggee = Debuggee::boot("--vcpus 4 --gdb-wait", "workload=stress calls=200");
    let mut client = debuggee.connect();
    assert!(client.ask("?").starts_with("T05"));
    // An instruction that CPUs come to, again and again: the one before `sti; hlt`.
    let address = address_of("idle_hlt") - 4;
    assert_eq!(client.ask(&format!("Z0,{address:x},1")), "OK");
    client.say("vCont;c");
    let stopped = client.hear();
    assert!(stopped.starts_with("T05thread:"), "{stopped}");
    client.say("vCont;c");
    drop(client);
    debuggee.passes();
}

#[test]
fn rubbish_is_let_go_and_harms_nobody() {
    let debuggee = Debuggee::boot("--vcpus 2", "workload=stress for=600s");
    let rubbish: [&[u8]; 9] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"$",
        b"$#00",
        b"$vCont;s:9999#00+$qXfer:features:read:target.xml:0,ffffffff#00",
        b"+$m0,ffffffffffffffff#00",
        b"+$Z0,ffffffffffffffff,1#3d",
        b"+$P9999=00#00$G00#00$g#67",
        &[3; 64],
        &[0xff; 4096],
    ];
    let mut seed = fastrand::Rng::with_seed(7);
    let noise: Vec<Vec<u8>> = (0..40)
        .map(|_| {
            let mut bytes: Vec<u8> = (0..seed.usize(1..600)).map(|_| seed.u8(..)).collect();
            bytes[0] = b'$';
            bytes
        })
        .collect();
    for words in rubbish.into_iter().chain(noise.iter().map(|it| &**it)) {
        let mut client = debuggee.connect();
        let written = client.0.write_all(words);
        assert!(written.is_ok() || written.is_err_and(|it| it.kind() == ErrorKind::BrokenPipe));
    }
    // Packets that are well made, and make no sense.
    for packet in [
        "g",
        "p999",
        "P10",
        "m0,fffffff",
        "mffffffffffffffff,40",
        "M0,1:zz",
        "X0,1:",
        "Hg99999",
        "Hc-5",
        "T0",
        "vCont;s:99",
        "vCont;x",
        "Z9,0,0",
        "Z2,1,3",
        "z0,1,1",
        "qRcmd,",
        "qRcmd,zz",
        "qXfer:features:read:target.xml:fffffff0,ff",
        "bs",
        "R",
    ] {
        let mut client = debuggee.connect();
        client.say(packet);
    }
    // Somebody who knows what to say is served all the same.
    let mut client = debuggee.connect();
    assert!(client.ask("?").starts_with("T05"));
    assert_eq!(client.ask("D"), "OK");
    debuggee.running.signal(libc::SIGTERM);
    debuggee.running.finish().ends_with(128 + libc::SIGTERM);
}

#[test]
fn a_port_of_this_host_does_as_well() {
    need_kvm();
    let refused = Vmm::boot("--gdb tcp:0.0.0.0:1234").run();
    refused.ends_with(2).says("can be reached from elsewhere");
    let vmm = Vmm::boot("--vcpus 2 --gdb tcp:127.0.0.1:0 --gdb-wait --append calls=1").start();
    let address = loop {
        let said = vmm.said();
        let after = said
            .split_once("waits for gdb: target remote ")
            .map(|it| it.1);
        if let Some((address, _)) = after.and_then(|it| it.split_once('\n')) {
            break address.to_owned();
        }
        thread::yield_now();
    };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"+$D#44").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+$OK#9a");
    vmm.finish().ends_with(0);
}

/// The jumps of two bytes with which the entries of interrupts begin, behind a comparison.
fn jumps_of_entries() -> Vec<u64> {
    use object::{Object, ObjectSection, ObjectSymbol};
    let image = fs::read(tests::guest()).unwrap();
    let file = object::File::parse(&*image).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let entries = file.symbols();
    let entries = entries.filter(|it| it.name().is_ok_and(|name| name.contains("5traps5entry")));
    entries
        .map(|entry| {
            let offset = usize::try_from(entry.address() - text.address()).unwrap();
            let code = &text.data().unwrap()[offset..];
            let mut decoder = iced_x86::Decoder::new(64, code, iced_x86::DecoderOptions::NONE);
            let jump = entry.address() + decoder.decode().len() as u64;
            assert_eq!(decoder.decode().len(), 2);
            jump
        })
        .collect()
}

/// The address of a symbol of the guest image.
fn address_of(name: &str) -> u64 {
    use object::{Object, ObjectSymbol};
    let image = fs::read(tests::guest()).unwrap();
    let file = object::File::parse(&*image).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    symbol.expect(name).address()
}
