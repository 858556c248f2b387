//! A schedule that the explorer found, as a page: its space-time diagram, what broke, and the
//! schedule itself, which can be replayed from the page. This module embeds the data,
//! which the script beside it draws; it searches nothing.

use std::io::{self, Write};

use serde::Serialize;

use super::{ELEMENTS, Parts, STYLE, embed};
use crate::explore::schedule::Schedule;
use crate::explore::story::Story;

/// The parts of a page on a schedule.
pub(super) const STORY: Parts = Parts {
    body: include_str!("story.html"),
    styles: &[STYLE, include_str!("story.css")],
    scripts: &[ELEMENTS, include_str!("story.js")],
};

/// What a verdict says of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// What it expects came out.
    Good,
    /// Something else came out.
    Bad,
    /// The search or the replay was ended before it was known.
    Open,
}

/// What the page shows.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// How the search or the replay ended, in a sentence.
    pub verdict: &'a str,
    /// What was explored or replayed, and where.
    pub what: String,
    /// What that says of the case.
    pub tone: Tone,
    /// The guest image, as the user named it.
    pub guest: String,
    /// What else is known, each with its name.
    pub facts: Vec<(&'a str, String)>,
    /// The case, as in its file.
    pub case: &'a str,
    /// The schedule, if there is one.
    pub schedule: Option<&'a Schedule>,
    /// What happens in the schedule; there is one if there is a schedule.
    pub story: Option<&'a Story>,
}

/// What the script gets.
#[derive(Serialize)]
struct Embedded<'a> {
    #[serde(flatten)]
    document: &'a Document<'a>,
    /// By turn, in words: the interrupts that the CPU takes and sends.
    traffic: Vec<String>,
}

/// Writes a page with `document`.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, document: &Document<'_>) -> io::Result<()> {
    let traffic = document.story.map_or_else(Vec::new, |story| {
        let scenes = story.scenes.iter();
        scenes.map(|scene| story.traffic(scene)).collect()
    });
    let embedded = Embedded { document, traffic };
    let title = format!("{}: {}", document.verdict, document.what);
    STORY.write(out, &title, |out| embed(out, "id=\"story\"", &embedded))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{loads_nothing, text};
    use super::*;

    #[test]
    fn a_page_has_all_its_parts_and_loads_none() {
        let document = Document {
            verdict: "broken: </script><script>",
            what: "a.case on explore.bin".to_owned(),
            tone: Tone::Bad,
            guest: "explore.bin".to_owned(),
            facts: vec![("options", "queue=fifo".to_owned())],
            case: "cpus 2\n",
            schedule: None,
            story: None,
        };
        let page = text(|out| write(out, &document));
        for part in STORY.styles.iter().chain(STORY.scripts) {
            assert!(page.contains(part));
        }
        assert!(page.contains(STORY.body) && !STORY.body.contains('{'));
        assert!(page.contains(
            "<script type=\"application/json\" id=\"story\">\
             {\"verdict\":\"broken: \\u003c/script>\\u003cscript>\""
        ));
        let title = "<title>broken: &lt;/script&gt;&lt;script&gt;: a.case on explore.bin</title>";
        assert!(page.contains(title));
        loads_nothing(&page);
    }
}
