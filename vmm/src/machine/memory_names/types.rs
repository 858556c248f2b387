//! The statics of the guest and the layout of their types, read from the DWARF of its image into a
//! small model. Knows how rustc describes slices, vectors, trait objects and enums. A damaged image
//! is read as far as it makes sense, within a bound.

use std::collections::HashMap;

use addr2line::gimli::{
    self, AttributeValue, DebuggingInformationEntry, Dwarf, EndianSlice, LittleEndian, Reader,
    Section, SectionId, Unit, constants as dw,
};
use object::{Object, ObjectSection};

use crate::control_characters::spell_out_all;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = DebuggingInformationEntry<Bytes<'a>>;

/// A type, as an index of [`Types::all`].
pub type TypeId = u32;

/// Most work for one image, in entries and attributes that are read and bytes of abbreviations. The
/// guests here need a hundredth of it.
const MOST_WORK: usize = 64 << 20;

/// Most bytes of a section of abbreviations; the guests here have three thousand.
const MOST_ABBREVIATIONS: usize = 1 << 20;

/// Most bytes of a name.
const LONGEST_NAME: usize = 512;

/// A type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Type {
    /// Its name, without its module.
    pub name: String,
    /// Bytes of a value.
    pub size: u64,
    /// Whether it belongs to Rust's own libraries. Then the name of its only field is of no use to
    /// a reader.
    pub is_std: bool,
    /// What it is made of.
    pub shape: Shape,
}

/// What a type is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Shape {
    /// A scalar, whose parts have no names.
    #[default]
    Scalar,
    /// The address of a value.
    Pointer(TypeId),
    /// An alias of another type.
    Alias(TypeId),
    /// An array.
    Array {
        /// Of this type.
        of: TypeId,
        /// How many.
        count: u64,
    },
    /// A structure or an enum: fields, and perhaps variants of which the value has one.
    Struct {
        /// Fields that it always has.
        fields: Vec<Field>,
        /// The variants, if it is an enum.
        variants: Option<Variants>,
    },
    /// A slice or vector: the address and the number of its elements.
    Slice {
        /// Of this type.
        of: TypeId,
        /// Where the address is in it.
        address: u64,
        /// Where the number is in it.
        length: u64,
    },
    /// A trait object: the address of a value, whose type its vtable tells.
    Object {
        /// Where the value's address is in it.
        address: u64,
        /// Where the address of the vtable is in it.
        vtable: u64,
    },
}

/// A field of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is called.
    pub name: String,
    /// Where it begins.
    pub offset: u64,
    /// Its type.
    pub of: TypeId,
}

/// The variants of an enum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variants {
    /// The field that says which variant the value has, if there are several.
    pub discriminant: Option<Field>,
    /// Each variant with its discriminant. One without a discriminant is that of all other values.
    pub cases: Vec<(Option<u64>, Field)>,
}

/// A static variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub address: u64,
    /// Its type.
    pub of: TypeId,
}

/// The statics and types of a guest.
#[derive(Debug, Default)]
pub struct Types {
    /// The types.
    pub all: Vec<Type>,
    /// The statics.
    pub statics: Vec<Static>,
    /// By address of a vtable, the type whose methods it holds.
    pub vtables: HashMap<u64, TypeId>,
}

impl Types {
    /// Reads the debug information of `image`; empty if it has none that can be read.
    pub fn read(image: &[u8]) -> Self {
        let Ok(file) = object::File::parse(image) else {
            return Self::default();
        };
        let section = |id: SectionId| {
            let found = file.section_by_name(id.name());
            found
                .and_then(|section| section.data().ok())
                .unwrap_or_default()
        };
        Self::read_sections(section)
    }

    /// As [`Types::read`], from the sections of debug information.
    fn read_sections<'a>(section: impl Fn(SectionId) -> &'a [u8]) -> Self {
        if section(SectionId::DebugAbbrev).len() > MOST_ABBREVIATIONS {
            return Self::default();
        }
        let load = |id| Ok::<_, gimli::Error>(Bytes::new(section(id), LittleEndian));
        let Ok(dwarf) = Dwarf::load(load) else {
            return Self::default();
        };
        let mut reading = Reading {
            dwarf: &dwarf,
            types: Self::default(),
            known: HashMap::new(),
            elements: HashMap::new(),
            owners: HashMap::new(),
            tables: Vec::new(),
            work: MOST_WORK,
        };
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            let abbreviations = dwarf.debug_abbrev.reader().len();
            reading.work = reading.work.saturating_sub(abbreviations);
            if reading.work == 0 {
                break;
            }
            // A unit that is damaged is read up to where it makes no sense any more.
            if let Ok(unit) = dwarf.unit(header) {
                let _ = reading.unit(&unit);
            }
        }
        reading.finish()
    }

    /// The type `id`, aliases followed.
    pub fn get(&self, mut id: TypeId) -> Option<&Type> {
        // A longer chain of aliases is a circle.
        for _ in 0..8 {
            let found = self.all.get(id as usize)?;
            match found.shape {
                Shape::Alias(of) => id = of,
                _ => return Some(found),
            }
        }
        None
    }

    /// Bytes of a value of type `id`.
    pub fn size(&self, id: TypeId) -> u64 {
        match self.get(id) {
            None => 0,
            Some(found) => match found.shape {
                Shape::Array { of, count } if found.size == 0 => {
                    // DWARF gives no size for an array: it is that of its elements together.
                    let element = self.get(of).map_or(0, |element| match element.shape {
                        Shape::Array { of, count } if element.size == 0 => {
                            self.get(of).map_or(0, |it| it.size).saturating_mul(count)
                        }
                        _ => element.size,
                    });
                    element.saturating_mul(count)
                }
                _ => found.size,
            },
        }
    }

    /// Where the first address is in a value of type `id`.
    fn first_pointer(&self, id: TypeId, depth: u32) -> Option<u64> {
        let found = self.get(id)?;
        match &found.shape {
            Shape::Pointer(_) => Some(0),
            Shape::Struct { fields, .. } if depth > 0 => fields.iter().find_map(|field| {
                let inner = self.first_pointer(field.of, depth - 1)?;
                field.offset.checked_add(inner)
            }),
            _ => None,
        }
    }
}

/// What the children of an open entry belong to.
#[derive(Debug, Clone)]
enum Open {
    Namespace(String),
    Struct(TypeId),
    Variants(TypeId),
    Variant(TypeId, Option<u64>),
    Array(TypeId),
    Other,
}

/// The reader, with the model as far as it is made.
struct Reading<'r, 'a> {
    dwarf: &'r Dwarf<Bytes<'a>>,
    types: Types,
    /// By offset in the section, a type that was described or referred to.
    known: HashMap<usize, TypeId>,
    /// By type, its parameter `T`.
    elements: HashMap<TypeId, TypeId>,
    /// By type of a vtable, the type whose methods it holds.
    owners: HashMap<TypeId, TypeId>,
    /// Address and type of each vtable.
    tables: Vec<(u64, TypeId)>,
    work: usize,
}

impl<'a> Reading<'_, 'a> {
    /// Reads one unit.
    fn unit(&mut self, unit: &Unit<Bytes<'a>>) -> gimli::Result<()> {
        let mut entries = unit.entries_raw(None)?;
        let mut entry = Entry::null();
        let mut open: Vec<Open> = Vec::new();
        while !entries.is_empty() {
            let depth = usize::try_from(entries.next_depth()).unwrap_or(0);
            let is_one = entries.read_entry(&mut entry)?;
            self.work = self.work.saturating_sub(1 + entry.attrs().len());
            if self.work == 0 {
                return Ok(());
            }
            if !is_one {
                continue;
            }
            open.truncate(depth);
            let made = self.entry(unit, &entry, &open);
            if entry.has_children() {
                open.resize(depth, Open::Other);
                open.push(made);
            }
        }
        Ok(())
    }

    /// Reads one entry, which is inside those that are `open`. Returns what its children belong to.
    fn entry(&mut self, unit: &Unit<Bytes<'a>>, entry: &Entry<'a>, open: &[Open]) -> Open {
        let parent = open.last();
        match entry.tag() {
            dw::DW_TAG_namespace => Open::Namespace(self.name(unit, entry)),
            dw::DW_TAG_structure_type | dw::DW_TAG_union_type | dw::DW_TAG_class_type => {
                let id = self.describe(unit, entry, open);
                self.types.all[id as usize].shape = Shape::Struct {
                    fields: Vec::new(),
                    variants: None,
                };
                if let Some(of) = self.reference(unit, entry, dw::DW_AT_containing_type) {
                    self.owners.insert(id, of);
                }
                Open::Struct(id)
            }
            dw::DW_TAG_base_type | dw::DW_TAG_enumeration_type => {
                self.describe(unit, entry, open);
                Open::Other
            }
            dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type => {
                let id = self.describe(unit, entry, open);
                let of = self.reference(unit, entry, dw::DW_AT_type);
                let place = &mut self.types.all[id as usize];
                place.size = 8;
                place.shape = of.map_or(Shape::Scalar, Shape::Pointer);
                Open::Other
            }
            dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_atomic_type => {
                let id = self.describe(unit, entry, open);
                let of = self.reference(unit, entry, dw::DW_AT_type);
                self.types.all[id as usize].shape = of.map_or(Shape::Scalar, Shape::Alias);
                Open::Other
            }
            dw::DW_TAG_array_type => {
                let id = self.describe(unit, entry, open);
                if let Some(of) = self.reference(unit, entry, dw::DW_AT_type) {
                    self.types.all[id as usize].shape = Shape::Array { of, count: 0 };
                }
                Open::Array(id)
            }
            dw::DW_TAG_subrange_type => {
                if let Some(Open::Array(id)) = parent {
                    self.subrange(*id, entry);
                }
                Open::Other
            }
            dw::DW_TAG_template_type_parameter => {
                if let Some(Open::Struct(id)) = parent
                    && self.name(unit, entry) == "T"
                    && let Some(of) = self.reference(unit, entry, dw::DW_AT_type)
                {
                    self.elements.insert(*id, of);
                }
                Open::Other
            }
            dw::DW_TAG_variant_part => match parent {
                Some(Open::Struct(id)) => Open::Variants(*id),
                _ => Open::Other,
            },
            dw::DW_TAG_variant => match parent {
                Some(Open::Variants(id)) => {
                    let value = number(entry, dw::DW_AT_discr_value);
                    Open::Variant(*id, value)
                }
                _ => Open::Other,
            },
            dw::DW_TAG_member => {
                if let Some(of) = self.reference(unit, entry, dw::DW_AT_type) {
                    let field = Field {
                        name: self.name(unit, entry),
                        offset: number(entry, dw::DW_AT_data_member_location).unwrap_or(0),
                        of,
                    };
                    self.member(parent, field);
                }
                Open::Other
            }
            dw::DW_TAG_variable => {
                self.variable(unit, entry, open);
                Open::Other
            }
            _ => Open::Other,
        }
    }

    /// Adds the type that `entry` describes, with its name and size.
    fn describe(&mut self, unit: &Unit<Bytes<'a>>, entry: &Entry<'a>, open: &[Open]) -> TypeId {
        let offset = entry.offset().to_unit_section_offset(&unit.header).0;
        let id = self.id(offset);
        let outermost = open.iter().find_map(|open| match open {
            Open::Namespace(name) => Some(name.as_str()),
            _ => None,
        });
        self.types.all[id as usize] = Type {
            name: self.name(unit, entry),
            size: number(entry, dw::DW_AT_byte_size).unwrap_or(0),
            is_std: matches!(outermost, Some("core" | "alloc" | "std")),
            shape: Shape::Scalar,
        };
        id
    }

    fn id(&mut self, offset: usize) -> TypeId {
        let all = &mut self.types.all;
        *self.known.entry(offset).or_insert_with(|| {
            all.push(Type::default());
            u32::try_from(all.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn subrange(&mut self, id: TypeId, entry: &Entry<'a>) {
        let upper = number(entry, dw::DW_AT_upper_bound).and_then(|last| last.checked_add(1));
        let length = number(entry, dw::DW_AT_count).or(upper).unwrap_or(0);
        if let Shape::Array { count, .. } = &mut self.types.all[id as usize].shape {
            // An array of several dimensions is taken as one of all its elements.
            *count = if *count == 0 {
                length
            } else {
                count.saturating_mul(length)
            };
        }
    }

    /// Adds `field` to the entry that it is in.
    fn member(&mut self, parent: Option<&Open>, field: Field) {
        let Some(Open::Struct(id) | Open::Variants(id) | Open::Variant(id, _)) = parent else {
            return;
        };
        let Shape::Struct { fields, variants } = &mut self.types.all[*id as usize].shape else {
            return;
        };
        match parent {
            Some(Open::Variants(_)) => {
                variants.get_or_insert_default().discriminant = Some(field);
            }
            Some(Open::Variant(_, value)) => {
                let cases = &mut variants.get_or_insert_default().cases;
                cases.push((*value, field));
            }
            _ => fields.push(field),
        }
    }

    /// Reads a static or a vtable.
    fn variable(&mut self, unit: &Unit<Bytes<'a>>, entry: &Entry<'a>, open: &[Open]) {
        let Some(AttributeValue::Exprloc(location)) = entry.attr_value(dw::DW_AT_location) else {
            return;
        };
        let [code, address @ ..] = location.0.slice() else {
            return;
        };
        let (true, Ok(address)) = (*code == dw::DW_OP_addr.0, address.try_into()) else {
            return;
        };
        let address = u64::from_le_bytes(address);
        // In C a variable that was declared first has its name there, and perhaps its type.
        let declared = match entry.attr_value(dw::DW_AT_specification) {
            Some(AttributeValue::UnitRef(declared)) => unit.entry(declared).ok(),
            _ => None,
        };
        let declared = declared.as_ref().unwrap_or(entry);
        let own = self.reference(unit, entry, dw::DW_AT_type);
        let Some(of) = own.or_else(|| self.reference(unit, declared, dw::DW_AT_type)) else {
            return;
        };
        let name = self.name(unit, declared);
        if name.ends_with("{vtable}") {
            self.tables.push((address, of));
            return;
        }
        // Two statics of the same name are told apart by their modules.
        let module = open.iter().rev().find_map(|open| match open {
            Open::Namespace(name) if !name.starts_with('{') => Some(name.as_str()),
            _ => None,
        });
        let is_taken = self.types.statics.iter().any(|other| other.name == name);
        let name = match module {
            Some(module) if is_taken => format!("{module}::{name}"),
            _ => name,
        };
        self.types.statics.push(Static { name, address, of });
    }

    /// The type that an attribute of `entry` names.
    fn reference(
        &mut self,
        unit: &Unit<Bytes<'a>>,
        entry: &Entry<'a>,
        attribute: gimli::DwAt,
    ) -> Option<TypeId> {
        let offset = match entry.attr_value(attribute)? {
            AttributeValue::UnitRef(offset) => offset.to_unit_section_offset(&unit.header).0,
            AttributeValue::DebugInfoRef(offset) => offset.0,
            _ => return None,
        };
        Some(self.id(offset))
    }

    /// The name of `entry`. Names are cut off, since a damaged image can have many entries with one
    /// very long name.
    fn name(&self, unit: &Unit<Bytes<'a>>, entry: &Entry<'a>) -> String {
        let from = |section: &Bytes<'a>, offset: usize| section.slice().get(offset..);
        let dwarf = self.dwarf;
        let bytes = match entry.attr_value(dw::DW_AT_name) {
            Some(AttributeValue::String(name)) => Some(name.slice()),
            Some(AttributeValue::DebugStrRef(at)) => from(dwarf.debug_str.reader(), at.0),
            Some(AttributeValue::DebugLineStrRef(at)) => from(dwarf.debug_line_str.reader(), at.0),
            Some(AttributeValue::DebugStrOffsetsIndex(index)) => dwarf
                .string_offset(unit, index)
                .ok()
                .and_then(|at| from(dwarf.debug_str.reader(), at.0)),
            _ => None,
        };
        let bytes = bytes.unwrap_or_default();
        let end = bytes.len().min(LONGEST_NAME);
        let end = bytes[..end]
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(end);
        spell_out_all(&String::from_utf8_lossy(&bytes[..end])).into_owned()
    }

    /// Finishes the model with what is known only when all of it was read.
    fn finish(mut self) -> Types {
        for (address, of) in std::mem::take(&mut self.tables) {
            if let Some(owner) = self.owners.get(&of) {
                self.types.vtables.entry(address).or_insert(*owner);
            }
        }
        for id in 0..self.types.all.len() {
            let at = u32::try_from(id).unwrap_or(u32::MAX);
            if let Some(shape) = self.meaning(at) {
                self.types.all[id].shape = shape;
            }
        }
        self.types
    }

    /// The slice, vector or trait object that the fields of type `id` make up, if they do.
    fn meaning(&self, id: TypeId) -> Option<Shape> {
        let found = &self.types.all[id as usize];
        let Shape::Struct { fields, .. } = &found.shape else {
            return None;
        };
        let field = |name: &str| fields.iter().find(|field| field.name == name);
        if let (Some(address), Some(length)) = (field("data_ptr"), field("length")) {
            let Shape::Pointer(of) = self.types.get(address.of)?.shape else {
                return None;
            };
            return Some(Shape::Slice {
                of,
                address: address.offset,
                length: length.offset,
            });
        }
        if let (Some(address), Some(vtable)) = (field("pointer"), field("vtable")) {
            return Some(Shape::Object {
                address: address.offset,
                vtable: vtable.offset,
            });
        }
        if found.is_std && found.name.starts_with("Vec<") {
            let (buffer, length) = (field("buf")?, field("len")?);
            let inner = self.types.first_pointer(buffer.of, 8)?;
            return Some(Shape::Slice {
                of: *self.elements.get(&id)?,
                address: buffer.offset.checked_add(inner)?,
                length: length.offset,
            });
        }
        None
    }
}

/// The value of an attribute of `entry`, if it is a number.
fn number(entry: &Entry<'_>, attribute: gimli::DwAt) -> Option<u64> {
    let value = entry.attr_value(attribute)?;
    value
        .udata_value()
        .or_else(|| value.sdata_value().map(i64::cast_unsigned))
}

#[cfg(test)]
#[path = "types_test.rs"]
mod tests;
