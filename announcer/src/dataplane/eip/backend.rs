//! Which iptables the node uses, and running its programs. Rules of the other one are seen by nobody's tools, and both
//! are evaluated: kube-proxy's would stand beside ours in an order that nobody sees.

use std::collections::BTreeMap;
use std::fmt;

use super::tables::OURS;
use crate::kernel::exec::{Error, run};
use crate::vip::Family;

/// How chains of Kubernetes are declared. kubelet makes `KUBE-IPTABLES-HINT` for those who look (KEP-3178).
const KUBERNETES: &str = ":KUBE-";

/// Seconds to wait for whoever else changes a table.
const PATIENCE: &str = "5";

/// An implementation of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// nftables behind the forms of iptables.
    Nft,
    /// The older one, with tables of its own.
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

impl Backend {
    pub(super) const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// What is in all tables there are. To ask for one by name would make it.
    pub(super) async fn save(self, family: Family) -> Result<String, Error> {
        run(&self.program(family, "save"), &[], "").await
    }

    /// Changes tables as `script` says, each of them in one step.
    pub(super) async fn restore(self, family: Family, script: &str) -> Result<(), Error> {
        let program = self.program(family, "restore");
        run(&program, &["--noflush", "--wait", PATIENCE], script).await.map(drop)
    }

    fn program(self, family: Family, verb: &str) -> String {
        let six = match family {
            Family::V4 => "",
            Family::V6 => "6",
        };
        format!("ip{six}tables-{self}-{verb}")
    }
}

/// Whether a table of the older implementation is there. To ask its program would make one.
pub(super) fn has_legacy() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|file| {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        names.is_ok_and(|names| !names.trim().is_empty())
    })
}

/// The implementation that this node uses, and whether Kubernetes' own rules say so.
pub(super) async fn detect() -> (Backend, bool) {
    if !has_legacy() {
        let known = shown(Backend::Nft).await.contains(KUBERNETES);
        return (Backend::Nft, known);
    }
    let mut texts = BTreeMap::new();
    for backend in Backend::ALL {
        texts.insert(backend, shown(backend).await);
    }
    choose(&texts[&Backend::Nft], &texts[&Backend::Legacy])
}

/// All tables of both families, as far as they can be shown.
async fn shown(backend: Backend) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        text += &backend.save(family).await.unwrap_or_default();
    }
    text
}

/// Chooses by what is in the tables of each: chains of Kubernetes, else more rules, else nft.
fn choose(nft: &str, legacy: &str) -> (Backend, bool) {
    let ours = format!(":{OURS}");
    let count = |text: &str, start: &str| {
        text.lines().filter(|line| line.starts_with(start) && !line.starts_with(&ours)).count()
    };
    let chains = [nft, legacy].map(|text| count(text, KUBERNETES));
    let rules = [nft, legacy].map(|text| count(text, "-A "));
    let decisive = if chains == [0, 0] { rules } else { chains };
    let backend = if decisive[1] > decisive[0] { Backend::Legacy } else { Backend::Nft };
    (backend, chains != [0, 0])
}

/// Feeds `script` to `ipset restore`.
pub(super) async fn ipset(script: &str) -> Result<(), Error> {
    run("ipset", &["-exist", "restore"], script).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_is_that_of_kubernetes_else_of_most_rules_else_nft() {
        let kube = ":KUBE-SERVICES - [0:0]\n";
        let rules = "-A INPUT -j ACCEPT\n-A INPUT -j ACCEPT\n";
        assert_eq!(choose("", kube), (Backend::Legacy, true));
        assert_eq!(choose(kube, rules), (Backend::Nft, true));
        assert_eq!(choose(kube, &kube.repeat(3)), (Backend::Legacy, true), "left from before");
        assert_eq!(choose("", rules), (Backend::Legacy, false));
        assert_eq!(choose("", ""), (Backend::Nft, false));
        let ours = ":KUBE-EIP-PREROUTING - [0:0]\n-A FORWARD -j ACCEPT\n";
        assert_eq!(choose(rules, ours), (Backend::Nft, false), "our own chains prove nothing");
    }
}
