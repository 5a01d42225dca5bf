//! Memory with what a device does not have: bounds, and who touched which bytes when.
#![allow(unsafe_code)]

use std::collections::HashMap;

/// The allocations that a kernel may touch.
pub trait Memory {
    /// Start and length of the allocation that this address lies in.
    fn allocation(&self, address: u64) -> Option<(u64, u64)>;

    /// Whether these bytes were written since they were allocated. Who keeps no account of it says so of all.
    fn is_written(&self, _address: u64, _len: usize) -> bool {
        true
    }

    /// A kernel writes these bytes.
    fn note_write(&self, _address: u64, _len: usize) {}
}

/// Who touched a few bytes: the last to write them, and the first block's last phase to read them. Blocks run one after the other, so
/// whatever the others do after that one races with it.
#[derive(Clone, Copy, Default)]
struct Trace {
    write: Toucher,
    read: Toucher,
    /// Whether other threads than `read` read it too, in the same phase.
    read_by_others: bool,
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
                *self = Self { read: by, read_by_others: false, ..*self };
            } else {
                self.read_by_others |= self.read.thread != by.thread;
            }
            return Ok(());
        }
        let is_shared = self.read_by_others && self.read.block == by.block && self.read.phase == by.phase;
        if self.read.races_with(by) {
            return Err(format!("a race: it writes what {} read", self.read.describe(by)));
        }
        if is_shared {
            return Err("a race: it writes what other threads read".to_owned());
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
    /// The allocation that was used last.
    last: (u64, u64),
    pages: Pages,
}

impl<'m, M: Memory> Global<'m, M> {
    pub(super) fn new(memory: &'m M) -> Self {
        Self { memory, last: (0, 0), pages: Pages::default() }
    }

    fn check(&mut self, address: u64, size: usize, by: Toucher, writes: bool) -> Result<*mut u8, String> {
        let fits = |(start, len): (u64, u64)| {
            address.checked_sub(start).and_then(|offset| offset.checked_add(size as u64)).is_some_and(|end| end <= len)
        };
        if !fits(self.last) {
            let found = self.memory.allocation(address).filter(|found| fits(*found));
            self.last = found.ok_or_else(|| format!("{size} bytes at {address:#x} are outside of every allocation"))?;
        }
        if !address.is_multiple_of(size as u64) {
            return Err(format!("{size} bytes at {address:#x} are not aligned"));
        }
        if writes {
            self.memory.note_write(address, size);
        } else if !self.memory.is_written(address, size) {
            return Err(format!("{size} bytes at {address:#x} are read before they are written"));
        }
        for grain in address / GRAIN..(address + size as u64) / GRAIN {
            self.pages.trace(grain).touch(by, writes)?;
        }
        Ok(std::ptr::with_exposed_provenance_mut(address as usize))
    }

    pub(super) fn load(&mut self, address: u64, size: usize, by: Toucher) -> Result<u64, String> {
        let pointer = self.check(address, size, by, false)?;
        // SAFETY: it lies within an allocation and is aligned.
        unsafe {
            Ok(match size {
                2 => pointer.cast::<u16>().read().into(),
                4 => pointer.cast::<u32>().read().into(),
                _ => pointer.cast::<u64>().read(),
            })
        }
    }

    pub(super) fn store(&mut self, address: u64, size: usize, value: u64, by: Toucher) -> Result<(), String> {
        let pointer = self.check(address, size, by, true)?;
        // SAFETY: as above; a launch is the only one that uses the memory meanwhile.
        unsafe {
            match size {
                2 => pointer.cast::<u16>().write(value as u16),
                4 => pointer.cast::<u32>().write(value as u32),
                _ => pointer.cast::<u64>().write(value),
            }
        }
        Ok(())
    }
}

/// The smallest piece of global memory that is told apart: the smallest that kernels read or write.
const GRAIN: u64 = 2;

/// Traces of a page, one for each grain.
const PAGE: u64 = 1 << 10;

/// Traces of what was touched.
#[derive(Default)]
struct Pages {
    pages: Vec<Box<[Trace]>>,
    by_number: HashMap<u64, usize>,
    /// Number and place of the page that was used last.
    last: Option<(u64, usize)>,
}

impl Pages {
    fn trace(&mut self, grain: u64) -> &mut Trace {
        let number = grain / PAGE;
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => self.place(number),
        };
        self.last = Some((number, place));
        &mut self.pages[place][(grain % PAGE) as usize]
    }

    fn place(&mut self, number: u64) -> usize {
        *self.by_number.entry(number).or_insert_with(|| {
            self.pages.push(vec![Trace::default(); PAGE as usize].into());
            self.pages.len() - 1
        })
    }
}

/// A block's shared memory, in words.
pub(super) struct Shared {
    words: Vec<u32>,
    traces: Vec<Trace>,
}

impl Shared {
    pub(super) fn new(bytes: usize) -> Self {
        let count = bytes / 4;
        Self { words: vec![0; count], traces: vec![Trace::default(); count] }
    }

    /// The one or two words at an address.
    fn check(&mut self, address: u64, size: usize, by: Toucher, writes: bool) -> Result<&mut [u32], String> {
        if !address.is_multiple_of(size as u64) {
            return Err(format!("{size} bytes at {address:#x} of shared memory are not aligned"));
        }
        let first = usize::try_from(address / 4).unwrap_or(usize::MAX);
        let words = first..first.saturating_add(size / 4);
        let traces =
            self.traces.get_mut(words.clone()).ok_or_else(|| format!("{address:#x} is outside of shared memory"))?;
        for trace in traces {
            if !writes && trace.write.is_nobody() {
                return Err(format!("{address:#x} of shared memory is read before it is written"));
            }
            trace.touch(by, writes)?;
        }
        Ok(&mut self.words[words])
    }

    pub(super) fn load(&mut self, address: u64, size: usize, by: Toucher) -> Result<u64, String> {
        let words = self.check(address, size, by, false)?;
        Ok(words.iter().rev().fold(0, |value, word| value << 32 | u64::from(*word)))
    }

    pub(super) fn store(&mut self, address: u64, size: usize, value: u64, by: Toucher) -> Result<(), String> {
        let words = self.check(address, size, by, true)?;
        words.iter_mut().enumerate().for_each(|(index, word)| *word = (value >> (32 * index)) as u32);
        Ok(())
    }
}
