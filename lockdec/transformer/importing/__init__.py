"""Decoders that others pretrained, read from safetensors and GGUF files only.

They are our own decoder with other choices, so a family is two tables: our names for its options, and our names for its
weights. To add a family, write a file beside `llama` and register it in `FAMILIES`.

    checkpoint   what the families share
    files        the files of a checkpoint, and what may be wrong with them
    gguf         the files of llama.cpp
"""

from __future__ import annotations

from collections.abc import Mapping
from os.path import expanduser
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lockdec.errors import LockdecError
from lockdec.transformer.importing.checkpoint import Checkpoint, Family, Named, Options, Weights
from lockdec.transformer.importing.files import (
    CONFIG,
    Safetensors,
    Stored,
    json_object,
    plain_reason,
    require_modest,
)
from lockdec.transformer.importing.gemma3 import GEMMA3
from lockdec.transformer.importing.gguf import GGUF, gguf_options, open_gguf
from lockdec.transformer.importing.gpt2 import GPT2
from lockdec.transformer.importing.llama import LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3
from lockdec.transformer.importing.neox import NEOX
from lockdec.transformer.importing.opt import OPT

__all__ = ["Checkpoint", "Options", "check_files", "located", "options_of", "promised", "read", "unfilled"]

FAMILIES: dict[str, Family] = {  # by the `model_type` of transformers
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "mistral": MISTRAL,
    "smollm3": SMOLLM3,
    "gemma3_text": GEMMA3,
    "gpt_neox": NEOX,
    "opt": OPT,
}
OUTPUT = "lm_head.weight"
SUFFIX = ".gguf"
_SAFE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}  # for transformers
WINDOWED = ("mistral", "gemma3", "gemma3_text")  # families in which texts stay within the attention window
PROMISED = {  # what a checkpoint calls the sizes that are asked for before its weights are read
    "max_len": ("n_positions", "max_position_embeddings", "max_seq_len", "seq_length", "context_length"),
    "layers": ("n_layer", "num_hidden_layers", "block_count"),
}


def read(source: nn.Module | str | Path) -> Checkpoint:
    """What `LockingDecoderModel.from_huggingface` loads. Of files only the headers are read; the weights come later.

    Raises:
        LockdecError: a file is damaged or does not say what it has to; an option has no counterpart here.
    """
    if isinstance(source, nn.Module):
        name, config = type(source).__name__, getattr(source, "config", None)
        family, options = _family(name, config if hasattr(source, "lm_head") else None)
        return _checkpoint(family, options, source.state_dict())
    path = located(source)
    check_files(path)
    contents = open_gguf(path) if path.suffix == SUFFIX else Safetensors(path)
    family, options = _family(str(path), _config(path))
    layers, tensors = options.get("num_hidden_layers"), len(contents)
    if isinstance(layers, int) and layers > tensors:  # before so many are built; by default, or in a GGUF file
        raise LockdecError(f"{path}: num_hidden_layers={layers}, but its weights are only {tensors} tensors")
    _ours(family, options)
    model = unfilled(options)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if isinstance(contents, Safetensors):
        contents.prefix = f"{model.base_model_prefix}."
        theirs: Stored = contents
    else:
        theirs = GGUF(path, contents, options, family, expected)
    _require(theirs, expected, options)
    return _checkpoint(family, options, theirs)


def check_files(path: Path) -> None:
    """Raise LockdecError if a checkpoint's files are missing or damaged; reads their headers, and needs no library."""
    if path.suffix == SUFFIX:
        gguf_options(path)
    else:
        require_modest(path)


def promised(path: Path, hosted: bool = False) -> dict[str, int]:
    """`max_len` and `layers`, as far as a checkpoint's config names them; reads no weights, and needs no library.

    Args:
        hosted: whether its own code runs it, in which texts may be longer than an attention window.

    Raises:
        LockdecError: the config is missing, or is no config.
    """
    if path.suffix == SUFFIX:
        options = gguf_options(path)
        family = options.get("general.architecture")
        theirs = {name.removeprefix(f"{family}."): value for name, value in options.items()}
    else:
        theirs = json_object(path / CONFIG)
        family = theirs.get("model_type")
        theirs = theirs if "num_hidden_layers" in theirs else theirs | _inner(theirs)
    found = {ours: next((theirs[name] for name in names if name in theirs), None) for ours, names in PROMISED.items()}
    window = theirs.get("sliding_window", theirs.get("attention.sliding_window"))
    looks_back = "sliding_attention" in (theirs.get("layer_types") or ["sliding_attention"])
    if not hosted and family in WINDOWED and type(window) is int and looks_back:
        found["max_len"] = min(window, found["max_len"]) if type(found["max_len"]) is int else window
    return {name: value for name, value in found.items() if type(value) is int}


def _inner(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the language model inside one that also reads pictures."""
    inner = theirs.get("text_config")
    return dict(inner) if isinstance(inner, dict) else {}


def located(source: str | Path) -> Path:
    """The folder or GGUF file of a checkpoint; fetched first where the source is the id of a model on the hub.

    Raises:
        LockdecError: there is no such file or folder, and no such model.
    """
    path = Path(expanduser(source))
    try:
        if path.is_dir() or (path.suffix == SUFFIX and path.is_file()):
            return path
        if path.is_file():
            raise LockdecError(f"{source}: a decoder is a folder or a {SUFFIX} file")
    except OSError as error:
        raise LockdecError(f"{path}: {error.strerror}") from error
    if path.suffix == SUFFIX or path.is_absolute():
        raise LockdecError(f"{source}: no such file or folder")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(source), allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"]))
    except Exception as error:  # a wrong id, no network, no such package: each has its own family of exceptions
        reason = " ".join(str(error).split()).split(". ")[0]
        raise LockdecError(f"{source}: neither a folder or {SUFFIX} file here nor a model that can be fetched from the "
                           f"Hugging Face hub ({reason})") from error  # fmt: skip


def _config(path: Path) -> Any:
    """The config of transformers; no code that comes with a checkpoint is run."""
    try:
        from transformers import AutoConfig
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise LockdecError(f"{path}: importing a decoder needs transformers (pip install transformers)") from error
    verbosity: Any = logging
    verbosity.set_verbosity_error()  # what is wrong is an error here
    try:
        if path.suffix == SUFFIX:
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, **_SAFE)
            if hasattr(config, "n_ctx"):  # a GPT-2's number of positions, by its old name
                config.n_positions = config.n_ctx
            return config
        if "model_type" not in json_object(path / CONFIG):
            raise LockdecError(f"{path / CONFIG}: no model_type in it")
        return AutoConfig.from_pretrained(path, **_SAFE)
    except LockdecError:
        raise
    except Exception as error:  # each wrong value has its own exception
        where = path if path.suffix == SUFFIX else path / CONFIG
        raise LockdecError(f"{where}: not the config of a model ({plain_reason(error)})") from error


def _family(source: str, config: Any) -> tuple[Family, Options]:
    kind = getattr(config, "model_type", "")
    if kind not in FAMILIES:
        of = f" (model_type={kind})" if kind else ""
        raise LockdecError(
            f"{source}: not a language model of a family that can be imported{of}: {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind], Options(source, config)


def _ours(family: Family, options: Options) -> Any:
    """Our config, checked."""
    try:
        config = family.config(options)
        config.check()
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise LockdecError(f"{options.source}: no decoder has these options ({plain_reason(error)})") from error
    except LockdecError as error:
        text = str(error)
        raise LockdecError(text if text.startswith(options.source) else f"{options.source}: {text}") from error
    return config


def options_of(path: Path) -> Options:
    """The options of the checkpoint in a folder or GGUF file, whatever its family; LockdecError if it has none."""
    return Options(str(path), _config(path))


def unfilled(options: Options) -> Any:
    """Their model without memory for its weights, which knows the names and shapes that belong in the files."""
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return make.from_config(options.config, trust_remote_code=False)
    except Exception as error:  # whatever impossible sizes lead to
        raise LockdecError(f"{options.source}: no model has these sizes ({plain_reason(error)})") from error


def _require(theirs: Stored, expected: Mapping[str, tuple[int, ...]], options: Options) -> None:
    """Raise LockdecError unless the files hold every tensor that the options call for, in its shape."""
    needed = [name for name in expected if name != OUTPUT or not options.get("tie_word_embeddings")]
    if lacking := [name for name in needed if name not in theirs]:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise LockdecError(f"{options.source}: the checkpoint lacks {', '.join(lacking[:3])}{more}")
    for name in needed:
        if theirs.shape(name) != expected[name]:
            raise LockdecError(
                f"{theirs.where(name)} is of shape {theirs.shape(name)}, but by the checkpoint's config it has to be "
                f"{expected[name]}"
            )


def _checkpoint(family: Family, options: Options, theirs: Weights) -> Checkpoint:
    config = _ours(family, options)
    has_more = family.cross_attention is not None and getattr(options.config, "add_cross_attention", False)
    cross_attention, more = (
        family.cross_attention(theirs, config) if family.cross_attention is not None and has_more else (None, None)
    )

    def weights() -> Named:
        yield from family.weights(theirs, config)
        if not config.tied:
            yield "embedding.untied.weight", theirs[OUTPUT]
        yield from more or ()

    return Checkpoint(config, weights, cross_attention)
