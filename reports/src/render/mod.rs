//! One file a format. Each lays out what `summary`, `controls` and `words` say; none computes a figure.

pub(crate) mod difference;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod text;
