//! From registers and a stack copy to the addresses of the functions on the way to a write.
//!
//! Walked by call frame information alone (`.eh_frame`): where that ends the walk ends, and says so. Frame pointers are
//! not guessed at, as a guess would put a function on the stack that was never there.

use gimli::{CfaRule, EvaluationResult, Register, RegisterRule, UnwindContext, UnwindExpression, Value, X86_64};

use super::image::{Image, Images, Reader};
use crate::snapshot::Region;
use crate::target::{How, StackCopy, Word, Write};

/// Frames after which a walk gives up.
const DEEPEST: usize = 256;

/// Bytes that a repeated string instruction may be ahead of the trap that it raises.
const AHEAD: u64 = 64;

/// A place in the code, one function on a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Path of the file, or the mapping's name; empty for code in no named mapping.
    pub(crate) module: String,
    /// Address within the file that lies in the instruction itself; in the target where the file cannot be read.
    pub(crate) address: u64,
    /// Whether that is an address within the file.
    pub(crate) in_file: bool,
    /// The function's frame: from its stack pointer to that of its caller. Empty where the walk ended.
    pub(crate) frame: (u64, u64),
}

/// The functions on the way to a write, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) sites: Vec<Site>,
    /// Why it ends before the first function of the thread; `None` if it does not.
    pub(crate) cut: Option<&'static str>,
}

/// Registers by their DWARF numbers: the sixteen general ones, then the return address.
type Registers = [Option<u64>; 17];

const RSP: usize = 7;
const RETURN: usize = 16;

/// Walks the stack of a write to `word`.
pub(crate) fn walk(write: &Write, word: Word, regions: &[Region], images: &Images) -> Walk {
    let regions = write.regions.as_deref().unwrap_or(regions);
    let mut walk = Walk::default();
    let mut registers = registers(&write.registers);
    // Where the thread stands just behind the instruction, its address lies one byte back.
    let mut behind = match write.how {
        How::Instruction => !repeats(write, word, regions, images),
        How::Call { .. } | How::Exec => true,
        How::SignalFrame(_) | How::Unseen => false,
    };
    let mut returned = false;
    while walk.sites.len() < DEEPEST {
        let (Some(pc), Some(sp)) = (registers[RETURN], registers[RSP]) else {
            walk.cut = Some("a register that the frame information needs is not known");
            return walk;
        };
        if pc == 0 {
            return walk;
        }
        let within = pc.wrapping_sub(u64::from(behind));
        let region = regions.iter().find(|region| region.contains(within));
        let found = region.and_then(|region| images.behind(region, within));
        let mut site = Site {
            module: region.map(|region| region.name.clone()).unwrap_or_default(),
            address: found.as_ref().map_or(within, |(_, address)| *address),
            in_file: found.is_some(),
            frame: (sp, sp),
        };
        let Some((image, address)) = found else {
            walk.sites.push(site);
            walk.cut = Some("code in no file that can be read");
            return walk;
        };
        // The innermost function's frame is that behind the instruction, a caller's that during the call.
        let at = if returned { address } else { address.wrapping_add(u64::from(behind)) };
        match step(&image, at, &registers, &write.stack) {
            Step::Caller { registers: next, signal } => {
                site.frame = (sp, next[RSP].unwrap_or(sp));
                walk.sites.push(site);
                if !signal && next[RSP] <= registers[RSP] {
                    walk.cut = Some("the frame information leads nowhere");
                    return walk;
                }
                registers = next;
                (behind, returned) = (!signal, !signal);
            }
            Step::Outermost => {
                walk.sites.push(site);
                return walk;
            }
            Step::Lost(why) => {
                walk.sites.push(site);
                walk.cut = Some(why);
                return walk;
            }
        }
    }
    walk.cut = Some("too many frames");
    walk
}

fn registers(of: &libc::user_regs_struct) -> Registers {
    [
        of.rax, of.rdx, of.rcx, of.rbx, of.rsi, of.rdi, of.rbp, of.rsp, of.r8, of.r9, of.r10, of.r11, of.r12, of.r13,
        of.r14, of.r15, of.rip,
    ]
    .map(Some)
}

/// Whether the thread stands on a repeated string instruction (`rep movs`, `rep stos`) that has just stored to the word.
///
/// It traps after a repetition with its own address still in the instruction pointer, and behind itself only after
/// the last.
///
/// # Source
///
/// Intel SDM volume 3, *Data Memory and I/O Breakpoint Exception Conditions*; volume 2, *REP*.
fn repeats(write: &Write, word: Word, regions: &[Region], images: &Images) -> bool {
    let registers = &write.registers;
    let Some(region) = regions.iter().find(|region| region.contains(registers.rip)) else { return false };
    let Some((image, address)) = images.behind(region, registers.rip) else { return false };
    let code = image.code(address, 4);
    let code = match code.as_slice() {
        [0xf2 | 0xf3, 0x48..=0x4f, rest @ ..] | [0xf2 | 0xf3, rest @ ..] => rest,
        _ => return false,
    };
    let stores = matches!(code.first(), Some(0xa4 | 0xa5 | 0xaa | 0xab));
    let down = registers.eflags & 0x400 != 0;
    let (start, end) = (word.address, word.address.saturating_add(u64::from(word.length)));
    let passed = if down {
        registers.rdi < end && start.saturating_sub(registers.rdi) <= AHEAD
    } else {
        registers.rdi > start && registers.rdi.saturating_sub(end) <= AHEAD
    };
    stores && registers.rcx != 0 && passed
}

#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Step {
    Caller {
        registers: Registers,
        /// The function was a signal's trampoline: what it returns to was interrupted, and called nobody.
        signal: bool,
    },
    /// Nobody called it.
    Outermost,
    Lost(&'static str),
}

/// From a function to its caller.
fn step(image: &Image, address: u64, registers: &Registers, stack: &StackCopy) -> Step {
    let Some(fde) = image.fde(address) else { return Step::Lost("no frame information for the function") };
    let (section, bases) = image.frames();
    let mut context = UnwindContext::new();
    let Ok(row) = fde.unwind_info_for_address(&section, bases, &mut context, address) else {
        return Step::Lost("the frame information cannot be read");
    };
    let evaluate = |expression: &UnwindExpression<usize>, initial: Option<u64>| {
        let expression = expression.get(&section).ok()?;
        evaluate(expression.evaluation(fde.cie().encoding()), initial, registers, stack)
    };
    let known = |register: Register| registers.get(usize::from(register.0)).copied().flatten();
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            known(*register).map(|value| value.wrapping_add_signed(*offset))
        }
        CfaRule::Expression(expression) => evaluate(expression, None),
    };
    let Some(cfa) = cfa else { return Step::Lost("the frame's place cannot be computed") };
    let mut next = *registers;
    next[RSP] = Some(cfa);
    next[RETURN] = None;
    for (number, value) in (0..).zip(&mut next) {
        *value = match row.register(Register(number)) {
            None | Some(RegisterRule::SameValue) => continue,
            Some(RegisterRule::Undefined) if usize::from(number) == RETURN => return Step::Outermost,
            Some(RegisterRule::Undefined) => None,
            Some(RegisterRule::Offset(offset)) => stack.word(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(other)) => known(other),
            Some(RegisterRule::Expression(expression)) => {
                evaluate(&expression, Some(cfa)).and_then(|address| stack.word(address))
            }
            Some(RegisterRule::ValExpression(expression)) => evaluate(&expression, Some(cfa)),
            Some(RegisterRule::Constant(value)) => Some(value),
            Some(_) => None,
        };
    }
    if next[RETURN].is_none() {
        return Step::Lost("the return address lies outside the stack that was copied");
    }
    Step::Caller { registers: next, signal: fde.is_signal_trampoline() }
}

/// Computes a DWARF expression; `None` when it needs what is not there.
fn evaluate(
    mut evaluation: gimli::Evaluation<Reader<'_>>,
    initial: Option<u64>,
    registers: &Registers,
    stack: &StackCopy,
) -> Option<u64> {
    evaluation.set_max_iterations(1000);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = registers.get(usize::from(register.0)).copied().flatten()?;
                evaluation.resume_with_register(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                evaluation.resume_with_memory(Value::Generic(stack.word(address)?)).ok()?
            }
            _ => return None,
        };
    }
    match evaluation.as_result().first()?.location {
        gimli::Location::Address { address } => Some(address),
        _ => None,
    }
}

// The numbers above are those of the System V ABI.
const _: () = assert!(X86_64::RSP.0 as usize == RSP && X86_64::RA.0 as usize == RETURN);

impl Site {
    /// Whether an address lies in the function's part of the stack, or in the red zone below the innermost one's.
    pub(super) fn holds(&self, address: u64) -> bool {
        self.frame.0 <= address && address < self.frame.1
    }
}
