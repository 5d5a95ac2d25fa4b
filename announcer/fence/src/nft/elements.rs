//! Owns the batches of set elements that go to nftables, as bytes (`linux/netfilter/nf_tables.h`). The `nft` program
//! makes the table; running it for each refresh would take longer than a refresh may.

use std::net::IpAddr;
use std::time::Duration;

use nix::libc;

use super::table::{HELD4, HELD6, LIVE};

const FAMILY_NETDEV: u8 = 5;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM << 8 | 14;
const NESTED: u16 = 1 << 15;

const TABLE_NAME: u16 = 1;
// NFTA_SET_ELEM_LIST_*
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
// NFTA_SET_ELEM_*
const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const DATA_VALUE: u16 = 1;

/// An attribute's length is 16 bits wide: so many elements of 16 bytes fit with room to spare.
const CHUNK: usize = 1000;

/// The key of the element that lives: the type of any interface that has neighbours (`ARPHRD_ETHER`).
const LIVE_KEY: [u8; 2] = 1u16.to_ne_bytes();

/// A transaction in the making. Messages happen in order, all or none.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The table it is about.
    table: String,
    bytes: Vec<u8>,
    messages: usize,
}

impl Batch {
    /// An empty transaction on a table.
    pub(crate) fn on(table: &str) -> Batch {
        let mut batch = Batch { table: table.to_owned(), bytes: Vec::new(), messages: 0 };
        batch.frame(BATCH_BEGIN, 0, 0, SUBSYSTEM, &[]);
        batch
    }

    /// Makes `live` for `life`.
    pub(crate) fn add_live(&mut self, life: Duration) -> &mut Batch {
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let element = [
            key(&LIVE_KEY),
            attribute(ELEMENT_TIMEOUT, &millis),
            // Linux 6.12 and later take a shorter remainder from here; others ignore it for a new element.
            attribute(ELEMENT_EXPIRATION, &millis),
        ]
        .concat();
        self.message(NEW_ELEMENTS, LIVE, &[element])
    }

    /// Removes `live`, which must exist.
    pub(crate) fn delete_live(&mut self) -> &mut Batch {
        self.message(DELETE_ELEMENTS, LIVE, &[key(&LIVE_KEY)])
    }

    /// Holds `addresses`.
    pub(crate) fn hold(&mut self, addresses: &[IpAddr]) -> &mut Batch {
        self.addresses(NEW_ELEMENTS, addresses)
    }

    /// Holds `addresses` no longer; each must be held.
    pub(crate) fn release(&mut self, addresses: &[IpAddr]) -> &mut Batch {
        self.addresses(DELETE_ELEMENTS, addresses)
    }

    /// Holds nothing.
    pub(crate) fn release_all(&mut self) -> &mut Batch {
        self.message(DELETE_ELEMENTS, HELD4, &[]).message(DELETE_ELEMENTS, HELD6, &[])
    }

    /// Removes the table with all that is in it; it must exist.
    pub(crate) fn delete_table(&mut self) -> &mut Batch {
        let body = attribute(TABLE_NAME, &text(&self.table));
        self.frame(DELETE_TABLE, libc::NLM_F_ACK as u16, FAMILY_NETDEV, 0, &body);
        self.messages += 1;
        self
    }

    /// The bytes to send, and how many messages in them are to be acknowledged.
    pub(crate) fn finish(mut self) -> (Vec<u8>, usize) {
        self.frame(BATCH_END, 0, 0, SUBSYSTEM, &[]);
        (self.bytes, self.messages)
    }

    fn addresses(&mut self, kind: u16, addresses: &[IpAddr]) -> &mut Batch {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(key(&address.octets())),
                IpAddr::V6(address) => v6.push(key(&address.octets())),
            }
        }
        for (set, elements) in [(HELD4, v4), (HELD6, v6)] {
            for some in elements.chunks(CHUNK) {
                self.message(kind, set, some);
            }
        }
        self
    }

    /// Without elements, a deletion empties the set.
    fn message(&mut self, kind: u16, set: &str, elements: &[Vec<u8>]) -> &mut Batch {
        let mut body =
            [attribute(LIST_TABLE, &text(&self.table)), attribute(LIST_SET, &text(set))].concat();
        if !elements.is_empty() {
            let list: Vec<u8> = elements
                .iter()
                .flat_map(|element| attribute(LIST_ELEMENT | NESTED, element))
                .collect();
            body.extend(attribute(LIST_ELEMENTS | NESTED, &list));
        }
        let create = if kind == NEW_ELEMENTS { libc::NLM_F_CREATE } else { 0 };
        self.frame(kind, (create | libc::NLM_F_ACK) as u16, FAMILY_NETDEV, 0, &body);
        self.messages += 1;
        self
    }

    /// A `struct nlmsghdr` and a `struct nfgenmsg` before `body`.
    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        let length = (20 + body.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
    }
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn key(value: &[u8]) -> Vec<u8> {
    attribute(ELEMENT_KEY | NESTED, &attribute(DATA_VALUE, value))
}

/// A `struct nlattr`, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_framed_and_aligned() {
        let mut batch = Batch::on("berth-fence");
        batch
            .delete_live()
            .add_live(Duration::from_millis(120))
            .hold(&[IpAddr::from([192, 0, 2, 1])]);
        let (bytes, messages) = batch.finish();
        assert_eq!(messages, 3);
        let mut rest = bytes.as_slice();
        let mut kinds = Vec::new();
        while let Some((head, _)) = rest.split_first_chunk::<8>() {
            let length = u32::from_ne_bytes(*head.first_chunk().unwrap()) as usize;
            assert_eq!(length % 4, 0);
            kinds.push(u16::from_ne_bytes([head[4], head[5]]));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [BATCH_BEGIN, DELETE_ELEMENTS, NEW_ELEMENTS, NEW_ELEMENTS, BATCH_END]);
    }

    #[test]
    fn many_addresses_take_many_messages() {
        let many: Vec<_> = (0..2500u32).map(|number| IpAddr::from(number.to_be_bytes())).collect();
        let mut batch = Batch::on("berth-fence");
        batch.hold(&many);
        assert_eq!(batch.finish().1, 3);
    }
}
