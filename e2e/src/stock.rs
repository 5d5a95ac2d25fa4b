//! The stock halves for real: kube-vip and kube-vip-cloud-provider, as whoever asks for them has built them. Each runs as a
//! process of the lab with the rights and the environment of its own manifests, and no others.
//!
//! Nothing of either is in this repository: neither a program nor a source nor how to build them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::apply;
use crate::process::Process;
use crate::world::{Env, World, env};

/// The account of kube-vip, and that of its cloud provider.
const ACCOUNTS: [&str; 2] = ["kube-vip", "kube-vip-cloud-controller"];

/// How the manifest of its DaemonSet is asked for: layer 2 for Services, by elections with its own times.
const ASKED: [&str; 13] = [
    "manifest",
    "daemonset",
    "--inCluster",
    "--arp",
    "--services",
    "--leaderElection",
    "--interface=eth0",
    "--leaseDuration=5",
    "--leaseRenewDuration=3",
    "--leaseRetry=1",
    "--prometheusHTTPServer=:2112",
    "--log=-4",
    "--taint=false",
];

/// Both programs.
#[derive(Clone, Debug)]
pub struct Stock {
    kube_vip: PathBuf,
    ccm: PathBuf,
}

impl Stock {
    /// The programs at these paths.
    ///
    /// # Errors
    /// When one of them is no file.
    pub fn of(kube_vip: &str, ccm: &str) -> Result<Self> {
        for program in [kube_vip, ccm] {
            ensure!(Path::new(program).is_file(), "{program}: no such program");
        }
        let path = |program: &str| std::fs::canonicalize(program).context(program.to_owned());
        Ok(Self { kube_vip: path(kube_vip)?, ccm: path(ccm)? })
    }

    /// What kube-vip says that it is.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(&self.kube_vip).arg("version").output()?;
        let said = [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        let version =
            said.split_whitespace().find(|word| word.starts_with('v') && word.contains('.'));
        Ok(version.unwrap_or(said.trim()).to_owned())
    }

    /// Gives both programs their accounts and rights in a world: kube-vip's are those that it prints itself.
    pub async fn grant(&self, world: &World) -> Result<()> {
        let rights = self.said(&["manifest", "rbac", "--arp", "--services", "--interface=eth0"])?;
        apply::create(&world.client, &rights, "kube-system").await.context("kube-vip's rights")?;
        let name = "system:kube-vip-cloud-controller-role";
        let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
        let all = ["configmaps", "endpoints", "events", "services/status", "leases"];
        let rules = [
            rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "list", "put"]),
            rule("", &all, &["*"]),
            rule("", &["nodes", "services"], &["list", "get", "watch", "update"]),
        ];
        let object = |kind: &str, name: &str, more: Value| {
            let group =
                if kind == "ServiceAccount" { "v1" } else { "rbac.authorization.k8s.io/v1" };
            let mut object =
                json!({ "apiVersion": group, "kind": kind, "metadata": { "name": name } });
            for (key, value) in more.as_object().into_iter().flatten() {
                object[key] = value.clone();
            }
            object.to_string()
        };
        let role =
            json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
        let account =
            json!({ "kind": "ServiceAccount", "name": ACCOUNTS[1], "namespace": "kube-system" });
        let objects = [
            object("ServiceAccount", ACCOUNTS[1], json!({})),
            object("ClusterRole", name, json!({ "rules": rules })),
            object("ClusterRoleBinding", name, json!({ "roleRef": role, "subjects": [account] })),
        ];
        let objects = objects.join("\n---\n");
        apply::create(&world.client, &objects, "kube-system").await.context("the provider's rights")
    }

    /// The environment of its DaemonSet.
    pub fn environment(&self) -> Result<Env> {
        let said = self.said(&ASKED)?;
        let object: Value = serde_saphyr::from_str(&said).with_context(|| said.clone())?;
        let variables = &object["spec"]["template"]["spec"]["containers"][0]["env"];
        let pair = |variable: &Value| {
            let text = |key: &str| variable[key].as_str().map(ToOwned::to_owned);
            Some((text("name")?, text("value")?))
        };
        let found: Env = variables.as_array().into_iter().flatten().filter_map(pair).collect();
        ensure!(found.contains_key("svc_enable"), "no environment in {said}");
        Ok(found)
    }

    /// A kubeconfig of kube-vip's account.
    pub async fn rights(&self, world: &World) -> Result<String> {
        Ok(world.kubeconfig(ACCOUNTS[0]).await?.display().to_string())
    }

    /// Starts kube-vip on a node, with more environment than that of its manifest.
    pub async fn announcer(
        &self,
        world: &World,
        node: usize,
        name: &str,
        more: &Env,
    ) -> Result<Process> {
        let config = self.rights(world).await?;
        let mut variables = self.environment()?;
        variables.extend(env([
            ("vip_nodename", world.lab.node(node).name()),
            ("k8s_config_file", &config),
            ("HOME", "/nowhere"),
        ]));
        variables.extend(more.clone());
        let argv = [self.kube_vip.display().to_string(), "manager".to_owned()];
        world.lab.node(node).place()?.start_with(name, argv, variables)
    }

    /// Starts the cloud provider beside the control plane.
    pub async fn ccm(&self, world: &World, name: &str) -> Result<Process> {
        let config = world.kubeconfig(ACCOUNTS[1]).await?;
        // Outside of a pod it looks for its kubeconfig at home.
        let home = world.lab.dir().join("stock-home");
        std::fs::create_dir_all(home.join(".kube"))?;
        std::fs::copy(&config, home.join(".kube/config"))?;
        let argv = [
            self.ccm.display().to_string(),
            "--OutSideCluster".to_owned(),
            format!("--kubeconfig={}", config.display()),
            "--leader-elect-resource-name=kube-vip-cloud-controller".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let home = BTreeMap::from([("HOME".to_owned(), home.display().to_string())]);
        world.lab.control_plane().start_with(name, argv, home)
    }

    /// What kube-vip prints; without what it logs.
    fn said(&self, arguments: &[&str]) -> Result<String> {
        let output =
            Command::new(&self.kube_vip).args(arguments).env("HOME", "/nowhere").output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.contains("kind:"),
            "{arguments:?}: {said}{complained}"
        );
        Ok(said)
    }
}
