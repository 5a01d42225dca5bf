//! Launches: blocks one after the other, their warps from barrier to barrier.

use super::arithmetic::LANES;
use super::memory::{Global, Memory, Shared};
use super::warp::{Stop, Trouble, Warp, World};
use super::{Fault, Kernel, Report};

/// Shared memory that every device gives a block without being asked.
const SHARED_LIMIT: usize = 48 << 10;

/// Blocks of a grid, and threads of a block, along each axis.
const GRID_LIMITS: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];
const BLOCK_LIMITS: [u32; 3] = [1024, 1024, 64];

/// How a kernel is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of shared memory besides what the kernel declares.
    pub shared_bytes: usize,
    /// The parameters, each aligned to its size.
    pub parameters: Vec<u8>,
    /// Who goes first.
    pub order: Order,
}

/// In which order blocks, and warps between two barriers, run. The result may not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their numbers.
    Forward,
    /// The other way round.
    Backward,
    /// In some other order.
    Shuffled,
}

impl Order {
    fn apply<T>(self, items: &mut [T]) {
        match self {
            Self::Forward => {}
            Self::Backward => items.reverse(),
            Self::Shuffled => {
                // Numbers that look random enough.
                let mut state = 0x9e37_79b9_u64;
                for last in (1..items.len()).rev() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    items.swap(last, (state >> 33) as usize % (last + 1));
                }
            }
        }
    }
}

impl Kernel {
    /// Runs all blocks.
    ///
    /// # Errors
    /// The first fault; what was written before stays written.
    pub fn launch<M: Memory>(&self, launch: &Launch, memory: &M) -> Result<Report, Fault> {
        self.check(launch).map_err(|what| self.fault(0, [0; 3], 0, what))?;
        let mut report = Report::default();
        let mut global = Global::new(memory);
        let [x, y, z] = launch.grid;
        let places = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])));
        let mut blocks: Vec<(u32, [u32; 3])> = (0..).zip(places).collect();
        launch.order.apply(&mut blocks);
        for (number, block) in blocks {
            self.run_block(launch, number, block, &mut global, &mut report)?;
        }
        Ok(report)
    }

    fn check(&self, launch: &Launch) -> Result<(), String> {
        let Launch { grid, block, .. } = launch;
        let within = |counts: &[u32; 3], limits: [u32; 3]| {
            counts.iter().zip(limits).all(|(count, limit)| (1..=limit).contains(count))
        };
        if !within(grid, GRID_LIMITS) {
            return Err(format!("a grid of {grid:?} blocks"));
        }
        if !within(block, BLOCK_LIMITS) || block.iter().product::<u32>() > self.max_threads {
            return Err(format!("blocks of {block:?} threads; it takes {} in all", self.max_threads));
        }
        let shared = self.shared_bytes + launch.shared_bytes;
        if shared > SHARED_LIMIT {
            return Err(format!("{shared} bytes of shared memory; a block has {SHARED_LIMIT}"));
        }
        let parameters = self.parameters.last().map_or(0, |last| last.offset + last.size);
        if launch.parameters.len() != parameters {
            return Err(format!("{} bytes of parameters; it takes {parameters}", launch.parameters.len()));
        }
        Ok(())
    }

    fn run_block<M: Memory>(
        &self,
        launch: &Launch,
        number: u32,
        block: [u32; 3],
        global: &mut Global<'_, M>,
        report: &mut Report,
    ) -> Result<(), Fault> {
        let threads: u32 = launch.block.iter().product();
        let mut shared = Shared::new(self.shared_bytes + launch.shared_bytes);
        let mut warps: Vec<Warp> =
            (0..threads).step_by(LANES).map(|first| Warp::new(&self.registers, first, launch.block)).collect();
        launch.order.apply(&mut warps);
        let mut phase = 0;
        loop {
            phase += 1;
            let mut stops = Vec::new();
            for warp in &mut warps {
                let mut world = World {
                    kernel: self,
                    parameters: &launch.parameters,
                    blocks: launch.grid,
                    threads: launch.block,
                    block,
                    block_number: number,
                    phase,
                    global: &mut *global,
                    shared: &mut shared,
                    report: &mut *report,
                };
                let stop = warp.run(&mut world);
                let first = warp.first;
                stops.push((first, stop.map_err(|trouble| self.trouble(trouble, block, first))?));
            }
            let (_, expected) = stops[0];
            if let Some((first, stop)) = stops.iter().find(|(_, stop)| *stop != expected) {
                let at = [expected, *stop]
                    .into_iter()
                    .find_map(|stop| if let Stop::Barrier(at) = stop { Some(at) } else { None });
                let what = "a barrier to which not all warps of the block come".to_owned();
                return Err(self.trouble(Trouble { at: at.unwrap_or(0), lane: 0, what }, block, *first));
            }
            if expected == Stop::End {
                return Ok(());
            }
        }
    }

    fn trouble(&self, Trouble { at, lane, what }: Trouble, block: [u32; 3], first: u32) -> Fault {
        let line = self.code.get(at).or(self.code.last()).map_or(0, |line| line.number);
        self.fault(line, block, first + lane as u32, what)
    }

    fn fault(&self, line: usize, block: [u32; 3], thread: u32, what: String) -> Fault {
        Fault { kernel: self.name.clone(), line, block, thread, what }
    }
}
