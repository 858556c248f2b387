//! Timers of the event loop. Reading one never blocks: another thread can set or clear a timer
//! after epoll has reported it and before it is read, and with it goes the expiration. A read that
//! waited for the next expiration would stop the event loop, for ever if the timer was cleared.

use std::os::fd::AsRawFd;

use vmm_sys_util::errno;
use vmm_sys_util::timerfd::TimerFd;

/// A timer that is not set. [`TimerFd::wait`] fails with `EAGAIN` if it has not expired.
///
/// # Errors
/// What `timerfd_create` or `fcntl` said.
pub(super) fn timer() -> errno::Result<TimerFd> {
    let timer = TimerFd::new()?;
    // SAFETY: F_SETFL takes a number and touches no memory of this process, and the descriptor is
    // open, since `timer` owns it.
    match unsafe { libc::fcntl(timer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } {
        ..0 => errno::errno_result(),
        0.. => Ok(timer),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn reading_a_timer_that_was_cleared_does_not_block() {
        let mut timer = timer().unwrap();
        timer.reset(Duration::from_nanos(1), None).unwrap();
        let mut ready = libc::pollfd {
            fd: timer.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `ready` is one entry, which outlives the call.
        assert_eq!(unsafe { libc::poll(&raw mut ready, 1, -1) }, 1);
        timer.clear().unwrap();
        let (tell, hear) = mpsc::channel();
        thread::spawn(move || tell.send(timer.wait().map_err(|error| error.errno())));
        let read = hear.recv_timeout(Duration::from_secs(20));
        assert_eq!(read, Ok(Err(libc::EAGAIN)));
    }
}
