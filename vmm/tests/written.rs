//! Which pages a guest has written, as a search asks for them. A page that was written before the
//! list was cleared is new when it is written again; otherwise a search that begins in between
//! would never restore it.

mod machine;

use iced_x86::code_asm::dword_ptr;
use shared::ports::{DOORBELL, Doorbell};
use tests::image::Code;
use vmm::machine::Machine;
use vmm::machine::serial::{Serial, SerialExit};
use vmm::page_size::PAGE_SIZE;

/// The page that the guest writes.
const WRITTEN: usize = 5;

#[test]
fn a_page_that_was_written_before_it_was_forgotten_is_new_once_more() {
    if tests::open_kvm().is_err() {
        tests::skip("what a real vCPU has written: no /dev/kvm");
        return;
    }
    let guest = Code::image(|code| {
        code.for_ever(|code| {
            code.emit(|asm| asm.inc(dword_ptr(WRITTEN * PAGE_SIZE)));
            code.out(DOORBELL, Doorbell::Done as u32);
        });
    });
    let Machine {
        vcpus,
        vm,
        devices,
        memory,
    } = machine::build(&guest, 1);
    let mut serial = Serial::new(vcpus, vm, devices, &memory).unwrap();
    let ring = |serial: &mut Serial| {
        while serial.run(0) != SerialExit::Done {}
        serial.newly_written().unwrap().contains(&WRITTEN)
    };
    assert!(ring(&mut serial));
    assert!(!ring(&mut serial), "it is known by now");
    serial.forget_written().unwrap();
    assert!(ring(&mut serial), "it was forgotten");
    assert_eq!(serial.ram().page(WRITTEN)[0], 3);
}
