//! What becomes of the vectors and strings that secrets are made of: an allocator that gives nothing back keeps them in sight.
#![allow(unsafe_code)] // an allocator is unsafe by its trait

mod common;

use std::alloc::{GlobalAlloc, Layout, System};

use common::peek;
use secmem::{Bytes, Secret, Text};

struct KeepAll;

// SAFETY: memory is the system's, and never given back.
unsafe impl GlobalAlloc for KeepAll {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this method, which is that of the other.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: KeepAll = KeepAll;

const CAPACITY: usize = 1000;

/// A vector with content beyond its length, as after a `truncate`.
fn vector() -> (Vec<u8>, *const u8) {
    let mut bytes = Vec::with_capacity(CAPACITY);
    bytes.resize(CAPACITY, b'x');
    bytes.truncate(10);
    let at = bytes.as_ptr();
    (bytes, at)
}

fn left(at: *const u8) -> usize {
    peek(at, CAPACITY).iter().filter(|&&byte| byte != 0).count()
}

#[test]
fn a_vector_that_is_dropped_is_seen() {
    let (bytes, at) = vector();
    drop(bytes);

    assert_eq!(left(at), CAPACITY);
}

#[test]
fn a_vector_that_becomes_a_secret_is_wiped_to_the_end_of_its_capacity() {
    let (bytes, at) = vector();
    let secret = Secret::try_from(bytes).unwrap();
    assert_eq!((left(at), secret.len()), (0, 10));
    assert!(secret.with(|it| it == b"xxxxxxxxxx").unwrap());

    let (bytes, at) = vector();
    let grows = Bytes::try_from(bytes).unwrap();
    assert_eq!((left(at), grows.len()), (0, 10));

    let (bytes, at) = vector();
    let text = Text::try_from(String::from_utf8(bytes).unwrap()).unwrap();
    assert_eq!((left(at), text.len()), (0, 10));
}

#[test]
fn a_vector_that_could_not_become_a_secret_is_wiped_all_the_same() {
    let ended = common::in_child(|| {
        common::limit_locked_memory(0);
        let (bytes, at) = vector();
        assert!(Secret::try_from(bytes).is_err());
        assert_eq!(left(at), 0);
        let (bytes, at) = vector();
        assert!(Text::try_from(String::from_utf8(bytes).unwrap()).is_err());
        assert_eq!(left(at), 0);
    });

    assert!(ended.status.success(), "{ended:?}");
}
