//! From the shapes of the tensors to the sizes of the layer.

use super::Error;
use super::attributes::Layout;

/// The sizes of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Number of independent layers.
    pub(super) layers: usize,
    /// b, rows of each.
    pub(super) rows: usize,
    /// Rows of sampled gradients of each; 0 without them.
    pub(super) sampled_rows: usize,
    /// m
    pub(super) out_features: usize,
    /// n
    pub(super) in_features: usize,
    /// Shape of the output.
    pub(super) output: Vec<usize>,
}

impl Sizes {
    /// Checks the shapes of `G`, `A` and, if it is there, `GBar` against each other and against the attributes.
    pub(super) fn new(layout: &Layout, g: &[usize], a: &[usize], g_bar: Option<&[usize]>) -> Result<Self, Error> {
        let fail = |problem: String| Error::Shapes {
            problem,
            gradients: g.to_vec(),
            inputs: a.to_vec(),
            sampled: g_bar.map(<[usize]>::to_vec),
        };
        let least = layout.batched + 2;
        let too_low = || fail(format!("the rank must be at least {least} (batched = {})", layout.batched));
        if g.len() != a.len() {
            return Err(fail("G and A must have the same rank".into()));
        }
        let output = output_shape(layout, g, a).ok_or_else(too_low)?;
        if g_bar.is_some_and(|g_bar| g_bar.len() < least) {
            return Err(too_low());
        }
        let flat = |shape: &[usize]| shape.len() == 2;
        if (layout.trans_g || layout.trans_a) && !(flat(g) && (g_bar.is_none_or(flat) || !layout.trans_g)) {
            return Err(fail("transG and transA need tensors of rank 2".into()));
        }
        let (g_rows, a_rows) = (rows(g, layout.trans_g), rows(a, layout.trans_a));
        if g_rows != a_rows {
            return Err(fail(format!("G has rows {g_rows:?} and A has rows {a_rows:?}, which must be the same")));
        }
        let out_features = *features(g, layout.trans_g);
        let (layers, rows) = g_rows.split_at(layout.batched);
        let sampled_rows = match g_bar {
            None => 0,
            Some(g_bar) if *features(g_bar, layout.trans_g) != out_features => {
                return Err(fail("GBar must have as many features as G".into()));
            }
            Some(g_bar) => match self::rows(g_bar, layout.trans_g).strip_prefix(layers) {
                Some(rows) => rows.iter().product(),
                None => return Err(fail("GBar must have the batched dimensions of G".into())),
            },
        };
        Ok(Self {
            layers: layers.iter().product(),
            rows: rows.iter().product(),
            sampled_rows,
            out_features,
            in_features: *features(a, layout.trans_a),
            output,
        })
    }
}

/// The shape of the output, [..., m, n] or [..., n, m]; `D` may be a symbolic dimension. `None` if `g` or `a` has too few
/// dimensions.
pub fn output_shape<D: Clone>(layout: &Layout, g: &[D], a: &[D]) -> Option<Vec<D>> {
    if g.len() < layout.batched + 2 || a.len() < 2 {
        return None;
    }
    let (m, n) = (features(g, layout.trans_g), features(a, layout.trans_a));
    let (first, second) = if layout.trans_y { (n, m) } else { (m, n) };
    let mut shape = g[..layout.batched].to_vec();
    shape.extend([first.clone(), second.clone()]);
    Some(shape)
}

fn features<D>(shape: &[D], transposed: bool) -> &D {
    if transposed { &shape[0] } else { &shape[shape.len() - 1] }
}

fn rows<D>(shape: &[D], transposed: bool) -> &[D] {
    if transposed { &shape[1..] } else { &shape[..shape.len() - 1] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(layout: Layout, g: &[usize], a: &[usize]) -> Option<(usize, usize, usize, usize, Vec<usize>)> {
        let sizes = Sizes::new(&layout, g, a, None).ok()?;
        Some((sizes.layers, sizes.rows, sizes.out_features, sizes.in_features, sizes.output))
    }

    #[test]
    fn each_layout() {
        let plain = Layout::default();
        assert_eq!(sizes(plain, &[8, 3], &[8, 5]), Some((1, 8, 3, 5, vec![3, 5])));
        assert_eq!(sizes(plain, &[2, 4, 3], &[2, 4, 5]), Some((1, 8, 3, 5, vec![3, 5])));
        assert_eq!(sizes(Layout { trans_y: true, ..plain }, &[8, 3], &[8, 5]), Some((1, 8, 3, 5, vec![5, 3])));
        assert_eq!(sizes(Layout { trans_g: true, ..plain }, &[3, 8], &[8, 5]), Some((1, 8, 3, 5, vec![3, 5])));
        assert_eq!(sizes(Layout { trans_a: true, ..plain }, &[8, 3], &[5, 8]), Some((1, 8, 3, 5, vec![3, 5])));
        let batched = Layout { batched: 2, ..plain };
        assert_eq!(sizes(batched, &[2, 6, 8, 3], &[2, 6, 8, 5]), Some((12, 8, 3, 5, vec![2, 6, 3, 5])));
        assert_eq!(sizes(plain, &[0, 3], &[0, 5]), Some((1, 0, 3, 5, vec![3, 5])));
    }

    #[test]
    fn what_does_not_fit() {
        let plain = Layout::default();
        for (layout, g, a) in [
            (plain, &[8, 3][..], &[9, 5][..]),
            (plain, &[8, 3], &[2, 4, 5]),
            (plain, &[2, 4, 3], &[4, 2, 5]),
            (plain, &[3], &[5]),
            (plain, &[], &[]),
            (Layout { batched: 1, ..plain }, &[8, 3], &[8, 5]),
            (Layout { trans_g: true, ..plain }, &[8, 3], &[8, 5]),
            (Layout { trans_a: true, ..plain }, &[2, 4, 3], &[2, 4, 5]),
        ] {
            let message = Sizes::new(&layout, g, a, None).unwrap_err().to_string();
            assert!(message.contains(&format!("{g:?}")) && message.contains(&format!("{a:?}")), "{message}");
        }
    }

    #[test]
    fn sampled_gradients() {
        let plain = Layout::default();
        let sampled = |layout: Layout, g: &[usize], a: &[usize], g_bar: &[usize]| {
            Sizes::new(&layout, g, a, Some(g_bar)).map(|sizes| sizes.sampled_rows)
        };
        assert_eq!(sampled(plain, &[8, 3], &[8, 5], &[16, 3]).unwrap(), 16);
        assert_eq!(sampled(plain, &[8, 3], &[8, 5], &[2, 8, 3]).unwrap(), 16);
        assert_eq!(sampled(Layout { trans_g: true, ..plain }, &[3, 8], &[8, 5], &[3, 9]).unwrap(), 9);
        let batched = Layout { batched: 1, ..plain };
        assert_eq!(sampled(batched, &[4, 8, 3], &[4, 8, 5], &[4, 9, 3]).unwrap(), 9);
        for (layout, g, a, g_bar) in [
            (plain, &[8, 3][..], &[8, 5][..], &[8, 4][..]),
            (plain, &[8, 3], &[8, 5], &[3]),
            (batched, &[4, 8, 3], &[4, 8, 5], &[5, 8, 3]),
            (Layout { trans_g: true, ..plain }, &[3, 8], &[8, 5], &[3, 2, 4]),
        ] {
            let message = sampled(layout, g, a, g_bar).unwrap_err().to_string();
            assert!(message.contains(&format!("GBar has the shape {g_bar:?}")), "{message}");
        }
    }

    #[test]
    fn symbols_pass_through() {
        let layout = Layout { batched: 1, ..Layout::default() };
        assert_eq!(output_shape(&layout, &["e", "b", "m"], &["e", "b", "n"]), Some(vec!["e", "m", "n"]));
    }
}
