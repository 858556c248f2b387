//! A case: its lines, its deeds in a guest's words, and its conditions.

use vmm::explore::case::Case;

use crate::guest::MANIFEST;

/// Reads `data` as a case.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(case) = Case::parse(text) else { return };
    let again = Case::parse(&case.written).expect("as it is written it can be read again");
    assert_eq!(again, case);
    let _ = case.check_expected(&MANIFEST);
    let _ = case.expected("queue=fifo mask-check=off");
    if let Ok(commands) = case.commands(&MANIFEST) {
        assert_eq!(commands.len(), case.cpus as usize, "a program for each CPU");
        for command in commands.iter().flatten() {
            let words = MANIFEST.words(command);
            let (_, told) = MANIFEST.told(&words).expect("what is shown can be told again");
            assert_eq!(told.verb, command.verb);
        }
    }
}
