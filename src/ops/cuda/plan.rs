//! From sizes and layouts to launches of the kernels in `kernels.cu`: no driver, no runtime.

use std::ops::Range;

/// Threads of a block.
const THREADS: u32 = 256;
/// The largest order that one block factors: the rows of a tile of a larger matrix.
const TILE: usize = 128;
/// Columns that one block solves.
const COLUMNS: usize = 16;
/// Columns of S that are in shared memory at once.
const DEPTH: usize = 16;
/// The sides of a block's part of a product.
const SIDE: usize = 64;
/// Floats of a packed lower triangle of order TILE, and of its pivots' reciprocals behind it.
const TRIANGLE: usize = TILE * (TILE + 1) / 2;
const FACTORS: usize = TRIANGLE + TILE;
/// Above so many multiplications a Gram matrix costs more to make in every block than in a launch of its own.
const FUSED: usize = 1 << 21;
/// Blocks that together convert an array; each of its threads takes many elements.
const CONVERTERS: usize = 1 << 10;

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
        Strided { address, rows, cols, strides }
    }
}

/// A part of a matrix of floats.
#[derive(Clone, Copy)]
struct Strided {
    address: u64,
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
        Self { address: self.address + bytes(offset), rows: rows.len(), cols: cols.len(), ..self }
    }

    fn rows(self, rows: Range<usize>) -> Self {
        self.part(rows, 0..self.cols)
    }
}

/// Bytes of so many floats.
fn bytes(floats: usize) -> u64 {
    (floats * FLOAT) as u64
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
        Self::Int(u32::try_from(size).expect("an axis of a tensor on a device has less than 2^32 elements"))
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

impl Launch {
    fn new(kernel: &'static str, [x, y]: [usize; 2], shared_floats: usize, arguments: Vec<Argument>) -> Self {
        let [x, y] = [x, y].map(|count| u32::try_from(count).expect("a grid has less than 2^32 blocks"));
        Self { kernel, grid: [x, y, 1], block: [THREADS, 1, 1], shared_bytes: bytes(shared_floats) as u32, arguments }
    }
}

/// s = 1/(b·λ), and λ for the record of a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Damping {
    pub(super) scale: f32,
    pub(super) lambda: f32,
}

/// (I + s·S Sᵀ)⁻¹ Y into `result`, in the layout of Y; all floats. `result` may be Y.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solve {
    pub(super) s: View,
    pub(super) y: View,
    pub(super) damping: Damping,
    pub(super) result: u64,
}

impl Solve {
    /// Whether one launch does it.
    fn is_fused(&self) -> bool {
        let View { rows, cols, .. } = self.s;
        rows <= TILE && rows * rows * cols <= FUSED
    }

    /// Scratch memory: the Gram matrix, then the factors of each tile on its diagonal.
    pub(super) fn scratch_bytes(&self) -> usize {
        let order = self.s.rows;
        if self.is_fused() { 0 } else { (order * order + order.div_ceil(TILE) * FACTORS) * FLOAT }
    }

    /// The kernels, in this order. A failure of the factorisation is written to `record`: the pivot's index plus one, the order, λ.
    pub(super) fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        if self.is_fused() {
            return vec![self.fused(record)];
        }
        let s = self.s.strided();
        let factors = Factors { address: scratch, order: s.rows };
        let gram =
            Product { a: s, b: s.t(), factor: self.damping.scale, is_lower: true, ..Product::into(factors.matrix()) };
        let mut launches = vec![gram.launch()];
        launches.extend(factors.make(record, self.damping.lambda));
        let y = self.y.strided();
        if y.address != self.result {
            let [from, to] = [y.address, self.result].map(|address| (address, Element::Float));
            launches.extend(Convert { from, to, count: y.rows * y.cols }.launches());
        }
        launches.extend(factors.solve(Strided { address: self.result, ..y }));
        launches
    }

    /// Everything in one launch.
    fn fused(&self, record: u64) -> Launch {
        let Damping { scale, lambda } = self.damping;
        let (s, y) = (self.s.strided(), self.y.strided());
        let arguments = [
            vec![s.address.into()],
            sizes(s),
            vec![scale.into(), y.address.into(), self.result.into(), y.cols.into()],
            vec![y.strides[0].into(), y.strides[1].into(), record.into(), lambda.into()],
        ];
        Launch::new("solve", [y.cols.div_ceil(COLUMNS), 1], shared_floats(s.rows), arguments.concat())
    }
}

/// A damped Gram matrix in global memory that is factored by tiles, and behind it the factors of the tiles on its diagonal.
struct Factors {
    address: u64,
    order: usize,
}

impl Factors {
    fn matrix(&self) -> Strided {
        Strided { address: self.address, rows: self.order, cols: self.order, strides: [self.order, 1] }
    }

    fn of(&self, tile: &Tile) -> u64 {
        self.address + bytes(self.order * self.order + tile.index * FACTORS)
    }

    /// The reciprocals of a tile's pivots.
    fn weights(&self, tile: &Tile) -> u64 {
        self.of(tile) + bytes(TRIANGLE)
    }

    /// What is behind a tile.
    fn rest(&self, tile: &Tile) -> Range<usize> {
        tile.rows.end..self.order
    }

    /// U below a tile.
    fn below(&self, tile: &Tile) -> Strided {
        self.matrix().part(self.rest(tile), tile.rows.clone())
    }

    fn make(&self, record: u64, lambda: f32) -> Vec<Launch> {
        let mut launches = Vec::new();
        for tile in tiles(self.order) {
            let start = [self.address.into(), self.order.into(), tile.rows.start.into()];
            let arguments = [start, [self.of(&tile).into(), record.into(), lambda.into()]].concat();
            let blocks = self.rest(&tile).len().div_ceil(COLUMNS).max(1);
            launches.push(Launch::new("panel", [blocks, 1], shared_floats(tile.rows.len()), arguments));
            let (u, weights) = (self.below(&tile), self.weights(&tile));
            let rest = self.matrix().part(self.rest(&tile), self.rest(&tile));
            let update = Product { a: u, b: u.t(), weights, is_lower: true, ..Product::taken_off(rest) };
            launches.extend(update.launch_unless_empty());
        }
        launches
    }

    /// Solves in place.
    fn solve(&self, x: Strided) -> Vec<Launch> {
        let mut launches = Vec::new();
        for tile in tiles(self.order) {
            launches.push(self.substitute("forward", &tile, x));
            let (a, b, weights) = (self.below(&tile), x.rows(tile.rows.clone()), self.weights(&tile));
            let update = Product { a, b, weights, ..Product::taken_off(x.rows(self.rest(&tile))) };
            launches.extend(update.launch_unless_empty());
        }
        for tile in tiles(self.order).into_iter().rev() {
            let (a, b) = (self.below(&tile).t(), x.rows(self.rest(&tile)));
            let update = Product { a, b, ..Product::taken_off(x.rows(tile.rows.clone())) };
            launches.extend(update.launch_unless_empty());
            launches.push(self.substitute("backward", &tile, x));
        }
        launches
    }

    fn substitute(&self, kernel: &'static str, tile: &Tile, x: Strided) -> Launch {
        let x = x.rows(tile.rows.clone());
        let arguments = [vec![self.of(tile).into(), x.address.into()], sizes(x)].concat();
        Launch::new(kernel, [x.cols.div_ceil(COLUMNS), 1], shared_floats(x.rows), arguments)
    }
}

/// Rows of a matrix that are factored within a block.
struct Tile {
    index: usize,
    rows: Range<usize>,
}

fn tiles(order: usize) -> Vec<Tile> {
    let starts = (0..order).step_by(TILE).enumerate();
    starts.map(|(index, start)| Tile { index, rows: start..order.min(start + TILE) }).collect()
}

/// What a block needs to factor a matrix of this order: the packed triangle, the reciprocals, and a tile of S or of columns.
fn shared_floats(order: usize) -> usize {
    order * (order + 1) / 2 + order + (DEPTH * (order | 1)).max(order * (COLUMNS + 1))
}

fn sizes(matrix: Strided) -> Vec<Argument> {
    [matrix.rows, matrix.cols, matrix.strides[0], matrix.strides[1]].map(Argument::from).into()
}

/// out = C + factor·A diag(weights) B; see `kernels.cu`. An address of zero is none.
struct Product {
    a: Strided,
    b: Strided,
    weights: u64,
    c: u64,
    factor: f32,
    out: Strided,
    is_lower: bool,
}

impl Product {
    /// A plain one; both factors are still to come.
    fn into(out: Strided) -> Self {
        Self { a: out, b: out, weights: 0, c: 0, factor: 1.0, out, is_lower: false }
    }

    /// One that is subtracted from what is there.
    fn taken_off(out: Strided) -> Self {
        Self { c: out.address, factor: -1.0, ..Self::into(out) }
    }

    fn launch(&self) -> Launch {
        let Self { a, b, weights, c, factor, out, is_lower } = self;
        let arguments = [
            vec![a.address.into()],
            sizes(*a),
            vec![b.address.into(), b.cols.into(), b.strides[0].into(), b.strides[1].into()],
            vec![(*weights).into(), (*c).into(), (*factor).into(), out.address.into()],
            vec![out.strides[0].into(), out.strides[1].into(), usize::from(*is_lower).into()],
        ];
        Launch::new("product", [out.cols.div_ceil(SIDE), out.rows.div_ceil(SIDE)], 0, arguments.concat())
    }

    fn launch_unless_empty(&self) -> Option<Launch> {
        (self.out.rows > 0 && self.a.cols > 0).then(|| self.launch())
    }
}

/// G (I + s·ḠᵀḠ)⁻¹ = G − s (G Ḡᵀ) (I + s·Ḡ Ḡᵀ)⁻¹ Ḡ into `result`, in the layout of G; all floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    pub(super) g: View,
    pub(super) g_bar: View,
    pub(super) damping: Damping,
    pub(super) result: u64,
}

impl Sampled {
    /// The overlaps Ḡ Gᵀ, which are solved in place.
    fn overlaps(&self, address: u64) -> View {
        View { address, rows: self.g_bar.rows, cols: self.g.rows, stored_transposed: false }
    }

    fn solve(&self, overlaps: View) -> Solve {
        Solve { s: self.g_bar, y: overlaps, damping: self.damping, result: overlaps.address }
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        self.g_bar.rows * self.g.rows * FLOAT + self.solve(self.overlaps(0)).scratch_bytes()
    }

    /// As [`Solve::launches`].
    pub(super) fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        let overlaps = self.overlaps(scratch);
        let behind = scratch + bytes(overlaps.rows * overlaps.cols);
        let (g, g_bar) = (self.g.strided(), self.g_bar.strided());
        let out = Strided { address: self.result, ..g.t() };
        let mut launches = vec![Product { a: g_bar, b: g.t(), ..Product::into(overlaps.strided()) }.launch()];
        launches.extend(self.solve(overlaps).launches(behind, record));
        let factor = -self.damping.scale;
        let rest = Product { a: g_bar.t(), b: overlaps.strided(), c: g.address, factor, ..Product::into(out) };
        launches.push(rest.launch());
        launches
    }
}

/// Elements into floats, or floats into elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convert {
    pub(super) from: (u64, Element),
    pub(super) to: (u64, Element),
    pub(super) count: usize,
}

impl Convert {
    pub(super) fn launches(&self) -> Vec<Launch> {
        let kernel = match (self.from.1, self.to.1) {
            (Element::Half, _) => "convert_f16_f32",
            (Element::BFloat16, _) => "convert_bf16_f32",
            (Element::Float, Element::Half) => "convert_f32_f16",
            (Element::Float, Element::BFloat16) => "convert_f32_bf16",
            (Element::Float, Element::Float) => "convert_f32_f32",
        };
        let count = self.count as u64;
        let halves = [count as u32, (count >> 32) as u32].map(Argument::Int);
        let arguments = [vec![self.from.0.into(), self.to.0.into()], halves.into()].concat();
        vec![Launch::new(kernel, [self.count.div_ceil(THREADS as usize).min(CONVERTERS), 1], 0, arguments)]
    }
}

#[cfg(test)]
mod tests;
