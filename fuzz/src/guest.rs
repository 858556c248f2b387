//! The manifest of a guest that declares something of everything, for what is read by a manifest.

use std::sync::{Arc, LazyLock};

use shared::manifest::SECTION;
use vmm::manifest::Manifest;

/// The manifest of the guest of Linux's generic-ipi path, from its corpus.
pub static MANIFEST: LazyLock<Arc<Manifest>> = LazyLock::new(|| {
    let records = include_bytes!("../corpus/manifest/generic-ipi");
    let image = tests::image::with_section(SECTION, records, 0);
    let manifest = Manifest::read(&image).expect("what the guest says of itself");
    Arc::new(manifest.expect("a section"))
});
