//! Virtual machines as Kubernetes sees them: a real `VirtualMachineInstance` whose status a test writes as KubeVirt
//! does, and the EipBinding of one. The field names are those of kubevirt.io/api/core/v1.

use std::net::IpAddr;

use anyhow::{Context, Result};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::world::{eventually, kubectl, repository};

const CRD: &str = "virtualmachineinstances.kubevirt.io";
const TIME: &str = "2026-01-01T00:00:00Z";

/// Makes the cluster know virtual machines.
pub fn install_kubevirt(lab: &Lab) -> Result<()> {
    let file = repository().join("e2e/kubevirt/virtualmachineinstances.yaml");
    kubectl(lab, &["apply", "-f", &file.display().to_string()])?;
    let crd = format!("crd/{CRD}");
    kubectl(lab, &["wait", "--for=condition=Established", &crd, "--timeout=30s"]).map(drop)
}

/// Makes it forget them, with all that there are.
pub fn remove_kubevirt(lab: &Lab) -> Result<()> {
    kubectl(lab, &["delete", "crd", CRD, "--timeout=30s"]).map(drop)
}

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Vm {
    api: Api<DynamicObject>,
    name: String,
}

impl Vm {
    /// One that somebody else has made, or will make.
    pub fn named(client: &Client, namespace: &str, name: &str) -> Self {
        let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstance");
        let resource = ApiResource::from_gvk_with_plural(&kind, "virtualmachineinstances");
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        Self { api, name: name.to_owned() }
    }

    /// Makes the object as a user does. It runs nowhere yet.
    pub async fn create(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let vm = Self::named(client, namespace, name);
        let object = json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": { "name": name },
            "spec": { "domain": { "devices": {} } },
        });
        vm.api
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await
            .with_context(|| format!("create VirtualMachineInstance {name}"))?;
        Ok(vm)
    }

    /// It runs on a node and its first interface has these addresses: from `Pending` over `Scheduled` to `Running`.
    pub async fn start(&self, node: &str, addresses: &[IpAddr]) -> Result<()> {
        self.status(json!({ "phase": "Pending" })).await?;
        self.status(json!({ "phase": "Scheduling" })).await?;
        self.status(json!({ "phase": "Scheduled", "nodeName": node })).await?;
        self.status(json!({ "phase": "Running", "interfaces": interfaces(addresses) })).await
    }

    /// Its interface has other addresses now.
    pub async fn readdress(&self, addresses: &[IpAddr]) -> Result<()> {
        self.status(json!({ "interfaces": interfaces(addresses) })).await
    }

    /// Its only interface is on another network than that of pods, and its guest agent tells these addresses.
    pub async fn tell(&self, addresses: &[IpAddr]) -> Result<()> {
        let mut interfaces = interfaces(addresses);
        interfaces[0]["name"] = json!("lan");
        self.status(json!({ "interfaces": interfaces })).await
    }

    /// Its migration begins: the source copies.
    pub async fn begin_migration(&self, from: &str, to: &str) -> Result<()> {
        let state = json!({
            "migrationUid": format!("{}-{to}", self.name),
            "sourceNode": from,
            "targetNode": to,
            "targetNodeAddress": "192.0.2.1:49152",
            "startTimestamp": TIME,
        });
        // A new migration replaces all that is known of the last one.
        self.status(json!({ "migrationState": null })).await?;
        self.status(json!({ "migrationState": state })).await
    }

    /// The target sees the guest at work; the source has not handed over yet.
    pub async fn target_is_ready(&self) -> Result<()> {
        let state =
            json!({ "targetNodeDomainDetected": true, "targetNodeDomainReadyTimestamp": TIME });
        self.status(json!({ "migrationState": state })).await
    }

    /// The source hands over: `nodeName` changes and the interfaces are empty until the target has filled them.
    pub async fn hand_over(&self, to: &str) -> Result<()> {
        let state = json!({ "completed": true, "endTimestamp": TIME });
        self.status(json!({ "nodeName": to, "interfaces": [], "migrationState": state })).await
    }

    /// The migration fails: the guest goes on where it was.
    pub async fn fail_migration(&self) -> Result<()> {
        let state = json!({ "failed": true, "completed": true, "endTimestamp": TIME });
        self.status(json!({ "migrationState": state })).await
    }

    /// The migration is aborted at its user's wish.
    pub async fn abort_migration(&self) -> Result<()> {
        self.status(
            json!({ "migrationState": { "abortRequested": true, "abortStatus": "Aborting" } }),
        )
        .await?;
        let state = json!({ "abortStatus": "Succeeded", "failed": true, "endTimestamp": TIME });
        self.status(json!({ "migrationState": state })).await
    }

    /// A whole migration, with the addresses that the machine has afterwards.
    pub async fn migrate(&self, from: &str, to: &str, addresses: &[IpAddr]) -> Result<()> {
        self.begin_migration(from, to).await?;
        self.target_is_ready().await?;
        self.hand_over(to).await?;
        self.readdress(addresses).await
    }

    /// The guest shuts itself down; the object stays.
    pub async fn shut_down(&self) -> Result<()> {
        self.status(json!({ "phase": "Succeeded", "interfaces": [] })).await
    }

    /// The object goes.
    pub async fn delete(&self) -> Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn status(&self, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": status }));
        // The object has no subresource `status`.
        self.api.patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn interfaces(addresses: &[IpAddr]) -> Value {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    json!([{
        "name": "default",
        "interfaceName": "eth0",
        "mac": "02:00:00:00:00:01",
        "ipAddress": texts.first(),
        "ipAddresses": texts,
        "infoSource": "domain, guest-agent",
    }])
}

/// The EipBindings of a namespace.
#[derive(Clone, Debug)]
pub struct Eips(Api<DynamicObject>);

impl Eips {
    /// Those of this namespace.
    pub fn of(client: &Client, namespace: &str) -> Self {
        let kind = GroupVersionKind::gvk("berth.dev", "v1alpha1", "EipBinding");
        let resource = ApiResource::from_gvk_with_plural(&kind, "eipbindings");
        Self(Api::namespaced_with(client.clone(), namespace, &resource))
    }

    /// Makes one with this spec.
    ///
    /// # Errors
    /// What the API server has against it.
    pub async fn create(&self, name: &str, spec: Value) -> Result<(), kube::Error> {
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "EipBinding",
            "metadata": { "name": name },
            "spec": spec,
        });
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.0.create(&PostParams::default(), &object).await.map(drop)
    }

    /// Changes its spec.
    pub async fn patch(&self, name: &str, spec: Value) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.0.patch(name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Deletes it.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Its status; null for one that has none yet.
    pub async fn status(&self, name: &str) -> Result<Value> {
        Ok(self.0.get(name).await?.data["status"].clone())
    }

    /// Whether there is one, also one on its way out.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.0.get_opt(name).await?.is_some())
    }

    /// All names.
    pub async fn names(&self) -> Result<Vec<String>> {
        let all = self.0.list(&Default::default()).await?;
        Ok(all.iter().map(ResourceExt::name_any).collect())
    }

    /// Waits until the status is as wanted, and returns it.
    pub async fn shows(
        &self,
        name: &str,
        what: &str,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("EipBinding {name}: {what}");
        let shown = eventually(&what, 15, || async {
            let status = self.status(name).await?;
            Ok(is_wanted(&status).then_some(status))
        });
        match shown.await {
            Ok(status) => Ok(status),
            Err(error) => {
                let status = self.status(name).await.unwrap_or_default();
                Err(error.context(format!("its status is {status:#}")))
            }
        }
    }

    /// Says what the announcer of a node says when it has carried out what the status names, or with none that it has
    /// let go.
    pub async fn obey(&self, name: &str, node: Option<&str>) -> Result<()> {
        let epoch = self.status(name).await?["epoch"].clone();
        let holder = node.map(|node| json!({ "node": node, "epoch": epoch }));
        let patch = Patch::Merge(json!({ "status": { "holder": holder } }));
        self.0.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// The reason of a condition in a status.
pub fn reason(status: &Value, kind: &str) -> String {
    condition(status, kind)["reason"].as_str().unwrap_or_default().to_owned()
}

/// Whether a condition in a status is true.
pub fn holds(status: &Value, kind: &str) -> bool {
    condition(status, kind)["status"] == "True"
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}
