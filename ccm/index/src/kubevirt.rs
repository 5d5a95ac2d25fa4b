//! Owns what is read of a `VirtualMachineInstance` (kubevirt.io/v1): the few fields of its status that say where the
//! machine runs and by which addresses it is reached, and which of its networks is that of pods. The names are those of
//! `VirtualMachineInstanceStatus` in kubevirt.io/api/core/v1/types.go.

use std::borrow::Cow;
use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_api::limits::name_of;
use berth_ipam::Range;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube_core::{NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

/// The most interfaces of a machine that are looked at, and the most addresses of one: a guest agent tells of both.
const MOST_INTERFACES: usize = 256;
const MOST_ADDRESSES: usize = 64;

/// The object, as far as it is read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VirtualMachineInstance {
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// `spec`.
    pub spec: Option<Spec>,
    /// `status`.
    pub status: Option<Status>,
}

/// `spec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    networks: Option<Vec<Network>>,
    domain: Option<Domain>,
}

/// `spec.domain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Domain {
    devices: Option<Devices>,
}

/// `spec.domain.devices`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Devices {
    interfaces: Option<Vec<Device>>,
}

/// `spec.domain.devices.interfaces[]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Device {
    name: Option<String>,
    masquerade: Option<Masquerade>,
}

/// `masquerade`: that the pod stands in front of the guest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Masquerade {}

/// `spec.networks[]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Network {
    name: Option<String>,
    pod: Option<PodNetwork>,
}

/// `spec.networks[].pod`: that it is the network of pods.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct PodNetwork {
    /// The networks between pod and guest.
    #[serde(rename = "vmNetworkCIDR")]
    inner: Option<String>,
    #[serde(rename = "vmIPv6NetworkCIDR")]
    inner_v6: Option<String>,
}

/// What they are where the spec says nothing (`DefaultVMCIDR` and `DefaultVMIpv6CIDR` in
/// kubevirt.io/kubevirt/pkg/network/link/address.go, kubevirt.io/api/core/v1/defaults).
const INNER: [&str; 2] = ["10.0.2.0/24", "fd10:0:2::/120"];

/// `status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    node_name: Option<String>,
    phase: Option<String>,
    interfaces: Option<Vec<InterfaceStatus>>,
    migration_state: Option<MigrationState>,
}

/// `status.interfaces[]`, a `VirtualMachineInstanceNetworkInterface`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct InterfaceStatus {
    name: Option<String>,
    /// The first of the addresses.
    ip_address: Option<String>,
    /// All of them, link-local ones too where a guest agent tells.
    ip_addresses: Option<Vec<String>>,
    /// Who tells of it, as a comma list: `domain`, `guest-agent`, `multus-status`.
    info_source: Option<String>,
}

/// `status.migrationState`, a `VirtualMachineInstanceMigrationState`. It stays there when the migration is over, until
/// the next one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MigrationState {
    source_node: Option<String>,
    target_node: Option<String>,
    target_node_domain_ready_timestamp: Option<Time>,
    completed: Option<bool>,
    failed: Option<bool>,
    /// `Succeeded`, `Failed` or `Aborting`.
    abort_status: Option<String>,
}

impl Resource for VirtualMachineInstance {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "VirtualMachineInstance".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "kubevirt.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "virtualmachineinstances".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A virtual machine: only what decides about its elastic IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmi {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`: it tells a machine from one that was started later under its name.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `status.phase`, which is empty on an object that is new.
    pub phase: String,
    /// The node on which the guest is at work, if on any.
    pub node: Option<String>,
    /// The node on which it may go on at any moment: a migration to it is under way.
    pub target: Option<String>,
    /// Its interfaces, in the order of the status.
    pub interfaces: Vec<Interface>,
}

/// One interface of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The name of the network in the machine's spec; empty for one that only the guest knows.
    pub name: String,
    /// Where its addresses come from.
    pub origin: Origin,
    /// Its addresses by which others can reach it: no link-local ones.
    pub addresses: Vec<IpAddr>,
    /// Those of them that are the guest's behind its pod, which every guest has: nobody reaches it there.
    pub inner: Vec<IpAddr>,
}

/// Where the addresses of an interface come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Whether it is on the network of pods. Of a family of which the pod has an address KubeVirt shows that, whatever a
    /// guest agent tells (kubevirt/kubevirt pull 10799).
    pub on_pods: bool,
    /// Whether a guest agent may have told them: one is named among the sources, or none at all.
    pub by_guest: bool,
}

impl Origin {
    /// Whether KubeVirt may vouch for the addresses.
    pub fn may_vouch(self) -> bool {
        self.on_pods || !self.by_guest
    }
}

impl Vmi {
    /// Reads an object; `None` if it has no name, as none from an API server.
    pub fn read(object: &VirtualMachineInstance) -> Option<Self> {
        let metadata = &object.metadata;
        let empty = Status::default();
        let status = object.status.as_ref().unwrap_or(&empty);
        let networks = object.spec.as_ref().and_then(|spec| spec.networks.as_deref());
        let interfaces = status.interfaces.iter().flatten().take(MOST_INTERFACES).map(|shown| {
            let name = shown.name.as_deref().unwrap_or_default();
            let addresses = addresses(shown);
            let inner = object.spec.as_ref().map(|spec| inner(name, spec)).unwrap_or_default();
            Interface {
                inner: inner.into_iter().filter(|own| addresses.contains(own)).collect(),
                name: name_of(name).to_owned(),
                origin: Origin {
                    on_pods: is_of_pods(name, networks),
                    by_guest: is_by_guest(shown),
                },
                addresses,
            }
        });
        Some(Self {
            key: NamespacedName::read(metadata)?,
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            phase: name_of(status.phase.as_deref().unwrap_or_default()).to_owned(),
            node: running_on(status).map(str::to_owned),
            target: migrating_to(status).map(str::to_owned),
            interfaces: interfaces.collect(),
        })
    }

    /// Whether all that was read is the same, whatever else has changed in the object.
    pub fn is_like(&self, other: &Self) -> bool {
        let version = other.version.clone();
        Self { version, ..self.clone() } == *other
    }
}

/// The node on which the guest is at work.
///
/// A migration makes the guest go on at the target while `nodeName` still is the source: from the moment at which the
/// target's virt-handler sees the domain active (`targetNodeDomainReadyTimestamp`) to the one at which the source's
/// hands the object over (`completed`, and `nodeName` with it). A migration that failed or was aborted counts for
/// nothing, and so does one of which the guest has long moved on, whose state the object still shows.
fn running_on(status: &Status) -> Option<&str> {
    // `Unknown` means that virt-handler does not answer: the guest is where it was, and nowhere else.
    if !matches!(status.phase.as_deref(), Some("Running" | "Unknown")) {
        return None;
    }
    let node = some(&status.node_name)?;
    let Some(migration) = &status.migration_state else { return Some(node) };
    let is_off =
        migration.failed == Some(true) || migration.abort_status.as_deref() == Some("Succeeded");
    let is_ready =
        migration.target_node_domain_ready_timestamp.is_some() || migration.completed == Some(true);
    let is_from_here = some(&migration.source_node) == Some(node);
    match some(&migration.target_node) {
        Some(target) if is_ready && is_from_here && !is_off => Some(target),
        _ => Some(node),
    }
}

/// The node to which a migration is under way, while the guest is where it was. virt-controller names it before the copy
/// begins. Nobody can tell the moment at which the guest goes on there: the target's virt-handler sees it afterwards.
fn migrating_to(status: &Status) -> Option<&str> {
    let node = running_on(status)?;
    let migration = status.migration_state.as_ref()?;
    let is_over = migration.completed == Some(true)
        || migration.failed == Some(true)
        || migration.abort_status.as_deref() == Some("Succeeded");
    let is_from_here = some(&migration.source_node) == Some(node);
    some(&migration.target_node).filter(|target| is_from_here && !is_over && *target != node)
}

fn some(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Whether the network of this name is that of pods. Where the spec names none, it is the one that KubeVirt makes.
fn is_of_pods(name: &str, networks: Option<&[Network]>) -> bool {
    let Some(networks) = networks else { return name == "default" };
    let mut networks = networks.iter().take(MOST_INTERFACES);
    networks.any(|network| network.pod.is_some() && network.name.as_deref() == Some(name))
}

/// What the guest has behind its pod on the network of this name, where that is the network of pods and the pod stands in
/// front of it: the second host of each of the networks between them.
fn inner(name: &str, spec: &Spec) -> Vec<IpAddr> {
    let networks = spec.networks.as_deref();
    let devices = spec.domain.as_ref().and_then(|domain| domain.devices.as_ref());
    let mut devices = devices.iter().flat_map(|devices| devices.interfaces.iter().flatten());
    let device = devices.find(|device| device.name.as_deref() == Some(name));
    if !is_of_pods(name, networks) || device.is_some_and(|device| device.masquerade.is_none()) {
        return Vec::new();
    }
    let mut named = networks.into_iter().flatten().take(MOST_INTERFACES);
    let pod = named.find(|network| network.name.as_deref() == Some(name));
    let pod = pod.and_then(|network| network.pod.as_ref());
    let asked =
        [pod.and_then(|pod| pod.inner.as_deref()), pod.and_then(|pod| pod.inner_v6.as_deref())];
    let networks = asked.into_iter().zip(INNER).map(|(asked, default)| asked.unwrap_or(default));
    let guests = networks.filter_map(|text| {
        Some(match text.parse::<Range>().ok()?.first() {
            IpAddr::V4(first) => IpAddr::from((u32::from(first).checked_add(2)?).to_be_bytes()),
            IpAddr::V6(first) => IpAddr::from((u128::from(first).checked_add(2)?).to_be_bytes()),
        })
    });
    guests.collect()
}

fn is_by_guest(shown: &InterfaceStatus) -> bool {
    let mut sources = shown.info_source.iter().flat_map(|sources| sources.split(','));
    shown.info_source.is_none() || sources.any(|source| source.trim() == "guest-agent")
}

fn addresses(shown: &InterfaceStatus) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let listed = shown.ip_address.iter().chain(shown.ip_addresses.iter().flatten());
    let listed = listed.take(MOST_ADDRESSES);
    // A guest agent may tell the length of the prefix too.
    let texts =
        listed.map(|text| text.split_once('/').map_or(text.as_str(), |(address, _)| address));
    for address in texts.filter_map(|text| text.parse().ok()).filter(is_reachable) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn is_reachable(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn vmi(status: Value) -> Vmi {
        let object = json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": { "namespace": "shop", "name": "vm", "uid": "u", "resourceVersion": "1" },
            "spec": { "domain": {} },
            "status": status,
        });
        Vmi::read(&from_value(object).unwrap()).unwrap()
    }

    fn node(migration: Value) -> Option<String> {
        vmi(json!({ "phase": "Running", "nodeName": "a", "migrationState": migration })).node
    }

    const READY: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn a_machine_is_where_its_guest_is_at_work() {
        let going = json!({ "sourceNode": "a", "targetNode": "b", "startTimestamp": READY });
        let with = |more: Value| {
            let mut state = going.clone();
            state.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            node(state)
        };
        assert_eq!(node(Value::Null).as_deref(), Some("a"));
        assert_eq!(with(json!({})).as_deref(), Some("a"), "the copy has only begun");
        assert_eq!(with(json!({ "targetNodeDomainDetected": true })).as_deref(), Some("a"));
        let ready = json!({ "targetNodeDomainReadyTimestamp": READY });
        assert_eq!(with(ready.clone()).as_deref(), Some("b"));
        assert_eq!(with(json!({ "completed": true })).as_deref(), Some("b"));
        for off in [json!({ "failed": true }), json!({ "abortStatus": "Succeeded" })] {
            assert_eq!(with(off.clone()).as_deref(), Some("a"), "{off}");
            let mut late = ready.clone();
            late.as_object_mut().unwrap().extend(off.as_object().unwrap().clone());
            assert_eq!(with(late).as_deref(), Some("a"), "{off} after it was ready");
        }
        assert_eq!(with(json!({ "abortStatus": "Aborting" })).as_deref(), Some("a"));
    }

    #[test]
    fn the_target_is_known_from_the_start_of_a_migration_until_it_ends_one_way_or_another() {
        let with = |more: Value| {
            let mut state = json!({ "sourceNode": "a", "targetNode": "b" });
            state.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            vmi(json!({ "phase": "Running", "nodeName": "a", "migrationState": state })).target
        };
        assert_eq!(with(json!({})).as_deref(), Some("b"));
        assert_eq!(with(json!({ "targetNodeDomainDetected": true })).as_deref(), Some("b"));
        assert_eq!(with(json!({ "abortRequested": true })).as_deref(), Some("b"), "it may be late");
        for over in [
            json!({ "targetNodeDomainReadyTimestamp": READY }),
            json!({ "completed": true }),
            json!({ "failed": true }),
            json!({ "abortStatus": "Succeeded" }),
        ] {
            assert_eq!(with(over.clone()), None, "{over}");
        }
        assert_eq!(with(json!({ "sourceNode": "c" })), None, "a migration of the past");
        assert_eq!(with(json!({ "targetNode": "a" })), None);
    }

    #[test]
    fn a_migration_of_the_past_moves_nothing() {
        let past = json!({ "sourceNode": "c", "targetNode": "a", "completed": true });
        assert_eq!(node(past).as_deref(), Some("a"));
        let elsewhere = json!({ "sourceNode": "b", "targetNode": "c", "completed": true });
        assert_eq!(node(elsewhere).as_deref(), Some("a"));
        assert_eq!(
            node(json!({ "sourceNode": "a", "targetNode": "", "completed": true })).as_deref(),
            Some("a")
        );
    }

    #[test]
    fn a_machine_that_is_not_at_work_is_nowhere() {
        for phase in ["", "Pending", "Scheduling", "Scheduled", "Succeeded", "Failed"] {
            assert_eq!(vmi(json!({ "phase": phase, "nodeName": "a" })).node, None, "{phase}");
        }
        assert_eq!(vmi(json!({ "phase": "Unknown", "nodeName": "a" })).node.as_deref(), Some("a"));
        assert_eq!(vmi(json!({ "phase": "Running" })).node, None);
        assert_eq!(vmi(Value::Null).node, None);
    }

    #[test]
    fn where_addresses_come_from_is_read() {
        let object = json!({
            "metadata": { "namespace": "shop", "name": "vm" },
            "spec": { "networks": [
                { "name": "main", "pod": { "vmNetworkCIDR": "10.0.2.0/24" } },
                { "name": "lan", "multus": { "networkName": "lan" } },
            ] },
            "status": { "interfaces": [
                { "name": "main", "infoSource": "domain, guest-agent" },
                { "name": "lan", "infoSource": "domain, multus-status" },
                { "name": "default" },
                { "infoSource": "guest-agent" },
            ] },
        });
        let read = Vmi::read(&from_value(object).unwrap()).unwrap();
        let origins: Vec<_> = read.interfaces.iter().map(|interface| interface.origin).collect();
        let origin = |on_pods, by_guest| Origin { on_pods, by_guest };
        let [pods, vouched, guest] =
            [origin(true, true), origin(false, false), origin(false, true)];
        assert_eq!(origins, [pods, vouched, guest, guest]);
        let plain = vmi(json!({ "interfaces": [{ "name": "default", "infoSource": "domain" }] }));
        assert_eq!(plain.interfaces[0].origin, origin(true, false), "KubeVirt's own network");
    }

    #[test]
    fn what_every_guest_has_behind_its_pod_is_known() {
        let read = |networks: Value, devices: Value| {
            let object = json!({
                "metadata": { "namespace": "shop", "name": "vm" },
                "spec": { "networks": networks, "domain": { "devices": { "interfaces": devices } } },
                "status": { "interfaces": [
                    { "name": "default", "ipAddresses": ["10.0.2.2", "10.0.2.3", "fd10:0:2::2", "10.9.9.2"] },
                    { "name": "lan", "ipAddresses": ["10.0.2.2"] },
                ] },
            });
            let read = Vmi::read(&from_value(object).unwrap()).unwrap();
            let inner = read.interfaces.iter().map(|interface| format!("{:?}", interface.inner));
            inner.collect::<Vec<_>>().join(" ")
        };
        let masquerade = json!([{ "name": "default", "masquerade": {} }]);
        let bridge = json!([{ "name": "default", "bridge": {} }]);
        let of_pods = json!([{ "name": "default", "pod": {} }, { "name": "lan", "multus": {} }]);
        assert_eq!(read(of_pods.clone(), masquerade.clone()), "[10.0.2.2, fd10:0:2::2] []");
        assert_eq!(read(of_pods.clone(), Value::Null), "[10.0.2.2, fd10:0:2::2] []");
        assert_eq!(read(of_pods, bridge), "[] []");
        let other = json!([{ "name": "default", "pod": { "vmNetworkCIDR": "10.9.9.0/24" } }]);
        assert_eq!(read(other, masquerade.clone()), "[10.9.9.2, fd10:0:2::2] []");
        let last = json!([{ "name": "default", "pod": { "vmNetworkCIDR": "255.255.255.255/32" } }]);
        assert_eq!(read(last, masquerade), "[fd10:0:2::2] []");
    }

    #[test]
    fn addresses_that_nobody_else_can_reach_are_left_out() {
        let read = vmi(json!({ "interfaces": [
            { "name": "default", "ipAddress": "10.244.1.5", "ipAddresses": ["10.244.1.5", "fe80::1", "fd00::5"] },
            { "interfaceName": "docker0", "ipAddress": "172.17.0.1/16" },
            { "name": "bare" },
        ] }));
        let shown: Vec<_> = read
            .interfaces
            .iter()
            .map(|interface| format!("{}: {:?}", interface.name, interface.addresses))
            .collect();
        assert_eq!(shown, ["default: [10.244.1.5, fd00::5]", ": [172.17.0.1]", "bare: []"]);
    }
}
