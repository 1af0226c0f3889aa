//! The counts and gauges, for Prometheus: its text format, version 0.0.4.
//!
//! Names and labels are written here and nowhere else, so that nothing has to be escaped.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::look::Look;
use super::{Monitor, Outcome, answer, failed};
use crate::manager::{Budget, Level};

const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn answer(State(monitor): State<Arc<Monitor>>) -> Response {
    let Some(look) = monitor.look().await else { return failed("Failed to retrieve metrics") };
    ([(header::CONTENT_TYPE, TYPE)], text(&monitor, &look)).into_response()
}

/// A text that grows by one family after the other.
#[derive(Default)]
struct Families(String);

impl Families {
    /// Samples of a family: a label, if it has one, and a value.
    fn add<V: Display>(&mut self, name: &str, kind: &str, help: &str, label: &str, samples: &[(&str, V)]) {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (of, value) in samples {
            let _ = match label {
                "" => writeln!(self.0, "{name} {value}"),
                _ => writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}"),
            };
        }
    }

    fn gauge<V: Display>(&mut self, name: &str, help: &str, value: V) {
        self.add(name, "gauge", help, "", &[("", value)]);
    }

    fn counter<V: Display>(&mut self, name: &str, help: &str, value: V) {
        self.add(name, "counter", help, "", &[("", value)]);
    }
}

/// What there is to say of what is known: what is not has no sample.
fn known<'a>(samples: impl IntoIterator<Item = (&'a str, Option<f64>)>) -> Vec<(&'a str, f64)> {
    samples.into_iter().filter_map(|(of, value)| Some((of, value?))).collect()
}

fn text(monitor: &Monitor, look: &Look) -> String {
    let mut families = Families::default();
    let now = monitor.manager.statistics();
    families.gauge("secmem_buffers", "Buffers that live.", now.live);
    families.gauge("secmem_buffers_max", "Buffers that may live.", now.most);
    families.gauge("secmem_buffer_bytes", "Bytes of the buffers that live.", now.bytes);
    let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
    let ages = [("oldest", now.oldest), ("newest", now.newest), ("average", now.average_age)];
    let ages = known(ages.map(|(of, age)| (of, seconds(age))));
    families.add("secmem_buffer_age_seconds", "gauge", "Ages of the buffers that live.", "of", &ages);
    families.counter("secmem_buffers_allocated_total", "Buffers that were made.", now.allocated);
    let ended = [
        ("deallocated", now.deallocated),
        ("expired", now.expired),
        ("forced", now.forced),
        ("purged", now.purged),
        ("leftover", now.leftover),
        ("evicted", now.evicted),
    ];
    families.add("secmem_buffers_ended_total", "counter", "Buffers that have ended, by how.", "how", &ended);
    families.counter("secmem_buffers_refused_total", "Buffers that were not made.", now.refused);
    families.counter("secmem_denied_total", "Operations with a token that was not the owner's.", now.denied);
    families.gauge("secmem_manager_open", "1 until the manager is shut down.", u8::from(monitor.manager.is_open()));

    let pressure = &look.pressure;
    let share = |budget: Option<Budget>| budget.map(|budget| budget.share());
    let shares = known([
        ("places", Some(pressure.places)),
        ("lock", share(pressure.lock)),
        ("group", share(pressure.group)),
        ("stalled", pressure.stalled),
    ]);
    families.add("secmem_pressure_ratio", "gauge", "Shares that are taken; of time, that is stalled.", "of", &shares);
    let level = match look.level {
        Level::Calm => 0,
        Level::High => 1,
        Level::Critical => 2,
    };
    families.gauge("secmem_pressure_level", "0 calm, 1 high, 2 critical.", level);

    if let Ok(seen) = &look.confirmation {
        let help = "Protections that the kernel should confirm and does not.";
        families.gauge("secmem_unconfirmed_protections", help, seen.missing.len());
    }
    if let Ok(report) = &look.report {
        let process = &report.statistics;
        families.gauge("secmem_arenas", "Mappings that hold secrets.", process.arenas);
        families.gauge("secmem_arena_bytes", "Bytes of them.", process.bytes);
        families.gauge(
            "secmem_locked_bytes",
            "Bytes for secrets and stacks that are never swapped out.",
            process.locked,
        );
        families.gauge("secmem_degraded_controls", "Controls asked for that are not there.", process.degraded);
        families.gauge("secmem_secrets", "Secrets that live, of buffers and others.", process.live);
        families.counter("secmem_accesses_total", "Accesses to secrets.", process.accesses);
        families.counter("secmem_accesses_denied_total", "Accesses to secrets that had ended.", process.denied);
        let hardened = u8::from(report.posture.is_hardened());
        families.gauge("secmem_hardened", "1 if others cannot read the process and it leaves no core.", hardened);
    }
    let requests = Outcome::ALL.map(|outcome| (outcome.name(), monitor.counts.of(outcome)));
    families.add("secmem_http_requests_total", "counter", "Requests, by what came of each.", "outcome", &requests);
    let turned_away = monitor.counts.turned_away.load(Ordering::Relaxed);
    families.counter("secmem_http_connections_refused_total", "Connections over the limit.", turned_away);
    if let Ok(resident) = answer::resident() {
        families.gauge("process_resident_memory_bytes", "Bytes of the process in memory.", resident);
    }
    families.gauge("secmem_uptime_seconds", "Time since the monitor was made.", monitor.uptime());
    families.0
}
