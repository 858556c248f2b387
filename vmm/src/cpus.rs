//! A set of CPUs, as the ledger stores it and as people read and write it: `0-2,5`. Plain data, for
//! CPUs of guests and of hosts.

use std::fmt;
use std::str::FromStr;

/// CPU numbers are below this, here and in Linux's `cpu_set_t`.
pub const MOST: u32 = 1024;

/// A set of CPU numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet {
    words: Vec<u64>,
}

/// A number that no CPU can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no machine has a CPU {0}; CPUs are below {MOST}")]
pub struct NoSuchCpu(u32);

impl CpuSet {
    /// The set of these CPUs.
    ///
    /// # Errors
    /// [`NoSuchCpu`] is the first number that no CPU can have.
    pub fn of(cpus: impl IntoIterator<Item = u32>) -> Result<Self, NoSuchCpu> {
        let is_cpu = |cpu: u32| {
            if cpu < MOST {
                Ok(cpu)
            } else {
                Err(NoSuchCpu(cpu))
            }
        };
        cpus.into_iter().map(is_cpu).collect()
    }

    /// The set whose CPU `64 * i + b` is bit `b` of word `i`.
    pub fn from_words(words: Vec<u64>) -> Self {
        Self { words }
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.words).flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| index * 64 + bit)
        })
    }

    /// The words as in [`CpuSet::from_words`]. Words of zero at the end may be missing.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether `cpu` is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        let word = self.words.get((cpu / 64) as usize);
        word.is_some_and(|word| word >> (cpu % 64) & 1 != 0)
    }

    /// Whether no CPU is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The set with the noun before it: `CPU 5`, `CPUs 0-2`.
    pub fn noun(&self) -> String {
        match self.iter().take(2).count() {
            0 => "no CPU".to_owned(),
            1 => format!("CPU {self}"),
            _ => format!("CPUs {self}"),
        }
    }

    /// The CPUs that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        Self {
            words: self
                .words
                .iter()
                .zip(others)
                .map(|(word, other)| word & !other)
                .collect(),
        }
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut words = Vec::new();
        for cpu in cpus {
            let word = (cpu / 64) as usize;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (cpu % 64);
        }
        Self { words }
    }
}

/// A text that is not a list of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of CPUs below {MOST}, such as 0-2,5")]
pub struct NotCpus;

impl FromStr for CpuSet {
    type Err = NotCpus;

    fn from_str(text: &str) -> Result<Self, NotCpus> {
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|number: &u32| *number < MOST)
                .ok_or(NotCpus)
        };
        let mut cpus = Vec::new();
        for piece in text.split(',') {
            let (start, end) = piece.split_once('-').unwrap_or((piece, piece));
            let range = number(start)?..=number(end)?;
            if range.is_empty() {
                return Err(NotCpus);
            }
            cpus.extend(range);
        }
        Ok(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let Some(&first) = cpus.peek() else {
            return f.write_str("none");
        };
        while let Some(start) = cpus.next() {
            let mut end = start;
            while let Some(next) = cpus.next_if(|next| *next == end + 1) {
                end = next;
            }
            let comma = if start == first { "" } else { "," };
            match end - start {
                0 => write!(f, "{comma}{start}")?,
                _ => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_ranges() {
        let set = |cpus: &[u32]| cpus.iter().copied().collect::<CpuSet>();
        assert_eq!(set(&[]).to_string(), "none");
        assert_eq!(set(&[0, 1, 2, 5]).to_string(), "0-2,5");
        assert_eq!(set(&[63, 64, 65, 1023]).to_string(), "63-65,1023");
        assert_eq!(set(&[]).noun(), "no CPU");
        assert_eq!(set(&[5]).noun(), "CPU 5");
        assert_eq!(set(&[5, 7]).noun(), "CPUs 5,7");
        assert_eq!(set(&[1, 3, 70]).without(&set(&[3])).to_string(), "1,70");
    }

    #[test]
    fn what_is_written_can_be_read() {
        for text in ["0", "0-2,5", "63-65,1023"] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "x",
            "1-",
            "-1",
            "3-1",
            "1024",
            "0-4294967295",
            "0,,1",
            "1-2-3",
        ] {
            assert_eq!(text.parse::<CpuSet>(), Err(NotCpus), "{text}");
        }
    }
}
