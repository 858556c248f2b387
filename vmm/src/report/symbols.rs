//! Addresses of the guest as names of its functions. Reads the image's symbol table and nothing else.

use object::{Object, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;

/// Beyond this distance from a symbol without a size, an address is not in it.
const FAR: u64 = 1 << 20;

/// The functions of a guest image, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    sorted: Vec<Function>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    address: u64,
    size: u64,
    name: String,
}

impl Symbols {
    /// The symbols in `image`; none if it has none.
    pub fn read(image: &[u8]) -> Self {
        let Ok(file) = object::File::parse(image) else {
            return Self::default();
        };
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
                    name: format!("{:#}", demangle(name)),
                })
            })
            .collect();
        sorted.sort();
        Self { sorted }
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

    fn find(&self, address: u64) -> Option<(&str, u64)> {
        let next = self
            .sorted
            .partition_point(|function| function.address <= address);
        let function = self.sorted.get(next.checked_sub(1)?)?;
        let offset = address - function.address;
        let limit = if function.size == 0 {
            FAR
        } else {
            function.size
        };
        // A label without a size may have the address and nothing behind it.
        (offset == 0 || offset < limit).then_some((function.name.as_str(), offset))
    }

    /// The address, with its function if that is known.
    pub fn place(&self, address: u64) -> String {
        match self.name(address) {
            Some(name) => format!("{address:#x} {name}"),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let function = |address, size, name: &str| Function {
            address,
            size,
            name: name.into(),
        };
        let symbols = Symbols {
            sorted: vec![function(0x100, 0x10, "a"), function(0x200, 0, "b")],
        };
        assert_eq!(symbols.name(0xff), None);
        assert_eq!(symbols.name(0x100).unwrap(), "a");
        assert_eq!(symbols.name(0x10f).unwrap(), "a+0xf");
        assert_eq!(symbols.name(0x110), None);
        assert_eq!(symbols.place(0x204), "0x204 b+0x4");
        assert_eq!(symbols.name(u64::MAX), None);
    }

    #[test]
    fn a_file_without_symbols_has_none() {
        assert!(Symbols::read(b"garbage").sorted.is_empty());
    }
}
