//! A server that tells how a manager stands: a page, JSON, and Prometheus' text.
//!
//! `cargo run --example monitor --all-features` serves at <http://127.0.0.1:8080/>, as in production. The settings are variables:
//! `MONITOR_ADDRESS`, `SECMEM_ENV=development` and `MONITOR_TOKEN` for the two POSTs, `ADMIN_IP_WHITELIST`, `TRUSTED_PROXIES`,
//! `MAX_SECURE_BUFFERS`, `SECURE_BUFFER_TIMEOUT`, and `PQC_BASE_SECRET` with `PQC_KEY_SALT` for keys, which it tells of and does not use. With `--work` something happens that can be looked at.

use std::error::Error;
use std::thread;
use std::time::Duration;

use secmem::http::{LONGEST_TOKEN, Monitor};
use secmem::input::InputError;
use secmem::manager::{Manager, Settings, Token};
use secmem::pqc::{Config, Keys};
use secmem::{Secret, WipingAlloc, purge};

/// What a request brought is wiped when it is freed, its token among it.
#[global_allocator]
static ALLOCATOR: WipingAlloc = WipingAlloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    // Variables can be taken as long as there is one thread.
    let mut settings = Settings::from_env_without_keys()?;
    let token = match Secret::options().take_variable("MONITOR_TOKEN", LONGEST_TOKEN) {
        Err(secmem::Error::Input(InputError::NoVariable)) => None,
        taken => Some(taken?.into_secret()?),
    };
    secmem::harden()?;
    purge::install(&purge::Plan::default())?;

    let manager = Manager::new(settings.config.clone())?;
    let mut monitor = Monitor::new(manager.clone(), &settings)?;
    if settings.base_secret.is_some() && settings.key_salt.is_some() {
        monitor = monitor.keys(Keys::from_settings(&mut settings, Config::default())?);
    }
    if let Some(token) = token {
        monitor = monitor.token(token)?;
    }
    if std::env::args().any(|argument| argument == "--work") {
        let owner = manager.owner()?;
        thread::spawn(move || work(&manager, &owner));
    }
    let address = std::env::var("MONITOR_ADDRESS").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("listening on http://{}/", listener.local_addr()?);
        // A signal ends the process, once all secrets are wiped.
        monitor.serve(listener, std::future::pending()).await;
        Ok(())
    })
}

/// Buffers that come and go, and some that are forgotten.
fn work(manager: &Manager, owner: &Token) {
    for round in 0_usize.. {
        if let Ok(id) = manager.allocate(owner, 64 + 32 * (round % 29), None)
            && !round.is_multiple_of(3)
        {
            thread::sleep(Duration::from_millis(70));
            let _ = manager.deallocate(owner, &id);
        }
        thread::sleep(Duration::from_millis(300));
    }
}
