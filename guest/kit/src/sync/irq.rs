//! Interrupts off for the length of a scope, as Linux's `local_irq_save`/`local_irq_restore`.

use crate::platform::Platform;

/// Runs `body` with interrupts disabled and puts the interrupt flag back as it was.
pub fn irqs_off<P: Platform, R>(platform: &P, body: impl FnOnce() -> R) -> R {
    let were_on = platform.irqs_enabled();
    platform.irqs_disable();
    let result = body();
    if were_on {
        platform.irqs_enable();
    }
    result
}
