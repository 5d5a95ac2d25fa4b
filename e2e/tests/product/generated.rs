//! `berth-announcer manifest`, judged by an API server.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_e2e::lab::Lab;
use berth_e2e::place::sibling_program;
use berth_e2e::world::kubectl;

/// As people give them to kube-vip's command of this name, for what is served here.
const FLAG_SETS: [&str; 40] = [
    "",
    "--interface eth0 --arp --services",
    "--interface eth0 --arp --services --inCluster",
    "--interface eth0 --arp --services --inCluster --taint",
    "--interface eth0 --arp --services --leaderElection",
    "--interface eth0 --arp --services --leaderElection --leaseDuration 5 --leaseRenewDuration 3 --leaseRetry 1",
    "--interface eth0 --arp --services --servicesElection",
    "--interface eth0 --arp --services --servicesElection --leaderElection",
    "--interface eth0 --arp --services --servicesLeaseName plndr-svcs-lock",
    "--interface eth0 --serviceInterface eth1 --arp --services",
    "--interface bond0.100 --arp --services --vipSubnet 32",
    "--arp --services --vipSubnet 32,128",
    "--arp --services --namespace berth",
    "--arp --services -n berth --leaderElection",
    "--arp --services --lbClassOnly",
    "--arp --services --lbClassOnly --lbClassName example.com/lan",
    "--arp --services --lbClassNameLegacyHandling=false",
    "--arp --services --onlyAllowTrafficServicePorts",
    "--arp --services --disableServiceUpdates",
    "--arp --services --enableEndpoints",
    "--arp --services --prometheusHTTPServer :2113",
    "--arp --services --prometheusHTTPServer= --healthCheckPort 8089",
    "--arp --services --healthCheckPort 0",
    "--arp --services --log -4",
    "--arp --services --instanceName edge",
    "--arp --services --loseLeadership --loseLeadershiptTimeoutSeconds 5 --allowInterfaceNotUp",
    "--arp --services --debounceTime 500ms --perServiceElectionOnDemand",
    "--arp --services --bgp=false --controlplane=false --enableLoadBalancer=false --table=false --wireguard=false",
    "--arp --services --dnsMode first --dhcpMode ipv4 --port 6443 --leaseName plndr-cp-lock",
    "--arp --services --localAS 65000 --peerAS 65000 --bgppeers 192.0.2.1:65000::false --annotations example.com",
    "--arp --services --lbForwardingMethod directroute --lbPort 6443",
    "--arp --services --image registry.example.com:5000/berth/berth-announcer",
    "--arp --services --image registry.example.com/berth-announcer:1.0 --taint",
    "--arp --services --k8sConfigPath /etc/kubernetes/super-admin.conf",
    "--arp --services --svc_namespace shop --leaderElection",
    "--arp --services --svc_namespace shop --servicesElection -n berth",
    "--arp --services --claims ignored",
    "--arp --services --berth_fence nft-timeout --berth_peer_port 2200",
    "--arp --services --leaseAnnotations {\"a\":\"b:c\"} --drainTaints shop/upkeep=now:NoSchedule",
    "--arp --services --berth_service_interfaces eth1,shop/bond0 --berth_service_vlans 5,shop/100-199 --eipGateway 192.0.2.1",
];

/// What the command prints, each document by itself.
fn generated(kind: &str, flags: &str) -> Result<Vec<String>> {
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
    let output = Command::new(program)
        .env_clear()
        .args(["manifest", kind])
        .args(flags.split_whitespace())
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    ensure!(output.status.success(), "{kind} {flags}: {}", text(output.stderr));
    let text = text(output.stdout);
    Ok(text.split("---\n").filter(|document| !document.is_empty()).map(str::to_owned).collect())
}

/// Gives all documents to the API server at once, each once, and counts what it takes.
fn given_to(lab: &Lab, file: &str, documents: &BTreeSet<String>, more: &[&str]) -> Result<()> {
    let path = lab.dir().join(file);
    let all: Vec<&str> = documents.iter().map(String::as_str).collect();
    std::fs::write(&path, all.join("---\n"))?;
    let path = path.display().to_string();
    let mut arguments = vec![
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=strict",
        "--filename",
        &path,
    ];
    arguments.extend(more);
    let said = kubectl(lab, &arguments)?;
    let taken = said.lines().filter(|line| line.contains("serverside-applied")).count();
    ensure!(taken == documents.len(), "{taken} of {}: {said}", documents.len());
    Ok(())
}

/// The rights of every set are given, and then its pods are accepted.
pub(crate) fn every_manifest_is_accepted(lab: &Lab) -> Result<()> {
    let of_all = |kinds: &[&str]| {
        let sets = kinds.iter().flat_map(|kind| FLAG_SETS.map(|flags| (*kind, flags)));
        let mut documents = BTreeSet::new();
        for (kind, flags) in sets {
            let these = generated(kind, flags)?;
            ensure!(!these.is_empty(), "{kind} {flags}: nothing");
            documents.extend(these);
        }
        anyhow::Ok(documents)
    };
    let in_one_namespace =
        generated("rbac", "--role --svc_namespace shop --leaderElection -n berth")?;
    let mut rights = of_all(&["rbac"])?;
    rights.extend(in_one_namespace);
    given_to(lab, "generated-rights.yaml", &rights, &[]).context("rights")?;
    let pods = of_all(&["pod", "daemonset"])?;
    ensure!(pods.len() > 40, "{} different ones", pods.len());
    given_to(lab, "generated-pods.yaml", &pods, &["--dry-run=server"]).context("pods")
}
