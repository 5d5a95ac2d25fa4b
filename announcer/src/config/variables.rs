//! What a setting is: what it takes, what it is without, and what becomes of it. The settings themselves are in `table`.

use Capability::{ArpNd, Bgp, ControlPlane, Core, Egress, Eip, Http, Routes, Services};
use Kind::{Namespace, Number, Switch, Text, Word};

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, and the other spellings that Go's `strconv.ParseBool` knows.
    Switch,
    /// A whole number between two bounds, both included.
    Number(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text, and what it is in a word for `--help`; where it has a form, whoever uses it parses it.
    Text(&'static str),
    /// The name of a namespace.
    Namespace,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what it does in kube-vip.
    ActedOn,
    /// It changes nothing, for what it asks for is so here in any case, or was never more than a means.
    Met,
    /// It asks for something that is not built yet, which is an error rather than a silence.
    NotYet(Coming),
    /// Nothing will be built for it; what to use instead.
    Refused(&'static str),
}

/// What is not built yet, as its user knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// Balancing the API servers behind it.
    Balancing,
    /// Routes in a table of their own.
    Routes,
    /// Leaving by an address.
    Egress,
    /// Addresses by DHCP.
    Dhcp,
    /// Ways in through a gateway at home.
    Upnp,
}

impl Coming {
    /// In the user's words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balancing => "balancing the API servers",
            Self::Routes => "routing-table mode",
            Self::Egress => "egress",
            Self::Dhcp => "addresses by DHCP",
            Self::Upnp => "ports opened at an internet gateway (UPnP, PCP)",
        }
    }
}

/// What a setting is for. One that is wrong takes away what it is for, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// The whole process: who this node is, which interface it uses, who decides on owners.
    Core,
    /// Addresses of Services.
    Services,
    /// Elastic IPs.
    Eip,
    /// Announcing by ARP and neighbour discovery.
    ArpNd,
    /// `/metrics`, `/healthz` and `/readyz`.
    Http,
    /// The address of the control plane.
    ControlPlane,
    /// Announcing by BGP.
    Bgp,
    /// Routes in a table of their own, and WireGuard.
    Routes,
    /// Addresses of traffic that leaves.
    Egress,
}

impl Capability {
    /// Its readiness check, which fails while a setting of it is wrong.
    pub fn check(self) -> &'static str {
        match self {
            Core => "config/core",
            Services => "config/services",
            Eip => "config/eip",
            ArpNd => "config/arp_nd",
            Http => "config/http",
            ControlPlane => "config/control_plane",
            Bgp => "config/bgp",
            Routes => "config/routes",
            Egress => "config/egress",
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// What it is for.
    pub of: Capability,
    /// Its name in the environment; also taken as a flag.
    pub name: &'static str,
    /// kube-vip's names for the flag, with spaces between them; empty where it has none.
    pub flags: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it is in kube-vip where it is not given.
    pub theirs: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The setting, or the annotation of a Service, without which it counts for nothing; empty where it counts by itself.
    pub with: &'static str,
    /// Whether kube-vip knows it as a flag alone.
    pub flag_only: bool,
    /// One line for `--help`; of what is met, why that is so.
    pub help: &'static str,
}

impl Kind {
    /// What a value is, in a word.
    pub fn value(self) -> &'static str {
        match self {
            Switch => "true|false",
            Number(..) => "NUMBER",
            Word(_) => "WORD",
            Text(value) => value,
            Namespace => "NAMESPACE",
        }
    }
}

impl Variable {
    /// What it is for, which numbers or words it takes, and what it is without.
    pub fn help_text(&self) -> String {
        let takes = match self.kind {
            Number(first, last) => format!(", {first} to {last}"),
            Word(words) => format!(", {}", words.join("|")),
            Switch | Text(_) | Namespace => String::new(),
        };
        match self.help.split_once(" [default: ") {
            Some((what, default)) => format!("{what}{takes} [default: {default}"),
            None => format!("{}{takes}", self.help),
        }
    }

    /// What it is for, and what it is where it is not given.
    pub fn help_and_default(&self) -> (&'static str, Option<&'static str>) {
        let parts = self.help.split_once(" [default: ");
        parts.map_or((self.help, None), |(what, rest)| (what, rest.strip_suffix(']')))
    }

    /// Names of flags other than its own.
    pub fn aliases(&self) -> impl Iterator<Item = &'static str> {
        let name = self.name;
        self.flags.split_whitespace().filter(move |flag| *flag != name)
    }
}

/// How a line of the log looks: of the process, not of what it serves, so it is in no list.
pub const LOG_FORMAT: &str = "berth_log_format";

/// How the names of settings begin: a variable that begins so and is not listed is probably misspelt.
pub(super) const FAMILIES: &[&str] = &[
    "vip_",
    "svc_",
    "cp_",
    "bgp_",
    "mpbgp_",
    "egress_",
    "lb_",
    "berth_",
    "control_plane_",
    "zebra_",
];
