//! The page that tells how this guest came about shows it as it is.

use std::fs;
use std::path::Path;

#[test]
fn the_page_shows_the_files_as_they_are() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = package.join("../../docs/writing-a-guest.md");
    let page = fs::read_to_string(page).expect("the page");
    for file in ["Cargo.toml", "src/main.rs", "src/lib.rs"] {
        let text = fs::read_to_string(package.join(file)).expect("a file of this guest");
        // From the first line of code on.
        let code = text.split_once("\n\n").expect("a head").1;
        for piece in code.split("\n\n") {
            assert!(page.contains(piece.trim_end()), "{file}: {piece}");
        }
    }
}
