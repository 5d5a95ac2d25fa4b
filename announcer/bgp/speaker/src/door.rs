//! The port that peers connect to, of both families, and who gets which connection. Whoever is no peer is hung up on before an
//! octet of it is read, so that strangers hold no descriptor.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::libc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::socket::{EVERY, Key, listen, sign};

/// Connections of one peer that wait for its task; a peer has one or two.
const WAITING: usize = 4;

/// The port that peers connect to. It is closed with this.
#[derive(Debug)]
pub struct Door {
    post: Arc<Post>,
    _tasks: JoinSet<()>,
}

/// Who is let in where.
#[derive(Debug, Default)]
struct Post {
    peers: Mutex<BTreeMap<IpAddr, mpsc::Sender<TcpStream>>>,
    listeners: Vec<Arc<TcpListener>>,
}

/// That a peer is let in: until this is gone, or it is let in anew.
#[derive(Debug)]
pub struct Admission {
    post: Weak<Post>,
    peer: IpAddr,
    sender: mpsc::Sender<TcpStream>,
}

impl Door {
    /// Listens at a port of every address, in each family that the host has.
    ///
    /// # Errors
    /// Where another process has the port.
    pub fn open(port: u16) -> io::Result<Self> {
        Self::open_at(&EVERY, port)
    }

    /// Listens at a port of these addresses of the host.
    ///
    /// # Errors
    /// Where another process has the port, or the host an address not.
    pub fn open_at(addresses: &[IpAddr], port: u16) -> io::Result<Self> {
        let mut post = Post::default();
        for address in addresses {
            let listener = match listen(*address, port) {
                Ok(listener) => Arc::new(TcpListener::from_std(listener)?),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                Err(error) => return Err(error),
            };
            post.listeners.push(listener);
        }
        let (post, mut tasks) = (Arc::new(post), JoinSet::new());
        for listener in post.listeners.iter().cloned() {
            tasks.spawn(serve(listener, Arc::downgrade(&post)));
        }
        Ok(Self { post, _tasks: tasks })
    }

    /// From now on connections of this peer are taken, signed with this key if there is one.
    ///
    /// # Errors
    /// Where the kernel signs nothing.
    pub fn admit(
        &self,
        peer: IpAddr,
        key: Option<&Key>,
    ) -> io::Result<(Admission, mpsc::Receiver<TcpStream>)> {
        self.post.sign(peer, key)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        self.post.peers().insert(peer, sender.clone());
        Ok((Admission { post: Arc::downgrade(&self.post), peer, sender }, receiver))
    }
}

impl Admission {
    /// From now on its connections are signed with this key, if there is one; those that are there go on.
    ///
    /// # Errors
    /// Where the kernel signs nothing.
    pub fn exchange(&self, key: Option<&Key>) -> io::Result<()> {
        match self.post.upgrade() {
            Some(post) => post.sign(self.peer, key),
            None => Ok(()),
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(post) = self.post.upgrade() else { return };
        let mut peers = post.peers();
        if peers.get(&self.peer).is_some_and(|sender| sender.same_channel(&self.sender)) {
            peers.remove(&self.peer);
            // With its key or without it is a stranger by now.
            let _ = post.sign(self.peer, None);
        }
    }
}

impl Post {
    fn sign(&self, peer: IpAddr, key: Option<&Key>) -> io::Result<()> {
        let same = |listener: &&Arc<TcpListener>| {
            listener.local_addr().is_ok_and(|address| address.is_ipv4() == peer.is_ipv4())
        };
        self.listeners
            .iter()
            .filter(same)
            .try_for_each(|listener| sign(listener.as_fd(), peer, key))
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<IpAddr, mpsc::Sender<TcpStream>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: Arc<TcpListener>, post: Weak<Post>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(post) = post.upgrade() else { return };
                let peer = post.peers().get(&from.ip()).cloned();
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
