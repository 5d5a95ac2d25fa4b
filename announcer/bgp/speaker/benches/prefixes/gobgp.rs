//! GoBGP as who announces: it reads what it is to announce from a dump (MRT, RFC 6396), by its own command for that.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use lab_routers::{Cable, GoBgp, Namespace, Neighbor, Plan, Program, until};

use crate::speak::FIRST;
use crate::{Announcer, Known, OWN, THEIRS};

pub(crate) struct Injector {
    folder: PathBuf,
}

impl Injector {
    pub(crate) fn new(count: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("berth-inject-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("dump"), dump(count)).unwrap();
        Self { folder }
    }

    fn inject(&self) {
        let dump = self.folder.join("dump").display().to_string();
        GoBgp.says(&self.folder, &format!("mrt inject global {dump}")).unwrap();
    }
}

impl Announcer for Injector {
    fn start(&mut self, node: &Namespace, _: u32, known: Known) -> Child {
        let _ = std::fs::remove_file(self.folder.join("api"));
        let neighbor = |number| {
            let cable = Cable(number);
            let mut neighbor = Neighbor::new(cable.v4(11), cable.v4(1), THEIRS);
            neighbor.connects = true;
            neighbor
        };
        let neighbors = (0..3).map(neighbor).collect();
        let (router_id, more) = (Cable(0).v4(11), Vec::new());
        let plan = Plan { asn: OWN, router_id, neighbors, forwards: false, more };
        let daemons = GoBgp.configure(&plan, &self.folder).unwrap();
        let (program, words) = daemons[0].command.split_first().unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let child = crate::spawn(node, program, &words, Stdio::null());
        until(|| daemons[0].answers.exists().then_some(())).expect("gobgpd answers");
        if known == Known::AtStart {
            self.inject();
        }
        child
    }

    fn give(&mut self, _: &mut Child) {
        self.inject();
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// TABLE_DUMP_V2: who it is from, and a record for each prefix.
fn dump(count: u32) -> Vec<u8> {
    let nobody = Ipv4Addr::UNSPECIFIED.octets();
    let id = Cable(0).v4(11).octets();
    let peers = [&id[..], &[0, 0, 0, 1, 2], &id, &id, &OWN.to_be_bytes()].concat();
    let mut dump = record(1, &peers);
    // Origin IGP, no AS so far, and the next hop that GoBGP puts in itself.
    let attributes = [&[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4][..], &nobody].concat();
    for number in 0..count {
        let prefix = Ipv4Addr::from_bits(FIRST.to_bits() + number).octets();
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        let entry = [&[0, 1, 0, 0, 0, 0, 0, 0][..], &length, &attributes].concat();
        dump.extend(record(2, &[&number.to_be_bytes()[..], &[32], &prefix, &entry].concat()));
    }
    dump
}

fn record(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0; 4][..], &[0, 13], &kind.to_be_bytes(), &length, body].concat()
}
