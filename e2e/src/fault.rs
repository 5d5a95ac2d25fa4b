//! What can go wrong, on demand: crashes, freezes, cuts, reboots.
//!
//! Cuts are drops in the bridges' namespace, which neither end can see; an unplugged link is one the node sees.
//! All state is the kernel's own, so any process may make a fault and another heal it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    addresses::Net,
    cgroup,
    control_plane::{self, Part},
    fabric::{self, FABRIC, port},
    lab::Lab,
    node::Node,
    place::IP_BATCH,
    process::Process,
    start,
};

/// What a node's kernel still has when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// Addresses, routes and rules of before: as after a crash of all processes.
    Keep,
    /// Nothing: as after a reboot.
    Flush,
}

/// The table that drops frames. Elements are port names; a node's two ports are distinct.
const TABLE: &str = "
table bridge faults {
  set from { type ifname; }
  set to { type ifname; }
  set pairs { type ifname . ifname; }
  set dead { type ifname; }
  chain ingress { type filter hook prerouting priority -300; iifname @from drop; iifname @dead drop; }
  chain egress { type filter hook postrouting priority 300; oifname @to drop; oifname @dead drop; }
  chain forward { type filter hook forward priority -300; iifname . oifname @pairs drop; }
  chain loss { type filter hook prerouting priority -299; }
}
";

impl Lab {
    /// A node loses its power: every process of it dies, both links go down, and nobody hears anything of that.
    pub fn crash(&self, i: usize) -> Result<()> {
        let node = self.node(i);
        let ports = [Net::Lan, Net::Api].map(|net| port(net, node.name())).join(", ");
        // A process that saw its links go down first would still do something, and a kernel tells whose sockets it closes.
        self.faults(&format!("add element bridge faults dead {{ {ports} }}\n"))?;
        cgroup::thaw_all(&node.context.cgroup());
        node.place()?.keeper.id.kill()?;
        self.set_links(node, "down")?;
        self.faults(&format!("delete element bridge faults dead {{ {ports} }}\n"))
    }

    /// A node that crashed comes back. Returns when its processes run; [`Lab::until_ready`] waits for more.
    pub fn reboot(&self, i: usize, leftovers: Leftovers) -> Result<()> {
        let node = self.node(i);
        let keeper = node.place()?.keeper.id;
        keeper.kill()?;
        if leftovers == Leftovers::Flush {
            let nodes: Vec<_> =
                self.nodes().iter().map(|n| (n.name().to_owned(), n.addresses().clone())).collect();
            fabric::renew(self.dir(), self.keeper(), &nodes, i)?;
        }
        self.set_links(node, "up")?;
        start::processes(node)
    }

    /// Waits until all nodes are Ready.
    pub async fn until_ready(&self, limit: Duration) -> Result<()> {
        let names: Vec<_> = self.nodes().iter().map(Node::name).collect();
        start::until_ready(&self.client(), &names, limit).await
    }

    /// Stops every process of a node; the kernel goes on answering for it.
    pub fn freeze(&self, i: usize) -> Result<()> {
        cgroup::freeze(&self.node(i).context.cgroup())
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self, i: usize) -> Result<()> {
        cgroup::thaw(&self.node(i).context.cgroup())
    }

    /// Drops everything to and from a node on one network. The node sees a good link.
    pub fn cut(&self, i: usize, net: Net) -> Result<()> {
        let port = port(net, self.node(i).name());
        self.faults(&format!(
            "add element bridge faults from {{ {port} }}\nadd element bridge faults to {{ {port} }}\n"
        ))
    }

    /// Ends [`Lab::cut`]. Cuts between pairs stay.
    pub fn heal(&self, i: usize, net: Net) -> Result<()> {
        let port = port(net, self.node(i).name());
        // Adding first makes the deletion of one that is not there no error.
        self.faults(&format!(
            "add element bridge faults from {{ {port} }}\ndelete element bridge faults from {{ {port} }}\n\
             add element bridge faults to {{ {port} }}\ndelete element bridge faults to {{ {port} }}\n"
        ))
    }

    /// Drops what `from` sends to `to` on one network; names as in [`Lab::place_named`].
    pub fn cut_one_way(&self, from: &str, to: &str, net: Net) -> Result<()> {
        let (from, to) = (port(net, from), port(net, to));
        self.faults(&format!("add element bridge faults pairs {{ {from} . {to} }}\n"))
    }

    /// Drops everything between two on one network.
    pub fn cut_pair(&self, a: &str, b: &str, net: Net) -> Result<()> {
        self.cut_one_way(a, b, net)?;
        self.cut_one_way(b, a, net)
    }

    /// Splits the nodes on one network: those of `group` and all others drop what the other side sends.
    /// Client, router and control plane still reach both.
    pub fn split(&self, group: &[usize], net: Net) -> Result<()> {
        let inside = |i: &usize| group.contains(i);
        for a in (0..self.nodes().len()).filter(inside) {
            for b in (0..self.nodes().len()).filter(|i| !inside(i)) {
                self.cut_pair(self.node(a).name(), self.node(b).name(), net)?;
            }
        }
        Ok(())
    }

    /// Loses a share of what a node sends on one network, at random: `percent` of 100.
    pub fn lose(&self, i: usize, net: Net, percent: u8) -> Result<()> {
        let port = port(net, self.node(i).name());
        self.faults(&format!(
            "add rule bridge faults loss iifname {port} numgen random mod 100 < {percent} drop\n"
        ))
    }

    /// Ends every cut and every loss.
    pub fn heal_all(&self) -> Result<()> {
        self.faults("flush chain bridge faults loss\nflush set bridge faults from\nflush set bridge faults to\nflush set bridge faults pairs\n")
    }

    /// Takes a link's carrier away, which the node sees.
    pub fn unplug(&self, i: usize, net: Net) -> Result<()> {
        self.set_link(self.node(i), net, "down")
    }

    /// Gives a link's carrier back.
    pub fn plug(&self, i: usize, net: Net) -> Result<()> {
        self.set_link(self.node(i), net, "up")
    }

    /// Kills a part of the control plane with SIGKILL.
    pub fn kill_part(&self, part: Part) -> Result<()> {
        self.part(part)?.kill()
    }

    /// Kills a part of the control plane and starts it again; returns when the API server is ready.
    pub async fn restart_part(&self, part: Part) -> Result<Process> {
        self.kill_part(part)?;
        let process = self.start_part(part)?;
        self.until_api_ready().await?;
        Ok(process)
    }

    /// Waits until the API server is ready.
    pub async fn until_api_ready(&self) -> Result<()> {
        let server = self.part(Part::ApiServer)?;
        control_plane::wait_until_ready(&self.client(), &server, Duration::from_secs(60)).await
    }

    fn faults(&self, script: &str) -> Result<()> {
        // Declaring what is there changes nothing, so every fault brings the table along.
        let fabric = self.place_in_network(FABRIC);
        if fabric.output(["nft", "list", "table", "bridge", "faults"])?.status.success() {
            fabric.exec_with_input(["nft", "-f", "-"], script)
        } else {
            fabric.exec_with_input(["nft", "-f", "-"], format!("{TABLE}{script}"))
        }
        .context("change the cuts")
        .map(drop)
    }

    fn set_links(&self, node: &Node, state: &str) -> Result<()> {
        self.set_link(node, Net::Lan, state)?;
        self.set_link(node, Net::Api, state)
    }

    fn set_link(&self, node: &Node, net: Net, state: &str) -> Result<()> {
        let script = format!("link set {} {state}\n", port(net, node.name()));
        self.place_in_network(FABRIC).exec_with_input(IP_BATCH, script).map(drop)
    }
}
