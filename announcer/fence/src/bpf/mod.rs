//! Owns the fence of absolute deadlines: a program at each interface's egress hook, a slot with a deadline for each
//! address. Arming is one 8-byte store into memory that the program reads; no lock is taken and nothing can delay it.
//!
//! Slots, and not one deadline for all: a stored deadline is then never later than what its own address was granted,
//! and an address that is late, being claimed or being handed over takes nothing from the others.

mod asm;
mod maps;
mod probe;
mod program;
mod sys;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use crate::capability::{Needs, refusal};
use crate::contract::{Fence, Finding, Inspection};
use crate::error::{
    ArmError, AttachCause, AttachError, CoverError, MuteError, PollError, RefusalCause,
};
use crate::instance::Instance;
use crate::kind::Kind;
use crate::nft;
use crate::tc::{self, Loaded, Rtnetlink, Stage};
use crate::time::BootTime;
use maps::{KERNEL, Maps};
use table::Table;

/// The fence. What it put into the kernel stays there when it is dropped.
#[derive(Debug)]
pub(crate) struct BpfFence {
    instance: Instance,
    maps: Maps,
    program: sys::Program,
    id: u32,
    table: Table,
    rtnetlink: Rtnetlink,
    stage: Stage,
    interfaces: BTreeSet<String>,
}

impl BpfFence {
    /// Loads the program and proves on frames of its own that it does what it should. Nothing is attached yet.
    pub(crate) fn open(capacity: u32, instance: &Instance) -> Result<BpfFence, RefusalCause> {
        let refuse = |operation| {
            move |source: io::Error| refusal(operation, Needs::Bpf, KERNEL, source, String::new())
        };
        let slots = sys::Slots::create(capacity, &instance.object("berth_slots"))
            .map_err(refuse("creating the map of slots"))?;
        let deadlines = sys::Deadlines::create(capacity, &instance.object("berth_deadlines"))
            .map_err(refuse("creating the map of deadlines"))?;
        let maps = Maps { slots, deadlines };
        let program = load(&maps, instance)?;
        probe::run(&maps, &program)?;
        let id = program.id().map_err(refuse("reading the number of the program"))?;
        let rtnetlink = Rtnetlink::open().map_err(|source| {
            refusal("opening rtnetlink", Needs::NetAdmin, KERNEL, source, String::new())
        })?;
        let table = Table::new(capacity);
        Ok(BpfFence {
            instance: instance.clone(),
            maps,
            program,
            id,
            table,
            rtnetlink,
            stage: Stage::Starting,
            interfaces: BTreeSet::new(),
        })
    }

    fn guard(&mut self) -> Vec<AttachError> {
        let links = match tc::links(&mut self.rtnetlink) {
            Ok(links) => links,
            Err(source) => return vec![AttachError::everywhere("listing the interfaces", source)],
        };
        let program = Loaded { fd: self.program.as_fd(), id: self.id };
        let mut errors = Vec::new();
        for name in &self.interfaces {
            let result = match links.get(name) {
                Some(link) => {
                    tc::guard(&mut self.rtnetlink, &self.instance, link, program, self.stage)
                }
                None => {
                    Err(AttachError { interface: name.clone(), cause: AttachCause::NoInterface })
                }
            };
            errors.extend(result.err());
        }
        errors
    }
}

impl Fence for BpfFence {
    fn kind(&self) -> Kind {
        Kind::Bpf
    }

    fn attach(&mut self, interfaces: &BTreeSet<String>) -> Vec<AttachError> {
        self.interfaces.clone_from(interfaces);
        let mut errors = self.guard();
        // A predecessor's interfaces are not ours to clear before we know what it guarded there.
        if self.stage == Stage::Settled {
            errors.extend(tc::sweep(&mut self.rtnetlink, &self.instance, interfaces));
        }
        errors
    }

    fn cover(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CoverError> {
        let (steps, over) = self.table.plan(addresses);
        for step in steps {
            self.maps.perform(step)?;
            self.table.apply(step);
        }
        match over {
            0 => Ok(()),
            over => Err(CoverError::TooMany {
                wanted: addresses.len(),
                over,
                capacity: self.table.capacity(),
            }),
        }
    }

    fn covers(&self, address: &IpAddr) -> bool {
        self.table.slot(address).is_some()
    }

    fn settle(&mut self) -> Vec<AttachError> {
        self.stage = Stage::Settled;
        let interfaces = self.interfaces.clone();
        let mut errors = self.attach(&interfaces);
        if errors.is_empty() {
            // A weaker predecessor's table would go on dropping what nobody refreshes.
            errors.extend(delete_table(&self.instance));
        }
        errors
    }

    fn arm(&mut self, address: IpAddr, deadline: BootTime) -> Result<(), ArmError> {
        if self.stage != Stage::Settled {
            return Err(ArmError::Unsettled { address });
        }
        let slot = self.table.slot(&address).ok_or(ArmError::NotCovered { address })?;
        self.maps.deadlines.store(slot, deadline.as_nanos());
        Ok(())
    }

    fn mute(&mut self, address: IpAddr) -> Result<(), MuteError> {
        if let Some(slot) = self.table.slot(&address) {
            self.maps.deadlines.store(slot, BootTime::PAST.as_nanos());
        }
        Ok(())
    }

    fn mute_all(&mut self) -> Result<(), MuteError> {
        for (_, slot) in self.table.iter() {
            self.maps.deadlines.store(slot, BootTime::PAST.as_nanos());
        }
        Ok(())
    }

    fn poll(&mut self, _: BootTime) -> Result<Option<BootTime>, PollError> {
        Ok(None)
    }

    fn inspection(&self) -> Inspection {
        let (interfaces, instance) = (self.interfaces.clone(), self.instance.clone());
        let (id, stage) = (self.id, self.stage);
        Box::new(move || match Rtnetlink::open() {
            Ok(mut rtnetlink) => findings(&mut rtnetlink, &instance, interfaces, id, stage),
            Err(_) => {
                interfaces.into_iter().map(|interface| Finding::Missing { interface }).collect()
            }
        })
    }

    fn remove(&mut self) -> Vec<AttachError> {
        self.interfaces.clear();
        let mut errors = tc::sweep(&mut self.rtnetlink, &self.instance, &BTreeSet::new());
        errors.extend(delete_table(&self.instance));
        errors
    }
}

/// What is wrong at these interfaces, where program `id` should run.
fn findings(
    rtnetlink: &mut Rtnetlink,
    instance: &Instance,
    interfaces: BTreeSet<String>,
    id: u32,
    stage: Stage,
) -> Vec<Finding> {
    let links = tc::links(rtnetlink).unwrap_or_default();
    let mut findings = Vec::new();
    for interface in interfaces {
        let observed = links.get(&interface).and_then(|link| {
            let observed = tc::observe(rtnetlink, link).ok()?;
            observed.runs(instance, id, stage).then_some((link.index, observed))
        });
        let Some((index, observed)) = observed else {
            findings.push(Finding::Missing { interface });
            continue;
        };
        let tcx = tcx(index, sys::Tcx::Egress);
        let filters = observed.preceding(instance).map(ToString::to_string);
        let preceding = tcx.into_iter().chain(filters);
        findings.extend(preceding.map(|by| Finding::Preceded { interface: interface.clone(), by }));
    }
    findings
}

/// The programs of a hook of tcx, if there are any.
fn tcx(index: u32, hook: sys::Tcx) -> Option<String> {
    let count = sys::tcx_programs(index, hook).unwrap_or_default();
    (count > 0).then(|| format!("tcx (programs: {count})"))
}

/// The programs that get at what comes in by these interfaces before netfilter does, each with its interface: XDP, the
/// ingress hook of tcx, filters of tc.
pub(crate) fn before_netfilter(interfaces: &BTreeSet<String>) -> io::Result<Vec<(String, String)>> {
    let mut rtnetlink = Rtnetlink::open()?;
    let mut links = tc::links(&mut rtnetlink)?;
    let mut found = Vec::new();
    for (name, link) in interfaces.iter().filter_map(|name| links.remove_entry(name)) {
        let filters = rtnetlink.ingress(link.index);
        let filters = filters.iter().filter(|filter| filter.kind == "bpf").map(ToString::to_string);
        let xdp = link.xdp.then(|| "XDP".to_owned());
        let programs = xdp.into_iter().chain(tcx(link.index, sys::Tcx::Ingress)).chain(filters);
        found.extend(programs.map(|by| (name.clone(), by)));
    }
    Ok(found)
}

fn delete_table(instance: &Instance) -> Option<AttachError> {
    let deleted = nft::delete_table(instance);
    deleted.err().map(|source| AttachError::everywhere("deleting the table", source))
}

fn load(maps: &Maps, instance: &Instance) -> Result<sys::Program, RefusalCause> {
    let operation = "loading the program";
    let slots = maps.slots.as_fd().as_raw_fd();
    let deadlines = maps.deadlines.as_fd().as_raw_fd();
    let insns = program::assemble(slots, deadlines).map_err(|error| RefusalCause::Unsupported {
        operation: "assembling the program",
        needed: "no kernel: this is a mistake in Berth",
        source: io::Error::other(error),
        detail: String::new(),
    })?;
    sys::Program::load(&insns, &instance.object("berth_fence")).map_err(|error| {
        let detail = if error.log.is_empty() { String::new() } else { format!(" ({})", error.log) };
        refusal(operation, Needs::Bpf, KERNEL, error.source, detail)
    })
}
