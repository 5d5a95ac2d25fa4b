//! The port that peers connect to, of both families, and who gets which connection. Whoever is no peer is hung up on.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::socket::{EVERY, Key, listen, sign};

/// Connections of one peer that wait for its task; a peer has one or two.
const WAITING: usize = 4;

type Peers = Arc<Mutex<BTreeMap<IpAddr, mpsc::Sender<TcpStream>>>>;

/// The port that peers connect to.
#[derive(Debug)]
pub struct Door {
    peers: Peers,
    listeners: Vec<Arc<TcpListener>>,
    tasks: JoinSet<()>,
}

impl Door {
    /// Listens at a port of every address, in each family that the host has.
    ///
    /// # Errors
    /// Where another process has the port.
    pub fn open(port: u16) -> io::Result<Self> {
        let mut door = Self { peers: Peers::default(), listeners: vec![], tasks: JoinSet::new() };
        for every in EVERY {
            let listener = match listen(every, port) {
                Ok(listener) => Arc::new(TcpListener::from_std(listener)?),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                Err(error) => return Err(error),
            };
            door.listeners.push(Arc::clone(&listener));
            door.tasks.spawn(serve(listener, Arc::clone(&door.peers)));
        }
        Ok(door)
    }

    /// From now on connections of this peer are taken, signed with this key if there is one.
    ///
    /// # Errors
    /// Where the kernel signs nothing.
    pub fn admit(&self, peer: IpAddr, key: Option<&Key>) -> io::Result<mpsc::Receiver<TcpStream>> {
        self.sign(peer, key)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        self.peers().insert(peer, sender);
        Ok(receiver)
    }

    /// From now on they are not.
    ///
    /// # Errors
    /// Where the kernel keeps the key.
    pub fn dismiss(&self, peer: IpAddr) -> io::Result<()> {
        self.peers().remove(&peer);
        self.sign(peer, None)
    }

    fn sign(&self, peer: IpAddr, key: Option<&Key>) -> io::Result<()> {
        let same = |listener: &&Arc<TcpListener>| {
            listener.local_addr().is_ok_and(|address| address.is_ipv4() == peer.is_ipv4())
        };
        self.listeners
            .iter()
            .filter(same)
            .try_for_each(|listener| sign(listener.as_fd(), peer, key))
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, mpsc::Sender<TcpStream>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: Arc<TcpListener>, peers: Peers) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let peer =
                    peers.lock().unwrap_or_else(PoisonError::into_inner).get(&from.ip()).cloned();
                // Where its task is behind with what it has opened, the newest is hung up on, too.
                if let Some(peer) = peer {
                    let _ = peer.try_send(stream);
                }
            }
            // Out of descriptors, for one: others may be closed meanwhile.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}
