//! Owns the form of an `EipBinding`: an address of its own for a virtual machine of KubeVirt, both ways.
//!
//! Each field of the status has one writer. berth-ccm decides: which addresses, which node, which addresses of the
//! machine, and counts each change of these in `epoch`. The announcer on that node obeys and says so in `holder` and in
//! the conditions `Bound` and `Announced`. Nobody else is asked.
#![expect(unreachable_pub, reason = "KubeSchema derives a second struct inside a function")]

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube_derive::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Family;
use crate::conflict::{Conflicts, Mac, MacText};
use crate::limits::MOST_SHOWN;

/// What is asked for.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "EipBinding",
    plural = "eipbindings",
    shortname = "eip",
    namespaced,
    derive = "PartialEq",
    status = "EipBindingStatus",
    doc = "A public address for a KubeVirt virtual machine: what comes to it goes to the machine, and what the machine sends comes from it.",
    printcolumn = r#"{"name":"EIP","type":"string","jsonPath":".status.eips"}"#,
    printcolumn = r#"{"name":"VMI","type":"string","jsonPath":".spec.vmi"}"#,
    printcolumn = r#"{"name":"NODE","type":"string","jsonPath":".status.node"}"#,
    printcolumn = r#"{"name":"READY","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"), validation = Rule::new(
    "!has(self.eip) || !has(self.families) || (size(self.families) == 1 && \
     (ip(self.eip).family() == 4) == (self.families[0] == 'IPv4'))"
).message("spec.families must name the family of spec.eip and no other"))]
pub struct EipBindingSpec {
    /// The `VirtualMachineInstance` (kubevirt.io/v1) in this namespace that the address is for. It need not exist yet.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.vmi cannot change: make another EipBinding for another machine"))]
    pub vmi: String,
    /// Ask for this address. Without it, one of the namespace's pool is given, or of the global pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    #[x_kube(validation = Rule::new("isIP(self) && ip.isCanonical(self)")
        .message("spec.eip must be an IPv4 address, or an IPv6 address as RFC 5952 writes it"))]
    pub eip: Option<String>,
    /// One address of each of these families: `IPv4`, `IPv6` or both. Default: that of `eip`, else `IPv4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub families: Option<Vec<Family>>,
    /// The name of an interface in the machine's `status.interfaces` whose addresses are meant. Default: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub interface: Option<String>,
    /// Whether the address stays allocated while there is no running machine.
    #[serde(default = "yes")]
    pub retain: bool,
}

/// What is so.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EipBindingStatus {
    /// Written by berth-ccm. The addresses given, at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub eips: Vec<String>,
    /// Written by berth-ccm. The node whose announcer is to hold them: where the machine runs. None: nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Written by berth-ccm. The node that the machine is migrating to, until `node` names it: its announcer translates
    /// what the machine sends, from the first packet on, and answers for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Written by berth-ccm. The machine's own address for each of `eips`, in the same order.
    #[serde(default, rename = "vmiIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub vmi_ips: Vec<String>,
    /// Written by berth-ccm. Grows with each change of `eips`, `node` and `vmiIPs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Written by berth-ccm. The `metadata.generation` that all of this follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Written by the announcer that answers for `eips`, and removed by it when it no longer does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<EipHolder>,
    /// Written by the announcer of `node`, while it is so. Those of `eips` that another host on the LAN answers for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub conflicts: Vec<EipConflict>,
    /// `Allocated` and `Ready` are berth-ccm's, `Bound` and `Announced` the announcer's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Who answers for an elastic IP.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EipHolder {
    /// The node.
    pub node: String,
    /// The `epoch` that it has carried out.
    pub epoch: i64,
}

/// An elastic IP that another host has.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EipConflict {
    /// The address.
    pub eip: String,
    /// The hardware address of that host: `02:00:00:00:00:0a`.
    pub mac: String,
}

impl EipConflict {
    /// Lists conflicts as the status has them.
    pub fn list(conflicts: &Conflicts) -> Vec<Self> {
        let listed = conflicts.iter();
        let entry = |(eip, mac): (IpAddr, Mac)| (eip.to_string(), MacText(mac).to_string());
        listed.map(entry).map(|(eip, mac)| Self { eip, mac }).collect()
    }
}

impl EipBindingStatus {
    /// The conflicts that it lists. What is no address, or no hardware address, is passed over.
    pub fn conflicts(&self) -> Conflicts {
        let read = |shown: &EipConflict| {
            Some((shown.eip.parse().ok()?, shown.mac.parse::<MacText>().ok()?.0))
        };
        self.conflicts.iter().take(MOST_SHOWN).filter_map(read).collect()
    }
}

/// Types of the conditions of an `EipBinding`.
pub mod condition {
    /// It has its addresses.
    pub const ALLOCATED: &str = "Allocated";
    /// The node has the addresses and their rules.
    pub const BOUND: &str = "Bound";
    /// The node answers for the addresses.
    pub const ANNOUNCED: &str = "Announced";
    /// The machine is reached by its addresses, as of the newest `epoch`.
    pub const READY: &str = "Ready";
}

/// Finalizers.
pub mod finalizer {
    /// Keeps an `EipBinding` until its addresses are given back.
    pub const RELEASE: &str = "berth.dev/eip";
}

fn yes() -> bool {
    true
}

/// `metav1.Condition`, one of each type.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": { "type": "string", "maxLength": 32768 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 }
            }
        }
    })
}

/// Field managers have room for so many bytes (`managedFields`, apimachinery's `ValidateFieldManager`).
const MANAGER: usize = 128;

/// How the announcer of a node signs what it writes into a status.
pub fn manager(node: &str) -> String {
    let whole = format!("berth-announcer-{node}");
    if whole.len() <= MANAGER {
        return whole;
    }
    // The name of a node may be longer than there is room for; what is cut off is told apart by its sum (FNV-1a).
    let sum = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // A status is an author's to fill where nobody holds it back: not every octet begins a letter.
    let mut ends = (0..=MANAGER - 17).rev();
    let end = ends.find(|end| whole.is_char_boundary(*end)).unwrap_or(0);
    format!("{}-{sum:016x}", &whole[..end])
}

/// Whether it is the announcer of this node who says the condition of this type in the status of a binding: a field belongs to
/// who applied it last.
pub fn says(metadata: &ObjectMeta, node: &str, kind: &str) -> bool {
    let manager = manager(node);
    let key = format!("k:{{\"type\":\"{kind}\"}}");
    metadata.managed_fields.iter().flatten().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let conditions = fields.map(|fields| &fields["f:status"]["f:conditions"]);
        entry.manager.as_deref() == Some(&manager)
            && entry.subresource.as_deref() == Some("status")
            && conditions.is_some_and(|conditions| conditions.get(&key).is_some())
    })
}

#[cfg(test)]
mod tests {
    use kube_core::CustomResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_is_structural_and_names_its_columns() {
        let crd = serde_json::to_value(EipBinding::crd()).unwrap();
        let version = &crd["spec"]["versions"][0];
        let columns: Vec<&str> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns, ["EIP", "VMI", "NODE", "READY", "AGE"]);
        assert_eq!(crd["spec"]["names"]["shortNames"], json!(["eip"]));
        assert_eq!(version["subresources"], json!({ "status": {} }));
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["required"], json!(["vmi"]));
        assert_eq!(spec["properties"]["retain"]["default"], json!(true));
        assert_eq!(spec["properties"]["families"]["x-kubernetes-list-type"], json!("set"));
    }

    #[test]
    fn conflicts_read_back_as_they_were_listed() {
        let conflicts =
            Conflicts::parse("192.0.2.1=02:00:00:00:00:0a,2001:db8::1=02:00:00:00:00:0b");
        let mut status =
            EipBindingStatus { conflicts: EipConflict::list(&conflicts), ..Default::default() };
        let shown = json!({ "eip": "192.0.2.1", "mac": "02:00:00:00:00:0a" });
        assert_eq!(serde_json::to_value(&status).unwrap()["conflicts"][0], shown);
        assert_eq!(status.conflicts(), conflicts);
        status.conflicts[0].mac = "nonsense".to_owned();
        assert_eq!(status.conflicts().to_string(), "2001:db8::1=02:00:00:00:00:0b");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let spec: EipBindingSpec = serde_json::from_value(json!({ "vmi": "vm" })).unwrap();
        assert!(spec.retain && spec.eip.is_none() && spec.families.is_none());
    }

    #[test]
    fn who_says_a_condition_is_who_applied_it_last() {
        let fields = |kind: &str| {
            let key = format!("k:{{\"type\":\"{kind}\"}}");
            json!({ "f:status": { "f:conditions": { key: { ".": {}, "f:type": {} } } } })
        };
        let metadata = serde_json::from_value(json!({ "managedFields": [
            { "manager": "berth-announcer-a", "subresource": "status", "fieldsV1": fields("Bound") },
            { "manager": "berth-announcer-b", "subresource": "status", "fieldsV1": fields("Announced") },
            { "manager": "berth-announcer-c", "fieldsV1": fields("Announced") },
        ] }))
        .unwrap();
        let by = ["a", "b", "c"].map(|node| says(&metadata, node, condition::ANNOUNCED));
        assert_eq!(by, [false, true, false]);
        assert!(!says(&ObjectMeta::default(), "b", condition::ANNOUNCED));
    }
}
