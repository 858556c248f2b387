//! Linux's own `kernel/smp.c`, of the versions that `guest/linux/build --census` has made a library
//! of, on the same machine: the row of each, counted as those of the designs are. The library is C
//! that a compiler has put hooks into, so that every access is heard, also those that are not
//! atomic. Only this module loads it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use kit::platform::{Platform, Vector};
use kit::sync::event::Event;

use crate::machine::{self, OneThread};

/// The vector by which calls are announced (`CALL_VECTOR` in `guest/linux/smp_lab.h`).
pub const CALL: Vector = Vector::new(0xf4);

/// What the library asks of the machine, and tells it, as `struct census` in
/// `guest/linux/census.c`.
#[repr(C)]
struct Machine {
    cpu: extern "C" fn() -> u32,
    in_handler: extern "C" fn() -> bool,
    irqs_enabled: extern "C" fn() -> bool,
    set_irqs: extern "C" fn(bool),
    send: extern "C" fn(u32, u32),
    relax: extern "C" fn(),
    heard: extern "C" fn(u32, usize),
    warned: extern "C" fn(*const c_char, u32),
}

static MACHINE: Machine = Machine {
    cpu,
    in_handler,
    irqs_enabled,
    set_irqs,
    send,
    relax,
    heard,
    warned,
};

extern "C" fn cpu() -> u32 {
    OneThread.this_cpu() as u32
}

extern "C" fn in_handler() -> bool {
    machine::is_in_handler()
}

extern "C" fn irqs_enabled() -> bool {
    OneThread.irqs_enabled()
}

extern "C" fn set_irqs(enabled: bool) {
    match enabled {
        true => OneThread.irqs_enable(),
        false => OneThread.irqs_disable(),
    }
}

extern "C" fn send(cpu: u32, vector: u32) {
    assert_eq!(vector, u32::from(CALL.number()), "an IPI for a call");
    OneThread.send_ipi(cpu as usize, CALL);
}

extern "C" fn relax() {
    OneThread.relax();
}

/// More than the stack of the thread, on which all CPUs are. What a CPU keeps there is its own.
const STACK: usize = 16 << 20;

extern "C" fn heard(kind: u32, address: usize) {
    let here = 0_u8;
    if address != 0 && address.abs_diff((&raw const here).addr()) < STACK {
        return;
    }
    machine::heard(match kind {
        0 => Event::Load(address, 0),
        1 => Event::Store(address, 0),
        2 => Event::ReadModifyWrite(address, 0),
        _ => Event::Fence,
    });
}

extern "C" fn warned(place: *const c_char, line: u32) {
    // SAFETY: a text of the library's.
    let place = unsafe { CStr::from_ptr(place) };
    panic!("the kernel's code warns at {place:?}, line {line}");
}

/// How often a function has run.
static RAN: AtomicU64 = AtomicU64::new(0);

extern "C" fn ran(_: *mut c_void) {
    RAN.fetch_add(1, Ordering::Relaxed);
}

/// A version of the file, on the machine.
#[derive(Debug)]
pub struct Linux {
    call_all: extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, i32),
    /// Bytes that it keeps for each CPU.
    pub bytes: u64,
}

impl Linux {
    /// The one of the library at `path`, on a machine that was just booted. `None` if there is no
    /// such file.
    pub fn boot(path: &Path) -> Option<Self> {
        if !path.is_file() {
            return None;
        }
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path of C");
        // SAFETY: its constructors only prepare variables of its own.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{} cannot be loaded", path.display());
        let symbol = |name: &CStr| {
            // SAFETY: the library was opened, and is never closed.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!symbol.is_null(), "{} has no {name:?}", path.display());
            symbol
        };
        // SAFETY: it has this type in `census.c`.
        let begins: extern "C" fn(*const Machine) =
            unsafe { std::mem::transmute(symbol(c"census_begins")) };
        // SAFETY: it has this type in `guest/linux/smp_lab.h`.
        let interrupt: extern "C" fn() =
            unsafe { std::mem::transmute(symbol(c"linux_single_interrupt")) };
        // SAFETY: likewise.
        let call_all: extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, i32) =
            unsafe { std::mem::transmute(symbol(c"linux_all")) };
        // SAFETY: a variable of this type in `census.c`, which nobody writes.
        let bytes = unsafe { symbol(c"census_bytes").cast::<u64>().read() };
        machine::boot(move |vector| {
            assert_eq!(vector, CALL);
            interrupt();
        });
        begins(&raw const MACHINE);
        Some(Self { call_all, bytes })
    }

    /// Calls all others from the CPU that this runs as (`smp_call_function`).
    pub fn call_all(&self, wait: bool) {
        (self.call_all)(ran, std::ptr::null_mut(), wait.into());
    }

    /// How often functions have run since the last time.
    pub fn executions() -> u64 {
        RAN.swap(0, Ordering::Relaxed)
    }
}
