"""A plug as a folder: written from a finished run, and opened on the decoder that it was made for.

The folder may come from a stranger. Its files are read as data of bounded size, only classes of trusted modules are
built, no path in it leads to files of this machine, and no model of the hub is asked for that the user has not named.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lockdec.config.building import TRUSTED, Builder
from lockdec.data.tokenizer import Prompt, Tokenizer
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.encoders.encoded import NORMALISATION
from lockdec.encoders.huggingface import downloads_only
from lockdec.encoders.normalisation import Normalisation
from lockdec.encoders.together import Together
from lockdec.errors import ConfigError, LockdecError, StoreError
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.evaluation.finished import (
    FinishedRun,
    NewInputCaptioner,
    build_encoder,
    find_run,
    readable,
    require_whole,
)
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
    put_bridge,
    put_cross_attention,
)
from lockdec.plugs.card import card
from lockdec.redaction import redacted
from lockdec.store import file_sha256
from lockdec.store.reading import RESULT, as_dataclass, is_name, read_object, within
from lockdec.store.writing import write_json, write_text
from lockdec.transformer.importing import located, read
from lockdec.transformer.models import UNNAMED, LockingDecoderModel, LockingModel
from lockdec.version import __version__

SCHEMA = 2
READABLE = (1, SCHEMA)  # 1 has no bridge
RECORD, CARD, ENCODER = "plug.json", "README.md", "encoder"
GIVEN = "given:"  # prefix of a path in the encoder's config that the user has to give
MOST_FILE = 1 << 30  # bytes of a file of a plug
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


@dataclass(frozen=True)
class DecoderRecord:
    """Which decoder a plug was made for.

    Attributes:
        fingerprint, tokenizer: identify its weights and its tokenizer.
        sizes: its `DecoderConfig`.
        source: where it came from, if it was imported.
    """

    fingerprint: str
    tokenizer: str
    sizes: dict[str, Any]
    source: str | None


@dataclass(frozen=True)
class EncoderRecord:
    """Which encoder a plug was made for.

    Attributes:
        name: of its class.
        modality: of its inputs.
        config: by which it is built.
        fingerprint: identifies its weights and settings.
        dim: channels of a state.
    """

    name: str
    modality: str
    config: dict[str, Any]
    fingerprint: str
    dim: int


@dataclass(frozen=True)
class FileRecord:
    """A file of the folder."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class PlugRecord:
    """What plug.json holds.

    Attributes:
        schema: of this file.
        lockdec: the version that wrote it.
        name: of the run.
        cross_attention: its `CrossAttentionConfig` and its `encoder_dim`; None where another bridge works without.
        prompt: what stood before every caption in training.
        decoding: the config by which captions were generated.
        training: data, shots, seeds and settings of finetuning.
        metrics, controls: of the run, beside each other.
        licences: of the data and of the weights, where they are known.
        files: of the folder, except this one and the card.
        bridge: what carries the states beside or in the place of cross-attention: its kind, settings and `encoder_dim`;
            None for cross-attention alone.
    """

    schema: int
    lockdec: str
    name: str
    decoder: DecoderRecord
    encoder: EncoderRecord
    cross_attention: dict[str, Any] | None
    prompt: Prompt | None
    decoding: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, float]
    controls: dict[str, dict[str, float]]
    licences: dict[str, str]
    files: dict[str, FileRecord]
    bridge: dict[str, Any] | None = None


def write_plug(run: FinishedRun, out: Path, trusted: Sequence[str] = (), downloads: Collection[str] = ()) -> PlugRecord:
    """Write the plug of a finished run to a new or an empty folder.

    Args:
        trusted, downloads: see `lockdec.evaluation.finished.build_encoder`.

    Raises:
        StoreError: the folder is not empty, an artifact is missing or damaged, or the run uses several plugs at once.
        ConfigError: the encoder's class is not trusted or cannot be built.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out}: exists already; name a new or an empty folder")
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
    model, tokenizer = load_decoder(*run.decoder), load_tokenizer(*run.decoder)
    try:
        out.mkdir(parents=True, exist_ok=True)
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
        decoder=DecoderRecord(decoder_fingerprint(model), tokenizer.fingerprint, asdict(model.config), _source(result)),
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
        licences=_licences(run.config, type(encoder).__name__),
        files={name: FileRecord((out / name).stat().st_size, file_sha256(out / name)) for name in sorted(names)},
        bridge=read_object(finetune.path(BRIDGE)) if BRIDGE in trained else None,
    )
    write_json(out / RECORD, asdict(record))
    write_text(out / CARD, card(asdict(record)))
    return record


def read_plug(folder: Path) -> PlugRecord:
    """What the record of a plug says, once its files have been verified.

    Raises:
        StoreError: it is no plug, is of another schema, or a file is missing, changed or no plain file.
    """
    path = folder / RECORD
    found = read_object(path)
    if found.get("schema") not in READABLE:
        raise StoreError(f"{path}: schema {found.get('schema')}, and this lockdec ({__version__}) reads {SCHEMA}")
    record = as_dataclass(path, PlugRecord, found)
    if record.cross_attention is None and record.bridge is None:
        raise StoreError(f"{path}: it has neither cross-attention nor another bridge")
    trained = [CROSS_ATTENTION_WEIGHTS] * (record.cross_attention is not None)
    trained += [BRIDGE_WEIGHTS] * (record.bridge is not None)
    for needed in (*trained, NORMALISATION):
        if needed not in record.files:
            raise StoreError(f"{path}: it names no {needed}, which a plug needs")
    for name, expected in record.files.items():
        parts = name.split("/")
        if not all(map(is_name, parts)) or (len(parts) > 1 and (len(parts) > 2 or parts[0] != ENCODER)):
            raise StoreError(f"{path}: {name!r} cannot be a file of a plug")
        file = within(folder, name)
        if expected.bytes > MOST_FILE:
            raise StoreError(f"{file}: larger than {MOST_FILE:,} bytes, the most that is read here")
        if not file.is_file() or file.stat().st_size != expected.bytes or file_sha256(file) != expected.sha256:
            raise StoreError(f"{file}: missing, or not the one that the plug was made with")
    return record


def open_plug(
    folder: Path,
    decoder: str | Path,
    encoder: str | Path | None = None,
    trusted: Sequence[str] = (),
    downloads: Collection[str] = (),
) -> NewInputCaptioner:
    """The captioner that a plug and its decoder make.

    Args:
        decoder: the folder of a run, a sweep, an export or a checkpoint, a GGUF file, or the id of a model on the
            Hugging Face hub, which is then downloaded: the user has named it.
        encoder: the folder of the encoder's files, where the plug was made with one of the user's.
        trusted, downloads: see `lockdec.evaluation.finished.build_encoder`.

    Raises:
        StoreError: the plug is damaged, or was made for another decoder, tokenizer or encoder.
        ConfigError: the encoder's class is not trusted or cannot be built.
        LockdecError: there is no such decoder.
    """
    record = read_plug(folder)
    model, tokenizer = open_decoder(decoder)
    return put_plug(folder, record, model, tokenizer, str(decoder), encoder, trusted, downloads)


def put_plug(
    folder: Path,
    record: PlugRecord,
    model: LockingModel,
    tokenizer: Tokenizer,
    decoder: str,
    encoder: str | Path | None = None,
    trusted: Sequence[str] = (),
    downloads: Collection[str] = (),
) -> NewInputCaptioner:
    """As `open_plug`, on a decoder that is open: beside the plugs that it has, under a name of its own.

    Args:
        record: what `read_plug` has found there.
        model: the decoder; what it had attached stays, and the new plug is in use.
        tokenizer: without a prompt.
        decoder: the name of the decoder, for errors.
    """
    for what, wanted, found in (
        ("decoder", record.decoder.fingerprint, decoder_fingerprint(model)),
        ("tokenizer", record.decoder.tokenizer, tokenizer.fingerprint),
    ):
        if wanted != found:
            source = f", imported from {record.decoder.source}" if record.decoder.source else ""
            raise StoreError(f"{folder}: the plug was made for the {what} {wanted[:12]}{source}, and that of {decoder} "
                             f"is {found[:12]}")  # fmt: skip
    path = folder / RECORD
    with readable(path):
        built = _encoder(folder, record.encoder, encoder, trusted, downloads)
        if (found := built.fingerprint) != record.encoder.fingerprint:
            raise StoreError(f"{folder}: the plug was made for the encoder {record.encoder.name} "
                             f"{record.encoder.fingerprint[:12]}, and this one is {found[:12]}")  # fmt: skip
        normalisation = Normalisation.load(folder / NORMALISATION)
        decode = Builder(()).build(record.decoding, "decoding", EvaluateConfig)
        decode.check()
        tokenizer = tokenizer.with_prompt(record.prompt)
        generator = torch.Generator().manual_seed(decode.seed)
        names = _attach(model, folder, record)
    try:
        require_whole(path, built, normalisation, model, tokenizer, decode)
    except StoreError:
        for name in names:
            model.detach(name)
        raise
    return NewInputCaptioner(built, normalisation, model, tokenizer, decode, generator, names, model.bridge)


def _attach(model: LockingModel, folder: Path, record: PlugRecord) -> tuple[str, ...]:
    """Attach the plug beside those that the model has; returns the name of its cross-attention, if it has any."""
    model.attach_bridge(None)
    model.use()
    if record.bridge is not None:
        put_bridge(model, folder / RECORD, record.bridge, folder / BRIDGE_WEIGHTS)
    names: tuple[str, ...] = ()
    if record.cross_attention is not None:
        others = {name: model.detach(name) for name in list(model.plugs)}
        try:
            put_cross_attention(model, folder / RECORD, record.cross_attention, folder / CROSS_ATTENTION_WEIGHTS)
            new = model.detach(UNNAMED)
        finally:
            for name, plug in others.items():
                model.attach(name, plug)
        names = (f"plug {len(others) + 1}" if others else UNNAMED,)
        model.attach(names[0], new)
    model.unlock()
    return names


def open_plugs(
    folders: Sequence[Path],
    decoder: str | Path,
    encoder: str | Path | None = None,
    trusted: Sequence[str] = (),
    downloads: Collection[str] = (),
) -> NewInputCaptioner:
    """The captioner that several plugs and their decoder make: what each adds to a layer is summed.

    Arguments and errors are those of `open_plug`. How captions are generated is what the first plug says.

    Raises:
        StoreError: fewer than two, one of them twice, one with another bridge, or with another prompt than the first.
    """
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise StoreError(f"plugs={[str(folder) for folder in folders]}: name two plugs or more, each once")
    model, tokenizer = open_decoder(decoder)
    records = [read_plug(folder) for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        if record.bridge is not None:
            raise StoreError(f"{folder}: only plugs of cross-attention alone are summed, and this one has "
                             f"bridge={record.bridge.get('kind')}")  # fmt: skip
        if record.prompt != records[0].prompt:
            raise StoreError(f"{folder}: the prompt that it was trained with is not that of {folders[0]}")
    parts = [
        put_plug(folder, record, model, tokenizer, str(decoder), encoder, trusted, downloads)
        for folder, record in zip(folders, records, strict=True)
    ]
    names = tuple(name for part in parts for name in part.plugs)
    together = Together({f"{number:03}": part.encoder for number, part in enumerate(parts)})
    normalisation = Normalisation(parts=tuple((part.encoder.dim, part.normalisation) for part in parts))
    model.use(*names)
    model.unlock()
    first = parts[0]
    return NewInputCaptioner(together, normalisation, model, first.tokenizer, first.decode, first.generator, names)


def open_decoder(where: str | Path) -> tuple[LockingModel, Tokenizer]:
    """A decoder and its tokenizer, from a run or from a checkpoint; LockdecError if there is none."""
    folder = Path(where).expanduser()
    if folder.is_dir() and not ((folder / "config.json").is_file() and not (folder / RESULT).is_file()):
        artifacts = find_run(folder).decoder
        return load_decoder(*artifacts), load_tokenizer(*artifacts)
    source = located(where)
    checkpoint = read(source)
    if checkpoint.cross_attention is not None:
        raise LockdecError(f"{where}: it has cross-attention of its own; name a decoder without")
    model = LockingDecoderModel.from_huggingface(source).eval()
    return model, Tokenizer.from_huggingface(source, checkpoint.config.vocab_size)


def _encoder(
    folder: Path,
    record: EncoderRecord,
    given: str | Path | None,
    trusted: Sequence[str],
    downloads: Collection[str],
) -> Encoder:
    config = _located(record.config, folder, given)
    with downloads_only(downloads):
        built: Any = Builder((*TRUSTED, *trusted)).build(config, "encoder", Encoder | PretrainedHere)
    if isinstance(built, PretrainedHere):
        return built.open(folder / ENCODER)
    assert isinstance(built, Encoder)
    return built


def _located(node: Any, folder: Path, given: str | Path | None, name: str = "") -> Any:
    """The encoder's config with the path that the user gave; StoreError where a path of its own leads elsewhere."""
    if isinstance(node, Mapping):
        return {key: _located(value, folder, given, key) for key, value in node.items()}
    if isinstance(node, list):
        return [_located(value, folder, given, name) for value in node]
    if name != "path" or not isinstance(node, str):
        return node
    if node.startswith(GIVEN):
        if given is None:
            files = node.removeprefix(GIVEN)
            raise ConfigError(f"{folder}: its encoder reads files that the plug does not hold ({files!r}): name their "
                              "folder with --encoder")  # fmt: skip
        return str(given)
    if not _HUB_ID.fullmatch(node) or ".." in node or Path(node).exists():
        raise StoreError(f"{folder / RECORD}: encoder.path={node!r} is not the id of a model; a plug names no files "
                         "of this machine")  # fmt: skip
    return node


def _portable(node: Any, name: str = "") -> Any:
    """The encoder's config, with a mark for each path that only this machine has."""
    if isinstance(node, Mapping):
        return {key: _portable(value, key) for key, value in node.items()}
    if isinstance(node, list):
        return [_portable(value, name) for value in node]
    local = name == "path" and isinstance(node, str) and Path(node).expanduser().exists()
    return f"{GIVEN}{Path(node).name}" if local else node


def _source(result: Mapping[str, Any]) -> str | None:
    source = _object(result.get("decoder")).get("source")
    return source if isinstance(source, str) and not Path(source).expanduser().exists() else None


def _training(result: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """How the cross-attention was trained, as plain values and without paths."""
    finetune = {name: value for name, value in _object(config.get("finetune")).items() if name != "callbacks"}
    data = {name: value for name, value in _object(result.get("data")).items() if isinstance(value, str | int)}
    return {"data": data, "fewshot": _object(result.get("fewshot")), "finetune": finetune, "seed": result.get("seed")}


def _numbers(node: Any) -> dict[str, float]:
    return {name: float(value) for name, value in _object(node).items() if isinstance(value, int | float)}


def _object(node: Any) -> dict[str, Any]:
    return dict(node) if isinstance(node, Mapping) else {}


_KNOWN = {  # by the class that reads them
    "OpenMoji": "drawings CC BY-SA 4.0 (openmoji.org), names Unicode-3.0",
    "EfficientNetLite0": "weights Apache-2.0",
    "MiniLM": "weights Apache-2.0",
}


def _licences(config: Mapping[str, Any], encoder: str) -> dict[str, str]:
    """What is known of the licences of the data and of the encoder's weights."""
    data = str(_object(config.get("data")).get("_target_", "")).rpartition(".")[2]
    found = {"data": _KNOWN.get(data), "encoder": _KNOWN.get(encoder)}
    return {name: licence or "not known to lockdec: see where it comes from" for name, licence in found.items()}
