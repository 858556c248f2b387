//! Addresses of the guest as names of its functions. Reads the image's symbol table, or the one that
//! a kernel has for itself, and nothing else, and that only when the first name is asked for: a run that ends well needs none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use object::elf::{ELFMAG, FileHeader32, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;

use super::kallsyms;
use crate::closest::did_you_mean;
use crate::control_characters::{spell_out_all, spell_out_path};
use crate::input;

/// Most bytes that are taken to belong to a symbol without a size.
const FAR: u64 = 1 << 20;

/// The functions of a guest image, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    image: Arc<[u8]>,
    /// What names its functions, if the image itself does not.
    names: Option<Arc<[u8]>>,
    sorted: OnceLock<Vec<Function>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    address: u64,
    size: u64,
    name: String,
}

/// Why a file gives no symbols.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", spell_out_path(.path))]
pub struct SymbolFileError {
    path: PathBuf,
    #[source]
    problem: SymbolFileProblem,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum SymbolFileProblem {
    /// It cannot be read.
    #[error("cannot read the symbols")]
    Read(#[source] io::Error),
    /// It has none.
    #[error("it names no function: neither an ELF file with symbols nor a System.map")]
    Nothing,
}

/// A name that belongs to no function, or to several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchSymbol {
    /// No function has this name; a guess which was meant, with a semicolon before it, or nothing.
    #[error("the guest image has no function \"{0}\", and it is no address such as 0x200000{1}")]
    Unknown(String, String),
    /// Several functions have it.
    #[error("\"{name}\" can be {}", .candidates.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Some of them.
        candidates: Vec<String>,
    },
}

/// Most candidates that are shown for an ambiguous name.
const SHOWN: usize = 10;

impl Symbols {
    /// The symbols in `image`; none if it has none.
    pub fn of(image: &Arc<[u8]>) -> Self {
        Self {
            image: Arc::clone(image),
            names: None,
            sorted: OnceLock::new(),
        }
    }

    /// The symbols of `image` that the file `path` names: an ELF file, such as the vmlinux from which a
    /// kernel was packed, or a `System.map`. It can be a pipe.
    ///
    /// # Errors
    /// [`SymbolFileError`] names the file.
    pub fn from_file(image: &Arc<[u8]>, path: &Path) -> Result<Self, SymbolFileError> {
        const LARGEST: u64 = 1 << 30;
        let failed = |problem| SymbolFileError {
            path: path.to_owned(),
            problem,
        };
        let names =
            input::read(path, LARGEST).map_err(|error| failed(SymbolFileProblem::Read(error)))?;
        let symbols = Self {
            names: Some(names.into()),
            ..Self::of(image)
        };
        match symbols.sorted() {
            [] => Err(failed(SymbolFileProblem::Nothing)),
            _ => Ok(symbols),
        }
    }

    fn sorted(&self) -> &[Function] {
        self.sorted.get_or_init(|| match &self.names {
            Some(names) if !names.starts_with(&ELFMAG) => system_map(names),
            Some(names) => read(names),
            None => read(&self.image),
        })
    }

    /// The function that `address` lies in, and how far into it: `guest::main+0x1c`.
    pub fn name(&self, address: u64) -> Option<String> {
        self.find(address).map(|(name, offset)| match offset {
            0 => name.to_owned(),
            _ => format!("{name}+{offset:#x}"),
        })
    }

    /// The function that `address` lies in.
    pub fn function(&self, address: u64) -> Option<&str> {
        self.find(address).map(|(name, _)| name)
    }

    /// The address of a place: `0x…`, the name of a function, or the end of a name if only one
    /// function ends so: `Singles::handle`.
    ///
    /// # Errors
    /// [`NoSuchSymbol`] names some of those that it can be.
    pub fn address(&self, place: &str) -> Result<u64, NoSuchSymbol> {
        let digits = place.strip_prefix("0x");
        if let Some(Ok(address)) = digits.map(|digits| u64::from_str_radix(digits, 16)) {
            return Ok(address);
        }
        let all = || self.sorted().iter();
        let mut found: Vec<_> = all().filter(|function| function.name == place).collect();
        if found.is_empty() {
            let ending = format!("::{place}");
            let ends = |name: &str| without_parameters(name).ends_with(&ending);
            found = all().filter(|function| ends(&function.name)).collect();
        }
        found.dedup_by_key(|function| function.address);
        match found[..] {
            [] => {
                let names = self.sorted().iter();
                let names = names.map(|function| without_parameters(&function.name));
                // Most are named by the end of a path, as long as what was asked for.
                let parts = place.matches("::").count() + 1;
                let ends: Vec<_> = names
                    .map(|name| {
                        let mut ends = name.rmatch_indices("::").map(|(at, _)| &name[at + 2..]);
                        ends.nth(parts - 1).unwrap_or(&name).to_owned()
                    })
                    .collect();
                let guess = did_you_mean(place, ends.iter().map(String::as_str));
                Err(NoSuchSymbol::Unknown(place.to_owned(), guess))
            }
            [only] => Ok(only.address),
            _ => Err(NoSuchSymbol::Ambiguous {
                name: place.to_owned(),
                candidates: found
                    .iter()
                    .take(SHOWN)
                    .map(|function| format!("{} ({:#x})", function.name, function.address))
                    .collect(),
            }),
        }
    }

    fn find(&self, address: u64) -> Option<(&str, u64)> {
        let next = self
            .sorted()
            .partition_point(|function| function.address <= address);
        let function = self.sorted().get(next.checked_sub(1)?)?;
        let offset = address - function.address;
        let limit = if function.size == 0 {
            FAR
        } else {
            function.size
        };
        // A symbol at this very address counts, whatever its size.
        (offset == 0 || offset < limit).then_some((function.name.as_str(), offset))
    }

    /// Where in memory the image is loaded that the kernel finds at `address`; `None` if that is in no
    /// segment.
    pub fn physical(&self, address: u64) -> Option<u64> {
        let image = &*self.image;
        physical_in::<FileHeader64<Endianness>>(image, address)
            .or_else(|| physical_in::<FileHeader32<Endianness>>(image, address))
    }

    /// Whether it is an image of 64-bit code, as all is that its processors execute but for how they
    /// start.
    pub fn is_of_64_bits(&self) -> bool {
        FileHeader64::<Endianness>::parse(&*self.image).is_ok()
    }

    /// The address, with its function if that is known.
    pub fn place(&self, address: u64) -> String {
        match self.name(address) {
            Some(name) => format!("{address:#x} {name}"),
            None => format!("{address:#x}"),
        }
    }
}

/// Where the segments of `image`, whose header is `H`, have `address` in memory.
fn physical_in<H: FileHeader<Endian = Endianness>>(image: &[u8], address: u64) -> Option<u64> {
    let header = H::parse(image).ok()?;
    let endian = header.endian().ok()?;
    let programs = header.program_headers(endian, image).ok()?;
    programs.iter().find_map(|program| {
        let start: u64 = program.p_vaddr(endian).into();
        let offset = address.checked_sub(start)?;
        let size: u64 = program.p_memsz(endian).into();
        let is_in = program.p_type(endian) == PT_LOAD && offset < size;
        let physical: u64 = program.p_paddr(endian).into();
        is_in.then(|| physical.wrapping_add(offset))
    })
}

/// The functions of `image`, by address: those in its symbol table, or, of a kernel without one, those
/// that it knows of itself.
fn read(image: &[u8]) -> Vec<Function> {
    let Ok(file) = object::File::parse(image) else {
        return Vec::new();
    };
    if file.symbols().next().is_none() {
        return kernel(&file);
    }
    let mut sorted: Vec<_> = file
        .symbols()
        // Hand-written code often has labels only, which have no type.
        .filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown))
        .filter(|symbol| symbol.is_definition() || symbol.kind() == SymbolKind::Unknown)
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some(Function {
                address: symbol.address(),
                size: symbol.size(),
                name: spell_out_all(&format!("{:#}", demangle(name))).into_owned(),
            })
        })
        .collect();
    sorted.sort();
    sorted
}

/// The functions that a `System.map` names, in the form of `nm`: `ffffffff81000000 T _text`.
fn system_map(text: &[u8]) -> Vec<Function> {
    let lines = text.split(|byte| *byte == b'\n');
    let mut sorted: Vec<_> = lines
        .filter_map(|line| {
            let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
            let name = words.next()?;
            is_code.then(|| Function {
                address,
                size: 0,
                name: spell_out_all(name).into_owned(),
            })
        })
        .collect();
    sorted.sort();
    sorted
}

/// The functions that a kernel knows of itself. They have no sizes.
fn kernel(file: &object::File<'_>) -> Vec<Function> {
    let Some(data) = file.section_by_name(".rodata") else {
        return Vec::new();
    };
    let symbols = kallsyms::find(data.data().unwrap_or_default()).into_iter();
    let functions = symbols.filter(|symbol| matches!(symbol.kind, 't' | 'T' | 'w' | 'W'));
    let mut sorted: Vec<_> = functions
        .map(|symbol| Function {
            address: symbol.address,
            size: 0,
            name: spell_out_all(&symbol.name).into_owned(),
        })
        .collect();
    sorted.sort();
    sorted
}

/// The name of a function for people: a closure gets the name of the function it is in, which says
/// more than its number.
pub fn readable(name: &str) -> String {
    let mut rest = name;
    while let Some((outside, last)) = rest.rsplit_once("::")
        && is_closure(last)
    {
        rest = outside;
    }
    if rest.len() < name.len() {
        format!("closure in {rest}")
    } else if is_closure(name) {
        // Line tables alone do not say in which function the closure is.
        "closure".to_owned()
    } else {
        name.to_owned()
    }
}

/// Whether the last part of a name is that of a closure, in either mangling scheme.
fn is_closure(part: &str) -> bool {
    let part = part.split('<').next().unwrap_or_default();
    part == "{{closure}}" || part == "{closure}" || part.starts_with("{closure#")
}

/// A function's name without its generic parameters: `Ipi<P,F>::call` is `Ipi::call`.
fn without_parameters(name: &str) -> String {
    let mut depth = 0_u32;
    let kept = name.chars().filter(|letter| {
        let outside = depth == 0 && *letter != '<';
        match letter {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        outside && *letter != '>'
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(sorted: impl Into<Vec<Function>>) -> Symbols {
        Symbols {
            sorted: OnceLock::from(sorted.into()),
            ..Symbols::default()
        }
    }

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let function = |address, size, name: &str| Function {
            address,
            size,
            name: name.into(),
        };
        let symbols = symbols([function(0x100, 0x10, "a"), function(0x200, 0, "b")]);
        assert_eq!(symbols.name(0xff), None);
        assert_eq!(symbols.name(0x100).unwrap(), "a");
        assert_eq!(symbols.name(0x10f).unwrap(), "a+0xf");
        assert_eq!(symbols.name(0x110), None);
        assert_eq!(symbols.place(0x204), "0x204 b+0x4");
        assert_eq!(symbols.name(u64::MAX), None);
    }

    #[test]
    fn a_file_names_what_the_image_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("System.map");
        let image: Arc<[u8]> = ::tests::image::elf(&[]).into();
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Symbols::from_file(&image, &path)
        };
        let map = "ffffffff81000000 T _text\nffffffff81000070 t start\nffffffff82000000 D data\n";
        let symbols = read(map).unwrap();
        assert_eq!(symbols.address("start").unwrap(), 0xffff_ffff_8100_0070);
        assert!(symbols.address("data").is_err());
        // As Debian ships it.
        let why = read("ffffffffffffffff B The real System.map is elsewhere\n").unwrap_err();
        assert!(why.to_string().contains("names no function"), "{why}");
        assert!(Symbols::from_file(&image, folder.path()).is_err());
    }

    #[test]
    fn a_place_is_an_address_a_name_or_the_end_of_one() {
        let function = |address, name: &str| Function {
            address,
            size: 0,
            name: name.into(),
        };
        let symbols = symbols([
            function(1, "guest::Ipi<P,F>::call"),
            function(2, "guest::a::run"),
            function(3, "guest::b::run"),
            function(4, "guest::traps::entry"),
            function(5, "guest::traps::entry"),
        ]);
        let error = symbols.address("guest::traps::entry").unwrap_err();
        assert!(error.to_string().contains("(0x4), "), "{error}");
        assert_eq!(symbols.address("0x1f"), Ok(0x1f));
        assert_eq!(symbols.address("guest::a::run"), Ok(2));
        assert_eq!(symbols.address("Ipi::call"), Ok(1));
        assert_eq!(symbols.address("b::run"), Ok(3));
        let error = symbols.address("run").unwrap_err().to_string();
        assert_eq!(
            error,
            "\"run\" can be guest::a::run (0x2), guest::b::run (0x3)"
        );
        assert!(matches!(
            symbols.address("0xzz"),
            Err(NoSuchSymbol::Unknown(..))
        ));
    }

    #[test]
    fn a_closure_is_in_the_function_it_stands_in() {
        for (name, said) in [
            ("guest::start_other_cpu", "guest::start_other_cpu"),
            (
                "guest::start_other_cpu::{closure#0}",
                "closure in guest::start_other_cpu",
            ),
            ("guest::f::{{closure}}::{{closure}}", "closure in guest::f"),
            (
                "guest::Ipi<P,F>::handle::{{closure}}",
                "closure in guest::Ipi<P,F>::handle",
            ),
            (
                "guest::f::{{closure}}::inner",
                "guest::f::{{closure}}::inner",
            ),
            ("{closure#1}<guest::metal::platform::Metal>", "closure"),
            ("", ""),
        ] {
            assert_eq!(readable(name), said);
        }
    }

    #[test]
    fn a_file_without_symbols_has_none() {
        assert!(Symbols::of(&Arc::from(*b"garbage")).sorted().is_empty());
    }
}
