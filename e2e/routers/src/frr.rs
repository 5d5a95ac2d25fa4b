//! FRR: zebra and bgpd without its own scripts, asked by `vtysh`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{Group, User, chown};
use serde_json::Value;

use crate::ask::ask;
use crate::plan::{Daemon, Family, Neighbor, Plan, Program, Route, Session, name_of};

/// Where Debian's package frr has its daemons.
const DAEMONS: &str = "/usr/lib/frr";

/// FRR, of Debian's package frr.
#[derive(Debug)]
pub struct Frr;

impl Program for Frr {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn configure(&self, plan: &Plan, folder: &Path) -> Result<Vec<Daemon>> {
        // Its daemons become this user, and make their sockets as that.
        let user =
            User::from_name("frr")?.context("no user frr: Debian's package frr is needed")?;
        let group = Group::from_name("frr")?.context("no group frr")?;
        chown(folder, Some(user.uid), Some(group.gid))?;
        let log = format!("log file {}\n", folder.join("log").display());
        std::fs::write(folder.join("zebra.conf"), format!("{log}{}", forwarding(plan.forwards)))?;
        std::fs::write(folder.join("bgpd.conf"), format!("{log}{}", speaker(plan)))?;
        Ok(vec![daemon(folder, "zebra", &[]), daemon(folder, "bgpd", kernel(plan.forwards))])
    }

    fn routes(&self, plan: &Plan, folder: &Path, prefix: &str) -> Result<Vec<Route>> {
        let family = Family::of(prefix);
        let said = self.says(folder, &format!("show bgp {family} unicast {prefix} json"))?;
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let paths = said["paths"].as_array().cloned().unwrap_or_default();
        Ok(paths.iter().map(|path| route(plan, path)).collect())
    }

    fn count(&self, folder: &Path, family: Family) -> Result<usize> {
        let said = self.says(folder, &format!("show bgp {family} unicast summary json"))?;
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let peers = said["peers"].as_object().cloned().unwrap_or_default();
        let counted = peers.values().filter_map(|peer| peer["pfxRcd"].as_u64()).sum::<u64>();
        Ok(usize::try_from(counted)?)
    }

    fn session(&self, folder: &Path, neighbor: &Neighbor) -> Result<Session> {
        let called = called(neighbor);
        let said = self.says(folder, &format!("show bgp neighbors {called} json"))?;
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let said = &said[&called];
        let time = said["gracefulRestartInfo"]["timers"]["receivedRestartTimer"].as_u64();
        Ok(Session {
            is_up: said["bgpState"] == "Established",
            restart_time: time.filter(|time| *time > 0),
            updates: said["messageStats"]["updatesRecv"].as_u64(),
        })
    }

    fn says(&self, folder: &Path, command: &str) -> Result<String> {
        let words = ["--vty_socket".into(), folder.to_owned(), "-c".into(), PathBuf::from(command)];
        ask(Path::new("vtysh"), words)
    }
}

fn daemon(folder: &Path, name: &str, more: &[&str]) -> Daemon {
    let file = |name: &str| folder.join(name).display().to_string();
    let words = [
        &format!("{DAEMONS}/{name}"),
        "--config_file",
        &file(&format!("{name}.conf")),
        "--pid_file",
        &file(&format!("{name}.pid")),
        "--socket",
        &file("zserv"),
        "--vty_socket",
        &folder.display().to_string(),
        // No port for people.
        "--vty_port",
        "0",
    ];
    let command = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
    Daemon { command, answers: folder.join(format!("{name}.vty")) }
}

fn kernel(forwards: bool) -> &'static [&'static str] {
    if forwards { &[] } else { &["--no_kernel"] }
}

fn forwarding(forwards: bool) -> &'static str {
    if forwards { "ip forwarding\nipv6 forwarding\n" } else { "" }
}

fn speaker(plan: &Plan) -> String {
    let mut text = format!(
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         bgp bestpath as-path multipath-relax\n",
        plan.asn, plan.router_id
    );
    for neighbor in &plan.neighbors {
        let mut line = |words: &str| {
            let _ = writeln!(text, " neighbor {} {words}", called(neighbor));
        };
        let found = if neighbor.unnumbered { "interface " } else { "" };
        line(&format!("{found}remote-as {}", neighbor.asn));
        line("timers connect 1");
        if let (false, Some(link)) = (neighbor.unnumbered, &neighbor.link) {
            line(&format!("interface {link}"));
        }
        if neighbor.address.is_ipv6() {
            line("capability extended-nexthop");
        }
        if !neighbor.connects {
            line("passive");
        }
        if let Some(password) = &neighbor.password {
            line(&format!("password {password}"));
        }
        line(if neighbor.keeps { "graceful-restart-helper" } else { "graceful-restart-disable" });
        neighbor.more.iter().for_each(|more| line(more));
    }
    for family in [Family::V4, Family::V6] {
        let _ = writeln!(text, " address-family {family} unicast\n  maximum-paths 64");
        for neighbor in &plan.neighbors {
            let _ = writeln!(text, "  neighbor {} activate", called(neighbor));
        }
        text.push_str(" exit-address-family\n");
    }
    plan.more.iter().for_each(|more| _ = writeln!(text, "{more}"));
    text
}

/// What a neighbour is called: by its address, or by the link that it is found on.
fn called(neighbor: &Neighbor) -> String {
    match (&neighbor.link, neighbor.unnumbered) {
        (Some(link), true) => link.clone(),
        _ => neighbor.address.to_string(),
    }
}

fn route(plan: &Plan, path: &Value) -> Route {
    let number = |name: &str| path[name].as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |value: &Value| -> BTreeSet<String> {
        let entries = value["list"].as_array().into_iter().flatten();
        // The well-known ones have names there.
        let named = |entry: &str| match entry {
            "gracefulShutdown" | "graceful-shutdown" => "65535:0".to_owned(),
            other => other.to_owned(),
        };
        entries.filter_map(Value::as_str).map(named).collect()
    };
    let segments = path["aspath"]["segments"].as_array().into_iter().flatten();
    let ases = segments.flat_map(|segment| segment["list"].as_array().into_iter().flatten());
    let hops = path["nexthops"].as_array().into_iter().flatten();
    Route {
        from: name_of(plan, path["peer"]["peerId"].as_str().unwrap_or_default()),
        next_hops: hops.filter_map(|hop| hop["ip"].as_str()?.parse().ok()).collect(),
        as_path: ases.filter_map(|asn| u32::try_from(asn.as_u64()?).ok()).collect(),
        med: number("metric").or_else(|| number("med")),
        local_pref: number("locPrf").or_else(|| number("localPref")),
        communities: list(&path["community"]),
        large_communities: list(&path["largeCommunity"]),
        is_stale: path["stale"] == true,
    }
}
