//! What launches would cost an H100, calculated from what the interpreter counts. docs/cuda.md has these tables.

use super::*;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cuda.md");

/// An H100 SXM.
const PROCESSORS: f64 = 132.0;
const CLOCK: f64 = 1.98e9;
/// Instructions that a processor issues in a cycle.
const SCHEDULERS: f64 = 4.0;
/// Operations of all processors in a second, in floats and in doubles.
const FLOPS: [f64; 2] = [66.9e12, 33.5e12];
/// What a launch takes besides; an assumption.
const LAUNCH: f64 = 3e-6;

/// Of launches that come one after the other.
#[derive(Clone, Copy, Default)]
struct Cost {
    launches: usize,
    blocks: u32,
    report: Report,
    /// Seconds.
    roofline: f64,
    shared: f64,
    issue: f64,
}

impl Cost {
    fn new(launch: &Launch, report: Report) -> Self {
        let blocks: u32 = launch.grid.iter().product();
        // The blocks of the busiest processor, and what a block does on average.
        let turns = (f64::from(blocks) / PROCESSORS).ceil() / f64::from(blocks);
        let [single, double] = [report.flops, report.double_flops].map(|flops| flops as f64);
        let at_peak = single / FLOPS[0] + double / FLOPS[1];
        Self {
            launches: 1,
            blocks,
            report,
            roofline: at_peak * PROCESSORS / f64::from(blocks).min(PROCESSORS),
            shared: (report.shared_accesses + report.bank_conflicts) as f64 * turns / CLOCK,
            issue: report.instructions as f64 * turns / SCHEDULERS / CLOCK,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            launches: self.launches + other.launches,
            blocks: self.blocks.max(other.blocks),
            report: self.report + other.report,
            roofline: self.roofline + other.roofline,
            shared: self.shared + other.shared,
            issue: self.issue + other.issue,
        }
    }

    /// Columns that all tables have.
    fn columns(&self) -> String {
        let Self { report, roofline, shared, issue, .. } = self;
        let [single, double] = [report.flops, report.double_flops].map(|flops| flops as f64 / 1e6);
        let [roofline, shared, issue] = [roofline, shared, issue].map(|seconds| seconds * 1e6);
        let megabytes = report.sectors as f64 * 32.0 / 1e6;
        format!("{single:.1} | {double:.1} | {megabytes:.1} | {roofline:.1} | {shared:.0} | {issue:.0} |")
    }

    /// A row for a solve of this size.
    fn of_a_layer(&self, values: &Matrix) -> String {
        let conflicts = 100.0 * self.report.bank_conflicts as f64 / self.report.shared_accesses as f64;
        let least = (self.issue + self.launches as f64 * LAUNCH) * 1e6;
        let Self { launches, .. } = self;
        let [rows, cols] = [values.len(), values[0].len()];
        format!("| {rows} x {cols} | {launches} | {conflicts:.0} % | {} {least:.0} |", self.columns())
    }

    /// A row for all launches of a kernel.
    fn of_a_kernel(&self, kernel: &str) -> String {
        format!("| {kernel} | {} | {} | {}", self.launches, self.blocks, self.columns())
    }
}

/// Kernels in the order in which they first come, and what each costs.
fn costs(module: &Module, device: &Device, launches: &[Launch]) -> Vec<(&'static str, Cost)> {
    let mut costs: Vec<(&str, Cost)> = Vec::new();
    for launch in launches {
        let report = run(module, device, std::slice::from_ref(launch), Order::Forward).expect("no fault");
        let cost = Cost::new(launch, report);
        match costs.iter_mut().find(|(kernel, _)| *kernel == launch.kernel) {
            Some((_, sum)) => *sum = sum.and(cost),
            None => costs.push((launch.kernel, cost)),
        }
    }
    costs
}

fn solve_costs(module: &Module, values: &Matrix) -> Vec<(&'static str, Cost)> {
    let prepared = Prepared::new(values, false, damping(values.len()));
    costs(module, &prepared.device, &prepared.launches)
}

fn by_kernel(costs: &[(&str, Cost)]) -> impl Iterator<Item = String> {
    costs.iter().map(|(kernel, cost)| cost.of_a_kernel(kernel))
}

#[test]
fn the_tables_of_the_docs() {
    let module = module();
    let sizes = [(60, 100), (32, 400), (60, 400), (60, 784), (100, 400), (128, 400), (256, 400)];
    let mut rows = Vec::new();
    for make in [|rows, cols| random(rows, cols, 3), badly_conditioned] {
        for (order, cols) in sizes {
            let values = make(order, cols);
            let costs = solve_costs(&module, &values);
            rows.push(costs.iter().fold(Cost::default(), |sum, (_, cost)| sum.and(*cost)).of_a_layer(&values));
            if order >= 128 {
                rows.extend(by_kernel(&costs));
            }
        }
    }
    let prepared = PreparedSampled::new([&random(60, 400, 1), &random(60, 400, 2)], false);
    rows.extend(by_kernel(&costs(&module, &prepared.device, &prepared.launches)));
    let docs = std::fs::read_to_string(DOCS).expect("the page is there");
    rows.retain(|row| !docs.contains(row.as_str()));
    assert!(rows.is_empty(), "docs/cuda.md should have these rows:\n{}", rows.join("\n"));
}
