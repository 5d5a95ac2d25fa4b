//! What keeps two announcers from sweeping each other's addresses. It has to belong to the network namespace, as the
//! addresses do and no file of a pod does, and to go with the process, however that ends.
//!
//! For each lock of an instance there is a table of nftables (`kernel/owned.rs`). Only who may change the network can
//! take one. Besides there are two abstract sockets of one name: a datagram socket, which excludes where the kernel has
//! no such tables, and a stream socket, by which others learn who the first is. Any process of the host's network may
//! take their name, so where there is a table it alone decides (docs/failover.md).

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use berth_runtime::supervise::Task;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::io::AsyncWriteExt;

use crate::instance::{Instance, UNTAGGED};
use crate::kernel::owned::{Owned, OwnedError};

/// How long the first is waited for to tell its name.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest answer that is read.
const LONGEST: u64 = 256;
/// How often a spare looks whether it is its turn.
const AGAIN: Duration = Duration::from_millis(200);
/// How long anybody waits: whoever sweeps what an earlier life of this instance has left has its locks for a moment.
const MOMENT: Duration = Duration::from_secs(2);

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
    _tables: Vec<Owned>,
    _sockets: Vec<UnixDatagram>,
}

/// Why there are no locks.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has one.
    #[error(
        "another announcer runs on this node: `@{lock}` is taken by {by}; end one of them, or give \
         one without a cluster another instance_name. `nft list tables` and `ss -xpa` on the node \
         show who has it"
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
    /// Who runs it, as the kernel says; none if it cannot be asked.
    pub uid: Option<u32>,
    /// What it says of itself; nothing if it is of a version that says nothing.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.name.as_str()) {
            (Some(pid), "") => write!(f, "the process {pid}")?,
            (Some(pid), name) => write!(f, "the process {pid}: {name}")?,
            (None, "") => f.write_str("a process that does not tell its name")?,
            (None, name) => write!(f, "a process of another pod: {name}")?,
        }
        match self.uid {
            Some(uid) if uid != 0 => write!(f, ", of the user {uid}, who is not root"),
            _ => Ok(()),
        }
    }
}

/// Takes what `instance` needs to be the only one of its name and number in this network namespace. The task tells
/// others who has it.
///
/// # Errors
/// When another process has it and this one is not to wait.
pub async fn take(instance: &Instance, taken: WhenTaken) -> Result<(Locks, Task), LockError> {
    let (began, mut told) = (Instant::now(), false);
    loop {
        let is_early = began.elapsed() < MOMENT;
        match attempt(instance, instance.locks(), Owned::make) {
            Err(error @ LockError::Taken { .. }) if taken == WhenTaken::Wait || is_early => {
                if !is_early && !std::mem::replace(&mut told, true) {
                    tracing::info!("{error}; waiting until it has ended");
                }
                tokio::time::sleep(AGAIN).await;
            }
            result => return result,
        }
    }
}

/// Takes what `other` would need to run beside `instance`, as long as it does not run.
///
/// # Errors
/// When it does.
pub fn take_idle(other: &Instance, instance: &Instance) -> Result<Locks, LockError> {
    let own = instance.locks();
    let locks = other.locks().into_iter().filter(|lock| !own.contains(lock)).collect();
    attempt(instance, locks, Owned::make).map(|(locks, _)| locks)
}

/// Takes the lock of a node whose kernel keeps no tags of addresses.
///
/// # Errors
/// When another announcer runs there, whatever its name.
pub fn take_untagged(instance: &Instance) -> Result<(Locks, Task), LockError> {
    attempt(instance, vec![UNTAGGED.to_owned()], Owned::make)
}

fn attempt(
    instance: &Instance,
    locks: Vec<String>,
    make: impl Fn(&str, &str) -> Result<Owned, OwnedError>,
) -> Result<(Locks, Task), LockError> {
    let refused = |lock: &str, source| LockError::Refused { lock: lock.to_owned(), source };
    let (mut tables, mut sockets, mut tellers) = (Vec::new(), Vec::new(), Vec::new());
    for lock in locks {
        let name = SocketAddr::from_abstract_name(&lock).map_err(|error| refused(&lock, error))?;
        // No instance has a slash in its name, and so no other table has this one's.
        let is_sure = match make(&format!("{lock}/lock"), &introduction(instance)) {
            Ok(table) => {
                tables.push(table);
                true
            }
            Err(OwnedError::Taken(name_of_it)) => {
                let by = Holder { name: name_of_it, ..holder(&name) };
                return Err(LockError::Taken { by, lock });
            }
            Err(OwnedError::Unavailable(error)) => {
                tracing::debug!(%error, "no table that only this process may change");
                false
            }
        };
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let by = holder(&name);
                if !is_sure {
                    return Err(LockError::Taken { by, lock });
                }
                tracing::warn!("the socket @{lock} is taken by {by}, which is no announcer");
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
    Ok((Locks { _tables: tables, _sockets: sockets }, ("instance locks", telling.boxed())))
}

/// What this process says of itself.
fn introduction(instance: &Instance) -> String {
    format!("berth-announcer {}, instance {}", env!("CARGO_PKG_VERSION"), instance.name())
}

/// Tells whoever asks what this process is.
fn teller(listener: UnixListener, instance: &Instance) -> io::Result<BoxFuture<'static, ()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let name = introduction(instance);
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
    holder.recv_timeout(2 * ANSWER).unwrap_or_default()
}

fn ask(name: &SocketAddr) -> Holder {
    let Ok(mut stream) = UnixStream::connect_addr(name) else { return Holder::default() };
    let credentials = getsockopt(&stream, PeerCredentials).ok();
    let uid = credentials.map(|peer| peer.uid());
    // The kernel gives 0 for a process that is not in this namespace of processes.
    let pid = credentials.map(|peer| peer.pid()).filter(|pid| *pid != 0);
    let mut name = String::new();
    let _ = stream.set_read_timeout(Some(ANSWER));
    let _ = (&mut stream).take(LONGEST).read_to_string(&mut name);
    let plain = |c: &char| !c.is_control();
    Holder { pid, uid, name: name.chars().filter(plain).collect() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    fn instance(name: &str) -> Instance {
        Instance::named(name).unwrap()
    }

    /// Runs a test in a network namespace of its own.
    fn alone(test: impl AsyncFnOnce() + Send) {
        let alone = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(test());
        };
        let ended = std::thread::scope(|scope| scope.spawn(alone).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    fn the_second_is_told_who_the_first_is_and_has_its_turn_when_that_is_gone() {
        alone(the_second_is_told);
    }

    async fn the_second_is_told() {
        let instance = instance("second");
        let (first, telling) = take(&instance, WhenTaken::End).await.unwrap();
        let telling = tokio::spawn(telling.1);
        let again = instance.clone();
        let attempt = move || attempt(&again, again.locks(), Owned::make).map(drop);
        let refused = tokio::task::spawn_blocking(attempt);
        let refused = refused.await.unwrap().unwrap_err().to_string();
        let me = format!("the process {}: berth-announcer ", std::process::id());
        assert!(refused.contains(&me), "{refused}");
        assert!(refused.contains(&format!("instance {}", instance.name())), "{refused}");
        let spare = tokio::spawn(async move { take(&instance, WhenTaken::Wait).await.map(drop) });
        tokio::time::sleep(MOMENT + 2 * AGAIN).await;
        assert!(!spare.is_finished());
        telling.abort();
        drop(first);
        spare.await.unwrap().unwrap();
    }

    /// A process that may not change the network takes the names.
    fn squat(instance: &Instance) -> (UnixDatagram, UnixListener) {
        let name = SocketAddr::from_abstract_name(&instance.locks()[0]).unwrap();
        (UnixDatagram::bind_addr(&name).unwrap(), UnixListener::bind_addr(&name).unwrap())
    }

    #[test]
    fn who_takes_the_sockets_alone_keeps_no_announcer_from_starting_and_another_does() {
        alone(async || {
            let instance = instance("squatted");
            let _squatter = squat(&instance);
            let _first = take(&instance, WhenTaken::End).await.unwrap();
            let refused = take(&instance, WhenTaken::End).await.map(drop).unwrap_err();
            let name = introduction(&instance);
            assert!(refused.to_string().contains(&name), "{refused}");
        });
    }

    #[test]
    fn who_may_not_change_the_network_takes_no_lock() {
        alone(async || {
            let instance = instance("unprivileged");
            let table = format!("{}/lock", instance.locks()[0]);
            let mut nft = std::process::Command::new("nft");
            nft.args(["add", "table", "inet", &table]).uid(65534).gid(65534);
            let answer = String::from_utf8(nft.output().unwrap().stderr).unwrap();
            assert!(answer.contains("Operation not permitted"), "{answer}");
            let _first = take(&instance, WhenTaken::End).await.unwrap();
        });
    }

    #[test]
    fn where_the_kernel_has_no_such_tables_the_sockets_decide_and_whoever_has_them_is_named() {
        alone(async || {
            let instance = instance("old-kernel");
            let _squatter = squat(&instance);
            let none = |_: &str, _: &str| Err(io::Error::from(ErrorKind::Unsupported).into());
            let refused = attempt(&instance, instance.locks(), none).map(drop).unwrap_err();
            let LockError::Taken { by, .. } = refused else { panic!("{refused}") };
            let me = nix::unistd::getuid().as_raw();
            assert_eq!((by.pid, by.uid), (Some(std::process::id().cast_signed()), Some(me)));
            let other = Holder { uid: Some(1000), ..by };
            assert!(other.to_string().ends_with(", of the user 1000, who is not root"), "{other}");
        });
    }

    #[test]
    fn what_an_instance_needs_is_taken_for_it_only_while_it_does_not_run() {
        alone(async || {
            let (me, other) = (instance("me"), instance("other"));
            let first = take(&other, WhenTaken::End).await.unwrap();
            assert!(take_idle(&other, &me).is_err());
            drop(first);
            assert!(take_idle(&other, &me).is_ok());
        });
    }

    #[test]
    fn the_lock_for_services_is_the_one_of_earlier_versions() {
        assert_eq!(Instance::services().locks()[0], "berth-announcer");
    }
}
