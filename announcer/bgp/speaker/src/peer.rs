//! The task of one peer. It does what its session asks for, and tells it what happened and when.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use berth_bgp::{Cause, Link, NextHops, Session, Step, Stop};
use std::os::fd::AsFd;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::handle::{Addresses, Command, Find, Handle, News, Reach};
use crate::socket::Target;

/// Octets that are read together.
const AT_ONCE: usize = 1 << 16;

/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Commands that wait.
const COMMANDS: usize = 64;

/// As [`spawn_finding`], where it does not change how the peer is reached.
pub fn spawn(
    target: Target,
    session: Session,
    addresses: Addresses,
    incoming: mpsc::Receiver<TcpStream>,
) -> (Handle, mpsc::UnboundedReceiver<News>) {
    let same = target.clone();
    let find: Find = Arc::new(move || Box::pin(std::future::ready(Ok(same.clone()))));
    spawn_finding(target, find, session, addresses, incoming)
}

/// Starts the task of a peer, on the runtime of the caller. What it tells may be more than the caller takes: then the
/// oldest is not lost, and the task does not wait. For connections that the peer opens it goes by `target`, for its own by what
/// it finds.
pub fn spawn_finding(
    target: Target,
    find: Find,
    session: Session,
    addresses: Addresses,
    incoming: mpsc::Receiver<TcpStream>,
) -> (Handle, mpsc::UnboundedReceiver<News>) {
    let (commands, waiting) = mpsc::channel(COMMANDS);
    let (tells, news) = mpsc::unbounded_channel();
    let peer = Peer {
        reach: Reach { target, find, addresses },
        session,
        incoming,
        wires: vec![],
        connecting: None,
        farewells: JoinSet::new(),
        tells,
        waiting_for_told: vec![],
        buffer: vec![0; AT_ONCE],
    };
    tokio::spawn(peer.run(waiting));
    (Handle(commands), news)
}

struct Wire {
    link: Link,
    stream: TcpStream,
    /// Where routes lead by it.
    hops: NextHops,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

struct Peer {
    reach: Reach,
    session: Session,
    /// The connections that the peer opens.
    incoming: mpsc::Receiver<TcpStream>,
    wires: Vec<Wire>,
    connecting: Option<(Link, Connecting)>,
    farewells: JoinSet<()>,
    tells: mpsc::UnboundedSender<News>,
    waiting_for_told: Vec<oneshot::Sender<()>>,
    buffer: Vec<u8>,
}

/// What a turn brings.
enum Turn {
    Command(Option<Command>),
    Accepted(TcpStream),
    Connected(Link, io::Result<TcpStream>),
    /// Octets have come or can go, on the connection with this number.
    Ready(usize),
    Due,
}

impl Peer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            self.follow();
            while self.farewells.try_join_next().is_some() {}
            match self.turn(&mut commands).await {
                Turn::Command(None) => {
                    self.session.stop(Instant::now(), &Stop::Restart);
                    return self.goodbye().await;
                }
                Turn::Command(Some(command)) => self.command(command).await,
                Turn::Accepted(stream) => self.accepted(stream),
                Turn::Connected(link, Ok(stream)) => {
                    self.connecting = None;
                    self.connected(link, stream);
                }
                Turn::Connected(link, Err(error)) => {
                    self.connecting = None;
                    let cause = match error.kind() {
                        io::ErrorKind::TimedOut => Cause::NoAnswer,
                        _ => Cause::Connect(error.to_string()),
                    };
                    self.session.failed(Instant::now(), link, cause);
                }
                Turn::Ready(number) => self.read(number),
                Turn::Due => self.session.poll(Instant::now()),
            }
        }
    }

    async fn turn(&mut self, commands: &mut mpsc::Receiver<Command>) -> Turn {
        let deadline = self.session.deadline();
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let now = Instant::now();
        let waits: Vec<bool> =
            self.wires.iter().map(|wire| !self.session.output(now, wire.link).is_empty()).collect();
        let Self { wires, connecting, incoming, .. } = self;
        let wires = &*wires;
        let ready = std::future::poll_fn(|context| poll_wires(wires, &waits, context));
        let connected = std::future::poll_fn(|context| match connecting {
            Some((link, future)) => future.as_mut().poll(context).map(|result| (*link, result)),
            None => Poll::Pending,
        });
        tokio::select! {
            command = commands.recv() => Turn::Command(command),
            Some(stream) = incoming.recv() => Turn::Accepted(stream),
            (link, result) = connected => Turn::Connected(link, result),
            number = ready => Turn::Ready(number),
            () = due => Turn::Due,
        }
    }

    async fn command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Start(restarted) => self.session.start(now, restarted),
            Command::Routes(routes) => self.session.set_routes(routes),
            Command::Route(prefix, attributes) => self.session.set_route(prefix, attributes),
            Command::Reconfigure(parameters) => self.session.reconfigure(now, *parameters),
            Command::Reach(reach) => {
                self.reach = *reach;
                for wire in &self.wires {
                    // Where the kernel takes it not, it holds for the next one.
                    let _ = self.reach.target.apply(wire.stream.as_fd());
                }
                self.look();
            }
            Command::Admit(incoming) => self.incoming = incoming,
            Command::Look => self.look(),
            Command::Stop(stop, done) => {
                self.session.stop(now, &stop);
                self.goodbye().await;
                let _ = done.send(());
            }
            Command::Status(answer) => _ = answer.send(self.session.status()),
            Command::Told(done) => {
                // Who asks anew has given up what was asked before.
                self.waiting_for_told.retain(|waiting| !waiting.is_closed());
                self.waiting_for_told.push(done);
            }
        }
    }

    /// Waits until the last words of all connections are said.
    async fn goodbye(&mut self) {
        self.follow();
        while self.farewells.join_next().await.is_some() {}
    }

    /// Sends what can be sent, and does what the session asks for.
    fn follow(&mut self) {
        for number in (0..self.wires.len()).rev() {
            self.write(number);
        }
        while let Some(step) = self.session.next_step() {
            match step {
                Step::Connect(link) => {
                    let target = (self.reach.find)();
                    let connect = async move { target.await?.connect().await };
                    self.connecting = Some((link, Box::pin(connect)));
                }
                Step::Close { link, last } => self.close(link, last),
                Step::Tell(event) => _ = self.tells.send(News { event, at: Instant::now() }),
            }
        }
        if self.session.is_told() {
            self.waiting_for_told.drain(..).for_each(|waiting| _ = waiting.send(()));
        }
    }

    fn close(&mut self, link: Link, last: Vec<u8>) {
        if self.connecting.as_ref().is_some_and(|(connecting, _)| *connecting == link) {
            self.connecting = None;
        }
        if let Some(number) = self.wires.iter().position(|wire| wire.link == link) {
            let Wire { stream, .. } = self.wires.swap_remove(number);
            self.farewells.spawn(farewell(stream, last));
        }
    }

    fn connected(&mut self, link: Link, stream: TcpStream) {
        let hops = self.next_hops(&stream, NextHops::default());
        self.wires.push(Wire { link, stream, hops });
        self.session.connected(Instant::now(), link, hops);
    }

    fn accepted(&mut self, stream: TcpStream) {
        // Without what holds for it, a connection is not to be had.
        if self.reach.target.apply(stream.as_fd()).is_err() {
            return;
        }
        let hops = self.next_hops(&stream, NextHops::default());
        if let Some(link) = self.session.accepted(Instant::now(), hops) {
            self.wires.push(Wire { link, stream, hops });
        }
    }

    fn next_hops(&self, stream: &TcpStream, before: NextHops) -> NextHops {
        stream.local_addr().map_or(before, |own| (self.reach.addresses)(own, before))
    }

    /// Looks where routes lead by now.
    fn look(&mut self) {
        for number in 0..self.wires.len() {
            let Wire { link, stream, hops } = &self.wires[number];
            let (link, now) = (*link, self.next_hops(stream, *hops));
            self.wires[number].hops = now;
            self.session.set_next_hops(link, now);
        }
    }

    fn read(&mut self, number: usize) {
        let Some(Wire { link, stream, .. }) = self.wires.get(number) else { return };
        let (link, now) = (*link, Instant::now());
        match stream.try_read(&mut self.buffer) {
            Ok(0) => self.lost(number, "the peer has closed it"),
            Ok(count) => self.session.received(now, link, &self.buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.lost(number, &error.to_string()),
        }
    }

    fn write(&mut self, number: usize) {
        loop {
            let Some(Wire { link, stream, .. }) = self.wires.get(number) else { return };
            let now = Instant::now();
            let output = self.session.output(now, *link);
            if output.is_empty() {
                return;
            }
            match stream.try_write(output) {
                Ok(count) => self.session.written(now, *link, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.lost(number, &error.to_string()),
            }
        }
    }

    fn lost(&mut self, number: usize, why: &str) {
        let wire = self.wires.swap_remove(number);
        self.session.closed(Instant::now(), wire.link, why);
    }
}

/// The first connection on which octets have come, or can go where some wait.
fn poll_wires(wires: &[Wire], waits: &[bool], context: &mut Context<'_>) -> Poll<usize> {
    for (number, (wire, waits)) in wires.iter().zip(waits).enumerate() {
        // An error is found by whoever reads or writes.
        let can_read = wire.stream.poll_read_ready(context).is_ready();
        if can_read || (*waits && wire.stream.poll_write_ready(context).is_ready()) {
            return Poll::Ready(number);
        }
    }
    Poll::Pending
}

/// Says the last words, and waits for the peer to close: where octets of the peer's are unread, closing would take the
/// words back (RFC 2525 §2.17).
async fn farewell(mut stream: TcpStream, last: Vec<u8>) {
    let words = async {
        if stream.write_all(&last).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 4096];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut rest)
            .await
            .is_ok_and(|count| count > 0)
        {}
    };
    let _ = tokio::time::timeout(FAREWELL, words).await;
}
