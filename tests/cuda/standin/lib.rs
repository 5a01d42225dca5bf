//! Stand-ins for the libraries of CUDA, with which ONNX Runtime's CUDA provider runs on a machine without a GPU.
//!
//! One library takes the place of all of them: `cargo xtask test cuda` puts links to it, named as the provider's libraries
//! are, into one folder. "Device" memory is main memory that the host does not look into; streams run their work at once or,
//! with `ISAAC_STANDIN_DEFER`, only when somebody waits for them. What the operator and the provider need is computed for
//! real; every other function of the libraries is there, and says that it is not supported.
//!
//! | file | job |
//! |---|---|
//! | `entry` | what every exported function does first: faults on demand, counts, no unwinding |
//! | `memory`, `stream` | allocations, and work in order |
//! | `runtime`, `blas`, `driver` | the functions of libcudart, libcublas and libcuda that do something |
//! | `absent` | the functions that the provider links with and that do nothing |
#![allow(unsafe_code)]
#![allow(non_snake_case)]

#[macro_use]
mod entry;
mod absent;
mod blas;
mod driver;
mod memory;
#[path = "../ptx/mod.rs"]
mod ptx;
mod runtime;
mod stream;
