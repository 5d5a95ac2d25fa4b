//! The tests that there are, as cargo and the programs themselves say.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Suites and modules of the lab whose tests may keep the processors busy: none has a time in its verdict, and none judges
/// who owns an address while a machine that is slow for a moment may change that. They do not run beside those that do.
const BUSY: [&str; 14] = [
    "black_box",
    "kubeadm",
    "lab::faults",
    "other_kernel",
    "product::allocation",
    "product::allocation_under_fire",
    "product::bad_input",
    "product::eip_allocation",
    "product::examples",
    "product::flaws",
    "product::migration",
    "product::routers",
    "product::uninstall",
    "real_nodes",
];

/// Tests that wait for a minute, or nearly, as what they judge lasts so long. One of them at a time runs beside the others: it
/// keeps no processor from them.
const WAITS: [&str; 10] = [
    "process::an_absent_api_is_named",
    "product::elections::a_lease_decides_only_while",
    "product::elections::a_second_host_of_one_name",
    "product::fenced::what_it_asks_of_the_api_at_rest",
    "product::rotation::who_makes_one_sharer",
    "product::splits::a_node_that_hears_nobody",
    "product::splits::while_the_cluster_is_away",
    "product::unannounced::a_service_that_nobody",
    "product::unannounced::whoever_has_an_address",
    "product::uninstall::",
];

/// Tests that are run where somebody asks for them, by a variable that is set: they take minutes, or a program that is not ours.
const ASKED: [(&str, &str); 3] = [
    ("kubeadm::keepalived::", "BERTH_CONTROL_PLANE"),
    ("kubeadm::kube_vip::", "KUBE_VIP"),
    ("product::control_plane::before_admin_conf_has_rights", "BERTH_CONTROL_PLANE"),
];

/// One test.
#[derive(Clone)]
pub(crate) struct Test {
    /// The program that has it.
    pub(crate) program: PathBuf,
    /// The folder it is to be started in, as cargo would.
    pub(crate) package: PathBuf,
    /// The program's name without cargo's hash.
    pub(crate) suite: String,
    /// The test's name as the program knows it.
    pub(crate) test: String,
    /// Whether it judges times, and runs beside its like only.
    pub(crate) timed: bool,
    /// Whether it does little but wait.
    pub(crate) waits: bool,
}

impl Test {
    /// The name for people.
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.suite, self.test)
    }
}

/// All tests of the programs that cargo says it has built, those that need a lab first: they take longest.
pub(crate) fn tests(messages: &Path) -> Result<Vec<Test>> {
    let file = File::open(messages).with_context(|| messages.display().to_string())?;
    let mut seen = BTreeSet::new();
    let mut tests = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let Some(program) = message["executable"].as_str() else { continue };
        if message["profile"]["test"] != true || !seen.insert(program.to_owned()) {
            continue;
        }
        let suite = message["target"]["name"].as_str().unwrap_or_default().to_owned();
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        let package = Path::new(manifest).parent().unwrap_or(Path::new("/")).to_owned();
        let needs_lab = is_of_the_lab(&message, &package);
        for test in names(Path::new(program))? {
            let program = program.into();
            let mut test = Test {
                program,
                package: package.clone(),
                suite: suite.clone(),
                test,
                timed: false,
                waits: false,
            };
            test.waits = WAITS.iter().any(|begin| test.name().starts_with(begin));
            test.timed = needs_lab && !is_busy(&test);
            if is_asked_for(&test.name()) {
                tests.push((!needs_lab, test));
            }
        }
    }
    tests.sort_by_key(|(order, _)| *order);
    Ok(tests.into_iter().map(|(_, test)| test).collect())
}

fn is_asked_for(name: &str) -> bool {
    let variable = ASKED.iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, name)| name);
    variable
        .is_none_or(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()))
}

/// An integration test of the package of the lab.
fn is_of_the_lab(message: &Value, package: &Path) -> bool {
    package.ends_with("e2e") && message["target"]["kind"][0] == "test"
}

fn is_busy(test: &Test) -> bool {
    let name = test.name();
    BUSY.iter().any(|part| name.strip_prefix(part).is_some_and(|rest| rest.starts_with("::")))
}

/// The tests of a program.
fn names(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program)
        .args(["--list", "--format", "terse"])
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(output.status.success(), "{} --list failed", program.display());
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|l| l.strip_suffix(": test")).map(ToOwned::to_owned).collect())
}
