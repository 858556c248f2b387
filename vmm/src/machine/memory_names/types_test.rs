//! Debug information that is small enough to be written by hand, read as it is and damaged in every
//! way.

use proptest::prelude::*;

use super::*;
use crate::machine::memory_names::walk::Names;

/// The forms that are used here.
const STRING: u8 = dw::DW_FORM_string.0 as u8;
const REF4: u8 = dw::DW_FORM_ref4.0 as u8;
const UDATA: u8 = dw::DW_FORM_udata.0 as u8;
const EXPRLOC: u8 = dw::DW_FORM_exprloc.0 as u8;

/// Kinds of entries: tag, whether it has children, attributes with their forms. Each has the number
/// of its place, from 1.
type Kind<'a> = (gimli::DwTag, bool, &'a [(gimli::DwAt, u8)]);

const KINDS: [Kind<'_>; 12] = [
    (dw::DW_TAG_compile_unit, true, &[]),
    (dw::DW_TAG_namespace, true, &[(dw::DW_AT_name, STRING)]),
    (dw::DW_TAG_base_type, false, NAME_AND_SIZE),
    (dw::DW_TAG_structure_type, true, NAME_AND_SIZE),
    (
        dw::DW_TAG_member,
        false,
        &[
            (dw::DW_AT_name, STRING),
            (dw::DW_AT_type, REF4),
            (dw::DW_AT_data_member_location, UDATA),
        ],
    ),
    (dw::DW_TAG_pointer_type, false, &[(dw::DW_AT_type, REF4)]),
    (dw::DW_TAG_array_type, true, &[(dw::DW_AT_type, REF4)]),
    (dw::DW_TAG_subrange_type, false, &[(dw::DW_AT_count, UDATA)]),
    (
        dw::DW_TAG_variable,
        false,
        &[
            (dw::DW_AT_name, STRING),
            (dw::DW_AT_type, REF4),
            (dw::DW_AT_location, EXPRLOC),
        ],
    ),
    (
        dw::DW_TAG_structure_type,
        true,
        &[(dw::DW_AT_name, STRING), (dw::DW_AT_containing_type, REF4)],
    ),
    (dw::DW_TAG_variant_part, true, &[]),
    (dw::DW_TAG_variant, true, &[(dw::DW_AT_discr_value, UDATA)]),
];

const NAME_AND_SIZE: &[(gimli::DwAt, u8)] =
    &[(dw::DW_AT_name, STRING), (dw::DW_AT_byte_size, UDATA)];

const UNIT: u8 = 1;
const NAMESPACE: u8 = 2;
const BASE: u8 = 3;
const STRUCT: u8 = 4;
const MEMBER: u8 = 5;
const POINTER: u8 = 6;
const ARRAY: u8 = 7;
const SUBRANGE: u8 = 8;
const VARIABLE: u8 = 9;
const TABLE: u8 = 10;
const VARIANTS: u8 = 11;
const VARIANT: u8 = 12;

/// A unit that is being written.
struct Info {
    bytes: Vec<u8>,
    /// Positions of references, each with the label that it refers to.
    references: Vec<(usize, &'static str)>,
    labels: Vec<(&'static str, usize)>,
}

impl Info {
    fn new() -> Self {
        // The length comes last; version 4, abbreviations from 0 on, addresses of 8 bytes.
        let bytes = vec![0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8];
        Self {
            bytes,
            references: Vec::new(),
            labels: Vec::new(),
        }
    }

    fn label(&mut self, label: &'static str) -> &mut Self {
        self.labels.push((label, self.bytes.len()));
        self
    }

    fn byte(&mut self, byte: u8) -> &mut Self {
        self.bytes.push(byte);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes.extend(text.bytes().chain([0]));
        self
    }

    fn to(&mut self, label: &'static str) -> &mut Self {
        self.references.push((self.bytes.len(), label));
        self.bytes.extend([0; 4]);
        self
    }

    fn at(&mut self, address: u64) -> &mut Self {
        self.bytes.extend([9, dw::DW_OP_addr.0]);
        self.bytes.extend(address.to_le_bytes());
        self
    }

    fn member(&mut self, name: &str, of: &'static str, offset: u8) -> &mut Self {
        self.byte(MEMBER).text(name).to(of).byte(offset)
    }

    fn end(&mut self) -> &mut Self {
        self.byte(0)
    }

    fn finish(&mut self) -> Vec<u8> {
        self.end();
        for (place, label) in &self.references {
            let found = self.labels.iter().find(|(other, _)| other == label);
            let (_, offset) = found.expect("a label");
            let offset = u32::try_from(*offset).unwrap().to_le_bytes();
            self.bytes[*place..*place + 4].copy_from_slice(&offset);
        }
        let length = u32::try_from(self.bytes.len() - 4).unwrap();
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        std::mem::take(&mut self.bytes)
    }
}

fn abbreviations() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (tag, has_children, attributes)) in (1..).zip(KINDS) {
        bytes.extend([number, u8::try_from(tag.0).unwrap(), u8::from(has_children)]);
        for (attribute, form) in attributes {
            bytes.extend([u8::try_from(attribute.0).unwrap(), *form]);
        }
        bytes.extend([0, 0]);
    }
    bytes.push(0);
    bytes
}

/// `GUEST`, at 0x1000: the address of a structure with a lock, two words, a slice, an object and
/// what it may have.
fn guest() -> Vec<u8> {
    let mut info = Info::new();
    info.byte(UNIT);
    info.byte(NAMESPACE).text("guest");
    info.byte(VARIABLE).text("GUEST").to("pointer").at(0x1000);
    info.label("guest").byte(STRUCT).text("Guest").byte(96);
    info.member("lock", "atomic", 0).member("cpus", "array", 8);
    info.member("list", "slice", 24)
        .member("many", "object", 40);
    info.member("heap", "option", 56).end();
    info.label("locked").byte(STRUCT).text("Locked").byte(8);
    info.member("held", "word", 0).end();
    info.end();
    info.byte(NAMESPACE).text("core");
    info.label("atomic").byte(STRUCT).text("Atomic").byte(8);
    info.member("v", "word", 0).end();
    info.label("option")
        .byte(STRUCT)
        .text("Option<Locked>")
        .byte(16);
    info.byte(VARIANTS).member("", "word", 0);
    info.byte(VARIANT).byte(0).member("None", "none", 0).end();
    info.byte(VARIANT).byte(1).member("Some", "some", 0).end();
    info.end().end();
    info.label("none").byte(STRUCT).text("None").byte(16).end();
    info.label("some").byte(STRUCT).text("Some").byte(16);
    info.member("__0", "locked", 8).end();
    info.end();
    info.label("word").byte(BASE).text("u64").byte(8);
    info.label("pointer").byte(POINTER).to("guest");
    info.label("to_word").byte(POINTER).to("word");
    info.label("array")
        .byte(ARRAY)
        .to("word")
        .byte(SUBRANGE)
        .byte(2)
        .end();
    info.label("slice").byte(STRUCT).text("&[u64]").byte(16);
    info.member("data_ptr", "to_word", 0)
        .member("length", "word", 8)
        .end();
    info.label("object")
        .byte(STRUCT)
        .text("Box<dyn Queue>")
        .byte(16);
    info.member("pointer", "to_word", 0)
        .member("vtable", "to_word", 8)
        .end();
    info.label("table")
        .byte(TABLE)
        .text("{vtable_type}")
        .to("locked")
        .end();
    info.byte(VARIABLE)
        .text("<Locked as Queue>::{vtable}")
        .to("table")
        .at(0x800);
    info.finish()
}

fn read(info: &[u8], abbreviations: &[u8]) -> Types {
    // They live as long as the sections of a file that is read.
    Types::read_sections(|id| match id {
        SectionId::DebugInfo => info,
        SectionId::DebugAbbrev => abbreviations,
        _ => &[],
    })
}

/// What the guest of [`guest`] has in memory.
fn word(address: u64) -> Option<u64> {
    let is_there = address.is_multiple_of(8) && address < 0x10000;
    is_there.then_some(match address {
        0x1000 => 0x2000,
        0x2018 => 0x3000,
        0x2020 => 2,
        0x2028 => 0x4000,
        0x2030 => 0x800,
        0x2038 => 1,
        _ => 0,
    })
}

#[test]
fn what_rustc_writes_of_types_is_understood() {
    let types = read(&guest(), &abbreviations());
    let names = Names::find(&types, word);
    for (address, name) in [
        (0x1000, "GUEST"),
        (0x2000, "GUEST.lock"),
        (0x2010, "GUEST.cpus[1]"),
        (0x3008, "GUEST.list[1]"),
        (0x4000, "GUEST.many.held"),
        (0x2040, "GUEST.heap.held"),
    ] {
        assert_eq!(names.name(address).as_deref(), Some(name), "{address:#x}");
    }
    assert_eq!(names.name(0x3010), None);
}

#[test]
fn an_image_without_debug_information_has_no_types() {
    for image in [&b"garbage"[..], b"", b"\x7fELF"] {
        let types = Types::read(image);
        assert!(types.all.is_empty() && types.statics.is_empty());
    }
}

#[test]
fn types_that_are_made_of_themselves_end_somewhere() {
    let mut info = Info::new();
    info.byte(UNIT);
    info.byte(VARIABLE).text("GUEST").to("array").at(0x1000);
    info.label("array")
        .byte(ARRAY)
        .to("array")
        .byte(SUBRANGE)
        .byte(2)
        .end();
    info.label("self").byte(STRUCT).text("Self").byte(8);
    info.member("self", "self", 0).end();
    info.byte(VARIABLE).text("OTHER").to("self").at(0x1008);
    let names = Names::find(&read(&info.finish(), &abbreviations()), word);
    assert!(names.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Damaged debug information has other names, or none. Reading it neither hangs nor panics.
    #[test]
    fn no_damage_panics_or_hangs(
        changes in proptest::collection::vec((any::<bool>(), any::<u16>(), any::<u8>()), 1..8),
        info_end in proptest::option::weighted(0.2, any::<u16>()),
        abbreviations_end in proptest::option::weighted(0.2, any::<u16>()),
    ) {
        let (mut info, mut abbreviations) = (guest(), abbreviations());
        for (in_info, place, byte) in changes {
            let section = if in_info { &mut info } else { &mut abbreviations };
            let place = usize::from(place) % section.len();
            section[place] = byte;
        }
        for (section, end) in [(&mut info, info_end), (&mut abbreviations, abbreviations_end)] {
            if let Some(end) = end {
                section.truncate(usize::from(end) % section.len());
            }
        }
        let names = Names::find(&read(&info, &abbreviations), word);
        let _ = names.name(0x2000);
    }
}
