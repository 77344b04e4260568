"""How decoder, tokenizer and bridge are stored in artifacts, and how captions are generated from them.

Needs no lightning, so that commands start fast.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from lockdec.bridges import Bridge, known
from lockdec.data.tokenizer import ChatTemplate, Prompt, Tokenizer
from lockdec.errors import ConfigError, LockdecError, StoreError
from lockdec.evaluation.scoring import locked
from lockdec.store import Artifact
from lockdec.store.reading import as_dataclass, is_name, read_dataclass, read_object
from lockdec.store.tensors import (
    change_weights,
    fingerprinted,
    load_fitting,
    map_weights,
    save_tensors,
    stream_tensors,
)
from lockdec.store.writing import write_json
from lockdec.transformer.configuration import HostedConfig
from lockdec.transformer.fast import dtype_of, undrawn
from lockdec.transformer.importing import Checkpoint
from lockdec.transformer.models import (
    UNNAMED,
    CrossAttentionConfig,
    DecoderConfig,
    LockingDecoderModel,
    LockingModel,
)

TOKENIZER, DECODER, DECODER_WEIGHTS = "tokenizer.json", "decoder.json", "decoder.safetensors"
HOSTED, HOSTED_FILES = "hosted.json", "hosted"
CHANGED_WEIGHTS = "changed.safetensors"
CHAT, PROMPT = "chat.json", "prompt.json"
CROSS_ATTENTION, CROSS_ATTENTION_WEIGHTS = "cross_attention.json", "cross_attention.safetensors"
BRIDGE, BRIDGE_WEIGHTS = "bridge.json", "bridge.safetensors"
SEVERAL, SEVERAL_FOLDER = "plugs.json", "plugs"  # the names of several that are used at once, and a folder for each
CPU = torch.device("cpu")


def save_decoder(model: LockingDecoderModel, folder: Path) -> None:
    """Save the weights of a decoder without cross-attention, and its config."""
    write_json(folder / DECODER, asdict(model.config))
    save_tensors(model.state_dict(), folder / DECODER_WEIGHTS)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Save an imported decoder as `save_decoder` does, reading and writing one tensor after the other."""
    write_json(folder / DECODER, asdict(checkpoint.config))
    shapes = {
        name: weight.shape for name, weight in LockingDecoderModel.undrawn(checkpoint.config).state_dict().items()
    }
    stream_tensors(checkpoint.weights(), shapes, folder / DECODER_WEIGHTS)


def load_decoder(*decoder: Artifact, device: torch.device = CPU, dtype: str | None = None) -> LockingModel:
    """The pretrained decoder, locked, in evaluation mode; draws no random numbers.

    It is on the CPU.

    Args:
        decoder: the artifact of the stage that made it, then those of the stages that changed it, in their order.
        device: where it will compute.
        dtype: in which precision, float32 or bfloat16; where not given, in the one that its stage was asked for
            (`dtype_of`).
    """
    made, *changed = decoder
    asked = dtype or str(made.config.get("dtype", "auto"))
    if made.path(HOSTED).is_file():
        return _load_hosted(made, asked, device)
    config, path = read_dataclass(made.path(DECODER), DecoderConfig), made.path(DECODER_WEIGHTS)
    tensors = load_fitting(lambda: LockingDecoderModel.undrawn(config), path)
    model = LockingDecoderModel.undrawn(config)
    map_weights(model, tensors, dtype_of(asked, next(iter(tensors.values())).dtype, device))
    for artifact in changed:
        change_weights(model, artifact.path(CHANGED_WEIGHTS))
    return model.eval()


def _load_hosted(made: Artifact, asked: str, device: torch.device) -> LockingModel:
    from lockdec.transformer.hosting import HostedDecoderModel
    from lockdec.transformer.importing.files import Safetensors

    folder = made.path(HOSTED_FILES)
    try:
        stored = Safetensors(folder).dtype
        model = HostedDecoderModel.from_huggingface(folder, dtype_of(asked, stored, device))
    except StoreError:
        raise
    except LockdecError as error:
        raise StoreError(str(error)) from error
    if model.config != read_dataclass(made.path(HOSTED), HostedConfig):
        raise StoreError(f"{made.path(HOSTED)}: not the sizes of the {model.config.architecture} beside it")
    return model


def load_tokenizer(*decoder: Artifact) -> Tokenizer:
    """The tokenizer that the decoder was pretrained with; it is in the first of the decoder's artifacts."""
    return Tokenizer.load(decoder[0].path(TOKENIZER))


def save_changed(model: LockingDecoderModel, folder: Path) -> None:
    """Save the weights of a decoder that require gradients; all others are those of the decoder that was changed."""
    changed = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_tensors(changed, folder / CHANGED_WEIGHTS)


def save_prompt(prompt: Prompt, folder: Path) -> None:
    """Save the prompt that stood before every caption of a finetuning."""
    write_json(folder / PROMPT, asdict(prompt))


def load_prompt(finetune: Artifact) -> Prompt | None:
    """The prompt that stands before every caption; None where a decoder was finetuned without one."""
    path = finetune.path(PROMPT)
    return read_dataclass(path, Prompt) if path.is_file() else None


def precision_of(model: LockingModel) -> str:
    """The precision of the decoder's own weights: float32 or bfloat16."""
    with locked(model):  # unlocked, a bridge may have put weights of its own in the decoder's places
        return str(next(model.parameters()).dtype).removeprefix("torch.")


def trained_over(trained: Artifact) -> str | None:
    """The precision of the decoder when a stage trained something to attach to it; None where it recorded none."""
    section = trained.metrics.get(trained.stage)
    return section.get("dtype") if isinstance(section, Mapping) else None


def decoder_fingerprint(model: LockingModel) -> str:
    """The sha256 of every tensor of the decoder itself, without cross-attention or another bridge."""
    trained = model.bridge_parameters()
    digest = hashlib.sha256()
    with locked(model):  # unlocked, a bridge may have put weights of its own in the decoder's places
        own = {n: t for n, t in model.state_dict().items() if n not in trained and not n.startswith("bridge.")}
        for name, _, content in fingerprinted(own):
            digest.update(name.encode())
            digest.update(content)
    return digest.hexdigest()


def save_bridge(model: LockingModel, folder: Path) -> None:
    """Save the weights and the config of the cross-attention in use, and those of another bridge, if there is one."""
    if len(names := model.in_use) > 1:
        write_json(folder / SEVERAL, {"names": list(names)})
        for name in names:
            (folder / SEVERAL_FOLDER / name).mkdir(parents=True, exist_ok=True)
            model.use(name)
            save_bridge(model, folder / SEVERAL_FOLDER / name)
        model.use(*names)
    elif model.plug is not None:
        config, encoder_dim = model.plugs[model.plug]
        save_tensors(model.cross_attention_parameters(), folder / CROSS_ATTENTION_WEIGHTS)
        write_json(folder / CROSS_ATTENTION, {"encoder_dim": encoder_dim, **asdict(config)})
    if (bridge := model.bridge) is not None:
        save_tensors(bridge.state_dict(), folder / BRIDGE_WEIGHTS)
        write_json(folder / BRIDGE, {"kind": bridge.kind, "encoder_dim": bridge.encoder_dim, **bridge.settings})


def save_chat(template: ChatTemplate, folder: Path) -> None:
    """Save the chat template of a decoder beside its tokenizer."""
    write_json(folder / CHAT, asdict(template))


def load_chat(*decoder: Artifact) -> ChatTemplate | None:
    """The chat template of an imported decoder, beside its tokenizer; None if it has none."""
    path = decoder[0].path(CHAT)
    return read_dataclass(path, ChatTemplate) if path.is_file() else None


def load_captioner(*artifacts: Artifact, device: torch.device = CPU) -> LockingModel:
    """The decoder with the bridge of an unlock or finetune artifact: unlocked, in evaluation mode.

    It is in the precision that the bridge was trained over, whatever this machine would choose.

    Args:
        artifacts: those of the decoder, as `load_decoder` takes them, and last that of the bridge.
        device: where it will compute; it is on the CPU.

    Raises:
        StoreError: the config and the weights of the bridge do not belong together.
    """
    *decoder, bridge = artifacts
    model = load_decoder(*decoder, device=device, dtype=trained_over(bridge))
    if bridge.path(SEVERAL).is_file():
        names = read_object(bridge.path(SEVERAL)).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) and is_name(name) for name in names):
            raise StoreError(f"{bridge.path(SEVERAL)}: it names no plugs")
        _put_named(model, {name: bridge.folder / SEVERAL_FOLDER / name for name in names})
        return model.eval()
    config = bridge.path(BRIDGE)
    if another := config.is_file():
        put_bridge(model, config, read_object(config), bridge.path(BRIDGE_WEIGHTS))
    config = bridge.path(CROSS_ATTENTION)
    if config.is_file() or not another:
        put_cross_attention(model, config, read_object(config), bridge.path(CROSS_ATTENTION_WEIGHTS))
    model.unlock()
    return model.eval()


def put_several(model: LockingModel, trained: Sequence[Artifact]) -> None:
    """Attach the cross-attention of several finetunings, named by their places, and unlock it: all are in use.

    Raises:
        StoreError: one of them has another bridge, or `put_cross_attention` does.
    """
    for artifact in trained:
        if artifact.path(BRIDGE).is_file():
            raise StoreError(f"{artifact.folder}: only cross-attention is summed, and this one has another bridge")
    _put_named(model, {str(number): artifact.folder for number, artifact in enumerate(trained)})


def _put_named(model: LockingModel, folders: Mapping[str, Path]) -> None:
    plugs = {}
    for name, folder in folders.items():
        config = folder / CROSS_ATTENTION
        put_cross_attention(model, config, read_object(config), folder / CROSS_ATTENTION_WEIGHTS)
        plugs[name] = model.detach(UNNAMED)
    for name, plug in plugs.items():
        model.attach(name, plug)
    model.use(*plugs)
    model.unlock()


def put_bridge(model: LockingModel, config: Path, stored_settings: Mapping[str, Any], weights: Path) -> None:
    """Attach a trained bridge to a decoder; locked.

    Args:
        config: the file that the settings are from, for errors.
        stored_settings: its kind, its `encoder_dim` and its settings.
        weights: the file of its weights.

    Raises:
        StoreError: there is no bridge of this kind, or they do not belong together.
    """
    settings, classes = dict(stored_settings), known()
    kind, encoder_dim = settings.pop("kind", None), settings.pop("encoder_dim", None)
    if kind not in classes:
        raise StoreError(f"{config}: bridge={kind} is not one of: {', '.join(sorted(classes))}; a class of your own "
                         "has to be imported first")  # fmt: skip
    if not isinstance(encoder_dim, int):
        raise StoreError(f"{config}: encoder_dim={encoder_dim} is not a number of channels")
    bridge = _built(config, classes[kind], settings)

    def drawn() -> nn.Module:
        like = dataclasses.replace(bridge)
        with undrawn():
            like.draw(model, encoder_dim)
        return like

    stored = load_fitting(drawn, weights)
    with torch.random.fork_rng(devices=[]):
        bridge.draw(model, encoder_dim)
    model.attach_bridge(bridge)
    bridge.load_state_dict(stored)  # now that it is in the precision in which it has learned


def _built(config: Path, kind: type[Bridge], settings: Mapping[str, Any]) -> Bridge:
    hints = get_type_hints(kind)
    fields = [(field.name, hints[field.name], field) for field in dataclasses.fields(kind) if field.init]
    plain = dataclasses.make_dataclass(kind.__name__, [(name, hint) for name, hint, _ in fields])
    try:
        return kind(**asdict(as_dataclass(config, plain, settings)))
    except ConfigError as error:
        raise StoreError(f"{config}: {error}") from error


def put_cross_attention(model: LockingModel, config: Path, sizes: Mapping[str, Any], weights: Path) -> None:
    """Attach trained cross-attention to a decoder, and unlock it.

    Args:
        config: the file that the sizes are from, for errors.
        sizes: a `CrossAttentionConfig` with an `encoder_dim`.
        weights: the file of its weights.

    Raises:
        StoreError: they do not belong together.
    """
    sizes = dict(sizes)
    encoder_dim = sizes.pop("encoder_dim", None)
    if not isinstance(encoder_dim, int):
        raise StoreError(f"{config}: encoder_dim={encoder_dim} is not a number of channels")
    wanted = as_dataclass(config, CrossAttentionConfig, sizes)

    def places() -> nn.Module:
        with undrawn():
            like = type(model.decoder)(model.config)
            like.attach(UNNAMED, wanted, encoder_dim)
        return like

    saved = load_fitting(places, weights, "decoder.", model.decoder.state_dict())
    model.attach(wanted, encoder_dim)
    with torch.no_grad():  # a stranger's file may name other weights, too: those stay as they are
        for name, weight in model.cross_attention_parameters().items():
            weight.copy_(saved[name.removeprefix("decoder.")])
    model.unlock()
