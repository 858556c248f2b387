//! The state of a vCPU as KVM lets it be read and written: registers, FPU, MSRs, local APIC,
//! pending events. Captured and restored as a whole, while the vCPU is out of the guest and has no
//! instruction left to complete.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;
use xxhash_rust::xxh3::xxh3_128;

use super::vm::Vm;

/// MSRs that are left out because they are times, which pass by themselves.
const TIMES: [u32; 4] = [
    // IA32_TSC.
    0x10,
    // IA32_TSC_DEADLINE, of the local APIC's timer, which no guest here uses.
    0x6e0,
    // HV_X64_MSR_VP_RUNTIME and HV_X64_MSR_TIME_REF_COUNT, where KVM can be Hyper-V.
    0x4000_0010,
    0x4000_0020,
];

/// One vCPU's state.
#[derive(Debug, Clone)]
pub struct CpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, tables, control registers.
    pub sregs: kvm_sregs,
    /// Whether it runs, halts, or waits to be started.
    pub mp_state: kvm_mp_state,
    /// Exceptions and interrupts on their way.
    pub events: kvm_vcpu_events,
    /// Its local APIC.
    pub lapic: kvm_lapic_state,
    fpu: kvm_fpu,
    debug: kvm_debugregs,
    xcrs: Option<kvm_xcrs>,
    msrs: Vec<kvm_msr_entry>,
}

/// The MSRs that belong to a state.
#[derive(Debug, Clone)]
pub struct MsrList(Vec<u32>);

impl MsrList {
    /// Those that KVM lists, and that can be read from `vcpu` and written back: KVM lists some that
    /// it then refuses.
    ///
    /// # Errors
    /// What KVM said.
    pub fn of(vm: &Vm, vcpu: &VcpuFd) -> Result<Self, errno::Error> {
        let listed = vm.kvm().get_msr_index_list()?;
        let mut kept = Vec::new();
        for index in listed.as_slice() {
            let mut one = msrs(&[*index]);
            let is_read = vcpu.get_msrs(&mut one).is_ok_and(|read| read == 1);
            let is_timeless = !TIMES.contains(index);
            if is_timeless && is_read && vcpu.set_msrs(&one).is_ok_and(|written| written == 1) {
                kept.push(*index);
            }
        }
        Ok(Self(kept))
    }
}

fn msrs(indices: &[u32]) -> Msrs {
    let entries: Vec<_> = indices
        .iter()
        .map(|index| kvm_msr_entry {
            index: *index,
            ..kvm_msr_entry::default()
        })
        .collect();
    Msrs::from_entries(&entries).expect("KVM lists fewer MSRs than it takes at once")
}

impl CpuState {
    /// The state of `vcpu`, with the MSRs of `list`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn capture(vcpu: &VcpuFd, list: &MsrList) -> Result<Self, errno::Error> {
        let mut read = msrs(&list.0);
        vcpu.get_msrs(&mut read)?;
        Ok(Self {
            // This comes first: asking for it makes KVM process pending events, which changes some
            // of the rest.
            mp_state: vcpu.get_mp_state()?,
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            fpu: vcpu.get_fpu()?,
            xcrs: vcpu.get_xcrs().ok(),
            debug: vcpu.get_debug_regs()?,
            msrs: read.as_slice().to_vec(),
            lapic: vcpu.get_lapic()?,
            events: vcpu.get_vcpu_events()?,
        })
    }

    /// Writes this state to `vcpu`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<(), errno::Error> {
        vcpu.set_mp_state(self.mp_state)?;
        vcpu.set_sregs(&self.sregs)?;
        vcpu.set_regs(&self.regs)?;
        vcpu.set_fpu(&self.fpu)?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs)?;
        }
        vcpu.set_debug_regs(&self.debug)?;
        let written = Msrs::from_entries(&self.msrs).expect("as many as were read");
        vcpu.set_msrs(&written)?;
        vcpu.set_lapic(&self.lapic)?;
        // Pending events come last, since they can depend on all of the above.
        vcpu.set_vcpu_events(&self.events)
    }

    /// The values of the MSRs.
    fn msr_values(&self) -> Vec<(u32, u64)> {
        self.msrs.iter().map(|it| (it.index, it.data)).collect()
    }

    /// Segments, tables and control registers, without the stack segment: in long mode it has no
    /// effect, and processors differ in what an interrupt leaves there.
    fn segments(&self) -> kvm_sregs {
        kvm_sregs {
            ss: kvm_segment::default(),
            ..self.sregs
        }
    }

    /// A hash of everything but the general registers, of which [`CpuState::difference`] is none
    /// between states with equal hashes.
    pub fn system_hash(&self) -> u128 {
        let Self {
            mp_state,
            lapic,
            fpu,
            debug,
            xcrs,
            ..
        } = self;
        let all = (
            (self.segments(), mp_state, under_way(&self.events)),
            (&lapic.regs[..], fpu, debug, xcrs, self.msr_values()),
        );
        // These have no bytes without meaning in this form.
        xxh3_128(format!("{all:?}").as_bytes())
    }

    /// What differs from `other` besides the general registers, in words; `None` if nothing does.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            (
                self.segments() != other.segments(),
                "segment and control registers",
            ),
            (self.mp_state != other.mp_state, "its run state"),
            (
                under_way(&self.events) != under_way(&other.events),
                "events on their way",
            ),
            (self.lapic.regs != other.lapic.regs, "the local APIC"),
            (self.fpu != other.fpu, "the FPU"),
            (self.debug != other.debug, "debug registers"),
            (self.xcrs != other.xcrs, "extended control registers"),
            (self.msr_values() != other.msr_values(), "MSRs"),
        ];
        parts
            .into_iter()
            .find(|(differs, _)| *differs)
            .map(|(_, what)| what)
    }
}

/// `events` without the numbers and error codes that KVM keeps of events that are over.
fn under_way(events: &kvm_vcpu_events) -> kvm_vcpu_events {
    let mut events = *events;
    if events.interrupt.injected == 0 {
        events.interrupt.nr = 0;
        events.interrupt.soft = 0;
    }
    if events.exception.injected == 0 && events.exception.pending == 0 {
        events.exception = Default::default();
        events.exception_has_payload = 0;
        events.exception_payload = 0;
    }
    events
}
