//! Both programs by the manifests of kube-vip and its cloud provider, of which the image alone is another: the environment of
//! its DaemonSet, what their roles grant, and the commands that their users type.

mod typed;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::place::Place;
use berth_e2e::world::{Env, World, addresses_of, env, eventually, kubectl, repository};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// With an announcer. The pods are on one more.
const NODES: usize = 2;

/// What the manifest of kube-vip 1.2 sets for Services, with the name that its prefix length had before, which still stands
/// in many.
const ENVIRONMENT: [(&str, &str); 13] = [
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
    ("enable_node_labeling", "true"),
];

const ROLE: &str = "system:kube-vip-role";

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

/// `system:kube-vip-role` of 2023. That of kube-vip 1.2 grants `endpointslices` besides, and of `pods` and `nodes` more.
fn role() -> Vec<Value> {
    vec![
        rule(
            "",
            &["services", "services/status", "nodes", "endpoints"],
            &["list", "get", "watch", "update"],
        ),
        rule("coordination.k8s.io", &["leases"], &["list", "get", "watch", "update", "create"]),
    ]
}

const PROVIDER: &str = "system:kube-vip-cloud-controller-role";

fn allocators() -> Vec<Value> {
    vec![
        rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "list", "put"]),
        rule("", &["configmaps", "endpoints", "events", "services/status", "leases"], &["*"]),
        rule("", &["nodes", "services"], &["list", "get", "watch", "update"]),
    ]
}

/// The account has these rights and no others.
async fn grant(world: &World, account: &str, name: &str, rules: Vec<Value>) -> Result<()> {
    kubectl(&world.lab, &["delete", "clusterrolebinding", account])?;
    let own = format!("{account}-leases");
    let delete = ["--namespace=kube-system", "delete", "--ignore-not-found", "rolebinding"];
    kubectl(&world.lab, &[&delete[..], &[account, &own]].concat())?;
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    let roles: Api<ClusterRole> = Api::all(world.client.clone());
    roles.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    let account = format!("--serviceaccount=kube-system:{account}");
    let role = format!("--clusterrole={name}");
    kubectl(&world.lab, &["create", "clusterrolebinding", name, &role, &account]).map(drop)
}

/// What `/readyz` says, of each missing right on a line of its own. It passes, or does not.
fn readiness(place: &Place, server: &str) -> Result<String> {
    place.exec(["curl", "--silent", &format!("http://{server}/readyz")])
}

/// The missing rights that are told there, once there are any.
async fn rights(place: &Place, server: &str) -> Result<Vec<String>> {
    eventually("what is missing", 10, || async {
        let said = readiness(place, server)?;
        let rights = said.lines().filter_map(|line| line.strip_prefix("rights: "));
        let rights: Vec<String> = rights.map(str::to_owned).collect();
        Ok((!rights.is_empty()).then_some(rights))
    })
    .await
}

/// Each of these is named once by readiness, and once in the log, with the rule that gives it.
fn are_named(told: &[String], log: &str, missing: &[(&str, &str)]) -> Result<()> {
    for (resource, verbs) in missing {
        let rule = format!("resources: [{resource}]");
        let of_it: Vec<_> = told.iter().filter(|line| line.contains(&rule)).collect();
        let is_whole = of_it.len() == 1 && of_it[0].contains(&format!("verbs: [{verbs}]}}"));
        ensure!(is_whole, "{resource}: {of_it:?} of {told:#?}");
        let logged =
            log.lines().filter(|line| line.contains("lacks a right") && line.contains(&rule));
        ensure!(logged.count() == 1, "{resource}: not once in the log\n{log}");
    }
    ensure!(told.len() == missing.len(), "{told:#?}");
    Ok(())
}

/// By node, what it says that it answers for.
async fn labelled(world: &World) -> Result<Vec<(String, String)>> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let nodes = nodes.list(&Default::default()).await?;
    let labels = |node: &Node| {
        let own = node.labels().iter().filter(|(key, _)| key.contains("kube-vip.io"));
        own.map(|(key, value)| (node.name_any(), format!("{key}={value}"))).collect::<Vec<_>>()
    };
    Ok(nodes.iter().flat_map(labels).collect())
}

/// Waits until this node alone is labelled, and with what.
async fn labels_are(world: &World, node: &str, labels: &[String]) -> Result<()> {
    let mut wanted: Vec<_> = labels.iter().map(|label| (node.to_owned(), label.clone())).collect();
    wanted.sort();
    let what = format!("the labels {wanted:?}");
    let are = || async {
        let mut found = labelled(world).await?;
        found.sort();
        Ok((found == wanted).then_some(()))
    };
    let Err(error) = eventually(&what, 15, are).await else { return Ok(()) };
    Err(error.context(format!("{:?}\n{}", labelled(world).await, world.logs())))
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_manifests_of_kube_vip_services_are_served_and_move_and_each_missing_right_is_named()
-> Result<()> {
    let mut world = World::without_berth(NODES + 1, env(ENVIRONMENT)).await?;
    by_the_role_of_the_provider(&mut world).await?;
    grant(&world, "berth-announcer", ROLE, role()).await?;
    typed::the_commands_of_its_documentation_do_what_they_say(&mut world).await?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    let address = typed::exposed_as_it_is_typed(&world).await?;
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let owner = world.host("web").await?;
    let log = world.announcer(&owner)?.log_text();
    for (verb, resource) in [("patch", "services/status"), ("list and watch", "endpointslices")] {
        let told = log.lines().filter(|line| !line.contains("lacks a right"));
        let told: Vec<_> = told.filter(|line| line.contains(resource)).collect();
        ensure!(told.len() == 1 && told[0].contains(verb), "{told:?}\n{}", world.logs());
    }
    let place = world.lab.node(world.index_of(&owner)?).place()?;
    let told = rights(&place, "127.0.0.1:2112").await?;
    let missing = [
        ("services/status", "patch"),
        ("endpointslices", "list, watch"),
        ("nodes", "patch"),
        ("eipbindings", "list, watch"),
        ("eipbindings/status", "patch"),
        ("customresourcedefinitions", "list, watch"),
        ("ipaddresses", "list, watch"),
        ("servicecidrs", "list, watch"),
        ("events", "create, patch"),
    ];
    are_named(&told, &log, &missing)?;
    ensure!(readiness(&place, "127.0.0.1:2112")?.starts_with("ok\n"), "it serves all the same");
    ensure!(labelled(&world).await?.is_empty(), "a Node was labelled without a right to it");
    by_the_rights_that_were_named(&mut world, address).await?;

    // What kube-vip's role has had since 2024.
    let roles: Api<ClusterRole> = Api::all(world.client.clone());
    let rules = [role(), vec![rule("", &["nodes"], &["patch"])]].concat();
    let patch = Patch::Merge(json!({ "rules": rules }));
    roles.patch(ROLE, &PatchParams::default(), &patch).await?;
    for node in 0..NODES {
        let name = world.lab.node(node).name().to_owned();
        world.announcer(&name)?.terminate(Duration::from_secs(15))?;
        world.start_announcer(node).await?;
    }
    let owner = owner_of(&world, address).await?;
    let of_service = format!("service-provided.kube-vip.io/web.default={address}");
    let all = [format!("kube-vip.io/has-ip={address}"), of_service];
    labels_are(&world, &owner, &all).await?;

    world.lab.crash(world.index_of(&owner)?).context("crash the owner")?;
    let next = eventually("another owner", 30, || async {
        let next = world.host("web").await?;
        Ok((next != owner && world.curl(address).is_ok()).then_some(next))
    })
    .await
    .with_context(|| world.logs())?;
    labels_are(&world, &next, &all).await.context("after a crash")?;
    world.delete("web").await?;
    let at = world.index_of(&next)?;
    eventually("its owner has the address no more", 15, || async {
        let shown = world.lab.node(at).exec(["ip", "-json", "address", "show", "dev", "eth0"])?;
        Ok((!shown.contains(&format!("\"{address}\""))).then_some(()))
    })
    .await?;
    labels_are(&world, &next, &[]).await.context("after its deletion")?;
    by_a_lease_of_each_service(&mut world, at).await?;
    world.lab.down()
}

/// The node that has the address and says so.
async fn owner_of(world: &World, address: IpAddr) -> Result<String> {
    eventually("an owner", 20, || async {
        let owner = world.host("web").await?;
        let is_there = world.holders(address)? == [owner.clone()] && world.curl(address).is_ok();
        Ok(is_there.then_some(owner))
    })
    .await
    .with_context(|| world.logs())
}

/// Its role has no `delete` of Leases: the Service is served, and its Lease stays when it goes, which is said.
async fn by_a_lease_of_each_service(world: &mut World, node: usize) -> Result<()> {
    let name = world.lab.node(node).name().to_owned();
    world.announcer(&name)?.terminate(Duration::from_secs(15))?;
    labels_are(world, &name, &[]).await.context("after the end of the announcer")?;
    let mut each: Env = env(ENVIRONMENT);
    each.remove("vip_leaderelection");
    each.insert("svc_election".to_owned(), "true".to_owned());
    world.start_announcer_with(node, each).await?;
    world.expose("alone", json!({})).await?;
    let address = world.published("alone", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let place = world.lab.node(node).place()?;
    let told = rights(&place, "127.0.0.1:2112").await?;
    let leases: Vec<_> = told.iter().filter(|line| line.contains("[leases]")).collect();
    let is_whole = leases.len() == 1 && leases[0].contains("verbs: [delete]}");
    ensure!(is_whole, "{told:#?}");
    world.delete("alone").await?;
    eventually("its address is off the node", 15, || async {
        Ok((!addresses_of(world.lab.node(node))?.contains(&address)).then_some(()))
    })
    .await?;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "default");
    let is_left = leases.get_opt("kubevip-alone").await?.is_some();
    ensure!(is_left, "who may not delete has deleted");
    Ok(())
}

/// Of berth-ccm by the provider's role: it gives addresses out, and says what it lacks.
async fn by_the_role_of_the_provider(world: &mut World) -> Result<()> {
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    grant(world, "berth-ccm", PROVIDER, allocators()).await?;
    world.start_ccm().await?;
    let (machine, server) = (world.lab.control_plane(), "[::1]:8080");
    let told = rights(&machine, server).await.with_context(|| world.logs())?;
    let missing = [
        ("ipaddresses", "get, list, watch, create, patch, delete"),
        ("services", "patch"),
        ("servicecidrs", "list, watch"),
        ("endpointslices", "list, watch"),
        ("leases", "watch"),
        ("eipbindings", "get, list, watch, patch"),
        ("eipbindings/status", "patch"),
        ("virtualmachineinstances", "list, watch"),
        ("events", "create, patch"),
    ];
    are_named(&told, &world.ccm()?.log_text(), &missing)?;
    eventually("it is ready", 30, || async {
        Ok(readiness(&machine, server)?.starts_with("ok\n").then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

/// Once they are granted it begins anew by itself, and what it gave is claimed in the cluster.
async fn by_the_rights_that_were_named(world: &mut World, address: IpAddr) -> Result<()> {
    kubectl(&world.lab, &["delete", "clusterrolebinding", PROVIDER])?;
    let ours = repository().join("manifests/ccm-rbac.yaml").display().to_string();
    kubectl(&world.lab, &["--namespace=kube-system", "apply", "-f", &ours])?;
    let ended = || async { Ok(world.ccm()?.ending()) };
    let ended =
        eventually("the end of berth-ccm", 90, ended).await.with_context(|| world.logs())?;
    ensure!(ended == "code 0", "{ended}\n{}", world.logs());
    world.start_ccm().await?;
    let claims: Api<IPAddress> = Api::all(world.client.clone());
    eventually("its claim", 15, || async {
        claims.get_opt(&address.to_string()).await.map_err(Into::into)
    })
    .await
    .with_context(|| world.logs())?;
    let published = world.published("web", 1).await?;
    ensure!(published == [address], "it was moved: {published:?}");
    Ok(())
}
