//! Generates the ONNX messages from the pinned `onnx/onnx.proto`, with no `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=onnx/onnx.proto");
    let files = protox::compile(["onnx/onnx.proto"], ["onnx"])?;
    prost_build::Config::new()
        // Tensor payloads stay slices of the file map instead of copies.
        .bytes(["."])
        // The comments of onnx.proto are prose, not rustdoc with runnable examples.
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
