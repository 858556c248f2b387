//! The terminal on standard error, at whose bottom the live display of a run is drawn and redrawn.
//! Knows nothing of vCPUs.

use std::io::{self, IsTerminal, Stderr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmm::control::Screen;
use vmm::control_characters::spell_out;

/// Most draws in a second. More than the event loop asks for, so that none is skipped.
const DRAWS: u8 = 60;

/// Whether standard error is a terminal whose cursor can be moved.
#[expect(clippy::disallowed_methods, reason = "only what it is is asked")]
pub fn can_draw() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stderr().is_terminal() && !is_dumb
}

/// A terminal on standard error.
#[derive(Debug)]
pub struct Terminal {
    stderr: Stderr,
    term: Term,
    /// What is drawn now, if anything is.
    shown: Mutex<Option<ProgressBar>>,
}

impl Default for Terminal {
    #[expect(clippy::disallowed_methods, reason = "only what it is is asked")]
    fn default() -> Self {
        Self {
            stderr: io::stderr(),
            term: Term::buffered_stderr(),
            shown: Mutex::default(),
        }
    }
}

impl Terminal {
    fn with_bar(&self, act: impl FnOnce(&ProgressBar)) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        act(shown.get_or_insert_with(|| {
            let target = ProgressDrawTarget::term(self.term.clone(), DRAWS);
            let style = ProgressStyle::with_template("{msg}");
            ProgressBar::with_draw_target(None, target)
                .with_style(style.expect("a template that is always the same"))
        }));
    }
}

impl Screen for Terminal {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stderr.as_fd()
    }

    fn size(&self) -> (u16, u16) {
        self.term.size()
    }

    fn show(&self, text: String) {
        self.with_bar(|bar| bar.set_message(spell_out(&text).into_owned()));
    }

    fn above(&self, write: &mut dyn FnMut()) {
        self.with_bar(|bar| bar.suspend(write));
    }

    fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = shown.take() {
            bar.finish_and_clear();
        }
    }
}
