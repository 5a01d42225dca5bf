//! What a launch did, counted as it would cost a device.

use std::ops::Add;

use super::arithmetic::{LANES, Lanes, Row, lanes};
use super::instruction::{Access, Space};

/// Bytes of global memory that are fetched together.
const SECTOR: u64 = 32;

/// Bytes of a word in a bank of shared memory; there are as many banks as lanes.
const BANK: u64 = 4;

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions of warps.
    pub instructions: u64,
    /// Floating-point operations of threads; a fused one counts twice.
    pub flops: u64,
    /// The same, in double precision.
    pub double_flops: u64,
    /// Bytes that threads read from global memory.
    pub bytes_read: u64,
    /// Bytes that threads wrote to global memory.
    pub bytes_written: u64,
    /// 32-byte sectors of global memory that warps asked for, access by access.
    pub sectors: u64,
    /// The fewest sectors that the different bytes of each access fit into.
    pub fewest_sectors: u64,
    /// Accesses of warps to shared memory; those of eight bytes are made by half a warp at a time.
    pub shared_accesses: u64,
    /// How often such an access has to wait, because lanes want different words of one bank.
    pub bank_conflicts: u64,
}

impl Report {
    pub(super) fn count(&mut self, access: Access, active: Lanes, addresses: &Row<u64>) {
        match access.space {
            Space::Global => {
                let (_, places) = distinct(active, addresses, access.size as u64);
                let (_, sectors) = distinct(active, addresses, SECTOR);
                self.sectors += sectors as u64;
                self.fewest_sectors += (places as u64 * access.size as u64).div_ceil(SECTOR);
            }
            Space::Shared => {
                let at_once: &[Lanes] = if access.size as u64 > BANK { &[0xffff, 0xffff_0000] } else { &[Lanes::MAX] };
                for group in at_once.iter().map(|group| group & active).filter(|group| *group != 0) {
                    self.count_shared(access.size as u64 / BANK, group, addresses);
                }
            }
        }
    }

    /// An access to so many words from each address on.
    fn count_shared(&mut self, words: u64, active: Lanes, addresses: &Row<u64>) {
        let (places, count) = distinct(active, addresses, words * BANK);
        let mut banks = [0_u8; LANES];
        for word in places[..count].iter().flat_map(|place| place * words..(place + 1) * words) {
            banks[word as usize % LANES] += 1;
        }
        let longest = banks.into_iter().max().unwrap_or(0);
        self.shared_accesses += 1;
        self.bank_conflicts += u64::from(longest.saturating_sub(1));
    }
}

impl Add for Report {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            instructions: self.instructions + other.instructions,
            flops: self.flops + other.flops,
            double_flops: self.double_flops + other.double_flops,
            bytes_read: self.bytes_read + other.bytes_read,
            bytes_written: self.bytes_written + other.bytes_written,
            sectors: self.sectors + other.sectors,
            fewest_sectors: self.fewest_sectors + other.fewest_sectors,
            shared_accesses: self.shared_accesses + other.shared_accesses,
            bank_conflicts: self.bank_conflicts + other.bank_conflicts,
        }
    }
}

/// The units of memory that the addresses lie in, each once, and how many there are.
fn distinct(active: Lanes, addresses: &Row<u64>, unit: u64) -> (Row<u64>, usize) {
    let (mut units, mut count, mut highest) = ([0; LANES], 0, None);
    for lane in lanes(active) {
        let found = addresses[lane] / unit;
        // Most warps go upwards: that saves the search.
        if Some(found) > highest || !units[..count].contains(&found) {
            units[count] = found;
            count += 1;
            highest = highest.max(Some(found));
        }
    }
    (units, count)
}
