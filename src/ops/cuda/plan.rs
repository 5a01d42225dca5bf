//! From sizes and layouts to launches of our kernels: no driver, no runtime.

/// An element type of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Element {
    Float,
    Half,
    BFloat16,
}

impl Element {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Half | Self::BFloat16 => 2,
        }
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
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Argument {
    Address(u64),
    Int(u32),
    Float(f32),
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

/// s = 1/(b·λ), and λ for the record of a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Damping {
    pub(super) scale: f32,
    pub(super) lambda: f32,
}

/// (I + s·S Sᵀ)⁻¹ Y into `result`, floats in the layout of Y.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solve {
    pub(super) element: Element,
    pub(super) s: View,
    pub(super) y: View,
    pub(super) damping: Damping,
    pub(super) result: u64,
}

/// G (I + s·ḠᵀḠ)⁻¹ = G − s (G Ḡᵀ) (I + s·Ḡ Ḡᵀ)⁻¹ Ḡ into `result`, floats in the layout of G.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    pub(super) element: Element,
    pub(super) g: View,
    pub(super) g_bar: View,
    pub(super) damping: Damping,
    pub(super) result: u64,
}

/// Elements into floats, or floats into elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convert {
    pub(super) from: (u64, Element),
    pub(super) to: (u64, Element),
    pub(super) count: usize,
}

impl Solve {
    pub(super) fn scratch_bytes(&self) -> usize {
        0
    }

    pub(super) fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        let Self { element, s, y, damping, result } = *self;
        vec![one("solve", element, [s, y], damping, [result, scratch, record])]
    }
}

impl Sampled {
    pub(super) fn scratch_bytes(&self) -> usize {
        0
    }

    pub(super) fn launches(&self, scratch: u64, record: u64) -> Vec<Launch> {
        let Self { element, g, g_bar, damping, result } = *self;
        vec![one("sampled", element, [g_bar, g], damping, [result, scratch, record])]
    }
}

impl Convert {
    pub(super) fn launches(&self) -> Vec<Launch> {
        let Self { from, to, count } = *self;
        let arguments = vec![
            Argument::Address(from.0),
            Argument::Int(from.1 as u32),
            Argument::Address(to.0),
            Argument::Int(to.1 as u32),
            Argument::Int(count as u32),
        ];
        vec![Launch { kernel: "convert", grid: [1; 3], block: [32, 1, 1], shared_bytes: 0, arguments }]
    }
}

fn one(kernel: &'static str, element: Element, views: [View; 2], damping: Damping, addresses: [u64; 3]) -> Launch {
    let mut arguments = vec![Argument::Int(element as u32)];
    for View { address, rows, cols, stored_transposed } in views {
        arguments.push(Argument::Address(address));
        arguments.extend([rows as u32, cols as u32, stored_transposed.into()].map(Argument::Int));
    }
    arguments.extend([damping.scale, damping.lambda].map(Argument::Float));
    arguments.extend(addresses.map(Argument::Address));
    Launch { kernel, grid: [1; 3], block: [32, 1, 1], shared_bytes: 0, arguments }
}
