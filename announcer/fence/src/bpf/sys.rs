//! Owns bpf(2) and the memory that the program and this process share. Everything unsafe of the crate is here.
//!
//! Descriptors close on exec and on drop; the kernel keeps a program and its maps for as long as a filter holds them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::asm::Insn;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_ARRAY: u32 = 2;
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// The program calls no helper that asks for a GPL-compatible licence.
const LICENCE: &[u8] = b"Apache-2.0\0";

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct MapElem {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`; the kernel fills as much as it is given room for.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Calls bpf(2).
///
/// # Safety
/// `A` is one of the attribute structs above, which match the kernel's byte for byte, and every address in it is
/// valid for the length that stands beside it until this returns.
#[allow(unsafe_code)]
unsafe fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the struct is borrowed for the call, its size is its own, and the caller vouches for what it points to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            std::mem::size_of::<A>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[allow(unsafe_code)]
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: bpf(2) has just returned this descriptor to us, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// The map from the key of an address to its slot.
#[derive(Debug)]
pub(crate) struct Slots(OwnedFd);

impl Slots {
    /// Makes a map for `capacity` addresses.
    pub(crate) fn create(capacity: u32, called: &str) -> io::Result<Slots> {
        create_map(MAP_TYPE_HASH, 16, 4, capacity, NO_PREALLOC, called).map(Slots)
    }

    /// Gives `key` the slot `slot`.
    #[allow(unsafe_code)]
    pub(crate) fn insert(&self, key: &[u8; 16], slot: u32) -> io::Result<()> {
        let mut attributes = MapElem {
            map_fd: raw(&self.0),
            key: key.as_ptr() as u64,
            value: std::ptr::from_ref(&slot) as u64,
            ..MapElem::default()
        };
        // SAFETY: key and value have the sizes the map was made with, 16 and 4, and outlive the call.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
    }

    /// Forgets `key`; that it was not there is no error.
    #[allow(unsafe_code)]
    pub(crate) fn remove(&self, key: &[u8; 16]) -> io::Result<()> {
        let mut attributes =
            MapElem { map_fd: raw(&self.0), key: key.as_ptr() as u64, ..MapElem::default() };
        // SAFETY: the key has the size the map was made with, 16, and outlives the call.
        match unsafe { bpf(MAP_DELETE_ELEM, &mut attributes) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for Slots {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The map from a slot to its deadline, in this process's memory: a store is seen by the next frame.
#[derive(Debug)]
pub(crate) struct Deadlines {
    fd: OwnedFd,
    base: NonNull<AtomicU64>,
    len: u32,
}

// SAFETY: the memory belongs to the map and is reached by atomics only, so any thread may hold it.
#[allow(unsafe_code)]
unsafe impl Send for Deadlines {}

impl Deadlines {
    /// Makes `len` slots, all of them in the past.
    #[allow(unsafe_code)]
    pub(crate) fn create(len: u32, called: &str) -> io::Result<Deadlines> {
        let fd = create_map(MAP_TYPE_ARRAY, 4, 8, len, MMAPABLE, called)?;
        let bytes = std::num::NonZeroUsize::new(len as usize * 8)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other; the map was made mmapable, and
        // its memory is `len` values of 8 bytes, page-aligned.
        let base = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &fd,
                0,
            )
        }?;
        Ok(Deadlines { fd, base: base.cast(), len })
    }

    /// Sets the deadline of `slot`. All later frames see it, and it is set before this returns.
    #[allow(unsafe_code)]
    pub(crate) fn store(&self, slot: u32, nanos: u64) {
        assert!(slot < self.len, "slot {slot} of {}", self.len);
        // SAFETY: the slot lies inside the mapping, which lives as long as self, and the kernel too reads it as one
        // aligned 8-byte word.
        unsafe { self.base.add(slot as usize).as_ref() }.store(nanos, Ordering::SeqCst);
    }
}

impl AsFd for Deadlines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Deadlines {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: mapped in `create` with this length, and no reference into it is left.
        let _ = unsafe { munmap(self.base.cast(), self.len as usize * 8) };
    }
}

/// A loaded classifier.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

/// What the verifier or the permission check said to a program.
#[derive(Debug)]
pub(crate) struct LoadError {
    pub(crate) source: io::Error,
    /// The verifier's last words; empty if it was never asked.
    pub(crate) log: String,
}

impl Program {
    /// Loads `insns`.
    pub(crate) fn load(insns: &[Insn], called: &str) -> Result<Program, LoadError> {
        let code: Vec<[u8; 8]> = insns.iter().copied().map(Insn::bytes).collect();
        load(&code, called, &mut []).map(Program).map_err(|first| {
            // Only a refusal is worth a log: asked for at once, a log that does not fit makes a good program fail.
            let mut log = vec![0; 64 * 1024];
            let source = load(&code, called, &mut log).err().unwrap_or(first);
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let text = String::from_utf8_lossy(&log[..end]);
            let last = text.lines().rev().take(4).collect::<Vec<_>>();
            LoadError { source, log: last.into_iter().rev().collect::<Vec<_>>().join("; ") }
        })
    }

    /// The number by which a dump of filters names this program.
    #[allow(unsafe_code)]
    pub(crate) fn id(&self) -> io::Result<u32> {
        let mut info = ProgInfo::default();
        let mut attributes = InfoByFd {
            bpf_fd: raw(&self.0),
            info_len: std::mem::size_of::<ProgInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        // SAFETY: `info` has the length given and outlives the call.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
        Ok(info.id)
    }

    /// Runs the program on `frame` `repeat` times, nowhere near an interface: the verdict, and the nanoseconds that
    /// one run took.
    #[allow(unsafe_code)]
    pub(crate) fn test_run(&self, frame: &[u8], repeat: u32) -> io::Result<(i32, u32)> {
        let mut attributes = TestRun {
            prog_fd: raw(&self.0),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        // SAFETY: the frame has the length given and outlives the call; no output is asked for.
        unsafe { bpf(PROG_TEST_RUN, &mut attributes) }?;
        Ok((attributes.retval as i32, attributes.duration))
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A hook of tcx at an interface (6.6 and later), which runs before any filter of tc.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Tcx {
    Ingress = TCX_INGRESS,
    Egress = TCX_EGRESS,
}

/// How many programs stand at the hook of an interface.
#[allow(unsafe_code)]
pub(crate) fn tcx_programs(interface: u32, hook: Tcx) -> io::Result<u32> {
    let attach_type = hook as u32;
    let mut attributes =
        ProgQuery { target_ifindex: interface, attach_type, ..ProgQuery::default() };
    // SAFETY: no room for numbers is given, only their count is asked for.
    match unsafe { bpf(PROG_QUERY, &mut attributes) } {
        Ok(_) => Ok(attributes.prog_cnt),
        Err(error) => match error.raw_os_error() {
            // The hook is unknown to this kernel, or nothing was ever attached to it.
            Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP | libc::E2BIG) => Ok(0),
            Some(libc::ENOSPC) => Ok(attributes.prog_cnt.max(1)),
            _ => Err(error),
        },
    }
}

/// Attaches `program` to the hook of an interface for as long as the descriptor lives.
#[cfg(test)]
#[allow(unsafe_code)]
pub(crate) fn attach_tcx(program: &Program, interface: u32, hook: Tcx) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct LinkCreate {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        padding: u32,
        revision: u64,
    }
    let mut attributes = LinkCreate {
        prog_fd: raw(program),
        target_ifindex: interface,
        attach_type: hook as u32,
        ..LinkCreate::default()
    };
    // SAFETY: the attributes hold no address.
    unsafe { bpf(28, &mut attributes) }.map(owned)
}

#[allow(unsafe_code)]
fn create_map(
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    called: &str,
) -> io::Result<OwnedFd> {
    let mut attributes = MapCreate {
        map_type: kind,
        key_size: key,
        value_size: value,
        max_entries: entries,
        map_flags: flags,
        map_name: name(called),
        ..MapCreate::default()
    };
    // SAFETY: the attributes hold no address.
    unsafe { bpf(MAP_CREATE, &mut attributes) }.map(owned)
}

#[allow(unsafe_code)]
fn load(code: &[[u8; 8]], called: &str, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attributes = ProgLoad {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: LICENCE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        prog_name: name(called),
        ..ProgLoad::default()
    };
    // SAFETY: code, licence and log are as long as said and outlive the call.
    unsafe { bpf(PROG_LOAD, &mut attributes) }.map(owned)
}
