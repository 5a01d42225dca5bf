//! Tests of the interpreter that runs our CUDA kernels on the host: that it computes as a device does, and finds what is wrong.

mod arithmetic;
mod faults;
mod ptx;
mod reports;

use std::cell::RefCell;

use ptx::{Fault, Launch, Memory, Module, Order, Report};

/// A kernel that starts with the address of its memory in `%rd1`, its number within the block in `%r1`, that of the block in `%r2`, and the
/// address of its own word of the memory in `%rd2`.
fn text(body: &str) -> String {
    format!(
        "
.version 8.0
.target sm_60
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry test(
    .param .u64 test_param_0,
    .param .u32 test_param_1
)
.maxntid 256, 1, 1
{{
    .reg .pred %p<8>;
    .reg .b16 %rs<8>;
    .reg .f32 %f<8>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<16>;
    .shared .align 4 .b8 words[1024];
    ld.param.u64 %rd3, [test_param_0];
    cvta.to.global.u64 %rd1, %rd3;
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mul.wide.u32 %rd4, %r1, 4;
    add.s64 %rd2, %rd1, %rd4;
{body}
    ret;
}}
"
    )
}

/// One allocation, of words, and where in it kernels wrote.
struct Words {
    words: Vec<u32>,
    written: RefCell<Vec<u64>>,
    /// Whether what no kernel wrote counts as not written.
    is_fresh: bool,
}

impl Words {
    fn new(words: Vec<u32>) -> Self {
        Self { words, written: RefCell::default(), is_fresh: false }
    }

    fn start(&self) -> u64 {
        self.words.as_ptr().expose_provenance() as u64
    }

    /// Runs a kernel on them.
    fn run(&mut self, text: &str, grid: u32, block: u32, shared_bytes: usize, order: Order) -> Result<Report, Fault> {
        let module = Module::parse(text).unwrap();
        let kernel = module.kernel("test").expect("a kernel");
        let start = self.words.as_mut_ptr().expose_provenance() as u64;
        let parameters = kernel.pack(&[start.to_le_bytes().to_vec(), 7_u32.to_le_bytes().to_vec()]);
        let launch = Launch { grid: [grid, 1, 1], block: [block, 1, 1], shared_bytes, parameters, order };
        kernel.launch(&launch, self)
    }
}

impl Memory for Words {
    fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let (start, len) = (self.start(), 4 * self.words.len() as u64);
        (start..start + len).contains(&address).then_some((start, len))
    }

    fn is_written(&self, address: u64, _len: usize) -> bool {
        !self.is_fresh || self.written.borrow().contains(&(address - self.start()))
    }

    fn note_write(&self, address: u64, _len: usize) {
        self.written.borrow_mut().push(address - self.start());
    }
}
