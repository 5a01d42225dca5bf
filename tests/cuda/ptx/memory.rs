//! Memory with what a device does not have: bounds, and who touched which bytes when.
#![allow(unsafe_code)]

use std::collections::HashMap;

/// The allocations that a kernel may touch.
pub trait Memory {
    /// Start and length of the allocation that this address lies in.
    fn allocation(&self, address: u64) -> Option<(u64, u64)>;
}

/// Who touched a few bytes last.
#[derive(Clone, Copy, Default)]
struct Trace {
    write: Toucher,
    read: Toucher,
    /// Whether others than `read` read it too: in the same phase, and in other blocks.
    read_by_threads: bool,
    read_by_blocks: bool,
}

/// A thread in the time between two barriers; phases count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Toucher {
    pub(super) block: u32,
    pub(super) phase: u32,
    pub(super) thread: u32,
}

impl Toucher {
    fn is_nobody(self) -> bool {
        self.phase == 0
    }

    /// Whether nothing says which of both comes first.
    fn races_with(self, other: Self) -> bool {
        !self.is_nobody() && (self.block != other.block || self.phase == other.phase && self.thread != other.thread)
    }
}

impl Trace {
    fn touch(&mut self, by: Toucher, writes: bool) -> Result<(), String> {
        if self.write.races_with(by) {
            let how = if writes { "writes" } else { "reads" };
            return Err(format!("a race: it {how} what {} wrote", self.write.describe(by)));
        }
        if !writes {
            let is_new = self.read.is_nobody() || self.read.block == by.block && self.read.phase != by.phase;
            if is_new {
                *self = Self { read: by, read_by_threads: false, ..*self };
            } else {
                self.read_by_threads |= self.read.thread != by.thread;
                self.read_by_blocks |= self.read.block != by.block;
            }
            return Ok(());
        }
        let is_shared =
            self.read_by_blocks || self.read_by_threads && self.read.block == by.block && self.read.phase == by.phase;
        if is_shared || self.read.races_with(by) {
            return Err(format!("a race: it writes what {} read", self.read.describe(by)));
        }
        self.write = by;
        Ok(())
    }
}

impl Toucher {
    fn describe(self, other: Self) -> String {
        if self.block == other.block { format!("thread {}", self.thread) } else { format!("block {}", self.block) }
    }
}

/// Global memory during one launch.
pub(super) struct Global<'m, M> {
    memory: &'m M,
    last: (u64, u64),
    pages: HashMap<u64, Box<[Trace; PAGE]>>,
}

/// Traces of a page, each of two bytes.
const PAGE: usize = 1 << 10;
const GRAIN: u64 = 2;

impl<'m, M: Memory> Global<'m, M> {
    pub(super) fn new(memory: &'m M) -> Self {
        Self { memory, last: (0, 0), pages: HashMap::new() }
    }

    fn check(&mut self, address: u64, size: usize, by: Toucher, writes: bool) -> Result<*mut u8, String> {
        let fits = |(start, len): (u64, u64)| address >= start && address - start + size as u64 <= len;
        if !fits(self.last) {
            let found = self.memory.allocation(address).filter(|found| fits(*found));
            self.last = found.ok_or_else(|| format!("{size} bytes at {address:#x} are outside of every allocation"))?;
        }
        if address % size as u64 != 0 {
            return Err(format!("{size} bytes at {address:#x} are not aligned"));
        }
        for grain in address / GRAIN..(address + size as u64).div_ceil(GRAIN) {
            let page = self.pages.entry(grain / PAGE as u64).or_insert_with(|| Box::new([Trace::default(); PAGE]));
            page[grain as usize % PAGE].touch(by, writes)?;
        }
        Ok(std::ptr::with_exposed_provenance_mut(address as usize))
    }

    pub(super) fn load(&mut self, address: u64, size: usize, by: Toucher) -> Result<u32, String> {
        let pointer = self.check(address, size, by, false)?;
        // SAFETY: it lies within an allocation and is aligned.
        unsafe {
            match size {
                2 => Ok(u32::from(pointer.cast::<u16>().read())),
                _ => Ok(pointer.cast::<u32>().read()),
            }
        }
    }

    pub(super) fn store(&mut self, address: u64, size: usize, value: u32, by: Toucher) -> Result<(), String> {
        let pointer = self.check(address, size, by, true)?;
        // SAFETY: as above; a launch is the only one that uses the memory meanwhile.
        unsafe {
            match size {
                2 => pointer.cast::<u16>().write(value as u16),
                _ => pointer.cast::<u32>().write(value),
            }
        }
        Ok(())
    }
}

/// A block's shared memory, in words.
pub(super) struct Shared {
    words: Vec<u32>,
    traces: Vec<Trace>,
}

impl Shared {
    pub(super) fn new(bytes: usize) -> Self {
        let count = bytes.div_ceil(4);
        Self { words: vec![0; count], traces: vec![Trace::default(); count] }
    }

    fn check(&mut self, address: u64, size: usize, by: Toucher, writes: bool) -> Result<usize, String> {
        let word = address as usize / 4;
        if size != 4 || address % 4 != 0 {
            return Err(format!("{size} bytes at {address:#x} of shared memory are not an aligned word"));
        }
        let trace = self.traces.get_mut(word).filter(|_| address < 1 << 32);
        let trace = trace.ok_or_else(|| format!("{address:#x} is outside of shared memory"))?;
        if !writes && trace.write.is_nobody() {
            return Err(format!("{address:#x} of shared memory is read before it is written"));
        }
        trace.touch(by, writes)?;
        Ok(word)
    }

    pub(super) fn load(&mut self, address: u64, size: usize, by: Toucher) -> Result<u32, String> {
        let word = self.check(address, size, by, false)?;
        Ok(self.words[word])
    }

    pub(super) fn store(&mut self, address: u64, size: usize, value: u32, by: Toucher) -> Result<(), String> {
        let word = self.check(address, size, by, true)?;
        self.words[word] = value;
        Ok(())
    }
}
