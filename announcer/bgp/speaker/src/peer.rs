//! The task of one peer. It does what its session asks for, and tells it what happened and when.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use berth_bgp::{
    Attributes, Cause, Event, Link, NextHops, Parameters, Prefix, Routes, Session, Status, Step,
    Stop,
};
use std::os::fd::AsFd;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::socket::Target;

/// Octets that are read together.
const AT_ONCE: usize = 1 << 16;

/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Commands that wait.
const COMMANDS: usize = 64;

/// Which addresses of the node routes have by a connection, by its own end.
pub type Addresses = Arc<dyn Fn(SocketAddr) -> NextHops + Send + Sync>;

/// How a peer is to be reached, asked anew before each attempt: keys change, and so do addresses of a link. What is in the way
/// of it is that attempt's failure.
pub type Find =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Target>> + Send>> + Send + Sync>;

/// What the task of a peer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What has happened.
    pub event: Event,
    /// When.
    pub at: Instant,
}

/// The task of a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task of the peer is gone")]
pub struct Gone;

enum Command {
    Start(Option<Instant>),
    Routes(Routes),
    Route(Prefix, Option<Arc<Attributes>>),
    Reconfigure(Box<Parameters>),
    Stop(Stop, oneshot::Sender<()>),
    Status(oneshot::Sender<Status>),
    Told(oneshot::Sender<()>),
}

/// The way to the task of a peer. Without any, it ends as for a restart.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Handle {
    async fn send(&self, command: Command) -> Result<(), Gone> {
        self.0.send(command).await.map_err(|_| Gone)
    }

    /// Begins; see [`Session::start`].
    ///
    /// # Errors
    /// The task is gone. So it is of all below.
    pub async fn start(&self, restarted: Option<Instant>) -> Result<(), Gone> {
        self.send(Command::Start(restarted)).await
    }

    /// See [`Session::set_routes`].
    ///
    /// # Errors
    /// The task is gone.
    pub async fn set_routes(&self, routes: Routes) -> Result<(), Gone> {
        self.send(Command::Routes(routes)).await
    }

    /// See [`Session::set_route`].
    ///
    /// # Errors
    /// The task is gone.
    pub async fn set_route(
        &self,
        prefix: Prefix,
        attributes: Option<Arc<Attributes>>,
    ) -> Result<(), Gone> {
        self.send(Command::Route(prefix, attributes)).await
    }

    /// See [`Session::reconfigure`].
    ///
    /// # Errors
    /// The task is gone.
    pub async fn reconfigure(&self, parameters: Parameters) -> Result<(), Gone> {
        self.send(Command::Reconfigure(Box::new(parameters))).await
    }

    /// See [`Session::stop`]; returns when the peer has been told, or a second later.
    ///
    /// # Errors
    /// The task is gone.
    pub async fn stop(&self, stop: Stop) -> Result<(), Gone> {
        let (done, is_done) = oneshot::channel();
        self.send(Command::Stop(stop, done)).await?;
        is_done.await.map_err(|_| Gone)
    }

    /// What is told of the session.
    ///
    /// # Errors
    /// The task is gone.
    pub async fn status(&self) -> Result<Status, Gone> {
        let (answer, status) = oneshot::channel();
        self.send(Command::Status(answer)).await?;
        status.await.map_err(|_| Gone)
    }

    /// Returns when the peer has been told everything that is wanted.
    ///
    /// # Errors
    /// The task is gone.
    pub async fn told(&self) -> Result<(), Gone> {
        let (done, is_done) = oneshot::channel();
        self.send(Command::Told(done)).await?;
        is_done.await.map_err(|_| Gone)
    }
}

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
        target,
        find,
        session,
        addresses,
        wires: vec![],
        connecting: None,
        farewells: JoinSet::new(),
        tells,
        waiting_for_told: vec![],
        buffer: vec![0; AT_ONCE],
    };
    tokio::spawn(peer.run(waiting, incoming));
    (Handle(commands), news)
}

struct Wire {
    link: Link,
    stream: TcpStream,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

struct Peer {
    target: Target,
    find: Find,
    session: Session,
    addresses: Addresses,
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
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut incoming: mpsc::Receiver<TcpStream>,
    ) {
        loop {
            self.follow();
            while self.farewells.try_join_next().is_some() {}
            match self.turn(&mut commands, &mut incoming).await {
                Turn::Command(None) => {
                    self.session.stop(Instant::now(), &Stop::Restart);
                    return self.goodbye().await;
                }
                Turn::Command(Some(command)) => self.command(command).await,
                Turn::Accepted(stream) => self.accepted(stream),
                Turn::Connected(link, Ok(stream)) => self.connected(link, stream),
                Turn::Connected(link, Err(error)) => {
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

    async fn turn(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        incoming: &mut mpsc::Receiver<TcpStream>,
    ) -> Turn {
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
        let (wires, connecting) = (&self.wires, &mut self.connecting);
        let ready = std::future::poll_fn(|context| poll_wires(wires, &waits, context));
        let connected = std::future::poll_fn(|context| match connecting {
            Some((link, future)) => future.as_mut().poll(context).map(|result| (*link, result)),
            None => Poll::Pending,
        });
        tokio::select! {
            command = commands.recv() => Turn::Command(command),
            Some(stream) = incoming.recv() => Turn::Accepted(stream),
            (link, result) = connected => {
                self.connecting = None;
                Turn::Connected(link, result)
            }
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
                    let target = (self.find)();
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
        let next_hops = self.next_hops(&stream);
        self.wires.push(Wire { link, stream });
        self.session.connected(Instant::now(), link, next_hops);
    }

    fn accepted(&mut self, stream: TcpStream) {
        // Without what holds for it, a connection is not to be had.
        if self.target.apply(stream.as_fd()).is_err() {
            return;
        }
        let next_hops = self.next_hops(&stream);
        if let Some(link) = self.session.accepted(Instant::now(), next_hops) {
            self.wires.push(Wire { link, stream });
        }
    }

    fn next_hops(&self, stream: &TcpStream) -> NextHops {
        stream.local_addr().map_or_else(|_| NextHops::default(), |own| (self.addresses)(own))
    }

    fn read(&mut self, number: usize) {
        let Some(Wire { link, stream }) = self.wires.get(number) else { return };
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
            let Some(Wire { link, stream }) = self.wires.get(number) else { return };
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
