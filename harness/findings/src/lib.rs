//! What an audit found, as data.
//!
//! A [`Run`] is the one file that every report is made from. Nothing here holds bytes read from a target:
//! places, lengths and names only. Order in every list is the order in which things happened or the order of
//! the catalogue, so the same run serialises to the same text.

mod baseline;
mod coverage;
mod difference;
mod exposure;
mod finding;
mod kept;
mod key;
mod outcome;
mod repeatable;
mod run;
mod sensitivity;
mod shard;
mod verdict;

pub use baseline::{BASELINE_SCHEMA, Baseline, BaselineError, Compared, Known, Residue};
pub use coverage::{Coverage, Share};
pub use difference::{DIFFERENCE_SCHEMA, Difference, Stretch};
pub use exposure::{CoreLimit, Dumpable, Exposure};
pub use finding::{Class, Finding, Form, Frame, Origin, Repeats, Rule, Writer};
pub use kept::Kept;
pub use key::{Family, Key, Length};
pub use outcome::{Controls, CoreSource, KeptFreed, Looked, Observation, Outcome};
pub use repeatable::{REPEATABLE_SCHEMA, Repeatable, RepeatableRow};
pub use run::{Build, CORE, Fact, Machine, NotShown, Run, SCHEMA, Settings, Tool};
pub use sensitivity::{FormChance, Sensitivity};
pub use shard::{MergeError, Shard, merge};
pub use verdict::{EXIT_INTERNAL, EXIT_USAGE, Verdict};
