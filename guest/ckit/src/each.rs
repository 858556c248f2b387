//! Hooks that leave all registers and flags as they are. `hooked.awk` puts one before each word of a structure that
//! the compiler has announced as a whole: there the code relies on every register.

use core::arch::global_asm;

/// A function by the name of `lab_each_…` that calls `__tsan_…`, with the address in `rdi`, as that is called. What it
/// keeps are the registers that a function may change (System V ABI, AMD64 supplement, 3.2.1), and the flags.
macro_rules! each {
    ($($name:literal calls $hook:literal;)+) => {
        $(global_asm!(
            concat!(".globl ", $name),
            concat!($name, ":"),
            "pushfq",
            "push rax",
            "push rcx",
            "push rdx",
            "push rsi",
            "push r8",
            "push r9",
            "push r10",
            "push r11",
            "push rbp",
            "mov rbp, rsp",
            "and rsp, -16",
            concat!("call ", $hook),
            "mov rsp, rbp",
            "pop rbp",
            "pop r11",
            "pop r10",
            "pop r9",
            "pop r8",
            "pop rsi",
            "pop rdx",
            "pop rcx",
            "pop rax",
            "popfq",
            "ret",
        );)+
    };
}

each! {
    "lab_each_read1" calls "__tsan_read1";
    "lab_each_read2" calls "__tsan_read2";
    "lab_each_read4" calls "__tsan_read4";
    "lab_each_read8" calls "__tsan_read8";
    "lab_each_write1" calls "__tsan_write1";
    "lab_each_write2" calls "__tsan_write2";
    "lab_each_write4" calls "__tsan_write4";
    "lab_each_write8" calls "__tsan_write8";
}
