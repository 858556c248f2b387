//! The probes of an image: the records of its section, wherever the image says that it lies.

use shared::probe::SECTION;
use vmm::machine::points::Points;

/// Reads `data` as an address and the section.
pub fn read(data: &[u8]) {
    let Some((address, section)) = data.split_first_chunk() else {
        return;
    };
    let image = tests::image::with_section(SECTION, section, u64::from_le_bytes(*address));
    let Ok(points) = Points::read(&image) else {
        return;
    };
    for point in points.iter() {
        let _ = point.armed_address();
        assert!(points.at(point.address).is_some());
        assert!(points.named(&point.name).count() >= 1);
    }
}
