//! The page: how things stand, at a glance, without a script.
//!
//! maud escapes every text. The page brings its style along and may load nothing: its content security policy names the style by
//! its hash. It asks for itself again every five seconds, unless it is told not to.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2_now::{Digest as _, Sha256};

use super::answer::{self, ControlReached};
use super::look::{Look, Protection};
use super::recent::Happened;
use super::{Monitor, failed};
use crate::ct::base64::STANDARD;
use crate::manager::{Budget, Mode, Statistics};

const STYLE: &str = include_str!("page.css");

/// Seconds after which the page asks for itself again.
const REFRESH: u8 = 5;

/// Ages that are counted together: less than a second, than ten, than a minute, than five; and more.
const SPANS: [(Duration, &str); 4] = [
    (Duration::from_secs(1), "< 1 s"),
    (Duration::from_secs(10), "< 10 s"),
    (Duration::from_secs(60), "< 1 min"),
    (Duration::from_secs(300), "< 5 min"),
];

/// The page may have the style with this hash and nothing else: CSP, level 3, section 2.3.1.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = Sha256::digest(STYLE);
    let mut text = vec![0; STANDARD.encoded_len(hash.len())];
    let text = STANDARD.encode(&hash, &mut text).map(|()| String::from_utf8_lossy(&text)).unwrap_or_default();
    let rest = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let policy = format!("default-src 'none'; style-src 'sha256-{text}'; {rest}");
    // Base64 and what stands above are visible characters; were they not, a page without any style is the safe way out.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

pub(super) async fn answer(State(monitor): State<Arc<Monitor>>, RawQuery(query): RawQuery) -> Response {
    let Some(look) = monitor.look().await else { return failed("Failed to retrieve the page") };
    let page = render(&monitor, &look, query.as_deref() == Some("pause"));
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
    ];
    (headers, page).into_response()
}

fn render(monitor: &Monitor, look: &Look, paused: bool) -> String {
    let now = monitor.manager.statistics();
    let (errors, warnings) = answer::findings(monitor, look);
    let (word, class) = match (errors.is_empty(), warnings.is_empty()) {
        (true, true) => ("In order", "good"),
        (true, false) => ("Needs attention", "unsure"),
        (false, _) => ("Not as it should be", "bad"),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if !paused { meta http-equiv="refresh" content=(REFRESH); }
                title { (word) " · secure memory" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.eyebrow { "Secure memory" @if monitor.mode == Mode::Development { " · " b { "development" } } }
                    div class={ "verdict " (class) } {
                        h1 { (word) }
                        p { (meaning(look)) }
                        @if !errors.is_empty() || !warnings.is_empty() {
                            ul {
                                @for error in &errors { li.bad { (error) } }
                                @for warning in &warnings { li.unsure { (warning) } }
                            }
                        }
                    }
                }
                main {
                    (figures(&now, look))
                    div.columns {
                        div { (ages(monitor, &now)) (pressure(look)) (controls(look)) (advice(monitor, &now)) }
                        div { (events(&monitor.recent.list())) }
                    }
                }
                footer {
                    p {
                        "As of " time { (answer::time(SystemTime::now())) } ", up for "
                        (words(Duration::from_secs(monitor.began.elapsed().as_secs()))) ". "
                        @if paused { a href="?" { "Keep it up to date" } }
                        @else { "Every " (REFRESH) " seconds anew. " a href="?pause" { "Pause" } }
                    }
                    p { "Counts, ages and sizes. No content, and no name of a buffer, is told here." }
                }
            }
        }
    };
    page.into_string()
}

fn meaning(look: &Look) -> &'static str {
    match look.protection() {
        Protection::Active => "The kernel confirms what the memory of secrets was given when it was made.",
        Protection::Degraded => "Some of what protects the memory of secrets is not there.",
        Protection::Unknown => "Nobody can say how the memory of secrets is protected.",
    }
}

/// A share as a bar. Drawn, for a style attribute is against the page's policy.
fn bar(share: f64, class: &str, label: &str) -> Markup {
    let percent = (share.clamp(0.0, 1.0) * 100.0).round();
    html! {
        svg.bar viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label={ (label) ": " (percent) " percent" } {
            rect.rail width="100" height="4" rx="2" {}
            @if percent > 0.0 { rect class={ "fill " (class) } width=(percent) height="4" rx="2" {} }
        }
    }
}

fn figure(name: &str, value: impl maud::Render, note: Markup) -> Markup {
    html! { div { dt { (name) } dd { strong { (value) } (note) } } }
}

fn figures(now: &Statistics, look: &Look) -> Markup {
    let share = now.fullness();
    let class = if share >= 0.95 {
        "bad"
    } else if share > 0.8 {
        "unsure"
    } else {
        "good"
    };
    let level = super::look::level(look.level);
    let locked = look.report.as_ref().ok().map(|report| report.statistics.locked);
    html! {
        dl.figures {
            (figure("Slots in use", html! { (now.live) small { " of " (now.most) } }, bar(share, class, "Slots in use")))
            (figure("Bytes in buffers", size(now.bytes as u64), html! { span {
                @match locked { Some(locked) => { (size(locked as u64)) " locked in all" } None => { "locked: not known" } }
            } }))
            (figure("Pressure", html! { span class={ "word " (answer::colour(look.level)) } { (level) } },
                html! { span { (now.refused) " refused, " (now.evicted) " evicted" } }))
            (figure("Denied", now.denied, html! { span { "uses with another's token" } }))
        }
    }
}

fn ages(monitor: &Monitor, now: &Statistics) -> Markup {
    let counts = monitor.manager.ages(&SPANS.map(|(span, _)| span));
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let names = SPANS.iter().map(|(_, name)| *name).chain(["older"]);
    let told = |age: Option<Duration>| age.map_or_else(|| "–".to_owned(), words);
    html! {
        section {
            h2 { "Ages" }
            p.faint {
                "oldest " b { (told(now.oldest)) } ", newest " b { (told(now.newest)) }
                ", on average " b { (told(now.average_age)) }
            }
            table.bars {
                tbody {
                    @for (name, count) in names.zip(&counts) {
                        tr { th scope="row" { (name) } td { (bar(*count as f64 / most as f64, "plain", name)) } td.number { (count) } }
                    }
                }
            }
        }
    }
}

fn pressure(look: &Look) -> Markup {
    let pressure = &look.pressure;
    let budget =
        |budget: Option<Budget>| budget.map(|it| (it.share(), format!("{} of {}", size(it.used), size(it.limit))));
    let rows = [
        ("Slots", Some((pressure.places, percent(pressure.places))), ""),
        ("Lock budget", budget(pressure.lock), "no limit"),
        ("Control group", budget(pressure.group), "no limit"),
        ("Stalled for memory", pressure.stalled.map(|share| (share, percent(share))), "the kernel does not say"),
    ];
    html! {
        section {
            h2 { "Pressure" }
            table.bars {
                tbody {
                    @for (name, value, without) in rows {
                        tr {
                            th scope="row" { (name) }
                            @match value {
                                Some((share, text)) => { td { (bar(share, "plain", name)) } td.number { (text) } }
                                None => { td.faint colspan="2" { (without) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn controls(look: &Look) -> Markup {
    let sign = |line: &ControlReached| match line.reached {
        0 => ("none", "unsure"),
        reached if reached == line.of => ("all", "good"),
        _ => ("some", "unsure"),
    };
    html! {
        section {
            h2 { "Controls reached" }
            @match answer::controls(look) {
                None => { p.faint { "Not known." } }
                Some(lines) => {
                    table {
                        tbody {
                            @for line in &lines {
                                tr {
                                    th scope="row" { (line.control) }
                                    td { span class={ "word " (sign(line).1) } { (sign(line).0) } }
                                    td.number { (line.reached) " of " (line.of) }
                                }
                            }
                            @if let Ok(report) = &look.report {
                                tr {
                                    th scope="row" { "hardened" }
                                    @if report.posture.is_hardened() { td { span.word.good { "yes" } } td.number { "no dumps, no readers" } }
                                    @else { td { span.word.unsure { "no" } } td.number { "dumps or readers" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn events(events: &[Happened]) -> Markup {
    let ago = |at: SystemTime| SystemTime::now().duration_since(at).unwrap_or_default();
    html! {
        section {
            h2 { "Recent events" }
            @if events.is_empty() { p.faint { "None since the monitor was made." } }
            @else {
                table.events {
                    tbody {
                        @for event in events {
                            tr { th scope="row" { (event.what) } td { (event.detail) } td.number { (words(ago(event.at))) " ago" } }
                        }
                    }
                }
            }
        }
    }
}

fn advice(monitor: &Monitor, now: &Statistics) -> Markup {
    let advice = answer::recommendations(monitor, now);
    html! {
        @if !advice.is_empty() {
            section {
                h2 { "To be considered" }
                ul { @for line in &advice { li { (line) } } }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// In the unit that makes it short.
fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)),
    }
}

/// A span in its two greatest units.
fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_told_in_short() {
        let spans = [(0, "0 ms"), (59, "59 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, text) in spans {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
        for (bytes, text) in [(512, "512 B"), (65_536, "64.0 KiB"), (16 << 20, "16.0 MiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn texts_are_escaped() {
        let event = Happened { at: SystemTime::now(), what: "<b>", detail: "a & <script>".into() };

        let text = events(&[event]).into_string();

        assert!(text.contains("&lt;b&gt;") && text.contains("a &amp; &lt;script&gt;") && !text.contains("<script"));
    }
}
