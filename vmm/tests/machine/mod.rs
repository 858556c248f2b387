//! A real machine for a guest image that a test has made.

use tests::image::Image as File;
use vmm::machine::image::Image;
use vmm::machine::layout::{Contents, Layout};
use vmm::machine::{Machine, Parts, boot};

/// A machine that boots `file` on so many vCPUs, none of which has run yet.
pub fn build(file: &File, vcpus: u32) -> Machine {
    let image = Image::open(file.path()).unwrap();
    let pages = shared::lab::Layout::new(vcpus).unwrap();
    let with = Contents {
        image_end: image.end(),
        lab: pages.size,
        initrd: 0,
    };
    let layout = Layout::new(None, vcpus, with).unwrap();
    Machine::build(&Parts {
        image: &image,
        vcpus,
        layout: &layout,
        command_line: &boot::command_line("", Some(layout.lab.start)).unwrap(),
        initrd: None,
        is_pc: false,
    })
    .unwrap()
}
