//! Addresses and links of one instance. Every call waits for the kernel's acknowledgement. Touches only what carries the
//! instance's number.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::libc;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressProtocol, CacheInfo,
};
use rtnetlink::packet_route::route::{RouteProtocol, RouteType};
use rtnetlink::{LinkVlan, RouteMessageBuilder};

use super::dump::{DefaultRoute, FOREVER, assemble, default_route};
use super::host::{Binding, Error, Host, Kernel, Lifetime, LinkError, Vlan, single};
use super::routes::hops;
use super::rtnetlink::{Rtnetlink, code};
use super::sysctl;
use super::wayback::{WayBack, Ways};
use crate::instance::Instance;

/// Addresses and links of this network namespace, as one instance tags them.
#[derive(Clone, Debug)]
pub struct Netlink {
    rtnetlink: Rtnetlink,
    /// The protocol number of its addresses (`IFA_PROTO`, `ip address` shows `proto 190`), and the group of interfaces
    /// that it makes (`ip link show group 190`). Unlike an alias a group is there from the start: whatever becomes of
    /// this program, none is left behind without it.
    number: u8,
    way_back: WayBack,
    /// The addresses that lead here, as far as that was waited for.
    led: BTreeSet<Binding>,
    /// Until when it is waited for no more: an interface that is down leads nowhere.
    impatient: Option<Instant>,
}

/// How long it is waited for that an address leads here, how soon that is looked at again, and how long it is not after it did not.
const LED_WITHIN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);
const IMPATIENT: Duration = Duration::from_secs(10);

impl Netlink {
    pub(super) fn new(rtnetlink: Rtnetlink, instance: &Instance) -> Self {
        let (led, impatient) = (BTreeSet::new(), None);
        Self { rtnetlink, number: instance.number(), way_back: WayBack::default(), led, impatient }
    }

    /// Waits until an address leads here. The kernel acknowledges one of IPv6 before a worker of its own has added the route
    /// (`addrconf_dad_work`), which it is late for where many change the network: until then the address is answered for, and
    /// what comes to it is sent on, to nobody; 3 s later its sender is told that there is no way.
    async fn lead(&mut self, binding: Binding) -> Result<(), rtnetlink::Error> {
        let IpAddr::V6(address) = binding.address else { return Ok(()) };
        let begun = Instant::now();
        let is_impatient = self.impatient.is_some_and(|until| begun < until);
        if is_impatient || self.led.contains(&binding) {
            return Ok(());
        }
        let mut pause = LOOK;
        while begun.elapsed() < LED_WITHIN {
            let route = match self.rtnetlink.route_to(address).await {
                // Nor to anything else, where it is the first.
                Err(error) if code(&error) == Some(libc::ENETUNREACH) => None,
                result => result?,
            };
            if route.is_some_and(|route| route.header.kind == RouteType::Local) {
                self.led.insert(binding);
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK * 16);
        }
        self.impatient = Some(Instant::now() + IMPATIENT);
        tracing::warn!(%address, "the kernel has it and does not lead to it yet");
        Ok(())
    }

    /// The default routes of the main table, those of IPv4 first, by which interfaces any lead, and to which next hops.
    async fn routes(
        &self,
    ) -> Result<(Vec<DefaultRoute>, Ways, BTreeSet<IpAddr>), rtnetlink::Error> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let (mut found, mut ways, mut next_hops) = (Vec::new(), Ways::default(), BTreeSet::new());
        let ours = RouteProtocol::from(self.number);
        for family in [v4, v6] {
            let routes = self.rtnetlink.routes(family).await?;
            routes.iter().for_each(|route| ways.see(route, ours));
            let others = routes.iter().filter(|route| route.header.protocol != ours);
            next_hops.extend(others.flat_map(hops).filter_map(|hop| hop.gateway));
            let mut of_family: Vec<_> = routes.iter().filter_map(default_route).collect();
            of_family.sort_by_key(|route| (route.metric, route.hops.first().map(|hop| hop.index)));
            found.extend(of_family);
        }
        Ok((found, ways, next_hops))
    }
}

impl Kernel for Netlink {
    async fn look(&mut self) -> Result<Host, Error> {
        let read = |what| move |source| Error::Read { what, source };
        let links = self.rtnetlink.links().await.map_err(read("links"))?;
        let addresses = self.rtnetlink.addresses().await.map_err(read("addresses"))?;
        let (routes, ways, next_hops) = self.routes().await.map_err(read("routes"))?;
        let now = Instant::now();
        let mut host = assemble(self.number, &links, &addresses, &routes, now);
        host.next_hops = next_hops;
        self.way_back.judge(&mut host, &ways, rp_filter, now);
        self.led.retain(|binding| host.ours.contains_key(binding));
        Ok(host)
    }

    async fn bind(&mut self, binding: Binding, lifetime: Lifetime) -> Result<(), Error> {
        let Binding { index, address } = binding;
        let prefix_len = single(&address);
        let mut request =
            self.rtnetlink.handle().address().add(index, address, prefix_len).replace();
        let message = request.message_mut();
        // A VIP has no subnet: `rtnetlink` derives a broadcast address from the prefix, which here is the VIP itself.
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        // Duplicate detection would keep an IPv6 address silent for a second; conflicts are looked for elsewhere.
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        // Preferred for no time at all: deprecated, so that the node never picks it as the source of its own traffic.
        let mut times = CacheInfo::default();
        times.ifa_preferred = 0;
        times.ifa_valid = lifetime.seconds(Instant::now()).unwrap_or(FOREVER);
        message.attributes.push(AddressAttribute::CacheInfo(times));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(self.number)));
        let failed = |source| Error::Address { verb: "binding", address, index, source };
        request.execute().await.map_err(failed)?;
        // Whoever cannot be asked has said that the address is there.
        if let Err(error) = self.lead(binding).await {
            tracing::debug!(%error, %address, "no route to it");
        }
        Ok(())
    }

    async fn remove(&mut self, binding: Binding) -> Result<(), Error> {
        self.led.remove(&binding);
        let Binding { index, address } = binding;
        // The message of an addition names the address as a removal does.
        let prefix_len = single(&address);
        let message =
            self.rtnetlink.handle().address().add(index, address, prefix_len).message_mut().clone();
        match self.rtnetlink.handle().address().del(message).execute().await {
            Err(error) if is_gone(&error) => Ok(()),
            result => {
                result.map_err(|source| Error::Address { verb: "removing", address, index, source })
            }
        }
    }

    async fn make_vlan(&mut self, name: &str, vlan: Vlan) -> Result<(), LinkError> {
        let link =
            LinkVlan::new(name, vlan.parent, vlan.id).link_group(self.number.into()).up().build();
        match self.rtnetlink.handle().link().add(link).execute().await {
            Err(error) if code(&error) == Some(libc::EOPNOTSUPP) => Err(LinkError::NoVlans),
            result => Ok(result?),
        }
    }

    async fn remove_link(&mut self, index: u32) -> Result<(), LinkError> {
        match self.rtnetlink.handle().link().del(index).execute().await {
            Err(error) if is_gone(&error) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// How strictly the kernel asks of what comes in by an interface whether its answer would leave there.
fn rp_filter(interface: &str) -> Option<u32> {
    sysctl::read(&format!("net/ipv4/conf/{interface}/rp_filter"))?.trim().parse().ok()
}

/// No such address, or no such interface.
fn is_gone(error: &rtnetlink::Error) -> bool {
    matches!(code(error), Some(libc::EADDRNOTAVAIL | libc::ENODEV))
}
