//! One perf counter: how often a tracepoint was hit on one thread, with fields that match a filter.
//! It counts in the kernel and needs no buffer.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_TRACEPOINT, perf_event_attr};
use perf_event_open_sys::{ioctls, perf_event_open};

/// A counter that is running.
#[derive(Debug)]
pub struct Counter(File);

impl Counter {
    /// Counts from now on, on thread `tid`, the hits of tracepoint `id` for which `filter` holds
    /// (Linux, `Documentation/trace/events.rst`, "Event filtering").
    ///
    /// # Errors
    /// What the kernel said: `EACCES` or `EPERM` without the permission, `EMFILE` without files.
    pub fn open(id: u64, filter: Option<&str>, tid: libc::pid_t) -> io::Result<Self> {
        let mut attributes = perf_event_attr::default();
        attributes.type_ = PERF_TYPE_TRACEPOINT;
        attributes.size = size_of::<perf_event_attr>() as u32;
        attributes.config = id;
        const ANY_CPU: i32 = -1;
        const NO_GROUP: i32 = -1;
        // SAFETY: the kernel reads the attributes, and may write their size, while they are
        // borrowed. They ask for a counter only, not for a ring buffer.
        let fd = unsafe {
            perf_event_open(
                &raw mut attributes,
                tid,
                ANY_CPU,
                NO_GROUP,
                PERF_FLAG_FD_CLOEXEC.into(),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just created this file descriptor for this call, and nothing else
        // owns it.
        let counter = Self(unsafe { File::from_raw_fd(fd) });
        if let Some(filter) = filter {
            counter.count_only(filter)?;
        }
        Ok(counter)
    }

    fn count_only(&self, filter: &str) -> io::Result<()> {
        let filter = CString::new(filter)?;
        // SAFETY: the kernel reads the string, which ends with a zero and outlives the call, and
        // writes nothing.
        let set = unsafe { ioctls::SET_FILTER(self.0.as_raw_fd(), filter.as_ptr().cast_mut()) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The count so far.
    ///
    /// # Errors
    /// What the kernel said. None is known: it returns eight bytes.
    pub fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
