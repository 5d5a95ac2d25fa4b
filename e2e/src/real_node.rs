//! Real nodes: containerd, kubelet and kube-proxy in a keeper's namespaces, which run any image as real pods.
//!
//! The node is made of the host's own programs, read only, and of files and mounts of its own; nothing is installed
//! and no registry is asked. All paths and ports inside are the usual ones.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cgroup,
    disk::LabDir,
    node::NodeContext,
    packages::Packages,
    pki::Pki,
    place::{IP_BATCH, Place, lab_program},
    process::Process,
};

mod cgroup2;
mod config;
pub mod machine;

/// What a node needs beyond what the host has.
const PACKAGES: Packages = Packages {
    kind: "packages",
    names: || Ok(["containerd", "runc", "containernetworking-plugins"].map(Into::into).into()),
    needed: &[
        "usr/bin/containerd",
        "usr/bin/containerd-shim-runc-v2",
        "usr/bin/ctr",
        "usr/sbin/runc",
        "usr/lib/cni/bridge",
    ],
};

/// The folder of containerd, runc and the CNI plugins, fetched if need be.
pub(crate) fn packages() -> Result<PathBuf> {
    PACKAGES.fetch()
}

/// The pods' bridge.
const BRIDGE: &str = "cni0";

/// Gives a node its root file system.
const BOOT: &str = include_str!("real_node/boot.sh");

/// Makes ready what all real nodes of a lab share: containerd's programs, and the images in `images`, or, without it,
/// those of the programs that lie beside the lab's own.
pub fn prepare(dir: &LabDir, images: Option<&Path>) -> Result<()> {
    thread::scope(|scope| {
        let packages = scope.spawn(|| PACKAGES.fetch());
        let folder = images_of(dir);
        match images {
            Some(given) => symlink(
                fs::canonicalize(given).with_context(|| format!("images {}", given.display()))?,
                &folder,
            )?,
            None => {
                let programs = lab_program()?;
                crate::image::berth::write_built(
                    programs.parent().unwrap_or(Path::new("/")),
                    &folder,
                )?;
            }
        }
        ensure!(!archives(&folder)?.is_empty(), "no image archives in {}", folder.display());
        packages
            .join()
            .unwrap_or_else(|_| anyhow::bail!("a thread panicked while fetching packages"))?;
        Ok(())
    })
}

/// Boots the node: the first time, or again after its keeper was killed. Returns when kubelet runs.
pub fn start(node: &NodeContext) -> Result<()> {
    let packages = PACKAGES.fetch()?;
    write_files(node, &packages)?;
    write_credentials(node)?;
    let (place, images) = boot(node, &packages, &[])?;

    let services = Services { place: &place, path: path_variable(&packages, &[&node.programs])? };
    let containerd = services.start("containerd", &["containerd"])?;
    wait_for(&place, "/run/containerd/containerd.sock", &containerd)?;
    services
        .start("kube-proxy", &node.kube_proxy().iter().map(String::as_str).collect::<Vec<_>>())?;
    import(&services, &packages, &archives(&images)?)?;
    let [v4, v6] = node.addresses.lan.both();
    services.start(
        "kubelet",
        &[
            "kubelet",
            "--config=/etc/kubernetes/kubelet.yaml",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            &format!("--hostname-override={}", node.name),
            &format!("--node-ip={v4},{v6}"),
        ],
    )?;
    Ok(())
}

/// Gives the node its namespaces, its root file system, in which `programs` are seen as well, and the pods' bridge. Gives
/// the folder of image archives, too.
fn boot(node: &NodeContext, packages: &Path, programs: &[&Path]) -> Result<(Place, PathBuf)> {
    let images = fs::canonicalize(images_of(&node.dir)).context("the lab has no images")?;
    // kubelet would look for the containers of an earlier boot, three seconds for each.
    cgroup::remove(&node.cgroup())?;
    cgroup2::delegate(&node.cgroup())?;

    let mut shared = vec![node.dir.path(), &node.programs, packages];
    shared.extend(programs);
    if !images.starts_with(node.dir.path()) {
        shared.push(&images);
    }
    let shared =
        shared.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n");
    let folder = node.folder()?;
    let script = folder.join("boot.sh");
    fs::write(&script, BOOT)?;
    let place = node.start_keeper(vec![
        "env".into(),
        format!("NODE_DIR={}", folder.display()),
        format!("SHARED={shared}"),
        "/bin/sh".into(),
        script.display().to_string(),
    ])?;
    make_bridge(node, &place)?;
    Ok((place, images))
}

/// Starts the node's services in a common environment.
struct Services<'a> {
    place: &'a Place,
    path: String,
}

impl Services<'_> {
    fn start(&self, name: &str, argv: &[&str]) -> Result<Process> {
        // The keeper's working directory is one of the host's, which the node cannot see.
        let argv = ["env", "--chdir=/"].into_iter().chain(argv.iter().copied());
        self.place.start_with(name, argv, self.environment())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        [("PATH", self.path.as_str()), ("HOME", "/root"), ("TMPDIR", "/tmp")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }
}

fn images_of(dir: &LabDir) -> PathBuf {
    dir.join("images")
}

/// The image archives in a folder, in the order of their names.
fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "tar"))
        .collect();
    found.sort();
    Ok(found)
}

/// Writes the node's configuration and makes its disks. On a later boot the disks are as they were left.
fn write_files(node: &NodeContext, packages: &Path) -> Result<()> {
    let folder = node.folder()?;
    for disk in ["containerd", "kubelet", "pods"] {
        fs::create_dir_all(folder.join(disk))?;
    }
    write_etc(node, "hostname", format!("{}\n", node.name).as_bytes())?;
    write_etc(node, "hosts", config::hosts(&node.name).as_bytes())?;
    let machine_id = config::machine_id(node.dir.name(), &node.name);
    write_etc(node, "machine-id", format!("{machine_id}\n").as_bytes())?;
    write_etc(node, "containerd/config.toml", config::containerd(packages).as_bytes())?;
    let cni = config::cni(&node.addresses, BRIDGE).to_string();
    write_etc(node, "cni/net.d/10-pods.conflist", cni.as_bytes())
}

/// What kubelet goes by, and is known by.
fn write_credentials(node: &NodeContext) -> Result<()> {
    let serving = Pki::open(&node.dir.join("pki"))?.server(
        &format!("{}-kubelet", node.name),
        &[&node.name],
        &[node.addresses.lan.both(), node.addresses.api.both()].concat(),
    )?;
    let copy = |name: &str, from: &Path| {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        write_etc(node, name, &bytes)
    };
    write_etc(node, "kubernetes/kubelet.yaml", config::kubelet().to_string().as_bytes())?;
    copy("kubernetes/kubelet.conf", &node.kubelet_kubeconfig()?)?;
    copy("kubernetes/ca.crt", &node.ca())?;
    copy("kubernetes/kubelet.crt", &serving.cert)?;
    copy("kubernetes/kubelet.key", &serving.key)
}

/// Writes a file of what lies over the host's `/etc`.
fn write_etc(node: &NodeContext, name: &str, bytes: &[u8]) -> Result<()> {
    let path = node.folder()?.join("etc").join(name);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Makes the pods' bridge ahead of the CNI plugin, which else waits for the address to pass duplicate detection.
/// The bridge of an earlier boot is gone with it: its pods are.
fn make_bridge(node: &NodeContext, place: &Place) -> Result<()> {
    let _ = place.output(["ip", "link", "delete", BRIDGE])?;
    let gateway = node.addresses.pod_gateway();
    let (prefix4, prefix6) = (node.addresses.pods4.prefix(), node.addresses.pods6.prefix());
    let script = format!(
        "link add {BRIDGE} type bridge\n\
         link set {BRIDGE} up\n\
         address add {}/{prefix4} dev {BRIDGE}\n\
         address add {}/{prefix6} dev {BRIDGE} nodad\n",
        gateway.v4, gateway.v6
    );
    place.exec_with_input(IP_BATCH, script).context("make the pods' bridge")?;
    Ok(())
}

/// Loads images into containerd's store, those that an earlier boot loaded excepted.
fn import(services: &Services<'_>, packages: &Path, archives: &[PathBuf]) -> Result<()> {
    let ctr = packages.join("usr/bin/ctr").display().to_string();
    for archive in archives {
        let archive = archive.display().to_string();
        services
            .place
            .exec([ctr.as_str(), "--namespace=k8s.io", "images", "import", &archive])
            .with_context(|| format!("load {archive}"))?;
    }
    Ok(())
}

fn wait_for(place: &Place, socket: &str, server: &Process) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{}/root{socket}", place.keeper.id.pid));
    let start = Instant::now();
    while !path.exists() {
        ensure!(server.is_alive(), "{} ended:\n{}", server.name, server.log_tail());
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "{} does not listen:\n{}",
            server.name,
            server.log_tail()
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// `PATH`: `programs` first, then containerd's, then the host's.
fn path_variable(packages: &Path, programs: &[&Path]) -> Result<String> {
    let own = programs.iter().map(|path| (*path).to_owned());
    let own = own.chain([packages.join("usr/bin"), packages.join("usr/sbin")]);
    let host = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .map(PathBuf::from);
    let all = std::env::join_paths(own.chain(host)).context("a folder's name has a colon")?;
    all.into_string().map_err(|path| anyhow::anyhow!("{} is not UTF-8", Path::new(&path).display()))
}
