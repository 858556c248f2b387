//! The portable library's machine, made of this one.

use core::arch::asm;

use guest::platform::{CpuId, Platform, Vector};
use guest::sync::mask::CpuMask;
use shared::ports::Doorbell;
use x86_64::instructions::interrupts;

use super::percpu::{self, PerCpu};
use super::{apic, exit};

/// The bare metal. There is only one.
#[derive(Clone, Copy, Debug)]
pub struct Metal;

impl Platform for Metal {
    fn this_cpu(&self) -> CpuId {
        PerCpu::this().index
    }

    fn send_ipi(&self, target: CpuId, vector: Vector) {
        apic::send(percpu::all()[target].apic_id, vector as u8);
        PerCpu::this().counters.count_ipi(apic::transport(), 1, 1);
    }

    fn send_ipi_mask(&self, targets: &CpuMask, vector: Vector) {
        let areas = percpu::all();
        let mut sent = 0;
        for target in targets.iter() {
            apic::send(areas[target].apic_id, vector as u8);
            sent += 1;
        }
        PerCpu::this()
            .counters
            .count_ipi(apic::transport(), sent, sent);
    }

    fn irqs_enabled(&self) -> bool {
        interrupts::are_enabled()
    }

    fn irqs_disable(&self) {
        interrupts::disable();
    }

    fn irqs_enable(&self) {
        interrupts::enable();
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn yield_to_host(&self) {
        if PerCpu::this().has_doorbell {
            exit::ring(Doorbell::Waiting);
        }
    }

    fn idle_unless(&self, done: &dyn Fn() -> bool) {
        interrupts::disable();
        if done() {
            interrupts::enable();
        } else {
            // SAFETY: STI takes effect after the next instruction, so that an interrupt that is
            // pending now ends the halt (SDM Vol. 2B, STI).
            unsafe { asm!("sti", "hlt", options(nomem, nostack)) };
        }
    }

    fn timestamp(&self) -> u64 {
        super::tsc()
    }
}
