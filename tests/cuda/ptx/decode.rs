//! From the text of an instruction to the instruction. `None` is one that is not known.

use std::collections::HashMap;

use super::Parameter;
use super::instruction::*;

/// What a kernel's names stand for.
#[derive(Default)]
pub(super) struct Names {
    pub(super) words: Files,
    pub(super) longs: Files,
    pub(super) predicates: Files,
    pub(super) labels: HashMap<String, usize>,
    pub(super) parameters: HashMap<String, Parameter>,
    /// Offsets in shared memory.
    pub(super) shared: HashMap<String, usize>,
    pub(super) shared_bytes: usize,
    /// Name and alignment of the shared memory whose size a launch gives. It begins behind all other.
    pub(super) dynamic: Option<(String, usize)>,
}

/// Registers of one size.
#[derive(Default)]
pub(super) struct Files {
    /// By prefix: the first one, and how many there are.
    by_prefix: HashMap<String, (usize, usize)>,
    count: usize,
}

impl Files {
    pub(super) fn declare(&mut self, prefix: &str, count: usize) {
        self.by_prefix.insert(prefix.to_owned(), (self.count, count));
        self.count += count;
    }

    fn register(&self, name: &str) -> Option<usize> {
        let name = name.strip_prefix('%')?;
        let (prefix, index) = name.split_at(name.find(|c: char| c.is_ascii_digit())?);
        let (first, count) = self.by_prefix.get(prefix)?;
        let index: usize = index.parse().ok()?;
        (index < *count).then_some(first + index)
    }
}

pub(super) struct Decoder {
    names: Names,
    registers: Registers,
}

impl Decoder {
    pub(super) fn new(names: Names) -> Self {
        let registers = Registers {
            words: vec![0; names.words.count],
            longs: vec![0; names.longs.count],
            predicates: names.predicates.count,
        };
        Self { names, registers }
    }

    /// The registers and the bytes of shared memory that the instructions need.
    pub(super) fn finish(self) -> (Registers, usize) {
        (self.registers, self.names.shared_bytes)
    }

    pub(super) fn line(&mut self, number: usize, text: &str) -> Option<Line> {
        let (guard, text) = match text.strip_prefix('@') {
            Some(guarded) => {
                let (predicate, text) = guarded.split_once(char::is_whitespace)?;
                let (name, is_negated) = predicate.strip_prefix('!').map_or((predicate, false), |name| (name, true));
                (Some((self.predicate(name)?, is_negated)), text.trim())
            }
            None => (None, text),
        };
        Some(Line { number, guard, instruction: self.instruction(text)? })
    }

    fn instruction(&mut self, text: &str) -> Option<Instruction> {
        let (operation, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let operands: Vec<&str> = operands.split(',').map(str::trim).filter(|operand| !operand.is_empty()).collect();
        let (family, rest) = operation.split_once('.').unwrap_or((operation, ""));
        match family {
            "setp" => self.comparison(rest, &operands),
            "ld" | "st" => self.memory(family, rest, &operands),
            "shfl" => self.shuffle(rest, &operands),
            "bar" | "membar" | "bra" | "ret" => self.control(operation, &operands),
            _ if rest == "pred" => self.predicates(family, &operands),
            _ => self.words(operation, &operands).or_else(|| self.longs(operation, &operands)),
        }
    }

    fn control(&self, operation: &str, operands: &[&str]) -> Option<Instruction> {
        match (operation, operands) {
            ("ret", []) => Some(Instruction::Return),
            ("bar.sync", ["0"]) => Some(Instruction::Barrier),
            ("membar.sys" | "membar.gl" | "membar.cta", []) => Some(Instruction::Fence),
            ("bra" | "bra.uni", [label]) => Some(Instruction::Branch(*self.names.labels.get(*label)?)),
            _ => None,
        }
    }

    fn memory(&mut self, family: &str, rest: &str, operands: &[&str]) -> Option<Instruction> {
        let [a, b] = operands else {
            return None;
        };
        if let ("ld", Some(kind)) = (family, rest.strip_prefix("param.")) {
            return self.parameter(kind, a, b);
        }
        let (space, kind) = rest.strip_prefix("volatile.").unwrap_or(rest).split_once('.')?;
        let (space, size) = match (space, kind) {
            ("global", "u16") => (Space::Global, 2),
            ("global", "u32" | "f32") => (Space::Global, 4),
            ("global", "f64") => (Space::Global, 8),
            ("shared", "u32" | "f32") => (Space::Shared, 4),
            ("shared", "f64") => (Space::Shared, 8),
            _ => return None,
        };
        let (register, place) = if family == "ld" { (a, b) } else { (b, a) };
        let place = place.strip_prefix('[')?.strip_suffix(']')?;
        let (base, offset) = place.split_once('+').unwrap_or((place, "0"));
        let access = Access { space, size, address: self.long(base)?, offset: offset.parse().ok()? };
        Some(match (family, size) {
            ("ld", 8) => Instruction::LoadLong(access, self.long_register(register)?),
            ("ld", _) => Instruction::Load(access, self.word_register(register)?),
            (_, 8) => Instruction::StoreLong(access, self.long(register)?),
            _ => Instruction::Store(access, self.word(register)?),
        })
    }

    fn parameter(&self, kind: &str, to: &str, from: &str) -> Option<Instruction> {
        let parameter = self.names.parameters.get(from.strip_prefix('[')?.strip_suffix(']')?)?;
        let (word, long) = (self.word_register(to), self.long_register(to));
        match (kind, parameter.size, word, long) {
            ("u32" | "f32", 4, Some(to), _) => Some(Instruction::ParameterWord(to, parameter.offset)),
            ("u32", 4, _, Some(to)) => Some(Instruction::ParameterWidened(to, parameter.offset)),
            ("u64", 8, _, Some(to)) => Some(Instruction::ParameterLong(to, parameter.offset)),
            _ => None,
        }
    }

    fn shuffle(&mut self, rest: &str, operands: &[&str]) -> Option<Instruction> {
        let ("sync.idx.b32", [to, value, lane, clamp, members]) = (rest, operands) else {
            return None;
        };
        let (to, found) = match to.split_once('|') {
            Some((to, found)) => (to, Some(self.predicate(found)?)),
            None => (*to, None),
        };
        Some(Instruction::Shuffle(Shuffle {
            to: self.word_register(to)?,
            found,
            value: self.word(value)?,
            lane: self.word(lane)?,
            clamp: self.word(clamp)?,
            members: self.word(members)?,
        }))
    }

    fn words(&mut self, operation: &str, operands: &[&str]) -> Option<Instruction> {
        use WordOperation as W;
        let (operation, count) = match operation {
            "mov.u32" | "mov.b32" | "mov.f32" => (W::Move, 1),
            "add.s32" => (W::Add, 2),
            "sub.s32" => (W::Subtract, 2),
            "mul.lo.s32" => (W::MultiplyLow, 2),
            "mad.lo.s32" => (W::MultiplyAdd, 3),
            "div.u32" => (W::DivideUnsigned, 2),
            "rem.u32" => (W::RemainderUnsigned, 2),
            "min.u32" => (W::MinimumUnsigned, 2),
            "max.u32" => (W::MaximumUnsigned, 2),
            "and.b32" => (W::And, 2),
            "or.b32" => (W::Or, 2),
            "xor.b32" => (W::Xor, 2),
            "shl.b32" => (W::ShiftLeft, 2),
            "shr.u32" => (W::ShiftRight, 2),
            "bfe.u32" => (W::ExtractField, 3),
            "bfi.b32" => (W::InsertField, 4),
            "add.f32" => (W::AddFloats, 2),
            "sub.f32" => (W::SubtractFloats, 2),
            "mul.f32" => (W::MultiplyFloats, 2),
            "fma.rn.f32" => (W::FusedMultiplyAdd, 3),
            "neg.f32" => (W::Negate, 1),
            "rcp.rn.f32" => (W::Reciprocal, 1),
            "sqrt.rn.f32" => (W::SquareRoot, 1),
            "cvt.f32.f16" => (W::FloatOfHalf, 1),
            "cvt.rn.f16.f32" => (W::HalfOfFloat, 1),
            "cvt.rn.f32.u32" => (W::FloatOfUnsigned, 1),
            "cvt.rzi.u32.f32" => (W::UnsignedOfFloat, 1),
            "selp.b32" | "selp.u32" | "selp.f32" => return self.select(operands),
            _ => return None,
        };
        let (to, from) = operands.split_first()?;
        let to = self.word_register(to)?;
        if from.len() != count {
            return None;
        }
        if let (W::Move, Some(special)) = (operation, special_register(from[0])) {
            return Some(Instruction::Special(special, to));
        }
        let mut words = [to; 3];
        if operation == W::InsertField {
            words = [self.word(from[0])?, self.word(from[1])?, self.field(from[2], from[3])?];
        } else {
            for (word, operand) in words.iter_mut().zip(from) {
                *word = self.word(operand)?;
            }
        }
        Some(Instruction::Words(operation, to, words))
    }

    fn select(&mut self, operands: &[&str]) -> Option<Instruction> {
        let [to, a, b, predicate] = operands else {
            return None;
        };
        Some(Instruction::Select(self.word_register(to)?, [self.word(a)?, self.word(b)?], self.predicate(predicate)?))
    }

    fn longs(&mut self, operation: &str, operands: &[&str]) -> Option<Instruction> {
        use LongOperation as L;
        let operation = match (operation, operands) {
            ("mul.wide.u32", [to, a, b]) => {
                let words = [self.word(a)?, self.word(b)?];
                return Some(Instruction::Widen(Widening::MultiplyUnsigned, self.long_register(to)?, words));
            }
            ("cvt.u64.u32", [to, a]) => {
                return Some(Instruction::Widen(Widening::Unsigned, self.long_register(to)?, [self.word(a)?; 2]));
            }
            ("cvt.f64.f32", [to, a]) => {
                return Some(Instruction::Widen(Widening::DoubleOfFloat, self.long_register(to)?, [self.word(a)?; 2]));
            }
            ("cvt.u32.u64" | "cvt.rn.f32.f64", [to, a]) => {
                let how = if operation == "cvt.u32.u64" { Narrowing::LowHalf } else { Narrowing::FloatOfDouble };
                return Some(Instruction::Narrow(how, self.word_register(to)?, self.long(a)?));
            }
            ("mov.b64", [low, high, from]) if low.starts_with('{') => {
                let words = [low.strip_prefix('{')?, high.strip_suffix('}')?];
                let [low, high] = words.map(|word| self.word_register(word));
                return Some(Instruction::Halves([low?, high?], self.long(from)?));
            }
            ("mov.b64", [to, low, high]) => {
                let words = [self.word(low.strip_prefix('{')?)?, self.word(high.strip_suffix('}')?)?];
                return Some(Instruction::Widen(Widening::Pack, self.long_register(to)?, words));
            }
            ("selp.b64" | "selp.f64", [to, a, b, predicate]) => {
                let from = [self.long(a)?, self.long(b)?];
                return Some(Instruction::SelectLong(self.long_register(to)?, from, self.predicate(predicate)?));
            }
            ("shl.b64" | "shr.u64", [to, a, by]) => {
                let how = if operation == "shl.b64" { LongShift::Left } else { LongShift::Right };
                return Some(Instruction::Shift(how, self.long_register(to)?, self.long(a)?, self.word(by)?));
            }
            ("mov.u64" | "mov.b64" | "mov.f64" | "cvta.to.global.u64", [_, _]) => L::Move,
            ("add.s64", [_, _, _]) => L::Add,
            ("sub.s64", [_, _, _]) => L::Subtract,
            ("mul.lo.s64", [_, _, _]) => L::MultiplyLow,
            ("and.b64", [_, _, _]) => L::And,
            ("or.b64", [_, _, _]) => L::Or,
            ("bfi.b64", [_, _, _, "32", "32"]) => L::Join,
            ("add.f64", [_, _, _]) => L::AddDoubles,
            ("mul.f64", [_, _, _]) => L::MultiplyDoubles,
            ("fma.rn.f64", [_, _, _, _]) => L::FusedMultiplyAddDoubles,
            ("neg.f64", [_, _]) => L::NegateDouble,
            ("rcp.rn.f64", [_, _]) => L::ReciprocalOfDouble,
            _ => return None,
        };
        let (to, from) = operands.split_first()?;
        let to = self.long_register(to)?;
        let mut longs = [to; 3];
        for (long, operand) in longs.iter_mut().zip(from) {
            *long = self.long(operand)?;
        }
        Some(Instruction::Longs(operation, to, longs))
    }

    fn comparison(&mut self, rest: &str, operands: &[&str]) -> Option<Instruction> {
        let [to, a, b] = operands else {
            return None;
        };
        let (relation, of) = rest.split_once('.')?;
        let kind = match of {
            "u32" | "u64" => Kind::Unsigned,
            "b32" if matches!(relation, "eq" | "ne") => Kind::Unsigned,
            "s32" | "s64" => Kind::Signed,
            "f32" | "f64" => Kind::Float,
            _ => return None,
        };
        let (relation, or_nan) = match relation.strip_suffix('u') {
            Some(relation) if kind == Kind::Float => (relation, true),
            _ => (relation, false),
        };
        let relation = match relation {
            "eq" => Relation::Equal,
            "ne" => Relation::NotEqual,
            "lt" => Relation::Less,
            "le" => Relation::LessOrEqual,
            "gt" => Relation::Greater,
            "ge" => Relation::GreaterOrEqual,
            _ => return None,
        };
        let (to, comparison) = (self.predicate(to)?, Comparison { kind, relation, or_nan });
        Some(match of {
            "u64" | "s64" | "f64" => Instruction::CompareLongs(comparison, to, [self.long(a)?, self.long(b)?]),
            _ => Instruction::CompareWords(comparison, to, [self.word(a)?, self.word(b)?]),
        })
    }

    fn predicates(&self, family: &str, operands: &[&str]) -> Option<Instruction> {
        let (operation, to, a, b) = match (family, operands) {
            ("and", [to, a, b]) => (PredicateOperation::And, to, a, b),
            ("or", [to, a, b]) => (PredicateOperation::Or, to, a, b),
            ("not", [to, a]) => (PredicateOperation::Not, to, a, a),
            _ => return None,
        };
        Some(Instruction::Predicates(operation, self.predicate(to)?, [self.predicate(a)?, self.predicate(b)?]))
    }

    fn predicate(&self, name: &str) -> Option<Predicate> {
        self.names.predicates.register(name)
    }

    fn word_register(&self, name: &str) -> Option<Word> {
        self.names.words.register(name)
    }

    fn long_register(&self, name: &str) -> Option<Long> {
        self.names.longs.register(name)
    }

    /// A register, a number, or a float by its bits.
    fn word(&mut self, text: &str) -> Option<Word> {
        if text.starts_with('%') {
            return self.word_register(text);
        }
        if let Some(bits) = text.strip_prefix("0f") {
            return u32::from_str_radix(bits, 16).ok().map(|bits| self.word_number(bits));
        }
        let number: i64 = text.parse().ok()?;
        let number = u32::try_from(number).or_else(|_| i32::try_from(number).map(i32::cast_unsigned)).ok()?;
        Some(self.word_number(number))
    }

    /// A field of bits, as `InsertField` has it.
    fn field(&mut self, position: &str, length: &str) -> Option<Word> {
        let (position, length): (u32, u32) = (position.parse().ok()?, length.parse().ok()?);
        (position < 32 && length <= 32).then(|| self.word_number(position << 8 | length))
    }

    fn word_number(&mut self, number: u32) -> Word {
        place_of(number, &mut self.registers.words, self.names.words.count)
    }

    /// A register, a number, a double by its bits, or an array in shared memory: its offset there.
    fn long(&mut self, text: &str) -> Option<Long> {
        if text.starts_with('%') {
            return self.long_register(text);
        }
        let number = match (text.strip_prefix("0d"), text.parse::<i64>()) {
            (Some(bits), _) => u64::from_str_radix(bits, 16).ok()?,
            (None, Ok(number)) => number.cast_unsigned(),
            (None, Err(_)) => self.shared(text)? as u64,
        };
        Some(place_of(number, &mut self.registers.longs, self.names.longs.count))
    }

    fn shared(&mut self, name: &str) -> Option<usize> {
        if let Some(offset) = self.names.shared.get(name) {
            return Some(*offset);
        }
        let (_, align) = self.names.dynamic.as_ref().filter(|(dynamic, _)| dynamic == name)?;
        self.names.shared_bytes = self.names.shared_bytes.next_multiple_of(*align);
        Some(self.names.shared_bytes)
    }
}

/// Where a number lies behind the registers that can be written; it is added if it is new.
fn place_of<T: PartialEq>(number: T, registers: &mut Vec<T>, first: usize) -> usize {
    let found = registers[first..].iter().position(|known| *known == number);
    found.map_or_else(
        || {
            registers.push(number);
            registers.len() - 1
        },
        |place| first + place,
    )
}

fn special_register(name: &str) -> Option<SpecialRegister> {
    let (name, axis) = name.strip_prefix('%')?.split_once('.')?;
    let axis = ["x", "y", "z"].iter().position(|known| *known == axis)?;
    match name {
        "tid" => Some(SpecialRegister::Thread(axis)),
        "ctaid" => Some(SpecialRegister::Block(axis)),
        "nctaid" => Some(SpecialRegister::Blocks(axis)),
        "ntid" => Some(SpecialRegister::Threads(axis)),
        _ => None,
    }
}
