//! The symbols that a Linux kernel carries in its read-only data for itself, `CONFIG_KALLSYMS`: a
//! distribution's image has no other symbol table. Looks for the tables by their shape, and believes
//! them only if all of them fit together. Knows bytes, and no memory of a guest.
//!
//! The format is that of `scripts/kallsyms.c` and `kernel/kallsyms.c` in Linux 6.1 and 6.12: names
//! are made of tokens, a `markers` entry says where every 256th name is, and addresses are relative
//! to one base. Between the two versions (6.5) the tables changed their order.

use std::ops::Range;

/// A symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its address.
    pub address: u64,
    /// Its type, as `nm` prints it: `t` and `T` are functions.
    pub kind: char,
    /// Its name.
    pub name: String,
}

/// Number of tokens.
const TOKENS: usize = 256;
/// Names for each marker.
const PER_MARKER: usize = 256;
/// Least and most symbols of a kernel. Debian's has 150,000.
const COUNTS: Range<usize> = 1_000..4_000_000;
/// Most bytes from the number of symbols to the tokens.
const FARTHEST: usize = 64 << 20;
/// Most bytes of a name (`KSYM_NAME_LEN`), its type included.
const LONGEST_NAME: usize = 512;
/// Most names that are looked at in all, while their table is searched. The search for the true one
/// looks at little more than its names.
const MOST_LOOKS: usize = 64 << 20;
/// Most bytes of all names. Debian's have 4 MB.
const MOST_TEXT: usize = 256 << 20;
/// Tables are aligned to so many bytes.
const ALIGN: usize = 8;
/// Least addresses that have to be in order, out of ten. All are but those of per-CPU data.
const IN_ORDER: usize = 9;

/// The symbols in `data`, the contents of a kernel; none if there are no tables in it.
pub fn find(data: &[u8]) -> Vec<Symbol> {
    // The digits are tokens of their own, in a row.
    const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
    let mut from = 0;
    while let Some(at) = find_bytes(data, DIGITS, from) {
        if let Some(symbols) = Tokens::around(data, at).and_then(|tokens| read(data, &tokens)) {
            return symbols;
        }
        from = at + 1;
    }
    Vec::new()
}

fn find_bytes(data: &[u8], bytes: &[u8], from: usize) -> Option<usize> {
    let rest = data.get(from..)?;
    let mut windows = rest.windows(bytes.len());
    windows
        .position(|window| window == bytes)
        .map(|at| from + at)
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(ALIGN)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The tables `token_table` and `token_index`.
struct Tokens<'data> {
    /// Where the first begins.
    start: usize,
    /// Where the second ends.
    end: usize,
    tokens: Vec<&'data [u8]>,
}

impl<'data> Tokens<'data> {
    /// The tables of which the token `0` is at `digit`.
    fn around(data: &'data [u8], digit: usize) -> Option<Self> {
        let mut start = digit;
        // A token that is a letter is at the place of that letter.
        for _ in 0..b'0' {
            let end = start.checked_sub(1)?;
            let before = data[..end].iter().rposition(|byte| *byte == 0)?;
            start = before + 1;
        }
        let mut tokens = Vec::with_capacity(TOKENS);
        let mut places = Vec::with_capacity(TOKENS);
        let mut at = start;
        for _ in 0..TOKENS {
            let length = data.get(at..)?.iter().position(|byte| *byte == 0)?;
            tokens.push(&data[at..at + length]);
            places.push(u16::try_from(at - start).ok()?);
            at += length + 1;
        }
        // The first is found by what is behind all of them.
        let index = aligned(at);
        let bytes = data.get(index..index + 2 * TOKENS)?;
        let index_of =
            |number: usize| u16::from_le_bytes([bytes[2 * number], bytes[2 * number + 1]]);
        let fits = (0..TOKENS).all(|number| index_of(number) == places[number]);
        fits.then_some(Self {
            start,
            end: index + 2 * TOKENS,
            tokens,
        })
    }

    /// The kind and the name that are packed in `bytes`.
    fn unpack(&self, bytes: &[u8]) -> Option<(char, String)> {
        let mut text = Vec::new();
        for number in bytes {
            text.extend_from_slice(self.tokens[usize::from(*number)]);
            if text.len() > LONGEST_NAME {
                return None;
            }
        }
        let (kind, name) = text.split_first()?;
        let name = str::from_utf8(name).ok()?;
        Some((char::from(*kind), name.to_owned()))
    }
}

/// The packed names from `at` on, `count` of them, and where they end.
fn names(
    data: &[u8],
    at: usize,
    count: usize,
    looks_left: &mut usize,
) -> Option<(Vec<Range<usize>>, usize)> {
    let mut names = Vec::new();
    let mut at = at;
    for _ in 0..count {
        *looks_left = looks_left.checked_sub(1)?;
        let low = usize::from(*data.get(at)?);
        at += 1;
        // Since 6.1 the length of a long name has two bytes (ULEB128).
        let length = match low & 0x80 {
            0 => low,
            _ => {
                let high = usize::from(*data.get(at)?);
                at += 1;
                low & 0x7f | high << 7
            }
        };
        if length == 0 || at + length > data.len() {
            return None;
        }
        names.push(at..at + length);
        at += length;
    }
    Some((names, at))
}

/// Whether the table of markers at `at` is that of these names, which begin at `start`.
fn are_marked(data: &[u8], at: usize, start: usize, names: &[Range<usize>]) -> bool {
    names.chunks(PER_MARKER).enumerate().all(|(number, names)| {
        // A name begins with its length.
        let long = names[0].len() > 0x7f;
        let place = names[0].start - start - 1 - usize::from(long);
        word(data, at + 4 * number).map(|it| it as usize) == Some(place)
    })
}

/// The symbols of the tables around `tokens`.
fn read(data: &[u8], tokens: &Tokens<'_>) -> Option<Vec<Symbol>> {
    let nearest = tokens.start / ALIGN * ALIGN;
    let farthest = nearest.saturating_sub(FARTHEST);
    let places = (farthest..nearest).step_by(ALIGN).rev();
    let mut looks_left = MOST_LOOKS;
    places.into_iter().find_map(|at| {
        let count = word(data, at)? as usize;
        // The number is alone in its eight bytes.
        if !COUNTS.contains(&count) || word(data, at + 4)? != 0 {
            return None;
        }
        let start = at + ALIGN;
        // Cheap to see, and seldom so by chance.
        if start + 2 * count > tokens.start {
            return None;
        }
        let (names, end) = names(&data[..tokens.start], start, count, &mut looks_left)?;
        are_marked(data, aligned(end), start, &names)
            .then(|| symbols(data, tokens, at, &names))
            .flatten()
    })
}

/// The symbols with these names, if their addresses are where one of the versions has them.
fn symbols(
    data: &[u8],
    tokens: &Tokens<'_>,
    at: usize,
    names: &[Range<usize>],
) -> Option<Vec<Symbol>> {
    let size = aligned(4 * names.len());
    let before_6_5 = at
        .checked_sub(ALIGN + size)
        .map(|offsets| (offsets, at - ALIGN));
    let offsets = aligned(tokens.end);
    let since_6_5 = Some((offsets, offsets + size));
    let orders = [before_6_5, since_6_5];
    orders.into_iter().flatten().find_map(|(offsets, base)| {
        let base = data.get(base..)?.first_chunk()?;
        let base = u64::from_le_bytes(*base);
        let mut symbols = Vec::with_capacity(names.len());
        let mut text_left = MOST_TEXT;
        for (number, name) in names.iter().enumerate() {
            let (kind, name) = tokens.unpack(&data[name.clone()])?;
            text_left = text_left.checked_sub(name.len())?;
            // Of a negative offset what is left is from the base; others are no addresses of code
            // (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`).
            let offset = word(data, offsets + 4 * number)?.cast_signed();
            let address = match offset < 0 {
                true => base.wrapping_add(u64::from(offset.unsigned_abs()) - 1),
                false => u64::from(offset.unsigned_abs()),
            };
            symbols.push(Symbol {
                address,
                kind,
                name,
            });
        }
        let pairs = symbols.windows(2);
        let in_order = pairs.filter(|pair| pair[0].address <= pair[1].address);
        let is_kernel = base >> 63 == 1;
        (is_kernel && in_order.count() * 10 >= (symbols.len() - 1) * IN_ORDER).then_some(symbols)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 0xffff_ffff_8100_0000;

    fn pad(data: &mut Vec<u8>) {
        data.resize(aligned(data.len()), 0);
    }

    /// Tables of `count` functions, in the order of 6.1 or of 6.12, with something around them.
    fn tables(count: usize, is_new: bool) -> Vec<u8> {
        let offsets = |data: &mut Vec<u8>| {
            for number in 0..count {
                data.extend((-1 - 16 * number as i32).to_le_bytes());
            }
            pad(data);
            data.extend(BASE.to_le_bytes());
        };
        let mut data = vec![7; 240];
        if !is_new {
            offsets(&mut data);
        }
        data.extend((count as u64).to_le_bytes());
        let start = data.len();
        let mut markers = Vec::new();
        for number in 0..count {
            if number % PER_MARKER == 0 {
                markers.extend(((data.len() - start) as u32).to_le_bytes());
            }
            // Token 1 is "f_".
            let name = format!("T\u{1}{number}{}", "x".repeat(number % 200));
            match name.len() {
                short @ ..=0x7f => data.push(short as u8),
                long => data.extend([long as u8 & 0x7f | 0x80, (long >> 7) as u8]),
            }
            data.extend(name.bytes());
        }
        pad(&mut data);
        data.extend(markers);
        pad(&mut data);
        let start = data.len();
        let mut index = Vec::new();
        for number in 0..TOKENS {
            index.extend(((data.len() - start) as u16).to_le_bytes());
            match number {
                1 => data.extend(b"f_"),
                letter if (letter as u8).is_ascii_alphanumeric() => data.push(letter as u8),
                _ => data.extend(b"zz"),
            }
            data.push(0);
        }
        pad(&mut data);
        data.extend(index);
        if is_new {
            offsets(&mut data);
        }
        data.extend([9; 100]);
        data
    }

    #[test]
    fn the_tables_of_either_order_are_read() {
        for is_new in [false, true] {
            let symbols = find(&tables(1500, is_new));
            assert_eq!(symbols.len(), 1500, "{is_new}");
            let last = &symbols[1499];
            assert_eq!((last.address, last.kind), (BASE + 16 * 1499, 'T'));
            assert!(last.name.starts_with("f_1499x"), "{}", last.name);
        }
    }

    #[test]
    fn tables_that_do_not_fit_together_are_none() {
        let whole = tables(1500, true);
        for at in [240, 300, whole.len() - 3000, whole.len() - 200] {
            let mut data = whole.clone();
            data.drain(at..at + 8);
            assert!(find(&data).len() <= 1500);
        }
        assert!(find(&whole[..whole.len() - 2000]).is_empty());
        assert!(find(&[]).is_empty());
    }

    /// Each eight bytes could be the number of names, and all of them could follow.
    #[test]
    fn the_search_for_a_table_has_an_end() {
        let whole = tables(1500, true);
        let mut data = 0x3c_0007_u64.to_le_bytes().repeat(1 << 20);
        data.extend(&whole[whole.len() - 8000..]);
        // Without the bound this takes days.
        assert!(find(&data).is_empty());
    }

    #[test]
    fn a_name_has_an_end() {
        let long = [b'x'; LONGEST_NAME / 2];
        let tokens = Tokens {
            start: 0,
            end: 0,
            tokens: vec![&long; TOKENS],
        };
        assert!(tokens.unpack(&[1, 1]).is_some());
        assert!(tokens.unpack(&[1, 1, 1]).is_none());
    }

    proptest! {
        #[test]
        fn nothing_in_an_image_makes_it_panic(
            at in 0_usize..60_000,
            bytes in proptest::collection::vec(any::<u8>(), 1..16),
        ) {
            let mut data = tables(1100, at % 2 == 0);
            let at = at % (data.len() - bytes.len());
            data[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = find(&data);
        }
    }
}
