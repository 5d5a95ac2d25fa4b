//! `berth-ccm uninstall`: takes out of a cluster what holds it when both programs are gone. Their finalizers, by which a
//! Service, an EipBinding, a namespace with one of them and the CustomResourceDefinition would never go; what berth-ccm says
//! in conditions; claims; and Leases. Annotations and status stay: whoever announces next goes on from them.
//!
//! While a program runs it would be in its way, and the other way round: it changes nothing then.
//!
//! # Permissions
//!
//! `list` and `patch` on `services`, `services/status` and `eipbindings.berth.dev`; `list` and `delete` on
//! `ipaddresses.networking.k8s.io`; `list`, `patch` and `delete` on `leases.coordination.k8s.io` in one namespace.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_api::eip::{self, EipBinding};
use berth_api::host;
use berth_api::lean::Lean;
use berth_api::names::{condition, finalizer, label, lease};
use berth_index::claim::Claim;
use berth_index::finalizers::Finalizers;
use berth_runtime::watch::chain;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::writer::finalizer_patch;

/// How the program ends; scripts rely on it.
pub const EXIT_CODES: &str = "Exit code:\n  0  nothing of Berth holds anything in the cluster any more\n  \
    1  something could not be changed; each is named on standard error, and all else is done\n  \
    2  nothing was changed: a program of Berth still runs, or the cluster cannot be read";

/// For so long it is looked whether a program renews a Lease: an announcer does each 20 s.
const LISTEN: Duration = Duration::from_secs(25);

/// How often an object is read again that was changed meanwhile.
const TRIES: usize = 5;

/// What to take it out of.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster: a kubeconfig file, or `current` for that of kubectl
    #[arg(long, value_name = "KUBECONFIG", default_value = "current")]
    from: PathBuf,
    /// Namespace of the Leases
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    leases: String,
}

/// Does it, and ends as [`EXIT_CODES`] says.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let clearing = match begin(arguments).await {
        Ok(clearing) => clearing,
        Err(error) => {
            eprintln!("berth-ccm uninstall: {}", chain(error.as_ref()));
            return ExitCode::from(2);
        }
    };
    let Clearing { done, failed, .. } = clearing.clear().await;
    println!("{done}");
    failed.iter().for_each(|problem| eprintln!("berth-ccm uninstall: {problem}"));
    ExitCode::from(u8::from(!failed.is_empty()))
}

async fn begin(arguments: &Arguments) -> Result<Clearing> {
    let Arguments { from, leases } = arguments;
    let named = Some(from.as_path()).filter(|from| *from != Path::new("current"));
    let config = berth_runtime::client::configure(named).await?;
    let client = berth_runtime::client::connect(config)?;
    let (done, failed) = Default::default();
    let clearing = Clearing { client, leases: leases.clone(), done, failed };
    clearing.is_alone().await?;
    Ok(clearing)
}

/// What was taken out.
#[derive(Debug, Default)]
struct Done {
    services: usize,
    bindings: usize,
    claims: usize,
    leases: usize,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, bindings, claims, leases } = self;
        write!(
            f,
            "finalizers of {services} Services and {bindings} EipBindings taken off, {claims} claims and {leases} Leases deleted"
        )
    }
}

struct Clearing {
    client: Client,
    leases: String,
    done: Done,
    failed: Vec<String>,
}

impl Clearing {
    /// # Errors
    /// Where a program renews a Lease, or Leases cannot be listed.
    async fn is_alone(&self) -> Result<()> {
        let before = self.renewals().await?;
        if before.is_empty() {
            return Ok(());
        }
        eprintln!("looking for {} s whether a program of Berth still runs", LISTEN.as_secs());
        tokio::time::sleep(LISTEN).await;
        let after = self.renewals().await?;
        if let Some((name, _)) = after.iter().find(|renewal| !before.contains(*renewal)) {
            bail!(
                "the Lease {}/{name} is renewed: a program of Berth, or kube-vip-cloud-provider, runs. Delete it first, and \
                 wait until its pods are gone",
                self.leases
            );
        }
        Ok(())
    }

    /// The Leases of both programs that somebody holds, and when each was renewed.
    async fn renewals(&self) -> Result<BTreeSet<(String, String)>> {
        let listed = self.api().list(&ListParams::default()).await;
        let listed = listed.with_context(|| format!("cannot list leases in {}", self.leases))?;
        let ours = listed.items.iter().filter(|lease| {
            let is_held = lease.spec.as_ref().is_some_and(|spec| {
                spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty())
            });
            is_held && (is_of_host(lease) || lease.name_any() == lease::CLOUD_CONTROLLER)
        });
        Ok(ours.map(|lease| (lease.name_any(), host::renewed(lease))).collect())
    }

    /// Takes everything out: what fails is noted, and the rest is done all the same.
    async fn clear(mut self) -> Self {
        let owners = self.claims().await;
        self.services(&owners).await;
        self.bindings().await;
        self.delete_leases().await;
        self
    }

    /// Deletes the claims. Returns the uids of those who had them.
    async fn claims(&mut self) -> BTreeSet<String> {
        let claims: Api<IPAddress> = Api::all(self.client.clone());
        let ours = format!("{}={}", label::IP_ADDRESS_MANAGED_BY, label::BERTH);
        let listed = claims.list(&ListParams::default().labels(&ours)).await;
        let Some(listed) = self.note("cannot list ipaddresses", listed) else {
            return BTreeSet::new();
        };
        let mut owners = BTreeSet::new();
        for claim in &listed.items {
            let holders = Claim::read(claim).map(|claim| claim.holders).unwrap_or_default();
            owners.extend(holders.into_iter().map(|holder| holder.owner.uid));
            let name = claim.name_any();
            let gone = claims.delete(&name, &DeleteParams::default()).await.map(drop);
            let gone = self.note(&format!("cannot delete IPAddress {name}"), missing_is_well(gone));
            self.done.claims += usize::from(gone.is_some());
        }
        owners
    }

    /// Takes our finalizer off Services that Berth or the stock provider has served, and conditions of berth-ccm.
    async fn services(&mut self, owners: &BTreeSet<String>) {
        let all: Api<Lean<Service, Finalizers>> = Api::all(self.client.clone());
        let listed = all.list(&ListParams::default()).await;
        let Some(listed) = self.note("cannot list services", listed) else { return };
        for found in &listed.items {
            let labels = found.labels();
            let is_labelled = labels.get(label::IMPLEMENTATION).map(String::as_str)
                == Some(label::IMPLEMENTATION_VALUE);
            let is_ours = is_labelled || found.uid().is_some_and(|uid| owners.contains(&uid));
            if !is_ours {
                continue;
            }
            let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
            let what = format!("Service {namespace}/{name}");
            let services: Api<Lean<Service, Finalizers>> =
                Api::namespaced(self.client.clone(), &namespace);
            let gone = [condition::ADDRESS_ALLOCATED, condition::ANNOUNCED]
                .map(|kind| json!({ "type": kind, "$patch": "delete" }));
            let body = Patch::Strategic(json!({ "status": { "conditions": gone } }));
            let said = services.patch_status(&name, &PatchParams::default(), &body).await.map(drop);
            self.note(&format!("{what}: conditions"), missing_is_well(said));
            let off = take_off(&services, &name, finalizer::LOAD_BALANCER_CLEANUP).await;
            let off = self.note(&format!("{what}: finalizer"), off);
            self.done.services += usize::from(off == Some(true));
        }
    }

    async fn bindings(&mut self) {
        let all: Api<Lean<EipBinding, Finalizers>> = Api::all(self.client.clone());
        let listed = match all.list(&ListParams::default()).await {
            // The resource is not there, or no more.
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            listed => listed,
        };
        let Some(listed) = self.note("cannot list eipbindings.berth.dev", listed) else { return };
        for found in &listed.items {
            let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
            let bindings: Api<Lean<EipBinding, Finalizers>> =
                Api::namespaced(self.client.clone(), &namespace);
            let off = take_off(&bindings, &name, eip::finalizer::RELEASE).await;
            let off = self.note(&format!("EipBinding {namespace}/{name}: finalizer"), off);
            self.done.bindings += usize::from(off == Some(true));
        }
    }

    /// Deletes the Leases of both programs, and that of the election where the members have held it together.
    async fn delete_leases(&mut self) {
        let leases = self.api();
        let listed = leases.list(&ListParams::default()).await;
        let Some(listed) = self.note("cannot list leases", listed) else { return };
        for found in &listed.items {
            let name = found.name_any();
            let holder = found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
            let is_ours = match name.as_str() {
                lease::VIEW | lease::CLOUD_CONTROLLER => true,
                lease::SERVICES => holder == Some(lease::MEMBERS),
                _ => is_of_host(found),
            };
            if !is_ours {
                continue;
            }
            let what = format!("Lease {}/{name}", self.leases);
            if name == lease::VIEW {
                let body = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
                let off = leases.patch(&name, &PatchParams::default(), &body).await.map(drop);
                self.note(&format!("{what}: finalizer"), missing_is_well(off));
            }
            let gone = leases.delete(&name, &DeleteParams::default()).await.map(drop);
            let gone = self.note(&what, missing_is_well(gone));
            self.done.leases += usize::from(gone.is_some());
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.leases)
    }

    /// What came of it, and notes what failed.
    fn note<T>(&mut self, what: &str, result: kube::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.push(format!("{what}: {error}"));
                None
            }
        }
    }
}

/// Those of the control plane's own announcers stay, and these may go on: they have nothing of Services.
fn is_of_host(lease: &Lease) -> bool {
    let labels = lease.labels();
    labels.contains_key(label::HOST) && !labels.contains_key(label::CONTROL_PLANE)
}

fn missing_is_well(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result,
    }
}

/// Takes our finalizer off, and leaves those of others. Returns whether it was there.
async fn take_off<K>(api: &Api<Lean<K, Finalizers>>, name: &str, ours: &str) -> kube::Result<bool>
where
    Lean<K, Finalizers>: Resource + Clone + DeserializeOwned + fmt::Debug,
{
    let mut last = Ok(false);
    for _ in 0..TRIES {
        let Some(found) = api.get_opt(name).await? else { return Ok(false) };
        if found.taken.ours.is_none() {
            return Ok(false);
        }
        let metadata = found.meta();
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let version = metadata.resource_version.as_deref().unwrap_or_default();
        let steps: Value = finalizer_patch(uid, version, found.taken, ours, false);
        let steps = serde_json::from_value(steps).map_err(kube::Error::SerdeError)?;
        match api.patch(name, &PatchParams::default(), &Patch::<()>::Json(steps)).await {
            Ok(_) => return Ok(true),
            // Somebody has changed it meanwhile, or it is gone.
            Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => {
                last = Err(kube::Error::Api(status));
            }
            Err(error) => return Err(error),
        }
    }
    last
}
