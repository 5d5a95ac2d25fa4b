//! A cluster without API server: a fixed list of members, their key, and the addresses that the operator names.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use berth_api::Quoted;
use berth_membership::{LEAST_MEMBERS, voters_among};

use super::addresses::{self, usable};
use super::control_plane;
use super::settings::{Problem, Settings, unless};
use crate::instance::Instance;

const MEMBERS: &str = "berth_members";
const KEY: &str = "berth_key_file";

/// Fewer octets can be guessed.
const SHORTEST_KEY: usize = 16;

/// Octets that a file may have.
const LONGEST: u64 = 1 << 20;

/// Wrong lines that are named.
const MOST_LINES: usize = 10;

const LINE: &str = "accepted is NAME ADDRESS[,ADDRESS...], such as: node-a 192.0.2.11,2001:db8::11";

/// A cluster without API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Its members, this node among them, in the order of the file.
    pub members: Vec<Member>,
    /// The key of their heartbeats.
    pub key: Key,
    /// The addresses to announce, by the operator's word.
    pub addresses: Vec<IpAddr>,
    /// The port that is met there.
    pub port: u16,
}

impl Fixed {
    /// The members that grant addresses: the first three, of five or more the first five. The same on every node.
    pub fn voters(&self) -> &[Member] {
        &self.members[..voters_among(self.members.len())]
    }

    /// The announcer of these addresses, named by the lowest, in whatever order they are given.
    pub(super) fn instance(&self) -> Instance {
        let first = self.addresses.iter().min().map(ToString::to_string).unwrap_or_default();
        Instance::named(&first.replace(['.', ':'], "-")).unwrap_or_else(|_| Instance::services())
    }
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it listens: the first that this node can reach counts.
    pub addresses: Vec<IpAddr>,
}

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key of these octets.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(octets)
    }

    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// Nobody should find it in a log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} octets)", self.0.len())
    }
}

/// The cluster without API server, if settings ask for one.
pub(super) fn fixed(
    settings: &Settings,
    node: Option<&str>,
) -> Result<Option<Fixed>, Vec<Problem>> {
    let Some(path) = settings.text(MEMBERS) else {
        let mut problems = Vec::new();
        if settings.switch("svc_enable") == Some(false) && !control_plane::is_on(settings) {
            let accepted = "accepted is true; or false beside cp_enable=true, or beside berth_members, berth_key_file and \
                            address: a cluster without API server";
            problems.push(settings.problem("svc_enable", accepted));
        }
        if settings.text(KEY).is_some() {
            let accepted = "used with berth_members alone, which is not set; leave it out, or name the file of members";
            problems.push(settings.problem(KEY, accepted));
        }
        return unless(problems, None);
    };
    let mut problems = beside_an_api(settings);
    let mut note = |problem| problems.push(problem);
    let members = members(settings, path, node).map_err(&mut note).ok();
    let key = key(settings).map_err(&mut note).ok();
    let addresses = addresses::addresses(settings, MEMBERS).map_err(&mut note).ok();
    let port = addresses::port(settings);
    let own = |address: &IpAddr| {
        let owner = members.iter().flatten().find(|member| member.addresses.contains(address));
        owner.map(|member| {
            format!("accepted is no address of a host: {address} is that of member {}", member.name)
        })
    };
    if let Some(accepted) = addresses.iter().flatten().find_map(own) {
        problems.push(settings.problem(addresses::setting(settings), accepted));
    }
    match (members, key, addresses) {
        (Some(members), Some(key), Some(addresses)) if problems.is_empty() => {
            Ok(Some(Fixed { members, key, addresses, port }))
        }
        _ => Err(problems),
    }
}

/// What is wrong beside a list of members: it is never used beside an API, for two who decide would decide differently.
pub fn beside_an_api(settings: &Settings) -> Vec<Problem> {
    let beside = |name: &'static str, accepted: &str| {
        let value = settings.text(name).map(|text| Quoted::of(text).to_string());
        let value = value.unwrap_or("true, its default".to_owned());
        let accepted = format!(
            "a list of members is never used beside an API server, which {name}={value} asks for; accepted is {accepted}"
        );
        settings.problem(MEMBERS, accepted)
    };
    let mut problems = Vec::new();
    // A malformed switch is told of as such.
    let malformed =
        settings.text("svc_enable").is_some() && settings.switch("svc_enable").is_none();
    if settings.serves_services() && !malformed {
        problems.push(beside("svc_enable", "svc_enable=false"));
    }
    for name in ["k8s_config_file", "kubernetes_addr", "svc_leasename"] {
        if settings.text(name).is_some() {
            problems.push(beside(name, &format!("no {name}")));
        }
    }
    for name in ["svc_election", "vip_leaderelection", "cp_enable"] {
        if settings.switch(name) == Some(true) {
            problems.push(beside(name, &format!("{name}=false, or none")));
        }
    }
    if let Some("global" | "service") = settings.text("berth_election") {
        problems.push(beside("berth_election", "berth_election=membership, or none"));
    }
    problems
}

fn members(settings: &Settings, path: &str, node: Option<&str>) -> Result<Vec<Member>, Problem> {
    let wrong = |why: String| settings.problem(MEMBERS, why);
    let text = read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?.0;
    let text = String::from_utf8(text).map_err(|_| wrong("not text in UTF-8".to_owned()))?;
    let members = parse(&text).map_err(|why| wrong(format!("{path}: {why}")))?;
    match node {
        Some(node) if !members.iter().any(|member| member.name == node) => Err(wrong(format!(
            "{path} has no member {node}, which is this node; accepted is a list with it (vip_nodename names this node)"
        ))),
        _ => Ok(members),
    }
}

/// The members of a file, in its order. Tells the numbers of the lines that are wrong.
fn parse(text: &str) -> Result<Vec<Member>, String> {
    let mut members: Vec<Member> = Vec::new();
    let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
    // Some editors put it first, and show it nowhere.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        match member(line, &members, &mut used) {
            Ok(member) => members.extend(member),
            Err(why) => wrong.push(format!("line {}: {why}", number + 1)),
        }
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(MOST_LINES);
        wrong.truncate(MOST_LINES);
        if more > 0 {
            wrong.push(format!("{more} more"));
        }
        return Err(format!("{}; {LINE}", wrong.join("; ")));
    }
    match members.len() {
        count @ ..LEAST_MEMBERS => {
            Err(format!("{count} members; accepted are {LEAST_MEMBERS} or more"))
        }
        _ => Ok(members),
    }
}

/// The member of a line, if there is one, after these members and the addresses that they use.
fn member(
    line: &str,
    members: &[Member],
    used: &mut BTreeSet<IpAddr>,
) -> Result<Option<Member>, String> {
    let line = line.split('#').next().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, texts) = match words[..] {
        [] => return Ok(None),
        [name, addresses] => (name.to_lowercase(), addresses),
        _ => return Err(format!("{} words", words.len())),
    };
    if !is_name(&name) {
        return Err(format!("{} is no name of a node", Quoted::of(&name)));
    }
    if members.iter().any(|member| member.name == name) {
        return Err(format!("member {name} stands there twice"));
    }
    let mut addresses = Vec::new();
    for text in texts.split(',') {
        let Some(address) = usable(text) else {
            return Err(format!("{} is no address of a host", Quoted::of(text)));
        };
        if !used.insert(address) {
            return Err(format!("address {address} stands there twice"));
        }
        addresses.push(address);
    }
    Ok(Some(Member { name, addresses }))
}

/// What Kubernetes takes as the name of a node (RFC 1123).
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    name.len() <= 253
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

fn key(settings: &Settings) -> Result<Key, Problem> {
    let wrong = |why: String| settings.problem(KEY, why);
    let accepted = format!(
        "accepted is a file of {SHORTEST_KEY} octets or more, the same on every member, readable by its owner (and \
         group) alone"
    );
    let Some(path) = settings.text(KEY) else {
        return Err(wrong(format!("needed beside berth_members; {accepted}")));
    };
    let (octets, mode) =
        read(path).map_err(|error| wrong(format!("cannot be read: {error}; {accepted}")))?;
    if mode & 0o007 != 0 {
        return Err(wrong(format!(
            "its mode is {:04o}: others may use it; {accepted}",
            mode & 0o7777
        )));
    }
    let end = octets.iter().rposition(|octet| !matches!(octet, b'\n' | b'\r'));
    let octets = &octets[..end.map_or(0, |last| last + 1)];
    if octets.len() < SHORTEST_KEY {
        return Err(wrong(format!("it has {} octets; {accepted}", octets.len())));
    }
    Ok(Key::new(octets.to_vec()))
}

/// The content and the mode of a file.
fn read(path: &str) -> io::Result<(Vec<u8>, u32)> {
    // A pipe would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut octets = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("longer than {LONGEST} octets")));
    }
    Ok((octets, metadata.permissions().mode()))
}

#[cfg(test)]
mod tests;
