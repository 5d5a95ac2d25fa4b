//! A node and a peer on one wire, in network namespaces that vanish with the test, and what the tests judge by.

mod holder;
mod namespace;
mod witness;

pub(crate) use holder::Holder;
pub(crate) use namespace::Namespace;
pub(crate) use witness::{Witness, arp, neighbour, send_from};

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The node's own addresses, and those of the peer.
pub(crate) const NODE4: &str = "192.0.2.1";
pub(crate) const NODE6: &str = "2001:db8::1";
pub(crate) const PEER4: &str = "192.0.2.2";
pub(crate) const PEER6: &str = "2001:db8::2";
/// An address of the node that Berth knows nothing of.
pub(crate) const FOREIGN4: &str = "192.0.2.77";
/// Addresses that Berth gives out.
pub(crate) const VIP4: &str = "192.0.2.100";
pub(crate) const OTHER4: &str = "192.0.2.101";
pub(crate) const VIP6: &str = "2001:db8::100";
pub(crate) const OTHER6: &str = "2001:db8::101";

/// How late a frame may be seen: the kernel's own way from the hook to the peer (the protocol allows it 10 ms).
pub(crate) const LATENESS: Duration = Duration::from_millis(10);

/// A node with `eth0` on a wire to a peer with `lan0`.
pub(crate) struct Wire {
    pub(crate) node: Namespace,
    pub(crate) peer: Namespace,
}

impl Wire {
    /// Lays the wire and gives both ends their addresses.
    pub(crate) fn lay() -> Wire {
        let (node, peer) = (Namespace::new(), Namespace::new());
        let path = peer.path();
        node.run(&format!("ip link add eth0 type veth peer name lan0 netns {path}"));
        for (namespace, device, addresses) in
            [(&node, "eth0", [NODE4, NODE6]), (&peer, "lan0", [PEER4, PEER6])]
        {
            namespace.run("ip link set lo up");
            namespace.run(&format!("ip link set {device} addrgenmode none up"));
            namespace.run(&format!("ip addr add {}/24 dev {device}", addresses[0]));
            namespace.run(&format!("ip addr add {}/64 dev {device} nodad", addresses[1]));
            // The kernel asks for neighbours in the name of this one.
            namespace.run(&format!(
                "ip addr add fe80::{}/64 dev {device} nodad",
                if device == "eth0" { 1 } else { 2 }
            ));
        }
        Wire { node, peer }
    }

    /// Binds an address of ours as the announcer does.
    pub(crate) fn bind(&self, address: &str) {
        bind(&self.node, address, "eth0");
    }

    /// Watches the peer's end.
    pub(crate) fn witness(&self) -> Witness {
        Witness::start(&self.peer, "lan0")
    }

    /// Starts a process that holds the strongest fence of `kind` or weaker.
    pub(crate) fn holder(&self, kind: &str) -> Holder {
        Holder::start(&self.node, kind)
    }

    /// Starts one and takes it to where addresses can be armed.
    pub(crate) fn settled(&self, kind: &str, addresses: &[&str]) -> Holder {
        settle(self.holder(kind), addresses)
    }

    /// The same of another instance.
    pub(crate) fn settled_of(
        &self,
        kind: &str,
        instance: (&str, u8),
        addresses: &[&str],
    ) -> Holder {
        settle(Holder::start_of(&self.node, kind, instance), addresses)
    }
}

fn settle(mut holder: Holder, addresses: &[&str]) -> Holder {
    holder.ok(&format!("cover {}", addresses.join(" ")));
    holder.ok("attach eth0");
    holder.ok("settle");
    holder
}

/// Binds `address` to `device` for itself alone, never as a source.
pub(crate) fn bind(namespace: &Namespace, address: &str, device: &str) {
    let (bits, nodad) = if address.contains(':') { (128, "nodad") } else { (32, "") };
    namespace.run(&format!("ip addr add {address}/{bits} dev {device} preferred_lft 0 {nodad}"));
}

/// Nanoseconds since boot, by this process's own reading.
pub(crate) fn boottime() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap()).as_nanos() as u64
}

/// Waits until `condition` holds, or fails naming `what` after ten seconds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = boottime() + 10_000_000_000;
    while !condition() {
        assert!(boottime() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The filters at the egress of `device`, as `tc` tells them.
pub(crate) fn filters(namespace: &Namespace, device: &str) -> Vec<serde_json::Value> {
    let text = namespace.run(&format!("tc -j filter show dev {device} egress"));
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    all.into_iter().filter(|filter| filter["options"].is_object()).collect()
}

/// The kinds of the qdiscs of `device`, as `tc` tells them.
pub(crate) fn qdiscs(namespace: &Namespace, device: &str) -> Vec<String> {
    let text = namespace.run(&format!("tc -j qdisc show dev {device}"));
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    all.iter().map(|qdisc| qdisc["kind"].as_str().unwrap().to_owned()).collect()
}
