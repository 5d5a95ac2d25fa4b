//! Owns the rtnetlink connection of the process: links, addresses, routes and policy rules all go by it. Every call waits
//! for the kernel's answer.

use std::io;
use std::net::Ipv6Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, TryStreamExt};
use nix::libc;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Error, Handle, IpVersion, RouteMessageBuilder};
use tokio::sync::Mutex;

use super::task::Task;

/// The connection.
#[derive(Clone, Debug)]
pub(crate) struct Rtnetlink {
    handle: Handle,
    /// The kernel has one dump of a socket under way at a time, and refuses another (`__netlink_dump_start`).
    dumps: Arc<Mutex<()>>,
}

/// How often, and after what pause, a dump is asked for again that the kernel refuses for one that was given up.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

impl Rtnetlink {
    /// Opens a socket in the network namespace of the calling thread; the task serves it.
    pub(super) fn open() -> io::Result<(Self, Task)> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok((Self { handle, dumps: Arc::default() }, ("rtnetlink", connection.boxed())))
    }

    /// For whatever changes something.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Every link.
    pub(crate) async fn links(&self) -> Result<Vec<LinkMessage>, Error> {
        self.dump(|| self.handle.link().get().execute()).await
    }

    /// Every address.
    pub(crate) async fn addresses(&self) -> Result<Vec<AddressMessage>, Error> {
        self.dump(|| self.handle.address().get().execute()).await
    }

    /// Every route of the family of `like`, in whatever table.
    pub(crate) async fn routes(&self, like: RouteMessage) -> Result<Vec<RouteMessage>, Error> {
        self.dump(|| self.handle.route().get(like.clone()).execute()).await
    }

    /// The route that the kernel would take, which is one to itself where an address is its own.
    pub(crate) async fn route_to(&self, address: Ipv6Addr) -> Result<Option<RouteMessage>, Error> {
        let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
        pin!(self.handle.route().get(route).execute()).try_next().await
    }

    /// Every policy rule of a family.
    pub(crate) async fn rules(&self, version: IpVersion) -> Result<Vec<RuleMessage>, Error> {
        self.dump(|| self.handle.rule().get(version.clone()).execute()).await
    }

    async fn dump<T, S>(&self, ask: impl Fn() -> S) -> Result<Vec<T>, Error>
    where
        S: Stream<Item = Result<T, Error>>,
    {
        let _one = self.dumps.lock().await;
        let mut tries = 0;
        loop {
            match ask().try_collect().await {
                Err(error) if code(&error) == Some(libc::EBUSY) && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

/// The number of the kernel's error.
pub(crate) fn code(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}
