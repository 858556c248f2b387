//! What a Linux kernel says of itself: the symbol tables in its data, and the lines of its log.

use vmm::kernel_log::KernelLog;
use vmm::machine::kallsyms;

/// Reads `data` as the one and as the other.
pub fn read(data: &[u8]) {
    for symbol in kallsyms::find(data) {
        assert!(!symbol.name.contains('\0'), "tokens end before a zero");
    }
    let mut log = KernelLog::default();
    for line in String::from_utf8_lossy(data).lines() {
        let _ = log.read(line);
    }
    let kept = log.complaints().len() as u64;
    assert!(kept <= log.total(), "what is kept was counted");
    let counted: u64 = log.counts().map(|(_, count)| count).sum();
    assert_eq!(counted, log.total(), "each is of one kind");
}
