//! What breaks: names of oracles, and sentences. Plain data.

/// What broke, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Names of oracles, or of [`super::case::OTHER_BREACHES`]; sorted, each once.
    pub names: Vec<String>,
    /// Sentences about it.
    pub texts: Vec<String>,
}

impl Breach {
    pub(super) fn new(name: &str, text: String) -> Self {
        Self {
            names: vec![name.to_owned()],
            texts: vec![text],
        }
    }

    /// That `cpu` has come to so many stops in one turn that it will not come to an end.
    pub(in crate::explore) fn endless(cpu: usize) -> Self {
        let text = format!("CPU {cpu} goes round and round without waiting");
        Self::new("livelock", text)
    }

    pub(super) fn add(&mut self, name: &str, text: String) {
        if let Err(at) = self.names.binary_search_by(|known| (**known).cmp(name)) {
            self.names.insert(at, name.to_owned());
        }
        if !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }
}
