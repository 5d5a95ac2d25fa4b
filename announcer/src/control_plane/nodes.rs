//! Whether an address of the control plane is another node's: whoever takes it would cut that node off. Before anything is
//! served.
//!
//! A kubelet that is given no `--node-ip` may take the control plane's address for its node's, where that has it. So of nodes
//! that may have it by right the Node says nothing: those that tell it in their Lease, and who holds the Lease that decides.
//!
//! What a Node says its kubelet writes, and any of them may be stolen. So once an address is in use, as a node's Lease tells, another
//! Node that says it has it is told of, and ends nothing: the LAN was asked for it before its first use.
//!
//! # Permissions
//!
//! `list` on `nodes`, and `get` and `list` on `leases.coordination.k8s.io` in the namespace of the Lease.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::host;
use berth_api::names::label;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams, ResourceExt};

use crate::config::ControlPlane;

/// How many Nodes are asked for at a time.
const PAGE: u32 = 500;

/// Which addresses other nodes have, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Those that nobody has used as the control plane's yet.
    pub(crate) theirs: Vec<String>,
    /// Those that are in use.
    pub(crate) claimed: Vec<String>,
}

/// What of the addresses is another node's than `me`.
///
/// # Errors
/// When the API server does not say.
pub(crate) async fn anothers(
    own: &ControlPlane,
    client: &Client,
    namespace: &str,
    me: &str,
) -> kube::Result<Found> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let words = leases.list(&ListParams::default().labels(label::CONTROL_PLANE)).await?;
    let told: BTreeMap<String, BTreeSet<IpAddr>> = words
        .iter()
        .filter_map(host::ControlPlane::read)
        .map(|(node, told)| (node.to_owned(), told.addresses))
        .collect();
    let lease = leases.get_opt(&own.lease).await?;
    let holder = lease.and_then(|lease| lease.spec?.holder_identity);
    let nodes: Api<Node> = Api::all(client.clone());
    let (mut found, mut more) = (Found::default(), None);
    loop {
        let page = ListParams { limit: Some(PAGE), continue_token: more, ..ListParams::default() };
        let page = nodes.list(&page).await?;
        let others = page.items.iter().filter(|node| node.name_any() != me);
        others.for_each(|node| conflicts(own, node, &told, holder.as_deref(), &mut found));
        more = page.metadata.continue_.filter(|token| !token.is_empty());
        if more.is_none() {
            return Ok(found);
        }
    }
}

/// Adds what is this node's.
fn conflicts(
    own: &ControlPlane,
    node: &Node,
    told: &BTreeMap<String, BTreeSet<IpAddr>>,
    holder: Option<&str>,
    found: &mut Found,
) {
    let name = node.name_any();
    let status = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    let addresses: BTreeSet<IpAddr> =
        status.unwrap_or_default().iter().filter_map(|one| one.address.parse().ok()).collect();
    let may_have = |address: &IpAddr| {
        holder == Some(&name) || told.get(&name).is_some_and(|told| told.contains(address))
    };
    for address in own.addresses.iter().filter(|own| addresses.contains(own) && !may_have(own)) {
        match told.values().any(|told| told.contains(address)) {
            true => found.claimed.push(format!(
                "address={address}: the Node {name} says that it has it, which is the control plane's already: an error of that                  node, or its kubelet says what is not so"
            )),
            false => found.theirs.push(format!(
                "address={address}: it is an address of the node {name}, as its Node says; accepted is one that no host has, and                  where its kubelet took it for its own while it had it, that needs --node-ip"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Families, HealthCheck};

    fn own() -> ControlPlane {
        let second = Duration::from_secs(1);
        let health = HealthCheck {
            url: None,
            authority: None,
            period: second,
            timeout: second,
            failures: 3,
        };
        let addresses = vec![IpAddr::from([192, 0, 2, 100]), "2001:db8::100".parse().unwrap()];
        let lease = "plndr-cp-lock".to_owned();
        let (wished, families) = (Vec::new(), Families::First);
        ControlPlane { wished, families, addresses, port: 6443, interface: None, lease, health }
    }

    fn node(name: &str, addresses: &[&str]) -> Value {
        let all = addresses.iter().map(|own| json!({ "type": "InternalIP", "address": own }));
        json!({ "metadata": { "name": name }, "status": { "addresses": all.collect::<Vec<_>>() } })
    }

    fn word(node: &str, addresses: &str) -> Value {
        json!({ "metadata": {
            "name": format!("berth-control-plane-{node}"),
            "annotations": {
                "berth.dev/api-server": "healthy", "berth.dev/control-plane-addresses": addresses,
            },
        } })
    }

    /// What is told of these Nodes, on two pages, beside these words and this holder.
    async fn told(nodes: [Value; 2], words: &[Value], holder: Option<&str>) -> Vec<String> {
        let found = found(nodes, words, holder).await;
        assert_eq!(found.claimed.len(), 0, "{found:?}");
        found.theirs
    }

    async fn found(nodes: [Value; 2], words: &[Value], holder: Option<&str>) -> Found {
        let (words, holder) = (words.to_vec(), holder.map(str::to_owned));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let uri = request.uri().clone();
            let body = match (uri.path(), uri.query().unwrap_or_default()) {
                ("/api/v1/nodes", query) if query.contains("continue=more") => {
                    json!({ "metadata": {}, "items": [nodes[1]] })
                }
                ("/api/v1/nodes", _) => {
                    json!({ "metadata": { "continue": "more" }, "items": [nodes[0]] })
                }
                (path, _) if path.ends_with("/leases") => json!({ "metadata": {}, "items": words }),
                _ => json!({
                    "metadata": { "name": "plndr-cp-lock" }, "spec": { "holderIdentity": holder },
                }),
            };
            async move {
                let body = Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(http::Response::new(body))
            }
        });
        anothers(&own(), &Client::new(service, "default"), "kube-system", "a").await.unwrap()
    }

    #[tokio::test]
    async fn an_address_of_another_node_is_told_whichever_page_it_stands_on() {
        let found =
            told([node("b", &["192.0.2.12"]), node("c", &["192.0.2.100"])], &[], None).await;
        let [only] = &found[..] else { panic!("{found:?}") };
        assert!(only.starts_with("address=192.0.2.100: it is an address of the node c"), "{only}");
        let both = [node("b", &["2001:db8::100"]), node("c", &["192.0.2.100"])];
        assert_eq!(told(both.clone(), &[], Some("a")).await.len(), 2);
        let found = self::found(both, &[word("b", "192.0.2.100")], Some("a")).await;
        let [theirs] = &found.theirs[..] else { panic!("{found:?}") };
        assert!(theirs.starts_with("address=2001:db8::100: it is an address of the node b"));
        assert_eq!(found.claimed.len(), 1, "{found:?}");
    }

    #[tokio::test]
    async fn a_node_that_may_have_it_has_it_in_its_status_and_so_may_this_one() {
        let nodes = || [node("a", &["192.0.2.100"]), node("b", &["192.0.2.12", "192.0.2.100"])];
        assert_eq!(told(nodes(), &[], None).await.len(), 1);
        let none: [String; 0] = [];
        assert_eq!(told(nodes(), &[], Some("b")).await, none, "kube-vip's holder");
        assert_eq!(told(nodes(), &[word("b", "192.0.2.100")], Some("a")).await, none);
    }

    #[tokio::test]
    async fn of_an_address_that_is_in_use_no_kubelet_says_who_may_start() {
        let nodes = || [node("b", &["192.0.2.12"]), node("w", &["192.0.2.100", "2001:db8::100"])];
        for word in [word("a", "192.0.2.100"), word("b", "192.0.2.100")] {
            let Found { theirs, claimed } = found(nodes(), &[word], Some("b")).await;
            let ([theirs], [claimed]) = (&theirs[..], &claimed[..]) else { panic!("{theirs:?}") };
            assert!(theirs.starts_with("address=2001:db8::100: it is an address of the node w"));
            assert!(claimed.starts_with("address=192.0.2.100: the Node w says"), "{claimed}");
        }
    }
}
