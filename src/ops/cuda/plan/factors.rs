//! A damped Gram matrix and its factors: within a block, and by tiles in global memory.

use std::ops::Range;

use super::products::Product;
use super::{Damping, Launch, Memory, Real, Strided, sizes};

/// The largest order that one block factors.
pub(super) const LARGEST: usize = 128;
/// Columns that one block solves.
pub(super) const COLUMNS: usize = 16;
/// Columns of S that are in shared memory at once.
const DEPTH: usize = 16;

/// Elements of a packed lower triangle.
pub(super) fn triangle(order: usize) -> usize {
    order * (order + 1) / 2
}

/// Bytes of shared memory of a block that factors in floats and in doubles; the doubles' triangle lies elsewhere.
pub(super) fn shared_bytes(order: usize) -> u32 {
    Real::Float.shared_bytes(order).max(Real::Double.bytes(Real::Double.beside(order)) as u32)
}

impl Real {
    /// The largest order that one block factors in shared memory: the rows of a tile of a larger matrix.
    fn tile(self) -> usize {
        match self {
            Self::Float => LARGEST,
            Self::Double => 88,
        }
    }

    /// Elements of a packed lower triangle of the order of a tile; its pivots' reciprocals come behind it.
    fn triangle(self) -> usize {
        triangle(self.tile())
    }

    /// How far apart columns of S lie in shared memory; see `pitch` in `products.cuh`.
    fn pitch(self, order: usize) -> usize {
        match self {
            Self::Float => (order + 1) / 4 * 4 + 2,
            Self::Double => order | 1,
        }
    }

    /// Elements that a block has beside the triangle: the pivots' reciprocals, and a tile of S or of columns.
    fn beside(self, order: usize) -> usize {
        order + (DEPTH * self.pitch(order)).max(order * (COLUMNS + 1))
    }

    /// What a block needs that factors a matrix of this order in shared memory.
    fn shared_bytes(self, order: usize) -> u32 {
        self.bytes(triangle(order) + self.beside(order)) as u32
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

/// A symmetric matrix in global memory, of which the lower triangle is there.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub(super) address: u64,
    pub(super) order: usize,
    pub(super) real: Real,
}

impl Matrix {
    fn strided(self) -> Strided {
        let Self { address, order, real } = self;
        Strided { address, real, rows: order, cols: order, strides: [order, 1] }
    }

    /// The launch that makes it I + s·S Sᵀ.
    pub(super) fn made(self, flag: u64, s: Strided, damping: Damping) -> Launch {
        Product { a: s, b: s.t(), factor: damping.scale, is_lower: true, ..Product::into(self.strided(), flag) }
            .launch()
    }
}

/// A damped Gram matrix that is factored by tiles, and the factors of the tiles on its diagonal.
pub(super) struct Factors {
    pub(super) matrix: Matrix,
    tiles: u64,
    /// Where a word says whether they are needed.
    pub(super) flag: u64,
}

impl Factors {
    pub(super) fn new(order: usize, real: Real, flag: u64, memory: &mut Memory) -> Self {
        let matrix = Matrix { address: memory.take(real.bytes(order * order)), order, real };
        let tiles = memory.take(real.bytes(order.div_ceil(real.tile()) * Self::per_tile(real)));
        Self { matrix, tiles, flag }
    }

    /// Elements for the factors of a tile.
    fn per_tile(real: Real) -> usize {
        real.triangle() + real.tile()
    }

    /// Makes the matrix, and then its factors.
    pub(super) fn made(&self, s: Strided, damping: Damping, record: u64) -> Vec<Launch> {
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
    pub(super) fn make(&self, record: u64, lambda: f32) -> Vec<Launch> {
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
    pub(super) fn solve(&self, x: Strided) -> Vec<Launch> {
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
