//! The events: what they tell, and that none tells content or a place.

mod common;

use std::fmt::{Debug, Write};
use std::sync::Mutex;

use common::in_child;
use secmem::{Control, Demand, Error, Policy, Secret};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: Mutex<String> = Mutex::new(String::new());

struct Listener;

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut told = TOLD.lock().unwrap();
        write!(told, "{} {}:", event.metadata().target(), event.metadata().level()).unwrap();
        event.record(&mut Line(&mut told));
        told.push('\n');
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn events_name_what_happened_and_hold_neither_content_nor_addresses() {
    let ended = in_child(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
        common::limit_locked_memory(0);
        let policy = Policy::default().with(Control::Lock, Demand::Preferred);
        let mut secret = Secret::options().policy(policy).zeroed(32).unwrap();
        let at = secret.with_mut(|bytes| {
            bytes[..5].copy_from_slice(b"sesam");
            format!("{:x}", bytes.as_ptr().addr() & !0xFFF)
        });
        secret.wipe().unwrap();
        assert!(matches!(secret.with(|_| ()), Err(Error::Wiped)));

        let told = TOLD.lock().unwrap();
        assert!(told.contains("secmem DEBUG: message=memory for secrets was made bytes="), "{told}");
        assert!(
            told.contains("secmem WARN: message=a protection was refused control=lock call=\"mlock\" errno=1"),
            "{told}"
        );
        assert!(
            told.contains("secmem INFO: message=an access to a secret was refused reason=the secret was wiped"),
            "{told}"
        );
        assert!(!told.contains("sesam") && !told.contains(&at.unwrap()), "{told}");
    });

    assert!(ended.status.success(), "{ended:?}");
}
