"""Import a decoder that somebody else pretrained: it takes the place of pretraining."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lockdec.data.packaged import how_to_fetch
from lockdec.data.tokenizer import Tokenizer
from lockdec.errors import ConfigError, LockdecError
from lockdec.evaluation.stored import TOKENIZER, save_chat, save_checkpoint
from lockdec.stages.stage import DecoderStage, Work
from lockdec.store import file_sha256
from lockdec.transformer.importing import check_files, located, promised, read

# What a checkpoint's folder is made of here; its documentation and weights in other forms are not read.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, kw_only=True)
class ImportDecoder(DecoderStage):
    """Reads a checkpoint with its tokenizer; the same files as those of pretraining are the artifact.

    The weights keep the type that they come with; those of GGUF files become float32.

    Attributes:
        path: a local folder, a GGUF file, or the id of a model on the Hugging Face hub.
        dtype: in which precision it computes: float32, bfloat16, or auto; see `lockdec.transformer.fast.dtype_of`.
    """

    version: ClassVar[int] = 3
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.data.tokenizer",
        "lockdec.evaluation.stored",
        "lockdec.transformer.importing",
        "lockdec.transformer.importing.checkpoint",
        "lockdec.transformer.importing.gguf",
        "lockdec.transformer.importing.gemma3",
        "lockdec.transformer.importing.gpt2",
        "lockdec.transformer.importing.llama",
        "lockdec.transformer.importing.neox",
        "lockdec.transformer.importing.opt",
    )
    neutral: ClassVar[tuple[str, ...]] = (
        *DecoderStage.neutral,
        "dtype=auto",  # the default, and older than this option
    )
    fingerprinted: ClassVar[tuple[str, ...]] = (*DecoderStage.fingerprinted, "path")  # the files count
    path: str
    dtype: str = "auto"

    @cached_property
    def source(self) -> Path:
        """Where the checkpoint lies; fetched first where `path` is an id.

        Raises:
            ConfigError: there is no such file or folder, and no such model.
        """
        try:
            return located(self.path)
        except LockdecError as error:
            command = how_to_fetch(Path(self.path))
            reason = f"{self.path}: not fetched yet: {command}" if command else str(error)
            raise ConfigError(f"decoder.path={reason}") from error

    @property
    def sizes(self) -> dict[str, int]:
        """What the checkpoint's config says, before its weights are read."""
        return promised(self.source)

    def check(self) -> None:
        check_files(self.source)

    def fingerprints(self) -> dict[str, str]:
        if self.source.is_file():
            return {"checkpoint": file_sha256(self.source)}
        total = hashlib.sha256()
        for path in self.files():
            total.update(f"{path.name} {file_sha256(path)}\n".encode())
        return {"checkpoint": total.hexdigest()}

    def files(self) -> list[Path]:
        """The files of a checkpoint in a folder."""
        return sorted({path for pattern in FILES for path in self.source.glob(pattern)})

    def make(self, work: Work) -> dict[str, Any]:
        checkpoint = read(self.source)
        if checkpoint.cross_attention is not None:
            raise LockdecError(f"decoder.path={self.path}: it has cross-attention of its own; import one without")
        tokenizer = Tokenizer.from_huggingface(self.source, checkpoint.config.vocab_size)
        tokenizer.save(work.folder / TOKENIZER)
        if tokenizer.chat is not None:
            save_chat(tokenizer.chat, work.folder)
        save_checkpoint(checkpoint, work.folder)
        return {"decoder": {"source": self.path, **asdict(checkpoint.config)}}
