//! Runs a guest's workload to its end, and counts its IPIs: how many each CPU sent and received,
//! and how often its vCPU left the guest for the VMM meanwhile, and for KVM if this host counts
//! that.
//!
//! ```sh
//! cargo run --release --package vmm --example count_ipis -- target/guest.bin [WORD…]
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use vmm::Config;
use vmm::stats::sources::Trials;
use vmm::stats::window::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let guest = words.next();
    let guest = guest.ok_or("name a guest image, such as target/guest.bin")?;
    let config = Config::new(guest)
        .vcpus(4)
        .append(&words.collect::<Vec<_>>().join(" "))
        // Tries meanwhile whether this host's KVM counts what it says it counts.
        .sources(Trials::begin())
        .timeout(Duration::from_secs(300));
    let report = vmm::run(&config)?.report;

    println!("CPU      sent  received  exits to vmm  exits to KVM");
    for cpu in &report.per_vcpu {
        let exits: u64 = cpu.exits.values().sum();
        let all = match cpu.kvm.get("exits") {
            Some(Value::One(exits)) => exits.to_string(),
            _ => "-".to_owned(),
        };
        let id = cpu.id;
        let [sent, received] = [cpu.ipi_sent, cpu.ipi_received].map(Option::unwrap_or_default);
        println!("{id:>3} {sent:>9} {received:>9} {exits:>13} {all:>13}");
    }
    let ipis = report.ipi.as_ref();
    let ipis = ipis.ok_or("the guest knows of no lab in which it would count IPIs")?;
    println!("{} IPIs to {} targets", ipis.sent, ipis.targets);
    for (transport, sent) in ipis.by_transport.iter().filter(|(_, sent)| **sent > 0) {
        println!("{sent} by {transport}");
    }
    match (ipis.exits_per_ipi, &ipis.exits_unknown) {
        (Some(exits), _) => println!("{exits:.2} exits for each IPI"),
        (None, Some(why)) => println!("exits for each IPI are not known: {why}"),
        (None, None) => println!("exits for each IPI are not known"),
    }
    println!("{}", report.message);
    match report.exit_status {
        0 => Ok(()),
        _ => Err("the guest did not pass".into()),
    }
}
