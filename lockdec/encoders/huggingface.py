"""Pretrained encoders of the `transformers` library: images, texts or audio to states.

Weights are only read from safetensors, and no code of a checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lockdec.data.captions import Input, Modality
from lockdec.data.tokenizer import is_failure, require_modest
from lockdec.encoders.contract import Encoder
from lockdec.errors import ConfigError, DataError, LockdecError
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.importing import check_files
from lockdec.transformer.importing.files import json_object, numbers_in, plain_reason

_READS: Mapping[str, Modality] = {
    "pixel_values": "image",
    "input_ids": "text",
    "input_values": "array",
    "input_features": "array",
}
_TOWERS: Mapping[Modality, str] = {"image": "vision_model", "array": "audio_model", "text": "text_model"}
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")

# The most that numbers of a preprocessor's config may be; its library makes arrays of such sizes without asking.
_LIMITS = {
    **dict.fromkeys(("size", "crop_size", "height", "width", "shortest_edge", "max_height", "max_width"), 8_192),
    **dict.fromkeys(("feature_size", "num_mel_bins", "patch_size", "chunk_length"), 8_192),
    **dict.fromkeys(("sampling_rate", "n_fft", "hop_length", "fft_window_size", "nb_max_frames"), 1_000_000),
}
_MOST = 64_000_000  # of all others, such as the pixels of an image or the samples of a recording

Kind = TypeVar("Kind")

_DOWNLOADS: ContextVar[Collection[str] | None] = ContextVar("_DOWNLOADS", default=None)


@contextmanager
def downloads_only(models: Collection[str]) -> Iterator[None]:
    """Inside, no model of the Hugging Face hub is asked for or downloaded but these; others have to be on this machine.

    For configs that somebody else may have written: a request to the hub carries the user's token.
    """
    before = _DOWNLOADS.set(models)
    try:
        yield
    finally:
        _DOWNLOADS.reset(before)


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, the hub's library makes no request, whatever the files of a checkpoint name."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class HuggingFace(Encoder):
    """Layer outputs of a pretrained network: one state for each patch, token or audio frame, or a single pooled one.

    Args:
        path: a local folder, or the id of a model on the Hugging Face hub.
        output: "states", or "pooled" for a single state: the network's own pooled vector for images, the mean of
            the states for texts and audio.
        layers: the layers whose outputs to concatenate along the channels: 0 is the embeddings, n the n-th layer, -1
            the last.
        modality: "image", "array" (audio) or "text" selects a tower of a network with two; None for the tower that
            reads no texts, and for networks with a single one.

    Texts that are too long for the network are truncated. Audio is an array of samples from -1 to 1, at the sampling
    rate that the network was trained with; each is encoded separately, since padding changes the outputs of some
    networks. Of audio that is longer than CLAP reads (10 s), the beginning is encoded, and no random part.

    Raises:
        ConfigError: the checkpoint does not exist, cannot be read safely, or has no such layer or output.
    """

    def __init__(
        self,
        path: str,
        output: Literal["states", "pooled"] = "states",
        layers: Sequence[int] = (-1,),
        modality: Modality | None = None,
    ) -> None:
        super().__init__()
        source = Checkpoint.find(path)
        whole, missing = source.model()
        self.network, self.modality = _part(whole, path, modality)
        self.processor = source.processor(self.modality)
        self.rate = self.processor.sampling_rate if self.modality == "array" else None
        self.pools = output == "pooled" and self.modality == "image"
        self.output, self.most_tokens = output, _most_tokens(self.network, self.processor)
        pooler = [name for name in missing if "pooler" in name.split(".")]
        if lacking := sorted(set(missing) - set(pooler)):
            raise ConfigError(f"encoder.path={path}: the checkpoint lacks {', '.join(lacking)}")
        if not self.pools and getattr(self.network, "pooler", None) is not None:
            self.network.pooler = None  # unused, and random if the checkpoint has no weights for it
        probe = self._tried(path)
        widths = [layer.shape[-1] for layer in probe.layers]
        if self.pools and (pooler or probe.pooled is None or probe.pooled.shape[-1] != widths[-1]):
            raise ConfigError("encoder.output=pooled: this checkpoint has no pooled vector; use states")
        last = len(widths) - 1
        numbers = [last + 1 + layer if layer < 0 else layer for layer in layers]
        if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(last + 1)):
            raise ConfigError(f"encoder.layers={list(layers)}: one or more of 0 (the embeddings) to {last}, each once; "
                              "-1 is the last")  # fmt: skip
        if self.pools and numbers != [last]:
            raise ConfigError(f"encoder.layers={list(layers)}: output=pooled is made of the last layer; use [-1]")
        self.layers = tuple(numbers)
        self.groups = tuple(widths[layer] for layer in numbers)
        self.dim = sum(self.groups)

    @property
    def settings(self) -> Mapping[str, Any]:
        config = self.network.config.to_diff_dict()
        for name in ("_name_or_path", "transformers_version"):  # its location and the version that wrote it
            config.pop(name, None)
        return {
            "network": json.loads(json.dumps(config, default=str)),
            "processor": _fingerprint(self.processor),
            "output": self.output,
            "layers": self.layers,
            "most_tokens": self.most_tokens,
        }

    def preprocess(self, inputs: Sequence[Input]) -> list[dict[str, Tensor]]:
        """The arguments of the network by name: one batch, or one for each input if padding could matter.

        Raises:
            DataError: an input is of another modality, or a sound is too short.
        """
        if self.modality == "array":
            return [self._batch([item]) for item in inputs]
        return [self._batch(inputs)]

    def labels(self, given: Input) -> list[str] | None:
        """The tokens of a text, of a network with a state for each; None for pictures and audio."""
        if self.modality != "text" or self.output == "pooled":
            return None
        ids = self._texts([str(given)])["input_ids"][0].tolist()
        return [self.processor.decode([token]).strip() for token in ids]

    def forward(self, batch: list[dict[str, Tensor]]) -> Encoded:
        """The concatenated layers, padded to the longest input; or the pooled vector as a single state."""
        rows: list[Tensor] = []
        for part in batch:
            outputs = self._outputs(part)
            vector = outputs.pooled if self.pools else None
            joined = (self._joined(outputs.layers) if vector is None else vector[:, None]).float()
            if vector is None and "attention_mask" in part:
                real = _of_states(part["attention_mask"], joined.shape[1])
                rows += [states[mask] for states, mask in zip(joined, real, strict=True)]
            else:
                rows += list(joined)
        if self.output == "pooled":
            rows = [states.mean(dim=0, keepdim=True) for states in rows]
        masks = [torch.ones(len(states), dtype=torch.bool, device=states.device) for states in rows]
        pad = nn.utils.rnn.pad_sequence
        return Encoded(pad(rows, batch_first=True), pad(masks, batch_first=True))

    def _tried(self, path: str) -> _Outputs:
        """What the network makes of a small input; ConfigError if its files do not let it make anything."""
        try:
            return self._outputs(self._batch([_probe(self.modality, self.processor)]))
        except Exception as error:  # each wrong number has its own exception
            raise ConfigError(f"encoder.path={path}: it cannot encode a small {self.modality} ({plain_reason(error)}); "
                              "its config or its preprocessor's config is wrong") from error  # fmt: skip

    def reads_whole(self, given: Input) -> bool:
        if self.modality == "text":  # tokenised as in `_texts`, since a tokenizer keeps how it truncates
            options = {"padding": True, "truncation": True, "max_length": self.most_tokens}
            return len(self.processor([str(given)], **options, return_overflowing_tokens=True)["input_ids"]) == 1
        most = getattr(self.processor, "nb_max_samples", None) or getattr(self.processor, "n_samples", None)
        return most is None or not isinstance(given, np.ndarray) or given.size <= most

    def _batch(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        make = {"image": self._images, "text": self._texts, "array": self._audio}[self.modality]
        return make(inputs)

    def _images(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        images = [image.convert("RGB") for image in _only(Image.Image, inputs, "images")]
        return {"pixel_values": self.processor(images=images, return_tensors="pt")["pixel_values"]}

    def _texts(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        texts = _only(str, inputs, "texts")
        made = self.processor(texts, padding=True, truncation=True, max_length=self.most_tokens, return_tensors="pt")
        return {name: value for name, value in made.items() if name in ("input_ids", "attention_mask")}

    def _audio(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        most = getattr(self.processor, "nb_max_samples", None)  # more are cut at random by CLAP's preprocessor
        samples = [_samples(array)[:most] for array in _only(np.ndarray, inputs, "audio as arrays of samples")]
        if samples and (shortest := min(map(len, samples))) < (least := _least_samples(self.network.config)):
            raise DataError(f"the sound is too short: {shortest} samples, and this network needs {least} or more")
        rate = self.processor.sampling_rate
        return dict(self.processor(samples, sampling_rate=rate, return_attention_mask=True, return_tensors="pt"))

    def _outputs(self, batch: dict[str, Tensor]) -> _Outputs:
        with torch.no_grad():
            made = self.network(**batch, output_hidden_states=True)
        # The last layer as the network returns it, after its final norm.
        layers = [*made.hidden_states[:-1], made.last_hidden_state]
        pooled = getattr(made, "pooler_output", None)
        return _Outputs([_flat(layer) for layer in layers], None if pooled is None else pooled.flatten(1))

    def _joined(self, layers: Sequence[Tensor]) -> Tensor:
        chosen = [layers[layer] for layer in self.layers]
        if len({layer.shape[1] for layer in chosen}) > 1:
            counts = ", ".join(str(layer.shape[1]) for layer in chosen)
            raise ConfigError(
                f"encoder.layers={list(self.layers)}: they have {counts} states; use layers with equally many"
            )
        return torch.cat(chosen, dim=-1)


class _Outputs(NamedTuple):
    """The output of every layer, Float[b s d], the embeddings first; and the pooled vector, Float[b d]."""

    layers: list[Tensor]
    pooled: Tensor | None


class Checkpoint(NamedTuple):
    """The location of a checkpoint: `path` is a folder or a hub id, and `local` says whether it is on this machine."""

    path: str
    local: bool

    @classmethod
    def find(cls, path: str) -> Checkpoint:
        """Find a checkpoint without reading it.

        Raises:
            ConfigError: `transformers` is not installed, the path is neither a folder nor an id that the hub knows,
                or the folder only has pickled weights.
        """
        try:
            from transformers.utils import logging
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"encoder.path={path}: reading it needs transformers (pip install 'lockdec[huggingface]')"
            ) from error
        quiet: Any = logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        folder = Path(expanduser(path))
        if not folder.is_dir():
            return cls(path, local=_on_this_machine(path))
        if not any(folder.glob("*.safetensors")):
            pickled = sorted(file.name for kind in _PICKLED for file in folder.glob(kind))
            found = f"only {', '.join(pickled)}, which is not read" if pickled else "no weights"
            raise ConfigError(f"encoder.path={path}: weights are read from safetensors, and the folder has {found}")
        try:
            check_files(folder)
            _require_modest(folder)
        except LockdecError as error:
            raise ConfigError(f"encoder.path={path}: {error}") from error
        return cls(str(folder), local=True)

    def model(self) -> tuple[Any, list[str]]:
        """The network in float32 and evaluation mode, and the names of weights that the checkpoint lacks."""
        from transformers import AutoModel

        loader: Any = AutoModel
        model, report = self._read(
            loader, "network", dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        return model.eval(), list(report["missing_keys"])

    def processor(self, modality: Modality) -> Any:
        """The preprocessor: an image processor, a tokenizer or an audio feature extractor."""
        from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

        if modality == "image":
            # Always Pillow, whatever else is installed, so that the states are the same on every machine.
            return self._read(AutoImageProcessor, "image processor", backend="pil")
        if modality == "array":
            return self._read(AutoFeatureExtractor, "feature extractor of audio")
        tokenizer = self._read(AutoTokenizer, "tokenizer")
        try:
            require_modest(tokenizer)
        except ValueError as error:
            raise ConfigError(f"encoder.path={self.path}: its tokenizer cannot be used ({error})") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # masked, so any token will do
        return tokenizer

    def _read(self, loader: Any, what: str, **options: Any) -> Any:
        try:
            with _offline() if self.local else nullcontext():
                return loader.from_pretrained(
                    self.path, trust_remote_code=False, local_files_only=self.local, **options
                )
        except BaseException as error:  # every file format and library has its own exceptions
            if not is_failure(error):
                raise
            reason = plain_reason(error)
            if "trust_remote_code" in str(error):
                reason = "it comes with code of its own, which is never run"
            raise ConfigError(f"encoder.path={self.path}: its {what} cannot be read ({reason})") from error


def _require_modest(folder: Path) -> None:
    """Raise LockdecError if a preprocessor's config would make arrays that no input needs."""
    for path in sorted(folder.glob("*processor_config.json")):
        config = json_object(path)
        for name, value in numbers_in(config):
            if not abs(value) <= (most := _LIMITS.get(name, _MOST)):
                raise LockdecError(f"{path}: {name}={value}, and at most {most:,} is read")


def _on_this_machine(name: str) -> bool:
    """Whether a model of the hub has already been downloaded; if not, it can be downloaded now.

    Raises:
        ConfigError: it is not on this machine, and must not be downloaded (see `downloads_only`), or the hub cannot be
            reached or does not know it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        weights = ("model.safetensors", "model.safetensors.index.json")
        cached = [try_to_load_from_cache(name, file) for file in weights]
        if any(isinstance(file, str) for file in cached):
            return True
        allowed = _DOWNLOADS.get()
        if allowed is not None and name not in allowed:
            raise ConfigError(
                f"encoder.path={name}: neither a folder nor a model on this machine; a run's files make lockdec "
                f"download nothing unless you say so: --allow-download {name}"
            )
        get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except ConfigError:
        raise
    except HFValidationError as error:
        raise ConfigError(f"encoder.path={name}: no such folder, nor can it be the id of a model") from error
    except Exception as error:  # network errors, or whatever a proxy answers
        raise ConfigError(
            f"encoder.path={name}: no such folder, and the Hugging Face hub does not answer for a model of this id "
            "(without a network, download it elsewhere and give its folder)"
        ) from error
    return False


def _part(model: Any, path: str, modality: Modality | None) -> tuple[Any, Modality]:
    """The part of the model that encodes, and the modality of its inputs."""
    towers = {name: getattr(model, tower) for name, tower in _TOWERS.items() if hasattr(model, tower)}
    if "text" in towers and len(towers) > 1:
        chosen = modality or next(iter(towers))
        if chosen not in towers:
            raise ConfigError(f"encoder.modality={chosen}: {path} reads {' or '.join(towers)}")
        return towers[chosen], chosen
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    reads = _READS.get(getattr(model, "main_input_name", ""))
    if reads is None:
        raise ConfigError(f"encoder.path={path}: {type(model).__name__} reads neither images, texts nor audio")
    if modality not in (None, reads):
        raise ConfigError(f"encoder.modality={modality}: {path} reads {reads} inputs; use null")
    return model, reads


def _most_tokens(network: Any, processor: Any) -> int | None:
    """The largest number of tokens of a text; None if there is no limit."""
    limits = [getattr(processor, "model_max_length", None), getattr(network.config, "max_position_embeddings", None)]
    known = [int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < 1_000_000]
    return min(known, default=None)


def _least_samples(config: Any) -> int:
    """How many samples become one state, where convolutions read them, as in wav2vec 2.0; otherwise 1."""
    least = 1
    convolutions = zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True)
    for kernel, stride in reversed(list(convolutions)):
        least = (least - 1) * stride + kernel
    return least


def _probe(modality: Modality, processor: Any) -> Input:
    """A small input, to find out the widths of all layers."""
    if modality == "image":
        return Image.new("RGB", (64, 64))
    return "a" if modality == "text" else np.zeros(processor.sampling_rate, np.float32)


def _only(kind: type[Kind], inputs: Sequence[Any], wanted: str) -> list[Kind]:
    for item in inputs:
        if not isinstance(item, kind):
            raise DataError(f"this network reads {wanted}, not {type(item).__name__}")
    return list(inputs)


def _samples(array: NDArray[Any]) -> NDArray[np.float32]:
    """One channel of audio; a leading axis of size 1 is dropped."""
    if array.ndim > 2 or (array.ndim == 2 and len(array) > 1) or not array.size:
        raise DataError(f"audio of shape {array.shape}; one channel of samples is needed (rank 1)")
    return array.reshape(-1).astype(np.float32)


def _flat(layer: Tensor) -> Tensor:
    """The layer as Float[b s d], even if it is a feature map, Float[b d h w]."""
    return layer.flatten(2).transpose(1, 2) if layer.ndim == 4 else layer


def _of_states(mask: Tensor, count: int) -> Tensor:
    """Which states are real if the network makes one state of several input positions."""
    if mask.shape[1] == count:
        return mask.bool()
    real = (mask.sum(dim=1) * count / mask.shape[1]).ceil()
    return torch.arange(count, device=mask.device) < real[:, None]


def _fingerprint(processor: Any) -> str:
    """The sha256 (hex) of the files that the processor saves."""
    total = hashlib.sha256(type(processor).__name__.encode())
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                content = file.read_bytes()
                total.update(f"\0{file.relative_to(folder)} {len(content)}\0".encode() + content)
    return total.hexdigest()
