//! What an audit found, as data.
//!
//! A [`Run`] is the one file that every report is made from. Nothing here holds bytes read from a target:
//! places, lengths and names only. Order in every list is the order in which things happened or the order of
//! the catalogue, so the same run serialises to the same text.

mod coverage;
mod finding;
mod outcome;
mod run;
mod verdict;

pub use coverage::{Coverage, Share};
pub use finding::{Class, Finding, Form, Frame, Origin, Repeats, Rule, Writer};
pub use outcome::{Controls, Looked, Observation, Outcome};
pub use run::{Build, CORE, Fact, Machine, NotShown, Run, SCHEMA, Sensitivity, Settings, Tool};
pub use verdict::{EXIT_INTERNAL, EXIT_USAGE, Verdict};
