//! Runs PTX on the host, thread by thread as a device does, and looks for what goes unnoticed there.
//!
//! A [`Module`] is parsed from the text that the driver gets; an instruction that is not known is an error with its line. The 32
//! threads of a warp go together as far as they take the same way. Addresses are the host's own. Every access is checked: that it
//! lies within an allocation and is aligned, that shared memory was written before, and that no two threads touch the same bytes, one of
//! them writing, between two barriers, nor two blocks in a launch. What is wrong is a [`Fault`].

// Several crates include this, and each uses a part of it.
#![allow(dead_code, unreachable_pub)]

mod arithmetic;
mod decode;
mod half;
mod instruction;
mod machine;
mod memory;
mod parse;
mod report;
mod warp;

use std::fmt;

pub use machine::{Launch, Order};
pub use memory::Memory;
pub use report::Report;

/// A compiled text.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
}

impl Module {
    /// Reads all of a text.
    ///
    /// # Errors
    /// The line and what is on it, where that is not known.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { kernels: parse::kernels(text)? })
    }

    /// An entry point.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }
}

/// An entry point.
#[derive(Debug)]
pub struct Kernel {
    name: String,
    parameters: Vec<Parameter>,
    /// Bytes of shared memory that it declares.
    shared_bytes: usize,
    /// Threads of a block, at most.
    max_threads: u32,
    registers: instruction::Registers,
    code: Vec<instruction::Line>,
}

/// A parameter's place in the bytes that a launch gives.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the text.
    pub name: String,
    /// Where it begins; a multiple of its size.
    pub offset: usize,
    /// Its bytes.
    pub size: usize,
}

impl Kernel {
    /// Its parameters, in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Packs one value for each parameter as a launch expects them.
    ///
    /// # Panics
    /// If the values are not those of the parameters.
    pub fn pack(&self, values: &[Vec<u8>]) -> Vec<u8> {
        assert_eq!(values.len(), self.parameters.len(), "the number of parameters of {}", self.name);
        let mut bytes = Vec::new();
        for (parameter, value) in self.parameters.iter().zip(values) {
            assert_eq!(value.len(), parameter.size, "the size of {}", parameter.name);
            bytes.resize(parameter.offset, 0);
            bytes.extend(value);
        }
        bytes
    }
}

/// What a kernel did wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kernel.
    pub kernel: String,
    /// The line of the text.
    pub line: usize,
    /// The block.
    pub block: [u32; 3],
    /// The thread within it.
    pub thread: u32,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, line, block, thread, what } = self;
        write!(f, "{kernel}, line {line}, block {block:?}, thread {thread}: {what}")
    }
}
