//! Sockets in the lab's places, and streams whose silence is measured.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::pauses;
use berth_e2e::place::Place;

/// How long one end waits for the other before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two messages on a stream.
const BEAT: Duration = Duration::from_millis(10);

/// A socket that listens in a place.
pub(super) struct Listener(TcpListener);

impl Listener {
    pub(super) fn open(place: &Place, port: u16) -> Result<Self> {
        let listener = place.in_network(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        let listener = listener.with_context(|| format!("listen on {port} in {}", place.name))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next connection, and who it says it is from.
    pub(super) fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
        let start = Instant::now();
        loop {
            match self.0.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(false)?;
                    let ip = peer.ip().to_canonical();
                    return Ok((stream, SocketAddr::new(ip, peer.port())));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(start.elapsed() < PATIENCE, "nobody connects");
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A connection from a place.
pub(super) fn connect(place: &Place, to: SocketAddr) -> Result<TcpStream> {
    let stream = place.in_network(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    let stream = stream.with_context(|| format!("connect from {} to {to}", place.name))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One message each way.
pub(super) fn exchange(one: &mut TcpStream, other: &mut TcpStream) -> Result<()> {
    ping(one, other)?;
    ping(other, one)
}

fn ping(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let mut byte = [0];
    to.set_read_timeout(Some(PATIENCE))?;
    from.write_all(b"!")?;
    to.read_exact(&mut byte).context("nothing comes through")
}

/// Streams on which each end answers the other, a message each [`BEAT`].
pub(super) struct Streams {
    stop: Arc<AtomicBool>,
    threads: Vec<(String, JoinHandle<Result<Heard>>)>,
}

/// What came of them.
#[derive(Debug)]
pub(super) struct Report {
    /// The longest time between two answers on one stream.
    pub(super) longest_gap: Duration,
    /// How many were reset.
    pub(super) resets: usize,
    /// Whether each stream brought an answer in the end.
    pub(super) alive: bool,
    answers: usize,
    /// Which stream was silent for longest.
    slowest: String,
    /// When each stream was silent for longer than some beats, and for how long.
    gaps: Vec<(Instant, Duration)>,
}

impl Report {
    /// No answer took longer than `limit` and the longest pause of the machine meanwhile.
    pub(super) fn answered_within(&self, limit: Duration) -> Result<()> {
        let pauses = pauses::so_far();
        for (began, gap) in &self.gaps {
            let pause = pauses.longest(*began, *began + *gap);
            ensure!(
                *gap <= limit + pause,
                "no answer for {gap:.0?}, of {limit:.0?} and a pause of {pause:.0?} at most"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { longest_gap, resets, alive, answers, slowest, gaps: _ } = self;
        write!(
            f,
            "longest gap {longest_gap:.0?} {slowest}, {resets} resets, {answers} answers, alive: {alive}"
        )
    }
}

struct Heard {
    gap: Duration,
    gaps: Vec<(Instant, Duration)>,
    answers: usize,
    reset: bool,
}

impl Streams {
    /// Each is what it is called, who asks and who answers.
    pub(super) fn start(streams: Vec<(String, TcpStream, TcpStream)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (name, asks, answers) in streams {
            thread::spawn(move || echo(answers));
            let stop = stop.clone();
            threads.push((name, thread::spawn(move || ask(asks, &stop))));
        }
        Self { stop, threads }
    }

    /// Ends them after one more answer on each.
    pub(super) fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let (longest_gap, slowest) = (Duration::ZERO, String::new());
        let gaps = Vec::new();
        let mut report = Report { longest_gap, resets: 0, alive: true, answers: 0, slowest, gaps };
        for (name, thread) in self.threads {
            let Ok(heard) = thread.join() else { bail!("a stream's thread panicked") };
            let mut heard = heard?;
            report.gaps.append(&mut heard.gaps);
            if heard.gap > report.longest_gap {
                (report.longest_gap, report.slowest) = (heard.gap, name);
            }
            report.resets += usize::from(heard.reset);
            report.alive &= !heard.reset;
            report.answers += heard.answers;
        }
        Ok(report)
    }
}

/// Asks and waits for the answer, until it is told to stop and one more has come.
fn ask(mut stream: TcpStream, stop: &AtomicBool) -> Result<Heard> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut heard, mut last) =
        (Heard { gap: Duration::ZERO, gaps: Vec::new(), answers: 0, reset: false }, Instant::now());
    loop {
        let last_one = stop.load(Ordering::Relaxed);
        let answered = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut [0]));
        let gap = last.elapsed();
        if gap >= BEAT * 5 {
            heard.gaps.push((last, gap));
        }
        heard.gap = heard.gap.max(gap);
        last = Instant::now();
        match answered {
            Ok(()) => heard.answers += 1,
            Err(error) => {
                eprintln!("a stream ends: {error}");
                heard.reset = true;
                return Ok(heard);
            }
        }
        if last_one {
            return Ok(heard);
        }
        thread::sleep(BEAT);
    }
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        if stream.write_all(&byte).is_err() {
            return;
        }
    }
}
