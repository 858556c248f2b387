use super::*;
use crate::machine::guest::Guest;
use proptest::prelude::*;

use ::tests::image::{self, Segment, elf, elf32};
use vm_memory::{Bytes, GuestAddress};

const CODE: u64 = image::CODE as u64;

fn check(bytes: Vec<u8>) -> Result<Image, Problem> {
    Image::check(Path::new("guest.bin"), bytes.into())
}

fn refusal(bytes: Vec<u8>) -> String {
    check(bytes).unwrap_err().to_string()
}

fn pvh() -> Segment {
    Segment::entry(image::CODE)
}

/// A bootable guest with this code.
fn guest(code: &[u8]) -> Vec<u8> {
    elf(&[Segment::load(CODE, code), pvh()])
}

/// Overwrites some bytes.
fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}

fn load() -> Segment {
    Segment::load(CODE, &[0xf4; 32])
}

#[test]
fn a_good_image_is_copied_to_where_it_says() {
    let image = check(guest(&[1, 2, 3, 4])).unwrap();
    assert_eq!((image.entry(), image.end()), (CODE, CODE + 4));
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    image.load(&memory).unwrap();
    let mut code = [0; 4];
    memory.read_slice(&mut code, GuestAddress(CODE)).unwrap();
    assert_eq!(code, [1, 2, 3, 4]);
}

#[test]
fn the_entry_is_found_among_several_note_segments() {
    let other = || Segment::note(b"GNU\0", 3, &[9; 20]);
    let image = check(elf(&[load(), other(), pvh(), other()])).unwrap();
    assert_eq!(image.entry(), CODE);
}

#[test]
fn other_files_are_told_from_guests() {
    assert!(refusal(b"#!/bin/sh\n".to_vec()).contains("not an ELF file"));
    assert!(refusal(b"\x7fELF".to_vec()).contains("truncated"));

    let mut image = guest(&[0xf4]);
    image[4] = 1;
    assert!(refusal(image).contains("ELF32 file for machine type 62"));

    let mut image = guest(&[0xf4]);
    image[4] = 3;
    assert!(refusal(image).contains("ELF file of class 3"));

    let mut image = guest(&[0xf4]);
    image[5] = 2;
    assert!(refusal(image).contains("big-endian"));

    let mut image = guest(&[0xf4]);
    put(&mut image, 18, &183_u16.to_le_bytes());
    assert!(refusal(image).contains("machine type 183"));
}

#[test]
fn an_elf32_file_is_loaded_like_another() {
    let code = [1, 2, 3, 0xf4];
    let image = check(elf32(&[Segment::load(CODE, &code), pvh()])).unwrap();
    assert_eq!(image.entry(), CODE);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    image.load(&memory).unwrap();
    let mut loaded = [0; 4];
    let at = GuestAddress(CODE);
    memory.read_slice(&mut loaded, at).unwrap();
    assert_eq!(loaded, code);
    let whole = elf32(&[Segment::load(CODE, &code), pvh()]);
    for length in 0..whole.len() {
        assert!(check(whole[..length].to_vec()).is_err(), "{length}");
    }
}

#[test]
fn damaged_headers_are_refused() {
    let mut image = guest(&[0xf4; 100]);
    image.truncate(image.len() - 100);
    assert!(refusal(image).contains("truncated"));

    let mut image = guest(&[0xf4]);
    image.truncate(100);
    assert!(refusal(image).contains("program headers"));

    let mut image = guest(&[0xf4]);
    put(&mut image, 32, &u64::MAX.to_le_bytes());
    assert!(check(image).is_err());

    let mut image = guest(&[0xf4]);
    put(&mut image, 54, &32_u16.to_le_bytes());
    assert!(refusal(image).contains("unknown size"));

    let mut shrunk = load();
    shrunk.memory = 1;
    assert!(refusal(elf(&[shrunk, pvh()])).contains("larger in the file"));
}

#[test]
fn every_segment_must_have_a_place_of_its_own() {
    let at = |address| elf(&[Segment::load(address, &[0; 8]), pvh()]);
    assert!(matches!(
        check(at(u64::MAX - 3)),
        Err(Problem::Outside { .. })
    ));
    assert!(matches!(
        check(at(GAP_START - 4)),
        Err(Problem::Outside { .. })
    ));
    assert!(matches!(
        check(at(0xf_0000)),
        Err(Problem::OnBootData { .. })
    ));

    let mut huge = load();
    huge.memory = u64::MAX;
    assert!(matches!(
        check(elf(&[huge, pvh()])),
        Err(Problem::Outside { .. })
    ));

    let twice = [load(), Segment::load(CODE + 16, &[0; 32]), pvh()];
    assert!(matches!(check(elf(&twice)), Err(Problem::Overlap(0, 1))));
}

#[test]
fn an_image_must_say_where_it_starts() {
    assert!(matches!(check(elf(&[load()])), Err(Problem::NoEntry)));
    assert!(matches!(check(elf(&[pvh()])), Err(Problem::NothingToLoad)));
    assert!(matches!(check(elf(&[])), Err(Problem::NothingToLoad)));
    let elsewhere = elf(&[load(), Segment::entry(0x20_0000)]);
    assert!(matches!(
        check(elsewhere),
        Err(Problem::EntryOutside(0x20_0000))
    ));
    let short = elf(&[load(), Segment::note(b"Xen\0", 18, &[0; 2])]);
    assert!(matches!(check(short), Err(Problem::Damaged(_))));
}

#[test]
fn files_that_cannot_be_images_are_named() {
    let missing = Image::open(Path::new("/nonexistent/guest.bin")).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("/nonexistent/guest.bin: cannot read")
    );
    assert!(
        Image::open(Path::new("/"))
            .unwrap_err()
            .to_string()
            .contains("not a file")
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(
        Image::open(file.path())
            .unwrap_err()
            .to_string()
            .contains("empty")
    );
    file.as_file().set_len(LARGEST + 1).unwrap();
    assert!(
        Image::open(file.path())
            .unwrap_err()
            .to_string()
            .contains("too many")
    );
}

#[test]
fn bytes_are_as_good_as_a_file() {
    let bytes = guest(&[0xf4; 4]);
    let from_bytes = Guest::bytes("mine", bytes.clone()).open().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let from_file = Guest::from(file.path()).open().unwrap();
    assert_eq!(from_bytes.bytes(), from_file.bytes());
    assert_eq!(from_bytes.entry(), from_file.entry());
    assert_eq!(from_bytes.end(), from_file.end());

    let refusal = |bytes: Vec<u8>| Guest::bytes("mine", bytes).open().unwrap_err().to_string();
    assert!(refusal(Vec::new()).starts_with("mine: the guest image is empty"));
    assert!(refusal(vec![0x7f; 16]).starts_with("mine: not an ELF file"));
    let large = usize::try_from(LARGEST + 1).unwrap();
    assert!(refusal(vec![0; large]).contains("too many for a guest image"));
}

proptest! {
    #[test]
    fn no_image_panics(at in 0_usize..200, with: u64, cut in 0_usize..300) {
        let mut image = guest(&[0xf4; 64]);
        let at = at.min(image.len() - 8);
        put(&mut image, at, &with.to_le_bytes());
        image.truncate(image.len().saturating_sub(cut));
        if let Ok(image) = check(image) {
            let memory =
                GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
            let _ = image.load(&memory);
        }
    }
}
