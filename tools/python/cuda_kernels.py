"""Compiles src/ops/cuda/kernels.cu and its parts to kernels.ptx, or checks that this is what it compiles to, and that it fits every architecture.

    python tools/python/cuda_kernels.py [--check]

NVRTC 12.0 writes PTX that drivers from 525 on translate for any device since Pascal. The check assembles it for the architectures in use, as
those drivers do, and fails if registers were spilled to memory. Neither needs a GPU.
"""

import argparse
import ctypes
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "src/ops/cuda"
SOURCE, COMPILED = FOLDER / "kernels.cu", FOLDER / "kernels.ptx"
OPTIONS = ["--gpu-architecture=compute_60", "--std=c++17"]
ARCHITECTURES = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]


def installed(package, path):
    """A file of one of NVIDIA's wheels."""
    [folder] = importlib.util.find_spec(f"nvidia.{package}").submodule_search_locations
    return Path(folder, path)


def compile_kernels():
    """The PTX of the source, as bytes."""
    nvrtc = ctypes.CDLL(str(installed("cuda_nvrtc", "lib/libnvrtc.so.12")))
    program = ctypes.c_void_p()
    parts = sorted(FOLDER.glob("kernels/*.cuh"))
    strings = ctypes.c_char_p * len(parts)
    texts, names = strings(*(part.read_bytes() for part in parts)), strings(*(bytes(part.relative_to(FOLDER)) for part in parts))
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), b"kernels.cu", len(parts), texts, names)
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    status = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)

    def text(kind):
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{kind}")(program, buffer)
        return buffer.value

    if status:
        sys.exit(text("ProgramLog").decode())
    return text("PTX")


def assemble(architecture, folder):
    """What ptxas says of each kernel: its registers, and what it spilled."""
    command = [installed("cuda_nvcc", "bin/ptxas"), "-v", f"-arch={architecture}", COMPILED, "-o", folder / "kernels.cubin"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    usage = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    entries = COMPILED.read_text().count(".entry ")
    if len(usage) != entries:
        sys.exit(f"ptxas told of {len(usage)} kernels of {entries}:\n{done.stderr}")
    return usage


def check():
    """Exits with a message unless the compiled file is up to date and fits."""
    if compile_kernels() != COMPILED.read_bytes():
        sys.exit(f"{COMPILED} is not what {SOURCE} compiles to: run {Path(__file__).relative_to(ROOT)}")
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            usage = assemble(architecture, Path(folder))
            spilled = [kernel for kernel, *bytes_, _ in usage if any(map(int, bytes_))]
            if spilled:
                sys.exit(f"{architecture}: stack or spills in {', '.join(spilled)}")
            print(f"{architecture}: {len(usage)} kernels, at most {max(int(entry[-1]) for entry in usage)} registers, no spills")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        check()
    else:
        COMPILED.write_bytes(compile_kernels())


if __name__ == "__main__":
    main()
