//! What an image says of itself: the records of its section, and what is asked of them.

use shared::manifest::SECTION;
use vmm::manifest::Manifest;

/// Reads `data` as the section.
pub fn read(data: &[u8]) {
    let image = tests::image::with_section(SECTION, data, 0);
    let Ok(Some(manifest)) = Manifest::read(&image) else {
        return;
    };
    let json = serde_json::to_string(&manifest).expect("JSON of strings and numbers");
    assert!(!json.is_empty() && !manifest.table().is_empty());
    for deed in &manifest.deeds {
        assert_eq!(manifest.deed_name(deed.number), deed.name, "numbers are unique");
        let _ = manifest.told(&deed.name);
        let _ = manifest.told(&format!("{} 1 1 1 wait", deed.name));
        let _ = manifest.told(&format!("{} 0-3 {{ {} 1 }}", deed.name, deed.name));
    }
    let options = manifest.options.iter();
    let words: Vec<_> = options.map(|it| format!("{}x=1", it.name)).collect();
    let _ = manifest.mistyped(&words.join(" "));
    let _ = (manifest.wake_vector(), manifest.wakes());
}
