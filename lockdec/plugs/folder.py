"""A plug as a folder: verified, and opened on the decoder that it was made for.

The folder may come from a stranger. Its files are read as data of bounded size, only classes of trusted modules are
built, no path in it leads to files of this machine, and no model of the hub is asked for that the user has not named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import torch

from lockdec.config.building import TRUSTED, Builder
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.encoders.encoded import NORMALISATION
from lockdec.encoders.huggingface import downloads_only
from lockdec.encoders.normalisation import Normalisation
from lockdec.encoders.together import Together
from lockdec.errors import ConfigError, LockdecError, StoreError
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.evaluation.finished import (
    CaptionerParts,
    find_run,
    readable,
    require_whole,
)
from lockdec.evaluation.stored import (
    BRIDGE_WEIGHTS,
    CROSS_ATTENTION_WEIGHTS,
    decoder_fingerprint,
    load_decoder,
    load_tokenizer,
    precision_of,
    put_bridge,
    put_cross_attention,
)
from lockdec.plugs.record import (
    ENCODER,
    GIVEN,
    READABLE,
    RECORD,
    SCHEMA,
    DecoderRecord,
    EncoderRecord,
    PlugRecord,
)
from lockdec.store import file_sha256
from lockdec.store.reading import RESULT, as_dataclass, is_name, read_object, within
from lockdec.transformer.fast.precision import DTYPES
from lockdec.transformer.importing import located, read
from lockdec.transformer.models import UNNAMED, LockingDecoderModel, LockingModel
from lockdec.version import __version__

MOST_FILE = 1 << 30  # bytes of a file of a plug
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def read_plug(folder: Path) -> PlugRecord:
    """What the record of a plug says, once its files have been verified.

    Raises:
        StoreError: it is no plug, is of another schema, a file is missing, changed or no plain file, or one of the
            encoder is not in the record.
    """
    path = folder / RECORD
    if (folder / RESULT).is_file() and not path.exists():
        raise StoreError(f"{folder}: a run, not a plug; make one with lockdec export {folder} OUT --plug")
    found = read_object(path)
    if found.get("schema") not in READABLE:
        raise StoreError(f"{path}: schema {found.get('schema')}, and this lockdec ({__version__}) reads {SCHEMA}")
    record = as_dataclass(path, PlugRecord, found)
    if (dtype := record.decoder.dtype) is not None and dtype not in DTYPES:
        raise StoreError(f"{path}: decoder.dtype={dtype} is not one of: {', '.join(DTYPES)}")
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
    for own in _files_of_encoder(folder):
        if f"{ENCODER}/{own}" not in record.files:
            raise StoreError(f"{folder / ENCODER / own}: {RECORD} does not name it, and a plug has no other files")
    return record


def _files_of_encoder(folder: Path) -> list[str]:
    """What lies in the folder of the encoder's files, without what the system hides there; none where there is none."""
    place = within(folder, ENCODER)
    return sorted(file.name for file in place.iterdir() if not file.name.startswith(".")) if place.is_dir() else []


def open_plug(
    folder: Path,
    decoder: str | Path,
    encoder: str | Path | None = None,
    trusted: Sequence[str] = (),
    downloads: Collection[str] = (),
) -> CaptionerParts:
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
    model, tokenizer = open_decoder(decoder, record.decoder)
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
) -> CaptionerParts:
    """As `open_plug`, on a decoder that is open: beside the plugs that it has, under a name of its own.

    Args:
        record: what `read_plug` has found there.
        model: the decoder; what it had attached stays, and the new plug is in use.
        tokenizer: without a prompt.
        decoder: the name of the decoder, for errors.
    """
    if record.decoder.dtype not in (None, here := precision_of(model)):
        raise StoreError(f"{folder}: the plug was trained over a decoder in {record.decoder.dtype}, and that of "
                         f"{decoder} is in {here}: open this plug with a decoder of its own")  # fmt: skip
    for what, wanted, found in (
        ("decoder", record.decoder.fingerprint, decoder_fingerprint(model)),
        ("tokenizer", record.decoder.tokenizer, tokenizer.fingerprint),
    ):
        if wanted != found:
            source = f", imported from {record.decoder.source}" if record.decoder.source else ""
            old = "" if record.decoder.dtype else "; it names no precision: if they differ in that, export it again"
            raise StoreError(f"{folder}: the plug was made for the {what} {wanted[:12]}{source}, and that of {decoder} "
                             f"is {found[:12]}{old}")  # fmt: skip
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
    return CaptionerParts(built, normalisation, model, tokenizer, decode, generator, names, model.bridge)


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
) -> CaptionerParts:
    """The captioner that several plugs and their decoder make: what each adds to a layer is summed.

    Arguments and errors are those of `open_plug`. How captions are generated is what the first plug says.

    Raises:
        StoreError: fewer than two, one of them twice, one with another bridge, or with another prompt than the first.
    """
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise StoreError(f"plugs={[str(folder) for folder in folders]}: name two plugs or more, each once")
    records = [read_plug(folder) for folder in folders]
    precise = [record.decoder for record in records if record.decoder.dtype is not None]
    model, tokenizer = open_decoder(decoder, (precise or [records[0].decoder])[0])
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
    named = zip(folders, parts, strict=True)  # in their order, whatever they are called
    together = Together({f"{number:03} {folder.name}": part.encoder for number, (folder, part) in enumerate(named)})
    normalisation = Normalisation(parts=tuple((part.encoder.dim, part.normalisation) for part in parts))
    model.use(*names)
    model.unlock()
    first = parts[0]
    return CaptionerParts(together, normalisation, model, first.tokenizer, first.decode, first.generator, names)


def open_decoder(where: str | Path, wanted: DecoderRecord) -> tuple[LockingModel, Tokenizer]:
    """A decoder as a plug wants it, and its tokenizer, from a run or from a checkpoint.

    Raises:
        LockdecError: there is none.
        StoreError: it is damaged, or another plug.
    """
    folder = Path(expanduser(where))
    if (folder / RECORD).is_file():
        raise StoreError(f"{where}: a plug, which has no decoder of its own; name the run, export or checkpoint that "
                         "it was made for")  # fmt: skip
    if folder.is_dir() and not ((folder / "config.json").is_file() and not (folder / RESULT).is_file()):
        artifacts = find_run(folder).decoder
        return load_decoder(*artifacts, dtype=wanted.dtype), load_tokenizer(*artifacts)
    source, dtype = located(where), DTYPES[wanted.dtype or "float32"]
    if wanted.hosted:
        if not source.is_dir():
            raise LockdecError(f"{where}: the plug's decoder is hosted: name the folder of its checkpoint")
        from lockdec.transformer.hosting import HostedDecoderModel

        hosted = HostedDecoderModel.from_huggingface(source, dtype)
        return hosted, Tokenizer.from_huggingface(source, hosted.config.vocab_size)
    checkpoint = read(source)
    if checkpoint.cross_attention is not None:
        raise LockdecError(f"{where}: it has cross-attention of its own; name a decoder without")
    model = LockingDecoderModel.from_huggingface(source, dtype).eval()
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
