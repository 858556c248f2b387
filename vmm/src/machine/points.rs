//! The probes of a guest image: named points in its code at which a CPU can be held. They are read
//! from the image file ([`shared::probe`]) before anything runs, and nothing in it is trusted.

use object::{Object, ObjectSection};
use shared::probe::{FILE_LEN, MAX_POINTS, NAME_LEN, Point as Raw, SECTION};

/// A probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its place in the image's section, from 0.
    pub index: usize,
    /// Its name. Several probes can have the same name.
    pub name: String,
    /// The source file it stands in.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The address of the probe in the guest, by which the guest refers to it.
    pub address: u64,
}

impl Point {
    /// Address of [`Raw::armed`].
    pub fn armed_address(&self) -> u64 {
        self.address + std::mem::offset_of!(Raw, armed) as u64
    }
}

/// The probes of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Points(Vec<Point>);

/// Why the probes of an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointsError {
    /// The section has another layout.
    #[error(
        "the guest image's section {SECTION} has {0} bytes, which is no whole number of probes up \
         to {MAX_POINTS}"
    )]
    Size(u64),
    /// A probe that has no proper name or file.
    #[error("probe {0} of the guest image (section {SECTION}) has no readable name or file")]
    Text(usize),
    /// The section reaches beyond the end of the address space.
    #[error("the guest image's section {SECTION} lies at {0:#x}, where no memory is")]
    Address(u64),
}

impl Points {
    /// The probes of `image`; empty if it has no such section, or is not an image that can be read.
    ///
    /// # Errors
    /// [`PointsError`] if the section is not as this VMM expects it.
    pub fn read(image: &[u8]) -> Result<Self, PointsError> {
        let Ok(file) = object::File::parse(image) else {
            return Ok(Self::default());
        };
        let Some(section) = file.section_by_name(SECTION) else {
            return Ok(Self::default());
        };
        let size = section.size();
        let bytes = section.data().unwrap_or_default();
        let whole = bytes.len() as u64 == size && bytes.len() % size_of::<Raw>() == 0;
        if !whole || bytes.len() / size_of::<Raw>() > MAX_POINTS {
            return Err(PointsError::Size(size));
        }
        let start = section.address();
        if start.checked_add(size).is_none() {
            return Err(PointsError::Address(start));
        }
        let points = bytes.chunks_exact(size_of::<Raw>()).enumerate();
        points
            .map(|(index, bytes)| {
                let address = start + (index * size_of::<Raw>()) as u64;
                point(index, bytes, address).ok_or(PointsError::Text(index))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// All of them, in the order of the section.
    pub fn iter(&self) -> impl Iterator<Item = &Point> {
        self.0.iter()
    }

    /// Those of that name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Point> {
        self.0.iter().filter(move |point| point.name == name)
    }

    /// The one at that address.
    pub fn at(&self, address: u64) -> Option<&Point> {
        self.0.iter().find(|point| point.address == address)
    }
}

fn point(index: usize, bytes: &[u8], address: u64) -> Option<Point> {
    let (name, rest) = bytes.split_at_checked(NAME_LEN)?;
    let (file, rest) = rest.split_at_checked(FILE_LEN)?;
    let line = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
    Some(Point {
        index,
        name: text(name)?,
        file: text(file)?,
        line,
        address,
    })
}

/// Printable text up to the first zero byte.
fn text(bytes: &[u8]) -> Option<String> {
    let length = bytes.iter().position(|byte| *byte == 0);
    let text = str::from_utf8(&bytes[..length.unwrap_or(bytes.len())]).ok()?;
    let printable = !text.is_empty() && !text.contains(char::is_control);
    printable.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(name: &str, line: u8) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Raw>()];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[NAME_LEN..][..4].copy_from_slice(b"a.rs");
        bytes[NAME_LEN + FILE_LEN] = line;
        bytes
    }

    fn image(section: &[u8], address: u64) -> Vec<u8> {
        ::tests::image::with_section(SECTION, section, address)
    }

    #[test]
    fn probes_are_found_with_their_places() {
        let section = [raw("queue.visit", 7), raw("queue.visit", 9), raw("x", 1)].concat();
        let points = Points::read(&image(&section, 0x20_0000)).unwrap();
        let lines: Vec<_> = points.named("queue.visit").map(|it| it.line).collect();
        assert_eq!(lines, [7, 9]);
        let last = points.at(0x20_0100).unwrap();
        assert_eq!((&*last.name, &*last.file, last.index), ("x", "a.rs", 2));
        assert_eq!(last.armed_address(), 0x20_0100 + 100);
        assert_eq!(points.at(0x20_0101), None);
    }

    #[test]
    fn a_section_of_another_make_is_refused() {
        let refused = |section: &[u8], address| Points::read(&image(section, address)).unwrap_err();
        assert_eq!(refused(&[0; 100], 0), PointsError::Size(100));
        assert_eq!(refused(&raw("", 1), 0), PointsError::Text(0));
        assert_eq!(refused(&raw("a\nb", 1), 0), PointsError::Text(0));
        let many = raw("x", 1).repeat(MAX_POINTS + 1);
        assert!(matches!(refused(&many, 0), PointsError::Size(_)));
        let far = u64::MAX - 10;
        assert_eq!(refused(&raw("x", 1), far), PointsError::Address(far));
        assert_eq!(Points::read(b"no image"), Ok(Points::default()));
    }

    proptest! {
        #[test]
        fn nothing_in_an_image_makes_it_panic(
            at in 0_usize..2048,
            byte in any::<u8>(),
            section in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut image = image(&section, 0x20_0000);
            if let Some(place) = image.get_mut(at) {
                *place = byte;
            }
            let _ = Points::read(&image);
        }
    }
}
