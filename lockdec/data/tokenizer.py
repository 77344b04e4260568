"""A byte-level BPE tokenizer: any text in, the same text in lower case out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Int
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from lockdec.errors import ConfigError, StoreError

PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
_SPECIAL = ["<pad>", "<bos>", "<eos>"]
_SMALLEST = len(_SPECIAL) + 256


class Tokenizer:
    """Text to token ids and back; ids 0, 1 and 2 are padding, begin and end, and no text encodes to them.

    Decoding what was encoded gives the lower-case text back, white space included. Every text is read as if a
    blank stood before it, so that a word is the same token at the start of a text and inside it.
    """

    def __init__(self, fast: tokenizers.Tokenizer) -> None:
        # "<eos>" inside a text is five characters like any others, not an order to stop.
        fast.encode_special_tokens = True
        self._fast = fast

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special ones included."""
        return int(self._fast.get_vocab_size())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without begin and end."""
        encodings = self._fast.encode_batch_fast([f" {text}" for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def sequences(self, texts: Sequence[str], max_len: int) -> list[list[int]]:
        """BOS, text, EOS of each text; one longer than `max_len` is cut there and so has no EOS."""
        return [[BOS_ID, *ids, EOS_ID][:max_len] for ids in self.encode_batch(texts)]

    def batch(self, texts: Sequence[str], max_len: int) -> Int[Tensor, "b t"]:
        """BOS, text, EOS, padding: as `sequences`, padded to the longest."""
        return pad(self.sequences(texts, max_len))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids up to the first end; padding and begin are left out."""
        ids = list(ids)
        ids = ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids
        text: str = self._fast.decode(ids, skip_special_tokens=True)
        return text.removeprefix(" ")

    def decode_batch(self, rows: Int[Tensor, "b t"] | Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids."""
        return [self.decode(row) for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]

    def save(self, path: Path | str) -> None:
        """Write everything to one JSON file."""
        Path(path).write_text(self._fast.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read what `save` wrote; the file is JSON and nothing in it is run.

        Raises:
            StoreError: the file cannot be read or is not a tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
        # The Rust side raises bare Exception for a file that it cannot parse.
        except Exception as error:
            raise StoreError(f"{path}: not a tokenizer's JSON file ({error})") from error


def pad(sequences: Sequence[Sequence[int]]) -> Int[Tensor, "b t"]:
    """Right-pad sequences of token ids to the longest."""
    width = max(len(sequence) for sequence in sequences)
    return torch.tensor([[*sequence, *[PAD_ID] * (width - len(sequence))] for sequence in sequences])


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn byte-pair merges on `texts` (Sennrich et al. 2016, section 3.2, over bytes).

    Args:
        texts: what to learn from; the same texts in the same order give the same tokenizer.
        vocab_size: the most ids to use, special ones included; little text may fill fewer.

    Raises:
        ConfigError: `tokenizer.vocab_size` leaves no room for every byte.
    """
    if vocab_size < _SMALLEST:
        raise ConfigError(f"tokenizer.vocab_size={vocab_size}: at least {_SMALLEST} (256 bytes and 3 special tokens)")
    fast = tokenizers.Tokenizer(models.BPE())
    fast.normalizer = normalizers.Lowercase()
    # Words end at white space alone: "medium-dark" and "o'clock" may become one token each.
    words = pre_tokenizers.Split(Regex(r" ?\S+|\s+"), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fast.train_from_iterator((f" {text}" for text in texts), trainer)
    return Tokenizer(fast)
