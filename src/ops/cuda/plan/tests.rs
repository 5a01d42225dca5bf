//! The kernels that we ship, run by an interpreter of their PTX, against the formulas in double precision.
#![allow(unsafe_code)]

use std::cell::RefCell;

use half::{bf16, f16};

use super::super::book::{self, Matrix, damped, transposed};
use super::super::ptx::{self, Fault, Module, Order, Report};
use super::products::CONVERTERS;
use super::*;

mod costs;
mod faults;

const KERNELS: &str = include_str!("../kernels.ptx");
const ORDERS: [Order; 3] = [Order::Forward, Order::Backward, Order::Shuffled];

/// What float sums leave of seven digits, relative to the largest element.
const TOLERANCE: f64 = 1e-5;

/// What memory is allocated in, and aligned to.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Line(#[expect(dead_code, reason = "it is read through pointers")] [u8; 256]);

/// Memory of a device, with nothing in it at first but NaN: allocations, and how many bytes of each were asked for.
#[derive(Default)]
struct Device {
    allocations: RefCell<Vec<(*mut [Line], u64)>>,
}

impl ptx::Memory for Device {
    fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let allocations = self.allocations.borrow();
        let mut bounds = allocations.iter().map(|(lines, bytes)| (lines.expose_provenance() as u64, *bytes));
        bounds.find(|(start, len)| (*start..start + len).contains(&address))
    }
}

impl Device {
    fn allocate(&self, bytes: usize) -> u64 {
        let lines = Box::into_raw(vec![Line([0xff; 256]); bytes.div_ceil(256)].into_boxed_slice());
        self.allocations.borrow_mut().push((lines, bytes as u64));
        lines.expose_provenance() as u64
    }

    fn upload<const N: usize>(&self, values: impl ExactSizeIterator<Item = [u8; N]>) -> u64 {
        let address = self.allocate(N * values.len());
        for (index, value) in values.enumerate() {
            // SAFETY: it lies in the allocation.
            unsafe { pointer::<[u8; N]>(address).add(index).write(value) };
        }
        address
    }

    fn download<const N: usize>(&self, address: u64, count: usize) -> Vec<[u8; N]> {
        // SAFETY: tests ask for what they have allocated.
        (0..count).map(|index| unsafe { pointer::<[u8; N]>(address).add(index).read() }).collect()
    }

    fn floats(&self, address: u64, count: usize) -> Vec<f32> {
        self.download(address, count).into_iter().map(f32::from_ne_bytes).collect()
    }

    /// Words for a failure, of which there is none.
    fn record(&self) -> u64 {
        self.upload([[0_u8; 12]].into_iter())
    }

    fn matrix(&self, values: &Matrix, stored_transposed: bool) -> View {
        let stored = if stored_transposed { transposed(values) } else { values.clone() };
        let bytes: Vec<[u8; 4]> = stored.concat().into_iter().map(|value| (value as f32).to_ne_bytes()).collect();
        View { address: self.upload(bytes.into_iter()), rows: values.len(), cols: values[0].len(), stored_transposed }
    }

    fn read(&self, view: View) -> Matrix {
        let floats = self.floats(view.address, view.rows * view.cols);
        let stored: Matrix = floats
            .chunks(if view.stored_transposed { view.rows } else { view.cols })
            .map(|row| row.iter().copied().map(f64::from).collect())
            .collect();
        if view.stored_transposed { transposed(&stored) } else { stored }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for (lines, _) in self.allocations.borrow_mut().drain(..) {
            // SAFETY: it came out of a box, once.
            drop(unsafe { Box::from_raw(lines) });
        }
    }
}

fn pointer<T>(address: u64) -> *mut T {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Runs the launches, one after the other.
fn run(module: &Module, device: &Device, launches: &[Launch], order: Order) -> Result<Report, Fault> {
    let mut total = Report::default();
    for launch in launches {
        let kernel = module.kernel(launch.kernel).expect("the kernel is there");
        let values: Vec<Vec<u8>> = launch.arguments.iter().map(bytes_of).collect();
        let report = kernel.launch(
            &ptx::Launch {
                grid: launch.grid,
                block: launch.block,
                shared_bytes: launch.shared_bytes as usize,
                parameters: kernel.pack(&values),
                order,
            },
            device,
        )?;
        total = total + report;
    }
    Ok(total)
}

fn bytes_of(argument: &Argument) -> Vec<u8> {
    match argument {
        Argument::Address(value) => value.to_ne_bytes().into(),
        Argument::Int(value) => value.to_ne_bytes().into(),
        Argument::Float(value) => value.to_ne_bytes().into(),
    }
}

/// Normal numbers, the same for the same seed; in float, so that the formula gets what the device gets.
fn random(rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut normal = || f64::from(((0..12).map(|_| random.f64()).sum::<f64>() - 6.0) as f32);
    (0..rows).map(|_| (0..cols).map(|_| normal()).collect()).collect()
}

/// With a mean that is large beside the rest.
fn badly_conditioned(rows: usize, cols: usize) -> Matrix {
    let shifted = |row: Vec<f64>| row.into_iter().map(|value| f64::from((value + 30.0) as f32)).collect();
    random(rows, cols, 7).into_iter().map(shifted).collect()
}

fn is_badly_conditioned(values: &Matrix) -> bool {
    values[0].iter().sum::<f64>() > 20.0 * values[0].len() as f64
}

fn error(got: &Matrix, expected: &Matrix) -> f64 {
    let largest = expected.concat().into_iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let differences = got.concat().into_iter().zip(expected.concat()).map(|(got, expected)| (got - expected).abs());
    // A NaN is worse than anything.
    differences.max_by(f64::total_cmp).unwrap_or(0.0) / largest
}

fn module() -> Module {
    Module::parse(KERNELS).expect("every instruction is known")
}

/// λ = 1, as 1/(b·λ) for this many rows.
fn damping(rows: usize) -> Damping {
    Damping { scale: 1.0 / rows as f32, lambda: 1.0 }
}

/// (I + s·S Sᵀ)⁻¹ S on a device, with nothing done yet.
struct Prepared {
    device: Device,
    solve: Solve,
    launches: Vec<Launch>,
    record: u64,
}

impl Prepared {
    fn new(values: &Matrix, stored_transposed: bool, damping: Damping) -> Self {
        let device = Device::default();
        let s = device.matrix(values, stored_transposed);
        let solve = Solve { s, y: s, damping, result: device.allocate(s.rows * s.cols * FLOAT) };
        let record = device.record();
        let launches = solve.launches(device.allocate(solve.scratch_bytes()), record);
        Self { device, solve, launches, record }
    }

    fn run(&self, module: &Module, order: Order) -> Result<Report, Fault> {
        run(module, &self.device, &self.launches, order)
    }

    fn result(&self) -> Matrix {
        self.device.read(View { address: self.solve.result, ..self.solve.s })
    }

    /// Pivot, order and λ of a failure, or zeros.
    fn recorded(&self) -> [u32; 3] {
        let words = self.device.download(self.record, 3);
        [0, 1, 2].map(|word| u32::from_ne_bytes(words[word]))
    }
}

/// (I + s·S Sᵀ)⁻¹ S in all orders: whether it is right, and the same each time.
fn check_solve(module: &Module, rows: usize, cols: usize, stored_transposed: bool) {
    let values = random(rows, cols, (rows * 1000 + cols) as u64);
    let damping = damping(rows);
    let expected = book::solve(damped(&values, damping.scale.into()), values.clone());
    let results = ORDERS.map(|order| {
        let prepared = Prepared::new(&values, stored_transposed, damping);
        prepared.run(module, order).unwrap_or_else(|fault| panic!("{rows}x{cols}: {fault}"));
        assert_eq!(prepared.recorded(), [0; 3], "no failure is recorded");
        prepared.result()
    });
    let error = error(&results[0], &expected);
    assert!(error <= TOLERANCE, "{rows}x{cols}, transposed {stored_transposed}: {error:.1e}");
    assert!(results[0] == results[1] && results[0] == results[2], "{rows}x{cols}: the order of threads matters");
}

#[test]
fn orders_of_one_tile() {
    let module = module();
    for rows in [1, 2, 7, 31, 32, 33, 60, 64, 100, 127, 128] {
        for cols in [1, 10, 100, 400] {
            check_solve(&module, rows, cols, (rows + cols) % 2 == 0);
        }
    }
    check_solve(&module, 60, 100, true);
    check_solve(&module, 60, 100, false);
    check_solve(&module, 128, 200, false);
}

/// Where it is worth it.
#[test]
fn orders_of_one_tile_take_one_launch() {
    let kernels = |order, cols, columns| {
        let view = |cols| View { address: 0, rows: order, cols, stored_transposed: false };
        let solve = Solve { s: view(cols), y: view(columns), damping: damping(order), result: 0 };
        solve.launches(0, 0).into_iter().map(|launch| launch.kernel).collect::<Vec<_>>()
    };
    assert_eq!(kernels(60, 400, 400), ["solve"]);
    assert_eq!(kernels(128, 128, 1600), ["solve"]);
    assert_eq!(kernels(128, 400, 400), ["product", "solve"], "its Gram matrix costs more in every block than a launch");
    assert_eq!(kernels(128, 8000, 8000)[1], "probe", "triangles for so many blocks are much memory");
    assert_eq!(kernels(129, 10, 10)[1], "probe");
}

#[test]
fn orders_that_are_factored_by_tiles() {
    let module = module();
    for (rows, cols) in [(129, 10), (150, 100), (256, 33), (300, 64)] {
        check_solve(&module, rows, cols, rows % 4 == 0);
    }
}

/// Where floats would lose four digits, doubles are used; and not where it isn't needed.
#[test]
fn what_floats_are_not_enough_for() {
    let module = module();
    for (rows, cols) in [(2, 3), (60, 100), (88, 40), (60, 700), (89, 20), (128, 64), (200, 33), (300, 20)] {
        for values in [badly_conditioned(rows, cols), random(rows, cols, 3)] {
            let damping = damping(rows);
            let prepared = Prepared::new(&values, rows % 4 == 0, damping);
            let report =
                prepared.run(&module, Order::Shuffled).unwrap_or_else(|fault| panic!("{rows}x{cols}: {fault}"));
            let is_bad = is_badly_conditioned(&values);
            assert_eq!(report.double_flops > 0, is_bad, "{rows}x{cols}: the precision");
            let error = error(&prepared.result(), &book::solve(damped(&values, damping.scale.into()), values));
            let tolerance = if is_bad { 2e-7 } else { TOLERANCE };
            assert!(error <= tolerance, "{rows}x{cols}, badly conditioned {is_bad}: {error:.1e}");
        }
    }
}

/// G (I + s·ḠᵀḠ)⁻¹ on a device, for λ = 1, with nothing done yet.
struct PreparedSampled {
    device: Device,
    sampled: Sampled,
    launches: Vec<Launch>,
}

impl PreparedSampled {
    fn new([g, g_bar]: [&Matrix; 2], stored_transposed: bool) -> Self {
        let device = Device::default();
        let [g, g_bar] = [g, g_bar].map(|values| device.matrix(values, stored_transposed));
        let sampled = Sampled { g, g_bar, damping: damping(g.rows), result: device.allocate(g.rows * g.cols * FLOAT) };
        let launches = sampled.launches(device.allocate(sampled.scratch_bytes()), device.record());
        Self { device, sampled, launches }
    }

    fn run(&self, module: &Module, order: Order) -> Result<Matrix, Fault> {
        run(module, &self.device, &self.launches, order)?;
        Ok(self.device.read(View { address: self.sampled.result, ..self.sampled.g }))
    }
}

fn sampled_by_the_book(g: &Matrix, g_bar: &Matrix) -> Matrix {
    let curvature = damped(&transposed(g_bar), damping(g.len()).scale.into());
    transposed(&book::solve(curvature, transposed(g)))
}

#[test]
fn sampled_gradients() {
    let module = module();
    for (rows, count, outputs) in [(5, 1, 4), (60, 60, 100), (33, 7, 10), (20, 150, 170)] {
        for stored_transposed in [false, true] {
            let (g, g_bar) = (random(rows, outputs, 1), random(count, outputs, 2));
            let results = ORDERS.map(|order| {
                let result = PreparedSampled::new([&g, &g_bar], stored_transposed).run(&module, order);
                result.unwrap_or_else(|fault| panic!("{rows} {count}: {fault}"))
            });
            let error = error(&results[0], &sampled_by_the_book(&g, &g_bar));
            assert!(error <= 2e-7, "{rows} {count} {outputs}: {error:.1e}");
            assert!(results[0] == results[1] && results[0] == results[2], "the order of threads matters");
        }
    }
}

#[test]
fn a_pivot_that_is_not_positive() {
    let module = module();
    for rows in [7, 60, 150, 300] {
        // I − s·S Sᵀ, of which the last row alone is long: the last pivot is negative.
        let mut values: Matrix = vec![vec![0.0; 3]; rows];
        values[rows - 1] = vec![2.0; 3];
        let prepared = Prepared::new(&values, false, Damping { scale: -1.0, lambda: 0.25 });
        prepared.run(&module, Order::Forward).unwrap();
        assert_eq!(prepared.recorded(), [rows as u32, rows as u32, 0.25_f32.to_bits()]);
        assert!(prepared.result().concat().iter().all(|value| value.is_nan()), "{rows}");
    }
}

#[test]
fn what_is_not_a_number_is_no_failure_and_stays_none() {
    let module = module();
    for (rows, bad) in [(1, f64::INFINITY), (7, f64::NAN), (60, f64::INFINITY), (150, f64::NAN)] {
        let mut values = random(rows, 10, 5);
        values[rows / 2][3] = bad;
        let prepared = Prepared::new(&values, false, damping(rows));
        prepared.run(&module, Order::Forward).unwrap();
        assert_eq!(prepared.recorded(), [0; 3]);
        assert!(prepared.result()[rows / 2].iter().all(|value| value.is_nan()), "{rows}");
    }
}

#[test]
fn conversions() {
    let module = module();
    // Every half, and more elements than there are threads.
    let count = CONVERTERS * THREADS as usize + 1000;
    let bits = || (0..count).map(|index| index as u16);
    let device = Device::default();
    let convert = |from: u64, from_kind, to_kind, size| {
        let convert = Convert { from: (from, from_kind), to: (device.allocate(count * size), to_kind), count };
        run(&module, &device, &convert.launches(), Order::Shuffled).unwrap();
        convert.to.0
    };
    let same = |got: f32, expected: f32| got == expected || got.is_nan() && expected.is_nan();
    for (kind, widen) in [
        (Element::Half, (|bits| f16::from_bits(bits).to_f32()) as fn(u16) -> f32),
        (Element::BFloat16, |bits| bf16::from_bits(bits).to_f32()),
    ] {
        let wide = convert(device.upload(bits().map(u16::to_ne_bytes)), kind, Element::Float, 4);
        let floats = device.floats(wide, count);
        assert!(floats.iter().zip(bits()).all(|(got, bits)| same(*got, widen(bits))), "{kind:?}");
        let copied = convert(wide, Element::Float, Element::Float, 4);
        assert!(device.floats(copied, count).iter().zip(&floats).all(|(got, expected)| same(*got, *expected)));
    }
    // Floats between two halves, and on the way from one to the other.
    let between: Vec<f32> =
        bits().map(|bits| f32::from_bits(u32::from(bits) << 16 | u32::from(bits.wrapping_mul(40_503)))).collect();
    let halfway: Vec<f32> = bits().map(|bits| f16::from_bits(bits).to_f32() * (1.0 + 2f32.powi(-11))).collect();
    for values in [&between, &halfway] {
        let from = device.upload(values.iter().map(|value| value.to_ne_bytes()).collect::<Vec<_>>().into_iter());
        let as_half = convert(from, Element::Float, Element::Half, 2);
        let as_bf16 = convert(from, Element::Float, Element::BFloat16, 2);
        let got = device.download::<2>(as_half, count).into_iter().map(|bytes| f16::from_ne_bytes(bytes).to_f32());
        assert!(got.zip(values).all(|(got, value)| same(got, f16::from_f32(*value).to_f32())));
        let got = device.download::<2>(as_bf16, count).into_iter().map(|bytes| bf16::from_ne_bytes(bytes).to_f32());
        assert!(got.zip(values).all(|(got, value)| same(got, bf16::from_f32(*value).to_f32())));
    }
}
