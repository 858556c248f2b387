//! The end of a terminal, on which the live table stands and is drawn anew. Knows terminals and no vCPUs.

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::output::{Output, is_ready};

/// Most draws in a second. More than are asked for, so that none is left out.
const DRAWS: u8 = 60;

/// A terminal on standard error. Without one, nothing is drawn. What was drawn is removed when it is dropped.
pub(super) struct Screen {
    term: Term,
    bar: ProgressBar,
}

impl Default for Screen {
    fn default() -> Self {
        let term = Term::buffered_stderr();
        let target = ProgressDrawTarget::term(term.clone(), DRAWS);
        let style = ProgressStyle::with_template("{msg}");
        Self {
            bar: ProgressBar::with_draw_target(None, target)
                .with_style(style.expect("a template that is always the same")),
            term,
        }
    }
}

impl Screen {
    /// Draws what `text` makes of a number of lines and columns, and above it the lines that `output` holds if it
    /// is a terminal: this one, as far as anybody knows. A terminal that takes nothing at this moment, because
    /// somebody holds it, is not waited for.
    pub fn draw(&self, output: &mut Output, text: impl FnOnce((u16, u16)) -> String) {
        if !is_ready(&self.term) {
            return;
        }
        if output.is_terminal() && output.has_lines() {
            self.bar.suspend(|| output.write_lines());
        }
        self.bar.set_message(text(self.term.size()));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
