//! The one way into the kernel of this network namespace: one connection for links, addresses, routes and policy rules,
//! one socket for requests to netfilter, one listener for each kind of change. The fence has a socket of its own
//! (docs/decisions/0010).

use std::fmt;
use std::io;

use tokio::sync::mpsc;

use super::events::{Events, KernelChange};
use super::netfilter::Netfilter;
use super::netlink::Netlink;
use super::rtnetlink::Rtnetlink;
use super::task::Task;
use crate::instance::Instance;

/// Everything through which the kernel is asked and heard.
#[derive(Clone)]
pub struct Door {
    pub(crate) rtnetlink: Rtnetlink,
    pub(crate) netfilter: Netfilter,
    pub(crate) events: Events,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    /// Opens it in the network namespace of the calling thread, and gives the tasks without which nothing comes through.
    /// They end some time after the last of its users is gone.
    ///
    /// # Errors
    /// When the kernel gives no rtnetlink socket.
    pub fn open() -> io::Result<(Self, Vec<Task>)> {
        let (rtnetlink, connection) = Rtnetlink::open()?;
        let (events, hearing) = Events::listen()?;
        let door = Self { rtnetlink, netfilter: Netfilter::default(), events };
        Ok((door, vec![connection, hearing]))
    }

    /// Addresses and links, as `instance` tags them.
    pub fn netlink(&self, instance: &Instance) -> Netlink {
        Netlink::new(self.rtnetlink.clone(), instance)
    }

    /// Changes of links, addresses, filters and default routes from now on.
    pub fn changes(&self) -> mpsc::Receiver<KernelChange> {
        self.events.changes()
    }
}
