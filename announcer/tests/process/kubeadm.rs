//! `berth-announcer kubeadm`: what it prints for a node that joins, and what it takes off a node that leaves.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::namespace::{address, run};
use crate::{ADDRESS, Peer, SOON, Scene, Test, real, signal_to};

pub(crate) fn tests() -> Vec<(String, Test)> {
    tests![
        a_node_that_joins_gets_the_pod_that_the_others_have,
        a_node_that_leaves_keeps_nothing_whether_its_pod_ends_or_was_killed,
    ]
}

const FLAGS: [&str; 4] = ["--address", ADDRESS, "--interface", "eth0"];

/// What the program says, and how it ends.
async fn kubeadm(words: &[&str]) -> (String, String, Option<i32>) {
    kubeadm_with(words, &std::env::var("PATH").unwrap()).await
}

/// The same where other programs are found here.
async fn kubeadm_with(words: &[&str], path: &str) -> (String, String, Option<i32>) {
    let mut command = Command::new(real());
    let output = command.arg("kubeadm").args(words).env_clear().env("PATH", path).output().await;
    let output = output.expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

fn words<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    first.iter().chain(more).copied().collect()
}

fn parsed(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

async fn a_node_that_joins_gets_the_pod_that_the_others_have() {
    let scene = Scene::new().await;
    let config = scene.kubeconfig.display().to_string();
    let join = ["join", "--config", &config];
    let (_, told, code) = kubeadm(&join).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no Pod of berth-announcer has the control plane's address"), "{told}");
    let (first, told, code) = kubeadm(&words(
        &["init"],
        &words(&FLAGS, &["--leaseDuration", "5", "--leaseRenewDuration", "3"]),
    ))
    .await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("--control-plane-endpoint {ADDRESS}:6443")), "{told}");
    let [pod] = &parsed(&first)[..] else { panic!("{first}") };
    for node in ["node-a", "node-b"] {
        let mut mirror = pod.clone();
        mirror["spec"]["nodeName"] = json!("node-a");
        mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
        let path = format!("/api/v1/namespaces/kube-system/pods/berth-control-plane-{node}");
        scene.api.put(&path, mirror);
    }
    let (joined, told, code) = kubeadm(&join).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(parsed(&joined), parsed(&first));
    assert!(told.contains(&format!("kubeadm join {ADDRESS}:6443 --control-plane")), "{told}");
    let nowhere = ["join", "--config", "/nowhere/admin.conf"];
    let (_, told, code) = kubeadm(&nowhere).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("/nowhere/admin.conf") && told.contains("give the settings as flags"),
        "{told}"
    );
    let (by_flags, told, _) = kubeadm(&words(&nowhere, &FLAGS)).await;
    assert!(by_flags.contains(ADDRESS), "{told}");
}

/// A file with a Pod, as the kubelet would have it.
async fn manifest(folder: &Path) -> PathBuf {
    let (pod, told, code) = kubeadm(&words(&["init"], &FLAGS)).await;
    assert_eq!(code, Some(0), "{told}");
    let file = folder.join("berth-control-plane.yaml");
    std::fs::write(&file, pod).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

async fn a_node_that_leaves_keeps_nothing_whether_its_pod_ends_or_was_killed() {
    let scene = Scene::new().await;
    let mut peer = Peer::new().await;
    let other = scene.folder.join("kube-vip.yaml");
    std::fs::write(&other, "kind: Pod\nspec: {containers: [{name: kube-vip}]}\n").unwrap();
    let file = other.display().to_string();
    let (_, told, code) = kubeadm(&["reset", "--manifest", &file]).await;
    assert!(code == Some(1) && told.contains("and stays"), "{told}");
    assert!(other.exists());
    for ends in [true, false] {
        let file = manifest(&scene.folder).await;
        let mut announcer = scene.control_plane().spawn().expect("an announcer");
        peer.until(true, "it serves", &scene.log).await;
        if !ends {
            announcer.kill().await.unwrap();
            assert!(address("eth0", ADDRESS).is_some(), "it could not take it off");
        }
        let name = file.display().to_string();
        let reset = ["reset", "--manifest", &name];
        let kubelet = async {
            let begun = Instant::now();
            while file.exists() {
                assert!(begun.elapsed() < SOON, "its file stays");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if ends {
                signal_to(&announcer, Signal::SIGTERM);
                announcer.wait().await.unwrap();
            }
        };
        let path = if ends { std::env::var("PATH").unwrap() } else { "/nowhere".to_owned() };
        let ((_, mut told, mut code), ()) = tokio::join!(kubeadm_with(&reset, &path), kubelet);
        if !ends {
            assert!(code == Some(1) && told.contains("tables of it are left"), "{told}");
            (_, told, code) = kubeadm(&reset).await;
            assert!(told.contains("there is no such file"), "{told}");
        }
        assert_eq!(code, Some(0), "{told}");
        assert!(address("eth0", ADDRESS).is_none(), "{told}");
        assert_eq!(run("nft list ruleset"), "", "{told}");
        assert_eq!(run("tc filter show dev eth0 ingress"), "", "{told}");
    }
}
