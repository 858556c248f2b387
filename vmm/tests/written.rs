//! Which pages a guest has written, as a search asks: what it wrote before it was forgotten counts as new once it is
//! written again. A search whose beginning is behind that would else never put such a page back.

use shared::ports::{DOORBELL, Doorbell};
use tests::image::{CODE, Image as File, Segment, elf};
use vmm::machine::image::Image;
use vmm::machine::layout::Layout;
use vmm::machine::serial::{Halt, Serial};
use vmm::machine::{Machine, Parts, boot};

/// Where the guest writes.
const WORD: u32 = 0x5000;
const PAGE: usize = 5;

/// A guest that writes a word and rings, again and again.
fn guest() -> File {
    let word = WORD.to_le_bytes();
    let port = u32::from(DOORBELL).to_le_bytes();
    let done = (Doorbell::Done as u32).to_le_bytes();
    let code = [
        // again: inc dword [WORD]
        &b"\xff\x05"[..],
        &word,
        // mov edx, port; mov eax, done; out dx, eax
        b"\xba",
        &port,
        b"\xb8",
        &done,
        b"\xef",
        // jmp again
        b"\xeb\xed",
    ];
    File::new(&elf(&[
        Segment::load(CODE.into(), &code.concat()),
        Segment::entry(CODE),
    ]))
}

#[test]
fn a_page_that_was_written_before_it_was_forgotten_is_new_once_more() {
    if tests::open_kvm().is_err() {
        tests::skip("what a real vCPU has written: no /dev/kvm");
        return;
    }
    let file = guest();
    let image = Image::open(file.path()).unwrap();
    let layout = Layout::new(None, 1, image.end(), 0).unwrap();
    let command_line = boot::command_line("", layout.lab.start).unwrap();
    let machine = Machine::build(&Parts {
        image: &image,
        vcpus: 1,
        layout: &layout,
        command_line: &command_line,
    })
    .unwrap();
    let Machine {
        vcpus,
        vm,
        devices,
        memory,
    } = machine;
    let mut serial = Serial::new(vcpus, vm, devices, &memory).unwrap();
    let ring = |serial: &mut Serial| {
        while serial.run(0) != Halt::Done {}
        serial.newly_written().unwrap().contains(&PAGE)
    };
    assert!(ring(&mut serial));
    assert!(!ring(&mut serial), "it is known by now");
    serial.forget_written().unwrap();
    assert!(ring(&mut serial), "it was forgotten");
    assert_eq!(serial.ram().page(PAGE)[0], 3);
}
