//! Biometric templates: typed, written straight into a buffer, and wiped where they came from.
//!
//! In the buffer a template is a header of 12 bytes (version, modality, counts, quality), its samples, and its metadata; numbers are
//! little-endian. It is written and read on a protected stack, for numbers pass through registers. A manager can be asked to
//! compress it: see `compress`.

use std::fmt;

use zeroize::Zeroize;

#[cfg(feature = "compression")]
use super::compress;
use super::config::Config;
use super::error::Error;
use super::id::{Id, Token};
use super::{Leased, Manager};
#[cfg(feature = "compression")]
use crate::secret::Secret;
use crate::{scrub, wipe};

/// What a template was taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Modality {
    /// A face.
    Face = 1,
    /// A finger.
    Fingerprint = 2,
    /// An iris.
    Iris = 3,
    /// A voice.
    Voice = 4,
    /// A palm.
    Palm = 5,
    /// The beating of a heart.
    Heart = 6,
    /// How somebody moves or types.
    Behaviour = 7,
}

impl Modality {
    const ALL: [Self; 7] =
        [Self::Face, Self::Fingerprint, Self::Iris, Self::Voice, Self::Palm, Self::Heart, Self::Behaviour];
}

/// A biometric template on its way into a buffer. When it is dropped, or handed over, all of it is wiped, to the end of each
/// vector's and string's capacity. That is what stands on the heap: the value itself moves as any other does, and `quality`, a number in it,
/// can stay where it was moved from.
pub struct Template {
    /// What it was taken of.
    pub modality: Modality,
    /// How good it is, from 0 to 1.
    pub quality: f32,
    /// What was measured; at least one number, and no infinite one.
    pub samples: Vec<f64>,
    /// Names and values.
    pub metadata: Vec<(String, String)>,
}

/// Why a template is none. Says where, never what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The quality is not from 0 to 1.
    #[error("a quality that is not from 0 to 1")]
    Quality,
    /// There are no samples.
    #[error("a template without samples")]
    Empty,
    /// A sample is infinite, or not a number.
    #[error("sample {at} is not a finite number")]
    Sample {
        /// Which, from 0.
        at: usize,
    },
    /// More samples, more metadata, or a longer name or value than can be counted.
    #[error("a template that is too long")]
    TooLong,
    /// A buffer holds something else than a template.
    #[error("the buffer holds no template")]
    Damaged,
}

const VERSION: u8 = 1;
pub(super) const HEADER: usize = 12;

impl Template {
    /// Bytes that it takes in a buffer.
    fn encoded_len(&self) -> Result<usize, TemplateError> {
        let texts = self.metadata.iter().map(|(name, value)| (name.len(), value.len()));
        if u32::try_from(self.samples.len()).is_err()
            || u16::try_from(self.metadata.len()).is_err()
            || texts.clone().any(|(name, value)| name.max(value) > usize::from(u16::MAX))
        {
            return Err(TemplateError::TooLong);
        }
        Ok(HEADER + 8 * self.samples.len() + texts.map(|(name, value)| 4 + name + value).sum::<usize>())
    }

    fn check(&self) -> Result<(), TemplateError> {
        if !(0.0..=1.0).contains(&self.quality) {
            return Err(TemplateError::Quality);
        }
        if self.samples.is_empty() {
            return Err(TemplateError::Empty);
        }
        self.samples.iter().position(|it| !it.is_finite()).map_or(Ok(()), |at| Err(TemplateError::Sample { at }))
    }

    /// Writes it to a slot of exactly its length. Allocates nothing.
    fn encode(&self, slot: &mut [u8]) {
        let mut writer = Writer(slot);
        writer.put(&[VERSION, self.modality as u8]);
        writer.put(&(self.metadata.len() as u16).to_le_bytes());
        writer.put(&(self.samples.len() as u32).to_le_bytes());
        writer.put(&self.quality.to_le_bytes());
        for sample in &self.samples {
            writer.put(&sample.to_le_bytes());
        }
        for (name, value) in &self.metadata {
            writer.put(&(name.len() as u16).to_le_bytes());
            writer.put(&(value.len() as u16).to_le_bytes());
            writer.put(name.as_bytes());
            writer.put(value.as_bytes());
        }
    }

    fn wipe(&mut self) {
        if cfg!(secmem_ablate = "manager-template") {
            return;
        }
        self.quality.zeroize();
        // Zeros up to the capacity, which moves nothing; then all of it, so that the compiler keeps it.
        self.samples.resize(self.samples.capacity(), 0.0);
        self.samples.as_mut_slice().zeroize();
        self.samples.clear();
        for text in self.metadata.drain(..).flat_map(|(name, value)| [name, value]) {
            wipe::wipe_vec(&mut text.into_bytes());
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("modality", &self.modality).finish_non_exhaustive()
    }
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        wipe::copy(bytes, here);
        self.0 = rest;
    }
}

/// How many samples a template says that it has.
#[cfg(feature = "compression")]
pub(super) fn samples_of(template: &[u8]) -> usize {
    let Some(header) = template.first_chunk::<HEADER>() else { return 0 };
    let [_, _, _, _, s0, s1, s2, s3, ..] = *header;
    u32::from_le_bytes([s0, s1, s2, s3]) as usize // usize has at least as many bits on Linux
}

/// A template as it stands in a buffer.
#[derive(Clone, Copy)]
pub struct TemplateView<'a> {
    modality: Modality,
    quality: [u8; 4],
    samples: &'a [[u8; 8]],
    metadata: &'a [u8],
}

impl<'a> TemplateView<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let [version, modality, m0, m1, s0, s1, s2, s3, quality @ ..] = *header;
        let modality = Modality::ALL.into_iter().find(|it| *it as u8 == modality).filter(|_| version == VERSION)?;
        let samples = usize::try_from(u32::from_le_bytes([s0, s1, s2, s3])).ok()?;
        let (samples, metadata) = rest.split_at_checked(samples.checked_mul(8)?)?;
        let count = usize::from(u16::from_le_bytes([m0, m1]));
        let view = Self { modality, quality, samples: samples.as_chunks().0, metadata };
        let mut left = metadata;
        for _ in 0..count {
            left = entry(left)?.2;
        }
        left.is_empty().then_some(view)
    }

    /// What it was taken of.
    #[must_use]
    pub fn modality(&self) -> Modality {
        self.modality
    }

    /// How good it is, from 0 to 1.
    #[must_use]
    pub fn quality(&self) -> f32 {
        f32::from_le_bytes(self.quality)
    }

    /// What was measured.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = f64> + use<'a> {
        self.samples.iter().map(|bytes| f64::from_le_bytes(*bytes))
    }

    /// Names and values.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut left = self.metadata;
        std::iter::from_fn(move || {
            let (name, value, rest) = entry(left)?;
            left = rest;
            Some((name, value))
        })
    }
}

impl fmt::Debug for TemplateView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemplateView").field("modality", &self.modality).finish_non_exhaustive()
    }
}

/// The first name and value, and what comes after them.
fn entry(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let ([n0, n1, v0, v1], rest) = bytes.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*n0, *n1])))?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*v0, *v1])))?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?, rest))
}

impl Manager {
    /// Writes a template into a buffer that is made for it, and wipes it where it stood, whatever comes of the call.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if it is none; as [`allocate`](Self::allocate) else.
    pub fn keep_secure_biometric(&self, owner: &Token, mut template: Template, id: Option<Id>) -> Result<Id, Error> {
        self.0.open()?;
        let leased = self.written(owner, &mut template, id)?;
        Ok(leased.keep())
    }

    /// Lets `f` read the template in a buffer, on a protected stack.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if the buffer holds none; [`Error::Panicked`] if `f` did; as [`read`](Self::read) else.
    pub fn read_secure_biometric<R>(
        &self,
        owner: &Token,
        id: &Id,
        f: impl FnOnce(TemplateView<'_>) -> R,
    ) -> Result<R, Error> {
        self.read(owner, id, .., |bytes| viewed(bytes, &self.0.config, f))?
    }

    /// Writes a template into a buffer, lets `operation` read it there, and wipes it, also if that panics. The template is
    /// wiped where it stood before the operation begins.
    ///
    /// # Errors
    ///
    /// As [`keep_secure_biometric`](Self::keep_secure_biometric) and [`read_secure_biometric`](Self::read_secure_biometric).
    pub fn process_secure_biometric<R>(
        &self,
        owner: &Token,
        mut template: Template,
        operation: impl FnOnce(TemplateView<'_>) -> R,
    ) -> Result<R, Error> {
        self.0.open()?;
        let leased = self.written(owner, &mut template, None)?;
        leased.read(|slot, len| viewed(&slot[..len], &self.0.config, operation))?
    }

    pub(super) fn written(&self, owner: &Token, template: &mut Template, id: Option<Id>) -> Result<Leased, Error> {
        let len = template.encoded_len()?;
        let mut checked = Ok(());
        scrub::run(|| checked = template.check())?;
        checked?;
        #[cfg(feature = "compression")]
        if let Some(leased) = self.written_short(owner, template, (len, id.clone()))? {
            template.wipe();
            return Ok(leased);
        }
        let leased = Leased::new(&self.0, self.make(owner, len, id)?);
        leased.write(len, |slot| scrub::run(|| template.encode(slot)))??;
        template.wipe();
        Ok(leased)
    }

    /// [`written`](Self::written) in its compressed form, if it is to be and has one.
    #[cfg(feature = "compression")]
    fn written_short(
        &self,
        owner: &Token,
        template: &Template,
        (len, id): (usize, Option<Id>),
    ) -> Result<Option<Leased>, Error> {
        let config = &self.0.config;
        if !config.compresses || len > config.largest {
            return Ok(None);
        }
        let mut whole = Secret::options().policy(config.policy).zeroed(len)?;
        whole.slot.write(|whole| scrub::run(|| template.encode(whole)))??;
        let Some((short, len)) = compress::compressed(&whole, config.policy)? else { return Ok(None) };
        drop(whole);
        let leased = Leased::new(&self.0, self.make(owner, len, id)?);
        short.with(|short| {
            leased.write(len, |slot| {
                wipe::copy(&short[..len], slot);
                Ok::<(), Error>(())
            })
        })???;
        Ok(Some(leased))
    }
}

pub(super) fn viewed<R>(bytes: &[u8], config: &Config, f: impl FnOnce(TemplateView<'_>) -> R) -> Result<R, Error> {
    #[cfg(feature = "compression")]
    if bytes.first() == Some(&compress::VERSION) {
        let template = compress::expanded(bytes, config.largest, config.policy)?;
        return template.with(|template| plain(template, f))?;
    }
    let _ = config;
    plain(bytes, f)
}

fn plain<R>(bytes: &[u8], f: impl FnOnce(TemplateView<'_>) -> R) -> Result<R, Error> {
    let mut result = Err(Error::Template(TemplateError::Damaged));
    scrub::run(|| {
        if let Some(view) = TemplateView::read(bytes) {
            result = Ok(f(view));
        }
    })?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        let metadata = vec![("device".to_owned(), "a".to_owned()), (String::new(), "ü".to_owned())];
        Template { modality: Modality::Iris, quality: 0.5, samples: vec![1.5, -2.0, f64::MIN_POSITIVE], metadata }
    }

    fn encoded(template: &Template) -> Vec<u8> {
        let mut slot = vec![0xEE; template.encoded_len().unwrap()];
        template.encode(&mut slot);
        slot
    }

    #[test]
    fn a_template_is_read_as_it_was_written() {
        let bytes = encoded(&template());

        let view = TemplateView::read(&bytes).unwrap();

        assert_eq!((view.modality(), view.quality()), (Modality::Iris, 0.5));
        assert_eq!(view.samples().collect::<Vec<_>>(), [1.5, -2.0, f64::MIN_POSITIVE]);
        assert_eq!(view.metadata().collect::<Vec<_>>(), [("device", "a"), ("", "ü")]);
    }

    #[test]
    fn what_is_no_template_is_refused_at_every_length_and_bit() {
        let whole = encoded(&template());
        for len in 0..whole.len() {
            assert!(TemplateView::read(&whole[..len]).is_none(), "{len}");
        }
        for bit in 0..8 * HEADER {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // It may be another template, but is read without a panic.
            if let Some(view) = TemplateView::read(&bytes) {
                let _ = (view.samples().count(), view.metadata().count());
            }
        }
    }

    #[test]
    fn numbers_that_measure_nothing_are_refused() {
        let with = |change: fn(&mut Template)| {
            let mut template = template();
            change(&mut template);
            template.check()
        };

        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|it| it.quality = 1.1), Err(TemplateError::Quality));
        assert_eq!(with(|it| it.quality = f32::NAN), Err(TemplateError::Quality));
        assert_eq!(with(|it| it.samples[2] = f64::NAN), Err(TemplateError::Sample { at: 2 }));
        assert_eq!(with(|it| it.samples.clear()), Err(TemplateError::Empty));
    }
}
