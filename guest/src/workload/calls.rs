//! Calls as the workloads make them: entered in the ledger, made, and noted as returned.

use kit::platform::{CpuId, Platform};
use kit::sync::mask::{CpuMask, Targets};

use super::functions::{Function, LedgerFunctions};
use crate::ipi::csd::Call;
use crate::ipi::{Ipi, NoneOnline, Offline};

/// [`Ipi::call_single`] of `function`.
///
/// # Errors
/// [`Offline`] if `target` is.
pub fn single<P: Platform>(
    ipi: &Ipi<P, LedgerFunctions>,
    target: CpuId,
    function: Function,
    wait: bool,
) -> Result<(), Offline> {
    let cpus = ipi.machine.cpus;
    let made = CpuMask::only(target, cpus);
    let mut result = Ok(());
    entered(ipi, &made, function, wait, |call| {
        result = ipi.call_single(target, call, wait);
        if result.is_ok() {
            made
        } else {
            CpuMask::none(cpus)
        }
    });
    result
}

/// [`Ipi::call_many`] of `function`. If `mask` changes meanwhile, `among` holds all it can hold.
pub fn many<P: Platform>(
    ipi: &Ipi<P, LedgerFunctions>,
    mask: &dyn Targets,
    among: &CpuMask,
    function: Function,
    wait: bool,
) {
    let mut others = *among;
    others.remove(ipi.machine.this_cpu());
    entered(ipi, &others, function, wait, |call| {
        ipi.call_many(mask, call, wait)
    });
}

/// [`Ipi::call_all`] of `function`.
pub fn all<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, function: Function, wait: bool) {
    let mut others = CpuMask::all(ipi.machine.cpus);
    others.remove(ipi.machine.this_cpu());
    entered(ipi, &others, function, wait, |call| {
        ipi.call_all(call, wait)
    });
}

/// [`Ipi::on_each_cpu`] of `function`.
pub fn each<P: Platform>(ipi: &Ipi<P, LedgerFunctions>, function: Function, wait: bool) {
    let all = CpuMask::all(ipi.machine.cpus);
    entered(ipi, &all, function, wait, |call| {
        ipi.on_each_cpu(call, wait)
    });
}

/// [`Ipi::call_any`] of `function`.
///
/// # Errors
/// [`NoneOnline`] if no CPU of `mask` is.
pub fn any<P: Platform>(
    ipi: &Ipi<P, LedgerFunctions>,
    mask: &CpuMask,
    function: Function,
    wait: bool,
) -> Result<CpuId, NoneOnline> {
    let cpus = ipi.machine.cpus;
    let mut result = Err(NoneOnline);
    entered(ipi, mask, function, wait, |call| {
        result = ipi.call_any(mask, call, wait);
        result.map_or_else(|_| CpuMask::none(cpus), |cpu| CpuMask::only(cpu, cpus))
    });
    result
}

/// Enters a call to CPUs of `among`, has `make` make it, and notes to which CPUs it was made.
pub fn entered<P: Platform>(
    ipi: &Ipi<P, LedgerFunctions>,
    among: &CpuMask,
    function: Function,
    wait: bool,
    make: impl FnOnce(Call) -> CpuMask,
) {
    let call = ipi.functions.enter(&ipi.machine, function, among, wait);
    let targets = make(call);
    ipi.functions.returned(&ipi.machine, call, &targets);
}
