//! What the settings of the process keep others from.

mod common;

use std::os::unix::process::{ExitStatusExt, parent_id};
use std::path::PathBuf;

use common::{allow_cores, become_ordinary, in_child, in_child_with, raise, read_by_another};
use secmem::{Posture, harden};

#[test]
fn a_process_of_the_same_user_reads_before_and_not_after() {
    let ended = in_child(|| {
        let secret = [7_u8; 32];
        become_ordinary();
        // Yama can forbid it to a child in any case; then there is nothing to compare with.
        let allowed = Posture::now().unwrap().ptrace_scope.unwrap_or(0) == 0;
        assert_eq!(read_by_another(secret.as_ptr()).is_ok(), allowed);

        let posture = harden().unwrap();

        assert!(posture.is_hardened() && !posture.dumpable, "{posture:?}");
        assert_eq!(read_by_another(secret.as_ptr()), Err(libc::EPERM));
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_kernel_says_what_was_set() {
    let ended = in_child(|| {
        allow_cores();
        harden().unwrap();

        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(cores.split_whitespace().take(2).collect::<Vec<_>>(), ["1", "1"]);
        let filter = std::fs::read_to_string("/proc/self/coredump_filter").unwrap();
        assert_eq!(u32::from_str_radix(filter.trim(), 16), Ok(0));
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn damage_beside_a_secret_ends_the_process_without_a_core() {
    let place = |pid: u32| std::env::temp_dir().join(format!("secmem-damage-of-{pid}"));
    let [plain, damaged] = [0, 1].map(|number| {
        in_child_with(number, |number| {
            let place = std::env::temp_dir().join(format!("secmem-damage-of-{}", parent_id()));
            std::fs::create_dir_all(&place).unwrap();
            std::env::set_current_dir(place).unwrap();
            allow_cores();
            if number == 0 {
                raise(libc::SIGABRT);
            }
            let mut secret = secmem::Secret::new(32).unwrap();
            let _ = secret.with_mut(|bytes| common::poke(bytes.as_mut_ptr().wrapping_add(32)));
        })
    });

    std::fs::remove_dir_all(place(std::process::id())).unwrap();
    assert_eq!(plain.status.signal(), Some(libc::SIGABRT), "{plain:?}");
    assert_eq!(damaged.status.signal(), Some(libc::SIGABRT), "{damaged:?}");
    if !plain.status.core_dumped() {
        common::skipped("nothing to compare with: this machine writes no core of an aborted process");
    }
    assert!(!damaged.status.core_dumped(), "{damaged:?}");
}

/// Where the children of this process may leave a core.
fn place(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("secmem-cores-of-{pid}"))
}

#[test]
fn a_crash_dumps_before_and_not_after() {
    let [plain, hardened] = [0, 1].map(|number| {
        in_child_with(number, |number| {
            let place = place(parent_id());
            std::fs::create_dir_all(&place).unwrap();
            std::env::set_current_dir(place).unwrap();
            allow_cores();
            if number == 1 {
                harden().unwrap();
            }
            raise(libc::SIGABRT);
        })
    });

    std::fs::remove_dir_all(place(std::process::id())).unwrap();
    assert_eq!(plain.status.signal(), Some(libc::SIGABRT), "{plain:?}");
    assert_eq!(hardened.status.signal(), Some(libc::SIGABRT), "{hardened:?}");
    if !plain.status.core_dumped() {
        common::skipped(
            "nothing to compare with: this machine writes no core of a process that is not hardened either",
        );
    }
    assert!(!hardened.status.core_dumped(), "{hardened:?}");
}
