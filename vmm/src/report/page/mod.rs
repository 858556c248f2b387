//! The report as a page: one HTML document that holds all it shows and loads nothing. What is here puts the figures
//! into it, as JSON; what is drawn of them is for the scripts beside this file, which insert whatever a guest or a
//! script can have had a hand in as text and never as markup.

mod histogram;
mod timeline;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::Report;
use crate::stats::latency::Latencies;
use crate::stats::timeline::Timeline;
use crate::stats::trace::Trace;
use histogram::Histogram;

/// The page around its data.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// Draws lanes of boxes and arrows over time, whatever they stand for.
const LANES: &str = include_str!("lanes.js");
const HISTOGRAM: &str = include_str!("histogram.js");
const SCRIPT: &str = include_str!("page.js");

/// What the page shows of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// Its report.
    pub report: &'a Report,
    /// Where its vCPUs stood, if it did not end well.
    pub post_mortem: &'a str,
    /// The guest image.
    pub guest: &'a Path,
    /// The guest's command line.
    pub command_line: &'a str,
    /// What was traced.
    pub trace: Option<&'a Trace>,
}

/// What the scripts get to see of it.
#[derive(Serialize)]
struct Document<'a> {
    report: &'a Report,
    post_mortem: &'a str,
    guest: String,
    command_line: &'a str,
    histograms: Vec<Histogram>,
    timeline: Option<timeline::Document>,
}

impl<'a> Document<'a> {
    fn new(section: &Section<'a>) -> Self {
        let mut document = Self {
            report: section.report,
            post_mortem: section.post_mortem,
            guest: section.guest.display().to_string(),
            command_line: section.command_line,
            histograms: Vec::new(),
            timeline: None,
        };
        if let Some(trace) = section.trace {
            let timeline = Timeline::new(trace);
            let latencies = Latencies::new(trace, &timeline);
            let all = [
                ("IPI sent to handler", &latencies.ipi),
                ("call to last run", &latencies.call),
                ("csd wait", &latencies.csd_wait),
            ];
            let histograms = all
                .into_iter()
                .filter_map(|(name, times)| Histogram::new(name, times, trace.tsc_khz));
            document.histograms = histograms.collect();
            document.timeline = timeline::Document::new(trace, &timeline, &section.report.findings);
        }
        document
    }
}

/// Writes a page on machines that have run, one after the other, and says why there were no more, if that is so.
///
/// # Errors
/// What `out` says.
pub fn write(
    out: &mut impl Write,
    machines: &[Section<'_>],
    refused: Option<&str>,
) -> io::Result<()> {
    let scripts = [LANES, HISTOGRAM, SCRIPT].map(|script| format!("<script>\n{script}</script>\n"));
    let (head, tail) = PAGE.split_once("{data}\n").expect("a place for the data");
    out.write_all(
        head.replace("{style}", STYLE)
            .replace("{version}", env!("CARGO_PKG_VERSION"))
            .as_bytes(),
    )?;
    for section in machines {
        let result = section.report.result;
        write!(
            out,
            "<script type=\"application/json\" class=\"machine\" data-result=\"{result}\">"
        )?;
        serde_json::to_writer(Inert(&mut *out), &Document::new(section))?;
        writeln!(out, "</script>")?;
    }
    write!(out, "<script type=\"application/json\" id=\"refusal\">")?;
    serde_json::to_writer(Inert(&mut *out), &refused)?;
    writeln!(out, "</script>")?;
    out.write_all(tail.replace("{scripts}\n", &scripts.concat()).as_bytes())
}

/// Passes JSON on with every `<` as an escape. There it stands in strings alone, and in HTML it could end the
/// element that holds it, or begin a comment.
struct Inert<W>(W);

impl<W: Write> Write for Inert<W> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        let mut pieces = json.split(|byte| *byte == b'<');
        self.0.write_all(pieces.next().unwrap_or_default())?;
        for piece in pieces {
            self.0.write_all(b"\\u003c")?;
            self.0.write_all(piece)?;
        }
        Ok(json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_page_has_all_its_parts_and_loads_none() {
        let page = text(|out| write(out, &[], Some("no </script> here")));
        for part in [STYLE, LANES, HISTOGRAM, SCRIPT] {
            assert!(page.contains(part));
        }
        let pages_own = PAGE.matches('{').count();
        assert_eq!(
            pages_own, 4,
            "style, version, data and scripts have a place each"
        );
        assert!(page.contains(
            r#"<script type="application/json" id="refusal">"no \u003c/script> here"</script>"#
        ));
        for loads in [
            "src=",
            "href=",
            "@import",
            "url(",
            "fetch(",
            "XMLHttpRequest",
        ] {
            assert!(!page.contains(loads), "{loads}");
        }
        // A namespace, which nobody looks up.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains("http://") && !page.contains("https://"));
    }

    #[test]
    fn parts_do_not_end_the_elements_that_hold_them() {
        for script in [LANES, HISTOGRAM, SCRIPT] {
            assert!(!script.contains("</script") && !script.contains("<!--"));
            assert!(!script.contains("innerHTML") && !script.contains("insertAdjacentHTML"));
        }
        assert!(!STYLE.contains("</style"));
    }

    #[test]
    fn no_string_is_markup_and_each_comes_back_whole() {
        let said = "</script><script>alert('<!--')</script>\u{2028}\"\\";
        let json = text(|out| Ok(serde_json::to_writer(Inert(out), said)?));
        assert!(!json.contains('<'), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), said);
    }
}
