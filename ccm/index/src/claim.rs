//! Owns the form of a claim: an `IPAddress` (networking.k8s.io/v1) that is named by the address. Creating one is the
//! only way to get an address, and the API server lets only one be created. Who joins an address changes its claim
//! only as it was seen, so that two who want one port cannot both join.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::Quoted;
use berth_api::claim::{self, WrittenHolder, WrittenPolicy};
use berth_api::names::{annotation, label};
use berth_ipam::{Owner, OwnerKind, Protocol, Scope, Sharing, TrafficPolicy};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One who holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub owner: Owner,
    /// The ports it was let in with; `None` for one that was alone when it came.
    pub sharing: Option<Sharing>,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// A claim as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Who holds the address: one, or several whose ports differ. Never empty.
    pub holders: Vec<Holder>,
    /// The pool it came from, if from any.
    pub pool: Option<Scope>,
    /// The uids of those who asked for this very address. Others were given it, and may be given another.
    pub pinned: BTreeSet<String>,
}

impl Claim {
    /// Reads an object; `None` if it is not ours or its name is no address.
    pub fn read(object: &IPAddress) -> Option<Self> {
        let metadata = &object.metadata;
        let labels = metadata.labels.as_ref()?;
        if labels.get(label::IP_ADDRESS_MANAGED_BY).map(String::as_str) != Some(label::BERTH) {
            return None;
        }
        let parent = &object.spec.as_ref()?.parent_ref;
        let annotations = metadata.annotations.as_ref();
        let annotated = |name: &str| annotations.and_then(|all| all.get(name));
        let created = metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let first = || {
            let uid = annotated(annotation::OWNER_UID).cloned().unwrap_or_default();
            let namespace = parent.namespace.clone().unwrap_or_default();
            let owner = Owner::new(kind(&parent.resource), namespace, &parent.name, uid);
            vec![Holder { owner, sharing: None, since: created }]
        };
        let listed = annotated(annotation::HOLDERS).and_then(|text| {
            let listed = read_holders(text);
            if listed.is_none() {
                let name = metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(
                    "IPAddress {name}: annotation `{}`: value {} is not accepted and passed over; accepted is \
                     what Berth writes there",
                    annotation::HOLDERS,
                    Quoted::of(text)
                );
            }
            listed
        });
        Some(Self {
            address: metadata.name.as_deref()?.parse().ok()?,
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            holders: listed.unwrap_or_else(first),
            pool: annotated(annotation::POOL).map(|name| Scope::of(name)),
            pinned: read_pinned(annotated(annotation::PINNED).map_or("", String::as_str)),
        })
    }

    /// Whether the owner asked for this very address.
    pub fn is_pinned(&self, owner: &Owner) -> bool {
        self.pinned.contains(&owner.uid)
    }

    /// What it says of one holder.
    pub fn holder(&self, owner: &Owner) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.owner == *owner)
    }

    /// Those who hold it, without one.
    pub fn others(&self, owner: &Owner) -> Vec<Holder> {
        self.holders.iter().filter(|holder| holder.owner != *owner).cloned().collect()
    }

    /// Whether the owner came to it later than to another.
    pub fn is_newer_than(&self, other: &Self, owner: &Owner) -> bool {
        let age = |claim: &Self| {
            let since = claim.holder(owner).map_or(0, |holder| holder.since);
            (since, claim.version.parse::<u64>().unwrap_or(0))
        };
        age(self) > age(other)
    }
}

/// The annotation `berth.dev/pinned`.
pub fn write_pinned(pinned: &BTreeSet<String>) -> String {
    pinned.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn read_pinned(text: &str) -> BTreeSet<String> {
    text.split(',').filter(|uid| !uid.is_empty()).map(str::to_owned).collect()
}

/// How an address came to be its owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// It was given out.
    Given,
    /// The owner asked for this very address.
    Pinned,
    /// Its status showed it before there was a claim.
    Imported,
}

/// The object that claims an address.
pub fn object(address: IpAddr, owner: &Owner, pool: Option<&Scope>, basis: Basis) -> IPAddress {
    let (group, resource) = match owner.kind {
        OwnerKind::Service => ("", "services"),
        OwnerKind::EipBinding => ("berth.dev", "eipbindings"),
        OwnerKind::VipProxy => ("berth.dev", "vipproxies"),
    };
    let pool = pool.map(|scope| (annotation::POOL.to_owned(), scope.name().to_owned()));
    let basis = match basis {
        Basis::Given => None,
        Basis::Pinned => Some((annotation::PINNED.to_owned(), owner.uid.clone())),
        Basis::Imported => Some((annotation::IMPORTED.to_owned(), "true".to_owned())),
    };
    let uid = (annotation::OWNER_UID.to_owned(), owner.uid.clone());
    IPAddress {
        metadata: ObjectMeta {
            // Rust writes IPv6 as RFC 5952 asks, which is the only form that the API server takes as a name.
            name: Some(address.to_string()),
            labels: Some(
                [(label::IP_ADDRESS_MANAGED_BY.to_owned(), label::BERTH.to_owned())].into(),
            ),
            annotations: Some([uid].into_iter().chain(pool).chain(basis).collect()),
            ..Default::default()
        },
        spec: Some(IPAddressSpec {
            parent_ref: ParentReference {
                group: Some(group.to_owned()),
                resource: resource.to_owned(),
                namespace: Some(owner.namespace.clone()),
                name: owner.name.clone(),
            },
        }),
    }
}

fn kind(resource: &str) -> OwnerKind {
    match resource {
        "eipbindings" => OwnerKind::EipBinding,
        "vipproxies" => OwnerKind::VipProxy,
        _ => OwnerKind::Service,
    }
}

/// The annotation `berth.dev/holders`: a JSON list of the Services that share an address.
pub fn write_holders(holders: &[Holder]) -> String {
    let written = holders.iter().map(|holder| {
        let sharing = holder.sharing.clone().unwrap_or_default();
        WrittenHolder {
            namespace: holder.owner.namespace.clone(),
            name: holder.owner.name.clone(),
            uid: holder.owner.uid.clone(),
            since: holder.since,
            policy: match sharing.policy {
                TrafficPolicy::Cluster => WrittenPolicy::Cluster,
                TrafficPolicy::Local => WrittenPolicy::Local,
            },
            ports: sharing
                .ports
                .iter()
                .map(|(protocol, port)| format!("{protocol}/{port}"))
                .collect(),
        }
    });
    serde_json::to_string(&written.collect::<Vec<_>>()).unwrap_or_default()
}

/// Reads it; `None` if it is not what [`write_holders`] writes, or empty.
fn read_holders(text: &str) -> Option<Vec<Holder>> {
    let holders = claim::read_holders(text)?.into_iter().map(|written| {
        let ports = written.ports.iter().map(|port| {
            let (protocol, port) = port.split_once('/')?;
            Some((protocol.parse::<Protocol>().ok()?, port.parse().ok()?))
        });
        let policy = match written.policy {
            WrittenPolicy::Cluster => TrafficPolicy::Cluster,
            WrittenPolicy::Local => TrafficPolicy::Local,
        };
        let sharing = Sharing { ports: ports.collect::<Option<_>>()?, policy };
        Some(Holder {
            owner: Owner::new(OwnerKind::Service, written.namespace, written.name, written.uid),
            sharing: Some(sharing),
            since: written.since,
        })
    });
    holders.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_reads_back_as_it_was_written() {
        let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
        let address: IpAddr = "2001:DB8:0:0::1".parse().unwrap();
        let made = object(address, &owner, Some(&Scope::Global), Basis::Pinned);
        assert_eq!(made.metadata.name.as_deref(), Some("2001:db8::1"));
        let claim = Claim::read(&made).unwrap();
        assert_eq!((claim.address, &claim.pool), (address, &Some(Scope::Global)));
        assert!(claim.is_pinned(&owner));
        let given = Claim::read(&object(address, &owner, None, Basis::Given)).unwrap();
        assert!(!given.is_pinned(&owner));
        let marked = |basis| claim::is_imported(&object(address, &owner, None, basis));
        assert!(marked(Basis::Imported) && !marked(Basis::Pinned) && !marked(Basis::Given));
        assert_eq!(claim.holders, [Holder { owner, sharing: None, since: 0 }]);
    }

    #[test]
    fn the_holders_of_a_shared_address_read_back_as_they_were_written() {
        let holder = |name: &str, ports: &[(Protocol, u16)], policy| Holder {
            owner: Owner::new(OwnerKind::Service, "shop", name, format!("uid of {name}")),
            sharing: Some(Sharing { ports: ports.iter().copied().collect(), policy }),
            since: 1_790_000_000,
        };
        let holders = [
            holder("web", &[(Protocol::Tcp, 80), (Protocol::Udp, 80)], TrafficPolicy::Cluster),
            holder("dns", &[(Protocol::Sctp, 53)], TrafficPolicy::Local),
        ];
        assert_eq!(read_holders(&write_holders(&holders)).unwrap(), holders);
    }

    #[test]
    fn a_list_of_holders_that_cannot_be_read_leaves_the_one_who_made_the_claim() {
        let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
        for text in [
            "",
            "[]",
            "{}",
            r#"[{"name":"x"}]"#,
            r#"[{"namespace":"a","name":"b","uid":"c","since":0,"ports":["TCP"]}]"#,
        ] {
            let mut made = object("10.0.0.1".parse().unwrap(), &owner, None, Basis::Given);
            made.metadata
                .annotations
                .as_mut()
                .unwrap()
                .insert(annotation::HOLDERS.to_owned(), text.to_owned());
            let claim = Claim::read(&made).unwrap();
            assert_eq!(
                claim.holders,
                [Holder { owner: owner.clone(), sharing: None, since: 0 }],
                "{text}"
            );
        }
    }

    #[test]
    fn the_addresses_of_others_are_none_of_our_claims() {
        let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
        let mut made = object("10.96.0.1".parse().unwrap(), &owner, None, Basis::Given);
        let labels = [(label::IP_ADDRESS_MANAGED_BY.to_owned(), "ipallocator.k8s.io".to_owned())];
        made.metadata.labels = Some(labels.into());
        assert_eq!(Claim::read(&made), None);
    }
}
