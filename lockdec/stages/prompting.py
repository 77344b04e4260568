"""What stands before every caption: its words, its tokens, and the room that a decoder has behind it."""

from __future__ import annotations

from collections.abc import Sequence

from lockdec.console import tell_once
from lockdec.data.captions import CaptionSet
from lockdec.data.tokenizer import ChatTemplate, Tokenizer
from lockdec.errors import ConfigError

NO_CHAT = (
    "finetune.chat=true: the decoder has no chat template that takes a single message of a user; "
    "choose a decoder that has one, or use false"
)


def words_of(prompt: str | None, data: CaptionSet) -> str | None:
    """The words of `finetune.prompt`: those that suit the data where it is "auto"."""
    return data.prompt if prompt == "auto" else prompt


def prompt_fingerprint(prompt: str | None, data: CaptionSet) -> dict[str, str]:
    """Of a stage's fingerprints, that of words which the data chose; otherwise they are in its config."""
    return {"prompt": str(data.prompt)} if prompt == "auto" else {}


def prompted(tokenizer: Tokenizer, template: ChatTemplate | None, prompt: str | None, chat: bool) -> Tokenizer:
    """The decoder's tokenizer, whose sequences all begin with a prompt.

    Args:
        template: of the decoder, if it has one.
        prompt: the words; None for none.
        chat: whether they are the user's message in the template.

    Raises:
        ConfigError: they are a message, and the decoder has no chat template.
    """
    if prompt is None:
        return tokenizer
    if chat and template is None:
        raise ConfigError(NO_CHAT)
    return tokenizer.with_prompt(tokenizer.read_prompt(prompt, template if chat else None))


def tell_cut(stage: str, sequences: Sequence[Sequence[int]], eos: int, max_len: int) -> int:
    """Say how many captions are cut, since a decoder has no room for all of their tokens and the EOS after them."""
    cut = sum(sequence[-1] != eos for sequence in sequences)
    if cut:
        what = f"{cut} of {len(sequences)} captions are longer than" if cut > 1 else "1 caption is longer than"
        tell_once(f"  {stage}: {what} decoder.max_len={max_len} leaves room for, and cut there")
    return cut


def require_room(prompt_length: int, caption: int | None, max_len: int, before: int = 0) -> None:
    """Raise ConfigError unless a prompt and a caption of these lengths, in tokens, fit into a decoder.

    Args:
        caption: `evaluate.max_new_tokens`; None for the shortest caption that there is, of two tokens.
        before: positions that a bridge takes before them.
    """
    if before + prompt_length + (2 if caption is None else caption) > max_len:
        parts = [f"{before} positions of the bridge"] if before else []
        parts += [f"a prompt of at least {prompt_length} tokens"] if prompt_length else []
        parts += ["a caption"] if caption is None else [f"evaluate.max_new_tokens={caption}"]
        what = " and ".join(parts)
        raise ConfigError(
            f"decoder.max_len={max_len} is too little for {what}: shorten them, or take a decoder with a larger max_len"
        )
