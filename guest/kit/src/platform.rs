//! The one trait through which a guest reaches the machine it runs on.
//!
//! Bare metal implements it and, on the host, test machines whose CPUs are threads. A method that
//! only one caller needs does not belong here.

pub use crate::sync::mask::CpuId;
use crate::sync::mask::CpuMask;
pub use crate::vector::Vector;
pub use shared::ports::Doorbell;
pub use shared::probe::Point;

/// A CPU was told to start and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStarted;

/// A machine with several CPUs that can interrupt each other.
///
/// Every method acts on, or as, the CPU that calls it.
pub trait Platform: Sync + 'static {
    /// The CPU this code runs on.
    fn this_cpu(&self) -> CpuId;

    /// Sends `vector` to `target`. An IPI to the caller itself goes by its own APIC, whatever the
    /// transport, unless the monitor is to deliver those too (`self-ipi=wire`).
    ///
    /// It is ordered like a store-release: whatever the caller wrote before is visible to the
    /// handler. On x2APIC, whose ICR write is not ordered behind earlier stores, that takes a fence
    /// (Linux ce4e240c279a).
    ///
    /// Returns how many operations that took.
    fn send_ipi(&self, target: CpuId, vector: Vector) -> u64;

    /// As [`Platform::send_ipi`], to every CPU of `targets`, of which there may be none.
    fn send_ipi_mask(&self, targets: &CpuMask, vector: Vector) -> u64;

    /// As [`Platform::send_ipi`]. The IPI tells `target` of the call with this raw id, which
    /// whoever carries the IPI can see.
    fn announce(&self, target: CpuId, vector: Vector, call: u64) -> u64 {
        let _ = call;
        self.send_ipi(target, vector)
    }

    /// As [`Platform::announce`], to every CPU of `targets`, of which there may be none.
    fn announce_all(&self, targets: &CpuMask, vector: Vector, call: u64) -> u64 {
        let _ = call;
        self.send_ipi_mask(targets, vector)
    }

    /// Whether interrupts are enabled (x86: `RFLAGS.IF`).
    fn irqs_enabled(&self) -> bool;

    /// Disables interrupts.
    fn irqs_disable(&self);

    /// Enables interrupts; one that is pending is taken at once.
    fn irqs_enable(&self);

    /// One turn of a loop that waits for another CPU (x86: `pause`).
    fn relax(&self);

    /// This CPU enters a loop that waits for others ([`Waiting`](crate::sync::waiting::Waiting)).
    fn wait_begins(&self) {}

    /// This CPU leaves the loop that it entered last.
    fn wait_ends(&self) {}

    /// Tells the host something, if it listens.
    fn ring(&self, doorbell: Doorbell);

    /// This CPU has come to `point`, which the host has armed, with the call whose raw id is
    /// `call`, or 0. Writes that with `detail` into the trace, or tells the host, or both: whatever
    /// the point is armed for. It may take long, but changes nothing else.
    fn reached(&self, point: &'static Point, call: u64, detail: u64);

    /// Sleeps until an interrupt has been handled (x86: `sti; hlt`); interrupts are on afterwards.
    /// If `done` is already true it returns at once. `done` is tested with interrupts off, so that
    /// no interrupt that makes it true is missed.
    fn idle_unless(&self, done: &dyn Fn() -> bool);

    /// Starts `cpu`, and returns once it runs. It was parked after its part of the run had returned
    /// ([`Part::Left`](crate::specimen::Part)), or was not started at boot.
    ///
    /// # Errors
    /// [`NotStarted`] if it does not.
    fn start_cpu(&self, cpu: CpuId) -> Result<(), NotStarted>;

    /// A clock that never goes back on one CPU and is close to equal on all (x86: the TSC), in
    /// cycles.
    fn timestamp(&self) -> u64;

    /// How many cycles of [`Platform::timestamp`] make a second.
    fn cycles_per_second(&self) -> u64;
}
