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
        println!("nothing to compare with: this machine writes no core of a process that is not hardened either");
    }
    assert!(!hardened.status.core_dumped(), "{hardened:?}");
}
