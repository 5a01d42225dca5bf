//! 32 threads that go together where they can: of those that are not at the same place, the ones furthest behind go first.

use super::instruction::*;
use super::memory::{Global, Memory, Shared, Toucher};
use super::{Kernel, Report, half};

pub(super) const LANES: usize = 32;

/// Which lanes: a bit for each.
type Lanes = u32;

/// More instructions than any launch of a test takes.
const PATIENCE: u64 = 1 << 33;

/// Bytes of global memory that are fetched together.
const SECTOR: u64 = 32;

/// Why a warp stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// All its threads have ended.
    End,
    /// All its threads are at this barrier.
    Barrier(usize),
}

/// What went wrong: at which instruction, in which lane.
pub(super) struct Trouble {
    pub(super) at: usize,
    pub(super) lane: usize,
    pub(super) what: String,
}

/// What a warp's instructions act on.
pub(super) struct World<'w, 'm, M> {
    pub(super) kernel: &'w Kernel,
    pub(super) parameters: &'w [u8],
    pub(super) blocks: [u32; 3],
    pub(super) threads: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) block_number: u32,
    pub(super) phase: u32,
    pub(super) global: &'w mut Global<'m, M>,
    pub(super) shared: &'w mut Shared,
    pub(super) report: &'w mut Report,
}

pub(super) struct Warp {
    /// The next instruction, where it is the same for all.
    together: Option<usize>,
    /// By lane: the next instruction, where it is not.
    places: [usize; LANES],
    /// Lanes that are threads of the block.
    started: Lanes,
    /// Those that have not ended.
    alive: Lanes,
    words: Vec<[u32; LANES]>,
    longs: Vec<[u64; LANES]>,
    predicates: Vec<Lanes>,
    /// By lane: the thread's place in the block.
    threads: [[u32; 3]; LANES],
    /// The number of the first lane within the block.
    pub(super) first: u32,
}

impl Warp {
    pub(super) fn new(registers: Registers, first: u32, size: [u32; 3]) -> Self {
        let count: u32 = size.iter().product();
        let number = |lane: usize| first + lane as u32;
        let started = (0..LANES).filter(|lane| number(*lane) < count).fold(0, |lanes, lane| lanes | 1 << lane);
        let place = |number: u32| [number % size[0], number / size[0] % size[1], number / size[0] / size[1]];
        Self {
            together: Some(0),
            places: [0; LANES],
            started,
            alive: started,
            words: vec![[0; LANES]; registers.words],
            longs: vec![[0; LANES]; registers.longs],
            predicates: vec![0; registers.predicates],
            threads: std::array::from_fn(|lane| place(number(lane))),
            first,
        }
    }

    /// Runs until all threads are at a barrier, or have ended.
    pub(super) fn run<M: Memory>(&mut self, world: &mut World<'_, '_, M>) -> Result<Stop, Trouble> {
        while self.alive != 0 {
            let (at, here) = self.furthest_behind();
            let trouble = |what: &str| Trouble { at, lane: here.trailing_zeros() as usize, what: what.to_owned() };
            let line = world.kernel.code.get(at).ok_or_else(|| trouble("it goes on behind the last instruction"))?;
            world.report.instructions += 1;
            if world.report.instructions > PATIENCE {
                return Err(trouble("it does not come to an end"));
            }
            let active = here
                & match line.guard {
                    None => Lanes::MAX,
                    Some((predicate, false)) => self.predicates[predicate],
                    Some((predicate, true)) => !self.predicates[predicate],
                };
            match line.instruction {
                Instruction::Branch(target) => {
                    self.go(here & !active, at + 1);
                    self.go(active, target);
                }
                Instruction::Return => {
                    self.alive &= !active;
                    self.go(here & !active, at + 1);
                }
                Instruction::Barrier(_) if active != self.started => {
                    return Err(trouble("not all threads of its warp come to this barrier"));
                }
                Instruction::Barrier(_) => {
                    self.go(here, at + 1);
                    return Ok(Stop::Barrier(at));
                }
                instruction => {
                    self.perform(instruction, active, world).map_err(|(lane, what)| Trouble { at, lane, what })?;
                    self.go(here, at + 1);
                }
            }
        }
        Ok(Stop::End)
    }

    fn furthest_behind(&mut self) -> (usize, Lanes) {
        if let Some(at) = self.together {
            return (at, self.alive);
        }
        let alive = self.alive;
        let at = lanes(alive).map(|lane| self.places[lane]).min().unwrap_or(0);
        let here = lanes(alive).filter(|lane| self.places[*lane] == at).fold(0, |here, lane| here | 1 << lane);
        if here == alive {
            self.together = Some(at);
        }
        (at, here)
    }

    fn go(&mut self, going: Lanes, to: usize) {
        if going == self.alive {
            self.together = Some(to);
        } else if going != 0 {
            if let Some(at) = self.together.take() {
                self.places = [at; LANES];
            }
            lanes(going).for_each(|lane| self.places[lane] = to);
        }
    }

    fn word(&self, word: Word) -> [u32; LANES] {
        match word {
            Word::Register(register) => self.words[register],
            Word::Number(number) => [number; LANES],
        }
    }

    fn long(&self, long: Long) -> [u64; LANES] {
        match long {
            Long::Register(register) => self.longs[register],
            Long::Number(number) => [number; LANES],
        }
    }

    fn set_word(&mut self, to: usize, active: Lanes, values: [u32; LANES]) {
        set(&mut self.words[to], active, values);
    }

    fn set_long(&mut self, to: usize, active: Lanes, values: [u64; LANES]) {
        set(&mut self.longs[to], active, values);
    }

    fn set_predicate(&mut self, to: usize, active: Lanes, values: Lanes) {
        self.predicates[to] = self.predicates[to] & !active | values & active;
    }

    fn perform<M: Memory>(
        &mut self,
        instruction: Instruction,
        active: Lanes,
        world: &mut World<'_, '_, M>,
    ) -> Result<(), (usize, String)> {
        match instruction {
            Instruction::Words(operation, to, from) => {
                world.report.flops += operation.flops() * u64::from(active.count_ones());
                let values = on_words(operation, from.map(|word| self.word(word)));
                self.set_word(to, active, values);
            }
            Instruction::Longs(operation, to, from) => {
                let values = on_longs(operation, from.map(|long| self.long(long)));
                self.set_long(to, active, values);
            }
            Instruction::Widen(widening, to, from) => {
                let [a, b] = from.map(|word| self.word(word));
                let values = std::array::from_fn(|lane| match widening {
                    Widening::Unsigned => u64::from(a[lane]),
                    Widening::MultiplyUnsigned => u64::from(a[lane]) * u64::from(b[lane]),
                });
                self.set_long(to, active, values);
            }
            Instruction::LowHalf(to, from) => {
                let values = self.long(from).map(|long| long as u32);
                self.set_word(to, active, values);
            }
            Instruction::CompareWords(comparison, to, from) => {
                let [a, b] = from.map(|word| self.word(word));
                let holds = |lane: &usize| comparison.of_words(a[*lane], b[*lane]);
                self.set_predicate(to, active, which(holds));
            }
            Instruction::CompareLongs(comparison, to, from) => {
                let [a, b] = from.map(|long| self.long(long));
                let holds = |lane: &usize| comparison.of_longs(a[*lane], b[*lane]);
                self.set_predicate(to, active, which(holds));
            }
            Instruction::Predicates(operation, to, from) => {
                let [a, b] = from.map(|predicate| self.predicates[predicate]);
                let values = match operation {
                    PredicateOperation::And => a & b,
                    PredicateOperation::Or => a | b,
                    PredicateOperation::Not => !a,
                };
                self.set_predicate(to, active, values);
            }
            Instruction::Select(to, from, predicate) => {
                let ([a, b], chosen) = (from.map(|word| self.word(word)), self.predicates[predicate]);
                let values = std::array::from_fn(|lane| if chosen >> lane & 1 == 1 { a[lane] } else { b[lane] });
                self.set_word(to, active, values);
            }
            Instruction::Special(special, to) => {
                let values = std::array::from_fn(|lane| match special {
                    SpecialRegister::Thread(axis) => self.threads[lane][axis],
                    SpecialRegister::Block(axis) => world.block[axis],
                    SpecialRegister::Blocks(axis) => world.blocks[axis],
                    SpecialRegister::Threads(axis) => world.threads[axis],
                });
                self.set_word(to, active, values);
            }
            Instruction::Parameter { to, offset, size } => {
                let mut bytes = [0; 8];
                bytes[..size].copy_from_slice(&world.parameters[offset..offset + size]);
                let value = u64::from_le_bytes(bytes);
                match to {
                    Target::Word(to) => self.set_word(to, active, [value as u32; LANES]),
                    Target::Long(to) => self.set_long(to, active, [value; LANES]),
                }
            }
            Instruction::Load { space, size, to, address, offset } => {
                let addresses = self.long(address).map(|address| address.wrapping_add_signed(offset));
                count(world.report, space, size, active, &addresses);
                for lane in lanes(active) {
                    let by = self.toucher(lane, world);
                    let loaded = match space {
                        Space::Global => world.global.load(addresses[lane], size, by),
                        Space::Shared => world.shared.load(addresses[lane], size, by),
                    };
                    self.words[to][lane] = loaded.map_err(|what| (lane, what))?;
                }
            }
            Instruction::Store { space, size, value, address, offset } => {
                let addresses = self.long(address).map(|address| address.wrapping_add_signed(offset));
                count(world.report, space, size, active, &addresses);
                let values = self.word(value);
                for lane in lanes(active) {
                    let by = self.toucher(lane, world);
                    let stored = match space {
                        Space::Global => world.global.store(addresses[lane], size, values[lane], by),
                        Space::Shared => world.shared.store(addresses[lane], size, values[lane], by),
                    };
                    stored.map_err(|what| (lane, what))?;
                }
            }
            Instruction::Shuffle { to, predicate, value, lane, clamp, members } => {
                let full = [clamp, members].map(|word| self.word(word)) == [[31; LANES], [u32::MAX; LANES]];
                if !full || active != Lanes::MAX {
                    return Err((0, "a shuffle that not all lanes of the warp come to".into()));
                }
                let (values, from) = (self.word(value), self.word(lane));
                self.set_word(to, active, from.map(|from| values[from as usize % LANES]));
                if let Some(predicate) = predicate {
                    self.set_predicate(predicate, active, Lanes::MAX);
                }
            }
            Instruction::Fence => {}
            Instruction::Branch(_) | Instruction::Barrier(_) | Instruction::Return => {
                unreachable!("these say where to go")
            }
        }
        Ok(())
    }

    fn toucher<M>(&self, lane: usize, world: &World<'_, '_, M>) -> Toucher {
        Toucher { block: world.block_number, phase: world.phase, thread: self.first + lane as u32 }
    }
}

fn lanes(mask: Lanes) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

fn which(holds: impl FnMut(&usize) -> bool) -> Lanes {
    (0..LANES).filter(holds).fold(0, |found, lane| found | 1 << lane)
}

fn set<T: Copy>(register: &mut [T; LANES], active: Lanes, values: [T; LANES]) {
    if active == Lanes::MAX {
        *register = values;
    } else {
        lanes(active).for_each(|lane| register[lane] = values[lane]);
    }
}

fn on_words(operation: WordOperation, [a, b, c]: [[u32; LANES]; 3]) -> [u32; LANES] {
    use WordOperation as W;
    let words = |f: fn(u32, u32, u32) -> u32| std::array::from_fn(|lane| f(a[lane], b[lane], c[lane]));
    let floats = |f: fn(f32, f32, f32) -> f32| {
        let of = f32::from_bits;
        std::array::from_fn(|lane| f(of(a[lane]), of(b[lane]), of(c[lane])).to_bits())
    };
    match operation {
        W::Move => a,
        W::Add => words(|a, b, _| a.wrapping_add(b)),
        W::Subtract => words(|a, b, _| a.wrapping_sub(b)),
        W::MultiplyLow => words(|a, b, _| a.wrapping_mul(b)),
        W::MultiplyAdd => words(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        W::DivideUnsigned => words(|a, b, _| a.checked_div(b).unwrap_or(u32::MAX)),
        W::RemainderUnsigned => words(|a, b, _| a.checked_rem(b).unwrap_or(u32::MAX)),
        W::MinimumUnsigned => words(|a, b, _| a.min(b)),
        W::MaximumUnsigned => words(|a, b, _| a.max(b)),
        W::And => words(|a, b, _| a & b),
        W::Or => words(|a, b, _| a | b),
        W::Xor => words(|a, b, _| a ^ b),
        W::ShiftLeft => words(|a, b, _| a.checked_shl(b).unwrap_or(0)),
        W::ShiftRight => words(|a, b, _| a.checked_shr(b).unwrap_or(0)),
        W::ExtractField => words(|a, b, c| a.checked_shr(b).unwrap_or(0) & low_bits(c)),
        W::InsertField => words(|a, b, c| {
            let (position, mask) = (c >> 8, low_bits(c & 0xff));
            b & !(mask << position) | (a & mask) << position
        }),
        W::AddFloats => floats(|a, b, _| a + b),
        W::SubtractFloats => floats(|a, b, _| a - b),
        W::MultiplyFloats => floats(|a, b, _| a * b),
        W::FusedMultiplyAdd => floats(f32::mul_add),
        W::Negate => floats(|a, _, _| -a),
        W::Reciprocal => floats(|a, _, _| 1.0 / a),
        W::SquareRoot => floats(|a, _, _| a.sqrt()),
        W::FloatOfHalf => words(|a, _, _| half::widen(a as u16).to_bits()),
        W::HalfOfFloat => words(|a, _, _| half::narrow(f32::from_bits(a)).into()),
        W::FloatOfUnsigned => words(|a, _, _| (a as f32).to_bits()),
        W::UnsignedOfFloat => words(|a, _, _| f32::from_bits(a) as u32),
    }
}

fn low_bits(count: u32) -> u32 {
    1_u32.checked_shl(count).map_or(u32::MAX, |bit| bit - 1)
}

fn on_longs(operation: LongOperation, [a, b, _]: [[u64; LANES]; 3]) -> [u64; LANES] {
    use LongOperation as L;
    let longs = |f: fn(u64, u64) -> u64| std::array::from_fn(|lane| f(a[lane], b[lane]));
    match operation {
        L::Move => a,
        L::Add => longs(u64::wrapping_add),
        L::Subtract => longs(u64::wrapping_sub),
        L::MultiplyLow => longs(u64::wrapping_mul),
        L::And => longs(|a, b| a & b),
        L::Or => longs(|a, b| a | b),
        L::ShiftLeft => longs(|a, b| a.checked_shl(b as u32).unwrap_or(0)),
        L::ShiftRight => longs(|a, b| a.checked_shr(b as u32).unwrap_or(0)),
        L::Join => longs(|a, b| a << 32 | b & 0xffff_ffff),
    }
}

impl Comparison {
    fn of_words(self, a: u32, b: u32) -> bool {
        match self.kind {
            Kind::Unsigned => self.relation.holds(&a, &b),
            Kind::Signed => self.relation.holds(&(a as i32), &(b as i32)),
            Kind::Float => {
                let [a, b] = [a, b].map(f32::from_bits);
                if a.is_nan() || b.is_nan() { self.or_nan } else { self.relation.holds(&a, &b) }
            }
        }
    }

    fn of_longs(self, a: u64, b: u64) -> bool {
        match self.kind {
            Kind::Signed => self.relation.holds(&(a as i64), &(b as i64)),
            _ => self.relation.holds(&a, &b),
        }
    }
}

impl Relation {
    fn holds<T: PartialOrd>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

/// What one access costs.
fn count(report: &mut Report, space: Space, size: usize, active: Lanes, addresses: &[u64; LANES]) {
    let mut touched: [u64; LANES] = [0; LANES];
    let mut distinct = 0;
    let unit = if space == Space::Global { SECTOR } else { 4 };
    for lane in lanes(active) {
        let place = addresses[lane] / unit;
        if !touched[..distinct].contains(&place) {
            touched[distinct] = place;
            distinct += 1;
        }
    }
    match space {
        Space::Global => {
            let bytes = u64::from(active.count_ones()) * size as u64;
            report.global_bytes += bytes;
            report.sectors += distinct as u64;
            report.fewest_sectors += bytes.div_ceil(SECTOR).min(distinct as u64);
        }
        Space::Shared => {
            let mut by_bank = [0_u64; LANES];
            touched[..distinct].iter().for_each(|word| by_bank[*word as usize % LANES] += 1);
            report.shared_accesses += 1;
            report.bank_conflicts += by_bank.into_iter().max().unwrap_or(0).saturating_sub(1);
        }
    }
}
