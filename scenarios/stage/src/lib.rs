//! What every program with scenarios needs to play one: its canary, its checkpoints, and why it could not be played.
//!
//! Kept small, so that what is found in a program was left by what it is about: nothing here buffers, and nothing of
//! the canary passes through but by one `read(2)` into its place.

mod checkpoint;
mod failure;

pub use checkpoint::{Canary, Control};
pub use failure::Failure;
