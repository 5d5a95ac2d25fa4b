//! Owns where logs go: standard error, one line each; nothing that is logged begins a line of its own. Never waits for
//! whoever reads them: while the other end of a pipe takes nothing, as when the container runtime is stopped, lines are
//! lost, and how many is told when it takes some again.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use berth_api::one_line;
use tracing_subscriber::EnvFilter;

/// Lines that wait to be written at most: what a busy start says, and little memory.
const BACKLOG: usize = 1024;

/// How long the end of the program waits for the last lines.
const LAST: Duration = Duration::from_millis(200);

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
    let lines = Lines::to(io::stderr())?;
    let waiting = lines.waiting.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || lines.clone())
        .with_ansi(false);
    match format {
        Format::Text => subscriber.try_init(),
        Format::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
    }?;
    let _ = WAITING.set(waiting);
    Ok(())
}

/// Where lines wait once logging has been started.
static WAITING: OnceLock<SyncSender<Line>> = OnceLock::new();

/// Says the last words of a program, as they are, and waits for all that was logged before it, but not for ever.
pub fn last(words: &str) {
    match WAITING.get() {
        None => eprintln!("{words}"),
        Some(waiting) => {
            put(waiting, Line::Text(format!("{words}\n").into_bytes()));
            flush();
        }
    }
}

/// Waits for all that was logged, but not for ever. To be called before the process ends.
pub fn flush() {
    WAITING.get().into_iter().for_each(wait);
}

fn wait(waiting: &SyncSender<Line>) {
    let (tell, told) = sync_channel(1);
    put(waiting, Line::Mark(tell));
    let _ = told.recv_timeout(LAST);
}

/// Waits for room, but not for ever.
fn put(waiting: &SyncSender<Line>, mut line: Line) {
    let start = Instant::now();
    while let Err(TrySendError::Full(again)) = waiting.try_send(line) {
        if start.elapsed() > LAST {
            return;
        }
        line = again;
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes lines without waiting.
#[derive(Clone)]
struct Lines {
    waiting: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Everything before it is written.
    Mark(SyncSender<()>),
}

impl Lines {
    fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (waiting, lines) = sync_channel(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        thread::Builder::new()
            .name("logs".into())
            .spawn(move || write(writer, &lines, &counted))?;
        Ok(Self { waiting, lost })
    }
}

/// The subscriber writes each event whole.
impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = format!("{}\n", one_line(text.strip_suffix('\n').unwrap_or(&text)));
        if self.waiting.try_send(Line::Text(line.into_bytes())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(mut writer: impl Write, lines: &Receiver<Line>, lost: &AtomicU64) {
    // Nobody may be there to read it: that is no reason to end.
    for line in lines {
        let _ = match line {
            Line::Text(text) => writer.write_all(&text),
            Line::Mark(tell) => {
                let _ = tell.send(());
                continue;
            }
        };
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => _ = writeln!(writer, "{lost} lines were lost: nobody took what was logged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Writes when it is let.
    struct Slow {
        may: Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.may.recv();
            *self.written.lock().unwrap() += str::from_utf8(bytes).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, Sender<()>, Arc<Mutex<String>>) {
        let ((let_it, may), written) = (channel(), Arc::new(Mutex::new(String::new())));
        let lines = Lines::to(Slow { may, written: written.clone() }).unwrap();
        (lines, let_it, written)
    }

    #[test]
    fn who_takes_no_lines_is_not_waited_for_and_hears_how_many_were_lost() {
        let (mut lines, let_it, written) = slow();
        for number in 0..BACKLOG * 2 {
            lines.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        drop(let_it);
        until(&lines, &written, " lines were lost");
        assert!(written.lock().unwrap().starts_with("line 0\n"));
    }

    /// A machine that is busy may need longer than the end of a program waits.
    fn until(lines: &Lines, written: &Mutex<String>, text: &str) {
        for _ in 0..100 {
            wait(&lines.waiting);
            if written.lock().unwrap().contains(text) {
                return;
            }
        }
        panic!("no {text:?} in {:?}", written.lock().unwrap());
    }

    #[test]
    fn the_end_waits_for_the_last_line() {
        let (mut lines, let_it, written) = slow();
        lines.write_all(b"the last\n").unwrap();
        drop(let_it);
        until(&lines, &written, "the last\n");
    }

    #[test]
    fn a_text_with_a_new_line_makes_no_line_of_its_own() {
        let (lines, let_it, written) = slow();
        drop(let_it);
        let waiting = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        let subscriber = subscriber.with_writer(move || lines.clone()).finish();
        let note = "x\n2026-01-01T00:00:00Z ERROR berth: the sky falls\r\u{7}";
        tracing::subscriber::with_default(subscriber, || tracing::warn!(%note, "{note}"));
        until(&waiting, &written, "the sky falls");
        let text = written.lock().unwrap().clone();
        assert_eq!((text.matches('\n').count(), text.ends_with('\n')), (1, true), "{text}");
        assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text}");
    }
}
