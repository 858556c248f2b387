//! A guest image: its headers, its notes, and the copy of its segments into memory.

use std::path::Path;

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm::machine::guest::Guest;
use vmm::machine::image::Image;
use vmm::machine::points::Points;
use vmm::manifest::Manifest;

/// Reads `data` as an image, and loads it if it is one.
pub fn read(data: &[u8]) {
    // Both are also read of what is no guest.
    let _ = Points::read(data);
    let _ = Manifest::read(data);
    let opened = Guest::bytes("image", data).open();
    let checked = Image::from_bytes(Path::new("image"), data);
    assert_eq!(opened.is_ok(), checked.is_ok(), "a guest is an image");
    let Ok(image) = checked else { return };
    assert!(image.entry() < image.end(), "the entry lies in a segment");
    let size = usize::try_from(image.end()).expect("below the device gap");
    if let Ok(memory) = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), size)]) {
        let _ = image.load(&memory);
    }
}
