//! The veth between the host's network namespace and the control plane's: the one thing of a lab that others can see.
//!
//! Its name is unique in the host's namespace, so making it is what claims the slot. Its number is never used again
//! while the machine is up, so nobody removes another lab's.

use std::{
    fs,
    io::Write,
    os::fd::AsRawFd,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    addresses::Slot,
    disk::LabDir,
    place::{IP_BATCH, Place},
};

/// The link as the lab's folder remembers it, in `link.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Link {
    slot: Slot,
    index: u32,
}

/// Makes the link in the first slot that is free.
pub(crate) fn join(control_plane: &Place) -> Result<Slot> {
    for slot in (0..=u8::MAX).map(Slot) {
        let interface = slot.interface();
        if index_of(&interface).is_some() {
            continue;
        }
        let netns = control_plane.netns_from_host().display().to_string();
        let script = format!(
            "link add {interface} type veth peer name host netns {netns}\n\
             address add {}/30 dev {interface}\nlink set {interface} up\n",
            slot.host()
        );
        match run(&script) {
            Ok(()) => {
                let index = index_of(&interface).context("the new link is gone")?;
                control_plane.dir.save("link", &Link { slot, index })?;
                return Ok(slot);
            }
            // Another lab was quicker.
            Err(e) if format!("{e:#}").contains("File exists") => {}
            Err(e) => return Err(e.context("join the control plane with the host")),
        }
    }
    bail!("all 256 links berthlab0..255 are taken: `lab down` the labs you do not need")
}

/// Removes the link of a lab. None is no error.
pub(crate) fn remove(dir: &LabDir) -> Result<()> {
    match dir.load::<Link>("link") {
        Ok(link) => {
            delete(link.index).with_context(|| format!("remove the link {}", link.slot.interface()))
        }
        Err(_) => Ok(()),
    }
}

/// RTM_DELLINK by number (rtnetlink(7)), which `ip link delete` cannot: a name may already be another lab's.
fn delete(index: u32) -> Result<()> {
    let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
    let socket = socket(AddressFamily::Netlink, kind.0, kind.1, kind.2)?;
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes());
    message.extend(libc::RTM_DELLINK.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK)?;
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // struct ifinfomsg: family, padding, type, index, flags, change.
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer[..length].get(16..20).context("a short answer")?;
    match i32::from_ne_bytes(code.try_into()?) {
        0 => Ok(()),
        code if code == -libc::ENODEV => Ok(()),
        code => bail!("{}", Errno::from_raw(-code)),
    }
}

fn index_of(interface: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(interface).join("ifindex");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn run(script: &str) -> Result<()> {
    let mut child = Command::new(IP_BATCH[0])
        .args(&IP_BATCH[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip")?;
    child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
