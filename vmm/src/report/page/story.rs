//! A schedule of the explorer's as a page: its space-time diagram, what broke, and the schedule
//! itself, so that it can be replayed by whoever gets the page. Says how it looks to the script
//! beside it, and searches nothing.

use std::io::{self, Write};

use serde::Serialize;

use super::{ELEMENTS, Parts, STYLE, embed};
use crate::explore::schedule::Schedule;
use crate::explore::story::Story;

/// What pages on schedules are made of.
pub(super) const STORY: Parts = Parts {
    title: "vmm explore",
    body: include_str!("story.html"),
    styles: &[STYLE, include_str!("story.css")],
    scripts: &[ELEMENTS, include_str!("story.js")],
};

/// What the page shows.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// What came of it, in a sentence.
    pub verdict: &'a str,
    /// Whether that is as it should be.
    pub is_good: bool,
    /// The guest image, as the user named it.
    pub guest: String,
    /// What else is known, each with its name.
    pub facts: Vec<(&'a str, String)>,
    /// The case, as a file of one has it.
    pub case: &'a str,
    /// The schedule, if there is one.
    pub schedule: Option<&'a Schedule>,
    /// What it comes to; there is one if there is a schedule.
    pub story: Option<&'a Story>,
}

/// What the script gets to see.
#[derive(Serialize)]
struct Embedded<'a> {
    #[serde(flatten)]
    document: &'a Document<'a>,
    /// By turn, in words: which interrupts come, and which go.
    traffic: Vec<String>,
}

/// Writes a page with `document`.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut impl Write, document: &Document<'_>) -> io::Result<()> {
    let traffic = document.story.map_or_else(Vec::new, |story| {
        let scenes = story.scenes.iter();
        scenes.map(|scene| story.traffic(scene)).collect()
    });
    let embedded = Embedded { document, traffic };
    STORY.write(out, |out| embed(out, "id=\"story\"", &embedded))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{loads_nothing, text};
    use super::*;

    #[test]
    fn a_page_has_all_its_parts_and_loads_none() {
        let document = Document {
            verdict: "broken: </script><script>",
            is_good: false,
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
            r#"<script type="application/json" id="story">{"verdict":"broken: \u003c/script>\u003cscript>""#
        ));
        loads_nothing(&page);
    }
}
