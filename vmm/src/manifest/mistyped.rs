//! Which words of a command line a guest probably does not know, and what was meant. A guess for
//! people whose guest has refused its options: only the guest knows all that it takes.

use super::Manifest;
use crate::closest::closest;

impl Manifest {
    /// For each of `words` that the manifest does not declare and nearly declares: the word, and
    /// what was perhaps meant.
    pub fn mistyped<'a>(&self, words: &'a str) -> Vec<(&'a str, String)> {
        let words = words.split_whitespace();
        words
            .filter_map(|word| Some((word, self.meant(word)?)))
            .collect()
    }

    /// What was perhaps meant by `word`.
    fn meant(&self, word: &str) -> Option<String> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let keys = self.options.iter().map(|it| &*it.name);
        let Some(known) = self.options.iter().find(|it| it.name == key) else {
            let key = closest(key, keys)?;
            return Some(match value {
                "" => key.to_owned(),
                value => format!("{key}={value}"),
            });
        };
        if known.values.iter().any(|it| it.name == value) {
            return None;
        }
        let value = closest(value, known.values.iter().map(|it| &*it.name))?;
        Some(format!("{key}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use shared::manifest::Record;

    use super::*;

    #[test]
    fn keys_and_values_are_recognised() {
        let manifest = Manifest::saying(&[
            Record::word("queue", ""),
            Record::value("queue", 0, "fifo"),
            Record::value("queue", 1, "kmalloc"),
            Record::word("seed", ""),
        ]);
        let meant = |words| manifest.mistyped(words);
        assert_eq!(
            meant("quue=fifo queue=kmaloc sed=7"),
            [
                ("quue=fifo", "queue=fifo".to_owned()),
                ("queue=kmaloc", "queue=kmalloc".to_owned()),
                ("sed=7", "seed=7".to_owned()),
            ]
        );
        // What is right, and what is like nothing, is left alone.
        assert_eq!(meant("queue=fifo seed=7 queue=xyz verbose"), []);
        assert_eq!(meant("queue"), []);
    }
}
