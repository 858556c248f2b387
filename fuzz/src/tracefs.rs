//! The description of a tracepoint in tracefs.

use vmm::stats::tracepoints::format::Format;

/// Reads `data` as a `format` file.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(format) = Format::parse(text) {
        assert!(format.fields.iter().all(|field| format.has(field)));
        assert!(format.fields.len() <= text.lines().count());
    }
}
