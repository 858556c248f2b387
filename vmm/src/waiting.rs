//! Waits until one of a few files is readable. Reads none.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The time limit that is none (`epoll_wait(2)`).
const FOR_EVER: i32 = -1;

/// Files, one of which is waited for. They must stay open as long as this is there.
#[derive(Debug)]
pub(crate) struct Waiting<const N: usize>(Epoll);

impl<const N: usize> Waiting<N> {
    /// Waits for one of `files`.
    ///
    /// # Errors
    /// The host has no epoll.
    pub fn of(files: [RawFd; N]) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for (place, file) in (0..).zip(files) {
            let readable = EpollEvent::new(EventSet::IN, place);
            epoll.ctl(ControlOperation::Add, file, readable)?;
        }
        Ok(Self(epoll))
    }

    /// Waits, and says which are readable. That can be none.
    ///
    /// # Errors
    /// What epoll said.
    pub fn wait(&self) -> io::Result<[bool; N]> {
        self.within(FOR_EVER)
    }

    /// Says which are readable now.
    ///
    /// # Errors
    /// As [`Waiting::wait`].
    pub fn look(&self) -> io::Result<[bool; N]> {
        self.within(0)
    }

    fn within(&self, milliseconds: i32) -> io::Result<[bool; N]> {
        let mut events = [EpollEvent::default(); N];
        let mut are_readable = [false; N];
        let seen = match self.0.wait(milliseconds, &mut events) {
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            seen => seen?,
        };
        for event in &events[..seen] {
            if let Some(place) = usize::try_from(event.data()).ok().filter(|it| *it < N) {
                are_readable[place] = true;
            }
        }
        Ok(are_readable)
    }
}
