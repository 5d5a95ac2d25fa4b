//! What is kept of an `EipBinding`: what it asks of a node, and what its status says of the announcers.

use std::net::IpAddr;

use berth_api::conflict::Conflicts;
use berth_api::eip::{EipBinding, EipHolder, condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// An `EipBinding`, as far as the announcer goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Eip {
    /// `metadata.uid`.
    pub uid: String,
    /// When it was made, as it is written: it sorts.
    pub created: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.generation`, which the conditions are about.
    pub generation: Option<i64>,
    /// The node that is to hold its addresses; none while it is being deleted.
    pub node: Option<String>,
    /// The node that its VM is migrating to, which is to translate what the VM sends from there on.
    pub target: Option<String>,
    /// Each elastic IP with the VM's own address of the same family.
    pub pairs: Vec<(IpAddr, IpAddr)>,
    /// Grows with each change of what is above.
    pub epoch: i64,
    /// Who says that it holds them.
    pub holder: Option<EipHolder>,
    /// Those of its addresses that other hosts have, as an announcer has written.
    pub conflicts: Conflicts,
    /// The conditions of the announcers.
    pub conditions: Vec<Condition>,
    /// Whether something in its status was written by this node.
    pub signed: bool,
}

impl Eip {
    /// Reads what matters of an object; `manager` is how this node signs what it writes.
    pub fn read(object: &EipBinding, manager: &str) -> Self {
        let (metadata, status) = (&object.metadata, object.status.clone().unwrap_or_default());
        let signed = metadata.managed_fields.iter().flatten().any(|entry| {
            entry.manager.as_deref() == Some(manager)
                && entry.subresource.as_deref() == Some("status")
        });
        // Addresses that do not fit each other are none: berth-ccm writes them together.
        let pair = |(eip, vmi): (&String, &String)| {
            let pair: (IpAddr, IpAddr) = (eip.parse().ok()?, vmi.parse().ok()?);
            (pair.0.is_ipv4() == pair.1.is_ipv4()).then_some(pair)
        };
        let conflicts = status.conflicts();
        let created = metadata.creation_timestamp.as_ref();
        let theirs = [condition::BOUND, condition::ANNOUNCED];
        let conditions =
            status.conditions.into_iter().filter(|shown| theirs.contains(&shown.type_.as_str()));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            created: created.map(|time| time.0.to_string()).unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation,
            node: status.node.filter(|_| metadata.deletion_timestamp.is_none()),
            target: status.target.filter(|_| metadata.deletion_timestamp.is_none()),
            pairs: status.eips.iter().zip(&status.vmi_ips).filter_map(pair).collect(),
            epoch: status.epoch.unwrap_or_default(),
            holder: status.holder,
            conflicts,
            conditions: conditions.collect(),
            signed,
        }
    }

    /// The node that is to hold the addresses, if there is anything to hold.
    pub fn owner(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| !self.pairs.is_empty())
    }

    /// The node that its VM may go on at any moment, if there is anything to translate.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref().filter(|target| self.owner().is_some_and(|owner| owner != *target))
    }

    /// Its elastic IPs.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.pairs.iter().map(|(eip, _)| *eip)
    }
}

#[cfg(test)]
mod tests {
    use berth_api::eip::manager;
    use serde_json::json;

    use super::*;

    fn read(status: serde_json::Value) -> Eip {
        let managed = json!([{ "manager": "berth-announcer-a", "subresource": "status" }]);
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
            "metadata": { "name": "vm", "namespace": "d", "managedFields": managed },
            "spec": { "vmi": "vm" }, "status": status,
        });
        Eip::read(&serde_json::from_value(object).unwrap(), "berth-announcer-a")
    }

    #[test]
    fn addresses_are_read_in_pairs_and_those_that_do_not_fit_are_none() {
        let eip = read(json!({
            "eips": ["192.0.2.1", "2001:db8::1", "192.0.2.2"],
            "vmiIPs": ["10.244.0.4", "fd00:244::4"], "node": "a", "epoch": 3,
        }));
        assert_eq!((eip.pairs.len(), eip.owner(), eip.epoch), (2, Some("a"), 3));
        assert!(eip.signed);
        let mixed = read(json!({ "eips": ["192.0.2.1"], "vmiIPs": ["fd00:244::4"], "node": "a" }));
        assert_eq!((mixed.pairs.len(), mixed.owner()), (0, None));
    }

    #[test]
    fn a_long_name_still_makes_a_field_manager() {
        assert_eq!(manager("a"), "berth-announcer-a");
        let (a, b) = (manager(&"a".repeat(253)), manager(&"a".repeat(252)));
        assert_eq!((a.len(), b.len()), (128, 128));
        assert_ne!(a, b);
    }
}
