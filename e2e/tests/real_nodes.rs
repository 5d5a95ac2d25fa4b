//! Real nodes: what our manifests ask of a node is there, a node returns from a crash, and all of it goes.

#[path = "real_nodes/eip.rs"]
mod eip;
#[path = "real_nodes/swapped.rs"]
mod swapped;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::{
    cgroup,
    fault::Leftovers,
    lab::{Lab, Spec},
    node::Node,
    world::{curl, deploy_echo, eventually, kubectl},
};
use serde_json::Value;

/// Capabilities 12 and 13: `CAP_NET_ADMIN` and `CAP_NET_RAW` (linux/capability.h).
const NET_ADMIN_AND_NET_RAW: u64 = 1 << 12 | 1 << 13;

/// As restricted as the announcer's pods: nothing of root but two capabilities.
const RESTRICTED: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: restricted}
spec:
  selector: {matchLabels: {app: restricted}}
  template:
    metadata: {labels: {app: restricted}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      securityContext: {seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: echo
          image: localhost/berth/echo:0.1.0
          env: [{name: PORT, value: "8099"}]
          readinessProbe: {httpGet: {port: 8099}, periodSeconds: 1}
          securityContext:
            runAsUser: 0
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL], add: [NET_ADMIN, NET_RAW]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_two_capabilities_runs_on_each_of_three_real_nodes() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::up(Spec::real(3)).await?;
    let nodes_ready = start.elapsed();
    apply(&lab, RESTRICTED)?;
    kubectl(&lab, &["rollout", "status", "daemonset/restricted", "--timeout=60s"])?;
    println!(
        "3 real nodes Ready after {nodes_ready:.1?}, a pod Ready on each after {:.1?}",
        start.elapsed()
    );

    for node in lab.nodes() {
        let process = pod_process(node, "echo")?;
        let status = fs::read_to_string(process.join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("no {name} in {status}"))
        };
        let effective = u64::from_str_radix(field("CapEff")?, 16)?;
        ensure!(effective == NET_ADMIN_AND_NET_RAW, "CapEff is {effective:#x} on {}", node.name());
        ensure!(field("Seccomp")? == "2", "no seccomp filter on {}", node.name());
        ensure!(field("NoNewPrivs")? == "1", "privileges can be gained on {}", node.name());
        let mounts = fs::read_to_string(process.join("mounts"))?;
        let root = mounts.lines().find(|l| l.split(' ').nth(1) == Some("/")).context("no root")?;
        ensure!(
            root.split(' ').nth(3).is_some_and(|o| o.starts_with("ro,")),
            "the root is writable: {root}"
        );
    }
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_answer_on_their_cluster_ips_of_both_families() -> Result<()> {
    let lab = Lab::up(Spec::real(2)).await?;
    deploy_echo(&lab, "default", "hello", 4)?;
    kubectl(
        &lab,
        &[
            "expose",
            "deployment/hello",
            "--port=80",
            "--target-port=8080",
            r#"--overrides={"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#,
        ],
    )?;
    let service: Value =
        serde_json::from_str(&kubectl(&lab, &["get", "service", "hello", "-o", "json"])?)?;
    let addresses: Vec<IpAddr> = serde_json::from_value(service["spec"]["clusterIPs"].clone())?;
    ensure!(addresses.len() == 2, "{addresses:?}");
    for address in addresses {
        for node in lab.nodes() {
            // kube-proxy may need a moment after the pods are Ready.
            eventually(&format!("{address} from {}", node.name()), 20, || async {
                curl(&node.place()?, address).map(Some)
            })
            .await?;
        }
    }
    let log = kubectl(&lab, &["logs", "deployment/hello"])?;
    ensure!(log.contains("answers on port"), "kubectl logs gave {log:?}");
    swapped::the_manifests_of_kube_vip_serve_with_the_images_alone_exchanged(&lab).await?;
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_returns_from_a_crash_and_runs_its_pods_again() -> Result<()> {
    let lab = Lab::up(Spec::real(2)).await?;
    apply(&lab, RESTRICTED)?;
    kubectl(&lab, &["rollout", "status", "daemonset/restricted", "--timeout=60s"])?;
    let node = lab.node(1);
    let before = pod_process(node, "echo")?;

    lab.crash(1)?;
    ensure!(!before.exists(), "a pod outlived its node");
    let crash = Instant::now();
    tokio::task::block_in_place(|| lab.reboot(1, Leftovers::Flush))?;
    let address = node.addresses().lan.v4;
    eventually("the pod of the node that crashed", 90, || async {
        let url = format!("http://{address}:8099/");
        lab.outside().exec(["curl", "--silent", "--fail", "--max-time", "2", &url]).map(Some)
    })
    .await?;
    println!("the pod answered {:.1?} after its node crashed", crash.elapsed());
    kubectl(&lab, &["rollout", "status", "daemonset/restricted", "--timeout=60s"])?;
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_stand_still_while_their_node_is_frozen() -> Result<()> {
    let lab = Lab::up(Spec::real(1)).await?;
    apply(&lab, RESTRICTED)?;
    kubectl(&lab, &["rollout", "status", "daemonset/restricted", "--timeout=60s"])?;
    let url = format!("http://{}:8099/", lab.node(0).addresses().lan.v4);
    let ask = || lab.outside().exec(["curl", "--silent", "--fail", "--max-time", "1", &url]);
    ask().context("before")?;
    lab.freeze(0)?;
    ensure!(ask().is_err(), "a frozen node's pod answers");
    lab.thaw(0)?;
    ask().context("after")?;
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_real_node_is_left_when_its_lab_is_down() -> Result<()> {
    const SETTINGS: [&str; 3] = ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"];
    let read_settings =
        || SETTINGS.map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).ok());
    let settings = read_settings();

    let lab = Lab::up(Spec::real(1)).await?;
    deploy_echo(&lab, "default", "hello", 2)?;
    let (name, folder) = (lab.name().to_owned(), lab.dir().path().to_owned());
    let group = cgroup::of_lab(&name);
    ensure!(
        !traces(&folder, &group)?.is_empty(),
        "the traces that are looked for are not those of a lab"
    );
    let pod = pod_process(lab.node(0), "echo")?;
    ensure!(read_settings() == settings, "the host's settings changed while the lab was up");
    lab.down()?;

    let left = traces(&folder, &group)?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(!pod.exists(), "a pod still runs");
    ensure!(!folder.exists(), "{} is left", folder.display());
    ensure!(read_settings() == settings, "the host's settings changed");
    Ok(())
}

/// Mounts, cgroups and processes that carry the lab's folder or cgroup, as the host sees them.
fn traces(folder: &Path, group: &str) -> Result<Vec<String>> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/mounts")?;
    found.extend(mounts.lines().filter(|line| line.contains(&folder)).map(ToOwned::to_owned));
    let find =
        Command::new("find").args(["/sys/fs/cgroup", "-path", &format!("*/{group}")]).output()?;
    found.extend(String::from_utf8(find.stdout)?.lines().map(ToOwned::to_owned));
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let read = |name: &str| fs::read(path.join(name)).unwrap_or_default();
        let text =
            String::from_utf8_lossy(&[read("cmdline"), read("cgroup")].concat()).replace('\0', " ");
        if text.contains(&folder) || text.contains(group) {
            found.push(format!("{}: {text}", path.display()));
        }
    }
    Ok(found)
}

/// `/proc/<pid>` of the first process in a node's cgroup that has this name, as the host sees it.
fn pod_process(node: &Node, name: &str) -> Result<PathBuf> {
    let group = node.context.cgroup();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        if is && fs::read_to_string(path.join("cgroup")).is_ok_and(|text| text.contains(&group)) {
            return Ok(path);
        }
    }
    bail!("no process {name} on {}", node.name())
}

fn apply(lab: &Lab, yaml: &str) -> Result<()> {
    let file = lab.dir().join("apply.yaml");
    fs::write(&file, yaml)?;
    kubectl(lab, &["apply", "-f", &file.display().to_string()])?;
    Ok(())
}
