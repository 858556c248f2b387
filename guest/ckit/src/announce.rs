//! What a hook says of an access before it is made, and to whom: in an image to be explored to the
//! search; in tests to a recorder of the thread.

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Reads and writes in one.
    ReadModifyWrite,
    /// Drains the store buffer. It has no address.
    Fence,
}

/// How the C source makes an access. To a search of x86 they are all the same, since the compiled
/// code makes each in one instruction; what a data race is depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As an ordinary variable.
    Plain,
    /// As a `volatile` one.
    Volatile,
    /// Atomically, with this order by its number in C (`__ATOMIC_RELAXED` is 0).
    Atomic(i32),
}

/// An access that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What it does.
    pub kind: Kind,
    /// Where.
    pub address: usize,
    /// To how many bytes: 1, 2, 4 or 8 within one word of 8; 0 for a fence.
    pub bytes: usize,
    /// How the source makes it.
    pub manner: Manner,
    /// Whether it is a piece of an access to several words, which is made behind the last of them.
    pub is_piece: bool,
}

/// Tells the search.
#[cfg(feature = "explore")]
#[inline(always)]
pub fn announce(access: Access) {
    use kit::sync::event::Event;
    use kit::sync::stops::{before_piece, tell};

    let Access { address, bytes, .. } = access;
    match (access.kind, access.is_piece) {
        (Kind::Load, true) => before_piece(shared::stop::Kind::Load, address, bytes),
        (Kind::Store, true) => before_piece(shared::stop::Kind::Store, address, bytes),
        (Kind::Load, false) => tell(Event::Load(address, bytes)),
        (Kind::Store, false) => tell(Event::Store(address, bytes)),
        (Kind::ReadModifyWrite, _) => tell(Event::ReadModifyWrite(address, bytes)),
        (Kind::Fence, _) => tell(Event::Fence),
    }
}

/// Tells the recorder of this thread.
#[cfg(not(feature = "explore"))]
pub fn announce(access: Access) {
    HEARD.with_borrow_mut(|heard| heard.push(access));
}

#[cfg(not(feature = "explore"))]
std::thread_local! {
    static HEARD: core::cell::RefCell<std::vec::Vec<Access>> = const {
        core::cell::RefCell::new(std::vec::Vec::new())
    };
}

/// What `body` has announced on this thread.
#[cfg(all(test, not(feature = "explore")))]
pub fn heard(body: impl FnOnce()) -> std::vec::Vec<Access> {
    HEARD.take();
    body();
    HEARD.take()
}
