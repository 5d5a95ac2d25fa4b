//! A client's view: connects again and again, and tells how long it got no answer.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{
    pauses::{self, Pauses},
    place::Place,
};

/// How an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A new connection each time, and a GET on it. Attempts do not wait for each other.
    NewConnections,
    /// One GET after the other on one connection; a new one only after a failure.
    OneConnection,
}

/// What is asked for, and how.
#[derive(Clone)]
struct Request {
    target: SocketAddr,
    path: &'static str,
    secure: Option<TlsConnector>,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection in time, or no answer on one that was held.
    Timeout,
    /// A new connection stood, and no answer came on it in time: who had it is not reached any more.
    Unanswered,
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
    /// Each such time of 50 ms and more: when it began, and how long it was.
    gaps: Vec<(Instant, Duration)>,
    /// When the client itself waited for a processor, and for how long.
    starved: Vec<(Instant, Duration)>,
    /// How often each body came.
    pub answers: BTreeMap<String, usize>,
}

impl Report {
    /// How many attempts failed in this way.
    pub fn count(&self, failure: Failure) -> usize {
        self.failed.iter().filter(|(_, f)| *f == failure).count()
    }

    /// No answer took longer than `limit` and the longest pause meanwhile: of the machine, or of the client on it.
    ///
    /// # Errors
    /// When one did, with what is known of it.
    pub fn answered_within(&self, limit: Duration) -> Result<()> {
        let pauses = pauses::so_far();
        for (began, gap) in &self.gaps {
            let pause = self.pause(&pauses, *began, *began + *gap);
            ensure!(
                *gap <= limit + pause,
                "no answer for {gap:.0?}, of {limit:.0?} and a pause of {pause:.0?} at most"
            );
        }
        Ok(())
    }

    fn pause(&self, pauses: &Pauses, from: Instant, to: Instant) -> Duration {
        let own = self.starved.iter().filter(|(at, long)| *at <= to && from <= *at + *long);
        own.map(|(_, long)| *long).max().unwrap_or_default().max(pauses.longest(from, to))
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
    starved: Vec<(Instant, Duration)>,
}

/// What is shorter is nothing to judge.
const GAP: Duration = Duration::from_millis(50);

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
        Self::begin(place, Request { target, path: "/", secure: None }, every, manner)
    }

    /// Starts to ask the API server at `target` for `/readyz` from `place`, every `every` by a new connection; its certificate
    /// is one of the authority in the file `ca`.
    pub fn start_readyz(
        place: &Place,
        target: SocketAddr,
        every: Duration,
        ca: &Path,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).with_context(|| ca.display().to_string())?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let secure = Some(TlsConnector::from(Arc::new(config)));
        let request = Request { target, path: "/readyz", secure };
        Self::begin(place, request, every, Manner::NewConnections)
    }

    fn begin(place: &Place, request: Request, every: Duration, manner: Manner) -> Result<Self> {
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
                    runtime.spawn(note_starvation(its_seen.clone()));
                    runtime.block_on(async {
                        match manner {
                            Manner::NewConnections => {
                                new_connections(&request, every, &its_seen, &its_stop).await
                            }
                            Manner::OneConnection => {
                                one_connection(&request, every, &its_seen, &its_stop).await
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
        let gaps = gaps(self.began, &mut seen.answered, end);
        Ok(Report {
            ok: seen.answered.len(),
            failed: std::mem::take(&mut seen.failed),
            longest_gap: gaps.iter().map(|(_, gap)| *gap).max().unwrap_or_default(),
            gaps: gaps.into_iter().filter(|(_, gap)| *gap >= GAP).collect(),
            starved: std::mem::take(&mut seen.starved),
            answers: std::mem::take(&mut seen.answers),
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// When each time without an answer began, and how long it was.
fn gaps(began: Instant, answered: &mut [Instant], end: Instant) -> Vec<(Instant, Duration)> {
    answered.sort();
    let inside = answered.iter().copied().filter(|at| *at > began && *at < end);
    let mut last = began;
    let gap = |at: Instant| (std::mem::replace(&mut last, at), at);
    inside.chain([end]).map(gap).map(|(from, to)| (from, to.duration_since(from))).collect()
}

/// Writes down when this thread could not go on though it wanted to: what it does not see then, nobody has failed to do.
async fn note_starvation(seen: Arc<Mutex<Seen>>) {
    const NAP: Duration = Duration::from_millis(5);
    loop {
        let due = Instant::now() + NAP;
        tokio::time::sleep(NAP).await;
        let late = due.elapsed();
        if late >= GAP {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.starved.push((due, late));
        }
    }
}

async fn new_connections(
    request: &Request,
    every: Duration,
    seen: &Arc<Mutex<Seen>>,
    stop: &AtomicBool,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut attempts = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (seen, request) = (seen.clone(), request.clone());
        attempts.spawn(async move {
            let began = Instant::now();
            let mut stands = false;
            let result = timeout(LIMIT, async {
                let mut stream = TcpStream::connect(request.target).await?;
                stands = true;
                let Some(secure) = &request.secure else {
                    return get(&mut stream, &request, "close").await;
                };
                let name = ServerName::from(request.target.ip());
                get(&mut secure.connect(name, stream).await?, &request, "close").await
            });
            let result = flatten(result.await).map_err(|failure| match failure {
                Failure::Timeout if stands => Failure::Unanswered,
                other => other,
            });
            note(&seen, began, result);
        });
        while attempts.try_join_next().is_some() {}
    }
    while attempts.join_next().await.is_some() {}
}

async fn one_connection(
    request: &Request,
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
                none => none.insert(TcpStream::connect(request.target).await?),
            };
            get(stream, request, "keep-alive").await
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
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    Request { target, path, .. }: &Request,
    connection: &str,
) -> std::io::Result<String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
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
    fn a_gap_is_the_time_between_answers_and_the_ends_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let gaps = |answers: &[u64]| {
            let mut answers: Vec<_> = answers.iter().map(|ms| at(*ms)).collect();
            let gaps = gaps(start, &mut answers, at(100)).into_iter();
            gaps.map(|(at, gap)| ((at - start).as_millis(), gap.as_millis())).collect::<Vec<_>>()
        };
        assert_eq!(gaps(&[10, 50, 20, 90]), [(0, 10), (10, 10), (20, 30), (50, 40), (90, 10)]);
        assert_eq!(gaps(&[90, 95]), [(0, 90), (90, 5), (95, 5)]);
        assert_eq!(gaps(&[]), [(0, 100)]);
    }

    #[test]
    fn an_answer_may_be_as_late_as_the_client_was_starved_and_no_later() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let report = |gap, starved: &[(u64, u64)]| Report {
            ok: 2,
            failed: Vec::new(),
            longest_gap: ms(gap),
            gaps: vec![(start, ms(gap))],
            starved: starved.iter().map(|(at, long)| (start + ms(*at), ms(*long))).collect(),
            answers: BTreeMap::new(),
        };
        assert!(report(200, &[]).answered_within(ms(200)).is_ok());
        assert!(report(600, &[]).answered_within(ms(200)).is_err());
        assert!(report(600, &[(100, 400)]).answered_within(ms(200)).is_ok());
        assert!(report(600, &[(700, 500)]).answered_within(ms(200)).is_err());
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(complete(&format!("{head}ab")).unwrap(), None);
        assert_eq!(complete(&format!("{head}abc")).unwrap().as_deref(), Some("abc"));
        assert!(complete("HTTP/1.1 503 No\r\n\r\n").is_err());
    }
}
