"""Subjects whose step is a whole command, including the start of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.side_by_side import ROOT, Subject
from lockdec.config.schema import config_folder


def python(*arguments: str, folder: Path | None = None, **environment: str) -> Subject:
    """A Python process, run to its end; work 1.

    Args:
        folder: where it runs; by default an empty folder of its own, deleted with the subject.
    """
    own = None if folder else tempfile.TemporaryDirectory()
    place = folder or Path(own.name if own else "")
    variables = os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))} | environment

    def run() -> object:
        assert own is None or place.is_dir()  # keeps the temporary folder alive
        return subprocess.run([sys.executable, *arguments], cwd=place, env=variables, check=True, capture_output=True)

    return Subject(run, work=1)


def imports(*modules: str, then: float = 0.0) -> Subject:
    """Import some modules and wait for a number of seconds."""
    return python("-c", f"import time, {', '.join(modules)}; time.sleep({then})")


def bare_application(folder: Path) -> Path:
    """Write the smallest Hydra application that has as many groups and options as lockdec; returns its file."""
    for option in config_folder().rglob("*/*.yaml"):
        if "hydra" not in option.parts:
            path = folder / "conf" / option.relative_to(config_folder())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("value: 1\n", encoding="utf-8")
    chosen = {"tokenizer": "bpe", "text": "wikipedia", "data": "openmoji", "decoder": "small", "trainer": "cpu"}
    chosen |= {"encoder": "efficientnet_lite0", "cross_attention": "low", "fewshot": "default", "logger": "default"}
    lines = [f"  - {group}: {option}" for group, option in chosen.items()]
    lines.append("  - stage: [pretrain, attach, unlock, finetune, evaluate]")
    (folder / "conf" / "config.yaml").write_text("\n".join(["defaults:", *lines, ""]), encoding="utf-8")
    application = folder / "application.py"
    application.write_text(
        "import hydra\n\n\n"
        "@hydra.main(config_path='conf', config_name='config', version_base='1.3')\n"
        "def job(config):\n    pass\n\n\njob()\n",
        encoding="utf-8",
    )
    return application
