//! Owns the interfaces' egress hooks: observes, plans, performs. An interface that cannot be guarded is an error of
//! that interface and stops no other.

mod netlink;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;

pub(crate) use netlink::{Link, Rtnetlink};
pub(crate) use plan::Stage;
use plan::{Observed, Obstacle, Step};

use crate::error::{AttachCause, AttachError};
use crate::instance::Instance;

/// A loaded program, by its descriptor and by the number that dumps show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) id: u32,
}

/// Puts `program` on `link`, or finds that it is there.
pub(crate) fn guard(
    rtnetlink: &mut Rtnetlink,
    instance: &Instance,
    link: &Link,
    program: Loaded<'_>,
    stage: Stage,
) -> Result<(), AttachError> {
    let fail = |cause| AttachError { interface: link.name.clone(), cause };
    if !link.ethernet {
        return Err(fail(AttachCause::NotEthernet));
    }
    let observed = observe(rtnetlink, link)?;
    let steps = plan::guard(&observed, instance, program.id, stage).map_err(|obstacle| {
        fail(match obstacle {
            Obstacle::Qdisc(kind) => AttachCause::NoEgressHook { kind },
            Obstacle::Priority(kind) => AttachCause::PriorityTaken { kind },
            Obstacle::Handle(name, handle) => AttachCause::HandleTaken { name, handle },
        })
    })?;
    for step in steps {
        match step {
            Step::AddQdisc => rtnetlink
                .add_qdisc(link.index)
                .map_err(|source| failed(link, "adding clsact", source))?,
            Step::Put(stage) => rtnetlink
                .put_filter(link.index, instance, stage, program.fd)
                .map_err(|source| failed(link, "adding the filter", source))?,
            Step::Retire(stage) => rtnetlink
                .delete_filter(link.index, instance, stage)
                .map_err(|source| failed(link, "deleting the filter", source))?,
        }
    }
    Ok(())
}

/// Takes our filters off `link`.
fn clear(rtnetlink: &mut Rtnetlink, instance: &Instance, link: &Link) -> Result<(), AttachError> {
    let observed = observe(rtnetlink, link)?;
    for stage in plan::clear(&observed, instance) {
        rtnetlink
            .delete_filter(link.index, instance, stage)
            .map_err(|source| failed(link, "deleting the filter", source))?;
    }
    Ok(())
}

/// Takes the filters of the instance, a predecessor's too, off every interface but `keep`.
pub(crate) fn sweep(
    rtnetlink: &mut Rtnetlink,
    instance: &Instance,
    keep: &BTreeSet<String>,
) -> Vec<AttachError> {
    let links = match rtnetlink.links() {
        Ok(links) => links,
        Err(source) => return vec![AttachError::everywhere("listing the interfaces", source)],
    };
    // Without the short list, each interface is looked at.
    let candidates =
        rtnetlink.with_clsact().unwrap_or_else(|_| links.iter().map(|link| link.index).collect());
    let others =
        links.iter().filter(|link| !keep.contains(&link.name) && candidates.contains(&link.index));
    others.filter_map(|link| clear(rtnetlink, instance, link).err()).collect()
}

/// The names of all filters of fences, but for what an earlier Berth put behind them.
pub(crate) fn names(rtnetlink: &mut Rtnetlink) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for index in rtnetlink.with_clsact()? {
        let egress = rtnetlink.observe(index)?.egress;
        let fences = egress.into_iter().filter(|filter| filter.is_fence()).map(|fence| fence.name);
        names.extend(fences.map(|name| name.split('+').next().unwrap_or_default().to_owned()));
    }
    Ok(names)
}

/// What `link` has at its hooks.
pub(crate) fn observe(rtnetlink: &mut Rtnetlink, link: &Link) -> Result<Observed, AttachError> {
    rtnetlink.observe(link.index).map_err(|source| failed(link, "reading its filters", source))
}

/// Every interface by its name.
pub(crate) fn links(rtnetlink: &mut Rtnetlink) -> io::Result<BTreeMap<String, Link>> {
    Ok(rtnetlink.links()?.into_iter().map(|link| (link.name.clone(), link)).collect())
}

fn failed(link: &Link, operation: &'static str, source: io::Error) -> AttachError {
    let gone = source.raw_os_error() == Some(nix::libc::ENODEV);
    let cause =
        if gone { AttachCause::NoInterface } else { AttachCause::Kernel { operation, source } };
    AttachError { interface: link.name.clone(), cause }
}
