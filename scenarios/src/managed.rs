//! Buffers of a manager, by each of the ways in which they are used and end.

use std::hint::black_box;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::Backend;
use secmem::manager::{Config, Error, Hash, Id, Manager, Modality, Template, Token};

use crate::holder::{Held, Holder, Plant, Then};

/// Freed by its owner.
pub(crate) static MANAGED: Holder = ours("managed", &["manager-free"], &["S11"], |plant, then| {
    let buffer = Buffer::filled(plant)?;
    then(&mut Held::Kept)?;
    buffer.free()
});
/// Nobody frees it: it ends by time, or with the manager.
pub(crate) static MANAGED_REST: Holder = ours("managed-rest", &[], &["S19"], |plant, then| {
    let buffer = Buffer::filled(plant)?;
    then(&mut Held::Managed(&buffer))
});
pub(crate) static MANAGED_FORCED: Holder = ours("managed-forced", &["manager-forced"], &["S11"], |plant, then| {
    let buffer = Buffer::filled(plant)?;
    then(&mut Held::Kept)?;
    buffer.manager.cleanup_forced().map(drop).map_err(Failure::while_doing("wiping every buffer"))
});
pub(crate) static MANAGED_SHUTDOWN: Holder =
    ours("managed-shutdown", &["manager-shutdown"], &["S11"], |plant, then| {
        let buffer = Buffer::filled(plant)?;
        then(&mut Held::Kept)?;
        buffer.manager.shutdown().map(drop).map_err(Failure::while_doing("shutting the manager down"))
    });
/// What is written comes from ordinary memory, which is the manager's to wipe.
pub(crate) static MANAGED_INPUT: Holder = ours("managed-input", &["manager-input"], &["S12"], input);
/// Hashed at the end of a long frame, where no later call reaches what the hash leaves.
pub(crate) static MANAGED_HASH: Holder =
    ours("managed-hash", &["manager-hash", "stack-wipe"], &["S13"], |plant, then| {
        let buffer = Buffer::filled(plant)?;
        buffer.hash()?;
        then(&mut Held::Kept)
    });
pub(crate) static MANAGED_COMPARE: Holder =
    ours("managed-compare", &["manager-compare", "manager-free"], &["S13"], |plant, then| {
        let buffer = Buffer::filled(plant)?;
        buffer.compare().map_err(Failure::while_doing("comparing buffers"))?;
        then(&mut Held::Kept)
    });
/// An operation leaves a copy on its stack.
pub(crate) static MANAGED_EXECUTE: Holder =
    ours("managed-execute", &["stack-wipe", "manager-input"], &["S13"], execute);
/// A template with the canary among its texts.
pub(crate) static MANAGED_TEMPLATE: Holder = Holder {
    canary: CanaryKind::Text,
    ..ours("managed-template", &["manager-template", "stack-wipe"], &["S12"], template)
};

/// Bytes of canary: short of a hash function's block, so that the function has to keep them.
const LEN: usize = 48;

const fn ours(
    name: &'static str,
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    let canary = CanaryKind::Bytes;
    Holder { name, canary, canary_len: LEN, needs: &[Need::Mlock], ours: true, asks: false, turned_by, shows, hold }
}

/// A buffer that holds the canary, in memory that an outside reader can read.
pub(crate) struct Buffer {
    manager: Manager,
    owner: Token,
    id: Id,
}

impl Buffer {
    fn new(plant: &Plant<'_>) -> Result<Self, Failure> {
        plant.install_purge()?;
        let config = Config::default().policy(Backend::Mlock).timeout(plant.expires_in);
        let manager = Manager::new(config).map_err(Failure::while_doing("making a manager"))?;
        let doing = "making a buffer";
        let owner = manager.owner().map_err(Failure::while_doing(doing))?;
        let id = manager.allocate(&owner, 2 * plant.len, None).map_err(Failure::while_doing(doing))?;
        Ok(Self { manager, owner, id })
    }

    fn filled(mut plant: Plant<'_>) -> Result<Self, Failure> {
        let buffer = Self::new(&plant)?;
        let mut canary = plant.canary()?;
        let fill = |slot: &mut [u8]| canary.read_into(slot).map_err(|_| Error::Algorithm);
        let filled = buffer.manager.fill(&buffer.owner, &buffer.id, plant.len, fill);
        filled.map_err(Failure::while_doing("reading the canary into a buffer"))?;
        Ok(buffer)
    }

    fn free(&self) -> Result<(), Failure> {
        self.manager.deallocate(&self.owner, &self.id).map_err(Failure::while_doing("freeing a buffer"))
    }

    /// Where the data stands, and how much of it there is.
    pub(crate) fn place(&self) -> Result<(*const u8, usize), Failure> {
        let place = self.manager.read(&self.owner, &self.id, .., |bytes| (bytes.as_ptr(), bytes.len()));
        place.map_err(Failure::while_doing("looking the buffer up"))
    }

    #[inline(never)]
    fn hash(&self) -> Result<(), Failure> {
        let mut frame = [0_u8; 16 << 10];
        black_box(&mut frame);
        let hash = self.manager.create_secure_hash(&self.owner, &self.id, Hash::Sha3_256);
        black_box(&mut frame);
        hash.map(drop).map_err(Failure::while_doing("hashing a buffer"))
    }

    fn compare(&self) -> Result<(), Error> {
        let twin = self.manager.allocate(&self.owner, 3 * LEN, None)?;
        self.manager.copy(&self.owner, &self.id, .., &twin)?;
        black_box(self.manager.secure_compare(&self.owner, &self.id, &twin)?);
        self.manager.deallocate(&self.owner, &twin)
    }
}

fn input(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let buffer = Buffer::new(&plant)?;
    let mut bytes = vec![0; plant.len];
    plant.canary()?.read_into(&mut bytes)?;
    let written = buffer.manager.write(&buffer.owner, &buffer.id, &mut bytes);
    written.map_err(Failure::while_doing("writing to a buffer"))?;
    then(&mut Held::Kept)
}

fn execute(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let buffer = Buffer::filled(plant)?;
    let operation = |data: &mut [u8]| {
        let mut frame = [0; 4 << 10];
        secmem::wipe::copy(data, &mut frame[..LEN]);
        black_box(&mut frame);
    };
    then(&mut Held::Kept)?;
    let ran = buffer.manager.read(&buffer.owner, &buffer.id, .., |bytes| {
        // From a buffer to an operation's input it goes through ordinary memory, which the manager wipes. Of a size that nothing
        // else here asks the allocator for.
        let mut input = vec![0; LEN];
        input.reserve_exact(900);
        secmem::wipe::copy(bytes, &mut input);
        buffer.manager.execute_with_secure_data(&buffer.owner, &mut input, operation)
    });
    ran.and_then(|ran| ran).map_err(Failure::while_doing("running an operation"))
}

fn template(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let buffer = Buffer::new(&plant)?;
    let mut bytes = vec![0; plant.len];
    plant.canary()?.read_into(&mut bytes)?;
    let value = String::from_utf8(bytes).map_err(Failure::while_doing("reading the canary as text"))?;
    let metadata = vec![(String::from("token"), value)];
    let template = Template { modality: Modality::Voice, quality: 1.0, samples: vec![1.0], metadata };
    let kept = buffer.manager.keep_secure_biometric(&buffer.owner, template, None);
    kept.map_err(Failure::while_doing("keeping a template"))?;
    then(&mut Held::Kept)
}
