//! The operator on CUDA devices.
//!
//! Gram matrices, their factorisation and the solves are kernels of our own, in `kernels.cu` and its parts under `kernels/`, and
//! compiled in `kernels.ptx`, which the driver translates for the device at hand; the large product is the runtime's own `Gemm` in its CUDA provider.
//! Nothing of CUDA is needed to build or to load the library: the driver is looked for when the first node is created.
//!
//! | file | job |
//! |---|---|
//! | `kernel` | a node: what a call does, on the runtime's stream and in the runtime's memory |
//! | `steps` | from a call to its launches and products |
//! | `plan` | from sizes and layouts to launches of our kernels |
//! | `memory`, `allocator` | scratch memory, from the runtime's allocator |
//! | `event` | when the device is done with it |
//! | `driver` | the driver: a module per device, launches, and the record of a failed factorisation |

mod allocator;
#[cfg(test)]
mod book;
mod driver;
mod event;
mod kernel;
mod memory;
mod plan;
#[cfg(test)]
#[path = "../../../tests/cuda/ptx/mod.rs"]
mod ptx;
mod steps;

pub(super) use kernel::CudaKernel;
