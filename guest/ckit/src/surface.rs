//! What C files can call: the functions of `include/lab.h`, where each is described. Only this module
//! gives C a way to the machine and to the lab.

use core::sync::atomic::Ordering;

use kit::counters::{GUEST as FIRST_COUNTER, count};
use kit::log;
use kit::metal::platform::Metal;
use kit::platform::{CpuId, Doorbell, Platform, Point, Vector};
use kit::probe;
use kit::sync::mask::CpuMask;
use kit::sync::spin::SpinLock;
use shared::ledger::{CallId, Lane};

use crate::GUEST;
use crate::counters::CCounters;
use crate::guest::{CGuest, CPUS, CPUS_AT_BOOT};
use crate::intended;
use crate::ledger::FIRST_ORACLE;
use crate::table::{VECTORS, text as text_at};

const _: () = assert!(size_of::<SpinLock>() == 4, "a struct lab_lock");
const _: () = assert!(
    Lane::COUNT as u32 * shared::lab::SLOTS == 128,
    "LAB_CALL_SLOTS"
);

/// The guest, once it is installed.
fn installed() -> Option<&'static CGuest<Metal>> {
    // SAFETY: null, or what the kit has leaked.
    unsafe { GUEST.load(Ordering::Acquire).as_ref() }
}

/// The guest, which is installed before any deed is done.
fn guest() -> &'static CGuest<Metal> {
    installed().expect(
        "a constructor of a C file has called a function of lab.h that only deeds, handlers and judges can call",
    )
}

fn platform() -> &'static Metal {
    kit::specimen::Specimen::platform(guest())
}

/// Defines functions that C calls.
macro_rules! surface {
    ($($(#[$about:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)+) => {
        $(
            $(#[$about])*
            // SAFETY: the one definition of what `lab.h` declares, with the same signature.
            #[unsafe(no_mangle)]
            pub(crate) extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
        )+
    };
}

surface! {
    fn lab_cpu() -> u32 {
        // Constructors run before there is a guest.
        installed().map_or(0, |guest| kit::specimen::Specimen::platform(guest).this_cpu() as u32)
    }

    fn lab_cpus() -> u32 {
        CPUS.load(Ordering::Relaxed)
    }

    fn lab_cpus_at_boot() -> u32 {
        CPUS_AT_BOOT.load(Ordering::Relaxed)
    }

    fn lab_start_cpu(cpu: u32) -> bool {
        platform().start_cpu(existing(cpu, "lab_start_cpu")).is_ok()
    }

    fn lab_wake(cpu: u32) {
        platform().send_ipi(existing(cpu, "lab_wake"), Vector::WAKE);
    }

    fn lab_take_pending() {
        guest().take_pending();
    }

    fn lab_do_program(program: u32, refused: extern "C" fn(i64)) {
        guest().do_program(program, refused);
    }

    fn lab_in_handler() -> bool {
        let on_the_stack = 0_u8;
        let platform = platform();
        platform.lab.is_on_handler_stack(platform.this_cpu(), (&raw const on_the_stack).addr())
    }

    fn lab_irqs_enabled() -> bool {
        platform().irqs_enabled()
    }

    fn lab_irqs_disable() {
        platform().irqs_disable();
    }

    fn lab_irqs_enable() {
        platform().irqs_enable();
    }

    fn lab_send_ipi(cpu: u32, vector: u32) {
        let vector = vector_numbered(vector);
        platform().send_ipi(existing(cpu, "lab_send_ipi"), vector);
    }

    fn lab_announce(cpu: u32, vector: u32, call: u64) {
        let vector = vector_numbered(vector);
        platform().announce(existing(cpu, "lab_announce"), vector, call);
    }

    fn lab_data_race_begin() {
        intended::begin();
    }

    fn lab_data_race_end() {
        intended::end();
    }

    fn lab_wait_begin() {
        platform().wait_begins();
        #[cfg(not(feature = "explore"))]
        guest().begins_to_wait();
    }

    fn lab_relax() {
        let platform = platform();
        count(&platform.lab.counters(platform.this_cpu()).wait_spins, 1);
        probe!(*platform, "spin.relax");
        platform.relax();
        #[cfg(not(feature = "explore"))]
        guest().still_waits();
    }

    fn lab_wait_end() {
        #[cfg(not(feature = "explore"))]
        guest().waits_no_more();
        platform().wait_ends();
    }

    fn lab_lock(lock: &SpinLock) {
        lock.lock(platform());
    }

    fn lab_unlock(lock: &SpinLock) {
        lock.unlock();
    }

    fn lab_report(oracle: u32, call: u64, seen: u64) {
        assert!((1..FIRST_ORACLE).contains(&oracle), "lab_report: no C file has an oracle {oracle}");
        let platform = platform();
        let (me, now) = (platform.this_cpu(), platform.timestamp());
        platform.lab.report(oracle, me, call, now, seen);
    }

    fn lab_count(counter: u32, amount: u64) {
        let at = (counter as usize).wrapping_sub(FIRST_COUNTER);
        let platform = platform();
        let counters: &CCounters = platform.lab.own_counters(platform.this_cpu());
        let counter = counters.of_files.get(at);
        count(counter.expect("lab_count: a counter of LAB_COUNTER"), amount);
    }

    fn lab_is_armed(point: &'static Point) -> bool {
        point.armed() != 0
    }

    fn lab_reached(point: &'static Point, call: u64, detail: u64) {
        probe::reached(platform(), point, call, detail);
    }

    fn lab_timestamp() -> u64 {
        platform().timestamp()
    }

    fn lab_cycles_per_second() -> u64 {
        platform().cycles_per_second()
    }

    fn lab_random(state: &mut u64) -> u64 {
        let mut random = fastrand::Rng::with_seed(*state);
        let number = random.u64(..);
        *state = random.get_seed();
        number
    }

    fn lab_barrier() {
        guest().barrier().wait(platform());
    }

    fn lab_goes_offline() -> bool {
        guest().goes_offline()
    }

    fn lab_sleep_until(done: extern "C" fn() -> bool) {
        while !done() {
            platform().idle_unless(&|| done());
        }
    }

    fn lab_warmed_up() {
        platform().ring(Doorbell::WarmedUp);
    }

    fn lab_call_has_room() -> bool {
        guest().ledger().has_room(platform())
    }

    fn lab_call_slot(call: u64) -> u32 {
        CallId::from_raw(call).record_index(shared::lab::SLOTS)
    }

    fn lab_call_cpu(call: u64) -> u32 {
        CallId::from_raw(call).source().into()
    }

    fn lab_call_returned(call: u64) {
        guest().ledger().returned(platform(), call);
    }

    fn lab_call_ran(call: u64) {
        guest().ledger().ran(platform(), call);
    }
}

/// The CPUs of these words.
///
/// # Safety
/// `cpus` is as many words as the machine's CPUs have bits for.
// SAFETY: the one definition of what `lab.h` declares, with the same signature.
#[unsafe(no_mangle)]
unsafe extern "C" fn lab_call_made(cpus: *const u64, waits: bool) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { lab_call_made_for(cpus, waits, 0) }
}

/// See `lab.h`.
///
/// # Safety
/// As above.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn lab_call_made_for(cpus: *const u64, waits: bool, program: u32) -> u64 {
    // SAFETY: by the caller's promise.
    let mask = unsafe { set_at(cpus) };
    let program = u8::try_from(program).expect("lab_call_made_for: the number of a program");
    let call = guest().ledger().made(platform(), &mask, waits, program);
    if !lab_in_handler() {
        guest().has_entered(call);
    }
    call.raw()
}

/// See `lab.h`.
///
/// # Safety
/// As above.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn lab_call_was_made_to(call: u64, cpus: *const u64) {
    // SAFETY: by the caller's promise.
    let mask = unsafe { set_at(cpus) };
    guest().ledger().was_made_to(platform(), call, &mask);
}

/// The set of CPUs in C.
///
/// # Safety
/// There are as many words as the machine's CPUs have bits for.
unsafe fn set_at(mut words: *const u64) -> CpuMask {
    let mut mask = CpuMask::all(platform().lab.cpus());
    mask.filter_words(|| {
        // SAFETY: by the caller's promise; the mask has a word for every 64 CPUs.
        let word = unsafe { words.read() };
        words = words.wrapping_add(1);
        word
    });
    mask
}

/// See `lab.h`.
///
/// # Safety
/// `cpus` is as many words as the machine's CPUs have bits for.
// SAFETY: the one definition of what `lab.h` declares, with the same signature.
#[unsafe(no_mangle)]
unsafe extern "C" fn lab_send_ipis(cpus: *const u64, vector: u32) {
    // SAFETY: by the caller's promise.
    let mask = unsafe { set_at(cpus) };
    platform().send_ipi_mask(&mask, vector_numbered(vector));
}

/// See `lab.h`.
///
/// # Safety
/// `text` is a text of C.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn lab_print(text: *const u8) {
    // SAFETY: by the caller's promise.
    log!("{}", unsafe { text_at(text) });
}

/// See `lab.h`.
///
/// # Safety
/// `text` is a text of C.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn lab_print_number(text: *const u8, number: u64) {
    // SAFETY: by the caller's promise.
    log!("{} {number} ({number:#x})", unsafe { text_at(text) });
}

/// Ends the run. Compilers call it too, by the name of C's `abort`.
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    panic!("a C file has called abort()")
}

/// The CPU that the function `called` is told.
fn existing(cpu: u32, called: &str) -> CpuId {
    let (cpu, cpus) = (cpu as CpuId, platform().lab.cpus());
    assert!(cpu < cpus, "{called}: there is no CPU {cpu}");
    cpu
}

fn vector_numbered(number: u32) -> Vector {
    let known = VECTORS
        .into_iter()
        .find(|it| u32::from(it.number()) == number);
    known.unwrap_or_else(|| {
        panic!("a C file has sent {number:#x}, which is no vector of LAB_VECTOR")
    })
}
