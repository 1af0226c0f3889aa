//! A [`Run`] as people and machines read it: terminal text, Markdown, one HTML page, JSON.
//!
//! Everything here is a pure function of the run: no files, clock, environment or terminal. The same run
//! gives the same text to the byte, and each figure is computed once, in `summary`, so no two formats can
//! disagree. What a rule means to an auditor stands in [`controls`].
//!
//! Names in a run come from the audited program and its machine. They are shown, never trusted: `words` makes
//! control characters visible, and each renderer escapes for its own format.

pub mod controls;
mod read;
mod render;
mod summary;
mod words;

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod sample;

pub use read::{ReadError, parse};

use findings::{Difference, Run};

/// What a run is rendered into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Plain text, at most [`TEXT_WIDTH`] columns; [`terminal`] adds colour.
    Text,
    /// GitHub-flavoured Markdown.
    Markdown,
    /// One self-contained page: no script, nothing loaded from elsewhere.
    Html,
    /// The run itself; [`parse`] reads it back.
    Json,
}

/// Columns that the text report fills at most, counted in characters.
pub const TEXT_WIDTH: usize = 100;

impl Format {
    /// All formats, in the order in which a reader meets them.
    pub const ALL: [Self; 4] = [Self::Text, Self::Markdown, Self::Html, Self::Json];

    /// The name of its file in a directory of evidence.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Text => "report.txt",
            Self::Markdown => "report.md",
            Self::Html => "report.html",
            Self::Json => "run.json",
        }
    }
}

/// Renders a run, complete with its last newline.
///
/// Markdown, HTML and JSON carry every finding. Text counts them all and lists those that nobody expected, so
/// that a clean run fits a screen.
pub fn render(run: &Run, format: Format) -> String {
    match format {
        Format::Text => render::text::render(run, false),
        Format::Markdown => render::markdown::render(run),
        Format::Html => render::html::render(run),
        Format::Json => render::json::render(run),
    }
}

/// The verdict on the run of one program, in a few lines for a terminal: what was found, and what keeps the run from
/// saying more. The other formats tell the rest.
pub fn brief(run: &Run, colour: bool) -> String {
    render::text::brief(run, colour)
}

/// What two keys make of a program's memory, in a few lines for a terminal; never the bytes.
pub fn difference(difference: &Difference) -> String {
    render::difference::render(difference)
}

/// The same as JSON, complete.
pub fn difference_json(difference: &Difference) -> String {
    render::json::pretty(difference)
}

/// The part of a run that the same input gives again, as JSON: what two runs can be compared by.
pub fn repeatable(run: &Run) -> String {
    render::json::pretty(&run.repeatable())
}

/// Renders a run for a terminal, with ANSI colours if `colour` is set.
///
/// Whether the terminal wants colour (`NO_COLOR`, a pipe) is for the caller to know.
pub fn terminal(run: &Run, colour: bool) -> String {
    render::text::render(run, colour)
}
