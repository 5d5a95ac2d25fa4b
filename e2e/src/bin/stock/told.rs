//! What all parts of a run tell, and how it is printed.

use anyhow::Result;

/// What one part tells, or all do.
#[derive(Default)]
pub(crate) struct Told {
    /// Rows of which half serves beside which.
    pub(crate) fields: Vec<String>,
    /// Rows of moves.
    pub(crate) moves: Vec<String>,
    /// What is left after the way back.
    pub(crate) left: Vec<String>,
    /// Rows of what a crashed kube-vip leaves.
    pub(crate) crashed: Vec<String>,
    /// Of each report and each sort what was seen.
    pub(crate) reports: Vec<(usize, usize, String)>,
    /// What did not hold of what is ours, in the order in which it was found.
    pub(crate) failed: Vec<String>,
}

impl Told {
    /// The verdict's word in a table: of what is ours, whether it held; `shown` of what is theirs.
    pub(crate) fn word(&mut self, what: &str, is_ours: bool, result: Result<()>) -> &'static str {
        match result {
            _ if !is_ours => "shown",
            Ok(()) => "held",
            Err(error) => {
                eprintln!("{what}: {error:#}\n");
                self.failed.push(format!("{what}: {error:#}"));
                "**failed**"
            }
        }
    }

    /// What another part tells comes after it.
    pub(crate) fn add(&mut self, other: Self) {
        self.fields.extend(other.fields);
        self.moves.extend(other.moves);
        self.left.extend(other.left);
        self.crashed.extend(other.crashed);
        self.reports.extend(other.reports);
        self.failed.extend(other.failed);
    }

    /// The tables that have rows; of the reports, which they are and under which systems.
    pub(crate) fn print(&self, reports: &[&str], systems: &[&str]) {
        table(
            "Which half beside which",
            "A Service with two families is made, and deleted once it is served. Left: addresses on nodes, Leases.",
            &[
                "allocates",
                "announces",
                "Berth's announcers by",
                "served after",
                "gone after",
                "left",
                "",
            ],
            &self.fields,
        );
        table(
            "Moves under traffic",
            "Whoever allocates at once, announcers node by node.",
            &[
                "half",
                "from",
                "to",
                "the other half",
                "Berth's announcers by",
                "longest gap: IPv4, IPv6",
                "two answering",
                "left",
                "",
            ],
            &self.moves,
        );
        self.left.iter().for_each(|line| println!("- {line}"));
        table(
            "What a crashed kube-vip leaves",
            "Killed on the node that answers, and started again once another has the address; then Berth node by node, that node first.",
            &["", "who announces", "nodes with the address", "two answering", ""],
            &self.crashed,
        );
        let mut rows = Vec::new();
        for (report, text) in reports.iter().enumerate() {
            let cell = |sort| {
                let mut all = self.reports.iter();
                let found = all.find(|(r, s, _)| (*r, *s) == (report, sort));
                found.map_or("", |(.., cell)| cell)
            };
            let cells: Vec<_> = (0..systems.len()).map(cell).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                rows.push(format!("| {text} | {} |", cells.join(" | ")));
            }
        }
        table(
            "Reports of kube-vip's users",
            "kube-vip with `svc_election=true`, Berth with the same, and Berth as `manifests/` are.",
            &[&["report"], systems].concat(),
            &rows,
        );
    }
}

fn table(title: &str, says: &str, columns: &[&str], rows: &[String]) {
    if rows.is_empty() {
        return;
    }
    println!("\n## {title}\n\n{says}\n\n| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
    rows.iter().for_each(|row| println!("{row}"));
    println!();
}
