//! GoBGP: one process, asked by `gobgp`. It has a table, and forwards nothing.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use lab_programs::gobgp;
use serde_json::Value;

use crate::ask::ask;
use crate::plan::{Daemon, Family, Neighbor, Plan, Program, Route, Session, name_of};

/// GoBGP, built from `e2e/gobgp/go.mod`.
#[derive(Debug)]
pub struct GoBgp;

/// `Established`, as the API numbers states.
const ESTABLISHED: u64 = 6;

impl GoBgp {
    /// One of its programs.
    fn program(name: &str) -> Result<PathBuf> {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        // Whoever asks for the folder asks Go first, which takes a while.
        if let Some(folder) = FOLDER.get() {
            return Ok(folder.join(name));
        }
        let folder = gobgp::build()?;
        Ok(FOLDER.get_or_init(|| folder).join(name))
    }

    /// The socket at which `gobgpd` is asked, as `gobgp --target` has it.
    pub fn target(folder: &Path) -> String {
        format!("unix://{}", folder.join("api").display())
    }
}

impl Program for GoBgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn configure(&self, plan: &Plan, folder: &Path) -> Result<Vec<Daemon>> {
        let unnumbered = plan.neighbors.iter().find(|neighbor| neighbor.unnumbered);
        ensure!(unnumbered.is_none(), "GoBGP sends no router advertisements: {unnumbered:?}");
        let file = folder.join("conf.toml");
        std::fs::write(&file, configuration(plan))?;
        let daemon = Self::program("gobgpd")?.display().to_string();
        let (file, target) = (file.display().to_string(), Self::target(folder));
        let words = [
            &daemon,
            "--config-file",
            &file,
            "--api-hosts",
            &target,
            "--pprof-disable",
            "--log-plain",
        ];
        let command = words.map(str::to_owned).into();
        Ok(vec![Daemon { command, answers: folder.join("api") }])
    }

    fn routes(&self, plan: &Plan, folder: &Path, prefix: &str) -> Result<Vec<Route>> {
        let family = Family::of(prefix);
        let said = self.says(folder, &format!("--json global rib {prefix} -a {family}"))?;
        // Where there is none it says so in words.
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        let paths = said[prefix].as_array().cloned().unwrap_or_default();
        Ok(paths.iter().map(|path| route(plan, path)).collect())
    }

    fn count(&self, folder: &Path, family: Family) -> Result<usize> {
        let said = self.says(folder, &format!("--json global rib summary -a {family}"))?;
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        // What is 0 is left out.
        Ok(usize::try_from(said["num_path"].as_u64().unwrap_or_default())?)
    }

    fn session(&self, folder: &Path, neighbor: &Neighbor) -> Result<Session> {
        let said = self.says(folder, &format!("--json neighbor {}", neighbor.scoped()))?;
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        Ok(Session {
            is_up: said["state"]["session_state"].as_u64() == Some(ESTABLISHED),
            restart_time: said["graceful_restart"]["peer_restart_time"].as_u64(),
            updates: said["state"]["messages"]["received"]["update"].as_u64(),
        })
    }

    fn says(&self, folder: &Path, command: &str) -> Result<String> {
        let target = Self::target(folder);
        let words = ["--target", &target].into_iter().chain(command.split_whitespace());
        ask(&Self::program("gobgp")?, words)
    }
}

fn configuration(plan: &Plan) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{}\"\n[global.use-multiple-paths.config]\nenabled = true\n",
        plan.asn, plan.router_id
    );
    for neighbor in &plan.neighbors {
        let _ = writeln!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}",
            neighbor.scoped(),
            neighbor.asn
        );
        if let Some(password) = &neighbor.password {
            let _ = writeln!(text, "auth-password = \"{password}\"");
        }
        let _ =
            writeln!(text, "[neighbors.transport.config]\npassive-mode = {}", !neighbor.connects);
        if neighbor.keeps {
            text.push_str(
                "[neighbors.graceful-restart.config]\nenabled = true\nnotification-enabled = true\nrestart-time = 120\n",
            );
        }
        neighbor.more.iter().for_each(|more| _ = writeln!(text, "{more}"));
        for family in [Family::V4, Family::V6] {
            let _ = writeln!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n\
                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {}",
                neighbor.keeps
            );
        }
    }
    plan.more.iter().for_each(|more| _ = writeln!(text, "{more}"));
    text
}

/// Attributes by the numbers of their types.
fn route(plan: &Plan, path: &Value) -> Route {
    let from = path["peer-address"].as_str().unwrap_or_default();
    let mut route =
        Route { from: name_of(plan, from), is_stale: path["stale"] == true, ..Route::default() };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let list = |name: &str| attribute[name].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64() {
            Some(2) => {
                let segments = list("as_paths");
                let ases = segments
                    .iter()
                    .flat_map(|segment| segment["asns"].as_array().into_iter().flatten());
                route.as_path = ases.filter_map(number).collect();
            }
            Some(3 | 14) => route.next_hops = hops(attribute),
            Some(4) => route.med = number(&attribute["metric"]),
            Some(5) => route.local_pref = number(&attribute["value"]),
            Some(8) => {
                let known = list("communities").iter().filter_map(number).collect::<Vec<_>>();
                let written =
                    known.iter().map(|value| format!("{}:{}", value >> 16, value & 0xffff));
                route.communities = written.collect();
            }
            Some(32) => {
                let written = |value: &Value| {
                    let part = |name: &str| value[name].as_u64().unwrap_or_default();
                    format!("{}:{}:{}", part("ASN"), part("LocalData1"), part("LocalData2"))
                };
                route.large_communities = list("value").iter().map(written).collect();
            }
            _ => {}
        }
    }
    route
}

/// NEXT_HOP, and that of MP_REACH_NLRI with the address of the link.
fn hops(attribute: &Value) -> BTreeSet<IpAddr> {
    let written = [&attribute["nexthop"], &attribute["linklocalnexthop"]];
    let known = written.into_iter().filter_map(Value::as_str);
    known.filter_map(|hop| hop.split('%').next()?.parse().ok()).collect()
}
