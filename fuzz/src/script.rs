//! A script, up to its first statement: none is run here, since that takes a machine.

use vmm::control::script::Script;

use crate::files::file;

/// Reads `data` as a script.
pub fn read(data: &[u8]) {
    if let Ok(script) = Script::read(&file("script.rhai", data)) {
        let _ = script.input();
    }
}
