//! Buffers of a manager, by each of the ways in which they are used and end.

use std::hint::black_box;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::manager::{Config, Error, Hash, Id, Manager, Modality, Template, Token, WhenFull};
use secmem::{Backend, Secret};

use crate::holder::{Held, Holder, Plant, Then};

/// Freed by its owner.
pub(crate) static MANAGED: Holder = ours("managed", &["manager-free"], &["S11"], |plant, then| {
    let buffer = Buffer::filled(plant)?;
    then(&mut Held::Kept)?;
    buffer.free()
});
/// Nobody uses it for as long as the rows of deadlines wait.
pub(crate) static MANAGED_IDLE: Holder = ours("managed-idle", &["manager-sweep"], &["S19"], rest);
/// Nobody frees it: it ends with the manager, or with the process.
pub(crate) static MANAGED_REST: Holder = ours("managed-rest", &[], &["S11"], rest);
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
/// Another buffer takes its place.
pub(crate) static MANAGED_EVICTED: Holder = ours("managed-evicted", &["manager-evict"], &["S11"], |plant, then| {
    let buffer = Buffer::filled_as(plant, |config| config.max_buffers(1).when_full(WhenFull::EvictIdle))?;
    then(&mut Held::Kept)?;
    let made = buffer.manager.allocate(&buffer.owner, 1, None);
    made.map(drop).map_err(Failure::while_doing("making a buffer in place of another"))?;
    buffer.left();
    Ok(())
});
/// Copied to a slot of its own, which outlives the buffer.
pub(crate) static MANAGED_COPIED: Holder = ours("managed-copied", &["manager-free"], &["S13"], |plant, then| {
    let buffer = Buffer::filled(plant)?;
    let options = Secret::options().backend(Backend::Mlock);
    let copied = buffer.manager.read_secret(&buffer.owner, &buffer.id, .., options);
    let mut copied = copied.map_err(Failure::while_doing("copying a buffer to a slot"))?;
    buffer.free()?;
    then(&mut Held::Secmem(&mut copied))
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
    ours("managed-execute", OPERATION, &["S13"], |plant, then| execute(Buffer::filled(plant)?, then, Ok(())));
/// The same, and then it panics. A purge would hide whether the manager wipes, so none is installed.
pub(crate) static MANAGED_PANICKED: Holder = ours("managed-panicked", OPERATION, &["S13", "S16"], |plant, then| {
    execute(Buffer::filled(Plant { purges: None, ..plant })?, then, Err(Error::Panicked))
});
/// A template with the canary among its texts.
pub(crate) static MANAGED_TEMPLATE: Holder = Holder {
    canary: CanaryKind::Text,
    ..ours("managed-template", &["manager-template"], &["S12"], |plant, then| template(plant, then, |config| config))
};
/// The same, compressed.
pub(crate) static MANAGED_COMPRESSED: Holder = Holder {
    canary: CanaryKind::Text,
    ..ours("managed-compressed", &["manager-template"], &["S12"], |plant, then| {
        template(plant, then, |config| config.compress_templates(true))
    })
};
/// A template that an operation reads, which leaves a copy on its stack.
pub(crate) static MANAGED_PROCESSED: Holder = Holder {
    canary: CanaryKind::Text,
    ..ours("managed-processed", &["manager-template", "manager-free", "stack-wipe"], &["S12", "S13"], process)
};

/// What keeps clean what an operation uses.
const OPERATION: &[&str] = &["manager-free", "manager-input", "stack-wipe"];

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

/// A buffer for the canary, in memory that an outside reader can read.
pub(crate) struct Buffer {
    pub(crate) manager: Manager,
    pub(crate) owner: Token,
    id: Id,
}

impl Buffer {
    pub(crate) fn new(plant: &Plant<'_>, how: impl Fn(Config) -> Config) -> Result<Self, Failure> {
        plant.install_purge()?;
        let config = Config::default().policy(Backend::Mlock).timeout(plant.expires_in);
        let manager = Manager::new(how(config)).map_err(Failure::while_doing("making a manager"))?;
        let doing = "making a buffer";
        let owner = manager.owner().map_err(Failure::while_doing(doing))?;
        let id = manager.allocate(&owner, 2 * plant.len, None).map_err(Failure::while_doing(doing))?;
        Ok(Self { manager, owner, id })
    }

    fn filled(plant: Plant<'_>) -> Result<Self, Failure> {
        Self::filled_as(plant, |config| config)
    }

    fn filled_as(mut plant: Plant<'_>, how: impl Fn(Config) -> Config) -> Result<Self, Failure> {
        let buffer = Self::new(&plant, how)?;
        let mut canary = plant.canary()?;
        let fill = |slot: &mut [u8]| canary.read_into(slot).map_err(|_| Error::Algorithm);
        let filled = buffer.manager.fill(&buffer.owner, &buffer.id, plant.len, fill);
        filled.map_err(Failure::while_doing("reading the canary into a buffer"))?;
        Ok(buffer)
    }

    fn free(&self) -> Result<(), Failure> {
        self.manager.deallocate(&self.owner, &self.id).map_err(Failure::while_doing("freeing a buffer"))
    }

    /// Leaves the manager as it is: what ends with it has not been ended by anything else.
    pub(crate) fn left(self) {
        std::mem::forget(self);
    }

    /// Where the data stands, and how much of it there is. It is short and so in a shared arena, which stays mapped.
    fn place(&self) -> Result<(*const u8, usize), Failure> {
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

/// Copies `data` to the low end of a frame, which no later call reaches.
#[inline(never)]
pub(crate) fn copy_to_stack(data: &[u8]) {
    let mut frame = [0; 16 << 10]; // more than a panic and what catches it need
    secmem::wipe::copy(&data[..LEN], &mut frame[..LEN]);
    black_box(&mut frame);
}

fn rest(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let buffer = Buffer::filled(plant)?;
    let (start, len) = buffer.place()?;
    then(&mut Held::At(start, len))
}

fn input(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let buffer = Buffer::new(&plant, |config| config)?;
    let mut bytes = vec![0; plant.len];
    plant.canary()?.read_into(&mut bytes)?;
    let written = buffer.manager.write(&buffer.owner, &buffer.id, &mut bytes);
    written.map_err(Failure::while_doing("writing to a buffer"))?;
    then(&mut Held::Kept)
}

/// Runs an operation that comes to an end, or panics, as `ends` says.
fn execute(buffer: Buffer, then: Then<'_>, ends: Result<(), Error>) -> Result<(), Failure> {
    then(&mut Held::Kept)?;
    let operation = |data: &mut [u8]| {
        copy_to_stack(data);
        assert!(ends.is_ok(), "the end of this operation");
    };
    let ran = buffer.manager.read(&buffer.owner, &buffer.id, .., |bytes| {
        // From a buffer to an operation's input it goes through ordinary memory, which the manager wipes. Of a size that nothing
        // else here asks the allocator for.
        let mut input = vec![0; LEN];
        input.reserve_exact(900);
        secmem::wipe::copy(bytes, &mut input);
        buffer.manager.execute_with_secure_data(&buffer.owner, &mut input, operation)
    });
    match (ran.and_then(|ran| ran), &ends) {
        (Ok(()), Ok(())) | (Err(Error::Panicked), Err(_)) => buffer.free(),
        (Ok(()), Err(_)) => Err(Failure::denied("telling that an operation has panicked")),
        (Err(error), _) => Err(error).map_err(Failure::while_doing("running an operation")),
    }
}

/// A template whose text is `value`, which moves there.
fn template_of(value: Vec<u8>) -> Result<Template, Failure> {
    let value = String::from_utf8(value).map_err(Failure::while_doing("reading the canary as text"))?;
    let metadata = vec![(String::from("token"), value)];
    Ok(Template { modality: Modality::Voice, quality: 1.0, samples: vec![1.0; 64], metadata })
}

fn template(mut plant: Plant<'_>, then: Then<'_>, how: fn(Config) -> Config) -> Result<(), Failure> {
    let buffer = Buffer::new(&plant, how)?;
    let mut bytes = vec![0; plant.len];
    plant.canary()?.read_into(&mut bytes)?;
    let kept = buffer.manager.keep_secure_biometric(&buffer.owner, template_of(bytes)?, None);
    let kept = kept.map_err(Failure::while_doing("keeping a template"))?;
    let read = buffer.manager.read_secure_biometric(&buffer.owner, &kept, |view| view.samples().len());
    read.map(drop).map_err(Failure::while_doing("reading a template"))?;
    then(&mut Held::Kept)
}

fn process(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let buffer = Buffer::filled(plant)?;
    then(&mut Held::Kept)?;
    let ran = buffer.manager.read(&buffer.owner, &buffer.id, .., |bytes| {
        let mut value = vec![0; LEN];
        value.reserve_exact(900);
        secmem::wipe::copy(bytes, &mut value);
        let operation = |view: secmem::manager::TemplateView<'_>| {
            view.metadata().for_each(|(_, value)| copy_to_stack(value.as_bytes()));
        };
        let ran = buffer.manager.process_secure_biometric(&buffer.owner, template_of(value)?, operation);
        ran.map_err(Failure::while_doing("processing a template"))
    });
    ran.map_err(Failure::while_doing("looking the buffer up"))??;
    buffer.free()
}
