//! Whatever comes by netlink: it is read, passed over, or may be about anything.

use rtnetlink::sys::Socket;

use super::super::netfilter::{acknowledged, find};
use super::tests::message;
use super::*;

/// What the kernel says of everything there is of a kind: `RTM_GETLINK` and so on.
fn dumped(kind: u16) -> Vec<Vec<u8>> {
    let socket = Socket::new(protocols::NETLINK_ROUTE).unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    let (length, flags) = (36_u32.to_ne_bytes(), 0x301_u16.to_ne_bytes());
    let request = [&length[..], &kind.to_ne_bytes(), &flags, &[0; 28]].concat();
    socket.send(&request, 0).unwrap();
    let mut said = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().unwrap();
        // `NLMSG_DONE`.
        let is_last =
            messages(&datagram).any(|message| (message.subsystem, message.command) == (0, 3));
        said.push(datagram);
        if is_last {
            return said;
        }
    }
}

#[test]
fn whatever_arrives_of_the_network_is_read_or_may_be_about_anything() {
    const GET_LINK: u16 = 18;
    const GET_ADDRESS: u16 = 22;
    const GET_ROUTE: u16 = 26;
    const GET_RULE: u16 = 34;
    const GET_DISCIPLINE: u16 = 38;
    let kinds = [GET_LINK, GET_ADDRESS, GET_ROUTE, GET_RULE, GET_DISCIPLINE];
    let samples: Vec<Vec<u8>> = kinds.into_iter().flat_map(dumped).collect();
    let mut links = 0;
    read_network(&samples[0], |event| {
        links += usize::from(matches!(event, Event::Network(KernelChange::Link(_))));
    });
    assert!(links > 0, "every network namespace has a link");
    berth_hostile::octets(&samples, |datagram| read_network(datagram, |_| {}));
}

#[test]
fn whatever_arrives_of_netfilter_is_read_or_passed_over() {
    let samples = [
        message(2, &[(1, "berth")]),
        message(5, &[(1, "nat"), (3, "KUBE-EIP-PREROUTING")]),
        [message(8, &[(1, "nat"), (2, "a")]), message(6, &[(1, "nat"), (2, "a")])].concat(),
    ];
    berth_hostile::octets(&samples, |datagram| {
        read_rules(datagram, |_| {});
        for message in messages(datagram) {
            let _ = (acknowledged(message.attributes()), find(message.attributes(), 6));
        }
    });
}
