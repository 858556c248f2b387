//! The result of a search, alone and merged with itself as if it were a shard. Its states are in a
//! file beside it, which the input has behind a line of its own.

use vmm::explore::merge::{check_all_there, merge};
use vmm::explore::result::{Destination, Part};

use crate::files::{file, text};

/// What stands between the document and the states.
const STATES: &[u8] = b"\n--states--\n";

/// Reads `data` as a result.
pub fn read(data: &[u8]) {
    let mut places = data.windows(STATES.len());
    let (document, states) = match places.position(|it| it == STATES) {
        Some(at) => (&data[..at], &data[at + STATES.len()..]),
        None => (data, &[][..]),
    };
    let path = file("result.json", document);
    file("result.json.states", states);
    let Ok(part) = Part::read(&path) else { return };
    let _ = (part.document.took(), part.document.shortening(), part.document.of.scope());
    let again = file("again.json", b"");
    let destination = Destination::new(&again).expect("room for a file");
    destination.write(&part).expect("room for a file");
    let read = Part::read(&again).expect("what is written can be read again");
    assert_eq!(read, part, "{}", text(&again));
    let parts = [part];
    let _ = check_all_there(&parts);
    if let Err(error) = merge(&parts) {
        let _ = (error.to_string(), error.remedy());
    }
}
