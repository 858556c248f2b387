//! From the first line of Rust on each CPU to the end of the run: the machine is discovered and
//! brought up, the guest is made on it, every CPU runs its part, and one prints how the run went.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shared::cpus::MAX_CPUS;
use shared::exit::ExitCode::{BadMachine, BadOptions};
use shared::lab::{ALIGN, Transport};

use super::boot::TRAMPOLINE;
use super::cpu::{APIC_IDS, Cpu};
use super::hypercall::Hypercall;
use super::image::{Image, guest, install};
use super::physical::{MEMORY, PAGE};
use super::platform::Metal;
use super::smp::Starting;
use super::start_info::StartInfo;
use super::{acpi, apic, clock, console, end, heap, hypercall, paging, platform, smp, traps};
use crate::effective::Effective;
use crate::lab::Lab;
use crate::log;
use crate::options::{ApicMode, CommandLine, Eoi, MachineOptions, Options};
use crate::platform::{Doorbell, Platform, Vector};
use crate::probe;
use crate::route::{Choice, Router};
use crate::specimen::{Part, Specimen};
use crate::sync::mask::CpuMask;

/// Set once every CPU is online: the workload may begin.
static GO: AtomicBool = AtomicBool::new(false);

/// When the first CPU entered Rust, until the lab has been told. It is not on the stack, where it
/// would stay for as long as the guest runs: two boots may leave no difference in memory.
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);

/// Where the first CPU enters Rust, with the address of the PVH start info.
pub fn first_cpu<I: Image>(start_info: u32) -> ! {
    BOOT_TSC.store(clock::now(), Ordering::Relaxed);
    // SAFETY: this is the first CPU, and these are its first lines.
    let cpu = unsafe { Cpu::init_first() };
    // SAFETY: likewise.
    unsafe { traps::init::<I>() };
    cpu.load_tables();
    traps::load();
    console::init();

    let info = StartInfo::read(start_info.into())
        .unwrap_or_else(|why| end::refuse(BadMachine, format_args!("{why}")));
    // SAFETY: RAM by the memory map, without the image and the start info. Nothing else is in use.
    unsafe { heap::give(info.free_memory(image_memory())) };
    let line = read_options(&info);
    let options: &MachineOptions = &line.machine;

    let mode = choose_mode(options);
    apic::set_mode(mode);
    if options.eoi == Eoi::Pv {
        if !hypercall::has_pv_eoi() {
            end::refuse(BadMachine, format_args!("eoi=pv: no KVM offers that here"));
        }
        apic::set_pv_eoi();
    }
    apic::enable();
    let apic_ids = find_cpus(&info, mode);
    if let Err(why) = Options::check_cpus(&line.guest, apic_ids.len()) {
        end::refuse(BadOptions, format_args!("{why}"));
    }
    let lab = open_lab(&info, options, apic_ids.len());
    if !info.is_ram(&(TRAMPOLINE..TRAMPOLINE + PAGE)) {
        let why = format_args!("the page at {TRAMPOLINE:#x}, where CPUs start, is not RAM");
        end::refuse(BadMachine, why);
    }
    let hypercall = find_hypercall(options);
    if hypercall.is_some() {
        // The IPI by which it was found, which arrives when interrupts are on.
        lab.counters(0).count_ipi(Transport::Pv, 1, 1);
    }
    let router = Router {
        choice: options.transport,
        unicast: match options.transport {
            Choice::One(Transport::Wire) => Transport::Wire,
            _ => mode.transport(),
        },
        has_clusters: mode == ApicMode::X2apic,
        has_pv: hypercall.is_some(),
    };
    lab.set_words(Effective {
        asked: &line,
        apic: mode,
        unicast: router.unicast,
        cpus: apic_ids.len(),
    });
    let metal = Metal {
        router,
        mode,
        hypercall,
        icr_fence: options.icr_fence,
        apic_ids,
        lab,
        has_doorbell: options.lab.is_some(),
        hz: clock::frequency(),
        self_ipi_by_wire: options.self_ipi_by_wire,
        clock_stopped: options.clock_stopped,
        starting: Starting {
            by_wire: router.unicast == Transport::Wire,
            limit_micros: u64::from(options.start_limit_millis) * 1000,
        },
    };
    install::<I>(I::Guest::new(metal, &line.guest, lab));

    // SAFETY: everything the monitor may have put there has been read.
    unsafe { paging::remove(0) };
    cpu.guard_stacks();
    let at_boot = line.guest.cpus_at_boot(apic_ids.len());
    if let Err(missing) = smp::start_others(apic_ids, at_boot, metal.starting) {
        end::refuse(BadMachine, format_args!("{missing}"));
    }
    for (cpu, id) in apic_ids.iter().enumerate() {
        let [task, handler] = Cpu::stacks(*id);
        lab.set_stacks(cpu, task, handler);
    }
    lab.set_boot_tsc(BOOT_TSC.swap(0, Ordering::Relaxed));
    lab.set_cpus_online(at_boot);
    log!(
        "{at_boot} CPUs up, transport {}{}",
        options.transport.name(router.unicast),
        Title(&line.guest)
    );
    log_what_is_broken(&line);

    lab.set_workload_tsc(clock::now());
    metal.ring(Doorbell::WorkloadStarted);
    GO.store(true, Ordering::Release);
    let mut others = CpuMask::none(apic_ids.len());
    (1..at_boot).for_each(|other| others.insert(other));
    metal.send_ipi_mask(&others, Vector::WAKE);
    run::<I>()
}

/// This CPU's part of the run, and what follows it.
fn run<I: Image>() -> ! {
    let guest = guest::<I>();
    match guest.run_cpu() {
        Part::Left => leave::<I>(),
        Part::Done => loop {
            guest.platform().idle_unless(&|| false);
        },
        Part::Over => {
            guest.platform().ring(Doorbell::WorkloadFinished);
            log!("{}", guest.verdict());
            end::exit(guest.platform().lab.conclusion())
        }
    }
}

/// This CPU takes no part until it is started again.
fn leave<I: Image>() -> ! {
    probe!(*guest::<I>().platform(), "cpu.left");
    smp::park()
}

/// Where every other CPU enters Rust after a start-up IPI: at boot, and each time it comes back
/// online.
pub fn other_cpu<I: Image>() -> ! {
    let cpu = Cpu::current();
    cpu.load_tables();
    traps::load();
    apic::enable();
    // An INIT can have come while it waited.
    #[cfg(feature = "explore")]
    guest::<I>()
        .platform()
        .lab
        .waits(cpu.index)
        .store(0, Ordering::Relaxed);
    if !cpu.comes_online() {
        leave::<I>();
    }
    let may_go = || GO.load(Ordering::Acquire);
    while !may_go() {
        platform::idle_unless(may_go);
    }
    run::<I>()
}

/// Prints which options of the run are broken on purpose, so that their findings are no surprise.
fn log_what_is_broken(options: &CommandLine<impl Options>) {
    let fence = (!options.machine.icr_fence).then_some(("icr-fence", "off"));
    for (key, value) in options.guest.broken().chain(fence) {
        log!("{key}={value} is broken on purpose");
    }
}

/// What a guest prints of itself after the number of CPUs.
struct Title<'a, O>(&'a O);

impl<O: Options> fmt::Display for Title<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_title(f)
    }
}

/// The memory that the image occupies, its zero-initialized part included.
fn image_memory() -> core::ops::Range<u64> {
    unsafe extern "C" {
        static image_start: u8;
        static image_end: u8;
    }
    &raw const image_start as u64..&raw const image_end as u64
}

fn read_options<O: Options>(info: &StartInfo) -> CommandLine<O> {
    let line = str::from_utf8(info.command_line())
        .unwrap_or_else(|_| end::refuse(BadOptions, format_args!("command line: not UTF-8")));
    CommandLine::parse(line).unwrap_or_else(|why| end::refuse(BadOptions, format_args!("{why}")))
}

/// The mode of the APICs.
fn choose_mode(options: &MachineOptions) -> ApicMode {
    let best = apic::best_mode();
    let wanted = options.apic.or(match options.transport {
        Choice::One(Transport::Xapic) => Some(ApicMode::Xapic),
        Choice::One(Transport::X2apic | Transport::X2apicCluster) => Some(ApicMode::X2apic),
        _ => None,
    });
    if (wanted, best) == (Some(ApicMode::X2apic), ApicMode::Xapic) {
        let why = format_args!("these CPUs have no x2APIC; take transport=xapic");
        end::refuse(BadMachine, why);
    }
    wanted.unwrap_or(best)
}

/// The hypercall that sends IPIs, if it may be tried and works.
fn find_hypercall(options: &MachineOptions) -> Option<Hypercall> {
    // Another monitor may not have told KVM to leave the instruction as it is.
    if options.lab.is_none() || !matches!(options.transport, Choice::Auto | PV) {
        return None;
    }
    const PV: Choice = Choice::One(Transport::Pv);
    let hypercall = Hypercall::for_ipis(apic::id());
    if options.transport == PV && hypercall.is_none() {
        let why = format_args!(
            "transport=pv: this KVM does not offer KVM_HC_SEND_IPI, or offers it and sends \
             nothing; transport=auto takes it where it works"
        );
        end::refuse(BadMachine, why);
    }
    hypercall
}

/// The APIC ids of the CPUs, the first CPU's first and the others in the order of the MADT.
fn find_cpus(info: &StartInfo, mode: ApicMode) -> &'static [u32] {
    end::know_power_off(acpi::power_off(info.rsdp()));
    let mut ids: Vec<u32> = acpi::apic_ids(info.rsdp())
        .unwrap_or_else(|why| end::refuse(BadMachine, format_args!("{why}")));
    let own = apic::id();
    let (limit, name) = match mode {
        ApicMode::Xapic => (apic::XAPIC_LAST_ID + 1, "an xAPIC"),
        ApicMode::X2apic => (APIC_IDS as u32, "an x2APIC"),
    };
    if let Some(id) = ids.iter().find(|id| **id >= limit) {
        let why = format_args!("APIC id {id} is out of reach: {name} ends below {limit}");
        end::refuse(BadMachine, why);
    }
    if ids.len() > MAX_CPUS as usize {
        let why = format_args!("{} CPUs are too many: the limit is {MAX_CPUS}", ids.len());
        end::refuse(BadMachine, why);
    }
    let Some(first) = ids.iter().position(|id| *id == own) else {
        let why = format_args!("the MADT does not list the CPU that booted, APIC id {own}");
        end::refuse(BadMachine, why);
    };
    ids[..=first].rotate_right(1);
    ids.leak()
}

/// The lab that the command line names, or one in the guest's own memory.
fn open_lab(info: &StartInfo, options: &MachineOptions, cpus: usize) -> Lab {
    let lab = match options.lab {
        None => Lab::allocate(cpus as u32),
        Some(address) => {
            let base = NonNull::new(address as *mut u8)
                .filter(|_| MEMORY.contains(&address) && address.is_multiple_of(ALIGN));
            let (Some(base), Some(limit)) = (base, info.reserved_from(address)) else {
                let why = format_args!("lab={address:#x} is not a page of reserved memory");
                end::refuse(BadOptions, why);
            };
            // SAFETY: aligned, mapped, and reserved by the monitor for this; `limit` is how far the
            // reserved memory goes.
            unsafe { Lab::open(base, limit) }
        }
    };
    let lab = lab.unwrap_or_else(|why| end::refuse(BadMachine, format_args!("{why}")));
    if lab.cpus() != cpus {
        let why = format_args!("the lab is for {} CPUs, the machine has {cpus}", lab.cpus());
        end::refuse(BadMachine, why);
    }
    lab
}

/// The entry of an image: `kit::guest!(Guest<Metal>, [ONE, OTHER])` makes it boot this
/// [`Specimen`](crate::specimen::Specimen), which takes interrupts at these vectors of its own
/// besides [`Vector::WAKE`] and [`Vector::LAST`]. It belongs at the root of the image's crate,
/// which has `#![no_std]` and `#![no_main]`.
#[macro_export]
macro_rules! guest {
    ($guest:ty, [$($vector:expr),* $(,)?]) => {
        /// The guest that runs.
        static GUEST: ::core::sync::atomic::AtomicPtr<$guest> =
            ::core::sync::atomic::AtomicPtr::new(::core::ptr::null_mut());

        #[derive(Debug)]
        struct Image;

        impl $crate::metal::image::Image for Image {
            type Guest = $guest;

            const ENTRIES: &'static [($crate::platform::Vector, $crate::metal::image::Entry)] = &[
                $(($vector, $crate::metal::traps::entry::<Self, { $vector.number() }>)),*
            ];

            fn place() -> &'static ::core::sync::atomic::AtomicPtr<$guest> {
                &GUEST
            }
        }

        // SAFETY: the one definition of what the kit declares, with the same signature.
        #[unsafe(no_mangle)]
        extern "C" fn start_first_cpu(start_info: u32) -> ! {
            $crate::metal::start::first_cpu::<Image>(start_info)
        }

        // SAFETY: likewise.
        #[unsafe(no_mangle)]
        extern "C" fn start_other_cpu() -> ! {
            $crate::metal::start::other_cpu::<Image>()
        }
    };
}
