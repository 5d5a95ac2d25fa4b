//! Owns the degraded fence: a table of nftables at the interfaces' egress hooks, in which an address passes while an
//! element lives that has to be replaced again and again.
//!
//! It bounds a process that stalls as the other fence does (`rhythm`). What it cannot do is keep a healthy owner
//! answering while someone else's transaction holds the rule set, and survive `nft flush ruleset`.

mod elements;
mod netfilter;
mod rhythm;
mod table;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::capability::{Needs, refusal};
use crate::contract::{Fence, Finding, Inspection};
use crate::error::{
    ArmError, AttachCause, AttachError, CoverError, MuteError, PollError, RefusalCause,
};
use crate::instance::Instance;
use crate::kind::Kind;
use crate::tc::{self, Rtnetlink};
use crate::time::BootTime;
use elements::Batch;
use netfilter::Netfilter;
pub(crate) use netfilter::delete_table;
use rhythm::{Change, Rhythm};

/// The fence. What it put into the kernel stays there when it is dropped.
#[derive(Debug)]
pub(crate) struct NftFence {
    instance: Instance,
    /// The name of its table.
    table: String,
    netfilter: Netfilter,
    rtnetlink: Rtnetlink,
    rhythm: Rhythm,
    covered: BTreeSet<IpAddr>,
    interfaces: BTreeSet<String>,
    settled: bool,
}

impl NftFence {
    /// Makes the table, or takes over a predecessor's with nothing held.
    pub(crate) fn open(instance: &Instance, life: Duration) -> Result<NftFence, RefusalCause> {
        let name = instance.name();
        let refuse = |operation| {
            move |source: io::Error| {
                refusal(operation, Needs::NetAdmin, table::NEEDED, source, String::new())
            }
        };
        let netfilter = Netfilter::open().map_err(refuse("opening nfnetlink"))?;
        let rtnetlink = Rtnetlink::open().map_err(refuse("opening rtnetlink"))?;
        // Whether this kernel has the hook, asked of the one interface that is always there, and without a trace.
        let hook = table::base(&name) + &table::guard(&name, "lo").unwrap_or_default();
        for (operation, text, check) in [
            ("testing the egress hook", hook, true),
            ("making the table", table::base(&name), false),
        ] {
            nft(&text, check).map_err(|message| RefusalCause::Nft {
                operation,
                needed: table::NEEDED,
                message,
            })?;
        }
        Ok(NftFence {
            instance: instance.clone(),
            table: name,
            netfilter,
            rtnetlink,
            rhythm: Rhythm::new(life),
            covered: BTreeSet::new(),
            interfaces: BTreeSet::new(),
            settled: false,
        })
    }

    fn commit(&mut self, change: &Change) -> io::Result<()> {
        let (mut batch, life) = (Batch::on(&self.table), self.rhythm.life());
        match change {
            // Add, delete, add: an element that is there would keep its old expiry before Linux 6.12.
            Change::Start => batch.release_all().add_live(life).delete_live().add_live(life),
            Change::Refresh { hold, release } => {
                batch.delete_live().add_live(life).release(release).hold(hold)
            }
            Change::Release(addresses) => batch.release(addresses),
        };
        self.netfilter.commit(batch)?;
        self.rhythm.committed(change, BootTime::now());
        Ok(())
    }

    fn revoke(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), MuteError> {
        let Some(change) = self.rhythm.revoke(addresses) else { return Ok(()) };
        let result = self.commit(&change).or_else(|_| {
            // Someone else changed the sets, so what we know of them is worth nothing: hold none.
            self.rhythm.refused(&change);
            let mut batch = Batch::on(&self.table);
            batch.release_all();
            self.netfilter.commit(batch)
        });
        let list = || addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        result.map_err(|source| MuteError { addresses: list(), source })
    }

    fn rebuild(&mut self) -> Result<(), String> {
        self.rhythm.refused(&Change::Start);
        nft(&(table::base(&self.table) + &table::cover(&self.table, &self.covered, true)), false)
    }

    fn guard(&mut self) -> Vec<AttachError> {
        let links = match tc::links(&mut self.rtnetlink) {
            Ok(links) => links,
            Err(source) => return vec![AttachError::everywhere("listing the interfaces", source)],
        };
        let mut errors = Vec::new();
        let chains = chains(&self.table).unwrap_or_else(|| {
            let rebuilt = self.rebuild().map_err(|message| {
                AttachError::everywhere("making the table", io::Error::other(message))
            });
            errors.extend(rebuilt.err());
            BTreeSet::new()
        });
        for name in &self.interfaces {
            let fail = |cause| AttachError { interface: name.clone(), cause };
            let result = match links.get(name) {
                None => Err(fail(AttachCause::NoInterface)),
                Some(link) if !link.ethernet => Err(fail(AttachCause::NotEthernet)),
                Some(_) if chains.contains(name) => Ok(()),
                Some(_) => match table::guard(&self.table, name) {
                    None => Err(fail(AttachCause::UnquotableName)),
                    Some(text) => nft(&text, false).map_err(|message| {
                        fail(AttachCause::Kernel {
                            operation: "adding the chain",
                            source: io::Error::other(message),
                        })
                    }),
                },
            };
            errors.extend(result.err());
        }
        if self.settled {
            for interface in chains.difference(&self.interfaces) {
                errors.extend(nft(&table::unguard(&self.table, interface), false).err().map(
                    |message| AttachError {
                        interface: interface.clone(),
                        cause: AttachCause::Kernel {
                            operation: "deleting the chain",
                            source: io::Error::other(message),
                        },
                    },
                ));
            }
        }
        errors
    }
}

impl Fence for NftFence {
    fn kind(&self) -> Kind {
        Kind::NftTimeout
    }

    fn attach(&mut self, interfaces: &BTreeSet<String>) -> Vec<AttachError> {
        self.interfaces.clone_from(interfaces);
        self.guard()
    }

    fn cover(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CoverError> {
        let fail = |message| CoverError::Nft { count: addresses.len(), message };
        let gone = self.covered.difference(addresses).copied().collect();
        self.revoke(&gone).map_err(|error| fail(error.to_string()))?;
        nft(&table::cover(&self.table, addresses, self.settled), false).map_err(fail)?;
        self.covered.clone_from(addresses);
        Ok(())
    }

    fn set_life(&mut self, life: Duration) {
        self.rhythm.set_life(life);
    }

    fn covers(&self, address: &IpAddr) -> bool {
        self.covered.contains(address)
    }

    fn settle(&mut self) -> Vec<AttachError> {
        self.settled = true;
        let covered = nft(&table::cover(&self.table, &self.covered, true), false);
        let mut errors: Vec<_> = covered
            .map_err(|message| {
                AttachError::everywhere("covering exactly", io::Error::other(message))
            })
            .err()
            .into_iter()
            .collect();
        errors.extend(self.guard());
        if errors.is_empty() {
            // A stronger predecessor's program would go on dropping what nobody refreshes.
            errors.extend(tc::sweep(&mut self.rtnetlink, &self.instance, &BTreeSet::new()));
        }
        errors
    }

    fn arm(&mut self, address: IpAddr, deadline: BootTime) -> Result<(), ArmError> {
        if !self.settled {
            return Err(ArmError::Unsettled { address });
        }
        if !self.covered.contains(&address) {
            return Err(ArmError::NotCovered { address });
        }
        self.rhythm.grant(address, deadline);
        Ok(())
    }

    fn mute(&mut self, address: IpAddr) -> Result<(), MuteError> {
        self.revoke(&BTreeSet::from([address]))
    }

    fn mute_all(&mut self) -> Result<(), MuteError> {
        self.revoke(&self.rhythm.known())
    }

    fn poll(&mut self, now: BootTime) -> Result<Option<BootTime>, PollError> {
        let mut now = now;
        // A refresh that comes too late is refused, then all starts anew and is held again: three at most.
        for _ in 0..3 {
            let Some(change) = self.rhythm.due(now) else { break };
            if let Err(source) = self.commit(&change) {
                self.rhythm.refused(&change);
                if change == Change::Start {
                    return Err(PollError { source });
                }
            }
            now = BootTime::now();
        }
        Ok(self.rhythm.next(now))
    }

    fn inspection(&self) -> Inspection {
        let (interfaces, table) = (self.interfaces.clone(), self.table.clone());
        Box::new(move || {
            let links = Rtnetlink::open().and_then(|mut rtnetlink| tc::links(&mut rtnetlink));
            let (links, chains) = (links.unwrap_or_default(), chains(&table).unwrap_or_default());
            let missing = interfaces
                .into_iter()
                .filter(|name| !links.contains_key(name) || !chains.contains(name));
            missing.map(|interface| Finding::Missing { interface }).collect()
        })
    }

    fn remove(&mut self) -> Vec<AttachError> {
        self.interfaces.clear();
        let table = delete_table(&self.instance)
            .map_err(|source| AttachError::everywhere("deleting the table", source));
        let mut errors = tc::sweep(&mut self.rtnetlink, &self.instance, &BTreeSet::new());
        errors.extend(table.err());
        errors
    }
}

/// The interfaces that have a chain of ours, or none if the table is gone.
fn chains(table: &str) -> Option<BTreeSet<String>> {
    let list =
        Command::new("nft").args(["-j", "-t", "list", "table", "netdev", table]).output().ok()?;
    let list: serde_json::Value =
        serde_json::from_slice(&list.stdout).ok().filter(|_| list.status.success())?;
    let chains =
        list["nftables"].as_array()?.iter().filter_map(|object| object["chain"]["name"].as_str());
    Some(chains.filter_map(table::interface).collect())
}

/// Performs `text` as one transaction, or with `check` only asks whether the kernel would. The error is what `nft`
/// said.
fn nft(text: &str, check: bool) -> Result<(), String> {
    let mode: &[&str] = if check { &["-c", "-f", "-"] } else { &["-f", "-"] };
    let child = Command::new("nft")
        .args(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("nft: {error}"))?;
    // It reads all before it says anything; if it is gone, its status tells.
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("nft: {}", said.lines().next().unwrap_or("ended without a word").trim()))
}
