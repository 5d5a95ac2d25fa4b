//! Owns where logs go: standard error, one line each.

use std::str::FromStr;

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
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    }
}
