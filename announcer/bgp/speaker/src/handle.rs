//! The way to the task of a peer: what it is told to do, and what it tells.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

#[cfg(doc)]
use berth_bgp::Session;
use berth_bgp::{Attributes, Event, NextHops, Parameters, Prefix, Routes, Status, Stop};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::socket::Target;

/// Which addresses of the node routes have by a connection, by its own end and by those that they have by it so far: what is the
/// node's still is not exchanged for another.
pub type Addresses = Arc<dyn Fn(SocketAddr, NextHops) -> NextHops + Send + Sync>;

/// How a peer is to be reached, asked anew before each attempt: keys change, and so do addresses of a link. What is in the way
/// of it is that attempt's failure.
pub type Find =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Target>> + Send>> + Send + Sync>;

/// How a peer is reached, and what routes lead to by that.
#[derive(Clone)]
pub struct Reach {
    /// What holds for connections that the peer opens.
    pub target: Target,
    /// What holds for the own ones.
    pub find: Find,
    /// Where routes lead.
    pub addresses: Addresses,
}

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

pub(crate) enum Command {
    Start(Option<Instant>),
    Routes(Routes),
    Route(Prefix, Option<Arc<Attributes>>),
    Reconfigure(Box<Parameters>),
    Reach(Box<Reach>),
    Admit(mpsc::Receiver<TcpStream>),
    Look,
    Stop(Stop, oneshot::Sender<()>),
    Status(oneshot::Sender<Status>),
    Told(oneshot::Sender<()>),
}

/// The way to the task of a peer. Without any, it ends as for a restart.
#[derive(Clone, Debug)]
pub struct Handle(pub(crate) mpsc::Sender<Command>);

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

    /// From now on the peer is reached like this. A connection that is there goes on; routes lead to the addresses that are to be
    /// told now.
    ///
    /// # Errors
    /// The task is gone.
    pub async fn reach(&self, reach: Reach) -> Result<(), Gone> {
        self.send(Command::Reach(Box::new(reach))).await
    }

    /// From now on these are the connections that the peer opens.
    ///
    /// # Errors
    /// The task is gone.
    pub async fn admit(&self, incoming: mpsc::Receiver<TcpStream>) -> Result<(), Gone> {
        self.send(Command::Admit(incoming)).await
    }

    /// The node has other addresses: it is looked which of them routes lead to. See [`Session::set_next_hops`].
    ///
    /// # Errors
    /// The task is gone.
    pub async fn look(&self) -> Result<(), Gone> {
        self.send(Command::Look).await
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
