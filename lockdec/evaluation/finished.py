"""A finished run as a captioner of new inputs: found, verified and rebuilt from its folder and its artifacts.

Config and sizes are read as data, weights as safetensors, and only classes from trusted modules are built. Nothing here
needs lightning or the data that the run was trained on.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockdec.errors import LockdecError, StoreError
from lockdec.evaluation.result import current
from lockdec.store import CURVE, METADATA, Artifact, damage, open_artifact
from lockdec.store.reading import (
    CONFIG,
    MULTIRUN,
    RESULT,
    SUPPORT,
    is_name,
    read_config,
    read_json_lines,
    read_object,
    run_folders,
    within,
)
from lockdec.transformer.configuration import MOST_SEQUENCES

if TYPE_CHECKING:
    import torch

    from lockdec.bridges import Bridge
    from lockdec.data.tokenizer import Tokenizer
    from lockdec.encoders.contract import Encoder, PretrainedHere
    from lockdec.encoders.normalisation import Normalisation
    from lockdec.evaluation.configuration import EvaluateConfig
    from lockdec.transformer.models import LockingModel

BUNDLED = "run:"  # prefix of a path in the encoder's config that is relative to the run's folder
# Of the encoded data a captioner needs this file only; of other artifacts, all but curves and pictures of the data.
_OF_ATTACH = ("normalisation.safetensors",)
_SHOWN = (CURVE, ".png")
_NO_DECODER = ("attach", "unlock")  # all other stages that finetuning reads make or change the decoder
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FinishedRun:
    """A run or cell that ended well.

    Attributes:
        folder: of the run.
        config: its config.yaml, resolved.
        result: its result.json, under the names of the current schema.
        chosen: how it was chosen among the cells of a sweep; empty for a single run.
    """

    folder: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    chosen: str = ""

    @property
    def encoder(self) -> Mapping[str, Any]:
        """The config of its encoder, with the paths of bundled files made absolute."""
        node = self._node("stages", "attach", "encoder")
        if not isinstance(node, Mapping):
            raise StoreError(f"{self.folder / CONFIG}: it has no stages.attach.encoder")
        return {name: _unbundled(value, self.folder) for name, value in node.items()}

    @property
    def captions(self) -> bool:
        """Whether it has a finetuned bridge; a run that ended with a probe, say, has none."""
        stages = self.result.get("stages")
        return isinstance(stages, Mapping) and "finetune" in stages

    @property
    def bridge(self) -> str | None:
        """The class of its bridge; None for cross-attention."""
        found = self._node("stages", "unlock", "bridge", "_target_")
        return found if isinstance(found, str) else None

    @property
    def evaluate(self) -> Mapping[str, Any]:
        """The config of its decoding."""
        node = self._node("evaluate")
        if not isinstance(node, Mapping):
            raise StoreError(f"{self.folder / CONFIG}: it has no section evaluate, which captioning needs")
        return node

    @property
    def support(self) -> list[tuple[str, str]]:
        """Ids and captions of the pairs it learned from; nothing where it has not evaluated, or by an earlier release.

        Raises:
            StoreError: as `artifact`, or the file names something else.
        """
        stages = self.result.get("stages")
        if not isinstance(stages, Mapping) or "evaluate" not in stages:
            return []
        path = self.artifact("evaluate").path(SUPPORT)
        support = list[tuple[str, str]]()
        for row in read_json_lines(path) if path.is_file() else ():
            name, caption = row.get("id"), row.get("caption")
            if not isinstance(name, str) or not isinstance(caption, str):
                raise StoreError(f"{path}: {row} is no id and caption")
            support.append((name, caption))
        return support

    def artifact(self, stage: str) -> Artifact:
        """The artifact of a stage; the files that captioning needs are verified.

        Raises:
            StoreError: the artifact is missing, or one of these files is damaged.
        """
        if not is_name(stage):
            raise StoreError(f"{self.folder / CONFIG}: {stage!r} cannot be the name of a stage")
        key = self._key(stage)
        places = list(self._stores())
        folder = next((place / stage / key for place in places if os.path.isdir(place / stage / key)), None)
        if folder is None:
            raise StoreError(f"{self.folder}: artifact stages/{stage}/{key[:12]}... is missing; searched "
                             f"{', '.join(map(str, places))}")  # fmt: skip
        if problem := damage(folder, stage, key, names=_OF_ATTACH if stage == "attach" else None):
            raise StoreError(f"{folder / problem}: missing or damaged; run the command of this run again to repair it")
        return open_artifact(folder)

    @property
    def decoder(self) -> list[Artifact]:
        """The artifacts that the decoder is loaded from; LockdecError as `artifact`."""
        return [self.artifact(stage) for stage in self.artifact("finetune").parents if stage not in _NO_DECODER]

    def needed_files(self, artifact: Artifact) -> list[str]:
        """The files of an artifact that captioning needs."""
        if artifact.stage == "attach":
            return list(_OF_ATTACH)
        files: Mapping[str, Any] = read_object(artifact.path(METADATA))["files"]
        return [name for name in files if not name.endswith(_SHOWN)]

    def _key(self, stage: str) -> str:
        stages = self.result.get("stages")
        entry = stages.get(stage) if isinstance(stages, Mapping) else None
        key = entry.get("key") if isinstance(entry, Mapping) else None
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise StoreError(f"{self.folder / RESULT}: it has no stage {stage}, which captioning needs")
        return key

    def _stores(self) -> Iterator[Path]:
        """Stores that may hold its artifacts: in its folder, above it, or at the `paths` of its config."""
        folder = self.folder.resolve()
        for place in (folder, *folder.parents):
            if (place / "stages").is_dir():
                yield place / "stages"
        outputs, stores = self._node("paths", "outputs"), self._node("paths", "stores")
        named = [f"{outputs}/stages", *(stores if isinstance(stores, list) else ())]
        paths = (Path(expanduser(place)) for place in named if isinstance(place, str))
        yield from (path for path in paths if path.is_absolute())

    def _node(self, *names: str) -> Any:
        node: Any = self.config
        for name in names:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node


@dataclass(frozen=True)
class CaptionerParts:
    """What captions new inputs: a frozen encoder, the decoder behind it, and how it decodes.

    Attributes:
        encoder: frozen; `modality` is the kind of inputs it takes.
        normalisation: fitted on the training inputs of the run.
        decode: strategy and lengths of decoding.
        generator: RNG of the strategies that sample.
        plugs: the names of its cross-attention, or of several whose additions are summed; none where another bridge
            works without.
        bridge: what else carries the states; the model may have those of other captioners.
    """

    encoder: Encoder
    normalisation: Normalisation
    model: LockingModel
    tokenizer: Tokenizer
    decode: EvaluateConfig
    generator: torch.Generator
    plugs: tuple[str, ...] = ("default",)  # UNNAMED of the transformer, which is not imported here
    bridge: Bridge | None = None


def find_run(folder: Path) -> FinishedRun:
    """The finished run in a folder; of a sweep, the best cell by the sweep's objective; of several runs, the newest.

    Below a folder, only runs that can caption count.

    Raises:
        StoreError: there is none.
    """
    if (folder / RESULT).is_file():
        return _read_run(folder)
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; name the folder of a run, of a sweep, or of an export")
    is_sweep = (folder / MULTIRUN).is_file()  # its cells may be in folders of folders
    below = [path for path in (run_folders(folder) if is_sweep else folder.iterdir()) if (path / RESULT).is_file()]
    runs = []
    for path in sorted(below, key=lambda path: (len(path.name), path.as_posix())):
        with suppress(StoreError):  # not finished
            runs.append(_read_run(path))
    if runs and not any(run.captions for run in runs):
        none = "the finished run below it has no" if len(runs) == 1 else f"none of the {len(runs)} finished runs has a"
        raise StoreError(f"{folder}: {none} stage finetune, which captioning needs")
    runs = [run for run in runs if run.captions]
    cells = [run for run in runs if run.folder.name.isdecimal() or run.result.get("sweep_name") is not None]
    if cells:
        if best := _best(folder, cells, len(below)):
            return best
    elif runs:
        newest = max(runs, key=lambda run: (str(run.result.get("finished")), run.folder.name))
        chosen = f"the newest of {len(runs)} finished runs" if runs[1:] else "the only finished run"
        return replace(newest, chosen=chosen)
    deeper = sorted({path.parent.parent.name for path in folder.glob(f"*/*/{RESULT}")})
    hint = f"; name one of the folders below it that hold runs: {', '.join(deeper[:10])}" if deeper else ""
    count = f" ({len(runs)} of {len(below)} finished)" if below else ""
    raise StoreError(f"{folder}: no {RESULT} of a finished run here, in the runs or in the cells of a sweep below"
                     f"{count}{hint}")  # fmt: skip


def _best(sweep: Path, cells: Sequence[FinishedRun], total: int) -> FinishedRun | None:
    """The best of the finished cells of a sweep by its objective."""
    from lockdec.evaluation.metrics import LOWER_IS_BETTER  # here, since a single run needs no metrics

    best: tuple[float, FinishedRun] | None = None
    for run in cells:
        metric, value = _objective(run)
        value = -value if metric in LOWER_IS_BETTER else value
        if not math.isnan(value) and (best is None or value > best[0]):
            split = run.evaluate.get("split", "its split")
            name = run.folder.relative_to(sweep).as_posix()
            chosen = f"cell {name} of {total}, the best by {metric} on {split} ({abs(value):.3f})"
            best = value, replace(run, chosen=chosen)
    return best[1] if best else None


def build_encoder(run: FinishedRun, trusted: Sequence[str], downloads: Collection[str]) -> Encoder | PretrainedHere:
    """What the run's config names as its encoder.

    Args:
        trusted: prefixes of modules, beside lockdec's own, that its class may come from.
        downloads: the models of the Hugging Face hub that may be downloaded; without one, nothing asks the hub.

    Raises:
        ConfigError: its class is not trusted or cannot be built.
        StoreError: it cannot be built with these settings.
    """
    from lockdec.config.building import TRUSTED, Builder
    from lockdec.encoders.contract import Encoder, PretrainedHere
    from lockdec.encoders.huggingface import downloads_only

    builder = Builder((*TRUSTED, *trusted))
    with downloads_only(downloads), readable(run.folder / CONFIG):
        encoder: Encoder | PretrainedHere = builder.build(dict(run.encoder), "encoder", Encoder | PretrainedHere)
    return encoder


def open_captioner(run: FinishedRun, trusted: Sequence[str] = (), downloads: Collection[str] = ()) -> CaptionerParts:
    """Build the captioner: encoder, normalisation and finetuned decoder.

    Args:
        trusted, downloads: see `build_encoder`.

    Raises:
        StoreError: an artifact is missing or damaged, or they do not belong together.
        ConfigError: the class of the encoder or of the bridge is not trusted or cannot be built.
    """
    import torch

    from lockdec.bridges import Bridge
    from lockdec.config.building import TRUSTED, Builder
    from lockdec.encoders.contract import PretrainedHere
    from lockdec.encoders.normalisation import Normalisation
    from lockdec.evaluation.configuration import EvaluateConfig
    from lockdec.evaluation.stored import load_captioner, load_prompt, load_tokenizer

    finetune = run.artifact("finetune")  # first of all, since not every run has it
    decode = Builder(()).build(dict(run.evaluate), "evaluate", EvaluateConfig)
    decode.check()
    encoder = build_encoder(run, trusted, downloads)
    if isinstance(bridge := run.bridge, str):
        Builder((*TRUSTED, *trusted)).locate(bridge, "stages.unlock.bridge", Bridge)  # so that it is known by its kind
    decoder, attach = run.decoder, run.artifact("attach")
    with readable(run.folder):
        if isinstance(encoder, PretrainedHere):
            encoder = encoder.open(run.artifact(encoder.stage).folder)
        normalisation = Normalisation.load(attach.path(_OF_ATTACH[0]))
        model, tokenizer = load_captioner(*decoder, finetune), load_tokenizer(*decoder)
        tokenizer = tokenizer.with_prompt(load_prompt(finetune))
        generator = torch.Generator().manual_seed(decode.seed)
    require_whole(run.folder / CONFIG, encoder, normalisation, model, tokenizer, decode)
    return CaptionerParts(encoder, normalisation, model, tokenizer, decode, generator, model.in_use, model.bridge)


def require_whole(
    where: Path,
    encoder: Encoder,
    normalisation: Normalisation,
    model: LockingModel,
    tokenizer: Tokenizer,
    decode: EvaluateConfig,
) -> None:
    """Raise StoreError, naming the file with its settings, unless the parts of a captioner fit each other."""
    channels = encoder.dim if normalisation.dim is None else normalisation.dim
    if not channels == encoder.dim == model.encoder_dim:
        raise StoreError(f"{where}: an encoder of {encoder.dim} channels, a normalisation of {channels} and a "
                         f"bridge of {model.encoder_dim} do not belong together")  # fmt: skip
    special, prompt, config = tokenizer.special, tokenizer.prompt_tokens, model.config
    if max(special.bos, special.eos, special.pad, *prompt) >= config.vocab_size:
        raise StoreError(f"{where}: the decoder has {config.vocab_size} tokens, and its tokenizer has the special "
                         f"tokens {special.bos}, {special.eos} and {special.pad}")  # fmt: skip
    room = model.room - len(prompt)
    most = {"max_new_tokens": room, "beams": MOST_SEQUENCES, "candidates": MOST_SEQUENCES}
    for name, bound in most.items():
        if (value := getattr(decode, name)) > bound:
            raise StoreError(f"{where}: evaluate.{name}={value}: at most {bound}")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns whatever a library raises for values that no run has written into a StoreError that names the path."""
    try:
        yield
    except LockdecError:
        raise
    except Exception as error:  # torch, transformers and others have exceptions of their own, and of all kinds
        reason = " ".join(str(error).split())[:300]
        raise StoreError(f"{path}: cannot be opened as a captioner ({type(error).__name__}: {reason})") from error


def _read_run(folder: Path) -> FinishedRun:
    result = read_object(folder / RESULT)
    if result.get("status") != "ok":
        reason = f"its status is {result.get('status')}"
        raise StoreError(f"{folder}: not a finished run ({reason}); run its command again to finish it")
    return FinishedRun(folder, read_config(folder / CONFIG), current(result))


def _objective(run: FinishedRun) -> tuple[str, float]:
    metric, metrics = run.config.get("objective"), run.result.get("metrics")
    value = metrics.get(metric) if isinstance(metrics, Mapping) else None
    return str(metric), float(value) if isinstance(value, int | float) else math.nan


def _unbundled(node: Any, folder: Path) -> Any:
    """The encoder's config, with the paths of bundled files made absolute."""
    if isinstance(node, Mapping):
        return {name: _unbundled(value, folder) for name, value in node.items()}
    if isinstance(node, list):
        return [_unbundled(value, folder) for value in node]
    if isinstance(node, str) and node.startswith(BUNDLED):
        path = within(folder.resolve(), node.removeprefix(BUNDLED))
        for inner in path.rglob("*") if path.is_dir() else ():
            within(path, inner.relative_to(path))
        return str(path)
    return node
