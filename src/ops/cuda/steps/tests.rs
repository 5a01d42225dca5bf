//! Steps, done by the book in double precision, against the formula.

use std::collections::HashMap;

use half::{bf16, f16};

use super::super::book::{Matrix, damped, product, solve, transposed};
use super::*;
use crate::ops::attributes::{Attributes, Layout};
use crate::ops::call::Inputs;

/// Tensors lie this far apart.
const APART: DeviceAddress = 1 << 20;
const SCRATCH: DeviceAddress = 64 * APART;
const OUTPUT: DeviceAddress = 63 * APART;

/// Elements by address; their values have the precision of their type.
#[derive(Default)]
struct Memory(HashMap<DeviceAddress, f64>);

impl Memory {
    fn get(&self, address: DeviceAddress) -> f64 {
        *self.0.get(&address).unwrap_or_else(|| panic!("{address} is read before it is written"))
    }

    fn set(&mut self, address: DeviceAddress, element: Element, value: f64) {
        let value = match element {
            Element::Float => f64::from(value as f32),
            Element::Half => f16::from_f64(value).to_f64(),
            Element::BFloat16 => bf16::from_f64(value).to_f64(),
        };
        self.0.insert(address, value);
    }

    fn read(&self, view: View, element: Element) -> Matrix {
        let at = |row, col| self.get(place(view, element, row, col));
        (0..view.rows).map(|row| (0..view.cols).map(|col| at(row, col)).collect()).collect()
    }

    fn write(&mut self, view: View, element: Element, values: &Matrix) {
        for (row, values) in values.iter().enumerate() {
            for (col, value) in values.iter().enumerate() {
                self.set(place(view, element, row, col), element, *value);
            }
        }
    }

    fn perform(&mut self, step: Step, alpha: f64) {
        match step {
            Step::Solve(Solve { s, y, damping, result }, _) => {
                let curvature = damped(&self.read(s, Element::Float), damping.scale.into());
                let solved = solve(curvature, self.read(y, Element::Float));
                self.write(View { address: result, ..y }, Element::Float, &solved);
            }
            Step::Sampled(Sampled { g, g_bar, damping, result }, _) => {
                let g_bar = self.read(g_bar, Element::Float);
                let curvature = damped(&transposed(&g_bar), damping.scale.into());
                let solved = solve(curvature, transposed(&self.read(g, Element::Float)));
                self.write(View { address: result, ..g }, Element::Float, &transposed(&solved));
            }
            Step::Convert(Convert { from, to, count }) => {
                for index in 0..count {
                    let value = self.get(from.0 + (index * from.1.bytes()) as u64);
                    self.set(to.0 + (index * to.1.bytes()) as u64, to.1, value);
                }
            }
            Step::Product { element, operands, addend, out } => {
                self.multiply(element, operands, addend, out, alpha);
            }
            Step::Clear { address, bytes } => {
                // Every address in it: of elements of any width.
                self.0.extend((0..bytes as DeviceAddress).map(|byte| (address + byte, 0.0)));
            }
            Step::Copy { from, to, bytes } => {
                let copied = (0..bytes as DeviceAddress).map(|byte| (to + byte, self.get(from + byte)));
                self.0.extend(copied.collect::<Vec<_>>());
            }
        }
    }

    /// With the transposes that the layout of the result leaves: see `form` in the kernel.
    fn multiply(&mut self, element: Element, [a, b]: [Stored; 2], addend: Option<Stored>, out: Stored, alpha: f64) {
        let view = |stored: Stored| View {
            address: stored.address,
            rows: stored.shape[0],
            cols: stored.shape[1],
            stored_transposed: false,
        };
        let (mut a, mut b) = (self.read(view(a), element), self.read(view(b), element));
        if a.len() != out.shape[0] {
            a = transposed(&a);
        }
        if b.len() != a[0].len() {
            b = transposed(&b);
        }
        let mut result = product(&a, &b);
        assert_eq!([result.len(), result[0].len()], out.shape);
        let addend = addend.map(|addend| self.read(view(addend), element)).unwrap_or_default();
        for (row, values) in result.iter_mut().enumerate() {
            for (col, value) in values.iter_mut().enumerate() {
                *value = alpha * *value + addend.get(row).map_or(0.0, |addend| addend[col]);
            }
        }
        self.write(view(out), element, &result);
    }
}

fn place(view: View, element: Element, row: usize, col: usize) -> DeviceAddress {
    let index = if view.stored_transposed { col * view.rows + row } else { row * view.cols + col };
    view.address + (index * element.bytes()) as DeviceAddress
}

/// Sizes that all differ, so that nothing can take another's place.
const ROWS: usize = 5;
const OUTPUTS: usize = 4;
const INPUTS: usize = 7;
const SAMPLED: usize = 3;
const LAYERS: usize = 2;

struct Case {
    attributes: Attributes,
    element: Element,
    lambda_a: f64,
    lambda_g: f64,
    has_addend: bool,
}

impl Case {
    /// Performs the steps of a call with random tensors; compares each layer with the formula.
    fn check(&self, tolerance: f64) {
        let Attributes { layout, alpha, .. } = self.attributes;
        let mut random = fastrand::Rng::with_seed(3);
        let mut memory = Memory::default();
        let layers = if layout.batched > 0 { LAYERS } else { 1 };
        let mut tensor = |number: DeviceAddress, rows: usize, cols: usize, stored_transposed: bool| {
            let start = number * APART;
            let mut values = Vec::new();
            for layer in 0..layers {
                let address = start + (layer * rows * cols * self.element.bytes()) as DeviceAddress;
                let view = View { address, rows, cols, stored_transposed };
                let random = (0..rows).map(|_| (0..cols).map(|_| random.f64() - 0.3).collect()).collect();
                memory.write(view, self.element, &random);
                values.push(memory.read(view, self.element));
            }
            let mut shape = if stored_transposed { vec![cols, rows] } else { vec![rows, cols] };
            if layout.batched > 0 {
                shape.insert(0, layers);
            }
            (Tensor { shape, data: start }, values)
        };
        let (g, g_values) = tensor(1, ROWS, OUTPUTS, layout.trans_g);
        let (a, a_values) = tensor(2, ROWS, INPUTS, layout.trans_a);
        let (g_bar, g_bar_values) = tensor(3, SAMPLED, OUTPUTS, layout.trans_g);
        let (c, c_values) = tensor(4, OUTPUTS, INPUTS, layout.trans_y);
        let inputs = Inputs {
            g: Some(g),
            a: Some(a),
            lambda_a: Some(self.lambda_a),
            g_bar: Some(g_bar),
            lambda_g: Some(self.lambda_g),
            c: self.has_addend.then_some(c),
        };
        let call = Call::new(&self.attributes, inputs).unwrap();
        let planner = Planner { call: &call, element: self.element, output: OUTPUT };
        let mut needed = Bump::new(0);
        planner.steps(&mut needed).unwrap();
        for step in planner.steps(&mut Bump::new(SCRATCH)).unwrap() {
            memory.perform(step, alpha);
        }
        let beyond = memory.0.keys().filter(|address| **address >= SCRATCH + needed.needed as DeviceAddress);
        assert_eq!(beyond.count(), 0, "all of the scratch memory was asked for");
        for layer in 0..layers {
            let gradient = self.formula(&g_values[layer], &a_values[layer], &g_bar_values[layer]).concat();
            let addend = c_values[layer].concat().into_iter().map(|c| if self.has_addend { c } else { 0.0 });
            let expected = gradient.iter().zip(addend).map(|(gradient, addend)| alpha * gradient + addend);
            let address = OUTPUT + (layer * OUTPUTS * INPUTS * self.element.bytes()) as DeviceAddress;
            let view = View { address, rows: OUTPUTS, cols: INPUTS, stored_transposed: layout.trans_y };
            for (got, expected) in memory.read(view, self.element).concat().iter().zip(expected) {
                assert!((got - expected).abs() <= tolerance, "{:?}: {got} {expected}", self.attributes);
            }
        }
    }

    /// (I_m + ḡᵀḡ/(b·λg))⁻¹ gᵀ a (I_n + aᵀa/(b·λa))⁻¹
    fn formula(&self, g: &Matrix, a: &Matrix, g_bar: &Matrix) -> Matrix {
        let scale = |lambda: f64| 1.0 / (ROWS as f64 * lambda);
        let right = transposed(&solve(damped(&transposed(a), scale(self.lambda_a)), transposed(a)));
        solve(damped(&transposed(g_bar), scale(self.lambda_g)), product(&transposed(g), &right))
    }
}

fn attributes(form: Form, layout: Layout) -> Attributes {
    Attributes { lambda_a: None, lambda_g: f64::INFINITY, alpha: -0.5, layout, form }
}

const FORMS: [Form; 4] = [Form::Auto, Form::Samples, Form::Features, Form::Kronecker];

#[test]
fn every_form_layout_and_damping() {
    for bits in 0..8 {
        let [trans_g, trans_a, trans_y] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
        for form in FORMS {
            for (lambda_a, lambda_g) in [(0.1, 0.02), (0.1, f64::INFINITY), (f64::INFINITY, 0.02)] {
                let layout = Layout { trans_g, trans_a, trans_y, batched: 0 };
                for has_addend in [false, true] {
                    let attributes = attributes(form, layout);
                    Case { attributes, element: Element::Float, lambda_a, lambda_g, has_addend }.check(1e-6);
                }
            }
        }
    }
}

#[test]
fn layers_and_halves() {
    for (element, tolerance) in [(Element::Float, 1e-6), (Element::Half, 1e-3), (Element::BFloat16, 1e-2)] {
        for form in FORMS {
            for lambda in [0.1, f64::INFINITY] {
                let layout = Layout { batched: 1, ..Layout::default() };
                for has_addend in [false, true] {
                    let attributes = attributes(form, layout);
                    Case { attributes, element, lambda_a: lambda, lambda_g: lambda, has_addend }.check(tolerance);
                }
            }
        }
    }
}

#[test]
fn without_rows_the_result_is_zero_or_what_is_added() {
    let attributes = attributes(Form::Auto, Layout::default());
    let steps = |c| {
        let tensor = |cols| Some(Tensor { shape: vec![0, cols], data: 0 });
        let inputs = Inputs { g: tensor(2), a: tensor(3), lambda_a: Some(1.0), g_bar: None, lambda_g: None, c };
        let call = Call::new(&attributes, inputs).unwrap();
        let planner = Planner { call: &call, element: Element::Half, output: OUTPUT };
        planner.steps(&mut Bump::new(SCRATCH)).unwrap()
    };
    let zero = steps(None);
    assert!(matches!(zero[..], [Step::Clear { address: OUTPUT, bytes: 12 }]), "{zero:?}");
    let added = steps(Some(Tensor { shape: vec![2, 3], data: APART }));
    assert!(matches!(added[..], [Step::Copy { from: APART, to: OUTPUT, bytes: 12 }]), "{added:?}");
}

/// Sizes at which the kernels' counts, or the bytes of scratch memory, would wrap.
#[test]
fn layers_that_are_too_large() {
    let attributes = attributes(Form::Samples, Layout::default());
    for (rows, features) in [(1 << 31, 1), (1 << 33, 1), (1, 1 << 33)] {
        let [g, a] = [(); 2].map(|()| Some(Tensor { shape: vec![rows, features], data: 0 }));
        let inputs = Inputs { g, a, lambda_a: Some(1.0), g_bar: None, lambda_g: None, c: None };
        let call = Call::new(&attributes, inputs).unwrap();
        let planner = Planner { call: &call, element: Element::Float, output: OUTPUT };
        let error = planner.steps(&mut Bump::new(SCRATCH)).unwrap_err().to_string();
        assert!(error.contains("larger than") && error.contains(&format!("[{rows}, {features}]")), "{error}");
    }
}
