//! The last of what a guest has printed, kept to be searched and read line by line. Places in it are
//! counted from the first byte that was ever printed, so that they stay valid when the beginning is
//! given up.

/// Most bytes that are kept, and least, once that many were printed.
const MOST: usize = 2 << 20;
const LEAST: usize = 1 << 20;

/// What was printed.
#[derive(Debug, Default)]
pub struct Transcript {
    text: Vec<u8>,
    /// How many bytes before it are gone.
    gone: u64,
}

impl Transcript {
    /// Adds what was printed.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        if self.text.len() > MOST {
            let surplus = self.text.len() - LEAST;
            self.text.drain(..surplus);
            self.gone += surplus as u64;
        }
    }

    /// The place behind the last byte.
    pub fn end(&self) -> u64 {
        self.gone + self.text.len() as u64
    }

    /// What was printed from `place` on, as far as it is kept, and the place of its first byte.
    pub fn since(&self, place: u64) -> (u64, &[u8]) {
        let skipped = place.saturating_sub(self.gone);
        let skipped =
            usize::try_from(skipped).map_or(self.text.len(), |it| it.min(self.text.len()));
        (self.gone + skipped as u64, &self.text[skipped..])
    }

    /// The first whole line from `place` on, without its end, and the place behind it.
    pub fn line(&self, place: u64) -> Option<(String, u64)> {
        let (first, text) = self.since(place);
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&text[..end]);
        let line = line.trim_end_matches('\r').to_owned();
        Some((line, first + end as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_their_order() {
        let mut transcript = Transcript::default();
        transcript.add(b"one\r\ntwo\nthr");
        let (one, next) = transcript.line(0).unwrap();
        let (two, next) = transcript.line(next).unwrap();
        assert_eq!((one.as_str(), two.as_str()), ("one", "two"));
        assert_eq!(transcript.line(next), None);
        assert_eq!(transcript.since(next).1, b"thr");
        transcript.add(b"ee\n");
        assert_eq!(transcript.line(next).unwrap().0, "three");
    }

    #[test]
    fn places_outlive_what_is_given_up() {
        let mut transcript = Transcript::default();
        for _ in 0..5 {
            transcript.add(&[b'x'; LEAST]);
        }
        let end = transcript.end();
        assert_eq!(end, 5 * LEAST as u64);
        transcript.add(b"the end\n");
        assert_eq!(transcript.line(end).unwrap().0, "the end");
        let (first, kept) = transcript.since(0);
        assert!(first > 0 && kept.len() >= LEAST && kept.len() <= MOST);
        assert_eq!(transcript.since(u64::MAX).1, b"");
    }
}
