//! From sizes and layouts to launches of the kernels in `kernels.cu`: no driver, no runtime.
//!
//! | file | job |
//! |---|---|
//! | `solve` | (I + s·S Sᵀ)⁻¹ Y: by one launch, or by tiles |
//! | `sampled` | what sampled gradients take off a gradient |
//! | `factors` | a factorisation: within a block, and by tiles |
//! | `products` | products and conversions |

mod factors;
mod products;
mod sampled;
mod solve;

use std::ops::Range;

pub(super) use products::Convert;
pub(super) use sampled::Sampled;
pub(super) use solve::Solve;

/// Threads of a block.
const THREADS: u32 = 256;

/// An element type of the device's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Element {
    Float,
    Half,
    BFloat16,
}

impl Element {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Float => FLOAT,
            Self::Half | Self::BFloat16 => 2,
        }
    }
}

const FLOAT: usize = size_of::<f32>();

/// What is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Real {
    Float,
    Double,
}

impl Real {
    fn bytes(self, count: usize) -> u64 {
        let size = match self {
            Self::Float => FLOAT,
            Self::Double => size_of::<f64>(),
        };
        (count * size) as u64
    }
}

/// A matrix in the memory of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) address: u64,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Stored by columns.
    pub(super) stored_transposed: bool,
}

impl View {
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, stored_transposed: !self.stored_transposed, ..self }
    }

    fn strided(self) -> Strided {
        let View { address, rows, cols, stored_transposed } = self;
        let strides = if stored_transposed { [1, rows] } else { [cols, 1] };
        Strided { address, real: Real::Float, rows, cols, strides }
    }
}

/// A part of a matrix.
#[derive(Clone, Copy)]
struct Strided {
    address: u64,
    real: Real,
    rows: usize,
    cols: usize,
    /// From row to row, and from column to column.
    strides: [usize; 2],
}

impl Strided {
    fn t(self) -> Self {
        let [row, col] = self.strides;
        Self { rows: self.cols, cols: self.rows, strides: [col, row], ..self }
    }

    fn part(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        let offset = rows.start * self.strides[0] + cols.start * self.strides[1];
        Self { address: self.address + self.real.bytes(offset), rows: rows.len(), cols: cols.len(), ..self }
    }

    fn rows(self, rows: Range<usize>) -> Self {
        self.part(rows, 0..self.cols)
    }
}

fn sizes(matrix: Strided) -> Vec<Argument> {
    [matrix.rows, matrix.cols, matrix.strides[0], matrix.strides[1]].map(Argument::from).into()
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Argument {
    Address(u64),
    Int(u32),
    Float(f32),
}

impl From<u64> for Argument {
    fn from(address: u64) -> Self {
        Self::Address(address)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<usize> for Argument {
    /// The kernels count with 32 bits along each axis.
    fn from(size: usize) -> Self {
        Self::Int(u32::try_from(size).expect("the sizes are checked"))
    }
}

/// A kernel to start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Launch {
    pub(super) kernel: &'static str,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) arguments: Vec<Argument>,
}

/// Whether the kernels can count so many along one axis.
fn is_counted(size: usize) -> bool {
    u32::try_from(size).is_ok()
}

impl Launch {
    fn new(kernel: &'static str, [x, y]: [usize; 2], shared_bytes: u32, arguments: Vec<Argument>) -> Self {
        let [x, y] = [x, y].map(|count| u32::try_from(count).expect("the sizes are checked"));
        Self { kernel, grid: [x, y, 1], block: [THREADS, 1, 1], shared_bytes, arguments }
    }
}

/// s = 1/(b·λ), and λ for the record of a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Damping {
    pub(super) scale: f32,
    pub(super) lambda: f32,
}

/// An address of nothing: no flag says that a kernel may be left out.
const NO_FLAG: u64 = 0;

/// Memory that is handed out from the front, from this address on.
pub(crate) struct Memory(u64);

impl Memory {
    fn take(&mut self, bytes: u64) -> u64 {
        let address = self.0;
        self.0 += bytes.next_multiple_of(size_of::<f64>() as u64);
        address
    }
}

/// Kernels that need memory for what lies between them.
pub(crate) trait Planned {
    /// The kernels, in this order. A failure of the factorisation is written to `record`: the pivot's index plus one, the order, λ.
    fn launches_in(&self, memory: &mut Memory, record: u64) -> Vec<Launch>;

    /// As [`Self::launches_in`], with [`Self::scratch_bytes`] at `scratch`.
    fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        self.launches_in(&mut Memory(scratch), record)
    }

    fn scratch_bytes(&self) -> usize {
        let mut memory = Memory(0);
        self.launches_in(&mut memory, 0);
        memory.0 as usize
    }
}

#[cfg(test)]
mod tests;
