//! The call that was lost in February 2009 ("generic-ipi: remove kmalloc()", Paul E. McKenney's
//! reply), told in Rust: with elements queued at the tail it is lost, with elements queued at the
//! head it is not. docs/lost-call.md tells why.
//!
//! ```sh
//! cargo run --release --package vmm --example scenario -- target/guest.bin
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use vmm::cpus::CpuSet;
use vmm::{Config, Wait, Watch};

/// Longest time to wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the story with the design called `queue`. Returns whether CPU 3's call ran on CPU 2, and
/// what the oracles say.
fn tell(guest: &str, queue: &str) -> Result<(bool, String), Box<dyn Error>> {
    let config = Config::new(guest).vcpus(5).append("workload=puppet");
    let machine = vmm::start(&config.append(&format!("queue={queue}")))?;
    let operator = machine.operator();
    let wait = Wait::up_to(PATIENCE);
    let tell = |cpu, words| operator.tell(cpu, words, wait);

    // CPU 1 is away, and so is CPU 4, so that CPU 3's element stays on the list to the end.
    for cpu in [1, 4] {
        operator.wait_done(tell(cpu, "irqs-off")?, wait)?;
    }
    // CPU 0 calls CPUs 1 and 3. CPU 3 answers, CPU 1 cannot.
    let first = operator.call(tell(0, "call-many 1,3")?, wait)?;
    operator.wait_ran(first, &CpuSet::from_iter([3]), wait)?;
    // CPU 3 calls CPUs 2 and 4. CPU 2 takes the interrupt and comes to CPU 0's element.
    operator.hold_at(2, Watch::at("queue.visit").with_call(first))?;
    let theirs = operator.call(tell(3, "call-many 2,4")?, wait)?;
    operator.wait_held(2, wait)?;
    // CPU 1 is back. It was the last target of CPU 0's call, so that the call's element is free.
    tell(1, "irqs-on")?;
    operator.wait_ran(first, &CpuSet::from_iter([1, 3]), wait)?;
    // CPU 0 calls again, with the element that CPU 2 is looking at.
    let ticket = tell(0, "call-many 1,3")?;
    operator.wait_done(ticket, wait)?;
    let second = operator.call(ticket, wait)?;
    // CPU 2 goes on. It does what it is told only after its walk.
    operator.resume(2)?;
    operator.wait_ran(second, &CpuSet::from_iter([1, 3]), wait)?;
    operator.wait_done(tell(2, "idle")?, wait)?;
    let record = operator.record(theirs).ok_or("the call has no record")?;
    let has_run = record.ran.iter().any(|cpu| cpu == 2);

    tell(4, "irqs-on")?;
    operator.wait_ran(theirs, &CpuSet::from_iter([4]), wait)?;
    operator.finish(wait)?;
    Ok((has_run, machine.wait()?.report.message))
}

fn main() -> Result<(), Box<dyn Error>> {
    let guest = env::args().nth(1);
    let guest = guest.ok_or("name a guest image, such as target/guest.bin")?;
    for queue in ["fifo", "filo"] {
        let (has_run, message) = tell(&guest, queue)?;
        let came = if has_run { "ran on" } else { "is lost on" };
        println!("queue={queue}: CPU 3's call {came} CPU 2; {message}");
    }
    Ok(())
}
