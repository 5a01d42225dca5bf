//! (I + s·S Sᵀ)⁻¹ Y.

use super::factors::{COLUMNS, Factors, LARGEST, Matrix, shared_bytes, triangle};
use super::products::{MOST_ROWS, convert};
use super::{Damping, Launch, Memory, NO_FLAG, Planned, Real, Strided, View, is_counted, sizes};

/// Above so many multiplications a Gram matrix costs more to make in every block than in a launch of its own.
const GRAM_IN_BLOCKS: usize = 1 << 21;
/// Memory for the triangles of all blocks, at most. So many blocks are better off with factors that they share.
const MOST_FOR_TRIANGLES: u64 = 1 << 24;

/// (I + s·S Sᵀ)⁻¹ Y into `result`, in the layout of Y; all floats, computed in doubles where that is needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Solve {
    pub(crate) s: View,
    pub(crate) y: View,
    pub(crate) damping: Damping,
    pub(crate) result: u64,
}

impl Solve {
    /// Whether the kernels can count that far.
    pub(crate) fn is_counted(&self) -> bool {
        self.s.rows <= MOST_ROWS && is_counted(self.s.cols) && is_counted(self.y.cols)
    }

    /// Everything but perhaps the Gram matrix in one launch.
    fn fused(&self, gram: u64, triangles: u64, record: u64) -> Launch {
        let Damping { scale, lambda } = self.damping;
        let (s, y) = (self.s.strided(), self.y.strided());
        let arguments = [
            vec![s.address.into()],
            sizes(s),
            vec![gram.into(), triangles.into(), scale.into(), y.address.into(), self.result.into(), y.cols.into()],
            vec![y.strides[0].into(), y.strides[1].into(), record.into(), lambda.into()],
        ];
        Launch::new("solve", [y.cols.div_ceil(COLUMNS), 1], shared_bytes(s.rows), arguments.concat())
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

impl Planned for Solve {
    fn launches_in(&self, memory: &mut Memory, record: u64) -> Vec<Launch> {
        let (s, y) = (self.s.strided(), self.y.strided());
        let Some(triangles) = triangles(s.rows, y.cols, memory) else {
            return self.tiled(memory).launches(record);
        };
        if s.rows * s.rows * s.cols <= GRAM_IN_BLOCKS {
            return vec![self.fused(0, triangles, record)];
        }
        let address = memory.take(Real::Float.bytes(s.rows * s.rows));
        let gram = Matrix { address, order: s.rows, real: Real::Float };
        vec![gram.made(NO_FLAG, s, self.damping), self.fused(address, triangles, record)]
    }
}

/// Memory for the triangles in which the blocks of one launch factor in doubles; `None` if one launch can't do it, or isn't worth it.
pub(super) fn triangles(order: usize, columns: usize, memory: &mut Memory) -> Option<u64> {
    let bytes = Real::Double.bytes(triangle(order.min(LARGEST)) * columns.div_ceil(COLUMNS));
    (order <= LARGEST && bytes <= MOST_FOR_TRIANGLES).then(|| memory.take(bytes))
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
