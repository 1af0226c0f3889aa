//! For `tracing-subscriber`: a layer that writes events, and writers for the layer of its `fmt`.

use std::fmt::{self, Debug, Write as _};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::pipe::Pipe;
use super::writer::Message;
use super::{Error, Redactor, UNSEEN, Writer};

impl Redactor {
    /// A layer that writes each event as a line to `writer`, without the secrets: level, target, the spans that it is in with
    /// their fields, and its own fields.
    ///
    /// ```
    /// use tracing_subscriber::prelude::*;
    ///
    /// let redactor = secmem::redact::Redactor::new()?;
    /// tracing_subscriber::registry().with(redactor.layer(std::io::stderr())).init();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Whatever a field's value writes of itself is written into an arena, and nowhere else before it was looked through.
    pub fn layer<W: Write + Send + 'static>(&self, writer: W) -> Layer<W> {
        Layer { redactor: self.clone(), writer: Mutex::new(writer) }
    }

    /// Writers that redact, for the layer of `tracing_subscriber::fmt`, with all that it can do:
    /// `.with_writer(redactor.make_writer(std::io::stderr))`.
    ///
    /// That layer formats a line into a `String` of its own, which it keeps for the next one: what is written is without the
    /// secrets, its memory is not. [`layer`](Self::layer) has no such place.
    pub fn make_writer<M>(&self, inner: M) -> MakeWriter<M> {
        MakeWriter { redactor: self.clone(), inner }
    }
}

/// Writes events without the secrets. Made by [`Redactor::layer`].
pub struct Layer<W> {
    redactor: Redactor,
    writer: Mutex<W>,
}

impl<W> Debug for Layer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("redactor", &self.redactor).finish_non_exhaustive()
    }
}

/// The fields of a span, as they may be shown.
struct Fields(String);

/// Fields on their way into an arena.
struct Line(Message, &'static str);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let before = std::mem::replace(&mut self.1, " ");
        // What cannot be written is an error at the end.
        let _ = match field.name() {
            "message" => write!(self.0, "{before}{value:?}"),
            name => write!(self.0, "{before}{name}={value:?}"),
        };
    }

    /// As it is, where `Debug` would escape it.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl<W> Layer<W> {
    fn line(&self) -> Result<Line, Error> {
        Ok(Line(Message::new(Pipe::new(self.redactor.clone())?), ""))
    }

    fn fields(&self, record: impl FnOnce(&mut Line)) -> String {
        let read = || {
            let mut line = self.line()?;
            record(&mut line);
            line.0.finish()
        };
        read().unwrap_or_else(|_: Error| UNSEEN.to_owned())
    }
}

impl<S, W> tracing_subscriber::Layer<S> for Layer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let fields = self.fields(|line| attributes.record(line));
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(Fields(fields));
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let more = self.fields(|line| record.record(line));
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<Fields>() {
            Some(Fields(fields)) if !fields.is_empty() => fields.extend([" ", &more]),
            Some(fields) => fields.0 = more,
            None => _ = extensions.replace(Fields(more)),
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = format!("{:>5} {}: ", event.metadata().level(), event.metadata().target());
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            line.push_str(span.name());
            match span.extensions().get::<Fields>() {
                Some(Fields(fields)) if !fields.is_empty() => line.extend(["{", fields, "}: "]),
                _ => line.push_str(": "),
            }
        }
        line.push_str(&self.fields(|line| event.record(line)));
        line.push('\n');
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // An event has nobody who could be told that it was not written.
        let _ = writer.write_all(line.as_bytes()).and_then(|()| writer.flush());
    }
}

/// Makes writers that redact. Made by [`Redactor::make_writer`].
#[derive(Debug)]
pub struct MakeWriter<M> {
    redactor: Redactor,
    inner: M,
}

impl<'a, M> tracing_subscriber::fmt::MakeWriter<'a> for MakeWriter<M>
where
    M: tracing_subscriber::fmt::MakeWriter<'a>,
{
    type Writer = Redacting<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacting::new(&self.redactor, self.inner.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        Redacting::new(&self.redactor, self.inner.make_writer_for(meta))
    }
}

/// A [`Writer`], or, where there was no memory for one, a text that says so.
#[derive(Debug)]
pub struct Redacting<W: Write>(Result<Writer<W>, Option<W>>);

impl<W: Write> Redacting<W> {
    fn new(redactor: &Redactor, inner: W) -> Self {
        Self(match Pipe::new(redactor.clone()) {
            Ok(pipe) => Ok(Writer::new(pipe, inner)),
            Err(_) => Err(Some(inner)),
        })
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Ok(writer) => writer.write(bytes),
            Err(inner) => {
                if let Some(mut inner) = inner.take() {
                    writeln!(inner, "{UNSEEN}")?; // once for a line, in however many pieces it comes
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.0 {
            Ok(writer) => writer.flush(),
            Err(inner) => inner.as_mut().map_or(Ok(()), Write::flush),
        }
    }
}
