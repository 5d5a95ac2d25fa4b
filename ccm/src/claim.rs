//! Owns the form of a claim: an `IPAddress` (networking.k8s.io/v1) that is named by the address. Creating one is the
//! only way to get an address, and the API server lets only one be created.

use std::net::IpAddr;

use berth_api::names::{annotation, label};
use berth_ipam::{Owner, OwnerKind, Scope};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A claim as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: i64,
    /// Who holds the address.
    pub owner: Owner,
    /// The pool it came from, if from any.
    pub pool: Option<Scope>,
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
        let annotated = |name: &str| annotations.and_then(|all| all.get(name)).cloned();
        let uid = annotated(annotation::OWNER_UID).unwrap_or_default();
        let namespace = parent.namespace.clone().unwrap_or_default();
        Some(Self {
            address: metadata.name.as_deref()?.parse().ok()?,
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            owner: Owner::new(kind(&parent.resource), namespace, &parent.name, uid),
            pool: annotated(annotation::POOL).map(|name| Scope::of(&name)),
        })
    }

    /// Whether it was made after another.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let age = |claim: &Self| (claim.created, claim.version.parse::<u64>().unwrap_or(0));
        age(self) > age(other)
    }
}

/// The object that claims an address.
pub fn object(address: IpAddr, owner: &Owner, pool: Option<&Scope>) -> IPAddress {
    let (group, resource) = match owner.kind {
        OwnerKind::Service => ("", "services"),
        OwnerKind::EipBinding => ("berth.dev", "eipbindings"),
        OwnerKind::VipProxy => ("berth.dev", "vipproxies"),
    };
    let pool = pool.map(|scope| (annotation::POOL.to_owned(), scope.name().to_owned()));
    let uid = (annotation::OWNER_UID.to_owned(), owner.uid.clone());
    IPAddress {
        metadata: ObjectMeta {
            // Rust writes IPv6 as RFC 5952 asks, which is the only form that the API server takes as a name.
            name: Some(address.to_string()),
            labels: Some(
                [(label::IP_ADDRESS_MANAGED_BY.to_owned(), label::BERTH.to_owned())].into(),
            ),
            annotations: Some([uid].into_iter().chain(pool).collect()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_reads_back_as_it_was_written() {
        let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
        let address: IpAddr = "2001:DB8:0:0::1".parse().unwrap();
        let made = object(address, &owner, Some(&Scope::Global));
        assert_eq!(made.metadata.name.as_deref(), Some("2001:db8::1"));
        let claim = Claim::read(&made).unwrap();
        assert_eq!(
            (claim.address, &claim.owner, claim.pool),
            (address, &owner, Some(Scope::Global))
        );
    }

    #[test]
    fn the_addresses_of_others_are_none_of_our_claims() {
        let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
        let mut made = object("10.96.0.1".parse().unwrap(), &owner, None);
        let labels = [(label::IP_ADDRESS_MANAGED_BY.to_owned(), "ipallocator.k8s.io".to_owned())];
        made.metadata.labels = Some(labels.into());
        assert_eq!(Claim::read(&made), None);
    }
}
