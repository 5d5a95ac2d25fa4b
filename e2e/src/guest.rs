//! The inside of a virtual machine: a network namespace behind a node that can move to another one with everything that
//! is open in it, as a migration does. It keeps its addresses.

use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::fabric::make_namespaces;
use crate::lab::Lab;
use crate::place::{IP_BATCH, Place};

/// The node's end of every cable to a guest has these addresses: a guest's next hop stays the same on all nodes.
const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1"];

/// A guest and where it is.
#[derive(Debug)]
pub struct Guest {
    place: Place,
    /// IPv4 first.
    addresses: [IpAddr; 2],
    /// The node, and the guest's interface to it.
    at: Option<(String, String)>,
    /// How often it was plugged in.
    cables: usize,
}

impl Guest {
    /// A guest named `name` (at most eight letters) that is nowhere yet.
    pub fn new(lab: &Lab, name: &str, addresses: [IpAddr; 2]) -> Result<Self> {
        make_namespaces(lab.dir(), lab.keeper(), &[name])?;
        let place = lab.place_in_network(name);
        place.exec_with_input(IP_BATCH, "link set lo up\n")?;
        Ok(Self { place, addresses, at: None, cables: 0 })
    }

    /// Its network namespace.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.addresses
    }

    /// The node it is on.
    pub fn node(&self) -> Option<&str> {
        self.at.as_ref().map(|(node, _)| node.as_str())
    }

    /// Starts it on a node.
    pub fn start(&mut self, lab: &Lab, node: &str) -> Result<()> {
        let cable = self.plug(lab, node)?;
        self.switch(lab, node, cable)
    }

    /// Gets a second cable ready on another node, which leads there and brings nothing back yet: the target of a
    /// migration. [`Guest::switch`] goes over to it.
    pub fn plug(&mut self, lab: &Lab, node: &str) -> Result<String> {
        self.cables += 1;
        let cable = format!("eth{}", self.cables);
        let port = format!("{}-{}", self.place.name, self.cables);
        let there = self.place.netns();
        let [v4, v6] = self.addresses;
        let script = format!(
            "link add {port} type veth peer name {cable} netns {}\nlink set {port} up\n\
             address add {}/32 dev {port}\naddress add {}/64 dev {port} nodad\n\
             route replace {v4}/32 dev {port}\nroute replace {v6}/128 dev {port}\n",
            there.display(),
            GATEWAYS[0],
            GATEWAYS[1],
        );
        lab.place_in_network(node).exec_with_input(IP_BATCH, script).context("plug a guest in")?;
        let script = format!(
            "link set {cable} up\naddress add {v4}/32 dev {cable}\naddress add {v6}/128 dev {cable} nodad\n"
        );
        self.place.exec_with_input(IP_BATCH, script)?;
        Ok(cable)
    }

    /// Goes over to a cable: from here on it sends by the new node, the node before knows where it is, as from a CNI
    /// that keeps addresses, and the old cable is pulled.
    pub fn switch(&mut self, lab: &Lab, node: &str, cable: String) -> Result<()> {
        let [v4, v6] = GATEWAYS;
        let script = format!(
            "route replace {v4}/32 dev {cable}\nroute replace default via {v4} dev {cable}\n\
             route replace default via {v6} dev {cable}\n"
        );
        self.place.exec_with_input(IP_BATCH, script).context("go over to another cable")?;
        if let Some((before, old)) = self.at.replace((node.to_owned(), cable)) {
            let there = lab.nodes().iter().find(|candidate| candidate.name() == node);
            let lan = there.context("no such node")?.addresses().lan;
            let [own4, own6] = self.addresses;
            let script = format!(
                "route replace {own4}/32 via {}\nroute replace {own6}/128 via {}\n",
                lan.v4, lan.v6
            );
            lab.place_in_network(&before).exec_with_input(IP_BATCH, script)?;
            self.unplug(&old)?;
        }
        Ok(())
    }

    /// Pulls a cable that was plugged in for nothing: a migration that failed.
    pub fn unplug(&self, cable: &str) -> Result<()> {
        self.place.exec(["ip", "link", "delete", cable]).map(drop)
    }
}
