"""Host a decoder that somebody else pretrained: kept as it is, where `import_decoder` makes it one of ours."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from lockdec.data.tokenizer import Tokenizer
from lockdec.errors import ConfigError
from lockdec.evaluation.stored import HOSTED, HOSTED_FILES, TOKENIZER, save_chat
from lockdec.stages.import_decoder import ImportDecoder
from lockdec.stages.stage import Work
from lockdec.store.writing import write_json
from lockdec.transformer.hosting import HostedDecoderModel
from lockdec.transformer.importing import SUFFIX, promised
from lockdec.transformer.importing.files import DTYPES, Safetensors


@dataclass(frozen=True, kw_only=True)
class HostDecoder(ImportDecoder):
    """Keeps a checkpoint of any causal language model of transformers, with its tokenizer.

    The artifact holds the checkpoint's own files. On one file system they are hard links, which take no room and stay
    when the checkpoint's folder is moved or deleted; otherwise they are copies.

    Attributes:
        path: a local folder, or the id of a model on the Hugging Face hub.
    """

    version: ClassVar[int] = 1
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.data.tokenizer",
        "lockdec.evaluation.stored",
        "lockdec.transformer.hosting",
    )

    @property
    def sizes(self) -> dict[str, int]:
        return promised(self.source, hosted=True)

    def check(self) -> None:
        if self.source.suffix == SUFFIX:
            raise ConfigError(f"decoder.path={self.path}: a {SUFFIX} file cannot be hosted; import it (decoder=llama)")
        super().check()

    def make(self, work: Work) -> dict[str, Any]:
        contents = Safetensors(self.source)
        for name, entry in contents.entries.items():
            if entry.dtype in DTYPES:
                contents[name]  # refuses numbers that are not finite
        model = HostedDecoderModel.from_huggingface(self.source, contents.dtype)
        model.require_hostable()
        tokenizer = Tokenizer.from_huggingface(self.source, model.config.vocab_size)
        tokenizer.save(work.folder / TOKENIZER)
        if tokenizer.chat is not None:
            save_chat(tokenizer.chat, work.folder)
        write_json(work.folder / HOSTED, asdict(model.config))
        folder = work.folder / HOSTED_FILES
        folder.mkdir(exist_ok=True)
        for file in self.files():
            _take(file, folder / file.name)
        return {"decoder": {"source": self.path, "hosted": True, **asdict(model.config)}}


def _take(file: Path, to: Path) -> None:
    """Link a file to another place, or copy it where the file system cannot link."""
    to.unlink(missing_ok=True)  # of a killed attempt
    real = file.resolve()  # in the hub's cache, files are symbolic links
    try:
        os.link(real, to)
    except OSError:  # on another file system, or owned by somebody else
        shutil.copyfile(real, to)
