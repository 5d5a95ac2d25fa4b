//! Takes the control plane's address off a node that leaves it: the file of the Pod, which the kubelet then ends, and what is left
//! of one that could not end by itself.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use berth_runtime::logs;
use berth_runtime::supervise::Supervisor;

use super::pods;
use crate::config::{Config, DEFAULT_FOLDER, Settings};
use crate::instance::Instance;
use crate::locks::{self, WhenTaken};
use crate::peers::kept;
use crate::sweep;

/// Where the Pod belongs.
pub(super) const MANIFEST: &str = "/etc/kubernetes/manifests/berth-control-plane.yaml";

/// How long the kubelet may take to see that a file is gone (20 s, `fileCheckFrequency`), and the Pod to end (15 s).
const ENDING: Duration = Duration::from_secs(60);

/// Takes it off.
///
/// # Errors
/// When the file is another program's, the Pod runs on, or something is left.
pub(super) async fn run(file: &Path) -> anyhow::Result<()> {
    logs::init("info", logs::Format::Text).map_err(anyhow::Error::msg)?;
    sweep::is_permitted()?;
    let folder = folder(file);
    let instance = match instance(file)? {
        Some(instance) => {
            std::fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
            tracing::info!(file = %file.display(), "removed: the kubelet ends the Pod, which gives the address back");
            instance
        }
        None => {
            tracing::info!(file = %file.display(), "there is no such file");
            Instance::of_roles(true, false)
        }
    };
    let beside = pods::told_of(&pods::beside(file));
    beside.iter().for_each(|told| tracing::warn!("{told}"));
    ended(&instance, beside.as_deref()).await?;
    let mut supervisor = Supervisor::new();
    sweep::node(&instance, &mut supervisor).await?;
    kept::forget(&folder).with_context(|| format!("removing what is in {}", folder.display()))?;
    tracing::info!(
        folder = %folder.display(),
        "nothing of it is left here, nor in this folder of its view, if its file has named no other (berth_cp_folder); what the node says of its API server goes with its Node: kubectl delete node"
    );
    Ok(())
}

/// Whose addresses the Pod of the file has; nothing where there is no file.
fn instance(file: &Path) -> anyhow::Result<Option<Instance>> {
    let of = |config: Option<Config>| config.map(|config| config.core.instance);
    Ok(config(file)?.map(|config| of(config).unwrap_or_else(|| Instance::of_roles(true, false))))
}

/// Where the Pod of the file has kept its view, if it has kept one.
fn folder(file: &Path) -> PathBuf {
    let config = config(file).ok().flatten().flatten();
    let own = config.as_ref().and_then(|config| config.election.of_control_plane());
    own.and_then(|own| own.folder.clone()).unwrap_or_else(|| DEFAULT_FOLDER.into())
}

/// What the Pod of the file is to do, if its settings are accepted; nothing where there is no file.
fn config(file: &Path) -> anyhow::Result<Option<Option<Config>>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => bail!("{}: cannot be read: {error}", file.display()),
    };
    let Some(given) = pods::read(&text).as_ref().and_then(pods::given) else {
        bail!(
            "{}: it is not the Pod of the control plane's address that berth-announcer prints, and stays; name that by --manifest",
            file.display()
        );
    };
    let settings = Settings::gather(given.environment, []);
    Ok(Some(Config::parse(&settings.without(&["config_file"]), "node").ok()))
}

/// Waits until no announcer of this name runs here.
async fn ended(instance: &Instance, beside: Option<&str>) -> anyhow::Result<()> {
    let waiting = locks::take(instance, WhenTaken::Wait);
    match tokio::time::timeout(ENDING, waiting).await {
        Ok(taken) => taken.map(drop).map_err(anyhow::Error::from),
        Err(_) => {
            let why = locks::take(instance, WhenTaken::End).await.err();
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            let end = beside.unwrap_or("end its container, or the DaemonSet that it is of");
            bail!("it runs still, {ENDING:?} later{why}; {end}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pod_of_the_control_planes_address_is_taken_off() {
        let folder = std::env::temp_dir().join(format!("berth-reset-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pod.yaml");
        assert_eq!(instance(&file).unwrap(), None);
        let pod = include_str!("../../../examples/08-control-plane/berth-control-plane.yaml");
        std::fs::write(&file, pod).unwrap();
        assert_eq!(instance(&file).unwrap().unwrap().name(), "cp");
        let with_services = pod.replace(
            "- name: prometheus_server",
            "- name: svc_enable\n      value: 'true'\n    - name: prometheus_server",
        );
        assert_eq!(pods::beside(&file), [""; 0].map(PathBuf::from));
        for (name, text) in [("pod.yaml.bak", pod), (".pod.yaml", pod), ("other", "kind: Pod")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let beside = pods::beside(&file);
        assert_eq!(beside, [folder.join("pod.yaml.bak")]);
        let told = pods::told_of(&beside).unwrap();
        assert!(told.contains("pod.yaml.bak: the kubelet starts this one as well"), "{told}");
        std::fs::write(&file, with_services).unwrap();
        assert_eq!(instance(&file).unwrap().unwrap().name(), "cp-svc");
        for other in [
            pod.replace("name: cp_enable", "name: svc_enable"),
            pod.replace(
                "name: berth-control-plane\n    readiness",
                "name: kube-vip\n    readiness",
            ),
            "no: pod".to_owned(),
            "{{".to_owned(),
        ] {
            std::fs::write(&file, other).unwrap();
            assert!(instance(&file).unwrap_err().to_string().contains("and stays"));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
