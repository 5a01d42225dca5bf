//! Tests of the interpreter that runs our CUDA kernels on the host: it has to find what is wrong with a kernel.

#[allow(unreachable_pub)]
mod ptx;
