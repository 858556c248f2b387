//! What all parsers share: why a text is refused, and how a number is written.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// Why a text is refused, as a sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError(pub String);

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for SyntaxError {}

/// The error that says `why`.
pub(crate) fn refused<T>(why: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError(why.into()))
}

/// The number in `text`, in decimal, or in hexadecimal with `0x` in front.
pub(crate) fn number(text: &str) -> Result<i64, SyntaxError> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let value = match digits.strip_prefix("0x") {
        // The digits alone: `from_str_radix` takes a sign of its own.
        Some(hex) if hex.starts_with(|first: char| first.is_ascii_hexdigit()) => {
            i64::from_str_radix(&format!("{sign}{hex}"), 16).ok()
        }
        None if digits.starts_with(|first: char| first.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    match value {
        Some(value) => Ok(value),
        None => refused(format!("\"{text}\" is no number of 64 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_sign_and_a_base() {
        for (text, value) in [
            ("0", 0),
            ("-1", -1),
            ("0x10", 16),
            ("-0x10", -16),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "-",
            "--1",
            "+1",
            "0x",
            "0x-1",
            "-0x+1",
            "1 ",
            "9223372036854775808",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
