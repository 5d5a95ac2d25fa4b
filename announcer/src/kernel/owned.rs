//! Tables of nftables that only their maker can change, and that go with its socket, however it ends
//! (`NFT_TABLE_F_OWNER`, Linux 5.12). One that is empty is a lock: it belongs to the network namespace, and taking it
//! needs CAP_NET_ADMIN there.

use std::io;

use nix::libc;
use rtnetlink::sys::Socket;

use super::netfilter::{ACKNOWLEDGE, attribute, find, messages};
use super::nftables::{ask, message, name, open, transaction};

/// `NFT_MSG_NEWTABLE`, `NFT_MSG_GETTABLE`.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
/// `NFTA_TABLE_NAME`, `NFTA_TABLE_FLAGS`, `NFTA_TABLE_USERDATA`.
const NAME: u16 = 1;
const FLAGS: u16 = 2;
const USER_DATA: u16 = 6;
/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// An empty table, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Owned {
    _socket: Socket,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnedError {
    /// Another process has it, which says this of itself.
    #[error("taken by {0}")]
    Taken(String),
    /// This kernel has no such tables.
    #[error(transparent)]
    Unavailable(#[from] io::Error),
}

impl Owned {
    /// Makes it. `nft list tables` shows its name, and `comment` with it.
    pub(crate) fn make(table: &str, comment: &str) -> Result<Self, OwnedError> {
        let socket = open()?;
        let text = [comment.as_bytes(), &[0]].concat();
        // What nft shows as a comment: type 0, the length, the text (libnftnl's `udata`).
        let length = u8::try_from(text.len()).map_err(io::Error::other)?;
        let attributes = [
            name(NAME, table),
            attribute(FLAGS, &OWNER.to_be_bytes()),
            attribute(USER_DATA, &[&[0, length][..], &text].concat()),
        ];
        let new = message(NEW_TABLE, CREATE | ACKNOWLEDGE, &attributes.concat());
        match ask(&socket, &transaction(&new)) {
            Ok(_) => Ok(Self { _socket: socket }),
            // The kernel says the first of one with an owner, and to whoever may do nothing at all.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EEXIST)) => {
                let answer = ask(&socket, &message(GET_TABLE, ACKNOWLEDGE, &name(NAME, table)))?;
                Err(OwnedError::Taken(comment_of(&answer)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What the maker of a table says of itself.
pub(super) fn comment_of(answer: &[u8]) -> String {
    let data = messages(answer).find_map(|message| find(message.attributes(), USER_DATA));
    let text = data.and_then(|data| data.get(2..)).unwrap_or_default();
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_its_makers_alone_and_goes_with_it() {
        let name = format!("berth-test/{}", std::process::id());
        let first = Owned::make(&name, "the first").unwrap();
        let again = Owned::make(&name, "the second").unwrap_err();
        assert_eq!(again.to_string(), "taken by the first");
        let nft = |arguments: &[&str]| {
            let output = std::process::Command::new("nft").args(arguments).output().unwrap();
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        let shown = nft(&["list", "table", "inet", &name]);
        assert!(
            shown.contains("flags owner") && shown.contains("comment \"the first\""),
            "{shown}"
        );
        let deleted = nft(&["delete", "table", "inet", &name]);
        assert!(deleted.contains("Operation not permitted"), "{deleted}");
        drop(first);
        assert!(Owned::make(&name, "the second").is_ok());
    }
}
