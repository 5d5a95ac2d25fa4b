//! What keeps two announcers from sweeping each other's addresses: abstract sockets, which are of the network namespace
//! as the addresses are, unlike a file of a pod, and which go with the process, however it ends.
//!
//! For each lock of an instance there is a datagram socket, which excludes, and a stream socket of the same name (the
//! two kinds do not exclude each other), which tells who the first is. The datagram socket alone is what earlier
//! versions had: they and this one exclude each other.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use berth_runtime::supervise::Task;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::io::AsyncWriteExt;

use crate::instance::{Instance, UNTAGGED};

/// How long the first is waited for to tell its name.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest answer that is read.
const LONGEST: u64 = 256;
/// How often a spare looks whether it is its turn.
const AGAIN: Duration = Duration::from_millis(200);

/// What to do while another process has what this one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenTaken {
    /// End.
    End,
    /// Wait as a spare until it is free.
    Wait,
}

/// The locks of an instance, for as long as this lives.
#[derive(Debug)]
pub struct Locks {
    _held: Vec<UnixDatagram>,
}

/// Why there are no locks.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has one.
    #[error(
        "another announcer runs on this node: `@{lock}` is taken by {by}; end one of them, or give \
             one without a cluster another instance_name"
    )]
    Taken {
        /// The lock.
        lock: String,
        /// Who has it.
        by: Holder,
    },
    /// The kernel does not give one.
    #[error("binding the socket @{lock}: {source}")]
    Refused {
        /// The lock.
        lock: String,
        /// What it said.
        source: io::Error,
    },
}

/// The process that has a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its number; none if it is not seen from here, as that of a pod from another pod.
    pub pid: Option<i32>,
    /// What it says of itself; nothing if it is of a version that says nothing.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.name.as_str()) {
            (Some(pid), "") => write!(f, "the process {pid}"),
            (Some(pid), name) => write!(f, "the process {pid}: {name}"),
            (None, "") => f.write_str("a process that does not tell its name"),
            (None, name) => write!(f, "a process of another pod: {name}"),
        }
    }
}

/// Takes what `instance` needs to be the only one of its name and number in this network namespace. The task tells
/// others who has it.
///
/// # Errors
/// When another process has it and this one is not to wait.
pub async fn take(instance: &Instance, taken: WhenTaken) -> Result<(Locks, Task), LockError> {
    let mut told = false;
    loop {
        match attempt(instance, instance.locks()) {
            Err(error @ LockError::Taken { .. }) if taken == WhenTaken::Wait => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("{error}; waiting until it has ended");
                }
                tokio::time::sleep(AGAIN).await;
            }
            result => return result,
        }
    }
}

/// Takes the lock of a node whose kernel keeps no tags of addresses.
///
/// # Errors
/// When another announcer runs there, whatever its name.
pub fn take_untagged(instance: &Instance) -> Result<(Locks, Task), LockError> {
    attempt(instance, vec![UNTAGGED.to_owned()])
}

fn attempt(instance: &Instance, locks: Vec<String>) -> Result<(Locks, Task), LockError> {
    let refused = |lock: &str, source| LockError::Refused { lock: lock.to_owned(), source };
    let (mut held, mut tellers) = (Vec::new(), Vec::new());
    for lock in locks {
        let name = SocketAddr::from_abstract_name(&lock).map_err(|error| refused(&lock, error))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => held.push(socket),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(LockError::Taken { by: holder(&name), lock });
            }
            Err(error) => return Err(refused(&lock, error)),
        }
        // Whoever has taken that name as well keeps nobody out by it.
        match UnixListener::bind_addr(&name).and_then(|listener| teller(listener, instance)) {
            Ok(teller) => tellers.push(teller),
            Err(error) => tracing::warn!(%error, "a second announcer will not be told who this is"),
        }
    }
    let telling = async move {
        join_all(tellers).await;
        std::future::pending().await
    };
    Ok((Locks { _held: held }, ("instance locks", telling.boxed())))
}

/// Tells whoever asks what this process is.
fn teller(listener: UnixListener, instance: &Instance) -> io::Result<BoxFuture<'static, ()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("berth-announcer {version}, instance {}", instance.name());
    let telling = async move {
        loop {
            match listener.accept().await {
                // So little fits into the socket at once, whoever is at the other end.
                Ok((mut asking, _)) => drop(asking.write_all(name.as_bytes()).await),
                Err(error) => {
                    tracing::debug!(%error, "cannot tell who this is");
                    tokio::time::sleep(ANSWER).await;
                }
            }
        }
    };
    Ok(telling.boxed())
}

/// Who listens under this name. Whoever has it need not answer.
fn holder(name: &SocketAddr) -> Holder {
    let (send, holder) = std::sync::mpsc::channel();
    let name = name.clone();
    std::thread::spawn(move || _ = send.send(ask(&name)));
    holder.recv_timeout(ANSWER).unwrap_or_default()
}

fn ask(name: &SocketAddr) -> Holder {
    let Ok(mut stream) = UnixStream::connect_addr(name) else { return Holder::default() };
    let credentials = getsockopt(&stream, PeerCredentials).ok();
    // The kernel gives 0 for a process that is not in this namespace of processes.
    let pid = credentials.map(|peer| peer.pid()).filter(|pid| *pid != 0);
    let mut name = String::new();
    let _ = (&mut stream).take(LONGEST).read_to_string(&mut name);
    let plain = |c: &char| !c.is_control();
    Holder { pid, name: name.chars().filter(plain).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str) -> Instance {
        // Of this process alone: tests of several checkouts may run at once.
        Instance::named(&format!("{name}-{}", std::process::id())).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_second_is_told_who_the_first_is_and_has_its_turn_when_that_is_gone() {
        let instance = instance("second");
        let (first, telling) = take(&instance, WhenTaken::End).await.unwrap();
        let telling = tokio::spawn(telling.1);
        let again = instance.clone();
        let refused = tokio::task::spawn_blocking(move || attempt(&again, again.locks()).map(drop));
        let refused = refused.await.unwrap().unwrap_err().to_string();
        let me = format!("the process {}: berth-announcer ", std::process::id());
        assert!(refused.contains(&me), "{refused}");
        assert!(refused.contains(&format!("instance {}", instance.name())), "{refused}");
        let spare = tokio::spawn(async move { take(&instance, WhenTaken::Wait).await.map(drop) });
        tokio::time::sleep(2 * AGAIN).await;
        assert!(!spare.is_finished());
        telling.abort();
        drop(first);
        spare.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_earlier_version_excludes_too_although_it_tells_nothing() {
        let instance = instance("earlier");
        let name = SocketAddr::from_abstract_name(&instance.locks()[0]).unwrap();
        let _earlier = UnixDatagram::bind_addr(&name).unwrap();
        let refused = take(&instance, WhenTaken::End).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("a process that does not tell its name"), "{refused}");
    }

    #[test]
    fn the_lock_for_services_is_the_one_of_earlier_versions() {
        assert_eq!(Instance::services().locks()[0], "berth-announcer");
    }
}
