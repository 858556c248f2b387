//! A terminal for the command, whose screen the tests read as a user would see it.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tests::{Running, Vmm};

/// How long the screen may take to show what a test waits for.
const TIME_LIMIT: Duration = Duration::from_secs(60);

fn some(size: u16) -> NonZero<u16> {
    NonZero::new(size).expect("a terminal has lines and columns")
}

/// A terminal with its screen.
pub struct Terminal {
    ours: OwnedFd,
    /// The command's end of the terminal, until it is handed over.
    pub theirs: Option<OwnedFd>,
    /// What was written, and the condition that signals more.
    pub screen: Arc<(Mutex<vt100::Parser>, Condvar)>,
    /// The same as it came, also what has been overwritten since.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A terminal of that size.
    pub fn new(lines: u16, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&ours).expect("ours");
        unlockpt(&ours).expect("ours");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let parser = vt100::Parser::new(some(lines), some(columns), 1000);
        let screen = Arc::new((Mutex::new(parser), Condvar::new()));
        let mut reader = File::from(ours.try_clone().expect("another handle"));
        let seen = Arc::clone(&screen);
        let written = Arc::default();
        let kept: Arc<Mutex<Vec<u8>>> = Arc::clone(&written);
        // Until the other end is closed.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let Ok(mut parser) = seen.0.lock() else {
                    // The test has failed.
                    return;
                };
                parser.process(&buffer[..read]);
                drop(parser);
                if let Ok(mut kept) = kept.lock() {
                    kept.extend(&buffer[..read]);
                }
                seen.1.notify_all();
            }
        });
        let terminal = Self {
            ours,
            theirs: Some(theirs.expect("the other end")),
            screen,
            written,
        };
        terminal.resize(lines, columns);
        terminal
    }

    /// Changes its size.
    pub fn resize(&self, lines: u16, columns: u16) {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let mut parser = self.screen.0.lock().expect("no panic");
        parser.screen_mut().set_size(some(lines), some(columns));
        tcsetwinsize(self.ours.as_fd(), size).expect("a terminal");
    }

    /// Starts the command with both outputs on it.
    pub fn start(&mut self, vmm: Vmm) -> Running {
        let theirs = self.theirs.take().expect("nobody else has it");
        let mut vmm = vmm.stdout(Stdio::from(theirs.try_clone().expect("another handle")));
        let command = vmm.command();
        command.stderr(Stdio::from(theirs)).env("TERM", "xterm");
        vmm.start()
    }

    /// Everything that was ever written, with all control characters.
    pub fn written(&self) -> String {
        let written = self.written.lock().expect("no panic");
        String::from_utf8_lossy(&written).into_owned()
    }

    fn lines(parser: &vt100::Parser) -> Vec<String> {
        let (_, columns) = parser.screen().size();
        parser.screen().rows(0, columns.get()).collect()
    }

    /// Waits until the screen satisfies the condition, and returns its lines.
    #[track_caller]
    pub fn wait(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut parser = self.screen.0.lock().expect("no panic");
        loop {
            let lines = Self::lines(&parser);
            if is_so(&lines) {
                return lines;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} never came:\n{}", lines.join("\n"));
            (parser, _) = self.screen.1.wait_timeout(parser, left).expect("no panic");
        }
    }
}
