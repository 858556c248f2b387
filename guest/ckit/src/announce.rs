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
    /// So too, but the source says that it may race.
    Intended,
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
    use kit::sync::stops::{
        before_intended, before_piece, before_plain_load, before_plain_store, tell,
    };
    use shared::stop;

    let Access { address, bytes, .. } = access;
    let (manner, kind) = match (access.manner, access.kind) {
        (_, Kind::Fence) => return tell(Event::Fence),
        (_, Kind::ReadModifyWrite) => return tell(Event::ReadModifyWrite(address, bytes)),
        (Manner::Plain, kind) => (stop::Manner::Plain, kind),
        (Manner::Intended, kind) => (stop::Manner::Intended, kind),
        (Manner::Volatile | Manner::Atomic(_), kind) => (stop::Manner::Marked, kind),
    };
    let is_load = kind == Kind::Load;
    let kind = if is_load {
        stop::Kind::Load
    } else {
        stop::Kind::Store
    };
    match manner {
        manner if access.is_piece => before_piece(kind, address, bytes, manner),
        stop::Manner::Intended => before_intended(kind, address, bytes),
        stop::Manner::Plain if is_load => before_plain_load(address, bytes),
        stop::Manner::Plain => before_plain_store(address, bytes),
        stop::Manner::Marked if is_load => tell(Event::Load(address, bytes)),
        stop::Manner::Marked => tell(Event::Store(address, bytes)),
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
