"""Makes the files that NumPy writes, for the tests of the reader. Needs NumPy (any version; made with 1.26)."""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
NUMBERS = [[0, 1, 2], [3, 4, 100]]

arrays = {
    "bool": np.array([True, False]),
    "scalar": np.array(2.5),
    "none": np.zeros((0, 3), np.float32),
    "cube_fortran_big_endian": np.asfortranarray(np.arange(24, dtype=">i4").reshape(2, 3, 4)),
}
for kind in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]:
    arrays[kind] = np.array(NUMBERS, "<" + kind)
    arrays[f"{kind}_big_endian"] = np.array(NUMBERS, ">" + kind)
    arrays[f"{kind}_fortran"] = np.array(NUMBERS, "<" + kind, order="F")

np.savez(FOLDER / "types.npz", **arrays)
np.savez_compressed(FOLDER / "compressed.npz", x=np.full(200, 1.5, np.float32))
np.save(FOLDER / "alone.npy", np.array([1, 2, 3]))
np.save(FOLDER / "text.npy", np.array(["a"]))
np.save(FOLDER / "complex.npy", np.array([1j], np.complex64))
np.save(FOLDER / "record.npy", np.zeros(2, [("a", "f4"), ("b", "i8")]))
