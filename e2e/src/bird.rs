//! BIRD 2 as the router of the lab's LAN: its own table says what nodes have told it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::addresses::router;
use crate::disk::replace;
use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;

/// Its AS.
pub const ROUTER_AS: u32 = 65001;

/// A BIRD that runs in the router's namespace, has a session with each node, and forwards by what it learns.
#[derive(Debug)]
pub struct Bird {
    place: Place,
    folder: PathBuf,
    process: Process,
}

impl Bird {
    /// Starts it. `more` is said of each session: a password, for one. Its protocols are called as the nodes are, with `_`
    /// in the place of hyphens.
    pub fn start(lab: &Lab, nodes_as: u32, more: &str) -> Result<Self> {
        Self::start_with(lab, nodes_as, more, "")
    }

    /// The same with protocols beside those.
    pub fn start_with(lab: &Lab, nodes_as: u32, more: &str, beside: &str) -> Result<Self> {
        let place = lab.router();
        let folder = lab.dir().join("bird");
        std::fs::create_dir_all(&folder)?;
        let own = router().v4;
        let file = |name: &str| folder.join(name).display().to_string();
        let mut text = format!(
            "log \"{}\" all;\nrouter id {own};\nprotocol device {{ scan time 1; }}\n\
             protocol kernel {{ merge paths yes; ipv4 {{ import none; export all; }}; }}\n\
             protocol kernel {{ merge paths yes; ipv6 {{ import none; export all; }}; }}\n",
            file("log")
        );
        for node in lab.nodes() {
            let (name, address) = (protocol(node.name()), node.addresses().lan.v4);
            let _ = writeln!(
                text,
                "protocol bgp {name} {{\n  local {own} as {ROUTER_AS};\n  neighbor {address} as {nodes_as};\n  passive on;\n  \
                 {more}\n  ipv4 {{ import all; export none; }};\n  ipv6 {{ import all; export none; }};\n}}"
            );
        }
        text.push_str(beside);
        replace(&folder.join("conf"), text)?;
        // A client on the LAN that was told of a node would go there past the router.
        for side in ["all", "eth0"] {
            place.exec(["sysctl", "-qw", &format!("net.ipv4.conf.{side}.send_redirects=0")])?;
        }
        let run = ["bird", "-f", "-c", &file("conf"), "-s", &file("ctl")].map(str::to_owned);
        let process = place.start("bird", run)?;
        Ok(Self { place, folder, process })
    }

    /// Has one text in the place of another in its configuration, and takes that in.
    pub fn exchange(&self, before: &str, after: &str) -> Result<()> {
        let conf = self.folder.join("conf");
        replace(&conf, std::fs::read_to_string(&conf)?.replace(before, after))?;
        let said = self.says("configure")?;
        ensure!(said.contains("Reconfigur"), "{said}");
        Ok(())
    }

    /// What it says to a command.
    pub fn says(&self, command: &str) -> Result<String> {
        ensure!(self.process.is_alive(), "bird ended: {}", self.process.log_tail());
        let control = self.folder.join("ctl").display().to_string();
        let words = ["birdc", "-s", &control].into_iter().chain(command.split_whitespace());
        let output = self.place.output(words).context("birdc")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The next hops of an address, by the protocol that told it.
    pub fn paths(&self, address: IpAddr) -> Result<BTreeMap<String, IpAddr>> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let said = self.says(&format!("show route {address}/{length} all"))?;
        let (mut paths, mut from) = (BTreeMap::new(), None);
        for line in said.lines() {
            // `10.9.0.1/32  unicast [node_1 12:00:00.000] * (100) [AS65000i]`, and the next ones without the prefix.
            if let Some((_, rest)) = line.split_once("unicast [") {
                from = rest.split_whitespace().next().map(str::to_owned);
            }
            if let (Some((_, hop)), Some(from)) = (line.split_once("BGP.next_hop: "), &from) {
                let hop = hop.split_whitespace().next().context("a next hop")?;
                paths.insert(from.clone(), hop.parse()?);
            }
        }
        Ok(paths)
    }

    /// The protocols that have told it of an address.
    pub fn knows(&self, address: IpAddr) -> Result<BTreeSet<String>> {
        Ok(self.paths(address)?.into_keys().collect())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }
}

/// What its protocol with a node is called.
pub fn protocol(node: &str) -> String {
    node.replace(['-', '.'], "_")
}
