//! BIRD 2 as the router of the lab's LAN: its own table says what nodes have told it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::disk::replace;
use crate::lab::Lab;
use crate::lan_router::{LanRouter, called};

pub use crate::lan_router::ROUTER_AS;

/// A BIRD that runs in the router's namespace, has a session with each node, and forwards by what it learns.
#[derive(Debug)]
pub struct Bird(LanRouter);

impl Bird {
    /// Starts it. `more` is said of each session: a password, for one. Its protocols are called as the nodes are, with `_`
    /// in the place of hyphens.
    pub fn start(lab: &Lab, nodes_as: u32, more: &str) -> Result<Self> {
        Self::start_with(lab, nodes_as, more, "")
    }

    /// The same with protocols beside those.
    pub fn start_with(lab: &Lab, nodes_as: u32, more: &str, beside: &str) -> Result<Self> {
        let more = |neighbor: &mut lab_routers::Neighbor| {
            neighbor.keeps = true;
            neighbor.more = vec![more.to_owned()];
        };
        let beside = vec![beside.to_owned()];
        LanRouter::start_with(lab, &lab_routers::Bird, nodes_as, more, beside).map(Self)
    }

    /// Has one text in the place of another in its configuration, and takes that in.
    pub fn exchange(&self, before: &str, after: &str) -> Result<()> {
        let conf = self.0.folder().join("conf");
        replace(&conf, std::fs::read_to_string(&conf)?.replace(before, after))?;
        let said = self.says("configure")?;
        ensure!(said.contains("Reconfigur"), "{said}");
        Ok(())
    }

    /// What it says to a command.
    pub fn says(&self, command: &str) -> Result<String> {
        self.0.says(command)
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// The next hops of an address, by the protocol that told it.
    pub fn paths(&self, address: IpAddr) -> Result<BTreeMap<String, IpAddr>> {
        self.0.paths(address)
    }

    /// The protocols that have told it of an address.
    pub fn knows(&self, address: IpAddr) -> Result<BTreeSet<String>> {
        Ok(self.paths(address)?.into_keys().collect())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) -> Result<()> {
        self.0.kill()
    }
}

/// What its protocol with a node is called.
pub fn protocol(node: &str) -> String {
    called(node)
}
