//! What sampled gradients take off a gradient.

use super::factors::{COLUMNS, Factors, shared_bytes};
use super::products::{MOST_ROWS, Product};
use super::solve::triangles;
use super::{Damping, Launch, Memory, NO_FLAG, Planned, Real, Strided, View, is_counted, sizes};

/// G (I + s·ḠᵀḠ)⁻¹ = G − s (G Ḡᵀ) (I + s·Ḡ Ḡᵀ)⁻¹ Ḡ into `result`, in the layout of G; all floats. What is left of G can be smaller than
/// what is taken off by the condition number, and that is lost to rounding twice: it is computed in doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampled {
    pub(crate) g: View,
    pub(crate) g_bar: View,
    pub(crate) damping: Damping,
    pub(crate) result: u64,
}

impl Sampled {
    /// Whether the kernels can count that far.
    pub(crate) fn is_counted(&self) -> bool {
        self.g_bar.rows <= MOST_ROWS && self.g.cols <= MOST_ROWS && is_counted(self.g.rows)
    }

    /// The overlaps solved, in one launch.
    fn fused(&self, x: Strided, triangles: u64, record: u64) -> Launch {
        let Damping { scale, lambda } = self.damping;
        let s = self.g_bar.strided();
        let arguments = [
            vec![s.address.into()],
            sizes(s),
            vec![triangles.into(), scale.into(), x.address.into(), x.address.into(), x.cols.into()],
            vec![x.strides[0].into(), x.strides[1].into(), record.into(), lambda.into()],
        ];
        Launch::new("solve_f64", [x.cols.div_ceil(COLUMNS), 1], shared_bytes(s.rows), arguments.concat())
    }
}

impl Planned for Sampled {
    fn launches_in(&self, memory: &mut Memory, record: u64) -> Vec<Launch> {
        let (g, g_bar) = (self.g.strided(), self.g_bar.strided());
        let out = Strided { address: self.result, ..g.t() };
        // Ḡ Gᵀ, which is solved in place.
        let (rows, cols) = (g_bar.rows, g.rows);
        let address = memory.take(Real::Double.bytes(rows * cols));
        let overlaps = Strided { address, real: Real::Double, rows, cols, strides: [cols, 1] };
        let mut launches = vec![Product { a: g_bar, b: g.t(), ..Product::into(overlaps, NO_FLAG) }.launch()];
        if let Some(triangles) = triangles(rows, cols, memory) {
            launches.push(self.fused(overlaps, triangles, record));
        } else {
            let factors = Factors::new(rows, Real::Double, NO_FLAG, memory);
            launches.extend(factors.made(g_bar, self.damping, record));
            launches.extend(factors.solve(overlaps));
        }
        let factor = -self.damping.scale;
        let rest = Product { a: g_bar.t(), b: overlaps, c: g.address, factor, ..Product::into(out, NO_FLAG) };
        launches.push(rest.launch());
        launches
    }
}
