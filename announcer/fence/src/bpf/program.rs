//! Owns the program that the kernel runs on every frame that leaves an interface. It drops a frame that would teach
//! a neighbour where one of our addresses is, once that address's deadline has passed; it passes every other frame on
//! to whatever filter comes next. What cannot be parsed is not ours and passes.

use super::asm::{AsmError, Assembler, Cond, Helper, Insn, Label, Reg, Width};
use crate::address::V4_MAPPED_WORD;

/// Go on with the next filter, as if this one were not there (`TC_ACT_UNSPEC`).
pub(crate) const PASS: i32 = -1;
/// Drop the frame (`TC_ACT_SHOT`).
pub(crate) const DROP: i32 = 2;

// struct __sk_buff: its priority, and where the part of it that lies in one piece begins and ends.
const CONTEXT_PRIORITY: i16 = 32;
const CONTEXT_DATA: i16 = 76;
const CONTEXT_DATA_END: i16 = 80;

/// The highest priority that queueing disciplines know (`TC_PRIO_CONTROL`).
const CONTROL: i32 = 7;

const ETHERTYPE_AT: i32 = 12;
const ETHERNET_LEN: i32 = 14;
const TAG_LEN: i32 = 4;

// RFC 826 with Ethernet and IPv4: the sender's protocol address.
const ARP_SENDER_AT: i32 = 14;

// RFC 8200: next header and source; then, where no extension header stands between, as in any frame of RFC 4861 that
// a receiver accepts, the ICMPv6 type and the target.
const IP6_NEXT_HEADER_AT: i32 = 6;
const IP6_SOURCE_AT: i32 = 8;
const ICMP6_TYPE_AT: i32 = 40;
const NA_TARGET_AT: i32 = 48;
const ICMP6: i32 = 58;
const NEIGHBOUR_SOLICITATION: i32 = 135;
const NEIGHBOUR_ADVERTISEMENT: i32 = 136;

// The frame: what was read last, the address as a key, its slot.
const SCRATCH: i16 = -8;
const KEY: i16 = -24;
const SLOT: i16 = -32;

/// An ethertype as a 16-bit load from a frame sees it.
const fn wire(ethertype: u16) -> i32 {
    ethertype.to_be() as i32
}

/// Assembles the program over `slots`, which maps an address to its slot, and `deadlines`, which maps a slot to the
/// nanosecond of boot time from which its address is mute.
pub(crate) fn assemble(slots: i32, deadlines: i32) -> Result<Vec<Insn>, AsmError> {
    let mut program = Program {
        asm: Assembler::default(),
        slots,
        deadlines,
        pass: Label::default(),
        drop: Label::default(),
    };
    program.pass = program.asm.label();
    program.drop = program.asm.label();
    program.write();
    program.asm.finish()
}

struct Program {
    asm: Assembler,
    slots: i32,
    deadlines: i32,
    pass: Label,
    drop: Label,
}

impl Program {
    fn write(&mut self) {
        let (pass, drop) = (self.pass, self.drop);
        let scattered = self.asm.label();
        let known = self.asm.label();
        let untagged = self.asm.label();
        let tagged = self.asm.label();
        let arp = self.asm.label();
        let ip6 = self.asm.label();
        let source = self.asm.label();

        // R6 is the frame throughout, R7 the offset of what follows the Ethernet header.
        self.asm.copy(Reg::R6, Reg::R1);
        self.asm.set(Reg::R7, ETHERNET_LEN);
        // Nearly every frame ends here: what it is stands in its first piece, so that it costs no call.
        self.asm.load(Width::Word, Reg::R2, Reg::R1, CONTEXT_DATA);
        self.asm.load(Width::Word, Reg::R3, Reg::R1, CONTEXT_DATA_END);
        self.asm.copy(Reg::R4, Reg::R2);
        self.asm.add(Reg::R4, ETHERNET_LEN);
        self.asm.jump_reg(Cond::Above, Reg::R4, Reg::R3, scattered);
        self.asm.load(Width::Half, Reg::R1, Reg::R2, ETHERTYPE_AT as i16);
        self.asm.goto(known);
        self.asm.place(scattered);
        self.asm.set(Reg::R2, ETHERTYPE_AT);
        self.read_into(SCRATCH, 2);
        self.asm.load(Width::Half, Reg::R1, Reg::R10, SCRATCH);
        self.asm.place(known);
        self.asm.jump(Cond::Equal, Reg::R1, wire(0x8100), tagged);
        self.asm.jump(Cond::NotEqual, Reg::R1, wire(0x88a8), untagged);
        // One tag in the frame itself; a VLAN interface leaves it to the device and none is seen here.
        self.asm.place(tagged);
        self.asm.set(Reg::R7, ETHERNET_LEN + TAG_LEN);
        self.asm.set(Reg::R2, ETHERTYPE_AT + TAG_LEN);
        self.read_into(SCRATCH, 2);
        self.asm.load(Width::Half, Reg::R1, Reg::R10, SCRATCH);
        self.asm.place(untagged);
        self.asm.jump(Cond::Equal, Reg::R1, wire(0x0806), arp);
        self.asm.jump(Cond::Equal, Reg::R1, wire(0x86dd), ip6);

        self.asm.place(pass);
        self.asm.set(Reg::R0, PASS);
        self.asm.exit();

        // Any operation: a gratuitous request teaches as much as a reply does.
        self.asm.place(arp);
        self.asm.store(Width::Double, Reg::R10, KEY, 0);
        self.asm.store(Width::Word, Reg::R10, KEY + 8, V4_MAPPED_WORD);
        self.at(ARP_SENDER_AT);
        self.read_into(KEY + 12, 4);
        self.judge(pass);
        self.asm.goto(pass);

        self.asm.place(ip6);
        self.at(IP6_NEXT_HEADER_AT);
        self.read_into(SCRATCH, 1);
        self.asm.load(Width::Byte, Reg::R1, Reg::R10, SCRATCH);
        self.asm.jump(Cond::NotEqual, Reg::R1, ICMP6, pass);
        self.at(ICMP6_TYPE_AT);
        self.read_into(SCRATCH, 1);
        self.asm.load(Width::Byte, Reg::R1, Reg::R10, SCRATCH);
        // RFC 4861 section 7.2.3: a solicitation teaches the link-layer address of its source.
        self.asm.jump(Cond::Equal, Reg::R1, NEIGHBOUR_SOLICITATION, source);
        self.asm.jump(Cond::NotEqual, Reg::R1, NEIGHBOUR_ADVERTISEMENT, pass);
        self.at(NA_TARGET_AT);
        self.read_into(KEY, 16);
        self.judge(source);
        self.asm.place(source);
        self.at(IP6_SOURCE_AT);
        self.read_into(KEY, 16);
        self.judge(pass);
        self.asm.goto(pass);

        self.asm.place(drop);
        self.asm.set(Reg::R0, DROP);
        self.asm.exit();
    }

    /// `R2 = offset` behind the Ethernet header.
    fn at(&mut self, offset: i32) {
        self.asm.copy(Reg::R2, Reg::R7);
        self.asm.add(Reg::R2, offset);
    }

    /// Reads `len` bytes at R2 into the stack; a frame that is shorter passes.
    fn read_into(&mut self, to: i16, len: i32) {
        self.asm.copy(Reg::R1, Reg::R6);
        self.asm.copy(Reg::R3, Reg::R10);
        self.asm.add(Reg::R3, i32::from(to));
        self.asm.set(Reg::R4, len);
        self.asm.call(Helper::SkbLoadBytes);
        self.asm.jump(Cond::NotEqual, Reg::R0, 0, self.pass);
    }

    /// Drops if the address in KEY is ours and its deadline has passed; goes on at `foreign` if it is not ours, and
    /// below if it is ours and live.
    fn judge(&mut self, foreign: Label) {
        self.asm.map(Reg::R1, self.slots);
        self.asm.copy(Reg::R2, Reg::R10);
        self.asm.add(Reg::R2, i32::from(KEY));
        self.asm.call(Helper::MapLookup);
        self.asm.jump(Cond::Equal, Reg::R0, 0, foreign);
        self.asm.load(Width::Word, Reg::R1, Reg::R0, 0);
        self.asm.store_reg(Width::Word, Reg::R10, SLOT, Reg::R1);
        self.asm.map(Reg::R1, self.deadlines);
        self.asm.copy(Reg::R2, Reg::R10);
        self.asm.add(Reg::R2, i32::from(SLOT));
        self.asm.call(Helper::MapLookup);
        // A slot outside of the map cannot be; if it were, the address would be ours and without a deadline.
        self.asm.jump(Cond::Equal, Reg::R0, 0, self.drop);
        self.asm.copy(Reg::R8, Reg::R0);
        self.asm.call(Helper::BootTime);
        // The clock first, the deadline after: a deadline raised in between can only belong to a live grant.
        self.asm.load(Width::Double, Reg::R8, Reg::R8, 0);
        self.asm.jump_reg(Cond::AtLeast, Reg::R0, Reg::R8, self.drop);
        // From here on it waits behind nothing that a queueing discipline can put it before: what waits comes late.
        self.asm.set(Reg::R1, CONTROL);
        self.asm.store_reg(Width::Word, Reg::R6, CONTEXT_PRIORITY, Reg::R1);
    }
}
