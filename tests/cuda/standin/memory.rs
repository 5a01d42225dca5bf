//! Allocations: on the "device", and pinned ones of the host.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::entry::{INVALID_VALUE, OUT_OF_MEMORY, Status, lock};

/// What CUDA guarantees, and its kernels rely on.
const ALIGNMENT: usize = 256;

/// Set: as many bytes are all that the device has.
const LIMIT: &str = "ISAAC_STANDIN_MEMORY";

/// Fills fresh memory: read as floats of any width it is NaN, so that reading it before writing shows in the result.
const FRESH: u8 = 0xFF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Device,
    Pinned,
}

/// Size and kind of each allocation, by address.
static BLOCKS: Mutex<BTreeMap<usize, (usize, Kind)>> = Mutex::new(BTreeMap::new());

fn layout(size: usize) -> Result<Layout, Status> {
    Layout::from_size_align(size.max(1), ALIGNMENT).map_err(|_| OUT_OF_MEMORY)
}

pub(crate) fn allocate(size: usize, kind: Kind) -> Result<usize, Status> {
    let limit = std::env::var(LIMIT).ok().and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    if kind == Kind::Device && isaac_standin_bytes() + size > limit {
        return Err(OUT_OF_MEMORY);
    }
    // SAFETY: the layout is not empty; the new block has its size.
    let address = unsafe {
        let block = alloc(layout(size)?);
        if block.is_null() {
            return Err(OUT_OF_MEMORY);
        }
        block.write_bytes(FRESH, size);
        block.expose_provenance()
    };
    lock(&BLOCKS).insert(address, (size, kind));
    Ok(address)
}

pub(crate) fn free(address: usize, expected: Kind) -> Result<(), Status> {
    if address == 0 {
        return Ok(());
    }
    match lock(&BLOCKS).remove(&address) {
        Some((size, kind)) if kind == expected => {
            // SAFETY: the block was made by `allocate` with this layout, and is no longer known.
            unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address), layout(size)?) };
            Ok(())
        }
        _ => Err(INVALID_VALUE),
    }
}

/// Bytes of the device that are in use; for the tests.
#[unsafe(no_mangle)]
extern "C" fn isaac_standin_bytes() -> usize {
    let of_device = |(size, kind): &(usize, Kind)| if *kind == Kind::Device { *size } else { 0 };
    lock(&BLOCKS).values().map(of_device).sum()
}

/// The allocation that `size` bytes at `address` lie in: its address, size and kind.
pub(crate) fn block_of(address: usize, size: usize) -> Option<(usize, usize, Kind)> {
    let blocks = lock(&BLOCKS);
    let (&start, &(length, kind)) = blocks.range(..=address).next_back()?;
    (address + size <= start + length).then_some((start, length, kind))
}

/// Copies bytes; an end that is in no allocation is the host's.
///
/// # Safety
/// Both ends must be valid, and not overlap.
pub(crate) unsafe fn copy(to: usize, from: usize, size: usize) {
    let (to, from) = (std::ptr::with_exposed_provenance_mut::<u8>(to), std::ptr::with_exposed_provenance::<u8>(from));
    // SAFETY: by this function's contract.
    unsafe { std::ptr::copy_nonoverlapping(from, to, size) };
}

/// Sets bytes.
///
/// # Safety
/// They must be valid.
pub(crate) unsafe fn fill(at: usize, value: u8, size: usize) {
    // SAFETY: by this function's contract.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at).write_bytes(value, size) };
}
