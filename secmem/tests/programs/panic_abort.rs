//! A program whose panics abort, built by a test of the endings: it panics within an access, and the hook that runs after the
//! purge says by its exit status what stands in the memory then: 40 for zeros, 41 for anything else.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use secmem::purge::{self, Plan};
use secmem::{Backend, Secret};

static PLACE: AtomicU64 = AtomicU64::new(0);

fn look() -> i32 {
    let mut bytes = [1; 32];
    // Of pages of mlock, which the file shows.
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, PLACE.load(Ordering::SeqCst)).unwrap();
    if bytes == [0; 32] { 40 } else { 41 }
}

fn main() {
    assert!(cfg!(panic = "abort"));
    let mut used = Secret::options().backend(Backend::Mlock).zeroed(32).unwrap();
    let place = used.with_mut(|bytes| {
        bytes.fill(0xA7);
        bytes.as_ptr().addr()
    });
    PLACE.store(place.unwrap() as u64, Ordering::SeqCst);
    assert_eq!(look(), 41);
    std::panic::set_hook(Box::new(|_| std::process::exit(look())));
    purge::install(&Plan::default()).unwrap();
    let _ = used.with(|bytes| assert!(bytes.is_empty(), "this is the panic"));
}
