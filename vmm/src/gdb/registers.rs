//! The registers of an x86-64 vCPU as gdb knows them: their names, types and order, which is that of the
//! description that gdb is sent, and what they are among the structures of KVM. Names and types are those
//! of gdb's `features/i386/64bit-core.xml`, `64bit-sse.xml` and `64bit-segments.xml`; the system registers
//! behind them have the names that QEMU gives them. Changes no vCPU by itself.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use gdbstub::arch::{Arch, RegId, Registers};
use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

/// The architecture.
#[derive(Debug)]
pub(crate) enum VcpuArch {}

impl Arch for VcpuArch {
    type Usize = u64;
    type Registers = RegisterFile;
    type BreakpointKind = usize;
    type RegId = RegisterId;

    fn target_description_xml() -> Option<&'static str> {
        static DESCRIPTION: LazyLock<String> = LazyLock::new(description);
        Some(&DESCRIPTION)
    }
}

/// IA32_KERNEL_GS_BASE (SDM Vol. 4, Table 2-2).
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Where MXCSR is in the area of XSAVE, in words (SDM Vol. 1, Table 10-2).
const MXCSR: usize = 24 / 4;

/// What there is to know of the registers of one vCPU.
#[derive(Debug, Clone, Default)]
pub(crate) struct VcpuRegisters {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    kernel_gs_base: u64,
    /// Of the state that XSAVE saves; KVM does not have it among the registers of the FPU.
    mxcsr: u32,
}

/// Why a register was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotChanged {
    /// It cannot be, or not alone.
    #[error(
        "this register is not written here: what a selector means is in a table, and of the others KVM \
         keeps no such word"
    )]
    ReadOnly,
    /// It has no such value.
    #[error("cr8 is a priority, 0 to 15")]
    Cr8,
}

impl VcpuRegisters {
    /// Those of the vCPU behind `fd`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn read(fd: &VcpuFd) -> Result<Self, errno::Error> {
        let mut msrs = kernel_gs_base(0);
        fd.get_msrs(&mut msrs)?;
        Ok(Self {
            regs: fd.get_regs()?,
            sregs: fd.get_sregs()?,
            fpu: fd.get_fpu()?,
            kernel_gs_base: msrs.as_slice()[0].data,
            mxcsr: fd.get_xsave()?.region[MXCSR],
        })
    }

    /// Writes those that differ from what they were to the vCPU behind `fd`.
    ///
    /// # Errors
    /// What KVM said.
    pub fn write(&self, were: &Self, fd: &VcpuFd) -> Result<(), errno::Error> {
        if self.sregs != were.sregs {
            fd.set_sregs(&self.sregs)?;
        }
        if self.regs != were.regs {
            fd.set_regs(&self.regs)?;
        }
        if self.fpu != were.fpu {
            fd.set_fpu(&self.fpu)?;
        }
        if self.kernel_gs_base != were.kernel_gs_base {
            let written = fd.set_msrs(&kernel_gs_base(self.kernel_gs_base))?;
            if written != 1 {
                return Err(errno::Error::new(libc::EINVAL));
            }
        }
        Ok(())
    }

    /// All of them.
    pub fn file(&self) -> RegisterFile {
        let places = REGISTERS.iter().map(|register| register.place);
        RegisterFile(places.map(|place| self.get(place)).collect())
    }

    /// The same with the values of `file`.
    #[must_use]
    pub fn with(&self, file: &RegisterFile) -> Self {
        let mut changed = self.clone();
        for (register, value) in REGISTERS.iter().zip(&file.0) {
            changed.set(register.place, *value);
        }
        changed
    }

    /// The bytes of one register, in the guest's order.
    pub fn bytes(&self, id: &RegisterId) -> Vec<u8> {
        let register = &REGISTERS[id.0];
        self.get(register.place).to_le_bytes()[..register.bytes()].to_vec()
    }

    /// The same with `bytes` in one register.
    ///
    /// # Errors
    /// [`NotChanged`] if it cannot have that value.
    pub fn with_bytes(&self, id: &RegisterId, bytes: &[u8]) -> Result<Self, NotChanged> {
        let register = &REGISTERS[id.0];
        if register.place.is_read_only() {
            return Err(NotChanged::ReadOnly);
        }
        let mut value = [0; 16];
        let length = bytes.len().min(register.bytes());
        value[..length].copy_from_slice(&bytes[..length]);
        let value = u128::from_le_bytes(value);
        if register.name == "cr8" && value > 15 {
            return Err(NotChanged::Cr8);
        }
        let mut changed = self.clone();
        changed.set(register.place, value);
        Ok(changed)
    }

    /// Whether the next instruction is another one than in `other`.
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        self.regs.rip != other.regs.rip
    }

    fn get(&self, place: Place) -> u128 {
        let Self {
            regs,
            sregs,
            fpu,
            kernel_gs_base,
            mxcsr,
        } = self;
        match place {
            Place::General(general) => (*general(&mut { *regs })).into(),
            Place::Flags => (regs.rflags as u32).into(),
            Place::Selector(segment) => segment(&mut { *sregs }).selector.into(),
            Place::Stack(index) => u128::from_le_bytes(fpu.fpr[index]),
            Place::Fpu(FpuRegister::Control) => fpu.fcw.into(),
            Place::Fpu(FpuRegister::Status) => fpu.fsw.into(),
            Place::Fpu(FpuRegister::Tags) => full_tags(fpu.ftwx).into(),
            Place::Fpu(FpuRegister::Instruction) => (fpu.last_ip as u32).into(),
            Place::Fpu(FpuRegister::Operand) => (fpu.last_dp as u32).into(),
            Place::Fpu(FpuRegister::Opcode) => fpu.last_opcode.into(),
            Place::Fpu(FpuRegister::Segment) => 0,
            Place::Xmm(index) => u128::from_le_bytes(fpu.xmm[index]),
            Place::Mxcsr => (*mxcsr).into(),
            Place::Base(segment) => segment(&mut { *sregs }).base.into(),
            Place::KernelGsBase => (*kernel_gs_base).into(),
            Place::System(system) => (*system(&mut { *sregs })).into(),
        }
    }

    fn set(&mut self, place: Place, value: u128) {
        let low = value as u64;
        let Self {
            regs,
            sregs,
            fpu,
            kernel_gs_base,
            mxcsr: _,
        } = self;
        match place {
            Place::General(general) => *general(regs) = low,
            Place::Flags => replace_low(&mut regs.rflags, low),
            Place::Selector(_)
            | Place::Mxcsr
            | Place::Fpu(FpuRegister::Segment | FpuRegister::Tags) => {}
            Place::Stack(index) => {
                let bytes = value.to_le_bytes();
                fpu.fpr[index][..10].copy_from_slice(&bytes[..10]);
            }
            Place::Fpu(FpuRegister::Control) => fpu.fcw = low as u16,
            Place::Fpu(FpuRegister::Status) => fpu.fsw = low as u16,
            Place::Fpu(FpuRegister::Instruction) => replace_low(&mut fpu.last_ip, low),
            Place::Fpu(FpuRegister::Operand) => replace_low(&mut fpu.last_dp, low),
            Place::Fpu(FpuRegister::Opcode) => fpu.last_opcode = low as u16,
            Place::Xmm(index) => fpu.xmm[index] = value.to_le_bytes(),
            Place::Base(segment) => segment(sregs).base = low,
            Place::KernelGsBase => *kernel_gs_base = low,
            Place::System(system) => *system(sregs) = low,
        }
    }
}

/// The registers that KVM has of 64 bits, and gdb of 32: what gdb does not see stays.
fn replace_low(register: &mut u64, low: u64) {
    *register = *register & !u64::from(u32::MAX) | low & u64::from(u32::MAX);
}

/// The tag word, of which the processor keeps only which registers are empty (SDM Vol. 1, 10.5.1.1).
/// What the others hold is not looked at.
fn full_tags(abridged: u8) -> u16 {
    const EMPTY: u16 = 0b11;
    let empty = (0..8).filter(|index| abridged >> index & 1 == 0);
    empty.fold(0, |tags, index| tags | EMPTY << (2 * index))
}

fn kernel_gs_base(value: u64) -> Msrs {
    let entry = kvm_msr_entry {
        index: KERNEL_GS_BASE,
        data: value,
        ..kvm_msr_entry::default()
    };
    Msrs::from_entries(&[entry]).expect("one is no more than KVM takes")
}

type GeneralRegister = fn(&mut kvm_regs) -> &mut u64;
type Segment = fn(&mut kvm_sregs) -> &mut kvm_segment;
type SystemRegister = fn(&mut kvm_sregs) -> &mut u64;

/// Where KVM has a register.
#[derive(Clone, Copy)]
enum Place {
    General(GeneralRegister),
    Flags,
    Selector(Segment),
    Stack(usize),
    Fpu(FpuRegister),
    Xmm(usize),
    Mxcsr,
    Base(Segment),
    KernelGsBase,
    System(SystemRegister),
}

impl Place {
    /// Whether it keeps its value, whatever is written to it. What a selector means is in a table; KVM takes
    /// the meaning, and nothing is gained by one that does not fit it. The last words of the FPU are not
    /// kept as gdb has them.
    fn is_read_only(&self) -> bool {
        use FpuRegister::{Segment, Tags};
        matches!(
            self,
            Self::Selector(_) | Self::Mxcsr | Self::Fpu(Segment | Tags)
        )
    }
}

#[derive(Clone, Copy)]
enum FpuRegister {
    Control,
    Status,
    Tags,
    Segment,
    Instruction,
    Operand,
    Opcode,
}

/// A register, in the order of the description.
struct Register {
    name: String,
    bits: usize,
    /// What gdb takes it for.
    kind: &'static str,
    feature: &'static str,
    place: Place,
}

impl Register {
    fn bytes(&self) -> usize {
        self.bits / 8
    }
}

const CORE: &str = "org.gnu.gdb.i386.core";
const SSE: &str = "org.gnu.gdb.i386.sse";
const SEGMENTS: &str = "org.gnu.gdb.i386.segments";
const SYSTEM: &str = "org.ipi-lab.system";

/// The place of `rip`.
const PC: usize = 16;

static REGISTERS: LazyLock<Vec<Register>> = LazyLock::new(registers);

fn registers() -> Vec<Register> {
    let register = |name: &str, bits, kind, feature, place| Register {
        name: name.to_owned(),
        bits,
        kind,
        feature,
        place,
    };
    let mut all = Vec::new();
    let general: [(&str, &str, GeneralRegister); 17] = [
        ("rax", "int64", |it| &mut it.rax),
        ("rbx", "int64", |it| &mut it.rbx),
        ("rcx", "int64", |it| &mut it.rcx),
        ("rdx", "int64", |it| &mut it.rdx),
        ("rsi", "int64", |it| &mut it.rsi),
        ("rdi", "int64", |it| &mut it.rdi),
        ("rbp", "data_ptr", |it| &mut it.rbp),
        ("rsp", "data_ptr", |it| &mut it.rsp),
        ("r8", "int64", |it| &mut it.r8),
        ("r9", "int64", |it| &mut it.r9),
        ("r10", "int64", |it| &mut it.r10),
        ("r11", "int64", |it| &mut it.r11),
        ("r12", "int64", |it| &mut it.r12),
        ("r13", "int64", |it| &mut it.r13),
        ("r14", "int64", |it| &mut it.r14),
        ("r15", "int64", |it| &mut it.r15),
        ("rip", "code_ptr", |it| &mut it.rip),
    ];
    for (name, kind, place) in general {
        all.push(register(name, 64, kind, CORE, Place::General(place)));
    }
    all.push(register("eflags", 32, "i386_eflags", CORE, Place::Flags));
    let selectors: [(&str, Segment); 6] = [
        ("cs", |it| &mut it.cs),
        ("ss", |it| &mut it.ss),
        ("ds", |it| &mut it.ds),
        ("es", |it| &mut it.es),
        ("fs", |it| &mut it.fs),
        ("gs", |it| &mut it.gs),
    ];
    for (name, place) in selectors {
        all.push(register(name, 32, "int32", CORE, Place::Selector(place)));
    }
    for index in 0..8 {
        let name = format!("st{index}");
        all.push(register(&name, 80, "i387_ext", CORE, Place::Stack(index)));
    }
    for (name, place) in [
        ("fctrl", FpuRegister::Control),
        ("fstat", FpuRegister::Status),
        ("ftag", FpuRegister::Tags),
        ("fiseg", FpuRegister::Segment),
        ("fioff", FpuRegister::Instruction),
        ("foseg", FpuRegister::Segment),
        ("fooff", FpuRegister::Operand),
        ("fop", FpuRegister::Opcode),
    ] {
        all.push(register(name, 32, "int", CORE, Place::Fpu(place)));
    }
    for index in 0..16 {
        let name = format!("xmm{index}");
        all.push(register(&name, 128, "vec128", SSE, Place::Xmm(index)));
    }
    all.push(register("mxcsr", 32, "i386_mxcsr", SSE, Place::Mxcsr));
    let bases: [(&str, Segment); 2] = [("fs_base", |it| &mut it.fs), ("gs_base", |it| &mut it.gs)];
    for (name, place) in bases {
        all.push(register(name, 64, "int", SEGMENTS, Place::Base(place)));
    }
    all.push(register(
        "k_gs_base",
        64,
        "int64",
        SYSTEM,
        Place::KernelGsBase,
    ));
    let system: [(&str, SystemRegister); 6] = [
        ("cr0", |it| &mut it.cr0),
        ("cr2", |it| &mut it.cr2),
        ("cr3", |it| &mut it.cr3),
        ("cr4", |it| &mut it.cr4),
        ("cr8", |it| &mut it.cr8),
        ("efer", |it| &mut it.efer),
    ];
    for (name, place) in system {
        all.push(register(name, 64, "int64", SYSTEM, Place::System(place)));
    }
    all
}

/// The types that gdb's own descriptions define, in the features in which they are used.
const FLAGS: &str = r#"<flags id="i386_eflags" size="4">
<field name="" start="22" end="31"/><field name="ID" start="21" end="21"/>
<field name="VIP" start="20" end="20"/><field name="VIF" start="19" end="19"/>
<field name="AC" start="18" end="18"/><field name="VM" start="17" end="17"/>
<field name="RF" start="16" end="16"/><field name="NT" start="14" end="14"/>
<field name="OF" start="11" end="11"/><field name="DF" start="10" end="10"/>
<field name="IF" start="9" end="9"/><field name="TF" start="8" end="8"/>
<field name="SF" start="7" end="7"/><field name="ZF" start="6" end="6"/>
<field name="AF" start="4" end="4"/><field name="PF" start="2" end="2"/>
<field name="" start="1" end="1"/><field name="CF" start="0" end="0"/>
</flags>
"#;
const VECTORS: &str = r#"<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/></union>
<flags id="i386_mxcsr" size="4"><field name="IE" start="0" end="0"/>
<field name="DE" start="1" end="1"/><field name="ZE" start="2" end="2"/>
<field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/>
<field name="PE" start="5" end="5"/><field name="DAZ" start="6" end="6"/>
<field name="IM" start="7" end="7"/><field name="DM" start="8" end="8"/>
<field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/>
<field name="UM" start="11" end="11"/><field name="PM" start="12" end="12"/>
<field name="FZ" start="15" end="15"/></flags>
"#;

/// The target description (gdb's manual, Target Description Format).
fn description() -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n\
         <target version=\"1.0\"><architecture>i386:x86-64</architecture>\n",
    );
    for (feature, types) in [(CORE, FLAGS), (SSE, VECTORS), (SEGMENTS, ""), (SYSTEM, "")] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "<feature name=\"{feature}\">\n{types}");
        let of_feature = REGISTERS.iter().filter(|it| it.feature == feature);
        for Register {
            name, bits, kind, ..
        } in of_feature
        {
            let group = match kind {
                &"int" if *bits == 32 => " group=\"float\"",
                _ => "",
            };
            let _ = writeln!(
                text,
                "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"{group}/>"
            );
        }
        text.push_str("</feature>\n");
    }
    text.push_str("</target>\n");
    text
}

/// All registers of one vCPU, in the order of the description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisterFile(Vec<u128>);

impl Default for RegisterFile {
    fn default() -> Self {
        Self(vec![0; REGISTERS.len()])
    }
}

impl Registers for RegisterFile {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.0[PC] as u64
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for (register, value) in REGISTERS.iter().zip(&self.0) {
            let bytes = &value.to_le_bytes()[..register.bytes()];
            bytes.iter().for_each(|byte| write_byte(Some(*byte)));
        }
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut rest = bytes;
        for (register, value) in REGISTERS.iter().zip(&mut self.0) {
            let (own, others) = rest.split_at_checked(register.bytes()).ok_or(())?;
            let mut all = [0; 16];
            all[..own.len()].copy_from_slice(own);
            *value = u128::from_le_bytes(all);
            rest = others;
        }
        Ok(())
    }
}

/// The number of a register in the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegisterId(usize);

impl RegId for RegisterId {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = REGISTERS.get(id)?;
        Some((Self(id), NonZeroUsize::new(register.bytes())))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers of which no two are alike.
    fn some() -> VcpuRegisters {
        let mut all = VcpuRegisters::default();
        let mut file = RegisterFile::default();
        for (index, value) in (1_u128..).zip(&mut file.0) {
            *value = index * 0x0101_0101_0101_0101_0101_0101_0101_0101;
        }
        for (register, value) in REGISTERS.iter().zip(&file.0) {
            all.set(register.place, *value);
        }
        all.sregs.cs.selector = 8;
        all
    }

    #[test]
    fn what_gdb_reads_it_can_write_back() {
        let all = some();
        let mut bytes = Vec::new();
        all.file()
            .gdb_serialize(|byte| bytes.push(byte.expect("all are known")));
        let mut file = RegisterFile::default();
        file.gdb_deserialize(&bytes).unwrap();
        assert_eq!(file, all.file());
        let again = VcpuRegisters::default().with(&file).file();
        for (register, (was, is)) in REGISTERS.iter().zip(file.0.iter().zip(&again.0)) {
            let is_read_only = register.place.is_read_only();
            assert!(
                is_read_only || (*was != 0 && was == is),
                "{}",
                register.name
            );
        }
        assert_eq!(file.pc(), all.regs.rip);
        assert!(file.gdb_deserialize(&bytes[1..]).is_err());
    }

    #[test]
    fn one_register_is_read_and_written_alone() {
        let all = some();
        for id in 0..REGISTERS.len() {
            let (id, size) = RegisterId::from_raw_id(id).unwrap();
            let bytes = all.bytes(&id);
            assert_eq!(Some(bytes.len()), size.map(Into::into));
            let register = &REGISTERS[id.0];
            match all.with_bytes(&id, &bytes) {
                Ok(same) => assert_eq!(same.file(), all.file()),
                Err(NotChanged::ReadOnly) => assert!(register.place.is_read_only()),
                Err(NotChanged::Cr8) => assert_eq!(register.name, "cr8"),
            }
        }
        assert!(RegisterId::from_raw_id(REGISTERS.len()).is_none());
        let (rip, _) = RegisterId::from_raw_id(PC).unwrap();
        let changed = all.with_bytes(&rip, &7_u64.to_le_bytes()).unwrap();
        assert!(changed.is_elsewhere(&all));
        assert_eq!((changed.regs.rip, changed.sregs), (7, all.sregs));
        assert_eq!(REGISTERS[PC].name, "rip");
    }

    #[test]
    fn the_description_is_whole_xml() {
        let mut reader = quick_xml::Reader::from_str(VcpuArch::target_description_xml().unwrap());
        let mut registers = 0;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Eof => break,
                quick_xml::events::Event::Empty(tag) if tag.name().as_ref() == b"reg" => {
                    registers += 1;
                }
                _ => {}
            }
        }
        assert_eq!(registers, REGISTERS.len());
    }

    #[test]
    fn empty_registers_of_the_fpu_are_told() {
        assert_eq!(full_tags(0), 0xffff);
        assert_eq!(full_tags(0xff), 0);
        assert_eq!(full_tags(0b1000_0001), 0b0011_1111_1111_1100);
    }
}
