//! From sizes and layouts to launches of the kernels in `kernels.cu`: no driver, no runtime.

use std::ops::Range;

/// Threads of a block.
const THREADS: u32 = 256;
/// Columns that one block solves.
const COLUMNS: usize = 16;
/// Columns of S that are in shared memory at once.
const DEPTH: usize = 16;
/// The sides of a block's part of a product.
const SIDE: usize = 64;
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

    /// The largest order that one block factors: the rows of a tile of a larger matrix.
    fn tile(self) -> usize {
        match self {
            Self::Float => 128,
            Self::Double => 88,
        }
    }

    /// Elements of a packed lower triangle of the order of a tile; its pivots' reciprocals come behind it.
    fn triangle(self) -> usize {
        triangle(self.tile())
    }

    /// What a block needs to factor a matrix of this order: the packed triangle, the reciprocals, and a tile of S or of columns.
    fn shared_bytes(self, order: usize) -> u32 {
        let count = triangle(order) + order + (DEPTH * (order | 1)).max(order * (COLUMNS + 1));
        self.bytes(count) as u32
    }

    fn panel(self) -> &'static str {
        match self {
            Self::Float => "panel",
            Self::Double => "panel_f64",
        }
    }

    fn forward(self) -> &'static str {
        match self {
            Self::Float => "forward",
            Self::Double => "forward_f64",
        }
    }

    fn backward(self) -> &'static str {
        match self {
            Self::Float => "backward",
            Self::Double => "backward_f64",
        }
    }
}

fn triangle(order: usize) -> usize {
    order * (order + 1) / 2
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
    fn new(kernel: &'static str, [x, y]: [usize; 2], shared_bytes: u32, arguments: Vec<Argument>) -> Self {
        let [x, y] = [x, y].map(|count| u32::try_from(count).expect("a grid has less than 2^32 blocks"));
        Self { kernel, grid: [x, y, 1], block: [THREADS, 1, 1], shared_bytes, arguments }
    }
}

/// s = 1/(b·λ), and λ for the record of a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Damping {
    pub(super) scale: f32,
    pub(super) lambda: f32,
}

/// (I + s·S Sᵀ)⁻¹ Y into `result`, in the layout of Y; all floats, computed in doubles where that is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solve {
    pub(super) s: View,
    pub(super) y: View,
    pub(super) damping: Damping,
    pub(super) result: u64,
}

impl Solve {
    /// Scratch memory.
    pub(super) fn scratch_bytes(&self) -> usize {
        let mut memory = Memory(0);
        if self.is_tiled() {
            self.tiled(&mut memory);
        } else if self.has_gram_apart() {
            memory.take(self.gram_bytes());
        }
        memory.0 as usize
    }

    /// The kernels, in this order. A failure of the factorisation is written to `record`: the pivot's index plus one, the order, λ.
    pub(super) fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        let mut memory = Memory(scratch);
        if self.is_tiled() {
            self.tiled(&mut memory).launches(record)
        } else if self.has_gram_apart() {
            let gram = Matrix { address: memory.take(self.gram_bytes()), order: self.s.rows, real: Real::Float };
            vec![gram.made(NO_FLAG, self.s.strided(), self.damping), self.fused(gram.address, record)]
        } else {
            vec![self.fused(0, record)]
        }
    }

    /// Whether the factors don't fit into a block, which may need them in doubles.
    fn is_tiled(&self) -> bool {
        self.s.rows > Real::Double.tile()
    }

    /// Whether it costs too much to make the Gram matrix in each block.
    fn has_gram_apart(&self) -> bool {
        self.s.rows * self.s.rows * self.s.cols > FUSED
    }

    fn gram_bytes(&self) -> u64 {
        Real::Float.bytes(self.s.rows * self.s.rows)
    }

    /// Everything but perhaps the Gram matrix in one launch.
    fn fused(&self, gram: u64, record: u64) -> Launch {
        let Damping { scale, lambda } = self.damping;
        let (s, y) = (self.s.strided(), self.y.strided());
        let arguments = [
            vec![s.address.into()],
            sizes(s),
            vec![gram.into(), scale.into(), y.address.into(), self.result.into(), y.cols.into()],
            vec![y.strides[0].into(), y.strides[1].into(), record.into(), lambda.into()],
        ];
        Launch::new("solve", [y.cols.div_ceil(COLUMNS), 1], Real::Double.shared_bytes(s.rows), arguments.concat())
    }

    fn tiled(&self, memory: &mut Memory) -> Tiled {
        let (s, y) = (self.s.strided(), self.y.strided());
        let probes = memory.take(Real::Float.bytes(s.rows * COLUMNS));
        let [norm, flag] = [Real::Float.bytes(1); 2].map(|bytes| memory.take(bytes));
        Tiled {
            s,
            y,
            result: self.result,
            damping: self.damping,
            factors: Factors::new(s.rows, Real::Float, NO_FLAG, memory),
            probes: Strided { address: probes, real: Real::Float, rows: s.rows, cols: COLUMNS, strides: [COLUMNS, 1] },
            norm,
            wide: Factors::new(s.rows, Real::Double, flag, memory),
            wide_result: doubles(y, memory),
        }
    }
}

/// An address of nothing: no flag says that a kernel may be left out.
const NO_FLAG: u64 = 0;

/// Memory that is handed out from the front, from this address on.
struct Memory(u64);

impl Memory {
    fn take(&mut self, bytes: u64) -> u64 {
        let address = self.0;
        self.0 += bytes.next_multiple_of(size_of::<f64>() as u64);
        address
    }
}

/// Memory for doubles in the layout of these floats.
fn doubles(floats: Strided, memory: &mut Memory) -> Strided {
    let address = memory.take(Real::Double.bytes(floats.rows * floats.cols));
    Strided { address, real: Real::Double, ..floats }
}

/// A [`Solve`] by tiles, with all that it has in memory.
struct Tiled {
    s: Strided,
    y: Strided,
    result: u64,
    damping: Damping,
    factors: Factors,
    /// Columns of signs; see `judge` in `kernels.cu`.
    probes: Strided,
    /// The sum of squares of the damped Gram matrix.
    norm: u64,
    /// The same in doubles; its flag says whether that is needed.
    wide: Factors,
    wide_result: Strided,
}

impl Tiled {
    fn launches(&self, record: u64) -> Vec<Launch> {
        let Self { s, y, result, damping, ref factors, probes, norm, ref wide, wide_result } = *self;
        let (order, flag) = (factors.matrix.order, wide.flag);
        let [from_probe, from_judge] = [
            vec![factors.matrix.address.into(), order.into(), probes.address.into(), norm.into()],
            vec![probes.address.into(), order.into(), norm.into(), flag.into()],
        ];
        let mut launches = vec![factors.matrix.made(NO_FLAG, s, damping), Launch::new("probe", [1, 1], 0, from_probe)];
        launches.extend(factors.make(0, damping.lambda));
        launches.extend(factors.solve(probes));
        launches.push(Launch::new("judge", [1, 1], 0, from_judge));
        let count = y.rows * y.cols;
        launches.push(convert("convert_f32_f32", NO_FLAG, [y.address, result], count));
        launches.extend(factors.solve(Strided { address: result, ..y }));
        launches.extend(wide.made(s, damping, record));
        launches.push(convert("convert_f32_f64", flag, [y.address, wide_result.address], count));
        launches.extend(wide.solve(wide_result));
        launches.push(convert("convert_f64_f32", flag, [wide_result.address, result], count));
        launches
    }
}

/// A symmetric matrix in global memory, of which the lower triangle is there.
#[derive(Clone, Copy)]
struct Matrix {
    address: u64,
    order: usize,
    real: Real,
}

impl Matrix {
    fn strided(self) -> Strided {
        let Self { address, order, real } = self;
        Strided { address, real, rows: order, cols: order, strides: [order, 1] }
    }

    /// The launch that makes it I + s·S Sᵀ.
    fn made(self, flag: u64, s: Strided, damping: Damping) -> Launch {
        Product { a: s, b: s.t(), factor: damping.scale, is_lower: true, ..Product::into(self.strided(), flag) }
            .launch()
    }
}

/// A damped Gram matrix that is factored by tiles, and the factors of the tiles on its diagonal.
struct Factors {
    matrix: Matrix,
    tiles: u64,
    /// Where a word says whether they are needed.
    flag: u64,
}

impl Factors {
    fn new(order: usize, real: Real, flag: u64, memory: &mut Memory) -> Self {
        let matrix = Matrix { address: memory.take(real.bytes(order * order)), order, real };
        let tiles = memory.take(real.bytes(order.div_ceil(real.tile()) * Self::per_tile(real)));
        Self { matrix, tiles, flag }
    }

    /// Elements for the factors of a tile.
    fn per_tile(real: Real) -> usize {
        real.triangle() + real.tile()
    }

    /// Makes the matrix, and then its factors.
    fn made(&self, s: Strided, damping: Damping, record: u64) -> Vec<Launch> {
        let mut launches = vec![self.matrix.made(self.flag, s, damping)];
        launches.extend(self.make(record, damping.lambda));
        launches
    }

    fn of(&self, tile: &Tile) -> u64 {
        let real = self.matrix.real;
        self.tiles + real.bytes(tile.index * Self::per_tile(real))
    }

    /// The reciprocals of a tile's pivots.
    fn weights(&self, tile: &Tile) -> u64 {
        let real = self.matrix.real;
        self.of(tile) + real.bytes(real.triangle())
    }

    /// What is behind a tile.
    fn rest(&self, tile: &Tile) -> Range<usize> {
        tile.rows.end..self.matrix.order
    }

    /// U below a tile.
    fn below(&self, tile: &Tile) -> Strided {
        self.matrix.strided().part(self.rest(tile), tile.rows.clone())
    }

    fn taken_off(&self, out: Strided) -> Product {
        Product { c: out.address, factor: -1.0, ..Product::into(out, self.flag) }
    }

    /// Factors the matrix. There may be no record.
    fn make(&self, record: u64, lambda: f32) -> Vec<Launch> {
        let Matrix { address, order, real } = self.matrix;
        let mut launches = Vec::new();
        for tile in tiles(order, real) {
            let start = [self.flag.into(), address.into(), order.into(), tile.rows.start.into()];
            let arguments = [&start[..], &[self.of(&tile).into(), record.into(), lambda.into()]].concat();
            let blocks = self.rest(&tile).len().div_ceil(COLUMNS).max(1);
            launches.push(Launch::new(real.panel(), [blocks, 1], real.shared_bytes(tile.rows.len()), arguments));
            let (u, weights) = (self.below(&tile), self.weights(&tile));
            let rest = self.matrix.strided().part(self.rest(&tile), self.rest(&tile));
            let update = Product { a: u, b: u.t(), weights, is_lower: true, ..self.taken_off(rest) };
            launches.extend(update.launch_unless_empty());
        }
        launches
    }

    /// Solves in place.
    fn solve(&self, x: Strided) -> Vec<Launch> {
        let Matrix { order, real, .. } = self.matrix;
        let mut launches = Vec::new();
        for tile in tiles(order, real) {
            launches.push(self.substitute(real.forward(), &tile, x));
            let (a, b, weights) = (self.below(&tile), x.rows(tile.rows.clone()), self.weights(&tile));
            let update = Product { a, b, weights, ..self.taken_off(x.rows(self.rest(&tile))) };
            launches.extend(update.launch_unless_empty());
        }
        for tile in tiles(order, real).into_iter().rev() {
            let (a, b) = (self.below(&tile).t(), x.rows(self.rest(&tile)));
            let update = Product { a, b, ..self.taken_off(x.rows(tile.rows.clone())) };
            launches.extend(update.launch_unless_empty());
            launches.push(self.substitute(real.backward(), &tile, x));
        }
        launches
    }

    fn substitute(&self, kernel: &'static str, tile: &Tile, x: Strided) -> Launch {
        let x = x.rows(tile.rows.clone());
        let arguments = [vec![self.flag.into(), self.of(tile).into(), x.address.into()], sizes(x)].concat();
        Launch::new(kernel, [x.cols.div_ceil(COLUMNS), 1], x.real.shared_bytes(x.rows), arguments)
    }
}

/// Rows of a matrix that are factored within a block.
struct Tile {
    index: usize,
    rows: Range<usize>,
}

fn tiles(order: usize, real: Real) -> Vec<Tile> {
    let starts = (0..order).step_by(real.tile()).enumerate();
    starts.map(|(index, start)| Tile { index, rows: start..order.min(start + real.tile()) }).collect()
}

fn sizes(matrix: Strided) -> Vec<Argument> {
    [matrix.rows, matrix.cols, matrix.strides[0], matrix.strides[1]].map(Argument::from).into()
}

/// out = C + factor·A diag(weights) B; see `kernels.cu`. An address of zero is none.
struct Product {
    flag: u64,
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
    fn into(out: Strided, flag: u64) -> Self {
        Self { flag, a: out, b: out, weights: 0, c: 0, factor: 1.0, out, is_lower: false }
    }

    /// By what the factors and the result are.
    fn kernel(&self) -> &'static str {
        match (self.a.real, self.b.real, self.out.real) {
            (Real::Float, Real::Float, Real::Float) => "product",
            (Real::Float, Real::Float, Real::Double) => "product_f32_f64",
            (Real::Float, Real::Double, Real::Float) => "product_f64_f32",
            _ => "product_f64",
        }
    }

    fn launch(&self) -> Launch {
        let Self { flag, a, b, weights, c, factor, out, is_lower } = self;
        let arguments = [
            vec![(*flag).into(), a.address.into()],
            sizes(*a),
            vec![b.address.into(), b.cols.into(), b.strides[0].into(), b.strides[1].into()],
            vec![(*weights).into(), (*c).into(), (*factor).into(), out.address.into()],
            vec![out.strides[0].into(), out.strides[1].into(), usize::from(*is_lower).into()],
        ];
        Launch::new(self.kernel(), [out.cols.div_ceil(SIDE), out.rows.div_ceil(SIDE)], 0, arguments.concat())
    }

    fn launch_unless_empty(&self) -> Option<Launch> {
        (self.out.rows > 0 && self.a.cols > 0).then(|| self.launch())
    }
}

/// G (I + s·ḠᵀḠ)⁻¹ = G − s (G Ḡᵀ) (I + s·Ḡ Ḡᵀ)⁻¹ Ḡ into `result`, in the layout of G; all floats. What is left of G can be smaller than
/// what is taken off by the condition number, and that is lost to rounding twice: it is computed in doubles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    pub(super) g: View,
    pub(super) g_bar: View,
    pub(super) damping: Damping,
    pub(super) result: u64,
}

impl Sampled {
    /// Whether the factors don't fit into a block.
    fn is_tiled(&self) -> bool {
        self.g_bar.rows > Real::Double.tile()
    }

    /// The overlaps Ḡ Gᵀ, which are solved in place.
    fn overlaps(&self, memory: &mut Memory) -> Strided {
        let (rows, cols) = (self.g_bar.rows, self.g.rows);
        let address = memory.take(Real::Double.bytes(rows * cols));
        Strided { address, real: Real::Double, rows, cols, strides: [cols, 1] }
    }

    fn factors(&self, memory: &mut Memory) -> Factors {
        Factors::new(self.g_bar.rows, Real::Double, NO_FLAG, memory)
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        let mut memory = Memory(0);
        self.overlaps(&mut memory);
        if self.is_tiled() {
            self.factors(&mut memory);
        }
        memory.0 as usize
    }

    /// As [`Solve::launches`].
    pub(super) fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        let mut memory = Memory(scratch);
        let overlaps = self.overlaps(&mut memory);
        let (g, g_bar) = (self.g.strided(), self.g_bar.strided());
        let out = Strided { address: self.result, ..g.t() };
        let mut launches = vec![Product { a: g_bar, b: g.t(), ..Product::into(overlaps, NO_FLAG) }.launch()];
        if self.is_tiled() {
            let factors = self.factors(&mut memory);
            launches.extend(factors.made(g_bar, self.damping, record));
            launches.extend(factors.solve(overlaps));
        } else {
            launches.push(self.fused(overlaps, record));
        }
        let factor = -self.damping.scale;
        let rest = Product { a: g_bar.t(), b: overlaps, c: g.address, factor, ..Product::into(out, NO_FLAG) };
        launches.push(rest.launch());
        launches
    }

    /// The overlaps solved, in one launch.
    fn fused(&self, x: Strided, record: u64) -> Launch {
        let Damping { scale, lambda } = self.damping;
        let s = self.g_bar.strided();
        let arguments = [
            vec![s.address.into()],
            sizes(s),
            vec![scale.into(), x.address.into(), x.address.into(), x.cols.into()],
            vec![x.strides[0].into(), x.strides[1].into(), record.into(), lambda.into()],
        ];
        Launch::new("solve_f64", [x.cols.div_ceil(COLUMNS), 1], Real::Double.shared_bytes(s.rows), arguments.concat())
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
        vec![convert(kernel, NO_FLAG, [self.from.0, self.to.0], self.count)]
    }
}

fn convert(kernel: &'static str, flag: u64, [from, to]: [u64; 2], count: usize) -> Launch {
    let halves = [count as u32, (count as u64 >> 32) as u32].map(Argument::Int);
    let arguments = [vec![flag.into(), from.into(), to.into()], halves.into()].concat();
    Launch::new(kernel, [count.div_ceil(THREADS as usize).min(CONVERTERS), 1], 0, arguments)
}

#[cfg(test)]
mod tests;
