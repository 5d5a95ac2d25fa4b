//! docs/settings.md is made of the table, so that it never says anything else.

use super::{Capability, Coming, Kind, VARIABLES, Variable, Verdict};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");

const HEAD: &str = "\
# Settings

Every setting of kube-vip 1.2.3, of the releases before it, and Berth's own: a variable of the environment, and a flag by either
name, which wins (**differs:** in kube-vip the variable does). Made of `announcer/src/config/table.rs`; a test compares, and
`BERTH_WRITE=1 cargo test --package berth-announcer the_page_of_settings` writes it anew.

| verdict | means |
|---|---|
| acted on | it does what it does in kube-vip; what Berth's own do is in [contract.md](contract.md) |
| met | it is accepted and changes nothing: why, stands beside it |
| not yet | it asks for what is not built; with what it comes is named. Switched on, it ends the announcer at its start. *With* another setting it counts together with that, and for nothing without it |
| refused | nothing will be built for it; what to use stands beside it. Switched on, it ends the announcer at its start |

What a whole manifest with them means says [`berth-announcer manifest --check`](manifest.md).
";

fn section(of: Capability) -> &'static str {
    match of {
        Capability::Core => "The node, the cluster, elections",
        Capability::Services => "Services",
        Capability::Eip => "Elastic IPs",
        Capability::ArpNd => "ARP and neighbour discovery",
        Capability::Http => "Metrics and probes",
        Capability::ControlPlane => "The control plane",
        Capability::Bgp => "BGP",
        Capability::Routes => "Routing table and tunnels",
        Capability::Egress => "Egress",
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(variable: &Variable) -> String {
    let (what, default) = variable.help_and_default();
    let name = match variable.flag_only {
        true => "".to_owned(),
        false => format!("`{}`", variable.name),
    };
    let own = variable.flag_only.then_some(variable.name);
    let flags: Vec<_> =
        own.into_iter().chain(variable.aliases()).map(|flag| format!("`--{flag}`")).collect();
    let takes = match variable.kind {
        Kind::Switch => "`true`, `false`".to_owned(),
        Kind::Number(low, high) => format!("{low} to {high}"),
        Kind::Word(words) => {
            let words: Vec<_> = words
                .iter()
                .filter(|word| !word.is_empty())
                .map(|word| format!("`{word}`"))
                .collect();
            words.join(", ")
        }
        Kind::Text(_) | Kind::Namespace => variable.kind.value().to_lowercase(),
    };
    let with = match variable.with {
        "" => String::new(),
        with => format!(", with `{with}`"),
    };
    let verdict = match variable.verdict {
        Verdict::ActedOn => format!("acted on: {what}"),
        Verdict::Met => format!("met: {what}"),
        Verdict::NotYet(coming) => {
            format!("not yet, it comes with {}{with}: {what}", Coming::name(coming))
        }
        Verdict::Refused(instead) => format!("refused{with}: {what}; {instead}"),
    };
    let cells = [name, flags.join(" "), takes, variable.theirs.to_owned()];
    let cells = cells.into_iter().chain([default.unwrap_or_default().to_owned(), verdict]);
    let cells: Vec<_> = cells.map(|text| cell(&text)).collect();
    format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |").replace("|  |", "| |")
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut capabilities: Vec<Capability> = VARIABLES.iter().map(|variable| variable.of).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    for of in capabilities {
        page.push_str(&format!(
            "\n## {}\n\n| variable | flag | takes | kube-vip without it | Berth without it | verdict |\n|---|---|---|---|---|---|\n",
            section(of)
        ));
        page.extend(VARIABLES.iter().filter(|variable| variable.of == of).map(line));
    }
    page
}

#[test]
fn the_page_of_settings_is_what_the_table_says() {
    let page = page();
    if std::env::var_os("BERTH_WRITE").is_some() {
        std::fs::write(PATH, &page).unwrap();
    }
    let written = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        written == page,
        "docs/settings.md is not what announcer/src/config/table.rs says; write it anew by\n  \
         BERTH_WRITE=1 cargo test --package berth-announcer the_page_of_settings"
    );
}
