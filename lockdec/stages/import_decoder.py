"""Import a decoder that somebody else pretrained: it takes the place of pretraining."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lockdec.data.tokenizer import Tokenizer
from lockdec.errors import ConfigError, LockdecError
from lockdec.evaluation.stored import TOKENIZER, save_decoder
from lockdec.stages.stage import DecoderStage, Work
from lockdec.store import file_sha256
from lockdec.transformer.models import LockingDecoderModel

# What a checkpoint is made of here; weights in any other form are neither fetched nor read.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


@dataclass(frozen=True, kw_only=True)
class ImportDecoder(DecoderStage):
    """Reads a GPT-2 or Llama checkpoint with its tokenizer; the same files as those of pretraining are the artifact.

    Attributes:
        path: a local folder, or the id of a model on the Hugging Face hub.
    """

    version: ClassVar[int] = 1
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.evaluation.stored",
        "lockdec.transformer.importing.checkpoint",
        "lockdec.transformer.importing.gpt2",
        "lockdec.transformer.importing.llama",
    )
    path: str

    @cached_property
    def folder(self) -> Path:
        """Where the checkpoint lies; fetched first where `path` is an id.

        Raises:
            ConfigError: there is no such folder and no such model.
        """
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            return folder
        try:
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(self.path, allow_patterns=list(FILES)))
        except Exception as error:  # a wrong id, no network, no such package: each has its own family of exceptions
            reason = " ".join(str(error).split()).split(". ")[0]
            raise ConfigError(f"decoder.path={self.path}: neither a folder here nor a model that can be fetched "
                              f"from the Hugging Face hub ({reason})") from error  # fmt: skip

    def check(self) -> None:
        if not any(self.folder.glob("*.safetensors")):
            raise ConfigError(
                f"decoder.path={self.path}: no *.safetensors in it, and weights in no other form are read"
            )

    def fingerprints(self) -> dict[str, str]:
        total = hashlib.sha256()
        for path in sorted({path for pattern in FILES for path in self.folder.glob(pattern)}):
            total.update(f"{path.name} {file_sha256(path)}\n".encode())
        return {"checkpoint": total.hexdigest()}

    def make(self, work: Work) -> dict[str, Any]:
        model = LockingDecoderModel.from_huggingface(self.folder)
        if model.attached:
            raise LockdecError(f"decoder.path={self.path}: it has cross-attention of its own; import one without")
        tokenizer = Tokenizer.from_huggingface(self.folder)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise LockdecError(f"decoder.path={self.path}: its tokenizer has {tokenizer.vocab_size} tokens, but the "
                               f"decoder knows only {model.config.vocab_size}")  # fmt: skip
        tokenizer.save(work.folder / TOKENIZER)
        save_decoder(model, work.folder)
        return {"decoder": {"source": self.path, **asdict(model.config)}}
