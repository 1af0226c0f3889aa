//! What makes two residues the same in the eyes of somebody who keeps a list of them: coarse enough to hold from run to
//! run, fine enough that another residue is another.

use serde::{Deserialize, Serialize};

use crate::{Class, Finding, Form};

/// Forms of one origin: which of them is found depends on bytes that the secret does not choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// The bytes as they are.
    Raw,
    /// The bytes in another order: reversed, or with the bytes of each word exchanged.
    Order,
    /// A text of them: hexadecimal, base64, UTF-16, numbers, percent signs.
    Text,
    /// Each byte exclusive-or a constant.
    Mask,
    /// Limbs of a big number.
    Limbs,
    /// Something made from the secret, such as round keys.
    Derived,
    /// A key that nobody named, found by what it looks like.
    Unknown,
}

impl Form {
    /// The family that it belongs to.
    pub const fn family(self) -> Family {
        match self {
            Self::Raw => Family::Raw,
            Self::Reversed | Self::Swap16 | Self::Swap32 | Self::Swap64 => Family::Order,
            Self::Xor36 | Self::Xor5c | Self::Inverted | Self::HmacBlock => Family::Mask,
            Self::Limbs30 | Self::Limbs32 | Self::Limbs64 => Family::Limbs,
            Self::ChachaState => Family::Derived,
            form if form.is_derived() => Family::Derived,
            form if form.is_unknown() => Family::Unknown,
            _ => Family::Text,
        }
    }
}

/// How much of the secret a residue shows, in steps that a byte more or less rarely crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Length {
    /// Fewer than 8 bytes.
    #[serde(rename = "under 8")]
    Under8,
    /// 8 to 15 bytes.
    #[serde(rename = "8 to 15")]
    From8,
    /// 16 to 31 bytes.
    #[serde(rename = "16 to 31")]
    From16,
    /// 32 bytes or more, not all.
    #[serde(rename = "32 or more")]
    From32,
    /// All of it.
    #[serde(rename = "whole")]
    Whole,
}

impl Length {
    /// That of a finding.
    pub const fn of(finding: &Finding) -> Self {
        match finding.secret_length {
            _ if finding.whole => Self::Whole,
            0..8 => Self::Under8,
            8..16 => Self::From8,
            16..32 => Self::From16,
            32.. => Self::From32,
        }
    }
}

/// A residue without what changes between runs of the same program: addresses, registers, offsets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The scenario, or the program.
    pub scenario: String,
    /// The name of what was made from the secret; empty for the secret itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub needle: String,
    /// In what kind of form.
    pub family: Family,
    /// In what kind of place.
    pub class: Class,
    /// How much of it.
    pub length: Length,
}

impl Finding {
    /// What it has in common with the same residue in another run.
    pub fn key(&self) -> Key {
        Key {
            scenario: self.scenario.clone(),
            needle: self.derived.clone().unwrap_or_default(),
            family: self.rule.form.family(),
            class: self.rule.class,
            length: Length::of(self),
        }
    }

    /// Whether it was seen in some of several equal runs and not in others.
    pub fn is_intermittent(&self) -> bool {
        self.repeats.is_some_and(|repeats| repeats.seen < repeats.of)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = match self.length {
            Length::Under8 => "under 8 bytes",
            Length::From8 => "8 to 15 bytes",
            Length::From16 => "16 to 31 bytes",
            Length::From32 => "32 bytes or more",
            Length::Whole => "whole",
        };
        let family = match self.family {
            Family::Raw => "raw",
            Family::Order => "order",
            Family::Text => "text",
            Family::Mask => "mask",
            Family::Limbs => "limbs",
            Family::Derived => "derived",
            Family::Unknown => "unknown key",
        };
        let needle = if self.needle.is_empty() { String::new() } else { format!("{}: ", self.needle) };
        write!(f, "{}: {needle}{family} in {}, {length}", self.scenario, self.class.name())
    }
}
