//! Owns the encoding of BPF instructions (RFC 9669). Jumps name labels; a label that is never placed is an error, so
//! what `finish` returns always lands inside the program. It knows only what the fence uses.

use std::collections::BTreeMap;

/// A register (RFC 9669 section 2.1): R0 carries results, R1 to R5 arguments; R6 to R9 survive calls; R10 is the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R10 = 10,
}

/// Width of a load or store.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// When a jump is taken; comparisons are unsigned.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Cond {
    Always = 0x00,
    Equal = 0x10,
    Above = 0x20,
    AtLeast = 0x30,
    NotEqual = 0x50,
}

/// Helper functions of the kernel, by the numbers in `linux/bpf.h`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Helper {
    /// `void *bpf_map_lookup_elem(map, key)`
    MapLookup = 1,
    /// `long bpf_skb_load_bytes(skb, offset, to, len)`
    SkbLoadBytes = 26,
    /// `u64 bpf_ktime_get_boot_ns(void)`, since 5.8
    BootTime = 125,
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label(u16);

/// One instruction as the kernel takes it, in the byte order of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

impl Insn {
    /// The eight bytes of `struct bpf_insn`.
    pub(crate) fn bytes(self) -> [u8; 8] {
        let registers = if cfg!(target_endian = "little") {
            self.src << 4 | self.dst
        } else {
            self.dst << 4 | self.src
        };
        let [o0, o1] = self.offset.to_ne_bytes();
        let [i0, i1, i2, i3] = self.imm.to_ne_bytes();
        [self.code, registers, o0, o1, i0, i1, i2, i3]
    }
}

/// Why a program could not be put together: a mistake in the program, never in its input.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AsmError {
    #[error("the label {0:?} is jumped to and never placed")]
    Unplaced(Label),
    #[error("the jump at {0} is further than 32767 instructions")]
    TooFar(usize),
}

/// Collects instructions.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    insns: Vec<Insn>,
    labels: u16,
    placed: BTreeMap<Label, usize>,
    jumps: Vec<(usize, Label)>,
}

const JMP: u8 = 0x05;
const ALU64: u8 = 0x07;
const BY_REGISTER: u8 = 0x08;
const MOV: u8 = 0xb0;
const ADD: u8 = 0x00;
const LOAD_FROM_MEMORY: u8 = 0x61;
const STORE_IMMEDIATE: u8 = 0x62;
const STORE_REGISTER: u8 = 0x63;
const LOAD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const PSEUDO_MAP_FD: u8 = 1;

impl Assembler {
    /// A label for a place that comes later.
    pub(crate) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    /// Puts `label` before the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        self.placed.insert(label, self.insns.len());
    }

    /// `dst = src`
    pub(crate) fn copy(&mut self, dst: Reg, src: Reg) {
        self.push(ALU64 | MOV | BY_REGISTER, dst as u8, src as u8, 0, 0);
    }

    /// `dst = value`
    pub(crate) fn set(&mut self, dst: Reg, value: i32) {
        self.push(ALU64 | MOV, dst as u8, 0, 0, value);
    }

    /// `dst += value`
    pub(crate) fn add(&mut self, dst: Reg, value: i32) {
        self.push(ALU64 | ADD, dst as u8, 0, 0, value);
    }

    /// `dst = *(width *)(src + offset)`
    pub(crate) fn load(&mut self, width: Width, dst: Reg, src: Reg, offset: i16) {
        self.push(LOAD_FROM_MEMORY | width as u8, dst as u8, src as u8, offset, 0);
    }

    /// `*(width *)(dst + offset) = value`
    pub(crate) fn store(&mut self, width: Width, dst: Reg, offset: i16, value: i32) {
        self.push(STORE_IMMEDIATE | width as u8, dst as u8, 0, offset, value);
    }

    /// `*(width *)(dst + offset) = src`
    pub(crate) fn store_reg(&mut self, width: Width, dst: Reg, offset: i16, src: Reg) {
        self.push(STORE_REGISTER | width as u8, dst as u8, src as u8, offset, 0);
    }

    /// `dst = map`, given by its file descriptor.
    pub(crate) fn map(&mut self, dst: Reg, fd: i32) {
        self.push(LOAD_IMM64, dst as u8, PSEUDO_MAP_FD, 0, fd);
        self.push(0, 0, 0, 0, 0);
    }

    /// Jumps to `label` if `dst` compares so with `value`.
    pub(crate) fn jump(&mut self, cond: Cond, dst: Reg, value: i32, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(JMP | cond as u8, dst as u8, 0, 0, value);
    }

    /// Jumps to `label` if `dst` compares so with `src`.
    pub(crate) fn jump_reg(&mut self, cond: Cond, dst: Reg, src: Reg, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(JMP | cond as u8 | BY_REGISTER, dst as u8, src as u8, 0, 0);
    }

    /// Jumps to `label`.
    pub(crate) fn goto(&mut self, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(JMP | Cond::Always as u8, 0, 0, 0, 0);
    }

    /// `R0 = helper(R1, ..., R5)`
    pub(crate) fn call(&mut self, helper: Helper) {
        self.push(CALL, 0, 0, 0, helper as i32);
    }

    /// Ends the program with R0.
    pub(crate) fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    /// Resolves the labels.
    pub(crate) fn finish(mut self) -> Result<Vec<Insn>, AsmError> {
        for (at, label) in self.jumps {
            let target = *self.placed.get(&label).ok_or(AsmError::Unplaced(label))?;
            let distance = target as i64 - at as i64 - 1;
            self.insns[at].offset = i16::try_from(distance).map_err(|_| AsmError::TooFar(at))?;
        }
        Ok(self.insns)
    }

    fn push(&mut self, code: u8, dst: u8, src: u8, offset: i16, imm: i32) {
        self.insns.push(Insn { code, dst, src, offset, imm });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(assembler: Assembler) -> Vec<[u8; 8]> {
        assembler.finish().unwrap().into_iter().map(Insn::bytes).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_rfc_9669_says() {
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.set(Reg::R0, -1);
        asm.copy(Reg::R6, Reg::R1);
        asm.load(Width::Half, Reg::R1, Reg::R10, -8);
        asm.store(Width::Double, Reg::R10, -24, 0);
        asm.map(Reg::R1, 7);
        asm.jump(Cond::Equal, Reg::R1, 0x0608, end);
        asm.jump_reg(Cond::AtLeast, Reg::R0, Reg::R8, end);
        asm.call(Helper::BootTime);
        asm.place(end);
        asm.exit();
        assert_eq!(
            bytes(asm),
            [
                [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
                [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
                [0x69, 0xa1, 0xf8, 0xff, 0, 0, 0, 0],
                [0x7a, 0x0a, 0xe8, 0xff, 0, 0, 0, 0],
                [0x18, 0x11, 0, 0, 7, 0, 0, 0],
                [0; 8],
                [0x15, 0x01, 2, 0, 0x08, 0x06, 0, 0],
                [0x3d, 0x80, 1, 0, 0, 0, 0, 0],
                [0x85, 0, 0, 0, 125, 0, 0, 0],
                [0x95, 0, 0, 0, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn a_jump_to_nowhere_is_an_error() {
        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.goto(nowhere);
        assert_eq!(asm.finish(), Err(AsmError::Unplaced(nowhere)));
    }
}
