"""Text to token ids and back, with a byte-level BPE trained here or the tokenizer of an existing checkpoint."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
from jaxtyping import Bool, Int
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, tensor
from torch.nn import functional as F

from lockdec.data.captions import Case
from lockdec.errors import DataError, StoreError
from lockdec.store.reading import MOST_BYTES, from_json, read_bytes, read_text
from lockdec.transformer.decoding.tokens import SpecialTokens

PAD_ID, BOS_ID, EOS_ID = 0, 1, 2  # of a tokenizer trained here


@dataclass(frozen=True)
class ChatTemplate:
    """What a chat model was trained to see before and after a user's message, up to the answer; BOS is left out."""

    before: str
    after: str


@dataclass(frozen=True)
class Prompt:
    """What stands between BOS and every caption.

    Attributes:
        text: as the user gave it.
        tokens: its ids; of a chat model, those of its template around the text.
        blank: whether a blank separates a caption from it, as it separates words.
    """

    text: str
    tokens: tuple[int, ...]
    blank: bool


OURS = SpecialTokens(bos=BOS_ID, eos=EOS_ID, pad=PAD_ID)
_SPECIAL = ["<pad>", "<bos>", "<eos>"]
_MESSAGE = "a message of the user's"  # marks its place in a template
# Of a file that may come from a stranger. The largest vocabularies in use take 34 MB.
_MOST_BYTES = 64_000_000
_MOST_GROWTH = 1_000
_LONGEST_TOKEN = 1_000


class Tokenizer:
    """Converts text to token ids and back; no text is encoded as a special token.

    With a tokenizer trained here, encoding and decoding gives back the text, in lower case unless it was told to keep
    case, including its white space.
    Every text is encoded as if it started with a space, so that a word is the same token at the start of a text and
    inside it.

    Attributes:
        special: the ids of BOS, EOS and padding: 1, 2 and 0 if it was trained here. In other tokenizers they may be
            equal, so whether a token is real depends on its position and not on its id: see `real_targets`.
        prompt: stands before every text of a sequence; None for nothing.
        chat: the template of a chat model that was imported; None if there is none.
    """

    def __init__(
        self,
        fast: tokenizers.Tokenizer,
        special: SpecialTokens = OURS,
        prompt: Prompt | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        # "<eos>" inside a text is five ordinary characters, not the end of the text.
        fast.encode_special_tokens = True
        fast.no_padding()
        fast.no_truncation()
        bos, eos = ((fast.id_to_token(token), token) for token in (special.bos, special.eos))
        # Whatever a checkpoint had there: what is saved holds the special tokens in this way, and is fingerprinted.
        fast.post_processor = processors.TemplateProcessing(single=[bos[0], "$A", eos[0]], special_tokens=[bos, eos])
        self._fast, self.special, self.prompt, self.chat = fast, special, prompt, chat
        self._blank = "" if _adds_space(fast) or (prompt and not prompt.blank) else " "

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special ones included."""
        return int(self._fast.get_vocab_size())

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """The ids between BOS and the text of a sequence."""
        return self.prompt.tokens if self.prompt else ()

    def with_prompt(self, prompt: Prompt | None) -> Tokenizer:
        """The same tokenizer, whose sequences all begin with a prompt.

        Raises:
            StoreError: a token of the prompt is none of this tokenizer's.
        """
        for token in prompt.tokens if prompt else ():
            if not 0 <= token < self.vocab_size:
                raise StoreError(
                    f"prompt {prompt!r}: {token} is no token of the tokenizer (0 to {self.vocab_size - 1})"
                )
        return Tokenizer(self._fast, self.special, prompt, self.chat)

    def read_prompt(self, text: str, chat: ChatTemplate | None = None) -> Prompt:
        """The prompt that a text is: as it stands, or as the user's message in a chat.

        The ids of prompt and caption, one after the other, are those of "prompt caption" where tokens end at blanks.
        """
        if chat is None:
            return Prompt(text, tuple(self.with_prompt(None).encode_batch([text.rstrip(" ")])[0]), blank=True)
        reader = tokenizers.Tokenizer.from_str(self._fast.to_str())
        reader.encode_special_tokens = False  # the template's tokens are not text
        with _running():
            whole = reader.encode(f"{chat.before}{text}{chat.after}", add_special_tokens=False)
        return Prompt(text, tuple(whole.ids), blank=False)

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of everything that decides the ids of a text."""
        return hashlib.sha256(f"{self._fast.to_str()} {self.special}".encode()).hexdigest()

    @property
    def begins_word(self) -> Bool[Tensor, " vocab"]:
        """Which ids begin a word, if the tokenizer was trained here: those whose bytes begin with a space."""
        return tensor([str(self._fast.id_to_token(token)).startswith("Ġ") for token in range(self.vocab_size)])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without BOS and EOS."""
        once = list(dict.fromkeys(texts))  # pretraining text repeats each name many times
        blanked = [f"{self._blank}{text}" for text in once]
        with _running():
            encodings = self._fast.encode_batch_fast(blanked, add_special_tokens=False)
        ids = {text: encoding.ids for text, encoding in zip(once, encodings, strict=True)}
        return [ids[text].copy() for text in texts]

    def sequences(self, texts: Sequence[str], max_len: int) -> list[list[int]]:
        """BOS, prompt, text, EOS for each text; one longer than `max_len` is truncated and so has no EOS."""
        start = (self.special.bos, *self.prompt_tokens)
        return [[*start, *ids, self.special.eos][:max_len] for ids in self.encode_batch(texts)]

    def batch(self, texts: Sequence[str], max_len: int) -> Int[Tensor, "b t"]:
        """As `sequences`, padded to the longest."""
        return pad(self.sequences(texts, max_len), self.special.pad)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids up to the first EOS, without BOS, prompt and padding."""
        ids, special = list(ids), self.special
        start = [special.bos, *self.prompt_tokens]
        ids = ids[len(start) :] if ids[: len(start)] == start else ids[1:] if ids[:1] == [special.bos] else ids
        ids = ids[: ids.index(special.eos)] if special.eos in ids else ids
        with _running():
            text: str = self._fast.decode(ids, skip_special_tokens=True)
        return text.removeprefix(" ")

    def decode_batch(self, rows: Int[Tensor, "b t"] | Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids."""
        return [self.decode(row) for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]

    def save(self, path: Path | str) -> None:
        """Write the tokenizer to a JSON file that `tokenizers` and `transformers` can also read.

        The special tokens are stored in its post-processor and its padding.
        """
        copy, padding = tokenizers.Tokenizer.from_str(self._fast.to_str()), self.special.pad
        copy.enable_padding(pad_token=self._fast.id_to_token(padding), pad_id=padding)
        Path(path).write_text(copy.to_str(), encoding="utf-8")

    @classmethod
    def from_huggingface(cls, path: Path | str, vocab_size: int | None = None) -> Tokenizer:
        """The tokenizer of a checkpoint, with the special tokens that its files name.

        Where they name no token that begins or ends a text, BERT's [CLS] and [SEP] do, or the ids in config.json. EOS
        takes the place of BOS and padding that are not named, and of padding that only the tokenizer knows.

        Args:
            path: a folder or a GGUF file.
            vocab_size: how many ids the decoder knows; as many as the tokenizer where not given.

        Raises:
            DataError: there is no tokenizer, `tokenizers` cannot run it, no EOS token is named, or the decoder does not
                know one of its ids.
        """
        path = Path(path)
        theirs, config = _read_huggingface(path)
        try:
            require_modest(theirs)
        except ValueError as error:
            raise DataError(f"{path}: its tokenizer cannot be used ({error})") from error
        fast = tokenizers.Tokenizer.from_str(theirs.backend_tokenizer.to_str())
        known = max(fast.get_vocab().values(), default=-1) + 1
        if vocab_size is not None and known > vocab_size:
            fast = _without_added(fast, vocab_size)
            largest = max(fast.get_vocab().values(), default=-1)
            if largest >= vocab_size:
                raise DataError(
                    f"{path}: its tokenizer has {largest + 1} tokens, but the decoder knows only {vocab_size} "
                    f"(the last one is {fast.id_to_token(largest)!r})"
                )

        def named(role: str, *also: str) -> int | None:
            """The id of a special token: by the tokenizer's own names, and then by config.json."""
            for name in (role, *also):
                if (given := getattr(theirs, f"{name}_token_id", None)) is not None and name != "pad":
                    return _id(given, f"{path}: {name}_token_id", fast)
            if (given := config.get(f"{role}_token_id")) is not None:
                return _id(given, f"{path / 'config.json'}: {role}_token_id", fast)
            return None

        eos = named("eos", "sep")
        if eos is None:
            raise DataError(f"{path}: neither its tokenizer nor its config.json names the token that ends a text")
        bos = named("bos", "cls")
        padding = theirs.pad_token_id if theirs.pad_token_id is not None else config.get("pad_token_id")
        if not isinstance(padding, int) or fast.id_to_token(padding) is None:
            padding = eos
        special = SpecialTokens(bos=eos if bos is None else bos, eos=eos, pad=padding)
        return cls(fast, special, chat=_chat_template(theirs, str(fast.id_to_token(special.bos))))

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read what `save` wrote; the file is JSON and nothing in it is run.

        Raises:
            StoreError: the file cannot be read or is not a tokenizer.
        """
        try:
            text = read_text(Path(path), _MOST_BYTES)
            _require_modest(from_json(text))
            fast = tokenizers.Tokenizer.from_str(text)
            padding: Any = fast.padding
            fast.no_padding()  # which may be of any length
            fast.no_truncation()
            bos, eos = fast.encode("").ids
            return cls(fast, SpecialTokens(bos=bos, eos=eos, pad=padding["pad_id"]))
        except StoreError:
            raise
        except BaseException as error:
            if not is_failure(error):
                raise
            raise StoreError(f"{path}: not the JSON file of a saved tokenizer ({error})") from error


def is_failure(error: BaseException) -> bool:
    """Whether `tokenizers` failed: it raises a bare Exception, and a BaseException of its own where its Rust panics."""
    return isinstance(error, Exception) or _is_panic(error)


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def require_modest(theirs: Any) -> None:
    """Raise ValueError if a tokenizer of transformers has what `Tokenizer.load` refuses."""
    fast = getattr(theirs, "backend_tokenizer", None)
    if isinstance(fast, tokenizers.Tokenizer):
        _require_modest(json.loads(fast.to_str()))


def _require_modest(tokenizer: Any) -> None:
    """Raise ValueError if a text or a token could become much longer than it is.

    Each replacement in a chain may lengthen what the one before it has made.
    """
    for part in ("normalizer", "decoder"):
        if (growth := _growth(tokenizer[part])) > _MOST_GROWTH:
            raise ValueError(f"its {part} makes a text up to {growth} times as long")
    vocabulary = tokenizer["model"]["vocab"]
    tokens = [*(token if isinstance(token, str) else token[0] for token in vocabulary),
              *(token["content"] for token in tokenizer["added_tokens"])]  # fmt: skip
    if (longest := max(map(len, tokens), default=0)) > _LONGEST_TOKEN:
        raise ValueError(f"it has a token of {longest:,} characters")


def _growth(node: Any) -> int:
    """How many characters a part of a tokenizer can make of one, at most."""
    if isinstance(node, list):
        return math.prod(map(_growth, node))
    if not isinstance(node, dict):
        return 1
    growth = math.prod(map(_growth, node.values()))
    if node.get("type") == "Replace":
        found = node["pattern"].get("String")
        return growth * (len(node["content"]) // len(found) + 1 if found else len(node["content"]) + 1)
    if node.get("type") == "Precompiled":
        table = base64.b64decode(node["precompiled_charsmap"])
        return growth * max(map(len, table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")))
    return growth


def pad(sequences: Sequence[Sequence[int]], pad_id: int = PAD_ID) -> Int[Tensor, "b t"]:
    """Right-pad sequences of token ids to the longest."""
    width = max(len(sequence) for sequence in sequences)
    return torch.tensor([[*sequence, *[pad_id] * (width - len(sequence))] for sequence in sequences])


def real_targets(tokens: Int[Tensor, "b t"], eos_id: int, prompt_length: int = 0) -> Bool[Tensor, "b u"]:
    """Which of the tokens after the first column are targets: all of the text, and the EOS after it.

    Args:
        tokens: BOS, prompt, text, EOS, padding. Whatever follows EOS is padding, even if its id is that of EOS.
        prompt_length: how many tokens the prompt has; they are no targets, and an EOS among them ends nothing.
    """
    ends = tokens[:, 1 + prompt_length :] == eos_id
    real = ends.cumsum(1) - ends.long() == 0
    return F.pad(real, (prompt_length, 0), value=False) if prompt_length else real


@contextmanager
def _running() -> Iterator[None]:
    """Raise DataError where a tokenizer of somebody else's fails at a text."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and not _is_panic(error):  # of `tokenizers`, and not a fault of the caller
            raise
        raise DataError(f"its tokenizer cannot be used ({' '.join(str(error).split())})") from error


def _read_huggingface(path: Path) -> tuple[Any, dict[str, Any]]:
    """The tokenizer that transformers makes of a checkpoint, and what its config.json says."""
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: reading its tokenizer needs transformers (pip install transformers)") from error
    # Without any of these files, transformers would create an empty tokenizer.
    files = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")
    if path.is_dir() and not any((path / name).is_file() for name in files):
        raise DataError(f"{path}: no tokenizer in it (one of: {', '.join(files)})")
    read: Any = partial(AutoTokenizer.from_pretrained, trust_remote_code=False, local_files_only=True)
    try:
        if path.is_dir():
            config = json.loads(read_bytes(path / "config.json", MOST_BYTES, links=True))
            theirs = read(str(path))
        else:  # the folder of a GGUF file may hold other files that transformers reads
            config, theirs = {}, read(str(path.parent), gguf_file=path.name)
    except BaseException as error:  # the Rust and Python sides raise many kinds of exceptions
        if not is_failure(error):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: no tokenizer can be read from it ({reason})") from error
    if not isinstance(getattr(theirs, "backend_tokenizer", None), tokenizers.Tokenizer):
        raise DataError(f"{path}: its tokenizer has no tokenizer.json and none can be made of its files")
    return theirs, config


def _without_added(fast: tokenizers.Tokenizer, vocab_size: int) -> tokenizers.Tokenizer:
    """The tokenizer without special tokens that were added to it alone; no text is encoded as one of them."""
    parts = json.loads(fast.to_str())
    parts["added_tokens"] = [one for one in parts["added_tokens"] if one["id"] < vocab_size or not one["special"]]
    parts["post_processor"] = parts["padding"] = None  # which may name them
    return tokenizers.Tokenizer.from_str(json.dumps(parts))


def _id(given: Any, key: str, fast: tokenizers.Tokenizer) -> int:
    """The id, or the first where there are several; DataError if the tokenizer has no such token."""
    token = given[0] if isinstance(given, list) and given else given
    if type(token) is not int or token < 0 or fast.id_to_token(token) is None:
        last = max(fast.get_vocab().values(), default=-1)
        raise DataError(f"{key}={given} is no token of its tokenizer (0 to {last})")
    return token


def _chat_template(theirs: Any, bos: str) -> ChatTemplate | None:
    """What transformers renders around a user's message, in its sandbox; None where it can render nothing."""
    if not getattr(theirs, "chat_template", None):
        return None
    message = [{"role": "user", "content": _MESSAGE}]
    try:
        rendered: str = theirs.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template may raise what it likes, and one for other conversations is none for a message
        return None
    before, found, after = rendered.partition(_MESSAGE)
    return ChatTemplate(before.removeprefix(bos), after) if found and _MESSAGE not in after else None


def _adds_space(fast: tokenizers.Tokenizer) -> bool:
    """Whether it adds a space before every text, as SentencePiece does: then "a a" is encoded as "a" twice."""
    with _running():
        ids = fast.encode("a a", add_special_tokens=False).ids
    half = len(ids) // 2
    return bool(ids[:half] == ids[half:])


def train_tokenizer(texts: Iterable[str], vocab_size: int, case: Case = "lower") -> Tokenizer:
    """Train byte-pair merges on `texts` (Sennrich et al. 2016, section 3.2, over bytes).

    Args:
        texts: the training text; the same texts in the same order give the same tokenizer.
        vocab_size: the largest number of ids, including special ones and every byte; with little text there may be
            fewer.
        case: "lower" encodes every text in lower case, "keep" as it is.
    """
    fast = tokenizers.Tokenizer(models.BPE())
    if case == "lower":
        fast.normalizer = normalizers.Lowercase()
    # Words end only at white space: "medium-dark" and "o'clock" may become one token each.
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
