"""A captioner as the page shows it: what it is, examples to begin with, and its answers as plain data."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lockdec.data.captions import Input
from lockdec.data.images import open_image
from lockdec.errors import ConfigError, DataError, LockdecError, StoreError, visible
from lockdec.evaluation.attention_maps import Attention
from lockdec.evaluation.finished import FinishedRun, find_run
from lockdec.library.captioner import Caption, Captioner, Comparison
from lockdec.library.loading import load, open_run
from lockdec.plugs.folder import read_plug
from lockdec.plugs.record import RECORD, PlugRecord
from lockdec.store.reading import CAPTIONS, read_bytes, read_json_lines, within

EXAMPLES = 24  # that are offered of a run
MOST_EXAMPLE = 300_000  # bytes of the picture of one
SIDE = 640  # pixels of a picture on the page, at most
PEAKS = 240  # of the waveform of a sound


@dataclass(frozen=True)
class Opening:
    """How captioners are opened; see `lockdec.load`."""

    decoder: str | None = None
    encoder: str | None = None
    device: str = "cpu"
    trust: Sequence[str] = ()
    allow_download: Sequence[str] = ()


@dataclass(frozen=True)
class Example:
    """An evaluated input of a run, offered to begin with.

    Attributes:
        name: what the command line calls it: the path of its picture, or the text itself.
        reference: a caption that people gave it.
        content: the picture as PNG, or the text.
    """

    name: str
    reference: str
    content: bytes | str


@dataclass(frozen=True)
class Asked:
    """How captions are generated, as the page asks for it; None for what the run does.

    Attributes:
        n: how many captions.
        strategy, beams, seed: as of `Captioner.caption`.
    """

    n: int = 5
    strategy: str | None = None
    beams: int | None = None
    seed: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those that differ from the run's."""
        named = {"strategy": self.strategy, "beams": self.beams, "seed": self.seed}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Player:
    """A captioner, with what the page says of it.

    Attributes:
        folder: as the user has named it.
        name: of the run.
        opening: how it was opened, with the decoder that a plug is on.
        facts: what it is, as (label, value).
        examples: to begin with.
    """

    folder: str
    name: str
    captioner: Captioner
    opening: Opening
    facts: Sequence[tuple[str, str]]
    examples: Sequence[Example] = field(default=())

    @property
    def reads(self) -> str:
        """The kind of its inputs: image, text, sound or array."""
        return self.captioner.modality if self.captioner.rate is None else "sound"

    def about(self) -> dict[str, Any]:
        """What the page shows of it before anything is captioned."""
        decoding = self.captioner.decoding
        return {
            "name": self.name,
            "folder": self.folder,
            "reads": self.reads,
            "rate": self.captioner.rate,
            "seconds": self.captioner.seconds,
            "strategy": decoding.strategy,
            "beams": decoding.beams,
            "facts": self.facts,
            "examples": [
                {
                    "name": example.name,
                    "reference": example.reference,
                    "text": example.content if isinstance(example.content, str) else None,
                }
                for example in self.examples
            ],
        }

    def answer(self, content: bytes | str, name: str, asked: Asked) -> dict[str, Any]:
        """The captions of an input, with all that the page shows of them, as JSON values.

        Args:
            content: of a file, or a text, or the id of states.
            name: what the user calls the file.

        Raises:
            LockdecError: the input cannot be read or encoded, or an option is impossible.
        """
        if isinstance(content, str):
            self._require_no_path(content)
        given = self.captioner.read(content, name)
        names = [name] if isinstance(content, bytes) else [content[:40]]
        [caption] = self.captioner.caption([given], asked.n, names=names, **asked.options)
        try:
            comparison, missing = _comparison(self.captioner.compare(given, **asked.options)), ""
        except StoreError as error:  # what the run has stored is damaged: captions do not need it
            comparison, missing = [], visible(str(error))
        source = name if isinstance(content, bytes) else content
        return {
            **_caption(caption),
            "comparison": comparison,
            "missing": missing,
            "input": self._shown(given),
            "python": self.python(source, asked),
            "command": self.command(source, asked),
        }

    def python(self, source: str, asked: Asked) -> str:
        """The lines of Python that give the same captions."""
        how: dict[str, Any] = {
            name: value for name, value in asdict(self.opening).items() if value and (name, value) != ("device", "cpu")
        }
        opened = ", ".join([repr(self.folder), *(f"{name}={value!r}" for name, value in how.items())])
        asks = ", ".join([repr(source), f"n={asked.n}", *(f"{name}={it!r}" for name, it in asked.options.items())])
        return f"import lockdec\n\ncaptioner = lockdec.load({opened})\n[caption] = captioner.caption({asks})\n"

    def command(self, source: str, asked: Asked) -> str | None:
        """The command line that gives the same captions; None for texts that it would read as the name of a file."""
        if source.startswith("@"):
            return None
        words = ["lockdec", "caption", self.folder, "--n", str(asked.n), "--scores"]
        for name in ("decoder", "encoder"):
            if value := getattr(self.opening, name):
                words += [f"--{name}", value]
        for option, values in (("--trust", self.opening.trust), ("--allow-download", self.opening.allow_download)):
            for value in values:
                words += [option, value]
        for name, value in asked.options.items():
            words += [f"--{name}", str(value)]
        return shlex.join([*words, *(["--"] if source.startswith("-") else []), source])

    def _require_no_path(self, text: str) -> None:
        """Raise DataError if the captioner would take the text for the path of a file: the page opens none by name."""
        is_id = self.reads == "array" and Path(text).suffix.lower() != ".npy"
        if self.reads != "text" and not is_id:
            raise DataError(f"{text[:40]!r}: send the file itself; a name opens none here")

    def _shown(self, given: Input) -> dict[str, Any]:
        """The input as its encoder reads it."""
        if isinstance(given, Image.Image):
            small = given.copy()
            small.thumbnail((SIDE, SIDE))
            return {"kind": "image", "src": f"data:image/png;base64,{base64.b64encode(png(small)).decode()}"}
        if isinstance(given, str):
            return {"kind": "text", "text": given}
        assert not isinstance(given, Mapping)  # examples in several parts are refused when the captioner is opened
        if self.captioner.rate is None:
            return {"kind": "array", "shape": list(given.shape)}
        seconds = len(given) / self.captioner.rate
        heard = min(seconds, self.captioner.seconds or seconds)
        return {"kind": "sound", "seconds": seconds, "heard": heard, "peaks": _peaks(given)}


def open_players(folders: Sequence[str], opening: Opening) -> list[Player]:
    """Open runs and plugs. All plugs share one decoder: the one that was named, or else that of the first run.

    Raises:
        LockdecError: as `lockdec.load`.
    """
    plugs = {folder for folder in folders if (Path(folder) / RECORD).is_file()}
    if not plugs and (opening.decoder is not None or opening.encoder is not None):
        raise ConfigError(f"{', '.join(folders)}: only a plug takes a decoder or an encoder, and there is no {RECORD} "
                          "here")  # fmt: skip
    runs = {folder: _run(folder, opening) for folder in dict.fromkeys(folders) if folder not in plugs}
    decoder = opening.decoder or next(iter(runs), None)
    base = next(iter(runs.values())).captioner if runs and opening.decoder is None else None
    found = list[Player]()
    for folder in dict.fromkeys(folders):
        if folder in runs:
            found.append(runs[folder])
            continue
        record = read_plug(Path(folder))
        how = Opening(decoder, opening.encoder, opening.device, opening.trust, opening.allow_download)
        if base is None:
            captioner = base = load(folder, **asdict(how))
        else:
            captioner = base.with_plug(folder, encoder=how.encoder, trust=how.trust, allow_download=how.allow_download)
        found.append(Player(folder, record.name, captioner, how, _facts_of_plug(record)))
    for player in found:
        if player.captioner.modality == "several":
            raise DataError(f"{player.folder}: it reads examples in several parts, for which the page has no place")
    return found


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _run(folder: str, opening: Opening) -> Player:
    run = find_run(Path(folder))
    captioner = open_run(run, opening.device, opening.trust, opening.allow_download)
    how = Opening(device=opening.device, trust=opening.trust, allow_download=opening.allow_download)
    facts = _facts(run.result) + ([("chosen", run.chosen)] if run.chosen else [])
    return Player(folder, str(run.result.get("name")), captioner, how, facts, _examples(run, captioner))


def _examples(run: FinishedRun, captioner: Captioner) -> list[Example]:
    """The evaluated inputs whose pictures or texts the run has kept, in its order; what cannot be read is left out."""
    if captioner.modality == "array":
        return []
    found = list[Example]()
    with suppress(StoreError):
        for row in read_json_lines(within(run.folder, CAPTIONS)):
            if len(found) == EXAMPLES:
                break
            references = row.get("references")
            reference = str(references[0]) if isinstance(references, list) and references else ""
            if captioner.modality == "text" and isinstance(row.get("input"), str):
                found.append(Example(row["input"], reference, row["input"]))
            elif captioner.modality == "image":
                with suppress(LockdecError):
                    path = within(run.folder, f"drawings/{row.get('id')}.png")
                    picture = open_image(read_bytes(path, MOST_EXAMPLE), path.name)
                    found.append(Example(str(path), reference, png(picture)))
    return found


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run is and what it reached, of what its result says."""
    encoder, data, sizes = (_object(result.get(name)) for name in ("encoder", "data", "cross_attention"))
    shots, parameters = _object(result.get("fewshot")).get("shots"), _object(result.get("parameters"))
    decoder = _object(parameters.get("per_module")).get("decoder")
    facts = [
        ("encoder", f"{encoder.get('name', '?')}, {encoder.get('states', '?')} states of {encoder.get('dim', '?')}")
    ]
    if isinstance(decoder, int):
        facts.append(("decoder", f"{decoder / 1e6:.1f} M parameters, frozen"))
    bridge = _object(result.get("bridge")).get("kind")
    facts += [("bridge", str(bridge))] if bridge else []
    facts += [("cross-attention", _sizes(sizes))] if sizes or not bridge else []
    facts.append(("learned from", f"{shots} pairs of {data.get('name', 'its data')}"))
    return facts + _reached(_object(result.get("metrics")), _object(result.get("controls")), data.get("evaluated"))


def _facts_of_plug(record: PlugRecord) -> list[tuple[str, str]]:
    data = _object(record.training.get("data"))
    shots = _object(record.training.get("fewshot")).get("shots", "?")
    return [
        ("encoder", f"{record.encoder.name}, {record.encoder.dim} channels"),
        ("decoder", f"{record.decoder.source or 'pretrained by lockdec'}, {record.decoder.fingerprint[:12]}"),
        *([("bridge", str(record.bridge.get("kind")))] if record.bridge is not None else []),
        *([("cross-attention", _sizes(record.cross_attention))] if record.cross_attention is not None else []),
        ("learned from", f"{shots} pairs of {data.get('name', 'its data')}"),
        *_reached(record.metrics, record.controls, data.get("evaluated")),
    ]


def _sizes(sizes: Mapping[str, Any]) -> str:
    heads, *widths = (sizes.get(name, "?") for name in ("heads", "d_q", "d_k", "d_v"))
    return f"{heads} heads, d_q {widths[0]}, d_k {widths[1]}, d_v {widths[2]}"


def _reached(metrics: Mapping[str, Any], controls: Mapping[str, Any], split: object) -> list[tuple[str, str]]:
    own, neighbour = metrics.get("token_f1"), _object(controls.get("nearest_neighbour")).get("token_f1")
    if not isinstance(own, int | float):
        return []
    beside = f", nearest neighbour {neighbour:.3f}" if isinstance(neighbour, int | float) else ""
    return [("token F1", f"{own:.3f} on {split or 'its split'}{beside}")]


def _object(node: object) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _caption(caption: Caption) -> dict[str, Any]:
    """A caption, without characters that control a display."""
    return {
        "text": visible(caption.text),
        "log_prob": caption.log_prob,
        "confidence": caption.confidence,
        "words": [asdict(word) | {"text": visible(word.text)} for word in caption.words],
        "alternatives": [
            {"text": visible(other.text), "log_prob": other.log_prob, "confidence": other.confidence}
            for other in caption.alternatives
        ],
        "attention": _attention(caption.attention),
    }


def _attention(attention: Attention) -> dict[str, Any]:
    return {
        "weights": [[round(weight, 5) for weight in word] for word in attention.weights.tolist()],
        "states": attention.shape[1],
        "grid": attention.grid._asdict() if attention.grid else None,
        "labels": attention.labels,
    }


def _comparison(comparison: Comparison) -> list[dict[str, str]]:
    """The controls, under the names that they have everywhere."""
    rows = [("locked", comparison.locked, "the decoder alone, which sees no input")]
    if other := comparison.shuffled:
        rows.append(("shuffled", other.text, f"what it says of an unrelated input, {other.id}"))
    if near := comparison.nearest_neighbour:
        note = f"copied from {near.id}, the closest input that it learned from (cosine {near.cosine:.2f})"
        rows.append(("nearest neighbour", near.text, note))
    return [{"name": name, "text": visible(text), "note": visible(note)} for name, text, note in rows]


def _peaks(samples: NDArray[np.float32]) -> list[float]:
    """The loudest sample of each of `PEAKS` equal parts of a sound, or of each sample of a shorter one."""
    parts = np.array_split(np.abs(samples), min(PEAKS, len(samples)))
    return [round(float(part.max()), 3) for part in parts]
