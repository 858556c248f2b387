//! The addresses of the points of the guest image at which a search stops CPUs, by their meaning.
//! Plain data.

use shared::stop;

use super::errors::SpecimenError;
use crate::explore::schedule::Granularity;
use crate::machine::points::{Point, Points};

/// The addresses of the points that a search treats specially.
#[derive(Debug, Clone, Copy)]
pub(super) struct StopPoints {
    /// Before each access to memory; `None` at a granularity that does not stop there.
    pub(super) access: Option<u64>,
    /// Before a CPU waits for an interrupt.
    pub(super) idle: u64,
    /// In loops that wait for another CPU; unused places are 0.
    pub(super) relax: [u64; 8],
    /// After a CPU has left the workload; `None` in guests whose CPUs never leave.
    pub(super) left: Option<u64>,
}

impl StopPoints {
    /// Finds the points that a search at this granularity needs.
    ///
    /// # Errors
    /// [`SpecimenError::NoPoint`] if the image lacks one.
    pub(super) fn find(points: &Points, granularity: Granularity) -> Result<Self, SpecimenError> {
        let named = |point: &'static str| {
            let found = points.named(point).next();
            found
                .map(|it| it.address)
                .ok_or(SpecimenError::NoPoint { point })
        };
        let access = match granularity {
            Granularity::Access | Granularity::Every => Some(named(stop::NAME)?),
            Granularity::Probe => None,
        };
        let mut relax = [0; 8];
        let found = points.named(stop::RELAX).map(|point: &Point| point.address);
        for (place, address) in relax.iter_mut().zip(found) {
            *place = address;
        }
        Ok(Self {
            access,
            idle: named(stop::IDLE)?,
            relax,
            left: named(stop::LEFT).ok(),
        })
    }
}
