//! berth-announcer by the manifests of kube-vip, of which the image alone is another: the environment of its DaemonSet, and
//! what its ClusterRole grants.

use anyhow::{Context, Result, ensure};
use berth_e2e::world::{World, env, eventually, kubectl};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

/// With an announcer. The pods are on one more.
const NODES: usize = 2;

/// What the manifest of kube-vip 1.2 sets for Services, with the name that its prefix length had before, which still stands
/// in many.
const ENVIRONMENT: [(&str, &str); 12] = [
    ("vip_arp", "true"),
    ("port", "6443"),
    ("vip_interface", "eth0"),
    ("vip_cidr", "32"),
    ("dns_mode", "first"),
    ("svc_enable", "true"),
    ("svc_leasename", "plndr-svcs-lock"),
    ("vip_leaderelection", "true"),
    ("vip_leaseduration", "5"),
    ("vip_renewdeadline", "3"),
    ("vip_retryperiod", "1"),
    ("prometheus_server", ":2112"),
];

/// `system:kube-vip-role` of 2023. That of kube-vip 1.2 grants `endpointslices` besides, and of `pods` and `nodes` more.
fn role() -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    json!([
        rule(
            "",
            &["services", "services/status", "nodes", "endpoints"],
            &["list", "get", "watch", "update"]
        ),
        rule("coordination.k8s.io", &["leases"], &["list", "get", "watch", "update", "create"]),
    ])
}

/// The announcer's account has these rights and no others.
async fn grant(world: &World, rules: Value) -> Result<()> {
    let own = ["berth-announcer", "berth-announcer-leases"];
    kubectl(&world.lab, &["delete", "clusterrolebinding", own[0]])?;
    kubectl(&world.lab, &["--namespace=kube-system", "delete", "rolebinding", own[0], own[1]])?;
    let name = "system:kube-vip-role";
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    let roles: Api<ClusterRole> = Api::all(world.client.clone());
    roles.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    let account = "--serviceaccount=kube-system:berth-announcer";
    let role = format!("--clusterrole={name}");
    kubectl(&world.lab, &["create", "clusterrolebinding", name, &role, account]).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_manifests_of_kube_vip_services_are_served_and_move_and_each_missing_right_is_named()
-> Result<()> {
    let mut world = World::without_berth(NODES + 1, env(ENVIRONMENT)).await?;
    grant(&world, role()).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    world.start_ccm().await?;
    world.deploy("default", "hello", 1)?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let owner = world.host("web").await?;
    let log = world.announcer(&owner)?.log_text();
    for (verb, resource) in [("patch", "services/status"), ("list and watch", "endpointslices")] {
        let told: Vec<_> = log.lines().filter(|line| line.contains(resource)).collect();
        ensure!(told.len() == 1 && told[0].contains(verb), "{told:?}\n{}", world.logs());
    }

    world.lab.crash(world.index_of(&owner)?).context("crash the owner")?;
    let next = eventually("another owner", 30, || async {
        let next = world.host("web").await?;
        Ok((next != owner && world.curl(address).is_ok()).then_some(next))
    })
    .await
    .with_context(|| world.logs())?;
    world.delete("web").await?;
    let next = world.index_of(&next)?;
    eventually("its owner has the address no more", 15, || async {
        let shown = world.lab.node(next).exec(["ip", "-json", "address", "show", "dev", "eth0"])?;
        Ok((!shown.contains(&format!("\"{address}\""))).then_some(()))
    })
    .await?;
    world.lab.down()
}
