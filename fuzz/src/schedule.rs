//! A schedule, and what is computed of one before it is replayed.

use vmm::explore::schedule::{Schedule, is_fair_cycle};

/// Reads `data` as a schedule.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(schedule) = Schedule::parse(text) else {
        return;
    };
    let written = serde_json::to_string(&schedule).expect("JSON of strings and numbers");
    let again = Schedule::parse(&written).expect("what is written can be read again");
    assert_eq!(again, schedule);
    let _ = schedule.switches();
    let choices = schedule.turns.iter().map(|turn| turn.choice());
    assert!(is_fair_cycle(&schedule.turns, choices), "each of its choices is made");
}
