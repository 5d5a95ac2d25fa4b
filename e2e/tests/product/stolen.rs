//! What a stolen token does, tried on a real API server with the tokens of pods of both programs, without and with the
//! policies of `overlays/policies`; and that both programs go on under them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::tokens;
use berth_e2e::world::{
    ADDRESSES, HOST, POOL, World, by_lease, env, eventually, ingress, kubectl, repository,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::AuthInfo;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::elections::says;
use crate::rights::table;
use crate::tenant::client_as;

mod announcer;
mod ccm;
mod control_plane;
mod tries;

use tries::{
    ANNOUNCER, Answer, CCM, CONTROL_PLANE, FAR, FULL, FULL_AS_CCM, IGNORED, LEFT, OF_NO_POD,
    OTHERS, OVERLAID, REFUSED, Try, event, merged, said,
};

/// Within so long the API server takes a write to what its author has filled.
const LONGEST: Duration = Duration::from_secs(8);

/// What is tried of besides the Service `web`, made by the administrator. berth-ccm does not run.
async fn prepare(world: &World) -> Result<()> {
    let service = |name: &str, addresses: &str, host: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": "default",
                "annotations": { ADDRESSES: addresses, HOST: host },
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "example.com/other",
                "ports": [{ "port": 80 }],
            },
        })
    };
    let lease = |namespace: &str, name: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "holderIdentity": "node0" },
        })
    };
    let binding = |name: &str| {
        json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
            "metadata": { "name": name, "namespace": "default" }, "spec": { "vmi": name },
        })
    };
    let event = event("other", &json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event" }));
    let items = [
        service(FAR, "192.0.2.1, 192.0.2.2", "node1"),
        service(LEFT, "192.0.2.5", "node1"),
        merged(
            service(IGNORED, "192.0.2.6", "node1"),
            &json!({ "metadata": { "annotations": { "kube-vip.io/ignore": "true" } } }),
        ),
        service(REFUSED, "192.0.2.3", ""),
        lease("kube-system", "kube-controller-manager"),
        lease("kube-system", control_plane::LOCK),
        control_plane::secret(),
        lease("default", "other"),
        binding("vm"),
        binding(OTHERS),
        merged(event, &json!({ "metadata": { "name": "foreign" } })),
    ];
    let file = world.lab.dir().join("tried.json");
    let listed = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    std::fs::write(&file, listed.to_string())?;
    kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
    // By `create`: `apply` would keep all of it in one annotation more.
    let many: serde_json::Map<String, Value> =
        (0..30_000).map(|n| (format!("z{n:x}"), json!(""))).collect();
    let api: Api<Service> = Api::namespaced(world.client.clone(), "default");
    for (name, signed) in [(FULL, "author"), (FULL_AS_CCM, CCM)] {
        let mut full = service(name, "192.0.2.4", "");
        let annotations = full["metadata"]["annotations"].as_object_mut().context("annotations")?;
        annotations.extend(many.clone());
        let author = PostParams { field_manager: Some(signed.to_owned()), ..PostParams::default() };
        api.create(&author, &serde_json::from_value(full)?).await?;
    }
    let refused = json!([{
        "type": "berth.dev/AddressAllocated", "status": "False", "reason": "AddressReserved",
        "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    let silent = |reason: &str| {
        json!([{
            "type": "berth.dev/Announced", "status": "False", "reason": reason,
            "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }])
    };
    let two = json!([{ "ip": "192.0.2.1" }, { "ip": "192.0.2.3" }]);
    let far = json!({ "loadBalancer": { "ingress": two }, "conditions": silent("NoLiveNode") });
    // What an announcer that has died said of its Node.
    kubectl(&world.lab, &["label", "node", "node1", "kube-vip.io/has-ip=192.0.2.9"])?;
    for (object, status) in [
        (format!("service/{REFUSED}"), json!({ "conditions": refused })),
        (format!("service/{FAR}"), far),
        (format!("service/{LEFT}"), json!({ "conditions": silent("LeftToLease") })),
        (format!("service/{IGNORED}"), json!({ "conditions": silent("NoEndpoint") })),
        ("eipbinding/vm".to_owned(), json!({ "node": "node0" })),
        (format!("eipbinding/{OTHERS}"), json!({ "node": "node1", "conditions": said("Holds") })),
    ] {
        let patch = json!({ "status": status }).to_string();
        let how = ["--subresource=status", "--type=merge", "--patch", &patch];
        kubectl(&world.lab, &[&["patch", &object][..], &how].concat())?;
    }
    Ok(())
}

/// The view of membership, once there is one.
async fn view(world: &World) -> Result<Value> {
    let api: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    eventually("a view of membership", 20, || async {
        let lease = api.get("berth-membership").await?;
        let text = lease.metadata.annotations.unwrap_or_default().remove("berth.dev/view");
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    })
    .await
}

/// Whether its account has an overlay's rights besides its own.
fn is_overlaid(tried: &Try) -> bool {
    OVERLAID.iter().any(|(account, _)| *account == tried.account)
}

/// A client by a token alone.
async fn by_token(world: &World, token: String) -> Result<Client> {
    client_as(&world.lab, |info| {
        *info = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_token_does_what_the_docs_say_and_both_programs_go_on_under_the_policies()
-> Result<()> {
    let mut world = World::without_berth(2, env([])).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    // Those of members are what reaches furthest.
    crate::control_plane::rights_for(
        &world,
        &["--address", "10.0.64.99", "--election", "membership"],
    )?;
    let thieves = [
        (ANNOUNCER, by_token(&world, world.bind(ANNOUNCER, "node0").await?).await?),
        (CCM, by_token(&world, world.bind(CCM, "node1").await?).await?),
        (CONTROL_PLANE, by_token(&world, world.bind(CONTROL_PLANE, "node0").await?).await?),
        (OF_NO_POD, {
            let token = tokens::of_account(&world.client, "kube-system", ANNOUNCER).await?;
            by_token(&world, token).await?
        }),
    ];
    world.start_ccm().await?;
    world.start_announcer(0).await?;
    world.deploy("default", "hello", 1)?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0].to_string();
    let web = serde_json::to_value(world.service("web").await?)?;
    world.ccm()?.terminate(Duration::from_secs(15))?;
    prepare(&world).await?;
    let by_announcer = announcer::tries(&address, &view(&world).await?).into_iter();
    let by_both = by_announcer.chain(ccm::tries(&address, &web));
    let tries: Vec<Try> = by_both.chain(control_plane::tries(&address)).collect();

    let rows = table::<4>("## Stolen tokens")?;
    let told: BTreeSet<_> =
        rows.iter().map(|[who, what, ..]| (who.as_str(), what.as_str())).collect();
    let tried: BTreeSet<_> = tries.iter().map(|tried| (tried.account, tried.what)).collect();
    ensure!(told == tried, "told and not tried, or the other way: {:?}", &told ^ &tried);
    let mut of_each = Vec::new();
    for tried in &tries {
        let said = rows.iter().find(|[who, what, ..]| who == tried.account && what == tried.what);
        let [.., roles, policies] = said.context("no row")?;
        let account = if is_overlaid(tried) { ANNOUNCER } else { tried.account };
        let thief = thieves.iter().find(|(of, _)| *of == account);
        of_each.push((tried, &thief.context("no thief")?.1, roles == "yes", policies == "yes"));
    }
    let (more, plain): (Vec<_>, Vec<_>) =
        of_each.iter().partition(|(tried, ..)| is_overlaid(tried));
    let rights = OVERLAID.map(|(_, overlay)| {
        repository().join(format!("overlays/{overlay}/rbac.yaml")).display().to_string()
    });
    let rights = ["-n", "kube-system", "-f", &rights[0], "-f", &rights[1]];
    for some in [plain, more] {
        for (tried, thief, roles, _) in some {
            let answer = tried.ask(thief, &world.client).await?;
            let expected = if roles { Answer::Taken } else { Answer::Forbidden };
            ensure!(
                answer == expected,
                "{} {} {}: {answer:?}",
                tried.account,
                tried.what,
                tried.short()
            );
        }
        kubectl(&world.lab, &[&["apply"][..], &rights].concat())?;
    }

    // They hold a moment after they were written.
    let policies = repository().join("overlays/policies").display().to_string();
    kubectl(&world.lab, &["apply", "-k", &policies])?;
    for (tried, thief, ..) in of_each.iter().filter(|(.., roles, policies)| *roles && !policies) {
        let what = format!("{} is denied {} {}", tried.account, tried.what, tried.short());
        eventually(&what, 20, || async {
            let answer = tried.ask(thief, &world.client).await?;
            Ok(matches!(answer, Answer::Denied(_)).then_some(()))
        })
        .await?;
    }
    for (tried, thief, ..) in of_each.iter().filter(|(.., policies)| *policies) {
        let start = Instant::now();
        let answer = tried.ask(thief, &world.client).await?;
        ensure!(answer == Answer::Taken, "{} {}: {answer:?}", tried.account, tried.what);
        let took = start.elapsed();
        ensure!(took < LONGEST, "{} {}: {took:?}", tried.account, tried.what);
    }
    kubectl(&world.lab, &[&["delete"][..], &rights].concat())?;
    what_is_overtaken_is_a_conflict(&thieves[0].1).await?;
    both_go_on(&mut world).await?;
    world.lab.down()
}

/// As an announcer writes that berth-ccm has taken the binding from meanwhile: no policy is asked of it, and nobody is told.
async fn what_is_overtaken_is_a_conflict(announcer: &Client) -> Result<()> {
    let holder = json!({ "holder": { "node": "node0", "epoch": 1 } });
    let mut stale = tries::status(OTHERS, &holder);
    for (version, code) in [(None, 422), (Some("1"), 409)] {
        stale["metadata"]["resourceVersion"] = json!(version);
        let path = format!(
            "{}/{OTHERS}/status?fieldManager=berth-announcer-node0&force=true",
            tries::BINDINGS
        );
        let request =
            http::Request::patch(path).header("Content-Type", "application/apply-patch+yaml");
        let answer = announcer.request::<Value>(request.body(serde_json::to_vec(&stale)?)?).await;
        let is_it = matches!(&answer, Err(kube::Error::Api(status)) if status.code == code);
        ensure!(is_it, "{version:?}: {answer:?}");
    }
    Ok(())
}

/// Serves a Service from its start to its end: an answer, and its claim released.
async fn serves(world: &World, namespace: &str, name: &str, lease: Option<&str>) -> Result<()> {
    world
        .create(json!({
            "metadata": {
                "name": name, "namespace": namespace,
                "annotations": lease.map(|lease| json!({ "kube-vip.io/leaseName": lease })),
            },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "hello" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        }))
        .await?;
    let what = format!("{namespace}/{name} is published and answers");
    let address = eventually(&what, 30, || async {
        let service = world.services(namespace).get(name).await?;
        let address = ingress(&service).first().copied();
        Ok(address.filter(|address| world.curl(*address).is_ok()))
    });
    let address = address.await.with_context(|| world.logs())?;
    world.services(namespace).delete(name, &DeleteParams::default()).await?;
    let released = eventually("it is gone, and its claim released", 10, || async {
        let is_there = world.services(namespace).get_opt(name).await?.is_some();
        let is_claimed = world.claims().await?.contains_key(&address.to_string());
        Ok((!is_there && !is_claimed).then_some(()))
    });
    released.await.with_context(|| world.logs())?;
    let logs = world.logs();
    ensure!(!logs.contains("ValidatingAdmissionPolicy"), "{logs}");
    Ok(())
}

/// An operator says how long leases are, and a view that follows says the same.
async fn leases_are_kept(world: &mut World) -> Result<()> {
    let mut stored = view(world).await?;
    stored["leases"] = json!([350, 350]);
    let note = format!("berth.dev/view={stored}");
    let lease = ["--namespace=kube-system", "lease", "berth-membership"];
    kubectl(&world.lab, &[&["annotate", "--overwrite"][..], &lease, &[&note]].concat())?;
    let config = world.lab.dir().join(format!("{ANNOUNCER}.kubeconfig"));
    let of_node0 = std::fs::read(&config)?;
    world.bind(ANNOUNCER, "node1").await?;
    world.start_announcer(1).await?;
    eventually("a view of two voters", 20, || async {
        let next = view(world).await?;
        let voters = next["voters"].as_array().map_or(0, Vec::len);
        ensure!(next["leases"] == stored["leases"], "{next} follows {stored}");
        Ok((voters == 2).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    world.announcer("node1")?.terminate(Duration::from_secs(15))?;
    Ok(std::fs::write(&config, of_node0)?)
}

/// Under the policies, from their start, whoever decides on owners.
async fn both_go_on(world: &mut World) -> Result<()> {
    for binding in ["vm", OTHERS] {
        kubectl(&world.lab, &["delete", "eipbinding", binding])?;
    }
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    world.start_ccm().await?;
    let file = repository().join("overlays/node-labels/rbac.yaml").display().to_string();
    kubectl(&world.lab, &["apply", "-n", "kube-system", "-f", &file])?;
    world.start_announcer_with(0, env([("enable_node_labeling", "true")])).await?;
    serves(world, "default", "late", None).await?;
    let nodes: Api<Node> = Api::all(world.client.clone());
    eventually("its Node says what it answers for", 10, || async {
        let node = nodes.get("node0").await?;
        let web = node.labels().contains_key("service-provided.kube-vip.io/web.default");
        Ok(web.then_some(()))
    })
    .await
    .with_context(|| world.logs())?;

    leases_are_kept(world).await?;

    // A Lease for each Service takes more, and who lacks it waits and says so.
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    let process = world.start_announcer_with(0, env([("svc_election", "true")])).await?;
    says(process, &["svc_election=true needs to create leases", "overlays/svc-election"]).await?;
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    let file = repository().join("overlays/svc-election/rbac.yaml").display().to_string();
    kubectl(&world.lab, &["apply", "-n", "kube-system", "-f", &file])?;
    // As docs/failover.md says: nobody goes by a Lease while there is a view.
    let lease = ["--namespace=kube-system", "lease", "berth-membership"];
    let kept = r#"[{"op":"remove","path":"/metadata/finalizers"}]"#;
    kubectl(&world.lab, &[&["patch"][..], &lease, &["--type=json", "--patch", kept]].concat())?;
    kubectl(&world.lab, &[&["delete"][..], &lease].concat())?;
    world.start_announcer_with(0, env([("svc_election", "true")])).await?;
    world.deploy("kube-system", "hello", 1)?;
    for (namespace, lease) in
        [("default", None), ("default", Some("chosen")), ("kube-system", None)]
    {
        serves(world, namespace, "late", lease).await?;
    }
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    world.start_announcer_with(0, by_lease()).await?;
    serves(world, "default", "late", None).await
}
