//! Operations of a manager as futures that are dropped: before they begin, while they run, when they have panicked.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Waker};
use std::time::Duration;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::manager::{Error, Operation};
use tokio::runtime::{Builder, Runtime};

use crate::holder::{Held, Holder, Plant, Then};
use crate::managed::{Buffer, copy_to_stack};

/// Nobody has polled it.
pub(crate) static FUTURE_WAITING: Holder =
    ours("future-waiting", &["future-drop", "manager-free", "manager-input"], &["S11", "S12"], waiting);
/// It is dropped while a thread runs it, which leaves a copy on its stack afterwards.
pub(crate) static FUTURE_RUNNING: Holder =
    ours("future-running", &["manager-free", "manager-input", "stack-wipe"], &["S11", "S13"], running);
/// It panics while it is waited for, with a copy on its stack. A purge would hide who wipes, so none is installed.
pub(crate) static FUTURE_PANICKED: Holder =
    ours("future-panicked", &["manager-free", "manager-input", "stack-wipe"], &["S13", "S16"], panicked);

/// Bytes of canary.
const LEN: usize = 48;

/// How long a thread is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

const fn ours(
    name: &'static str,
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    let (canary, needs): (_, &[Need]) = (CanaryKind::Bytes, &[Need::Mlock]);
    Holder { name, canary, canary_len: LEN, needs, ours: true, asks: false, turned_by, shows, hold }
}

/// An operation on the canary, which comes from ordinary memory: it is the manager's to wipe.
fn operation(
    mut plant: Plant<'_>,
    work: impl FnOnce(&mut [u8]) + Send + 'static,
) -> Result<(Buffer, Operation<()>), Failure> {
    let buffer = Buffer::new(&plant, |config| config)?;
    let mut bytes = vec![0; LEN];
    bytes.reserve_exact(900);
    plant.canary()?.read_into(&mut bytes)?;
    let operation = buffer.manager.execute_with_secure_data_async(&buffer.owner, &mut bytes, work);
    Ok((buffer, operation))
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build();
    runtime.map_err(Failure::while_doing("starting a runtime"))
}

fn waiting(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let (buffer, operation) = operation(plant, copied)?;
    then(&mut Held::Kept)?;
    drop(operation);
    buffer.left();
    Ok(())
}

fn copied(data: &mut [u8]) {
    copy_to_stack(data);
}

fn running(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let ((began, begun), (go, gone)) = (channel(), channel());
    let (buffer, operation) = operation(plant, move |data| work(data, &began, &gone))?;
    let runtime = runtime()?;
    {
        let _within = runtime.enter();
        let mut operation = pin!(operation);
        let mut context = Context::from_waker(Waker::noop());
        let early = operation.as_mut().poll(&mut context).is_ready();
        if early || begun.recv_timeout(PATIENCE).is_err() {
            return Err(io::Error::other("it did not")).map_err(Failure::while_doing("letting an operation begin"));
        }
        then(&mut Held::Kept)?;
    } // the future is dropped
    go.send(()).map_err(Failure::while_doing("letting an operation end"))?;
    // The thread has ended when its sender is gone: with all that it has run.
    let ended = begun.recv_timeout(PATIENCE);
    buffer.left();
    runtime.shutdown_timeout(PATIENCE);
    ended.map_err(Failure::while_doing("waiting for an operation that nobody waits for"))
}

/// Tells that it has begun, waits, copies, tells that it is about to end.
fn work(data: &mut [u8], began: &Sender<()>, go: &Receiver<()>) {
    if began.send(()).is_ok() && go.recv_timeout(PATIENCE).is_ok() {
        copy_to_stack(data);
        let _unheard = began.send(());
    }
}

fn panicked(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let plant = Plant { purges: None, ..plant };
    let work = |data: &mut [u8]| {
        copy_to_stack(data);
        panic!("the end of this operation");
    };
    let (buffer, operation) = operation(plant, work)?;
    let runtime = runtime()?;
    then(&mut Held::Kept)?;
    let ended = runtime.block_on(operation);
    runtime.shutdown_timeout(PATIENCE);
    buffer.left();
    match ended {
        Err(Error::Panicked) => Ok(()),
        _ => Err(Failure::denied("telling that an operation has panicked")),
    }
}
