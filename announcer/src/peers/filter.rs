//! Which datagrams the kernel keeps for the sockets of the peers: a socket filter (classic BPF, Linux
//! `networking/filter.rst`). What is no datagram of membership for this node neither wakes anybody nor takes room in the
//! queue. Pure.

use berth_membership::envelope::{KIND_AT, KINDS, MAGIC, SHORTEST, TO_AT, VERSION_AT, VERSIONS};
use berth_membership::{NodeId, Parameters};
use socket2::SockFilter;

// BPF_LD of the length, of BPF_W, BPF_H and BPF_B at an absolute offset; BPF_JMP with a constant; BPF_RET of a constant.
const LENGTH: u16 = 0x80;
const WORD: u16 = 0x20;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The whole datagram.
const ALL: u32 = u32::MAX;

/// A filter of a UDP socket sees the header of UDP in front (RFC 768).
const HEADER: usize = 8;

/// What has to be so of a value.
#[derive(Clone, Copy)]
enum Check {
    Is(u32),
    Within(u32, u32),
}

/// Passes what may be a datagram of membership for `node`, by length, magic, version, kind and receiver.
pub(super) fn for_node(node: NodeId) -> Vec<SockFilter> {
    let to = node.bits().to_be_bytes();
    let [high, low] = [&to[..4], &to[4..]].map(number);
    let span = |(first, last): (u8, u8)| Check::Within(first.into(), last.into());
    let lengths = Check::Within(wide(HEADER + SHORTEST), wide(HEADER + longest()));
    let checks = [
        (LENGTH, 0, lengths),
        (HALF, HEADER, Check::Is(number(&MAGIC))),
        (BYTE, HEADER + VERSION_AT, span(VERSIONS)),
        (BYTE, HEADER + KIND_AT, span(KINDS)),
        (WORD, HEADER + TO_AT, Check::Is(high)),
        (WORD, HEADER + TO_AT + 4, Check::Is(low)),
    ];
    // From the end, since each refusal jumps there.
    let mut program = vec![SockFilter::new(RETURN, 0, 0, 0), SockFilter::new(RETURN, 0, 0, ALL)];
    for (load, at, check) in checks.into_iter().rev() {
        let refuse = |program: &Vec<_>| u8::try_from(program.len() - 1).unwrap_or(u8::MAX);
        let (least, most) = match check {
            Check::Is(value) => {
                program.push(SockFilter::new(EQUAL, 0, refuse(&program), value));
                program.push(SockFilter::new(load, 0, 0, wide(at)));
                continue;
            }
            Check::Within(least, most) => (least, most),
        };
        program.push(SockFilter::new(GREATER, refuse(&program), 0, most));
        program.push(SockFilter::new(AT_LEAST, 0, refuse(&program), least));
        program.push(SockFilter::new(load, 0, 0, wide(at)));
    }
    program.reverse();
    program
}

/// Octets of the longest datagram that a peer sends.
pub(super) fn longest() -> usize {
    Parameters::default().datagram
}

fn number(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |number, octet| number << 8 | u32::from(*octet))
}

fn wide(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
