//! What a stolen token does, tried on a real API server with the tokens of pods of both programs, without and with the
//! policies of `overlays/policies`; and that both programs go on under them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::tokens;
use berth_e2e::world::{ADDRESSES, HOST, POOL, World, env, eventually, kubectl, repository};
use kube::Client;
use kube::config::AuthInfo;
use serde_json::json;

use crate::elections::says;
use crate::rights::table;
use crate::tenant::client_as;

mod tries;

use tries::{ANNOUNCER, Answer, CCM, FAR, OF_NO_POD, Try, by_announcer, by_ccm, event, merged};

/// What is tried of besides the Service `web`, made by the administrator.
async fn prepare(world: &World) -> Result<()> {
    let listed = json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": FAR, "namespace": "default",
                    "annotations": { ADDRESSES: "192.0.2.1, 192.0.2.2", HOST: "node1" },
                },
                "spec": {
                    "type": "LoadBalancer", "loadBalancerClass": "example.com/other",
                    "ports": [{ "port": 80 }],
                },
            },
            {
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": "kube-controller-manager", "namespace": "kube-system" },
                "spec": { "holderIdentity": "other" },
            },
            {
                "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
                "metadata": { "name": "vm", "namespace": "default" }, "spec": { "vmi": "vm" },
            },
            merged(event("other", &json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event" })),
                &json!({ "metadata": { "generateName": null, "name": "foreign" } })),
        ],
    });
    let file = world.lab.dir().join("tried.json");
    std::fs::write(&file, listed.to_string())?;
    kubectl(&world.lab, &["apply", "-f", &file.display().to_string()]).map(drop)
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
    let thieves = [
        (ANNOUNCER, by_token(&world, world.bind(ANNOUNCER, "node0").await?).await?),
        (CCM, by_token(&world, world.bind(CCM, "node1").await?).await?),
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
    prepare(&world).await?;
    let web = serde_json::to_value(world.service("web").await?)?;
    let tries: Vec<Try> =
        by_announcer(&address).into_iter().chain(by_ccm(&address, &web)).collect();

    let rows = table::<4>("## Stolen tokens")?;
    let told: BTreeSet<_> =
        rows.iter().map(|[who, what, ..]| (who.as_str(), what.as_str())).collect();
    let tried: BTreeSet<_> = tries.iter().map(|tried| (tried.account, tried.what)).collect();
    ensure!(told == tried, "told and not tried, or the other way: {:?}", &told ^ &tried);
    let mut of_each = Vec::new();
    for tried in &tries {
        let said = rows.iter().find(|[who, what, ..]| who == tried.account && what == tried.what);
        let [.., roles, policies] = said.context("no row")?;
        let thief = thieves.iter().find(|(account, _)| *account == tried.account);
        of_each.push((tried, &thief.context("no thief")?.1, roles == "yes", policies == "yes"));
    }
    for (tried, thief, roles, _) in &of_each {
        let answer = tried.ask(thief, &world.client).await?;
        let expected = if *roles { Answer::Taken } else { Answer::Forbidden };
        ensure!(answer == expected, "{} {} {}: {answer:?}", tried.account, tried.what, tried.body);
    }

    // They hold a moment after they were written.
    for file in ["announcer", "ccm"] {
        let file = repository().join(format!("overlays/policies/{file}.yaml"));
        kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
    }
    for (tried, thief, ..) in of_each.iter().filter(|(.., roles, policies)| *roles && !policies) {
        let what = format!("{} is denied {} {}", tried.account, tried.what, tried.body);
        eventually(&what, 20, || async {
            let answer = tried.ask(thief, &world.client).await?;
            Ok(matches!(answer, Answer::Denied(_)).then_some(()))
        })
        .await?;
    }
    for (tried, thief, ..) in of_each.iter().filter(|(.., policies)| *policies) {
        let answer = tried.ask(thief, &world.client).await?;
        ensure!(answer == Answer::Taken, "{} {}: {answer:?}", tried.account, tried.what);
    }
    both_go_on(&mut world).await?;
    world.lab.down()
}

/// Under the policies, from their start to a Lease for each Service.
async fn both_go_on(world: &mut World) -> Result<()> {
    world.ccm()?.terminate(Duration::from_secs(15))?;
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    world.start_ccm().await?;
    world.start_announcer(0).await?;
    world.expose("late", json!({})).await?;
    let address = world.published("late", 1).await.with_context(|| world.logs())?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    world.delete("late").await?;
    eventually("its claim is released", 10, || async {
        Ok((!world.claims().await?.contains_key(&address.to_string())).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;

    // A Lease for each Service takes more, and who lacks it waits and says so.
    world.announcer("node0")?.terminate(Duration::from_secs(15))?;
    let process = world.start_announcer_with(0, env([("svc_election", "true")])).await?;
    says(process, &["svc_election=true needs to create leases", "overlays/svc-election"]).await?;
    let file = repository().join("overlays/svc-election/rbac.yaml").display().to_string();
    kubectl(&world.lab, &["apply", "-n", "kube-system", "-f", &file])?;
    says(world.announcer("node0")?, &["nothing is served by a Lease"]).await
}
