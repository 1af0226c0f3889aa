//! Before a logger of the crate `log`.

use log::kv::{self, Key, Value, VisitSource};
use log::{Log, Metadata, Record};

use super::Redactor;

/// Passes records on without the secrets: message, target and key-value pairs. Made by [`Redactor::logger`].
///
/// A message is formatted into an arena, looked through, and given to the other logger as text. So are the values of pairs, for
/// a logger writes what it is given in whatever form; numbers and flags stay what they are.
#[derive(Debug)]
pub struct Logger<L> {
    redactor: Redactor,
    inner: L,
}

impl Redactor {
    /// A logger that redacts, before `inner`.
    ///
    /// ```
    /// # struct Console;
    /// # impl log::Log for Console {
    /// #     fn enabled(&self, _: &log::Metadata<'_>) -> bool { true }
    /// #     fn log(&self, _: &log::Record<'_>) {}
    /// #     fn flush(&self) {}
    /// # }
    /// let redactor = secmem::redact::Redactor::new()?;
    /// let logger: &'static _ = Box::leak(Box::new(redactor.logger(Console)));
    /// log::set_logger(logger).map_err(|_| "there is a logger already")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn logger<L: Log>(&self, inner: L) -> Logger<L> {
        Logger { redactor: self.clone(), inner }
    }
}

/// The pairs of a record, as far as they may be shown.
#[derive(Default)]
struct Pairs<'a>(Vec<(Key<'a>, Value<'a>)>);

impl<'a> VisitSource<'a> for Pairs<'a> {
    fn visit_pair(&mut self, key: Key<'a>, value: Value<'a>) -> Result<(), kv::Error> {
        self.0.push((key, value));
        Ok(())
    }
}

impl<L: Log> Log for Logger<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut pairs = Pairs::default();
        // A source that fails has given what it has given.
        let _ = record.key_values().visit(&mut pairs);
        let texts: Vec<_> = pairs.0.iter().map(|(key, value)| (self.redactor.text(key), self.shown(value))).collect();
        let pairs: Vec<(Key<'_>, Value<'_>)> = texts
            .iter()
            .zip(pairs.0)
            .map(|((key, text), (_, value))| (Key::from_str(key), text.as_deref().map_or(value, Value::from)))
            .collect();
        let (message, target) = (self.redactor.text(record.args()), self.redactor.text(record.target()));
        let pairs = pairs.as_slice();
        self.inner.log(&record.to_builder().target(&target).key_values(&pairs).args(format_args!("{message}")).build());
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

impl<L> Logger<L> {
    /// A value's text, where it is not to be passed on as the value that it is: a logger may write that in whatever form.
    fn shown(&self, value: &Value<'_>) -> Option<String> {
        let plain = value.to_bool().is_some() || value.to_f64().is_some() || value.to_char().is_some();
        (!plain).then(|| self.redactor.text(value))
    }
}
