//! Loops that wait for other CPUs. Whoever explores orders must know where such a loop begins and ends, to tell which
//! accesses its turns are made of: it then lets a CPU wait for these words to change, and leaves out turns that find
//! nothing new ([`shared::stop`]). In every other build this is nothing.

use crate::platform::Platform;

/// This CPU waits in a loop for as long as this lives. Each turn of the loop comes to a point
/// [`RELAX`](shared::stop::RELAX), and by itself changes nothing but memory that is reached through [`sync`](super):
/// a loop that counts its turns, to give up after so many, is none.
#[derive(Debug)]
pub struct Waiting<'a, P: Platform>(&'a P);

impl<'a, P: Platform> Waiting<'a, P> {
    /// The loop begins here.
    #[inline(always)]
    pub fn begin(platform: &'a P) -> Self {
        platform.wait_begins();
        Self(platform)
    }
}

impl<P: Platform> Drop for Waiting<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.wait_ends();
    }
}
