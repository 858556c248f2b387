//! Variables of which each CPU has a copy. C files of a kernel have them in one section, which is
//! only the model: the copies lie one after the other elsewhere (`guest/linux/machine.c`). Knows
//! these places by the image's symbols, and says nothing of any other image.

use object::{Object, ObjectSymbol};

use super::types::{Static, Types};

/// Most copies: as many as a machine has CPUs.
const MOST_COPIES: u64 = 1024;

/// Where the copies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copies {
    /// Where the section begins, and where it ends.
    section: [u64; 2],
    /// Where the first copy begins.
    first: u64,
    /// Bytes from one to the next.
    stride: u64,
    count: u64,
}

impl Copies {
    /// Those of `image`, if it has any. `memory` is as for [`super::names`].
    fn of(image: &[u8], memory: impl Fn(u64) -> Option<u64>) -> Option<Self> {
        let file = object::File::parse(image).ok()?;
        let symbol = |name: &str| file.symbols().find(|symbol| symbol.name() == Ok(name));
        let address = |name: &str| symbol(name).map(|symbol| symbol.address());
        let area = symbol("lab_per_cpu_area")?;
        let stride = memory(address("lab_per_cpu_bytes")?).filter(|stride| *stride > 0)?;
        Some(Self {
            section: [address("lab_percpu_start")?, address("lab_percpu_end")?],
            first: area.address(),
            stride,
            count: (area.size() / stride).min(MOST_COPIES),
        })
    }

    /// The copies of `variable`, each with the number of its CPU as an index, if it is one of these
    /// variables.
    fn of_variable(self, variable: &Static) -> Option<Vec<Static>> {
        let [start, end] = self.section;
        let offset = variable.address.checked_sub(start)?;
        let of_cpu = |cpu: u64| {
            let address = cpu.checked_mul(self.stride)?.checked_add(offset)?;
            Some(Static {
                name: format!("{}[{cpu}]", variable.name),
                address: self.first.checked_add(address)?,
                of: variable.of,
            })
        };
        (variable.address < end).then(|| (0..self.count).filter_map(of_cpu).collect())
    }
}

/// Puts the copies of such variables in their place among the statics of `types`.
pub fn put_copies(types: &mut Types, image: &[u8], memory: impl Fn(u64) -> Option<u64>) {
    let Some(copies) = Copies::of(image, memory) else {
        return;
    };
    for variable in std::mem::take(&mut types.statics) {
        match copies.of_variable(&variable) {
            Some(all) => types.statics.extend(all),
            // The area as a whole, which is nothing but bytes.
            None if variable.address == copies.first => {}
            None => types.statics.push(variable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_has_its_copy_of_what_is_in_the_section_and_of_nothing_else() {
        let copies = Copies {
            section: [0x1000, 0x1040],
            first: 0x8000,
            stride: 0x100,
            count: 2,
        };
        let at = |address| {
            let name = "queue".to_owned();
            let of = 7;
            let all = copies.of_variable(&Static { name, address, of });
            all.map(|all| {
                assert!(all.iter().all(|it| it.of == 7));
                all.into_iter()
                    .map(|it| (it.name, it.address))
                    .collect::<Vec<_>>()
            })
        };
        let two = [
            ("queue[0]".to_owned(), 0x8010),
            ("queue[1]".to_owned(), 0x8110),
        ];
        assert_eq!(at(0x1010).unwrap(), two);
        assert!(at(0xfff).is_none() && at(0x1040).is_none());
        let beyond = Copies {
            first: u64::MAX - 0x20,
            stride: u64::MAX,
            ..copies
        };
        let variable = Static {
            name: String::new(),
            address: 0x1030,
            of: 0,
        };
        assert_eq!(beyond.of_variable(&variable).unwrap(), []);
        assert_eq!(Copies::of(&[], |_| None), None);
    }
}
