//! Spells out control characters, so that text of others does not move the cursor of a terminal,
//! change its colours or its title, or have it answer: what a guest prints, what an image calls its
//! functions, what is in a schedule, what a server answers. Knows neither terminals nor files.
//!
//! Control characters are those of Unicode (C0, DEL and C1), and those that change the direction of
//! the text behind them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

/// The text without control characters but line ends and tabs: others are spelled out, as in
/// `\u{1b}`.
pub fn spell_out(text: &str) -> Cow<'_, str> {
    // A line can also end as in CSV.
    if !text.contains(|it| is_harmful(it) && !is_layout(it)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(spell_out_lines(text, "\r\n"))
}

/// The lines of a text that end with a carriage return and a line feed are spelled out, and end with
/// `end`.
fn spell_out_lines(text: &str, end: &str) -> String {
    let lines = text.split("\r\n").map(|line| {
        replace(
            line,
            |letter| is_harmful(letter) && !is_layout(letter),
            |shown, letter| shown.extend(letter.escape_default()),
        )
    });
    lines.collect::<Vec<_>>().join(end)
}

/// As [`spell_out`], and without line ends and tabs too: for a name, which stands within a line.
pub fn spell_out_all(text: &str) -> Cow<'_, str> {
    replace(text, is_harmful, |shown, letter| {
        shown.extend(letter.escape_default());
    })
}

/// The name of a file for a message: as text, without control characters, so that a line end in it
/// begins no line. What is not UTF-8 is replaced.
pub fn spell_out_path(path: &Path) -> String {
    spell_out_all(&path.to_string_lossy()).into_owned()
}

/// A JSON document without control characters but line ends and tabs. They can only be in its
/// strings; there they are written as JSON has them (`\u001b`), so that it means the same.
pub fn spell_out_json(document: &str) -> Cow<'_, str> {
    replace(
        document,
        |letter| is_harmful(letter) && !is_layout(letter),
        |shown, letter| {
            // Writing to a string never fails. All of these are below 0x10000.
            let _ = write!(shown, "\\u{:04x}", u32::from(letter));
        },
    )
}

/// Spells out those in all strings of a JSON value, as [`spell_out_all`] does, but for the strings of
/// the keys in `texts` and lists there, in which line ends and tabs are kept.
pub fn spell_out_values(value: &mut Value, texts: &[&str]) {
    spell_out_value(value, texts, false);
}

fn spell_out_value(value: &mut Value, texts: &[&str], is_text: bool) {
    match value {
        Value::String(string) => {
            let shown = match is_text {
                true => spell_out(string),
                false => spell_out_all(string),
            };
            if let Cow::Owned(shown) = shown {
                *string = shown;
            }
        }
        Value::Array(values) => {
            for value in values {
                spell_out_value(value, texts, is_text);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                spell_out_value(value, texts, texts.contains(&&**key));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_harmful(letter: char) -> bool {
    // The second are those of the bidirectional algorithm that open something (UAX #9).
    letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_layout(letter: char) -> bool {
    matches!(letter, '\n' | '\t')
}

fn replace(
    text: &str,
    is_replaced: impl Fn(char) -> bool,
    by: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match is_replaced(letter) {
            true => by(&mut shown, letter),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// Does the same for bytes that come in pieces, which need not be UTF-8: what is not is spelled out
/// too, as in `\xff`. A carriage return before a line end is left out.
#[derive(Debug, Default)]
pub struct Stream {
    /// The beginning of what the next piece may complete: of a character, or of a line end.
    begun: Vec<u8>,
}

impl Stream {
    /// The next piece, as far as it is complete.
    pub fn next(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        let whole = bytes.len() - unfinished(&bytes);
        self.begun = bytes.split_off(whole);
        shown(&bytes)
    }

    /// What has been begun and will not be completed.
    pub fn rest(&mut self) -> String {
        shown(&std::mem::take(&mut self.begun))
    }
}

/// How many bytes at the end are the beginning of something.
fn unfinished(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let last = bytes.utf8_chunks().last();
    // A chunk whose invalid bytes are at the end can be a character that goes on.
    let invalid = last.map_or(&[][..], |chunk| chunk.invalid());
    let is_begun = str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
    if is_begun { invalid.len() } else { 0 }
}

fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += &spell_out_lines(chunk.valid(), "\n");
        for byte in chunk.invalid() {
            // Writing to a string never fails.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_does_not_move_the_cursor() {
        assert_eq!(
            spell_out("a\x1b[2Jb\r\n\tc\x7f\u{9b}1m"),
            "a\\u{1b}[2Jb\r\n\tc\\u{7f}\\u{9b}1m"
        );
        assert_eq!(spell_out("größer"), "größer");
        assert_eq!(spell_out("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(spell_out_all("one\npass\tx"), "one\\npass\\tx");
    }

    #[test]
    fn the_name_of_a_file_is_no_line_of_its_own() {
        let name = Path::new("a/b\nvmm: all is well\x1b\u{202e}");
        assert_eq!(
            spell_out_path(name),
            "a/b\\nvmm: all is well\\u{1b}\\u{202e}"
        );
        assert_eq!(spell_out_path(Path::new("größer.bin")), "größer.bin");
    }

    #[test]
    fn a_document_means_the_same() {
        let value = serde_json::json!({ "a": "x\x1b\n\t\x7f\u{9b}\u{2066}y" });
        let written = serde_json::to_string_pretty(&value).unwrap();
        let shown = spell_out_json(&written);
        assert!(
            !shown.contains(|it| is_harmful(it) && !is_layout(it)),
            "{shown}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }

    #[test]
    fn a_console_keeps_its_lines() {
        let mut stream = Stream::default();
        assert_eq!(stream.next(b"one\r\ntwo\r"), "one\ntwo");
        assert_eq!(stream.next(b"\n50 %\r60 %\tx"), "\n50 %\\r60 %\tx");
        assert_eq!(stream.next(b"a\r\r\n"), "a\\r\n");
        assert_eq!(stream.next(b"\x1b[2J\0"), "\\u{1b}[2J\\u{0}");
        assert_eq!(stream.next("ö".as_bytes()), "ö");
        assert_eq!(stream.next(&[0xc2]), "");
        assert_eq!(stream.next(&[0x9b]), "\\u{9b}");
        assert_eq!(stream.next(&[0x9b, 0xff]), "\\x9b\\xff");
        assert_eq!(stream.next(&[b'a', 0xe2, 0x82]), "a");
        assert_eq!(stream.rest(), "\\xe2\\x82");
        assert_eq!(stream.rest(), "");
    }

    proptest! {
        #[test]
        fn how_a_console_is_divided_makes_no_difference(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(0xc2), Just(0x9b), Just(b'a')],
                0..40,
            ),
            cuts in proptest::collection::vec(1_usize..5, 0..20),
        ) {
            let mut whole = Stream::default();
            let whole = whole.next(&bytes) + whole.rest().as_str();
            prop_assert!(!whole.contains(|it| is_harmful(it) && !is_layout(it)));
            let mut pieces = Stream::default();
            let mut text = String::new();
            let mut left = &bytes[..];
            for cut in cuts {
                let (piece, rest) = left.split_at(cut.min(left.len()));
                text += &pieces.next(piece);
                left = rest;
            }
            text += &pieces.next(left);
            text += &pieces.rest();
            prop_assert_eq!(text, whole);
        }
    }
}
