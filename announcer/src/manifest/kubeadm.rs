//! What goes with kubeadm: the Pod of every control-plane node, and the configuration that makes a cluster at its address.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::generate::{self, FILES, Wish};
use crate::config::{Config, Problem, Settings, Wished};

const API: &str = "kubeadm.k8s.io/v1beta4";
/// Where an API server listens unless kubeadm is told otherwise (`kubeadmapi.DefaultAPIBindPort`).
const BIND_PORT: u16 = 6443;

/// Addresses that one node has, and what names them on each.
const OF_ONE_NODE: [(&str, &str); 3] = [
    ("bgp_routerid", "bgp_routerinterface"),
    ("bgp_sourceip", "bgp_sourceif"),
    ("bgp_source_ip", "bgp_sourceif"),
];

/// Where clients and nodes find the API servers.
pub(super) struct Endpoint {
    /// The control plane's first address with its port, as `controlPlaneEndpoint` has it.
    pub(super) first: String,
    /// All of its addresses by themselves.
    pub(super) names: Vec<String>,
    /// The port of the API servers, where kubeadm has to be told it on each node.
    pub(super) bind_port: Option<u16>,
}

impl Endpoint {
    /// That of settings.
    ///
    /// # Errors
    /// Where they ask for no address of the control plane.
    pub(super) fn of(settings: &Settings) -> Result<Self, String> {
        let config = Config::parse(&settings.clone().without(&FILES), "node").ok();
        let own = config.and_then(|config| config.control_plane);
        let found = own.as_ref().and_then(|own| Some((own, own.wished.first()?)));
        let Some((own, first)) = found else {
            let accepted = "accepted beside `kubeadm` is true, or nothing";
            return Err(settings.problem("cp_enable", accepted).to_string());
        };
        let first = match first {
            Wished::Address(address) => SocketAddr::new(*address, own.port).to_string(),
            Wished::Name(name) => format!("{name}:{}", own.port),
        };
        let names = own.wished.iter().map(ToString::to_string).collect();
        Ok(Self { first, names, bind_port: Some(own.port).filter(|port| *port != BIND_PORT) })
    }
}

/// What no static pod can go by that is the same on every node, and is there before an API server is.
pub(super) fn unfit(settings: &Settings) -> Vec<Problem> {
    let account =
        "a static pod has no account; accepted beside `kubeadm` is --k8sConfigPath, or nothing";
    let node = "the Pod is that of all nodes; leave it out: each goes by its own name";
    let taint = "a static pod runs where its file is; leave it out";
    let is = |name: &str| settings.switch(name) == Some(true);
    let all = [
        (is("inCluster"), "inCluster", account),
        (settings.text("vip_nodename").is_some(), "vip_nodename", node),
        (is("taint"), "taint", taint),
    ];
    let wrong = all.into_iter().filter(|(is_asked, ..)| *is_asked);
    let of_one_node = OF_ONE_NODE.iter().filter(|(name, _)| settings.text(name).is_some());
    let of_one_node = of_one_node.map(|(name, instead)| {
        let accepted = format!(
            "the Pod is that of all nodes, and the address that of one; accepted is {instead}, which names an interface of each, or nothing"
        );
        settings.problem(name, accepted)
    });
    wrong.map(|(_, name, why)| settings.problem(name, why)).chain(of_one_node).collect()
}

/// The Pod for every control-plane node, and the configuration for kubeadm that goes with it.
///
/// # Errors
/// Where settings ask for no address of the control plane.
pub(super) fn documents(settings: &Settings, wish: &Wish) -> Result<Vec<Value>, String> {
    let endpoint = Endpoint::of(settings)?;
    let mut documents = generate::pod(settings, wish);
    documents.push(json!({
        "apiVersion": API, "kind": "ClusterConfiguration",
        "controlPlaneEndpoint": endpoint.first, "apiServer": { "certSANs": endpoint.names },
    }));
    documents.extend(endpoint.bind_port.map(|port| {
        json!({
            "apiVersion": API, "kind": "InitConfiguration", "localAPIEndpoint": { "bindPort": port },
        })
    }));
    Ok(documents)
}
