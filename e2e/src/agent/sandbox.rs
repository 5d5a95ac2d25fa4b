//! Network namespaces for a bare node's pods, on a bridge of the node's.
//!
//! All state lies in the node's own `/run`, so it is gone with the node and found again by a restarted agent.

use std::{
    fs::{self, File},
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use serde::{Deserialize, Serialize};

use crate::{addresses::NodeAddresses, disk::replace, place::lab_program, process::Pidded};

const FOLDER: &str = "/run/pods";
const BRIDGE: &str = "pods";

/// All pods of the node.
#[derive(Clone, Debug)]
pub(super) struct Sandboxes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: String,
    addresses: NodeAddresses,
    programs: PathBuf,
    // Held while a number is chosen and written.
    numbers: Mutex<()>,
}

/// One pod's share of the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sandbox {
    /// The last part of its addresses.
    number: u8,
    /// Its network namespace; none if it uses the node's.
    pub(super) net: Option<PathBuf>,
    /// IPv4 first.
    pub(super) addresses: Vec<IpAddr>,
    /// Its containers' processes, by the pids of the node's PID namespace.
    pub(super) processes: Vec<Pidded>,
    /// How often they were started again.
    pub(super) restarts: i32,
}

impl Sandboxes {
    /// Makes the bridge, or takes the one that is there.
    pub(super) fn open(node: &str, addresses: NodeAddresses) -> Result<Self> {
        fs::create_dir_all(FOLDER)?;
        if !Path::new("/sys/class/net").join(BRIDGE).exists() {
            let gateway = addresses.pod_gateway();
            ip(
                None,
                &format!(
                    "link add {BRIDGE} type bridge forward_delay 0\nlink set {BRIDGE} up\n\
                 address add {}/24 dev {BRIDGE}\naddress add {}/64 dev {BRIDGE} nodad\n",
                    gateway.v4, gateway.v6
                ),
            )
            .context("make the pods' bridge")?;
        }
        let programs = lab_program()?.parent().context("no folder of programs")?.to_owned();
        let node = node.to_owned();
        Ok(Self(Arc::new(Inner { node, addresses, programs, numbers: Mutex::new(()) })))
    }

    /// The node's name.
    pub(super) fn node(&self) -> &str {
        &self.0.node
    }

    /// The node's own addresses.
    pub(super) fn host(&self) -> [IpAddr; 2] {
        self.0.addresses.lan.both()
    }

    /// The folder with this workspace's programs.
    pub(super) fn programs(&self) -> &Path {
        &self.0.programs
    }

    /// The sandbox of a pod as it was saved, if there is one.
    pub(super) fn load(&self, uid: &str) -> Option<Sandbox> {
        serde_json::from_slice(&fs::read(file(uid)).ok()?).ok()
    }

    /// Saves it, for a later agent. Whole: who reads half of it would take its number for a free one.
    pub(super) fn save(&self, uid: &str, sandbox: &Sandbox) -> Result<()> {
        replace(&file(uid), serde_json::to_vec(sandbox)?)
    }

    /// Makes the sandbox of a pod on the node's own network.
    pub(super) fn on_host(&self, uid: &str) -> Result<Sandbox> {
        let addresses = self.host().to_vec();
        let sandbox =
            Sandbox { number: 0, net: None, addresses, processes: Vec::new(), restarts: 0 };
        self.save(uid, &sandbox)?;
        Ok(sandbox)
    }

    /// Makes a pod's network namespace with addresses and routes.
    pub(super) fn create(&self, uid: &str) -> Result<Sandbox> {
        let sandbox = {
            let _choosing = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            let taken: Vec<u8> = self.all().iter().map(|(_, s)| s.number).collect();
            let number = (2..=254)
                .find(|n| !taken.contains(n))
                .context("all 253 pod addresses are taken")?;
            let v4 = u32::from(self.0.addresses.pods4.network()) + u32::from(number);
            let v6 = u128::from(self.0.addresses.pods6.network()) + u128::from(number);
            let addresses = vec![IpAddr::V4(v4.into()), IpAddr::V6(v6.into())];
            let net = Some(Path::new(FOLDER).join(format!("{uid}.net")));
            let sandbox = Sandbox { number, net, addresses, processes: Vec::new(), restarts: 0 };
            self.save(uid, &sandbox)?;
            sandbox
        };
        let made = self.connect(&sandbox);
        if made.is_err() {
            self.remove(uid);
        }
        made.map(|()| sandbox)
    }

    fn connect(&self, sandbox: &Sandbox) -> Result<()> {
        let net = sandbox.net.as_deref().context("on the host's network")?;
        File::create(net)?;
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?;
            // An address is used again with another MAC: a pod says where its own is, as one of the CNI plugin `bridge` does.
            fs::write("/proc/sys/net/ipv4/conf/default/arp_notify", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/default/ndisc_notify", "1")?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), net, none, MsFlags::MS_BIND, none)?;
            Ok(())
        })
        .context("make a network namespace")?;
        let port = port(sandbox.number);
        ip(
            None,
            &format!(
                "link add {port} type veth peer name eth0 netns {}\nlink set {port} master {BRIDGE} up\n",
                net.display()
            ),
        )?;
        let gateway = self.0.addresses.pod_gateway();
        let [v4, v6] = sandbox.addresses[..] else { bail!("not two addresses") };
        ip(
            Some(net),
            &format!(
                "link set lo up\nlink set eth0 up\naddress add {v4}/24 dev eth0\naddress add {v6}/64 dev eth0\n\
             route add default via {}\nroute add default via {}\n",
                gateway.v4, gateway.v6
            ),
        )
    }

    /// Kills a pod's processes and removes its namespace. None there is no error.
    pub(super) fn remove(&self, uid: &str) {
        let Some(sandbox) = self.load(uid) else { return };
        for process in &sandbox.processes {
            if let Err(e) = process.kill() {
                eprintln!("pod {uid}: {e:#}");
            }
        }
        if let Some(net) = &sandbox.net {
            let _ = umount2(net, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(net);
            // The kernel frees namespaces in its own time; the port's name may be wanted at once.
            let _ = ip(None, &format!("link delete {}\n", port(sandbox.number)));
        }
        let _ = fs::remove_file(file(uid));
    }

    /// Removes all but the named pods.
    pub(super) fn retain(&self, uids: &[String]) {
        for (uid, _) in self.all() {
            if !uids.contains(&uid) {
                self.remove(&uid);
            }
        }
    }

    fn all(&self) -> Vec<(String, Sandbox)> {
        let Ok(entries) = fs::read_dir(FOLDER) else { return Vec::new() };
        let uids = entries
            .filter_map(|e| Some(e.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
        uids.filter_map(|uid| self.load(&uid).map(|s| (uid, s))).collect()
    }
}

fn file(uid: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{uid}.json"))
}

fn port(number: u8) -> String {
    format!("pod{number}")
}

/// Runs `ip` commands in a network namespace, or in the node's.
fn ip(net: Option<&Path>, script: &str) -> Result<()> {
    let mut child = on_thread(|| {
        if let Some(net) = net {
            setns(File::open(net)?, CloneFlags::CLONE_NEWNET)?;
        }
        let mut command = Command::new("ip");
        Ok(command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    })
    .context("start ip")?;
    child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Namespaces belong to threads: what enters one needs a thread of its own.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| bail!("a thread panicked"))
}
