//! Sleeping until something is done, on a CPU that others may need meanwhile.

use crate::platform::Platform;
use crate::specimen::Next;

/// Sleeps until `done`. Each time before it sleeps, it does what is to be done between two
/// operations of this CPU's task (`between`), and does not sleep while `is_wanted` for that. A CPU
/// that makes either true must wake this one.
pub fn idle_until<P: Platform>(
    platform: &P,
    done: impl Fn() -> bool,
    between: impl Fn() -> Next,
    is_wanted: impl Fn() -> bool,
) -> Next {
    loop {
        if between() == Next::Leave {
            return Next::Leave;
        }
        if done() {
            return Next::Stay;
        }
        platform.idle_unless(&|| done() || is_wanted());
    }
}
