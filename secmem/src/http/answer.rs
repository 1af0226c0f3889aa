//! The answers in JSON. Every field is read or measured when it is asked for, or, where the kernel is asked, within the second. What is
//! configuration is told as such, as it was when the monitor was made: mode, limits, networks, `keyDerivation`.
//!
//! Times are RFC 3339 in UTC, spans say their unit, sizes are bytes unless they say otherwise. What cannot be told is `null` or absent,
//! never 0.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::look::{Look, Protection, level};
use super::{Monitor, Outcome};
use crate::manager::{Budget, Level, Mode, Statistics};
use crate::policy::Control;
use crate::sys;

/// The age above which buffers seem to be forgotten, on average.
const OLD: Duration = Duration::from_secs(600);
/// The share of places above which there soon may be none.
const CROWDED: f64 = 0.8;

type Texts = Vec<Cow<'static, str>>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecureMemory {
    total_buffers: usize,
    total_memory: usize,
    /// These three are there while a buffer lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_buffer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_buffer: Option<String>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    average_age: Option<u64>,
    /// The share of places that is taken.
    memory_pressure: f64,
}

/// In MiB.
#[derive(Serialize)]
pub(super) struct ProcessMemory {
    rss: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryStats {
    secure_memory: SecureMemory,
    process_memory: ProcessMemory,
    timestamp: String,
    uptime: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RateLimit {
    max_requests: u32,
    api_max_requests: u32,
    window_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    is_valid: bool,
    errors: Texts,
    warnings: Texts,
    recommendations: Texts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    rate_limit: RateLimit,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryProtection {
    /// `null` where it cannot be told.
    enabled: Option<bool>,
    secure_buffers: usize,
    total_secure_memory: usize,
    memory_pressure: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_buffer_age: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CryptographicSecurity {
    /// Whether keys that were given can be used, now.
    post_quantum_enabled: bool,
    memory_protection: &'static str,
    /// Of the configuration: what keys are derived from.
    key_derivation: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comprehensive {
    overall: &'static str,
    validation: Validation,
    configuration: Configuration,
    timestamp: String,
    memory_protection: MemoryProtection,
    cryptographic_security: CryptographicSecurity,
    recommendations: Texts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bounds {
    max_buffers: usize,
    /// `null` for no limit, as with the two times.
    max_bytes: Option<usize>,
    max_buffer_bytes: usize,
    timeout_ms: Option<u64>,
    lifetime_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    allowed_networks: usize,
    trusted_proxies: usize,
    has_token: bool,
    answered: u64,
    denied: u64,
    limited: u64,
    too_large: u64,
    without_token: u64,
    too_slow: u64,
    abandoned: u64,
    /// Connections, of which no request was read. The others are requests, each counted once.
    turned_away: u64,
}

#[derive(Serialize)]
struct Used {
    used: u64,
    limit: u64,
}

#[derive(Serialize)]
struct Scarcity {
    level: &'static str,
    places: f64,
    lock: Option<Used>,
    group: Option<Used>,
    stalled: Option<f64>,
}

/// How many of the mappings that hold secrets have it.
#[derive(Serialize)]
pub(super) struct ControlReached {
    pub(super) control: String,
    pub(super) reached: usize,
    pub(super) of: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hardening {
    hardened: bool,
    dumpable: bool,
    core_limit: u64,
    traced: bool,
    ptrace_scope: Option<u8>,
}

#[derive(Serialize)]
struct Ended {
    allocated: u64,
    deallocated: u64,
    expired: u64,
    forced: u64,
    purged: u64,
    leftover: u64,
    evicted: u64,
    denied: u64,
    refused: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    mode: &'static str,
    open: bool,
    limits: Bounds,
    rate_limit: RateLimit,
    access: Asked,
    pressure: Scarcity,
    controls: Option<Vec<ControlReached>>,
    hardening: Option<Hardening>,
    buffers: Ended,
    process_memory: ProcessMemory,
    timestamp: String,
    uptime: f64,
}

pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn now() -> String {
    time(SystemTime::now())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn share(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

/// Bytes of the process that are in memory: proc_pid_statm(5), the second number.
pub(super) fn resident() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * sys::page_size() as u64).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl ProcessMemory {
    pub(super) fn now() -> io::Result<Self> {
        Ok(Self { rss: (resident()? as f64 / f64::from(1 << 20) * 100.0).round() / 100.0 })
    }
}

impl SecureMemory {
    pub(super) fn of(statistics: &Statistics) -> Self {
        let since = |age: Option<Duration>| age.and_then(|age| SystemTime::now().checked_sub(age)).map(time);
        Self {
            total_buffers: statistics.live,
            total_memory: statistics.bytes,
            oldest_buffer: since(statistics.oldest),
            newest_buffer: since(statistics.newest),
            average_age: statistics.average_age.map(millis),
            memory_pressure: share(statistics.fullness()),
        }
    }
}

impl RateLimit {
    fn of(monitor: &Monitor) -> Self {
        let limits = &monitor.limits;
        Self { max_requests: limits.requests, api_max_requests: limits.posts, window_ms: millis(limits.window) }
    }
}

/// # Errors
///
/// The process cannot read how much memory it has.
pub(super) fn memory_stats(monitor: &Monitor) -> io::Result<MemoryStats> {
    Ok(MemoryStats {
        secure_memory: SecureMemory::of(&monitor.manager.statistics()),
        process_memory: ProcessMemory::now()?,
        timestamp: now(),
        uptime: monitor.uptime(),
    })
}

/// What is wrong, and what may go wrong.
pub(super) fn findings(monitor: &Monitor, look: &Look) -> (Texts, Texts) {
    let mut errors = look.errors();
    if !monitor.manager.is_open() {
        errors.push("the manager was shut down".into());
    }
    (errors, look.warnings())
}

/// Whether nothing is wrong and nothing may go wrong.
pub(super) fn overall(errors: &Texts, warnings: &Texts) -> &'static str {
    if errors.is_empty() && warnings.is_empty() { "secure" } else { "needs_attention" }
}

/// What might be better, by how things stand.
pub(super) fn recommendations(monitor: &Monitor, statistics: &Statistics) -> Texts {
    let advice = [
        (statistics.fullness() > CROWDED, "more than four fifths of the places are taken: free buffers, or allow more"),
        (
            statistics.average_age.is_some_and(|age| age > OLD),
            "buffers are older than ten minutes on average: somebody may have forgotten to free them",
        ),
        (!monitor.derives_keys(), "no keys are derived: PQC_BASE_SECRET is not set"),
        (monitor.mode != Mode::Production, "this is not production: SECMEM_ENV says development"),
        (statistics.live == 0, "the manager is idle: it holds no buffer"),
    ];
    advice.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text.into()).collect()
}

pub(super) fn comprehensive(monitor: &Monitor, look: &Look) -> Comprehensive {
    let statistics = monitor.manager.statistics();
    let (errors, warnings) = findings(monitor, look);
    let hardened = look.report.as_ref().is_ok_and(|report| report.posture.is_hardened());
    let harden = "other processes of the same user can read this one, or a crash leaves a core: call harden()";
    let protection = look.protection();
    let memory = SecureMemory::of(&statistics);
    Comprehensive {
        overall: overall(&errors, &warnings),
        validation: Validation {
            is_valid: errors.is_empty(),
            errors,
            warnings,
            recommendations: if hardened { Vec::new() } else { vec![harden.into()] },
        },
        configuration: Configuration { rate_limit: RateLimit::of(monitor) },
        timestamp: now(),
        memory_protection: MemoryProtection {
            enabled: match protection {
                Protection::Active => Some(true),
                Protection::Degraded => Some(false),
                Protection::Unknown => None,
            },
            secure_buffers: memory.total_buffers,
            total_secure_memory: memory.total_memory,
            memory_pressure: memory.memory_pressure,
            average_buffer_age: memory.average_age,
        },
        cryptographic_security: CryptographicSecurity {
            post_quantum_enabled: monitor.has_keys(),
            memory_protection: protection.name(),
            key_derivation: if monitor.derives_keys() { "BASE_SECRET" } else { "NONE" },
        },
        recommendations: recommendations(monitor, &statistics),
    }
}

/// What came of each control, over all mappings that hold secrets; `None` where that is not known.
pub(super) fn controls(look: &Look) -> Option<Vec<ControlReached>> {
    let report = look.report.as_ref().ok()?;
    let of = report.arenas.len();
    let reached = |control: Control| match control {
        Control::MemfdSecret => {
            report.arenas.iter().filter(|arena| arena.backend == crate::Backend::MemfdSecret).count()
        }
        Control::ForkWitness => usize::from(report.fork_witness.is_some_and(|witness| witness.reached)),
        _ => {
            let has = |controls: &[crate::Reached]| controls.iter().any(|it| it.control == control && it.reached);
            report.arenas.iter().filter(|arena| has(&arena.controls)).count()
        }
    };
    let line = |control: Control| ControlReached {
        control: control.to_string(),
        reached: reached(control),
        of: if control == Control::ForkWitness { 1 } else { of },
    };
    Some(Control::ALL.map(line).into())
}

/// # Errors
///
/// The process cannot read how much memory it has.
pub(super) fn status(monitor: &Monitor, look: &Look) -> io::Result<Status> {
    let config = monitor.manager.config();
    let statistics = monitor.manager.statistics();
    let (allowed_networks, trusted_proxies) = monitor.access.sizes();
    let counts = &monitor.counts;
    let used = |budget: Option<Budget>| budget.map(|Budget { used, limit }| Used { used, limit });
    Ok(Status {
        mode: match monitor.mode {
            Mode::Production => "production",
            Mode::Development => "development",
        },
        open: monitor.manager.is_open(),
        limits: Bounds {
            max_buffers: config.most,
            max_bytes: Some(config.most_bytes).filter(|most| *most != usize::MAX),
            max_buffer_bytes: config.largest,
            timeout_ms: config.timeout.map(millis),
            lifetime_ms: config.lifetime.map(millis),
        },
        rate_limit: RateLimit::of(monitor),
        access: Asked {
            allowed_networks,
            trusted_proxies,
            has_token: monitor.token.is_some(),
            answered: counts.of(Outcome::Answered),
            denied: counts.of(Outcome::Denied),
            limited: counts.of(Outcome::Limited),
            too_large: counts.of(Outcome::TooLarge),
            without_token: counts.of(Outcome::WithoutToken),
            too_slow: counts.of(Outcome::TooSlow),
            abandoned: counts.of(Outcome::Abandoned),
            turned_away: counts.turned_away.load(Ordering::Relaxed),
        },
        pressure: Scarcity {
            level: level(look.level),
            places: share(look.pressure.places),
            lock: used(look.pressure.lock),
            group: used(look.pressure.group),
            stalled: look.pressure.stalled,
        },
        controls: controls(look),
        hardening: look.report.as_ref().ok().map(|report| Hardening {
            hardened: report.posture.is_hardened(),
            dumpable: report.posture.dumpable,
            core_limit: report.posture.core_limit,
            traced: report.posture.traced_by.is_some(),
            ptrace_scope: report.posture.ptrace_scope,
        }),
        buffers: Ended {
            allocated: statistics.allocated,
            deallocated: statistics.deallocated,
            expired: statistics.expired,
            forced: statistics.forced,
            purged: statistics.purged,
            leftover: statistics.leftover,
            evicted: statistics.evicted,
            denied: statistics.denied,
            refused: statistics.refused,
        },
        process_memory: ProcessMemory::now()?,
        timestamp: now(),
        uptime: monitor.uptime(),
    })
}

/// The word for a level that is shown by a colour, too.
pub(super) fn colour(level: Level) -> &'static str {
    match level {
        Level::Calm => "good",
        Level::High => "unsure",
        Level::Critical => "bad",
    }
}
