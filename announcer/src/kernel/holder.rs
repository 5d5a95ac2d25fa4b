//! Who has a UDP port of this network namespace, as far as `/proc` tells: the user always, the process where it can be seen
//! from here.

use std::fmt;
use std::fs;
use std::path::Path;

use berth_api::Quoted;

/// Whoever has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// The user.
    pub uid: u32,
    /// The process and the name that it has given itself; none if it is not seen from here, as from a pod.
    pub process: Option<(u32, Quoted)>,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "the process {pid}, {name}, of the user {}", self.uid),
            None => write!(f, "a process of the user {}", self.uid),
        }
    }
}

/// Who has `port`, in either family.
pub fn port_holder(port: u16) -> Option<PortHolder> {
    let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
    let texts = tables.iter().filter_map(|path| fs::read_to_string(path).ok());
    let (uid, inode) = texts.filter_map(|text| entry(&text, port)).next()?;
    Some(PortHolder { uid, process: process_of(inode) })
}

/// User and inode of the socket with this port, of a table as `udp4_seq_show` of the kernel writes it.
fn entry(table: &str, port: u16) -> Option<(u32, u64)> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        words.nth(1).filter(|local| local.ends_with(&port))?;
        Some((words.nth(5)?.parse().ok()?, words.nth(1)?.parse().ok()?))
    })
}

/// The process that has a socket open.
fn process_of(inode: u64) -> Option<(u32, Quoted)> {
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .find_map(|(pid, path): (u32, _)| {
            let mut files = fs::read_dir(path.join("fd")).ok()?.flatten();
            files
                .find(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&socket)))?;
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            Some((pid, Quoted::of(name.trim_end())))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_port_is_found() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let holder = port_holder(socket.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.uid, nix::unistd::getuid().as_raw());
        assert_eq!(holder.process.as_ref().map(|(pid, _)| *pid), Some(std::process::id()));
        assert!(holder.to_string().contains(&format!("the process {}", std::process::id())));
    }

    #[test]
    fn a_line_of_the_table_has_the_user_and_the_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n \
            7: 00000000:0841 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0 0\n";
        assert_eq!(entry(table, 2113), Some((1000, 4711)));
        assert_eq!(entry(table, 2112), None);
    }
}
