//! What kind of place an address in a stopped process is: its mappings, and what is known of them beyond their names.

use findings::Class;

use super::{InitialStack, Region};
use crate::target::Process;

/// The mappings of one process at one look.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    regions: Vec<Region>,
    initial: Option<InitialStack>,
    /// Stack pointers of its threads.
    pointers: Vec<u64>,
}

impl Places {
    /// Asks what is not known yet. `pointers` are the stack pointers of all threads.
    pub(crate) fn of(process: &Process, regions: Vec<Region>, pointers: Vec<u64>) -> Self {
        Self { regions, initial: InitialStack::of(process), pointers }
    }

    /// The mappings, in ascending order.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The mapping in which an address lies.
    pub(crate) fn region(&self, address: u64) -> Option<&Region> {
        let next = self.regions.partition_point(|region| region.end <= address);
        self.regions.get(next).filter(|region| region.contains(address))
    }

    /// The kind of place; anonymous where no mapping is known.
    pub(crate) fn class(&self, address: u64) -> Class {
        self.region(address)
            .map_or(Class::Anonymous, |region| region.class(address, self.initial.as_ref(), &self.pointers))
    }
}
