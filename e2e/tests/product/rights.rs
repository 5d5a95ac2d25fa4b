//! What the two accounts may do, asked of a real API server with their names, and what a stolen token does under the
//! policies of `overlays/policies`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::world::{World, env, eventually, kubectl, repository};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use serde_json::json;

use crate::elections::says;
use crate::tenant::client_as;

const POLICIES: &str = "overlays/policies/policies.yaml";

/// The rows of the table in docs/security.md.
fn rows() -> Result<Vec<[String; 5]>> {
    let text = std::fs::read_to_string(repository().join("docs/security.md"))?;
    let (_, table) = text.split_once("## Rights").context("no section on rights")?;
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    let lines = table.lines().filter(|line| line.starts_with("| berth-"));
    let rows = lines.map(|line| {
        let cells: Vec<String> = cells(line);
        cells.try_into().map_err(|cells| anyhow::anyhow!("no row of five: {cells:?}"))
    });
    rows.collect()
}

fn apply(lab: &Lab, file: &Path) -> Result<()> {
    let file = file.display().to_string();
    kubectl(lab, &["apply", "-n", "kube-system", "-f", &file]).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_may_do_what_the_docs_say_and_nothing_else_of_it() -> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    for file in ["eipbinding-crd", "announcer-rbac", "ccm-rbac"] {
        apply(&lab, &repository().join(format!("manifests/{file}.yaml")))?;
    }
    let rows = rows()?;
    ensure!(rows.len() > 20, "{rows:?}");
    for [account, verb, resource, namespace, may] in &rows {
        let account = format!("--as=system:serviceaccount:kube-system:{account}");
        let (resource, sub) = match resource.split_once('/') {
            Some(("services", sub)) => ("services", Some(format!("--subresource={sub}"))),
            _ => (resource.as_str(), None),
        };
        let place = match namespace.as_str() {
            "*" => vec!["--all-namespaces"],
            name => vec!["-n", name],
        };
        let mut arguments = vec!["auth", "can-i", verb.as_str(), resource, &account];
        arguments.extend(place);
        arguments.extend(sub.as_deref());
        // It ends with 1 where it says no.
        let said = match kubectl(&lab, &arguments) {
            Ok(said) => said.trim().to_owned(),
            Err(_) => "no".to_owned(),
        };
        ensure!(said == *may, "{account} {verb} {resource} in {namespace}: {said}, not {may}");
    }
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_policies_a_stolen_token_speaks_for_one_node_and_both_programs_go_on()
-> Result<()> {
    let mut world = World::up(1, env([])).await?;
    apply(&world.lab, &repository().join(POLICIES))?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "stolen", "namespace": "kube-system" },
        "spec": {
            "nodeName": "node0", "serviceAccountName": "berth-announcer",
            "containers": [{ "name": "x", "image": "x" }],
        },
    });
    let file = world.lab.dir().join("stolen.json");
    std::fs::write(&file, pod.to_string())?;
    apply(&world.lab, &file)?;
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=stolen"];
    let token = ["create", "token", "berth-announcer", "-n", "kube-system", bound[0], bound[1]];
    let token = kubectl(&world.lab, &token)?.trim().to_owned();
    let thief = client_as(&world, |info| {
        *info = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
    })
    .await?;

    world.expose("web", json!({})).await?;
    world.published("web", 1).await?;
    let leases: Api<Lease> = Api::namespaced(thief.clone(), "kube-system");
    let create = async |name: &str| -> Option<String> {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        leases.create(&PostParams::default(), &lease).await.err().map(|error| error.to_string())
    };
    let services: Api<Service> = Api::namespaced(thief.clone(), "default");
    let publish = async |node: &str| -> Option<String> {
        let patch = json!({ "metadata": { "annotations": { "kube-vip.io/vipHost": node } } });
        let patch = Patch::Merge(patch);
        let done = services.patch_status("web", &PatchParams::default(), &patch).await;
        done.err().map(|error| error.to_string())
    };
    // Policies hold a moment after they were written.
    eventually("another program's Lease is refused", 20, || async {
        let refused = create("kube-controller-manager").await;
        if refused.is_none() {
            kubectl(
                &world.lab,
                &["delete", "lease", "-n", "kube-system", "kube-controller-manager"],
            )?;
        }
        Ok(refused.filter(|why| why.contains("an announcer writes the Leases")))
    })
    .await?;
    let others = create("berth-announcer-node1").await.unwrap_or_default();
    ensure!(others.contains("berth-announcer-node0, not berth-announcer-node1"), "{others}");
    let other = publish("node1").await.unwrap_or_default();
    ensure!(other.contains("node0 says that node1"), "{other}");
    let own = publish("node0").await;
    ensure!(own.is_none(), "{own:?}");

    // Both programs work on under them.
    world.expose("late", json!({})).await?;
    let address = world.published("late", 1).await.with_context(|| world.logs())?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let selector = json!({ "spec": { "selector": { "app": "elsewhere" } } }).to_string();
    let ccm = "--as=system:serviceaccount:kube-system:berth-ccm";
    let stolen = kubectl(&world.lab, &["patch", "service", "web", "-p", &selector, ccm]);
    let stolen = stolen.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(stolen.contains("no selector"), "{stolen}");

    // A Lease for each Service takes more, and who lacks it waits and says so.
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    let process = world.start_announcer_with(0, env([("svc_election", "true")])).await?;
    says(process, &["svc_election=true needs to create leases", "overlays/svc-election"]).await?;
    apply(&world.lab, &repository().join("overlays/svc-election/rbac.yaml"))?;
    says(world.announcer("node0")?, &["nothing is served by a Lease"]).await?;
    world.lab.down()
}
