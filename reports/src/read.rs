//! `run.json` back into a [`Run`], or a reason why not.

use findings::{Coverage, Run, SCHEMA};
use serde::Deserialize;

/// Why a text is not a run that this version reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The text is not JSON, or breaks off, or is not an object with a `schema`.
    #[error("reading the schema of a run")]
    Head {
        /// What the JSON reader met.
        source: serde_json::Error,
    },
    /// The run was written for another reader.
    #[error("the run has schema {found:?}, and this version reads {SCHEMA:?}")]
    Schema {
        /// The schema that the text names.
        found: String,
    },
    /// The schema is right, but a field is missing or of the wrong type.
    #[error("reading a run of schema {SCHEMA:?}")]
    Shape {
        /// What the JSON reader met.
        source: serde_json::Error,
    },
    /// The byte counts are larger than any machine's, so their sums would be wrong.
    #[error("the byte counts up to row {scenario:?} are too large to add up")]
    Figures {
        /// The row at which the sum overflows.
        scenario: String,
    },
}

/// Reads a run from the text of `run.json`.
///
/// Minor versions of the schema (`secmem.run/1.4`) are read; fields that this version does not know are left out.
///
/// # Errors
///
/// [`ReadError`] for anything that is not a run of this major version. Nothing is repaired and no default stands
/// in for what is missing.
pub fn parse(text: &str) -> Result<Run, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    // First the schema alone: a run of another version must be refused by its name, not by the first field that
    // happens to differ.
    let Head { schema } = serde_json::from_str(text).map_err(|source| ReadError::Head { source })?;
    if !same_major(&schema) {
        return Err(ReadError::Schema { found: schema });
    }
    let run: Run = serde_json::from_str(text).map_err(|source| ReadError::Shape { source })?;
    figures_add_up(&run)?;
    Ok(run)
}

/// Whether a schema is [`SCHEMA`], whatever its minor version.
fn same_major(schema: &str) -> bool {
    schema == SCHEMA || schema.strip_prefix(SCHEMA).is_some_and(|rest| rest.starts_with('.'))
}

/// The reports add byte counts over all looks; a file may hold any number, so the sum is tried here once.
fn figures_add_up(run: &Run) -> Result<(), ReadError> {
    let mut total: u64 = 0;
    for outcome in &run.outcomes {
        for look in &outcome.observations {
            let Coverage { listed, read, verified, injected, never_populated, shielded, refused, excluded } =
                &look.coverage;
            let shares = refused.iter().chain(excluded).map(|share| &share.bytes);
            for bytes in [listed, read, verified, injected, never_populated, shielded].into_iter().chain(shares) {
                total = total
                    .checked_add(*bytes)
                    .ok_or_else(|| ReadError::Figures { scenario: outcome.scenario.clone() })?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, render, sample};

    #[test]
    fn a_rendered_run_reads_back_as_itself() {
        for run in [sample::run(), sample::clean(), sample::empty(), sample::interrupted()] {
            let read = parse(&render(&run, Format::Json)).unwrap();

            assert_eq!(read, run);
        }
    }

    #[test]
    fn a_run_of_another_major_version_is_refused_by_name() {
        for schema in ["secmem.run/2", "secmem.run/10", "secmem.run/", "secmem.run", "other/1", ""] {
            let text = render(&Run { schema: schema.to_owned(), ..sample::run() }, Format::Json);

            let error = parse(&text).unwrap_err();

            assert!(matches!(&error, ReadError::Schema { found } if found == schema), "{error}");
        }
    }

    #[test]
    fn a_run_of_a_later_minor_version_is_read() {
        let run = Run { schema: "secmem.run/1.4".to_owned(), ..sample::run() };
        let text = render(&run, Format::Json).replacen('{', "{ \"added_later\": [1],", 1);

        assert_eq!(parse(&text).unwrap(), run);
    }

    #[test]
    fn a_text_that_breaks_off_anywhere_is_refused() {
        let text = render(&sample::run(), Format::Json);
        let whole = text.trim_end().len();

        for end in (0..whole).filter(|end| text.is_char_boundary(*end)).step_by(97).chain([whole - 1]) {
            assert!(matches!(parse(&text[..end]), Err(ReadError::Head { .. })), "cut at {end}");
        }
    }

    #[test]
    fn a_missing_field_is_not_replaced_by_a_default() {
        let text = render(&sample::run(), Format::Json).replacen("\"interrupted\"", "\"renamed\"", 1);

        assert!(matches!(parse(&text), Err(ReadError::Shape { .. })));
    }

    #[test]
    fn byte_counts_that_overflow_are_refused_instead_of_wrapping() {
        let mut run = sample::run();
        run.outcomes[1].observations[0].coverage.listed = u64::MAX;

        let error = parse(&render(&run, Format::Json)).unwrap_err();

        assert!(matches!(&error, ReadError::Figures { scenario } if *scenario == run.outcomes[1].scenario), "{error}");
    }
}
