//! Owns where logs go: standard error, one line each. Nothing that is logged begins a line of its own.

use std::io::{self, Write};
use std::str::FromStr;

use berth_api::one_line;
use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no log format; accepted are text, json")),
        }
    }
}

/// Writes each event, which comes as a whole, as one line.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(format!("{}\n", one_line(line)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Starts logging. `level` is `error`, `warn`, `info`, `debug` or `trace`; `RUST_LOG` overrules it.
///
/// # Errors
/// When `RUST_LOG` or `level` is not readable, or logging has been started before.
pub fn init(level: &str, format: Format) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .map_err(|error| format!("RUST_LOG `{directives}` is not accepted: {error}"))?,
        // What kube says of each attempt, `watch` says once and better.
        _ => EnvFilter::try_new(format!(
            "{level},kube_client=error,kube_runtime=error,hyper=warn,hyper_util=warn"
        ))
        .map_err(|error| format!("log level `{level}` is not accepted: {error}"))?,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines(io::stderr()))
        .with_ansi(false);
    match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_text_with_a_new_line_makes_no_line_of_its_own() {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false);
        let lines = lines.with_writer(move || Lines(writer.clone())).finish();
        let note = "x\n2026-01-01T00:00:00Z ERROR berth: the sky falls\r\u{7}";
        tracing::subscriber::with_default(lines, || tracing::warn!(%note, "{note}"));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!((text.matches('\n').count(), text.ends_with('\n')), (1, true), "{text}");
        assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text}");
    }
}
