"""Export a finished run to one folder that captions on its own: `python -m lockdec.export RUN_DIR OUT`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockdec.errors import LockdecError, StoreError, visible

DESCRIPTION = """\
Exports a finished run, or the best cell of a sweep, to one self-contained folder:

  config.yaml, result.json   of the run
  stages/                    decoder, tokenizer, cross-attention, normalisation, and an encoder pretrained in the run
  encoder/                   files named in the encoder's config, such as a checkpoint

`python -m lockdec.caption OUT picture.png` then works wherever lockdec is installed. The folder contains no data, and
no weights from installed packages (efficientnet_lite0, minilm) or from the cache of the Hugging Face hub.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    parser = argparse.ArgumentParser(
        prog="python -m lockdec.export",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a run or a sweep")
    parser.add_argument("out", metavar="OUT", help="the folder to write; new or empty")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PREFIX", help="as in python -m lockdec.caption"
    )
    options = parser.parse_args(arguments)
    try:
        print(export(Path(options.run_dir), Path(options.out), options.trust))
    except LockdecError as error:
        sys.exit(f"lockdec: {visible(' '.join(str(error).split()))}")


def export(run_dir: Path, out: Path, trusted: Sequence[str] = ()) -> str:
    """Copy everything that captioning needs to a new folder.

    Args:
        trusted: prefixes of modules, beside lockdec's own, that the encoder's class may come from.

    Returns:
        A line for the user.

    Raises:
        StoreError: there is no finished run, `out` is not empty, or a file cannot be copied.
        ConfigError: the encoder's class is not trusted or cannot be built.
    """
    from lockdec.config.building import TRUSTED, Builder
    from lockdec.encoders.contract import Encoder, PretrainedHere
    from lockdec.evaluation.finished import find_run
    from lockdec.redaction import redacted
    from lockdec.store import copy_part
    from lockdec.store.reading import CONFIG, RESULT
    from lockdec.store.writing import write_json, write_text

    run = find_run(run_dir)
    encoder = Builder((*TRUSTED, *trusted)).build(dict(run.encoder), "encoder", Encoder | PretrainedHere)
    stages = ["attach", "finetune", *([encoder.stage] if isinstance(encoder, PretrainedHere) else [])]
    artifacts = [*run.decoder, *(run.artifact(stage) for stage in stages)]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out}: exists already; name a new or an empty folder")
    try:
        for artifact in artifacts:
            copy_part(artifact.folder, out / "stages" / artifact.stage / artifact.key, run.needed_files(artifact))
        bundle = _Bundle(out)
        config = dict(run.config)
        config["stages"] = {**config["stages"], "attach": {**config["stages"]["attach"]}}
        config["stages"]["attach"]["encoder"] = bundle.of(run.encoder)
        config["paths"] = {"outputs": "."}
        write_text(out / CONFIG, _yaml(redacted(config)))
        write_json(out / RESULT, run.result)
    except OSError as error:
        raise StoreError(f"{error.filename or out}: cannot be copied ({error.strerror})") from error
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    chosen = f" ({run.chosen})" if run.chosen else ""
    return f"{out}: {size / 1e6:.1f} MB{chosen}. Next: python -m lockdec.caption {out} INPUT..."


@dataclass
class _Bundle:
    """Copies the files that the encoder's config names under `path`, and makes their paths relative to the export."""

    out: Path
    count: int = 0

    def of(self, node: Any) -> Any:
        """The node with its paths replaced."""
        if isinstance(node, Mapping):
            return {name: self._copied(value) if name == "path" else self.of(value) for name, value in node.items()}
        return [self.of(value) for value in node] if isinstance(node, list) else node

    def _copied(self, node: Any) -> Any:
        from lockdec.evaluation.finished import BUNDLED

        if not isinstance(node, str) or not Path(node).expanduser().exists():
            return node  # such as an id on the Hugging Face hub
        source = Path(node).expanduser().resolve()
        target = self.out / "encoder" / str(self.count)
        self.count += 1
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir(parents=True)
            target = target / source.name
            shutil.copyfile(source, target)
        return f"{BUNDLED}{target.relative_to(self.out).as_posix()}"


def _yaml(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


if __name__ == "__main__":
    main()
