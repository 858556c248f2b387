//! Boots a guest that is busy, pauses one of its CPUs wherever it happens to be, looks at it, and
//! lets it go on.
//!
//! ```sh
//! cargo run --release --package vmm --example pause_and_look -- target/guest.bin
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use vmm::{Config, Wait, Watch};

/// Longest time to wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let guest = env::args().nth(1);
    let guest = guest.ok_or("name a guest image, such as target/guest.bin")?;
    let config = Config::new(guest)
        .vcpus(2)
        .append("workload=stress calls=1000000000");
    let machine = vmm::start(&config)?;
    let operator = machine.operator();
    operator.wait_started(Wait::up_to(PATIENCE))?;

    operator.pause(1)?;
    let look = operator.look(1)?;
    println!("CPU 1 is paused in {}", look.place);
    for (name, value) in look.dump.registers() {
        println!("{name:>6} {value:#018x}");
    }
    println!(
        "interrupts are {}",
        match look.dump.interrupts_on() {
            true => "on",
            false => "off",
        }
    );

    // It stays there for as long as it is paused, whatever the other CPU does.
    let again = operator.look(1)?.dump.registers();
    println!(
        "a second look finds {}",
        match again == look.dump.registers() {
            true => "the same",
            false => "something else",
        }
    );

    // It goes on, and is held when it enters the handler of its next IPI.
    operator.hold_at(1, Watch::at("irq.enter"))?;
    operator.resume(1)?;
    operator.wait_held(1, Wait::up_to(PATIENCE))?;
    let look = operator.look(1)?;
    println!(
        "CPU 1 has gone on to {}, in {}",
        look.probe.as_deref().unwrap_or("no point"),
        look.place
    );

    // The workload would take hours.
    operator.quit();
    let outcome = machine.wait()?;
    println!("{}", outcome.report.message);
    Ok(())
}
