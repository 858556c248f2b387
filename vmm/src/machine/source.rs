//! Addresses of the guest as lines of its source, inlined functions included. Reads the image's
//! line tables and nothing else.

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, Error, LittleEndian};
use object::{Object, ObjectSection};
use rustc_demangle::demangle;

use crate::control_characters::spell_out_all;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

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
    /// The line tables of `image`; empty if it has none that can be read.
    pub fn read(image: &'a [u8]) -> Self {
        let Ok(file) = object::File::parse(image) else {
            return Self::default();
        };
        let load = |section: addr2line::gimli::SectionId| {
            let found = file.section_by_name(section.name());
            let bytes = found.and_then(|section| section.data().ok());
            Ok::<_, Error>(Bytes::new(bytes.unwrap_or_default(), LittleEndian))
        };
        let context = Dwarf::load(load).and_then(Context::from_dwarf);
        Self(context.ok())
    }

    /// The lines of the instruction at `address`: that of the innermost inlined function first,
    /// that of the function it was inlined into last. Empty if they are not known.
    pub fn places(&self, address: u64) -> Vec<SourceLine> {
        let Some(context) = &self.0 else {
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
