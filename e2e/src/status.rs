//! What `lab status` prints.

use std::{fmt::Write, fs};

use anyhow::Result;

use crate::{lab::Lab, node::Kind, process::Process};

/// Nodes with their addresses, processes with their pids, and how to reach the API server.
pub(crate) fn render(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "lab        {}", lab.name())?;
    writeln!(text, "kubeconfig {}", lab.kubeconfig().display())?;
    writeln!(text, "kubectl    {}", lab.programs().join("kubectl").display())?;
    writeln!(text, "logs       {}", lab.dir().join("logs").display())?;
    writeln!(
        text,
        "\nNODE      KIND    LAN                          API                          PODS"
    )?;
    for node in lab.nodes() {
        let a = node.addresses();
        let pair = |a: crate::addresses::DualStack| format!("{} {}", a.v4, a.v6);
        let kind = match node.kind {
            Kind::Bare => "bare",
            Kind::Real => "real",
            Kind::Machine => "machine",
        };
        let (lan, api) = (pair(a.lan), pair(a.api));
        writeln!(text, "{:<9} {kind:<7} {lan:<28} {api:<28} {} {}", node.name(), a.pods4, a.pods6)?;
    }
    writeln!(text, "\nPLACE          PID      STATE    PROCESS")?;
    for process in processes(lab)? {
        let state = if process.is_alive() {
            "running".into()
        } else {
            process.ending().unwrap_or("gone".into())
        };
        writeln!(text, "{:<14} {:<8} {state:<8} {}", process.place, process.pid(), process.name)?;
    }
    Ok(text)
}

fn processes(lab: &Lab) -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(lab.dir().join("processes"))? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().and_then(|n| n.strip_suffix(".json")) {
            all.push(lab.dir().load::<Process>(&format!("processes/{name}"))?);
        }
    }
    all.sort_by(|a, b| (&a.place, &a.name).cmp(&(&b.place, &b.name)));
    Ok(all)
}
