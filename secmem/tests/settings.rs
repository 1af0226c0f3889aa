//! What a program takes from its environment, in processes of their own: the block of variables belongs to all threads.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use secmem::input::InputError;
use secmem::manager::settings::{BASE_SECRET, KEY_SALT, MODE, Mode, Settings, SettingsError};

const ROLE: &str = "SECMEM_TEST_ROLE";
const SECRET: &str = "correct-horse-battery-staple-0123456789";
const SALT: &str = "a-salt-of-more-than-sixteen-bytes";

/// Without the test harness there is one thread: the tests below start this program again in a role.
fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("reads") => reads(),
        Ok("has-threads") => has_threads(),
        Ok("is-wrong") => is_wrong(),
        Ok("develops") => develops(),
        _ => tests(),
    }
}

fn again(role: &str, variables: &[(&str, &str)]) -> Output {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.arg0("settings").env(ROLE, role).env_remove(MODE).env_remove(BASE_SECRET).env_remove(KEY_SALT);
    again.envs(variables.iter().copied()).output().unwrap()
}

/// What is shown, the role that shows it, and the variables that it is given.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

fn tests() {
    let both = [(BASE_SECRET, SECRET), (KEY_SALT, SALT)];
    let cases: [Case<'_>; 4] = [
        ("secrets are moved to an arena and are gone from the process's own block", "reads", &both),
        ("a process with threads keeps its variables and is told why", "has-threads", &both),
        ("a wrong variable does not keep the secrets in the block", "is-wrong", &[both[0], both[1], (MODE, "neither")]),
        ("development needs no secrets", "develops", &[(MODE, "development")]),
    ];
    // `cargo test NAME` selects by name; there is no list of single tests.
    for (name, role, variables) in cases {
        let ended = again(role, variables);
        assert!(ended.status.success(), "{name}: {ended:?}");
        println!("test {name} ... ok");
    }
    println!("test result: ok. {} passed; 0 failed", cases.len());
}

/// The block as the kernel shows it to others.
fn shown() -> String {
    String::from_utf8(std::fs::read("/proc/self/environ").unwrap()).unwrap()
}

fn reads() {
    assert!(shown().contains(SECRET) && shown().contains(SALT), "the control");
    let path = std::env::var_os("PATH");

    let settings = Settings::from_env().unwrap();

    assert_eq!(settings.mode, Mode::Production);
    assert!(settings.base_secret.unwrap().with(|bytes| bytes == SECRET.as_bytes()).unwrap());
    assert!(settings.key_salt.unwrap().with(|bytes| bytes == SALT.as_bytes()).unwrap());
    assert!(!shown().contains(SECRET) && !shown().contains(SALT)); // the names stay, and are no secret
    assert!(std::env::var_os(BASE_SECRET).is_none() && std::env::var_os(KEY_SALT).is_none());
    assert_eq!(std::env::var_os("PATH"), path, "the others stay");
    let child = Command::new("env").output().unwrap();
    assert!(!String::from_utf8_lossy(&child.stdout).contains(SECRET));
    assert!(matches!(Settings::from_env(), Err(SettingsError::Missing { name: BASE_SECRET })));
}

fn has_threads() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());

    let refused = Settings::from_env().unwrap_err();

    assert!(
        matches!(
            &refused,
            SettingsError::Environment {
                name: BASE_SECRET,
                source: secmem::Error::Input(InputError::Threads { count: 2.. })
            }
        ),
        "{refused:?}"
    );
    assert_eq!(std::env::var(BASE_SECRET).as_deref(), Ok(SECRET));
    drop(end);
    let _ = thread.join();
}

fn is_wrong() {
    let refused = Settings::from_env().unwrap_err();

    assert_eq!(refused.to_string(), "SECMEM_ENV must be production or development");
    assert!(!shown().contains(SECRET) && !shown().contains(SALT));
}

fn develops() {
    let settings = Settings::from_env().unwrap();

    assert_eq!(settings.mode, Mode::Development);
    assert!(settings.base_secret.is_none());
}
