//! A client's view: connects again and again, and tells how long it got no answer.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::place::Place;

/// How an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A new connection each time, and a GET on it. Attempts do not wait for each other.
    NewConnections,
    /// One GET after the other on one connection; a new one only after a failure.
    OneConnection,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No answer in time.
    Timeout,
    /// The other side, or someone on the way, closed what it had opened.
    Reset,
    /// Nobody listens.
    Refused,
    /// Anything else, e.g. no route or an answer that is not HTTP 200.
    Other,
}

/// What a probe saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Attempts that were answered.
    pub ok: usize,
    /// Attempts that were not, with when they began.
    pub failed: Vec<(Instant, Failure)>,
    /// The longest time between two answers, the start and the end of the probe counting as answers.
    pub longest_gap: Duration,
    /// When that gap began.
    pub gap_began: Instant,
    /// How often each body came.
    pub answers: BTreeMap<String, usize>,
}

impl Report {
    /// How many attempts failed in this way.
    pub fn count(&self, failure: Failure) -> usize {
        self.failed.iter().filter(|(_, f)| *f == failure).count()
    }
}

/// A probe that runs.
#[derive(Debug)]
pub struct Probe {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    answered: Vec<Instant>,
    failed: Vec<(Instant, Failure)>,
    answers: BTreeMap<String, usize>,
}

/// An attempt that takes longer has failed. Below the kernel's first retransmission of a SYN (RFC 6298: 1 s), so
/// that an outage is not prolonged by it.
const LIMIT: Duration = Duration::from_millis(500);

impl Probe {
    /// Starts to connect to `target` from `place`, every `every`.
    pub fn start(
        place: &Place,
        target: SocketAddr,
        every: Duration,
        manner: Manner,
    ) -> Result<Self> {
        let net = place.open_net()?;
        let (seen, stop) =
            (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (its_seen, its_stop) = (seen.clone(), stop.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let ready = setns(net, CloneFlags::CLONE_NEWNET)
                .context("enter the network namespace")
                .and_then(|()| {
                    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
                });
            match ready {
                Err(e) => drop(tell.send(Err(e))),
                Ok(runtime) => {
                    drop(tell.send(Ok(())));
                    runtime.block_on(async {
                        match manner {
                            Manner::NewConnections => {
                                new_connections(target, every, &its_seen, &its_stop).await
                            }
                            Manner::OneConnection => {
                                one_connection(target, every, &its_seen, &its_stop).await
                            }
                        }
                    });
                }
            }
        });
        told.recv().context("the probe's thread is gone")??;
        Ok(Self { seen, stop, thread: Some(thread), began: Instant::now() })
    }

    /// How many attempts were answered so far.
    pub fn ok_so_far(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).answered.len()
    }

    /// When the last answer came.
    pub fn last_answer(&self) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).answered.iter().max().copied()
    }

    /// Stops, and tells.
    pub fn finish(mut self) -> Result<Report> {
        let end = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            bail!("the probe's thread panicked");
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (gap_began, longest_gap) = longest_gap(self.began, &mut seen.answered, end);
        Ok(Report {
            ok: seen.answered.len(),
            failed: std::mem::take(&mut seen.failed),
            longest_gap,
            gap_began,
            answers: std::mem::take(&mut seen.answers),
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Where the longest time without an answer began, and how long it was.
fn longest_gap(began: Instant, answered: &mut [Instant], end: Instant) -> (Instant, Duration) {
    answered.sort();
    let inside = answered.iter().copied().filter(|at| *at > began && *at < end);
    let mut last = began;
    let mut longest = (began, Duration::ZERO);
    for at in inside.chain([end]) {
        if at - last > longest.1 {
            longest = (last, at - last);
        }
        last = at;
    }
    longest
}

async fn new_connections(
    target: SocketAddr,
    every: Duration,
    seen: &Arc<Mutex<Seen>>,
    stop: &AtomicBool,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut attempts = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let seen = seen.clone();
        attempts.spawn(async move {
            let began = Instant::now();
            let result = timeout(LIMIT, async {
                let mut stream = TcpStream::connect(target).await?;
                get(&mut stream, target, "close").await
            });
            note(&seen, began, flatten(result.await));
        });
        while attempts.try_join_next().is_some() {}
    }
    while attempts.join_next().await.is_some() {}
}

async fn one_connection(
    target: SocketAddr,
    every: Duration,
    seen: &Arc<Mutex<Seen>>,
    stop: &AtomicBool,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let began = Instant::now();
        // A held connection is given up only when it is broken: retransmissions may yet bring it through.
        let limit = if connection.is_some() { Duration::from_secs(30) } else { LIMIT };
        let result = timeout(limit, async {
            let stream = match &mut connection {
                Some(stream) => stream,
                none => none.insert(TcpStream::connect(target).await?),
            };
            get(stream, target, "keep-alive").await
        });
        let result = flatten(result.await);
        if result.is_err() {
            connection = None;
        }
        note(seen, began, result);
    }
}

fn flatten<E>(result: Result<std::io::Result<String>, E>) -> Result<String, Failure> {
    match result {
        Err(_) => Err(Failure::Timeout),
        Ok(Ok(body)) => Ok(body),
        Ok(Err(e)) => Err(match e.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                Failure::Reset
            }
            ErrorKind::ConnectionRefused => Failure::Refused,
            ErrorKind::TimedOut => Failure::Timeout,
            _ => Failure::Other,
        }),
    }
}

fn note(seen: &Mutex<Seen>, began: Instant, result: Result<String, Failure>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(body) => {
            seen.answered.push(Instant::now());
            *seen.answers.entry(body).or_default() += 1;
        }
        Err(failure) => seen.failed.push((began, failure)),
    }
}

/// One GET; the trimmed body.
async fn get(
    stream: &mut TcpStream,
    target: SocketAddr,
    connection: &str,
) -> std::io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let n = stream.read(&mut buffer).await?;
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some(body) = complete(&text)? {
            return Ok(body);
        }
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The body of an answer that is all there; an error if it is not `200 OK`.
fn complete(text: &str) -> std::io::Result<Option<String>> {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other("not 200"));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or_else(|| std::io::Error::other("no Content-Length"))?;
    Ok((body.len() >= length).then(|| body[..length].trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_time_between_answers_and_the_ends_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let gap = |answers: &[u64]| {
            let (began, long) = longest_gap(
                start,
                &mut answers.iter().map(|ms| at(*ms)).collect::<Vec<_>>(),
                at(100),
            );
            (began - start, long)
        };
        let ms = Duration::from_millis;
        assert_eq!(gap(&[10, 50, 20, 90]), (ms(50), ms(40)));
        assert_eq!(gap(&[90, 95]), (ms(0), ms(90)));
        assert_eq!(gap(&[]), (ms(0), ms(100)));
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(complete(&format!("{head}ab")).unwrap(), None);
        assert_eq!(complete(&format!("{head}abc")).unwrap().as_deref(), Some("abc"));
        assert!(complete("HTTP/1.1 503 No\r\n\r\n").is_err());
    }
}
