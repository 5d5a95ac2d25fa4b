//! keepalived, as a Debian package brings it: VRRP with one address, and nobody takes it back.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use crate::addresses::Net;
use crate::lab::Lab;
use crate::process::Process;

/// keepalived on some nodes of a lab.
pub(super) struct Keepalived {
    advert: Duration,
    address: IpAddr,
    starts: usize,
    processes: Vec<Option<Process>>,
}

impl Keepalived {
    pub(super) fn new(nodes: usize, advert: Duration, address: IpAddr) -> Self {
        Self { advert, address, starts: 0, processes: vec![None; nodes] }
    }

    pub(super) fn start(&mut self, lab: &Lab, node: usize) -> Result<()> {
        self.starts += 1;
        let file = lab.dir().join(format!("keepalived-{node}.conf"));
        std::fs::write(&file, self.configuration(node))?;
        let file = format!("--use-file={}", file.display());
        let argv = ["keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp", &file];
        let name = format!("keepalived-{}", self.starts);
        self.processes[node] = Some(lab.node(node).place()?.start(&name, argv)?);
        Ok(())
    }

    /// Whether every node is master or backup.
    pub(super) fn is_settled(&self) -> bool {
        let mut logs = self.processes.iter().map(|p| p.as_ref().map(Process::log_text));
        logs.all(|log| log.is_some_and(|log| log.contains("Entering ")))
    }

    pub(super) fn logs(&self) -> String {
        self.processes.iter().flatten().map(Process::log_tail).collect::<Vec<_>>().join("\n---\n")
    }

    /// Different priorities, so that of two backups one is first (RFC 5798, section 6.1: skew time). Intervals below
    /// one second need version 3 of the protocol.
    fn configuration(&self, node: usize) -> String {
        let version = if self.advert < Duration::from_secs(1) { 3 } else { 2 };
        format!(
            "vrrp_instance web {{\n  state BACKUP\n  nopreempt\n  version {version}\n  interface {}\n  \
             virtual_router_id 51\n  priority {}\n  advert_int {}\n  \
             virtual_ipaddress {{\n    {} dev {0}\n  }}\n}}\n",
            Net::Lan.interface(),
            150 - 10 * node,
            self.advert.as_secs_f64(),
            self.address,
        )
    }
}
