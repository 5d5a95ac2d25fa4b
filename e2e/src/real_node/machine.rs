//! Machines that kubeadm makes nodes of: containerd, the images of a control plane, and a kubelet that runs once kubeadm has
//! written what it goes by. Nothing of a cluster is there before.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, ensure};
use lab_programs::kubernetes;
use serde_json::{Value, json};

use super::{
    PACKAGES, Services, archives, boot, config, images_of, import, path_variable, wait_for,
    write_files,
};
use crate::{
    disk::LabDir,
    image,
    node::{Node, NodeContext},
};

/// In place of systemd's programs: by name, and what they are.
const UNITS: [(&str, &str); 2] = [
    ("systemctl", include_str!("machine/systemctl.sh")),
    ("kubelet-unit", include_str!("machine/kubelet.sh")),
];

/// Makes ready what all machines of a lab share: what [`super::prepare`] does, and the images of the control plane.
pub(crate) fn prepare(dir: &LabDir, programs: &Path) -> Result<()> {
    super::prepare(dir, None)?;
    image::kubernetes::write_all(programs, &kubernetes::version()?, &images_of(dir))?;
    kubernetes::kubeadm().map(drop)
}

/// Boots the machine: the first time, or again with the disks that it had.
pub(crate) fn start(node: &NodeContext) -> Result<()> {
    let packages = PACKAGES.fetch()?;
    write_files(node, &packages)?;
    for disk in ["kubernetes/manifests", "etcd"] {
        fs::create_dir_all(node.folder()?.join(disk))?;
    }
    let own = own_programs(node)?;
    fs::create_dir_all(&own)?;
    for (name, script) in UNITS {
        let file = own.join(name);
        fs::write(&file, script).with_context(|| format!("write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let kubeadm = kubernetes::kubeadm()?;
    let (place, images) = boot(node, &packages, &[&kubeadm])?;
    let services = Services { place: &place, path: path(node)? };
    let containerd = services.start("containerd", &["containerd"])?;
    wait_for(&place, "/run/containerd/containerd.sock", &containerd)?;
    import(&services, &packages, &archives(&images)?)?;
    services.start("kubelet", &["kubelet-unit"]).map(drop)
}

/// A machine of a lab that [`crate::lab::Spec::machines`] made.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a>(pub &'a Node);

impl Machine<'_> {
    /// Runs a command as its administrator does, with kubeadm and the rest in `PATH`. Whatever it returns, the output is there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output<S: AsRef<OsStr>>(self, argv: impl IntoIterator<Item = S>) -> Result<Output> {
        self.0.place()?.output(self.argv(argv)?)
    }

    /// The same; its standard output, anything but success is an error.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec<S: AsRef<OsStr>>(self, argv: impl IntoIterator<Item = S>) -> Result<String> {
        self.0.place()?.exec(self.argv(argv)?)
    }

    /// A file of its disks `kubernetes` (`/etc/kubernetes`), `kubelet`, `etcd`, `pods` (`/var/log/pods`) or `bin`, its own
    /// programs, as the host sees it.
    ///
    /// # Errors
    /// When the node has no folder.
    pub fn file(self, path: impl AsRef<Path>) -> Result<PathBuf> {
        Ok(self.0.context.folder()?.join(path))
    }

    /// What its containers of this name have said, oldest first: of all times that they ran.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn log_of(self, container: &str) -> Result<String> {
        let mut files = Vec::new();
        for pod in fs::read_dir(self.file("pods")?)? {
            let Ok(entries) = fs::read_dir(pod?.path().join(container)) else { continue };
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort_by_key(|path| fs::metadata(path).and_then(|of| of.modified()).ok());
        let read = |path: &PathBuf| Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned());
        files.iter().map(read).collect()
    }

    fn argv<S: AsRef<OsStr>>(self, argv: impl IntoIterator<Item = S>) -> Result<Vec<OsString>> {
        let path = format!("PATH={}", path(&self.0.context)?);
        let argv = argv.into_iter().map(|word| word.as_ref().to_owned());
        Ok(["env", "--chdir=/", "HOME=/root", &path]
            .map(Into::into)
            .into_iter()
            .chain(argv)
            .collect())
    }
}

/// What kubeadm is to be told beside what it is told anywhere: the release and the images that are there, and what a kubelet
/// in a namespace needs. Documents of YAML: lines for `ClusterConfiguration`, and whole ones.
///
/// # Errors
/// When the release is unknown.
pub fn for_kubeadm() -> Result<(String, Vec<Value>)> {
    let version = kubernetes::version()?;
    let cluster = format!(
        "imageRepository: {}\nkubernetesVersion: {version}\netcd: {{local: {{imageTag: {version}}}}}\n",
        image::REGISTRY
    );
    let mut kubelet = config::kubelet();
    // What kubeadm knows itself.
    let fields = kubelet.as_object_mut().context("kubelet's configuration is no object")?;
    for known in ["address", "authentication", "authorization", "tlsCertFile", "tlsPrivateKeyFile"]
    {
        fields.remove(known);
    }
    // These settings are the host's, not the namespace's.
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    });
    Ok((cluster, vec![kubelet, proxy]))
}

/// `PATH` of the machine.
fn path(node: &NodeContext) -> Result<String> {
    let (own, kubeadm) = (own_programs(node)?, kubernetes::kubeadm()?);
    path_variable(&PACKAGES.fetch()?, &[&own, &kubeadm, &node.programs])
}

/// Where its own programs are, first in `PATH`.
fn own_programs(node: &NodeContext) -> Result<PathBuf> {
    Ok(node.folder()?.join("bin"))
}

/// A lab is of machines alone, or of nodes.
pub(crate) fn check(machines: usize, nodes: usize) -> Result<()> {
    ensure!(
        machines == 0 || nodes == 0,
        "{machines} machines and {nodes} nodes: machines have a lab of their own"
    );
    Ok(())
}
