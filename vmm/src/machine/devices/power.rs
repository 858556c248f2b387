//! The ways in which a guest turns its machine off or resets it: ACPI's sleep and reset registers,
//! and the keyboard controller's pulse of a PC. Only says what a write means.

use super::Effect;

/// The sleep control register of a hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL: u16 = 0x600;
/// Its status register, in which nothing ever happens: no sleep but the last is offered.
pub const SLEEP_STATUS: u16 = 0x601;
/// The reset register (ACPI 6.5, 4.8.3.6).
pub const RESET: u16 = 0x602;
/// What is written there.
pub const RESET_VALUE: u8 = 1;
/// The type of the sleep state S5, off, which the DSDT names too.
pub const S5: u8 = 5;

/// The command port of a PC's keyboard controller (8042), of which only the reset is there.
pub const KEYBOARD: u8 = 0x64;
/// Its command that pulses lines of its output port, those whose bit is 0: here the first, which resets
/// the processor.
pub const PULSE_RESET: u8 = 0xf0 | 0b1110;
/// In the sleep control register: enter the state.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE: u8 = 7;

/// What it means that `value` is written to `port`; `None` if that is none of these.
pub(super) fn written(port: u16, value: u8) -> Option<Effect> {
    const KEYBOARD_PORT: u16 = KEYBOARD as u16;
    match (port, value) {
        (SLEEP_CONTROL, _) => {
            let is_off = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE == S5;
            Some(match is_off && value & SLEEP_ENABLE != 0 {
                true => Effect::PowerOff,
                false => Effect::None,
            })
        }
        (SLEEP_STATUS, _) => Some(Effect::None),
        (RESET, RESET_VALUE) | (KEYBOARD_PORT, PULSE_RESET) => Some(Effect::Reset),
        _ => None,
    }
}

/// Whether one of ACPI's registers is at `port`. They read as zero.
pub(super) fn is_there(port: u16) -> bool {
    [SLEEP_CONTROL, SLEEP_STATUS, RESET].contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_sleep_turns_it_off_and_only_when_enabled() {
        let off = S5 << 2 | SLEEP_ENABLE;
        assert_eq!(written(SLEEP_CONTROL, off), Some(Effect::PowerOff));
        assert_eq!(written(SLEEP_CONTROL, S5 << 2), Some(Effect::None));
        assert_eq!(
            written(SLEEP_CONTROL, 3 << 2 | SLEEP_ENABLE),
            Some(Effect::None)
        );
        assert_eq!(written(RESET, RESET_VALUE), Some(Effect::Reset));
        assert_eq!(written(KEYBOARD.into(), PULSE_RESET), Some(Effect::Reset));
        assert_eq!(written(KEYBOARD.into(), 0xaa), None);
        assert!(is_there(RESET) && !is_there(KEYBOARD.into()));
    }
}
