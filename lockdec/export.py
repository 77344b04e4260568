"""Export a finished run to one folder that captions on its own: `lockdec export RUN_DIR OUT`."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockdec.errors import StoreError, visible_lines
from lockdec.terminal import forgive, plain_errors

if TYPE_CHECKING:
    from lockdec.evaluation.finished import FinishedRun
    from lockdec.store import Artifact

READ_BY_ENCODERS = (".json", ".txt", ".model", ".npy", ".safetensors")
DESCRIPTION = """\
Exports a finished run, or the best cell of a sweep, to one self-contained folder:

  config.yaml, result.json   of the run
  stages/                    decoder, tokenizer, cross-attention, normalisation, and an encoder pretrained in the run
  encoder/                   files named in the encoder's config, such as a checkpoint

`lockdec caption OUT picture.png` then works wherever lockdec is installed. The folder contains no data, and
no weights from installed packages (efficientnet_lite0, minilm) or from the cache of the Hugging Face hub.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    parser = argparse.ArgumentParser(
        prog="lockdec export",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a run or a sweep")
    parser.add_argument("out", metavar="OUT", help="the folder to write; new or empty")
    for option, what in (("--trust", "PREFIX"), ("--allow-download", "MODEL")):
        parser.add_argument(option, action="append", default=[], metavar=what, help="as in lockdec caption")
    parser.add_argument(
        "--plug", action="store_true",
        help="write a plug instead: cross-attention, normalisation and a model card, without the decoder",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    write = export_plug if options.plug else export
    forgive()
    with plain_errors():
        print(visible_lines(write(Path(options.run_dir), Path(options.out), options.trust, options.allow_download)))


def export(run_dir: Path, out: Path, trusted: Sequence[str] = (), downloads: Collection[str] = ()) -> str:
    """Copy everything that captioning needs to a new folder.

    Args:
        trusted, downloads: see `lockdec.evaluation.finished.build_encoder`.

    Returns:
        What was written, in a line or more for the user.

    Raises:
        StoreError: there is no finished run, `out` is not empty, or a file cannot be copied.
        ConfigError: the encoder's class is not trusted or cannot be built.
    """
    from lockdec.encoders.contract import PretrainedHere
    from lockdec.evaluation.finished import build_encoder, find_run
    from lockdec.store.writing import new_folder

    run = find_run(run_dir)
    encoder = build_encoder(run, trusted, downloads)
    stages = ["attach", "finetune", *([encoder.stage] if isinstance(encoder, PretrainedHere) else [])]
    artifacts = [*run.decoder, *(run.artifact(stage) for stage in stages)]
    with new_folder(out):
        bundle = _copied(run, artifacts, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    chosen = f" ({run.chosen})" if run.chosen else ""
    words = ["lockdec", "caption", str(out), "INPUT..."]
    words += [word for prefix in trusted for word in ("--trust", prefix)]
    words += [word for name in bundle.models for word in ("--allow-download", name)]
    return "\n".join([*bundle.copied, f"{out}: {size / 1e6:.1f} MB{chosen}. Next: {shlex.join(words)}"])


def _copied(run: FinishedRun, artifacts: Sequence[Artifact], out: Path) -> _Bundle:
    """Copy the artifacts of a run and the files of its encoder, with its config and result."""
    from lockdec.redaction import redacted
    from lockdec.store import copy_part
    from lockdec.store.reading import CONFIG, RESULT, within
    from lockdec.store.writing import write_json, write_text

    bundle = _Bundle(out)
    try:
        for artifact in artifacts:
            place = within(out, f"stages/{artifact.stage}/{artifact.key}")
            copy_part(artifact.folder, place, run.needed_files(artifact), _without_home)
        config = dict(run.config)
        config["stages"] = {**config["stages"], "attach": {**config["stages"]["attach"]}}
        config["stages"]["attach"]["encoder"] = bundle.of(run.encoder)
        config["paths"] = {"outputs": "."}
        own = [place.resolve() / "stages" for place in (run.folder, *run.folder.resolve().parents)]
        stores = {store for artifact in artifacts if (store := artifact.folder.parent.parent) not in own}
        bundle.copied += [f"{out / 'stages'}: artifacts of {store}" for store in sorted(stores)]
        write_text(out / CONFIG, _yaml(_without_home(redacted(config))))
        write_json(out / RESULT, _without_home(run.result))
    except OSError as error:
        raise StoreError(f"{error.filename or out}: cannot be copied ({error.strerror})") from error
    return bundle


def export_plug(run_dir: Path, out: Path, trusted: Sequence[str] = (), downloads: Collection[str] = ()) -> str:
    """Write the plug of a run to a new folder; arguments, result and errors are those of `export`."""
    from lockdec.evaluation.finished import find_run
    from lockdec.plugs.writing import write_plug

    run = find_run(run_dir)
    write_plug(run, out, trusted, downloads)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    chosen = f" ({run.chosen})" if run.chosen else ""
    words = ["lockdec", "caption", str(out), "INPUT...", "--decoder", str(run_dir)]
    words += [word for prefix in trusted for word in ("--trust", prefix)]
    return f"{out}: a plug of {size / 1e6:.1f} MB{chosen}. Next: {shlex.join(words)}"


@dataclass
class _Bundle:
    """Copies the files that the encoder's config names under `path`, and makes their paths relative to the export.

    Of a folder it copies what encoders read, and nothing below it: the config of a stranger may name any folder.

    Attributes:
        copied: a line for each path that was copied.
        models: the ids of models on the Hugging Face hub, which are not copied.
    """

    out: Path
    copied: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)

    def of(self, node: Any) -> Any:
        """The node with its paths replaced."""
        if isinstance(node, Mapping):
            return {name: self._copy(value) if name == "path" else self.of(value) for name, value in node.items()}
        return [self.of(value) for value in node] if isinstance(node, list) else node

    def _copy(self, node: Any) -> Any:
        from lockdec.evaluation.finished import BUNDLED

        if not isinstance(node, str):
            return node
        source = Path(expanduser(node))
        if not source.exists():
            self.models.append(node)
            return node
        target = self.out / "encoder" / str(len(self.copied))
        target.mkdir(parents=True)
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        files = [file for file in files if file.suffix in READ_BY_ENCODERS and file.is_file()]
        if not files:
            raise StoreError(f"{source}: the encoder reads it, and no file of it is exported (only those that end in "
                             f"{', '.join(sorted(READ_BY_ENCODERS))} are)")  # fmt: skip
        for file in files:
            shutil.copyfile(file, target / file.name)
        self.copied.append(f"{target}: {len(files)} files of {source}")
        target = target if source.is_dir() else target / source.name
        return f"{BUNDLED}{target.relative_to(self.out).as_posix()}"


def _without_home(node: Any) -> Any:
    """The node with `~` for the user's home folder in its texts: what is given away names nobody."""
    if isinstance(node, Mapping):
        return {name: _without_home(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_home(value) for value in node]
    home = str(Path.home())
    if not isinstance(node, str) or home == "/":
        return node
    return re.sub(rf"(?<![\w./~-]){re.escape(home)}(?![\w.-])", "~", node)


def _yaml(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


if __name__ == "__main__":
    main()
