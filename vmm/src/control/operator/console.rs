//! The guest's console as its operator uses it: waits for what is printed there, types on it, and
//! hears what the kernel says of itself. Whatever the guest prints is only searched, never believed
//! to be more than words.

use std::sync::Arc;

use regex::bytes::Regex;

use super::{Operator, OperatorError, Wait};
use crate::control::ending::Ending;
use crate::kernel_log::{ComplaintKind, KernelLog, Meaning};
use crate::machine::devices::{Devices, TYPED_AHEAD};
use crate::stats::marks::Actor;

/// What is known of the guest's console.
#[derive(Debug)]
pub(super) struct Listening {
    pub devices: Arc<Devices>,
    /// The line with which the workload starts, if one does.
    start: Option<Regex>,
    /// Whether the guest has a kernel that speaks of itself.
    has_kernel: bool,
    /// What it has said so far.
    pub log: KernelLog,
    /// Up to where lines have been read.
    read: u64,
    /// Up to where a wait has found what it waited for.
    found: u64,
}

impl Listening {
    /// Nothing was heard yet.
    pub fn new(devices: Arc<Devices>, start: Option<Regex>, has_kernel: bool) -> Self {
        Self {
            devices,
            start,
            has_kernel,
            log: KernelLog::default(),
            read: 0,
            found: 0,
        }
    }
}

impl Operator {
    /// Reads the lines that the guest has ended since the last time, on the thread of the vCPU that
    /// has ended one. Returns whether the workload starts with one of them.
    pub(in crate::control) fn read_console(&self) -> bool {
        let mut guard = self.listening();
        let listening = &mut *guard;
        let mut starts = false;
        let mut is_over = false;
        let mut last = String::new();
        loop {
            let transcript = listening.devices.console().transcript();
            let Some((line, next)) = transcript.line(listening.read) else {
                break;
            };
            drop(transcript);
            listening.read = next;
            // As planned, it starts once.
            let start = listening.start.as_ref();
            if start.is_some_and(|start| start.is_match(line.as_bytes())) {
                listening.start = None;
                starts = true;
            }
            if !listening.has_kernel {
                continue;
            }
            match listening.log.read(&line) {
                Meaning::None => {}
                Meaning::Complaint => self.recorder.say(Actor::Kernel, || line.clone()),
                Meaning::Over => {
                    is_over = true;
                    last = line;
                }
            }
        }
        if is_over {
            let all = listening.log.complaints();
            let panic = all.iter().rfind(|it| it.kind == ComplaintKind::Panic);
            self.end_as(Ending::Panic {
                cpu: panic.and_then(|it| it.cpu),
                why: panic.map_or_else(|| last.trim().to_owned(), |it| it.text.clone()),
            });
        }
        starts
    }

    /// What the guest's kernel has said of itself.
    pub(in crate::control) fn kernel_log(&self) -> KernelLog {
        self.listening().log.clone()
    }

    /// Waits until the guest prints what `pattern` matches, after what the last such wait has found,
    /// and returns what it matches, without line ends behind it. Lines that are not ended yet count too.
    ///
    /// # Errors
    /// [`OperatorError::Pattern`] if it is no regular expression; it does not come in time, or the
    /// machine ends before.
    pub fn wait_console(&self, pattern: &str, wait: Wait<'_>) -> Result<String, OperatorError> {
        let regex = multi_line(pattern)?;
        let doing = (self.recorder).begin(|| format!("waits for \"{pattern}\" on the console"));
        doing.attempt(|| {
            let mut looked = None;
            let what = || format!("\"{pattern}\" on the guest's console");
            self.wait(wait, what, || {
                let mut listening = self.listening();
                let transcript = listening.devices.console().transcript();
                // Most looks find nothing new.
                if looked.replace(transcript.end()) == Some(transcript.end()) {
                    return None;
                }
                let (first, text) = transcript.since(listening.found);
                let found = regex.find(text)?;
                let end = first + found.end() as u64;
                let text = String::from_utf8_lossy(found.as_bytes());
                // A pattern has to end with that of a line if it is to have all of it.
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                drop(transcript);
                listening.found = end;
                Some(text)
            })
        })
    }

    /// Types `text` on the guest's console, which reads it as it likes.
    ///
    /// # Errors
    /// [`OperatorError::TypedTooMuch`] if the guest has left too much unread; then nothing is typed.
    pub fn type_console(&self, text: &str) -> Result<(), OperatorError> {
        let doing = (self.recorder).begin(|| format!("types {text:?} on the console"));
        doing.attempt(|| {
            self.check_not_over()?;
            match self.listening().devices.type_in(text.as_bytes()) {
                true => Ok(()),
                false => Err(OperatorError::TypedTooMuch(TYPED_AHEAD)),
            }
        })
    }
}

/// The regular expression `pattern`, in which `^` and `$` match at lines.
///
/// # Errors
/// [`OperatorError::Pattern`] says what is wrong with it.
fn multi_line(pattern: &str) -> Result<Regex, OperatorError> {
    regex::bytes::RegexBuilder::new(pattern)
        .multi_line(true)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| OperatorError::Pattern(error.to_string()))
}
