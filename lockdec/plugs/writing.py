"""A finished run as a plug: a folder with its trained weights, its normalisation, a record and a card."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from os.path import expanduser
from pathlib import Path
from typing import Any

from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.encoders.encoded import NORMALISATION
from lockdec.encoders.together import Together
from lockdec.errors import StoreError
from lockdec.evaluation.finished import FinishedRun, build_encoder
from lockdec.evaluation.stored import (
    BRIDGE,
    BRIDGE_WEIGHTS,
    CROSS_ATTENTION,
    CROSS_ATTENTION_WEIGHTS,
    SEVERAL,
    decoder_fingerprint,
    load_decoder,
    load_prompt,
    load_tokenizer,
    precision_of,
    trained_over,
)
from lockdec.plugs.card import card
from lockdec.plugs.record import (
    CARD,
    ENCODER,
    GIVEN,
    RECORD,
    SCHEMA,
    DecoderRecord,
    EncoderRecord,
    FileRecord,
    PlugRecord,
)
from lockdec.redaction import redacted
from lockdec.store import file_sha256
from lockdec.store.reading import read_object, within
from lockdec.store.writing import new_folder, write_json, write_text
from lockdec.version import __version__

_UNKNOWN = "not known to lockdec: see where it comes from"
# By the class that reads them; NOTICE has the attributions.
_DATA = {
    "OpenMoji": "drawings CC BY-SA 4.0 (openmoji.org), names Unicode-3.0",
    "NamedDrawings": "drawings CC BY-SA 4.0 (openmoji.org), names Unicode-3.0",
    "EmojiNames": "names Unicode-3.0",
    "Icons": "icons Apache-2.0 AND CC-BY-4.0 AND MIT",
    "Tunes": "music in the public domain; transcriptions on the terms of their files in music21",
    "Pieces": "composed by lockdec",
}
_WEIGHTS = {
    "EfficientNetLite0": "Apache-2.0",
    "MiniLM": "Apache-2.0",
    "WhisperTiny": "MIT",
    "LogMel": "none",
    "AutoencoderEncoder": "trained by lockdec in the run",
    "MaskedLanguageModelEncoder": "trained by lockdec in the run",
}


def write_plug(run: FinishedRun, out: Path, trusted: Sequence[str] = (), downloads: Collection[str] = ()) -> PlugRecord:
    """Write the plug of a finished run to a new or an empty folder.

    Args:
        trusted, downloads: see `lockdec.evaluation.finished.build_encoder`.

    Raises:
        StoreError: the folder is not empty, an artifact is missing or damaged, or the run uses several plugs at once.
        ConfigError: the encoder's class is not trusted or cannot be built.
    """
    with new_folder(out):
        return _written(run, out, trusted, downloads)


def _written(run: FinishedRun, out: Path, trusted: Sequence[str], downloads: Collection[str]) -> PlugRecord:
    finetune, attach = run.artifact("finetune"), run.artifact("attach")
    if finetune.path(SEVERAL).is_file():
        raise StoreError(f"{run.folder}: it uses several plugs at once; export each of the runs that trained them")
    trained = {CROSS_ATTENTION: CROSS_ATTENTION_WEIGHTS, BRIDGE: BRIDGE_WEIGHTS}
    trained = {config: weights for config, weights in trained.items() if finetune.path(config).is_file()}
    encoder = build_encoder(run, trusted, downloads)
    pretrained = run.artifact(encoder.stage) if isinstance(encoder, PretrainedHere) else None
    if isinstance(encoder, PretrainedHere) and pretrained is not None:
        encoder = encoder.open(pretrained.folder)
    assert isinstance(encoder, Encoder)
    model = load_decoder(*run.decoder, dtype=trained_over(finetune))
    tokenizer = load_tokenizer(*run.decoder)
    try:
        names = {
            **{name: finetune.path(name) for name in trained.values()},
            NORMALISATION: attach.path(NORMALISATION),
        }
        for file in run.needed_files(pretrained) if pretrained else ():
            names[f"{ENCODER}/{file}"] = pretrained.path(file) if pretrained else Path(file)
        for name, source in names.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, within(out, name))
    except OSError as error:
        raise StoreError(f"{error.filename or out}: cannot be copied ({error.strerror})") from error
    result = run.result
    record = PlugRecord(
        schema=SCHEMA,
        lockdec=__version__,
        name=str(result.get("name")),
        decoder=DecoderRecord(
            decoder_fingerprint(model),
            tokenizer.fingerprint,
            asdict(model.config),
            _source(result),
            precision_of(model),
        ),
        encoder=EncoderRecord(
            type(encoder).__name__,
            encoder.modality,
            redacted(_portable(dict(run.encoder))),
            encoder.fingerprint,
            encoder.dim,
        ),
        cross_attention=read_object(finetune.path(CROSS_ATTENTION)) if CROSS_ATTENTION in trained else None,
        prompt=load_prompt(finetune),
        decoding=dict(run.evaluate),
        training=redacted(_training(result, run.config)),
        metrics=_numbers(result.get("metrics")),
        controls={name: _numbers(scores) for name, scores in _object(result.get("controls")).items()},
        licences=_licences(_object(result.get("data")).get("name"), encoder),
        files={name: FileRecord((out / name).stat().st_size, file_sha256(out / name)) for name in sorted(names)},
        bridge=read_object(finetune.path(BRIDGE)) if BRIDGE in trained else None,
    )
    write_json(out / RECORD, asdict(record))
    write_text(out / CARD, card(asdict(record)))
    return record


def _portable(node: Any, name: str = "") -> Any:
    """The encoder's config, with a mark for each path that only this machine has."""
    if isinstance(node, Mapping):
        return {key: _portable(value, key) for key, value in node.items()}
    if isinstance(node, list):
        return [_portable(value, name) for value in node]
    local = name == "path" and isinstance(node, str) and Path(expanduser(node)).exists()
    return f"{GIVEN}{Path(node).name}" if local else node


def _source(result: Mapping[str, Any]) -> str | None:
    source = _object(result.get("decoder")).get("source")
    return source if isinstance(source, str) and not Path(expanduser(source)).exists() else None


def _training(result: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """How the cross-attention was trained, as plain values; of data in files only their names."""
    finetune = {name: value for name, value in _object(config.get("finetune")).items() if name != "callbacks"}
    data = {
        name: Path(expanduser(value)).resolve().name if isinstance(value, str) and _is_local(value) else value
        for name, value in _object(result.get("data")).items()
        if isinstance(value, str | int) and name != "cache"
    }
    return {"data": data, "fewshot": _object(result.get("fewshot")), "finetune": finetune, "seed": result.get("seed")}


def _is_local(text: str) -> bool:
    """Whether it is a path of this machine, there or not any more."""
    try:
        return text.startswith(("/", "~")) or Path(text).exists()
    except OSError:  # longer than a path can be
        return False


def _numbers(node: Any) -> dict[str, float]:
    return {name: float(value) for name, value in _object(node).items() if isinstance(value, int | float)}


def _object(node: Any) -> dict[str, Any]:
    return dict(node) if isinstance(node, Mapping) else {}


def _licences(data: Any, encoder: Encoder) -> dict[str, str]:
    """What is known of the licences of the data and of the encoder's weights."""
    parts = encoder.parts if isinstance(encoder, Together) else [encoder]
    names = [type(part).__name__ for part in parts]
    weights = [f"weights of {name}: {_WEIGHTS.get(name, _UNKNOWN)}" for name in names]
    return {"data": _DATA.get(str(data), _UNKNOWN), "encoder": "; ".join(weights)}
