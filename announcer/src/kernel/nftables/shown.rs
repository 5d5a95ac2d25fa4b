//! What there is of nftables, read by netlink: a process of `nft` reads the elements of all sets before it lists anything
//! (1.0.6), and takes a kilobyte for each.

use std::io;

use super::super::netfilter::{
    DUMP, NFTABLES, Netfilter, Request, find, find_text, nested, number,
};
use super::{ELEMENT, ELEMENTS, INET, KEY, SET, TABLE, VALUE, name};

/// `NFT_MSG_GETTABLE`, `NFT_MSG_GETCHAIN`, `NFT_MSG_GETRULE`, `NFT_MSG_GETSETELEM`.
const GET_TABLES: u8 = 1;
const GET_CHAINS: u8 = 4;
const GET_RULES: u8 = 7;
const GET_ELEMENTS: u8 = 13;
/// `NFTA_TABLE_FLAGS`, `NFTA_TABLE_OWNER`, `NFT_TABLE_F_OWNER`.
const FLAGS: u16 = 2;
const OWNER: u16 = 7;
const IS_OWNED: u32 = 2;
/// `NFTA_CHAIN_HOOK`, `NFTA_CHAIN_POLICY`, `NFTA_HOOK_HOOKNUM`, `NFTA_HOOK_PRIORITY`.
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// Families in which there are tables of ours: `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`, and `NFPROTO_NETDEV`.
pub(crate) const FAMILIES: [u8; 4] = [INET, 2, 10, NETDEV];
pub(crate) const NETDEV: u8 = 5;

/// A chain that stands in a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    /// What no rule decides on passes.
    pub(crate) accepts: bool,
}

/// The names of all tables of a family.
pub(crate) async fn tables(netfilter: &Netfilter, family: u8) -> io::Result<Vec<String>> {
    let request =
        Request { subsystem: NFTABLES, command: GET_TABLES, flags: DUMP, family, attributes: &[] };
    let mut names = Vec::new();
    let named = |attributes: &[u8]| {
        names.extend(find_text(attributes, TABLE).map(str::to_owned));
    };
    netfilter.ask(request, named).await?;
    Ok(names)
}

/// Who alone may change a table of the family `inet`: the number of its socket, which as a rule is that of its process.
pub(crate) async fn owner(netfilter: &Netfilter, table: &str) -> io::Result<Option<u32>> {
    let mut owner = None;
    let each = |attributes: &[u8]| {
        if find_text(attributes, TABLE) == Some(table)
            && number(attributes, FLAGS).is_some_and(|flags| flags & IS_OWNED != 0)
        {
            owner = number(attributes, OWNER);
        }
    };
    netfilter.ask(dump(GET_TABLES, &[]), each).await?;
    Ok(owner)
}

/// The chains of a table of the family `inet` that stand in a hook, and how many rules all of it has. None where there is no
/// such table.
pub(crate) async fn chains(netfilter: &Netfilter, table: &str) -> io::Result<(Vec<Chain>, usize)> {
    let mut chains = Vec::new();
    let attributes = name(TABLE, table);
    let of_table = |attributes: &[u8]| find_text(attributes, TABLE) == Some(table);
    let each = |attributes: &[u8]| {
        chains.extend(chain(attributes).filter(|_| of_table(attributes)));
    };
    netfilter.ask(dump(GET_CHAINS, &attributes), each).await?;
    let mut rules = 0;
    let each = |attributes: &[u8]| rules += usize::from(of_table(attributes));
    netfilter.ask(dump(GET_RULES, &attributes), each).await?;
    Ok((chains, rules))
}

/// Hands on the key of each element of a set.
///
/// # Errors
/// What the kernel says: `ENOENT` where there is no such table or set.
pub(crate) async fn elements(
    netfilter: &Netfilter,
    table: &str,
    set: &str,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let attributes = [name(TABLE, table), name(SET, set)].concat();
    let request = dump(GET_ELEMENTS, &attributes);
    netfilter.ask(request, |attributes| keys(attributes, &mut each)).await
}

fn dump(command: u8, attributes: &[u8]) -> Request<'_> {
    Request { subsystem: NFTABLES, command, flags: DUMP, family: INET, attributes }
}

pub(super) fn chain(attributes: &[u8]) -> Option<Chain> {
    let hook = find(attributes, HOOK)?;
    Some(Chain {
        hook: number(hook, HOOK_NUMBER)?,
        priority: number(hook, HOOK_PRIORITY)?.cast_signed(),
        accepts: number(attributes, POLICY) == Some(ACCEPT),
    })
}

pub(super) fn keys(attributes: &[u8], mut each: impl FnMut(&[u8])) {
    let elements = find(attributes, ELEMENTS).unwrap_or_default();
    for element in nested(elements, ELEMENT) {
        if let Some(key) = find(element, KEY).and_then(|key| find(key, VALUE)) {
            each(key);
        }
    }
}
