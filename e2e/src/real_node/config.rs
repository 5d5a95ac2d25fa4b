//! What the node's programs are told, as pure values.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

use serde_json::{Value, json};

use crate::{addresses::NodeAddresses, image::berth::pause_reference};

/// containerd's `config.toml`.
pub(super) fn containerd(packages: &Path) -> String {
    let (sandbox, plugins) = (pause_reference(), packages.join("usr/lib/cni"));
    format!(
        r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  disable_apparmor = true
  # Where root lacks CAP_SYS_RESOURCE no sandbox could lower its score, and none would start.
  restrict_oom_score_adj = true
  disable_tcp_service = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{}"
    conf_dir = "/etc/cni/net.d"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        plugins.display()
    )
}

/// kubelet's configuration, in JSON, which is YAML.
pub(super) fn kubelet() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "::",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // The host's own tree is read only.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        // The disk is the host's, and how full it is says nothing about the node.
        "evictionHard": {
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        // The lab has no DNS: a look-up fails at once, where an absent server would let it wait.
        "resolvConf": "",
        "clusterDNS": ["127.0.0.1"],
        // A whole DaemonSet and its like start at once.
        "maxPods": 250,
        "registryPullQPS": 0,
        "eventRecordQPS": 50,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "shutdownGracePeriod": "0s",
    })
}

/// The CNI configuration list: a bridge with addresses of both families out of the node's pod networks.
/// Nothing is masqueraded: every host of the lab has routes to the pods.
pub(super) fn cni(addresses: &NodeAddresses, bridge: &str) -> Value {
    let ranges: Vec<_> =
        addresses.pod_cidrs().iter().map(|cidr| json!([{"subnet": cidr.to_string()}])).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    // In memory: an address is not held by a pod of an earlier boot.
                    "dataDir": "/run/cni",
                    "ranges": ranges,
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// `/etc/hosts`.
pub(super) fn hosts(node: &str) -> String {
    format!("127.0.0.1 localhost {node}\n::1 localhost {node}\n")
}

/// `/etc/machine-id`: one of its own for every node, the same after a reboot.
pub(super) fn machine_id(lab: &str, node: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, lab, node).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_take_addresses_of_both_families_from_the_nodes_own_networks() {
        let cni = cni(&NodeAddresses::new(2), "cni0");
        let ranges = &cni["plugins"][0]["ipam"]["ranges"];
        assert_eq!(
            ranges,
            &json!([[{"subnet": "10.244.2.0/24"}], [{"subnet": "fd00:244:0:2::/64"}]])
        );
    }

    #[test]
    fn machine_ids_are_stable_distinct_and_well_formed() {
        let id = machine_id("a", "node0");
        assert_eq!(id, machine_id("a", "node0"));
        assert_ne!(id, machine_id("a", "node1"));
        assert_ne!(id, machine_id("b", "node0"));
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    }
}
