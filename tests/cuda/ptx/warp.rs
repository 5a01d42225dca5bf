//! 32 threads that go together where they can. Of those that are at different places, the ones furthest behind go first; where
//! threads wait for each other, the rest of the warp is let come.

use super::arithmetic::{
    LANES, Lanes, Row, compare_longs, compare_words, halves, lanes, narrow, on_longs, on_words, select, shift, widen,
};
use super::instruction::*;
use super::memory::{Global, Memory, Shared, Toucher};
use super::{Kernel, Report};

/// More instructions than any warp takes that comes to an end.
const PATIENCE: u64 = 1 << 25;

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

/// Threads whose next instruction is the same.
#[derive(Clone, Copy)]
struct Group {
    at: usize,
    lanes: Lanes,
}

pub(super) struct Warp {
    groups: Vec<Group>,
    /// Lanes that are threads of the block.
    started: Lanes,
    words: Vec<Row<u32>>,
    longs: Vec<Row<u64>>,
    predicates: Vec<Lanes>,
    /// By axis: the threads' places in the block.
    threads: [Row<u32>; 3],
    /// The number of the first lane within the block.
    pub(super) first: u32,
    instructions: u64,
}

impl Warp {
    pub(super) fn new(registers: &Registers, first: u32, size: [u32; 3]) -> Self {
        let count: u32 = size.iter().product();
        let number = |lane: usize| first + lane as u32;
        let started = (0..LANES).filter(|lane| number(*lane) < count).fold(0, |lanes, lane| lanes | 1 << lane);
        let place = |number: u32| [number % size[0], number / size[0] % size[1], number / size[0] / size[1]];
        Self {
            groups: vec![Group { at: 0, lanes: started }],
            started,
            words: registers.words.iter().map(|word| [*word; LANES]).collect(),
            longs: registers.longs.iter().map(|long| [*long; LANES]).collect(),
            predicates: vec![0; registers.predicates],
            threads: std::array::from_fn(|axis| std::array::from_fn(|lane| place(number(lane))[axis])),
            first,
            instructions: 0,
        }
    }

    /// Runs until all threads are at a barrier, or have ended.
    pub(super) fn run<M: Memory>(&mut self, world: &mut World<'_, '_, M>) -> Result<Stop, Trouble> {
        let code = &world.kernel.code;
        while let Some(Group { at, lanes: here }) = self.next(code) {
            let trouble = |what: &str| Trouble { at, lane: here.trailing_zeros() as usize, what: what.to_owned() };
            let line = code.get(at).ok_or_else(|| trouble("it goes on behind the last instruction"))?;
            world.report.instructions += 1;
            self.instructions += 1;
            if self.instructions > PATIENCE {
                return Err(trouble("it does not come to an end"));
            }
            let active = match line.guard {
                None => here,
                Some((predicate, is_negated)) => {
                    here & if is_negated { !self.predicates[predicate] } else { self.predicates[predicate] }
                }
            };
            match line.instruction {
                Instruction::Branch(target) => {
                    self.go(here & !active, at + 1);
                    self.go(active, target);
                }
                Instruction::Return => self.go(here & !active, at + 1),
                Instruction::Barrier if active != self.started => {
                    return Err(trouble("a barrier to which not all threads of the warp come"));
                }
                Instruction::Barrier => {
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

    /// Takes out the group that goes next: the one furthest behind of those that need not wait for others.
    fn next(&mut self, code: &[Line]) -> Option<Group> {
        if self.groups.len() < 2 {
            return self.groups.pop();
        }
        let waits = |group: &Group| code.get(group.at).is_some_and(|line| line.instruction.is_meeting());
        let (index, _) = self.groups.iter().enumerate().min_by_key(|(_, group)| (waits(group), group.at))?;
        Some(self.groups.swap_remove(index))
    }

    fn go(&mut self, going: Lanes, to: usize) {
        if going == 0 {
            return;
        }
        match self.groups.iter_mut().find(|group| group.at == to) {
            Some(group) => group.lanes |= going,
            None => self.groups.push(Group { at: to, lanes: going }),
        }
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
                let values = on_words(operation, from.map(|word| &self.words[word]));
                set(&mut self.words[to], active, &values);
            }
            Instruction::Longs(operation, to, from) => {
                world.report.double_flops += operation.flops() * u64::from(active.count_ones());
                let values = on_longs(operation, from.map(|long| &self.longs[long]));
                set(&mut self.longs[to], active, &values);
            }
            Instruction::Shift(how, to, from, by) => {
                let values = shift(how, &self.longs[from], &self.words[by]);
                set(&mut self.longs[to], active, &values);
            }
            Instruction::Widen(widening, to, from) => {
                let values = widen(widening, from.map(|word| &self.words[word]));
                set(&mut self.longs[to], active, &values);
            }
            Instruction::Narrow(narrowing, to, from) => {
                set(&mut self.words[to], active, &narrow(narrowing, &self.longs[from]));
            }
            Instruction::Halves(to, from) => {
                let values = halves(&self.longs[from]);
                to.into_iter().zip(&values).for_each(|(to, values)| set(&mut self.words[to], active, values));
            }
            Instruction::CompareWords(comparison, to, from) => {
                let holds = compare_words(comparison, from.map(|word| &self.words[word]));
                self.set_predicate(to, active, holds);
            }
            Instruction::CompareLongs(comparison, to, from) => {
                let holds = compare_longs(comparison, from.map(|long| &self.longs[long]));
                self.set_predicate(to, active, holds);
            }
            Instruction::Predicates(operation, to, from) => {
                let [a, b] = from.map(|predicate| self.predicates[predicate]);
                let holds = match operation {
                    PredicateOperation::And => a & b,
                    PredicateOperation::Or => a | b,
                    PredicateOperation::Not => !a,
                };
                self.set_predicate(to, active, holds);
            }
            Instruction::Select(to, from, predicate) => {
                let values = select(self.predicates[predicate], from.map(|word| &self.words[word]));
                set(&mut self.words[to], active, &values);
            }
            Instruction::SelectLong(to, from, predicate) => {
                let values = select(self.predicates[predicate], from.map(|long| &self.longs[long]));
                set(&mut self.longs[to], active, &values);
            }
            Instruction::Special(special, to) => {
                let values = match special {
                    SpecialRegister::Thread(axis) => self.threads[axis],
                    SpecialRegister::Block(axis) => [world.block[axis]; LANES],
                    SpecialRegister::Blocks(axis) => [world.blocks[axis]; LANES],
                    SpecialRegister::Threads(axis) => [world.threads[axis]; LANES],
                };
                set(&mut self.words[to], active, &values);
            }
            Instruction::ParameterWord(to, offset) => {
                set(&mut self.words[to], active, &[u32::from_le_bytes(parameter(world.parameters, offset)); LANES]);
            }
            Instruction::ParameterLong(to, offset) => {
                set(&mut self.longs[to], active, &[u64::from_le_bytes(parameter(world.parameters, offset)); LANES]);
            }
            Instruction::ParameterWidened(to, offset) => {
                let value = u32::from_le_bytes(parameter(world.parameters, offset));
                set(&mut self.longs[to], active, &[u64::from(value); LANES]);
            }
            Instruction::Load(access, to) => {
                let place = |warp: &mut Self, lane, value| warp.words[to][lane] = value as u32;
                self.load(access, active, world, place)?;
            }
            Instruction::LoadLong(access, to) => {
                let place = |warp: &mut Self, lane, value| warp.longs[to][lane] = value;
                self.load(access, active, world, place)?;
            }
            Instruction::Store(access, from) => {
                let values = self.words[from].map(u64::from);
                self.store(access, &values, active, world)?;
            }
            Instruction::StoreLong(access, from) => {
                let values = self.longs[from];
                self.store(access, &values, active, world)?;
            }
            Instruction::Shuffle(shuffle) => self.shuffle(shuffle, active).map_err(|what| (0, what.to_owned()))?,
            Instruction::Fence => {}
            Instruction::Branch(_) | Instruction::Barrier | Instruction::Return => {
                unreachable!("these say where to go")
            }
        }
        Ok(())
    }

    fn load<M: Memory>(
        &mut self,
        access: Access,
        active: Lanes,
        world: &mut World<'_, '_, M>,
        place: impl Fn(&mut Self, usize, u64),
    ) -> Result<(), (usize, String)> {
        let addresses = self.addresses(access);
        world.report.count(access, active, &addresses);
        world.report.bytes_read += global_bytes(access, active);
        for lane in lanes(active) {
            let by = self.toucher(lane, world);
            let loaded = match access.space {
                Space::Global => world.global.load(addresses[lane], access.size, by),
                Space::Shared => world.shared.load(addresses[lane], access.size, by),
            };
            place(self, lane, loaded.map_err(|what| (lane, what))?);
        }
        Ok(())
    }

    fn store<M: Memory>(
        &mut self,
        access: Access,
        values: &Row<u64>,
        active: Lanes,
        world: &mut World<'_, '_, M>,
    ) -> Result<(), (usize, String)> {
        let addresses = self.addresses(access);
        world.report.count(access, active, &addresses);
        world.report.bytes_written += global_bytes(access, active);
        for lane in lanes(active) {
            let (by, value) = (self.toucher(lane, world), values[lane]);
            let stored = match access.space {
                Space::Global => world.global.store(addresses[lane], access.size, value, by),
                Space::Shared => world.shared.store(addresses[lane], access.size, value, by),
            };
            stored.map_err(|what| (lane, what))?;
        }
        Ok(())
    }

    /// Only whole warps exchange values in our kernels; anything else is refused.
    fn shuffle(&mut self, shuffle: Shuffle, active: Lanes) -> Result<(), &'static str> {
        if active != Lanes::MAX {
            return Err("a shuffle to which not all threads of the warp come");
        }
        if self.words[shuffle.clamp] != [31; LANES] || self.words[shuffle.members] != [Lanes::MAX; LANES] {
            return Err("a shuffle within less than the warp");
        }
        let values = self.words[shuffle.value];
        self.words[shuffle.to] = self.words[shuffle.lane].map(|from| values[from as usize % LANES]);
        if let Some(found) = shuffle.found {
            self.predicates[found] = Lanes::MAX;
        }
        Ok(())
    }

    fn addresses(&self, access: Access) -> Row<u64> {
        self.longs[access.address].map(|address| address.wrapping_add_signed(access.offset))
    }

    fn set_predicate(&mut self, to: Predicate, active: Lanes, holds: Lanes) {
        self.predicates[to] = self.predicates[to] & !active | holds & active;
    }

    fn toucher<M>(&self, lane: usize, world: &World<'_, '_, M>) -> Toucher {
        Toucher { block: world.block_number, phase: world.phase, thread: self.first + lane as u32 }
    }
}

fn set<T: Copy>(register: &mut Row<T>, active: Lanes, values: &Row<T>) {
    if active == Lanes::MAX {
        *register = *values;
    } else {
        lanes(active).for_each(|lane| register[lane] = values[lane]);
    }
}

fn parameter<const SIZE: usize>(parameters: &[u8], offset: usize) -> [u8; SIZE] {
    std::array::from_fn(|byte| parameters[offset + byte])
}

fn global_bytes(access: Access, active: Lanes) -> u64 {
    match access.space {
        Space::Global => u64::from(active.count_ones()) * access.size as u64,
        Space::Shared => 0,
    }
}
