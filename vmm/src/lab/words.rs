//! The options of the run, as the guest says them. Nothing is trusted: a text that is not a list of
//! options counts as none.

use std::collections::BTreeMap;

use shared::lab::Words;

use super::Lab;

/// Most bytes of a key.
const LONGEST_KEY: usize = 32;

impl Lab {
    /// The options of the run by name, as the guest says them; `None` if it has not, or what it
    /// says makes no sense.
    pub fn words(&self) -> Option<BTreeMap<String, String>> {
        let words: Words = self.read(self.layout.words.entry(0)?);
        read(words.text())
    }
}

fn read(text: &[u8]) -> Option<BTreeMap<String, String>> {
    let is_shown = |byte: &u8| matches!(byte, b' '..=b'~');
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || !text.as_bytes().iter().all(is_shown) {
        return None;
    }
    let is_key = |key: &str| {
        let of_keys =
            |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
        (1..=LONGEST_KEY).contains(&key.len()) && key.as_bytes().iter().all(of_keys)
    };
    let word = |word: &str| {
        let (key, value) = word.split_once('=')?;
        is_key(key).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(' ').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_read_or_nothing_is() {
        let words = read(b"queue=filo seed=1 alloc-fail=0/1 weight_all=2").unwrap();
        assert_eq!((words["queue"].as_str(), words.len()), ("filo", 4));
        assert_eq!(words["weight_all"], "2");
        for nonsense in [
            &b""[..],
            b"queue",
            b"=filo",
            b"queue=filo  seed=1",
            b"queue=fi\x1blo",
            b"Queue=filo",
            b"queue=\xff",
        ] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_guest_writes_panics(length: u64, bytes: Vec<u8>) {
            let mut words = Words::EMPTY;
            words.length = length;
            let copied = bytes.len().min(words.bytes.len());
            words.bytes[..copied].copy_from_slice(&bytes[..copied]);
            let _ = read(words.text());
        }
    }
}
