//! BIRD 2: one process, asked by `birdc`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::ask::{run, text};
use crate::plan::{Daemon, Family, Neighbor, Plan, Program, Route, Session};

/// BIRD 2, of Debian's package bird2.
#[derive(Debug)]
pub struct Bird;

impl Program for Bird {
    fn name(&self) -> &'static str {
        "BIRD"
    }

    fn configure(&self, plan: &Plan, folder: &Path) -> Result<Vec<Daemon>> {
        let file = |name: &str| folder.join(name).display().to_string();
        let mut text = format!(
            "log \"{}\" all;\nrouter id {};\nprotocol device {{ scan time 1; }}\n",
            file("log"),
            plan.router_id
        );
        if plan.forwards {
            for family in [Family::V4, Family::V6] {
                let _ = writeln!(
                    text,
                    "protocol kernel {{ merge paths yes; {family} {{ import none; export all; }}; }}"
                );
            }
        }
        plan.neighbors.iter().for_each(|neighbor| protocol(&mut text, plan.asn, neighbor));
        plan.more.iter().for_each(|more| _ = writeln!(text, "{more}"));
        std::fs::write(file("conf"), text)?;
        let command = ["bird", "-f", "-c", &file("conf"), "-s", &file("ctl")].map(str::to_owned);
        Ok(vec![Daemon { command: command.into(), answers: folder.join("ctl") }])
    }

    fn routes(&self, _: &Plan, folder: &Path, prefix: &str) -> Result<Vec<Route>> {
        routes(&self.says(folder, &format!("show route {prefix} all"))?)
    }

    fn count(&self, folder: &Path, family: Family) -> Result<usize> {
        let table = if family == Family::V4 { "master4" } else { "master6" };
        let said = self.says(folder, &format!("show route table {table} count"))?;
        // `500 of 500 routes for 500 networks in table master4`
        let counted = said.lines().find_map(|line| line.split_once(" of ")?.0.trim().parse().ok());
        counted.with_context(|| said.clone())
    }

    fn session(&self, folder: &Path, neighbor: &Neighbor) -> Result<Session> {
        let said = self.says(folder, &format!("show protocols all {}", neighbor.name))?;
        let mut session = Session { is_up: said.contains("Established"), ..Session::default() };
        let mut theirs = false;
        for line in said.lines().map(str::trim) {
            theirs |= line == "Neighbor capabilities";
            if let (true, Some(time)) = (theirs, line.strip_prefix("Restart time: ")) {
                session.restart_time = time.parse().ok();
            }
        }
        Ok(session)
    }

    fn says(&self, folder: &Path, command: &str) -> Result<String> {
        let control = folder.join("ctl");
        let words = ["-s".into(), control].into_iter();
        let words = words.chain(command.split_whitespace().map(PathBuf::from));
        let output = run(Path::new("birdc"), words)?;
        // It fails where BIRD has nothing to show, too.
        let said = text(&output.stdout);
        ensure!(said.starts_with("BIRD"), "birdc: {said}{}", text(&output.stderr));
        Ok(said)
    }
}

fn protocol(text: &mut String, asn: u32, neighbor: &Neighbor) {
    let Neighbor { name, own, asn: theirs, .. } = neighbor;
    let address = neighbor.scoped();
    let _ = writeln!(
        text,
        "protocol bgp {name} {{\n  local {own} as {asn};\n  neighbor {address} as {theirs};"
    );
    let mut line = |line: &str| {
        let _ = writeln!(text, "  {line}");
    };
    if !neighbor.connects {
        line("passive on;");
    }
    if asn == *theirs {
        // Else next hops are looked up in a table that has no routes of interfaces.
        line("direct;");
    }
    if let Some(password) = &neighbor.password {
        line(&format!("password \"{password}\";"));
    }
    line(if neighbor.keeps { "graceful restart aware;" } else { "graceful restart off;" });
    neighbor.more.iter().for_each(|more| line(more));
    let extended = if own.is_ipv6() { " extended next hop on;" } else { "" };
    line(&format!("ipv4 {{ import all; export none;{extended} }};"));
    line("ipv6 { import all; export none; };\n}");
    if let (true, Some(link)) = (neighbor.unnumbered, &neighbor.link) {
        let _ =
            writeln!(text, "protocol radv {{ interface \"{link}\" {{ max ra interval 600; }}; }}");
    }
}

/// Reads `show route .. all`.
fn routes(said: &str) -> Result<Vec<Route>> {
    let mut routes: Vec<Route> = Vec::new();
    for line in said.lines() {
        // `10.9.0.1/32  unicast [node_1 12:00:00.000] * (100) [AS65000i]`, and the next ones without the prefix.
        if let Some((_, rest)) = line.split_once("unicast [") {
            let from = rest.split([' ', ']']).next().unwrap_or_default().to_owned();
            // `(100s)` is one that is kept.
            let is_stale = rest.split_once('(').is_some_and(|(_, rest)| {
                rest.split_once(')').is_some_and(|(preference, _)| preference.contains('s'))
            });
            routes.push(Route { from, is_stale, ..Route::default() });
            continue;
        }
        let Some((name, value)) = line.trim().split_once(':') else { continue };
        let (value, Some(route)) = (value.trim(), routes.last_mut()) else { continue };
        let number = || value.parse().with_context(|| line.to_owned());
        // `(65000,7) (65535,0)`, and `(65000, 1, 2)` of three.
        let groups = || {
            let groups = value.split(['(', ')']).map(str::trim).filter(|group| !group.is_empty());
            groups.map(|group| group.replace(", ", ":").replace(',', ":")).collect()
        };
        match name {
            "BGP.as_path" => {
                let ases = value.split_whitespace().map(str::parse);
                route.as_path = ases.collect::<Result<_, _>>().with_context(|| line.to_owned())?;
            }
            "BGP.next_hop" => {
                // `::` stands before one of a link that was told alone.
                let hops = value.split_whitespace().filter(|hop| *hop != "::").map(str::parse);
                route.next_hops =
                    hops.collect::<Result<_, _>>().with_context(|| line.to_owned())?;
            }
            "BGP.med" => route.med = Some(number()?),
            "BGP.local_pref" => route.local_pref = Some(number()?),
            "BGP.community" => route.communities = groups(),
            "BGP.large_community" => route.large_communities = groups(),
            _ => {}
        }
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_read() {
        let said = "BIRD 2.0.12 ready.\nTable master4:\n\
            198.51.100.1/32      unicast [node 10:00:00.123] * (100) [AS65000i]\n\tvia 192.0.2.11 on eth0\n\
            \tType: BGP univ\n\tBGP.origin: IGP\n\tBGP.as_path: 65000 65000\n\tBGP.next_hop: 192.0.2.11\n\
            \tBGP.med: 42\n\tBGP.local_pref: 100\n\tBGP.community: (65000,7) (65535,0)\n\
            \tBGP.large_community: (4200000000, 1, 2)\n                     unicast [other 10:00:00.123] (100s) [AS65000i]\n";
        let [first, second] = <[Route; 2]>::try_from(routes(said).unwrap()).unwrap();
        assert_eq!((first.from.as_str(), first.med, first.as_path.len()), ("node", Some(42), 2));
        assert_eq!(first.communities, ["65000:7", "65535:0"].map(str::to_owned).into());
        assert_eq!(first.large_communities, ["4200000000:1:2".to_owned()].into());
        assert!(!first.is_stale && second.is_stale && second.from == "other");
    }
}
