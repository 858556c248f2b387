//! Guests that write where the VMM tells them at which accesses they need not stop
//! (`shared/src/passing.rs`). Nothing is claimed of them, and the VMM goes on to its end.

use std::fs;

use tests::{Run, need_kvm};

use super::explore;
use super::workshop::{self, Change};

const ACCESS: &str = "guest/kit/src/metal/access.rs";

const CASE: &str = "cpus 2\n0: single 1 wait\n1: single 0\n";

const SOUND: &str = "
    situation.store(situation.load(Ordering::Relaxed) | EVERY, Ordering::Relaxed);
";

fn search(name: &str, broken: &'static str) -> Run {
    need_kvm();
    let change = Change {
        file: ACCESS,
        sound: SOUND,
        broken,
    };
    let image = workshop::build(name, &change);
    let case = workshop::directory().join(format!("{name}.case"));
    fs::write(&case, CASE).expect("room for a case");
    explore(&case, &image, "queue=filo").run()
}

#[test]
fn a_table_that_the_guest_has_written_makes_a_search_void() {
    let broken = "
    situation.store(situation.load(Ordering::Relaxed) | EVERY, Ordering::Relaxed);
    PASSING.0[SIZE / 8 - 1].store(7, Ordering::Relaxed);
";
    search("writes-the-table", broken)
        .ends_with(3)
        .complains_of("the guest has written to ");
}

#[test]
fn a_situation_that_the_guest_makes_up_makes_a_search_void() {
    let broken = "
    situation.store(u64::MAX, Ordering::Relaxed);
";
    search("makes-up-its-situation", broken)
        .ends_with(3)
        .complains_of("is not in the situation");
}
