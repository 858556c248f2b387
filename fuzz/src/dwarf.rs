//! Debug information and symbols of an image, as they are used: addresses as functions and lines,
//! functions as addresses, and words of memory by the statics that lead there. The memory is the
//! image itself.

use std::sync::Arc;

use vmm::machine::memory_names;
use vmm::machine::source::Source;
use vmm::machine::symbols::{self, Symbols};

/// Reads `data` as an image, and asks for some of what is in it.
pub fn read(data: &[u8]) {
    let image: Arc<[u8]> = data.into();
    let symbols = Symbols::of(&image);
    let source = Source::read(data);
    // Addresses from the file itself: some of these are where something is.
    let words = data.chunks_exact(8).step_by(data.len() / 2048 + 1);
    let found = words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    for address in found.chain([0, 0x10_0000, 0x20_0000, 0x40_1000, u64::MAX]) {
        let _ = symbols.place(address);
        for place in source.places(address) {
            let _ = symbols::readable(&place.function);
        }
        if let Some(function) = symbols.function(address) {
            let _ = symbols.address(function);
        }
    }
    let memory = |address: u64| {
        let at = usize::try_from(address & 0xf_ffff).ok()?;
        let word = data.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(word.try_into().expect("eight bytes")))
    };
    let names = memory_names::names(data, memory);
    for address in (0..0x400).step_by(8) {
        if let Some(name) = names.name(address) {
            let _ = names.find_named(&name);
        }
        let _ = names.in_word(address);
    }
}
