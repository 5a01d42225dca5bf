//! From text to instructions. What is not known is an error: nothing is skipped that could matter.

use std::collections::HashMap;

use super::instruction::*;
use super::{Kernel, Parameter};

/// The entry points of a text.
pub(super) fn kernels(text: &str) -> Result<Vec<Kernel>, String> {
    let mut parser = Parser { lines: text.lines().enumerate(), number: 0 };
    let mut kernels = Vec::new();
    while let Some(line) = parser.next() {
        if let Some(name) = line.strip_prefix(".visible .entry ") {
            kernels.push(parser.kernel(name.trim_end_matches('('))?);
        } else if !is_harmless(line) {
            return Err(parser.unknown(line));
        }
    }
    Ok(kernels)
}

/// What stands in front of kernels and says nothing that an interpreter must know. Globals are constants that our kernels don't read.
fn is_harmless(line: &str) -> bool {
    [".version ", ".target ", ".address_size 64", ".global ", ".extern .shared "]
        .iter()
        .any(|start| line.starts_with(start))
}

struct Parser<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    number: usize,
}

/// What a kernel's names stand for.
#[derive(Default)]
struct Names {
    /// By prefix, without the `%`: the first register in its file.
    words: HashMap<&'static str, usize>,
    registers: Registers,
    /// Offsets in shared memory.
    shared: HashMap<String, usize>,
    shared_bytes: usize,
    parameters: HashMap<String, Parameter>,
}

impl<'a> Parser<'a> {
    /// The next line that says something, without comments.
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let (index, line) = self.lines.next()?;
            self.number = index + 1;
            let line = line.split("//").next().unwrap_or_default().trim();
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    fn need(&mut self) -> Result<&'a str, String> {
        self.next().ok_or_else(|| "the text ends within a kernel".to_owned())
    }

    fn unknown(&self, line: &str) -> String {
        format!("line {}: {line}", self.number)
    }

    fn kernel(&mut self, name: &str) -> Result<Kernel, String> {
        let (parameters, max_threads) = self.head()?;
        let mut names = Names::default();
        names.parameters = parameters.iter().map(|parameter| (parameter.name.clone(), parameter.clone())).collect();
        let mut labels = HashMap::new();
        let mut code: Vec<(usize, &str)> = Vec::new();
        loop {
            let line = self.need()?;
            if line == "}" {
                break;
            } else if line == "{" || line.starts_with(".pragma ") {
                continue;
            } else if let Some(label) = line.strip_suffix(':') {
                labels.insert(label, code.len());
            } else if line.starts_with('.') {
                self.declaration(line, &mut names)?;
            } else {
                code.push((self.number, line.strip_suffix(';').ok_or_else(|| self.unknown(line))?));
            }
        }
        let decoder = Decoder { names: &names, labels: &labels };
        let code = code
            .into_iter()
            .map(|(number, text)| decoder.line(number, text).ok_or_else(|| format!("line {number}: {text}")))
            .collect::<Result<_, _>>()?;
        let Names { registers, shared_bytes, .. } = names;
        Ok(Kernel { name: name.to_owned(), parameters, shared_bytes, max_threads, registers, code })
    }

    /// Parameters and limits, up to the body.
    fn head(&mut self) -> Result<(Vec<Parameter>, u32), String> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut max_threads = 1024;
        loop {
            let line = self.need()?;
            if let Some(parameter) = line.strip_prefix(".param .") {
                let (kind, name) = parameter.trim_end_matches(',').split_once(' ').ok_or_else(|| self.unknown(line))?;
                let size = match kind {
                    "u32" | "f32" => 4,
                    "u64" => 8,
                    _ => return Err(self.unknown(line)),
                };
                let end = parameters.last().map_or(0, |last| last.offset + last.size);
                parameters.push(Parameter { name: name.trim().to_owned(), offset: end.next_multiple_of(size), size });
            } else if let Some(limits) = line.strip_prefix(".maxntid ") {
                let sizes = limits.split(',').map(|size| size.trim().parse::<u32>());
                max_threads = sizes.collect::<Result<Vec<_>, _>>().map_err(|_| self.unknown(line))?.iter().product();
            } else if line == "{" {
                return Ok((parameters, max_threads));
            } else if line != ")" {
                return Err(self.unknown(line));
            }
        }
    }

    fn declaration(&self, line: &str, names: &mut Names) -> Result<(), String> {
        let unknown = || self.unknown(line);
        let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
        match words.as_slice() {
            [".reg", kind, register] => {
                let (prefix, count) = register.trim_end_matches('>').split_once('<').ok_or_else(unknown)?;
                let count: usize = count.parse().map_err(|_| unknown())?;
                match (*kind, prefix) {
                    (".pred", "%p") => names.registers.predicates = count,
                    (".b64", "%rd") => names.registers.longs = count,
                    (".b32", "%r") | (".f32", "%f") | (".b16", "%rs") => {
                        let prefix =
                            ["r", "f", "rs"].into_iter().find(|known| *known == &prefix[1..]).ok_or_else(unknown)?;
                        names.words.insert(prefix, names.registers.words);
                        names.registers.words += count;
                    }
                    _ => return Err(unknown()),
                }
            }
            [".shared", ".align", align, ".b8", array] => {
                let (name, size) = array.trim_end_matches(']').split_once('[').ok_or_else(unknown)?;
                let [align, size] = [*align, size].map(str::parse::<usize>);
                let start = names.shared_bytes.next_multiple_of(align.map_err(|_| unknown())?);
                names.shared.insert(name.to_owned(), start);
                names.shared_bytes = start + size.map_err(|_| unknown())?;
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

struct Decoder<'a> {
    names: &'a Names,
    labels: &'a HashMap<&'a str, usize>,
}

impl Decoder<'_> {
    fn line(&self, number: usize, text: &str) -> Option<Line> {
        let (guard, text) = match text.strip_prefix('@') {
            Some(guarded) => {
                let (predicate, text) = guarded.split_once(char::is_whitespace)?;
                let is_negated = predicate.starts_with('!');
                (Some((self.predicate(predicate.trim_start_matches('!'))?, is_negated)), text.trim())
            }
            None => (None, text),
        };
        Some(Line { number, guard, instruction: self.instruction(text)? })
    }

    fn instruction(&self, text: &str) -> Option<Instruction> {
        let (operation, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let operands: Vec<&str> = operands.split(',').map(str::trim).filter(|operand| !operand.is_empty()).collect();
        if let Some(comparison) = operation.strip_prefix("setp.") {
            return self.comparison(comparison, &operands);
        }
        if let Some(found) = self.words(operation, &operands).or_else(|| self.longs(operation, &operands)) {
            return Some(found);
        }
        match (operation, operands.as_slice()) {
            ("ret", []) => Some(Instruction::Return),
            ("membar.sys" | "membar.gl" | "membar.cta", []) => Some(Instruction::Fence),
            ("bar.sync", [barrier]) => Some(Instruction::Barrier(self.word(barrier)?)),
            ("bra" | "bra.uni", [label]) => Some(Instruction::Branch(*self.labels.get(label)?)),
            ("and.pred", [to, a, b]) => self.predicates(PredicateOperation::And, [to, a, b]),
            ("or.pred", [to, a, b]) => self.predicates(PredicateOperation::Or, [to, a, b]),
            ("not.pred", [to, a]) => self.predicates(PredicateOperation::Not, [to, a, a]),
            ("selp.b32" | "selp.u32" | "selp.s32" | "selp.f32", [to, a, b, predicate]) => Some(Instruction::Select(
                self.word_register(to)?,
                [self.word(a)?, self.word(b)?],
                self.predicate(predicate)?,
            )),
            ("shfl.sync.idx.b32", [to, value, lane, clamp, members]) => {
                let (to, predicate) = to.split_once('|').map_or((*to, None), |(to, predicate)| (to, Some(predicate)));
                let predicate = match predicate {
                    Some(name) => Some(self.predicate(name)?),
                    None => None,
                };
                let [value, lane, clamp, members] =
                    [self.word(value)?, self.word(lane)?, self.word(clamp)?, self.word(members)?];
                Some(Instruction::Shuffle { to: self.word_register(to)?, predicate, value, lane, clamp, members })
            }
            (operation, [to, from]) if operation.starts_with("ld.param.") => {
                let parameter = self.names.parameters.get(from.strip_prefix('[')?.strip_suffix(']')?)?;
                let size = size(operation.strip_prefix("ld.param.")?)?;
                let target =
                    self.word_register(to).map(Target::Word).or_else(|| self.long_register(to).map(Target::Long))?;
                (size <= parameter.size).then_some(Instruction::Parameter {
                    to: target,
                    offset: parameter.offset,
                    size,
                })
            }
            (operation, [to, from]) if operation.starts_with("ld.") => {
                let (space, size) = access(operation.strip_prefix("ld.")?)?;
                let (address, offset) = self.address(from)?;
                Some(Instruction::Load { space, size, to: self.word_register(to)?, address, offset })
            }
            (operation, [to, value]) if operation.starts_with("st.") => {
                let (space, size) = access(operation.strip_prefix("st.")?)?;
                let (address, offset) = self.address(to)?;
                Some(Instruction::Store { space, size, value: self.word(value)?, address, offset })
            }
            _ => None,
        }
    }

    fn words(&self, operation: &str, operands: &[&str]) -> Option<Instruction> {
        use WordOperation as W;
        let (found, count) = match operation {
            "mov.u32" | "mov.b32" | "mov.f32" | "mov.u16" | "mov.b16" => (W::Move, 1),
            "add.s32" | "add.u32" => (W::Add, 2),
            "sub.s32" | "sub.u32" => (W::Subtract, 2),
            "mul.lo.s32" | "mul.lo.u32" => (W::MultiplyLow, 2),
            "mad.lo.s32" | "mad.lo.u32" => (W::MultiplyAdd, 3),
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
            "add.f32" | "add.rn.f32" => (W::AddFloats, 2),
            "sub.f32" | "sub.rn.f32" => (W::SubtractFloats, 2),
            "mul.f32" | "mul.rn.f32" => (W::MultiplyFloats, 2),
            "fma.rn.f32" => (W::FusedMultiplyAdd, 3),
            "neg.f32" => (W::Negate, 1),
            "rcp.rn.f32" => (W::Reciprocal, 1),
            "sqrt.rn.f32" => (W::SquareRoot, 1),
            "cvt.f32.f16" => (W::FloatOfHalf, 1),
            "cvt.rn.f16.f32" => (W::HalfOfFloat, 1),
            "cvt.rn.f32.u32" => (W::FloatOfUnsigned, 1),
            "cvt.rzi.u32.f32" => (W::UnsignedOfFloat, 1),
            _ => return None,
        };
        let [to, from @ ..] = operands else {
            return None;
        };
        if let (W::InsertField, [a, b, position, length]) = (found, from) {
            let [position, length] = [position, length].map(|number| number.parse::<u32>().ok());
            let field = Word::Number(position? << 8 | length?);
            return Some(Instruction::Words(found, self.word_register(to)?, [self.word(a)?, self.word(b)?, field]));
        }
        if let (W::Move, [special]) = (found, from)
            && let Some(special) = special_register(special)
        {
            return Some(Instruction::Special(special, self.word_register(to)?));
        }
        let mut words = [Word::Number(0); 3];
        for (word, operand) in words.iter_mut().zip(from) {
            *word = self.word(operand)?;
        }
        (from.len() == count).then_some(Instruction::Words(found, self.word_register(to)?, words))
    }

    fn longs(&self, operation: &str, operands: &[&str]) -> Option<Instruction> {
        use LongOperation as L;
        let found = match (operation, operands) {
            ("mul.wide.u32", [to, a, b]) => {
                return Some(Instruction::Widen(
                    Widening::MultiplyUnsigned,
                    self.long_register(to)?,
                    [self.word(a)?, self.word(b)?],
                ));
            }
            ("cvt.u64.u32", [to, a]) => {
                return Some(Instruction::Widen(
                    Widening::Unsigned,
                    self.long_register(to)?,
                    [self.word(a)?, Word::Number(0)],
                ));
            }
            ("cvt.u32.u64", [to, a]) => return Some(Instruction::LowHalf(self.word_register(to)?, self.long(a)?)),
            ("bfi.b64", [_, _, _, "32", "32"]) => L::Join,
            ("mov.u64" | "mov.b64" | "cvta.to.global.u64", [_, _]) => L::Move,
            ("add.s64" | "add.u64", [_, _, _]) => L::Add,
            ("sub.s64" | "sub.u64", [_, _, _]) => L::Subtract,
            ("mul.lo.s64" | "mul.lo.u64", [_, _, _]) => L::MultiplyLow,
            ("and.b64", [_, _, _]) => L::And,
            ("or.b64", [_, _, _]) => L::Or,
            ("shl.b64", [_, _, _]) => L::ShiftLeft,
            ("shr.u64", [_, _, _]) => L::ShiftRight,
            _ => return None,
        };
        let mut longs = [Long::Number(0); 3];
        for (long, operand) in longs.iter_mut().zip(&operands[1..]) {
            // A shift's distance is a word.
            *long = self.long(operand)?;
        }
        Some(Instruction::Longs(found, self.long_register(operands[0])?, longs))
    }

    fn comparison(&self, comparison: &str, operands: &[&str]) -> Option<Instruction> {
        let [to, a, b] = operands else {
            return None;
        };
        let (relation, kind) = comparison.split_once('.')?;
        let kinds = [
            ("u32", Kind::Unsigned),
            ("s32", Kind::Signed),
            ("f32", Kind::Float),
            ("u64", Kind::Unsigned),
            ("s64", Kind::Signed),
        ];
        let (_, as_kind) = kinds.into_iter().find(|(name, _)| *name == kind)?;
        let (relation, or_nan) = match relation.strip_suffix('u') {
            Some(ordered) if as_kind == Kind::Float => (ordered, true),
            _ => (relation, relation == "neu"),
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
        let (to, comparison) = (self.predicate(to)?, Comparison { kind: as_kind, relation, or_nan });
        Some(if kind.ends_with("64") {
            Instruction::CompareLongs(comparison, to, [self.long(a)?, self.long(b)?])
        } else {
            Instruction::CompareWords(comparison, to, [self.word(a)?, self.word(b)?])
        })
    }

    fn predicates(&self, operation: PredicateOperation, [to, a, b]: [&&str; 3]) -> Option<Instruction> {
        Some(Instruction::Predicates(operation, self.predicate(to)?, [self.predicate(a)?, self.predicate(b)?]))
    }

    /// `[register]`, `[register+offset]`.
    fn address(&self, text: &str) -> Option<(Long, i64)> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        let (base, offset) = match inner.split_once('+') {
            Some((base, offset)) => (base, offset.parse().ok()?),
            None => (inner, 0),
        };
        Some((self.long(base)?, offset))
    }

    fn predicate(&self, name: &str) -> Option<usize> {
        let index = name.strip_prefix("%p")?.parse().ok()?;
        (index < self.names.registers.predicates).then_some(index)
    }

    fn word_register(&self, name: &str) -> Option<usize> {
        let name = name.strip_prefix('%')?;
        let digits = name.find(|c: char| c.is_ascii_digit())?;
        let (prefix, index) = name.split_at(digits);
        Some(self.names.words.get(prefix)? + index.parse::<usize>().ok()?)
    }

    fn long_register(&self, name: &str) -> Option<usize> {
        let index = name.strip_prefix("%rd")?.parse().ok()?;
        (index < self.names.registers.longs).then_some(index)
    }

    fn word(&self, text: &str) -> Option<Word> {
        if text.starts_with('%') {
            return self.word_register(text).map(Word::Register);
        }
        if let Some(bits) = text.strip_prefix("0f") {
            return u32::from_str_radix(bits, 16).ok().map(Word::Number);
        }
        let number: i64 = text.parse().ok()?;
        (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(&number).then_some(Word::Number(number as u32))
    }

    /// Variables in shared memory are their offsets; the one without a size begins behind all others.
    fn long(&self, text: &str) -> Option<Long> {
        if text.starts_with('%') {
            return self.long_register(text).map(Long::Register);
        }
        if let Ok(number) = text.parse::<i64>() {
            return Some(Long::Number(number as u64));
        }
        let offset = self.names.shared.get(text).copied();
        let is_dynamic = text.ends_with("sharedE");
        let offset = offset.or(is_dynamic.then_some(self.names.shared_bytes))?;
        Some(Long::Number(offset as u64))
    }
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

/// Space and size of `global.f32`, `volatile.global.u32` and the like.
fn access(operation: &str) -> Option<(Space, usize)> {
    let (space, kind) = operation.strip_prefix("volatile.").unwrap_or(operation).split_once('.')?;
    let space = match space {
        "global" => Space::Global,
        "shared" => Space::Shared,
        _ => return None,
    };
    Some((space, size(kind)?)).filter(|(_, size)| *size <= 4)
}

fn size(kind: &str) -> Option<usize> {
    match kind {
        "u16" | "b16" => Some(2),
        "u32" | "f32" | "b32" => Some(4),
        "u64" | "b64" => Some(8),
        _ => None,
    }
}
