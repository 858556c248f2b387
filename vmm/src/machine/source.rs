//! Addresses of the guest as lines of its source, inlined functions included. Reads the image's
//! line tables and nothing else.

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, Error, LittleEndian};
use object::{Object, ObjectSection};
use rustc_demangle::demangle;

use crate::control_characters::spell_out_all;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Most entries of debug information that lie one within another. `addr2line` calls itself for each
/// function that is inlined into another one, and the stack of a thread has room for some thousands.
/// Compilers come to some dozens.
const DEEPEST: isize = 512;

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The file, by the path that the compiler was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The function, without parameters.
    pub function: String,
}

/// The line tables of an image.
#[derive(Default)]
pub struct Source<'a>(Option<Context<Bytes<'a>>>);

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.0.is_some()).finish()
    }
}

impl<'a> Source<'a> {
    /// The line tables of `image`; empty if it has none that can be read, or entries that lie too deep
    /// within one another.
    pub fn read(image: &'a [u8]) -> Self {
        let Ok(file) = object::File::parse(image) else {
            return Self::default();
        };
        let load = |section: addr2line::gimli::SectionId| {
            let found = file.section_by_name(section.name());
            let bytes = found.and_then(|section| section.data().ok());
            Ok::<_, Error>(Bytes::new(bytes.unwrap_or_default(), LittleEndian))
        };
        let dwarf = Dwarf::load(load).ok().filter(is_shallow);
        Self(dwarf.and_then(|dwarf| Context::from_dwarf(dwarf).ok()))
    }

    /// The lines of the instruction at `address`: that of the innermost inlined function first,
    /// that of the function it was inlined into last. Empty if they are not known.
    pub fn places(&self, address: u64) -> Vec<SourceLine> {
        // `addr2line` looks for what ends behind the next address, and there is none behind the last.
        let Some(context) = self.0.as_ref().filter(|_| address != u64::MAX) else {
            return Vec::new();
        };
        let Ok(mut frames) = context.find_frames(address).skip_all_loads() else {
            return Vec::new();
        };
        let mut places = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            let (Some(file), Some(line)) = (
                location.and_then(|it| it.file),
                location.and_then(|it| it.line),
            ) else {
                continue;
            };
            let name = frame.function.as_ref().map(|it| it.name);
            let function = name.map_or_else(String::new, |name| {
                let name = String::from_utf8_lossy(name.slice());
                spell_out_all(&format!("{:#}", demangle(&name))).into_owned()
            });
            places.push(SourceLine {
                file: spell_out_all(file).into_owned(),
                line,
                function,
            });
        }
        places
    }
}

/// Whether no entry of a unit that can be read lies deeper than [`DEEPEST`].
fn is_shallow(dwarf: &Dwarf<Bytes<'_>>) -> bool {
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let Ok(abbreviations) = dwarf.abbreviations(&header) else {
            continue;
        };
        let Ok(mut entries) = header.entries_raw(&abbreviations, None) else {
            continue;
        };
        // What cannot be read here, `addr2line` cannot read either.
        while !entries.is_empty() {
            if entries.next_depth() > DEEPEST {
                return false;
            }
            let skipped = match entries.read_abbreviation() {
                Ok(Some(abbreviation)) => entries.skip_attributes(abbreviation.attributes()),
                other => other.map(drop),
            };
            if skipped.is_err() {
                break;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debug information of DWARF 4: a unit, a function in it, and as many as asked for that are
    /// inlined each into the one before. All are at the same addresses.
    fn inlined(deep: usize) -> Vec<u8> {
        // Each with children, where it begins (an address), and how long it is (4 bytes).
        let abbreviation = |code, tag| [code, tag, 1, 0x11, 0x01, 0x12, 0x06, 0, 0];
        let (unit, function, inlined) = (0x11, 0x2e, 0x1d);
        let all = [(1, unit), (2, function), (3, inlined)];
        let mut abbreviations: Vec<u8> = all.map(|(code, tag)| abbreviation(code, tag)).concat();
        abbreviations.push(0);
        let entry = |code: u8| {
            let (start, length) = (0x10_0000_u64.to_le_bytes(), 0x1000_u32.to_le_bytes());
            [&[code][..], &start, &length].concat()
        };
        let mut entries = [entry(1), entry(2), entry(3).repeat(deep)].concat();
        entries.resize(entries.len() + deep + 2, 0);
        let mut info = Vec::new();
        info.extend((entries.len() as u32 + 7).to_le_bytes());
        info.extend([4, 0, 0, 0, 0, 0, 8]);
        info.extend(entries);
        let sections: [(&str, &[u8], u64); 2] = [
            (".debug_abbrev", &abbreviations, 0),
            (".debug_info", &info, 0),
        ];
        ::tests::image::with_sections(&sections)
    }

    #[test]
    fn what_is_inlined_without_end_is_not_followed() {
        let shallow = inlined(100);
        let source = Source::read(&shallow);
        assert!(source.0.is_some(), "what compilers do is read");
        assert_eq!(source.places(0x10_0010), []);
        let deep = inlined(1_000_000);
        let source = Source::read(&deep);
        assert_eq!(source.places(0x10_0010), []);
    }

    #[test]
    fn nothing_stands_at_the_last_address() {
        let ours = std::fs::read("/proc/self/exe").expect("this program");
        let source = Source::read(&ours);
        assert!(source.0.is_some(), "it has line tables");
        assert_eq!(source.places(u64::MAX), []);
    }
}
