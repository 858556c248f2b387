//! Amounts of memory as people write them on the command line: `2G`, `500M`. One parser for every
//! option that takes one.

/// The units, with how many bytes each has.
const UNITS: [(char, u64); 4] = [
    ('T', 1 << 40),
    ('G', 1 << 30),
    ('M', 1 << 20),
    ('K', 1 << 10),
];

/// Reads an amount with its unit (K, M, G or T, in powers of 1024), in bytes.
///
/// # Errors
/// A sentence that says what an amount looks like.
pub fn parse(text: &str) -> Result<u64, String> {
    let amount = || {
        let unit = text.chars().last()?.to_ascii_uppercase();
        let (_, bytes) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let number: f64 = text[..text.len() - 1].parse().ok()?;
        let amount = number * bytes as f64;
        (amount >= 1.0 && amount < u64::MAX as f64).then_some(amount as u64)
    };
    amount().ok_or_else(|| "not an amount of memory with its unit, such as 500M or 2G".to_owned())
}

/// An amount of memory in words.
pub fn words(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_amount_has_a_unit() {
        for (text, bytes) in [
            ("500M", 500 << 20),
            ("2G", 2 << 30),
            ("2g", 2 << 30),
            ("0.5G", 512 << 20),
            ("64K", 64 << 10),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "G", "5", "-1G", "0G", "5 apples", "1e99G", "infG", "NaNG", "2Gé", "2GiB",
        ] {
            assert!(parse(text).unwrap_err().contains("500M"), "{text}");
        }
        assert_eq!(words(600), "1 KiB");
        assert_eq!(words(3 << 30), "3072 MiB");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.e]{0,30}[KMGT]?|\\PC*") {
            let _ = parse(&text);
        }
    }
}
