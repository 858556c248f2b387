//! What is told of accesses in a build with the feature `explore`: the image, which stops before
//! each if its monitor wants that, so that the monitor can decide which CPU goes on. How an access
//! is described is said in [`shared::stop`], and which are passed over in [`shared::passing`].

use shared::stop::{Access, Kind, Manner};

use super::event::Event;

// The image defines these, the most of them in assembler. Each stops before an access to the word
// at an address, unless it can be passed over.
unsafe extern "C" {
    // By the number of bytes.
    safe fn stop_before_load_1(address: usize);
    safe fn stop_before_load_2(address: usize);
    safe fn stop_before_load_4(address: usize);
    safe fn stop_before_load_8(address: usize);
    safe fn stop_before_store_1(address: usize);
    safe fn stop_before_store_2(address: usize);
    safe fn stop_before_store_4(address: usize);
    safe fn stop_before_store_8(address: usize);
    safe fn stop_before_read_modify_write_1(address: usize);
    safe fn stop_before_read_modify_write_2(address: usize);
    safe fn stop_before_read_modify_write_4(address: usize);
    safe fn stop_before_read_modify_write_8(address: usize);
    // The same of accesses that are plain.
    safe fn stop_before_plain_load_1(address: usize);
    safe fn stop_before_plain_load_2(address: usize);
    safe fn stop_before_plain_load_4(address: usize);
    safe fn stop_before_plain_load_8(address: usize);
    safe fn stop_before_plain_store_1(address: usize);
    safe fn stop_before_plain_store_2(address: usize);
    safe fn stop_before_plain_store_4(address: usize);
    safe fn stop_before_plain_store_8(address: usize);
    /// Rings with this word, an announcement.
    safe fn stop_before_access(access: u64);
    safe fn stop_before_change(address: usize);
    safe fn stop_before_mark(address: usize);
    safe fn stop_before_fence(address: usize);
    safe fn stop_before_lock(address: usize);
    safe fn stop_before_release(address: usize);
    safe fn stop_before_irqs_off(address: usize);
    /// Has this CPU stop before its next access, whatever that is.
    safe fn stop_before_any();
}

/// Calls the one of four functions that is for so many bytes. Of a number other than 1, 2 and 4 it
/// takes 8.
macro_rules! by_size {
    ($bytes:expr, $address:expr, $one:ident $two:ident $four:ident $eight:ident) => {
        match $bytes {
            1 => $one($address),
            2 => $two($address),
            4 => $four($address),
            _ => $eight($address),
        }
    };
}

/// Tells the image. Of a number of bytes other than 1, 2 and 4 it takes 8.
#[inline(always)]
pub fn tell(event: Event) {
    match event {
        Event::Load(address, bytes) => by_size!(
            bytes,
            address,
            stop_before_load_1 stop_before_load_2 stop_before_load_4 stop_before_load_8
        ),
        Event::Store(address, bytes) => by_size!(
            bytes,
            address,
            stop_before_store_1 stop_before_store_2 stop_before_store_4 stop_before_store_8
        ),
        Event::Exchange(address, bytes) | Event::ReadModifyWrite(address, bytes) => by_size!(
            bytes,
            address,
            stop_before_read_modify_write_1 stop_before_read_modify_write_2
                stop_before_read_modify_write_4 stop_before_read_modify_write_8
        ),
        Event::Change(address) => stop_before_change(address),
        Event::Mark(address) => stop_before_mark(address),
        Event::Lock(address) => stop_before_lock(address),
        Event::Release(address) => stop_before_release(address),
        Event::Fence => before_drain(),
    }
}

/// Stops before a load of `bytes` bytes that the source makes as of an ordinary variable
/// ([`Manner::Plain`]). Of a number of bytes other than 1, 2 and 4 it takes 8.
#[inline(always)]
pub fn before_plain_load(address: usize, bytes: usize) {
    by_size!(
        bytes,
        address,
        stop_before_plain_load_1 stop_before_plain_load_2 stop_before_plain_load_4 stop_before_plain_load_8
    );
}

/// The same before a store.
#[inline(always)]
pub fn before_plain_store(address: usize, bytes: usize) {
    by_size!(
        bytes,
        address,
        stop_before_plain_store_1 stop_before_plain_store_2 stop_before_plain_store_4 stop_before_plain_store_8
    );
}

/// Stops before a load or a store of `bytes` bytes of which the source says that it may race.
#[inline(always)]
pub fn before_intended(kind: Kind, address: usize, bytes: usize) {
    let access = Access::new(kind, address as u64, bytes as u64);
    stop_before_access(access.made(Manner::Intended).word());
}

/// Stops before a piece of an access to more than one word ([`shared::stop::PIECE`]): `bytes` bytes
/// within one word, a load or a store.
#[inline(always)]
pub fn before_piece(kind: Kind, address: usize, bytes: usize, manner: Manner) {
    let access = Access::new(kind, address as u64, bytes as u64);
    stop_before_access(access.piece().made(manner).word());
}

/// Stops before this CPU disables interrupts: it is the last moment at which it can take one.
#[inline(always)]
pub fn before_irqs_off() {
    stop_before_irqs_off(0);
}

/// Stops before this CPU drains its store buffer.
#[inline(always)]
pub fn before_drain() {
    stop_before_fence(0);
}

/// Stops before the next access of this CPU, so that what it has done until then is seen.
#[inline(always)]
pub fn before_next() {
    stop_before_any();
}
