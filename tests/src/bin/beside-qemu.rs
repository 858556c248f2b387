//! Whole runs of `vmm` beside those of QEMU's microvm, with the same image on the same KVM: how
//! long a user waits for each. The two take turns, so that whatever else the host does meets both,
//! and each pair has a ratio of its own. Knows both only by their command lines.
//!
//! ```text
//! beside-qemu VMM GUEST [PAIRS [VCPUS]]
//! ```

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Seek, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use shared::exit::ExitCode as GuestExit;
use wait_timeout::ChildExt;

const QEMU: &str = "qemu-system-x86_64";
/// Pairs for each number of vCPUs, if not said.
const PAIRS: usize = 15;
/// Numbers of vCPUs, if not said.
const VCPUS: &str = "1,4,16";
/// MiB of RAM of both. It is what `vmm` takes for up to 16 vCPUs unasked.
const MEMORY: &str = "144";
/// Far above what any run takes.
const LIMIT: Duration = Duration::from_secs(300);

/// What to compare.
struct Arguments {
    vmm: OsString,
    guest: OsString,
    pairs: usize,
    vcpus: Vec<u32>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let usage = "usage: beside-qemu VMM GUEST [PAIRS [VCPUS]], such as 15 1,4,16";
        let (Some(vmm), Some(guest)) = (words.next(), words.next()) else {
            return Err(usage.to_owned());
        };
        let text = |word: Option<OsString>| word.map(|word| word.to_string_lossy().into_owned());
        let pairs = match text(words.next()) {
            None => PAIRS,
            Some(text) => (text.parse().ok())
                .filter(|pairs| *pairs > 0)
                .ok_or_else(|| format!("\"{text}\" is no number of pairs; {usage}"))?,
        };
        let list = text(words.next()).unwrap_or_else(|| VCPUS.to_owned());
        let vcpus = list.split(',').map(|count| count.trim().parse());
        let vcpus = vcpus
            .collect::<Result<Vec<u32>, _>>()
            .map_err(|_| format!("\"{list}\" is no list of numbers of vCPUs; {usage}"))?;
        match words.next() {
            Some(_) => Err(usage.to_owned()),
            None => Ok(Self {
                vmm,
                guest,
                pairs,
                vcpus,
            }),
        }
    }

    fn vmm(&self, vcpus: u32) -> (Command, i32) {
        let mut command = Command::new(&self.vmm);
        command.args(["--memory", MEMORY, "--vcpus", &vcpus.to_string()]);
        command.arg(&self.guest);
        (command, 0)
    }

    /// A microvm with what the guest uses and nothing more: a serial port, and the port at which it
    /// ends the run.
    fn qemu(&self, vcpus: u32) -> (Command, i32) {
        let mut command = Command::new(QEMU);
        // Some KVMs list MSR 0x10a, IA32_ARCH_CAPABILITIES, and do not take what QEMU 7.2 writes there:
        // it aborts.
        let cpu = "host,arch-capabilities=off";
        command
            .args(["-M", "microvm", "-accel", "kvm", "-cpu", cpu])
            .args(["-m", MEMORY, "-smp", &vcpus.to_string()])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .arg("-kernel")
            .arg(&self.guest);
        // How that device tells what was written to it.
        (command, (GuestExit::Pass as i32) << 1 | 1)
    }
}

/// The wall-clock time of one run, from its start until it has been waited for.
fn time((mut command, status): (Command, i32)) -> Result<Duration, String> {
    let what = format!("{command:?}");
    let failed = |why: &dyn fmt::Display| format!("{what}: {why}");
    // Shown only if it fails: QEMU warns in each run of more vCPUs than the host has processors.
    let mut said = tempfile::tempfile().map_err(|error| failed(&error))?;
    let stderr = said.try_clone().map_err(|error| failed(&error))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let ended = child.wait_timeout(LIMIT).map_err(|error| failed(&error))?;
    let took = begun.elapsed();
    let Some(ended) = ended else {
        // Gone already, if it cannot be killed.
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(&format!("not over after {} s", LIMIT.as_secs())));
    };
    if ended.code() == Some(status) {
        return Ok(took);
    }
    let mut text = String::new();
    // What cannot be read is not shown.
    let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
    let why = format!("{ended}, and not with status {status}\n{text}");
    Err(failed(&why.trim_end()))
}

/// The quarter points of some figures.
#[derive(Debug, PartialEq)]
struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    /// Of at least one figure. Between two figures it is interpolated.
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let last = figures.len() - 1;
        let at = |quarters: usize| {
            let (whole, rest) = (last * quarters / 4, last * quarters % 4);
            let next = figures[(whole + 1).min(last)];
            figures[whole] + (next - figures[whole]) * rest as f64 / 4.0
        };
        Self {
            lower: at(1),
            median: at(2),
            upper: at(3),
        }
    }

    fn show(&self, digits: usize) -> String {
        let Self {
            lower,
            median,
            upper,
        } = self;
        format!("{median:.digits$} ({lower:.digits$} to {upper:.digits$})")
    }
}

fn compare(arguments: &Arguments, vcpus: u32) -> Result<String, String> {
    let vmm = || time(arguments.vmm(vcpus));
    let qemu = || time(arguments.qemu(vcpus));
    // The first run of each has its files to read.
    vmm()?;
    qemu()?;
    let (mut own, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..arguments.pairs {
        // Neither is always the first.
        let (ours, theirs) = if pair % 2 == 0 {
            let ours = vmm()?;
            (ours, qemu()?)
        } else {
            let theirs = qemu()?;
            (vmm()?, theirs)
        };
        let [ours, theirs] = [ours, theirs].map(|time| time.as_secs_f64() * 1e3);
        own.push(ours);
        others.push(theirs);
        ratios.push(theirs / ours);
    }
    Ok(format!(
        "{vcpus:>5}  {:>26}  {:>26}  {:>22}",
        Quartiles::of(own).show(1),
        Quartiles::of(others).show(1),
        Quartiles::of(ratios).show(2)
    ))
}

fn run() -> Result<(), String> {
    let arguments = Arguments::read(env::args_os().skip(1))?;
    let version = match Command::new(QEMU).arg("--version").output() {
        Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return say(&format!(
                "no whole runs beside QEMU: there is no {QEMU} here; on Debian, \
                 apt-get install qemu-system-x86"
            ));
        }
        Err(error) => return Err(format!("{QEMU}: {error}")),
    };
    let version = version.lines().next().unwrap_or_default();
    say(&format!(
        "whole runs in ms, medians of {} pairs (quartiles), beside {version}, microvm\n\
         {:>5}  {:>26}  {:>26}  {:>22}",
        arguments.pairs, "vCPUs", "vmm", "QEMU", "QEMU/vmm"
    ))?;
    for vcpus in &arguments.vcpus {
        say(&compare(&arguments, *vcpus)?)?;
    }
    Ok(())
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| format!("cannot write the figures: {error}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("beside-qemu: {why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_figures() {
        let of = |figures: &[f64]| {
            let Quartiles {
                lower,
                median,
                upper,
            } = Quartiles::of(figures.to_vec());
            (lower, median, upper)
        };
        assert_eq!(of(&[7.0]), (7.0, 7.0, 7.0));
        assert_eq!(of(&[5.0, 1.0, 3.0, 2.0, 4.0]), (2.0, 3.0, 4.0));
        assert_eq!(of(&[1.0, 2.0]), (1.25, 1.5, 1.75));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let read = |line: &str| Arguments::read(line.split(' ').map(OsString::from));
        let read = read("vmm guest.bin 3 1,2").map(|it| (it.pairs, it.vcpus));
        assert_eq!(read, Ok((3, vec![1, 2])));
        for line in [
            "vmm",
            "vmm guest 0",
            "vmm guest x",
            "vmm guest 1 a",
            "a b 1 2 3",
        ] {
            let words = line.split(' ').map(OsString::from);
            assert!(Arguments::read(words).is_err(), "{line}");
        }
    }
}
