"""A captioner of new inputs: captions with what speaks for them, scores of given ones, and pictures of attention."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lockdec.data.captions import Input, Modality, composed, not_unicode
from lockdec.data.tokenizer import pad
from lockdec.encoders.encoded import normalised
from lockdec.errors import ConfigError, DataError, LockdecError
from lockdec.evaluation.attention_maps import Attention, layout, word_attention
from lockdec.evaluation.candidates import candidates as generated
from lockdec.evaluation.configuration import EvaluateConfig, require_kind, with_options
from lockdec.evaluation.finished import CaptionerParts, FinishedRun
from lockdec.evaluation.scoring import Candidate, Word, evidence, locked, token_log_probs
from lockdec.library.figure import Figure, draw
from lockdec.library.inputs import Given, as_list, read, several
from lockdec.library.stored import Neighbour, Shuffled, StoredInputs, stored_inputs
from lockdec.plugs.folder import put_plug, read_plug
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.models import LockingModel

BATCH = 16  # inputs at a time
MOST_CAPTIONS = 100  # of one input

T = TypeVar("T")


@dataclass(frozen=True)
class Caption:
    """A caption of an input.

    Attributes:
        text: the caption.
        log_prob: log p(caption | input), in nats, its end included.
        confidence: the geometric mean of the probabilities of its tokens, from 0 to 1.
        alternatives: other captions of the same input, with their log-probabilities; of beam search by these, of other
            strategies in the order in which they were chosen.
        words: of the caption, each with its log-probability and its evidence, both in nats.
        attention: of the words over the states of the input.
    """

    text: str
    log_prob: float
    confidence: float
    alternatives: tuple[Candidate, ...]
    words: tuple[Word, ...]
    attention: Attention = field(compare=False)  # tensors, which do not compare to a single truth value


@dataclass(frozen=True)
class Comparison:
    """What captions of an input have to be better than; `lockdec.evaluation.controls` has the same over a split.

    Attributes:
        locked: the caption of the decoder while its cross-attention is locked, which sees no input.
        shuffled: the caption of an unrelated input that the run has stored. None where nothing is stored, as in an
            export or a plug.
        nearest_neighbour: the caption of the closest input of the support set. None where the run has stored no states
            or no support set.
    """

    locked: str
    shuffled: Shuffled | None
    nearest_neighbour: Neighbour | None


class PartlyCaptionedError(DataError):
    """Some of several inputs cannot be captioned. The text names the first of them.

    Attributes:
        captions: of all inputs in order; None for those that cannot be captioned.
        problems: what is wrong with these, by their place among the inputs, from 0.
    """

    def __init__(self, captions: Sequence[Caption | None], problems: dict[int, str]) -> None:
        self.captions, self.problems = list(captions), problems
        first, *others = problems.values()
        more = f" (and {len(others)} more)" if others else ""
        good = len(captions) - len(problems)
        rest = f"; the captions of the other {good} are in the attribute captions of this error" if good else ""
        super().__init__(f"{first}{more}{rest}")

    def __reduce__(self) -> tuple[type[PartlyCaptionedError], tuple[list[Caption | None], dict[int, str]]]:
        """How it passes from one process to another, as from a worker of a pool."""
        return type(self), (self.captions, self.problems)


class Captioner:
    """Captions pictures, texts or arrays; made by `lockdec.load`.

    An input is what the encoder reads. Pictures: one of Pillow's, an array UInt8[height width 3], or the path of a
    file. Texts: a string. Arrays: Float[states channels] or Float[channels], the path of a `.npy` file, or an id that
    the encoder `features` knows. Sounds: Float[samples] at the rate of the encoder, or the path of a file. Instead of
    the path of a file, its content will do. Examples in several parts: a mapping of these, by "image", "text" or
    "array".

    Args:
        run: what it was made of, if that was a run, which may have stored its inputs.

    Attributes:
        modality: "image", "text", "array" or "several": the kind of its inputs.
        rate: samples a second, where its inputs are sounds; None for other inputs.
        seconds: how much of a sound it hears; None for all of it, and for other inputs.
    """

    def __init__(
        self, parts: CaptionerParts, device: torch.device | str = "cpu", run: FinishedRun | None = None
    ) -> None:
        self._parts, self._generator = parts, parts.generator
        self._run, self._stored = run, list[StoredInputs | None]()  # empty until they are asked for
        self.modality: Modality = parts.encoder.modality
        self.rate, self.seconds = parts.encoder.rate, parts.encoder.seconds
        self._device = torch.device(device)
        parts.encoder.to(self._device)
        parts.model.to(self._device)

    def __repr__(self) -> str:
        run = "" if self._run is None else f" of {self._run.folder}"
        return f"<Captioner{run}: {type(self._parts.encoder).__name__}, inputs of kind {self.modality!r}>"

    def caption(
        self,
        inputs: Given | Sequence[Given],
        n: int = 1,
        *,
        strategy: str | None = None,
        beams: int | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        temperature: float | None = None,
        candidates: int | None = None,
        utility: str | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        names: Sequence[str] | None = None,
        batch_size: int = BATCH,
    ) -> list[Caption]:
        """One caption for each input, in order; options that are not given are those of the run.

        Args:
            inputs: one input or several.
            n: how many captions to find for each input: the best and n - 1 alternatives, fewer where there are no more.
            strategy: greedy, beam, nucleus, top_k or mbr.
            beams: beam: how many unfinished captions are kept.
            top_p: nucleus and mbr: draw from the fewest tokens that have this probability together.
            top_k: top_k: draw from so many tokens.
            temperature: of what is drawn; below 1 is more cautious.
            candidates: mbr: how many captions are drawn for each input.
            utility: mbr: the metric by which they are compared: token_f1, rouge_l, chrf or exact.
            max_new_tokens: of a caption, its end included.
            seed: of what is drawn from here on; a captioner begins with the seed of the run.
            names: what errors call the inputs; their paths, or their places, where not given.
            batch_size: inputs at a time.

        Raises:
            PartlyCaptionedError: an input cannot be read or encoded; it holds the captions of all others.
            ConfigError: an option is impossible.
        """
        decode = self._decoding(
            strategy=strategy,
            beams=beams,
            top_p=top_p,
            top_k=top_k,
            temperature=temperature,
            candidates=candidates,
            utility=utility,
            max_new_tokens=max_new_tokens,
        )
        require_kind("n", n, int)
        if not 1 <= n <= MOST_CAPTIONS:
            raise ConfigError(f"n={n}: from 1 to {MOST_CAPTIONS} captions of each input")
        model, tokenizer = self._model(), self._parts.tokenizer
        if seed is not None:
            self._generator = _seeded(seed)
        generator = self._generator

        def captioned(some: Sequence[Input]) -> list[Caption]:
            encoded = self._encoded(some)
            found = generated(model, tokenizer, encoded, decode, generator, n)
            best = [caption.ids for caption, *_ in found]
            words = evidence(model, tokenizer, best, encoded)
            attention = self._attention(some, best, encoded)
            return [self._caption(*parts) for parts in zip(found, words, attention, strict=True)]

        given = as_list(inputs)
        found, problems = self._each(given, captioned, batch_size, names)
        if problems:
            raise PartlyCaptionedError(found, problems)
        return [caption for caption in found if caption is not None]

    def score(
        self, inputs: Given | Sequence[Given], captions: str | Sequence[str], batch_size: int = BATCH
    ) -> Float[Tensor, "inputs captions"]:
        """log p(caption | input) of every caption for every input, in nats, ends included; on the CPU.

        For retrieval take the best of a column, for ranking the best of a row. Longer captions have lower scores.

        Args:
            inputs: one input or several.
            captions: one or several, in the case of those that the run was trained on: lower case, by default.
            batch_size: inputs at a time.

        Raises:
            DataError: an input cannot be read or encoded, there is no caption, or one is no text or too long for the
                decoder.
        """
        texts = [_caption_text(text) for text in several(captions)]
        model, tokenizer = self._model(), self._parts.tokenizer
        if not texts:
            raise DataError("no captions to score: give one or more")
        longest = model.room
        ids = tokenizer.sequences(texts, longest + 1)
        if too_long := [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) > longest]:
            raise DataError(f"caption {too_long[0][:40]!r}: too long for a decoder of {longest} tokens")
        tokens = pad(ids, tokenizer.special.pad).to(self._device)
        special, prompt_length = tokenizer.special, len(tokenizer.prompt_tokens)

        def totals(some: Sequence[Input]) -> list[Tensor]:
            encoded, found = self._encoded(some), list[Tensor]()
            for states, mask in zip(encoded.states, encoded.mask, strict=True):
                shared = Encoded(states.expand(len(texts), -1, -1), mask.expand(len(texts), -1))
                found.append(token_log_probs(model, tokens, shared, special.eos, prompt_length).sum(1).cpu())
            return found

        found, problems = self._each(as_list(inputs), totals, batch_size)
        if problems:
            raise DataError(next(iter(problems.values())))
        return torch.stack([row for row in found if row is not None])

    def figure(self, given: Given, caption: Caption | None = None, name: str = "") -> Figure:
        """A picture of what each word of the caption of one input attends to; a notebook shows it.

        Args:
            given: the input.
            caption: of it, where it is known already.
            name: of the input, to be shown.

        Raises:
            DataError: the input cannot be read or encoded.
        """
        if caption is None:
            [caption] = self.caption([given])
        return draw(self.read(given, name), caption.text, caption.words, caption.attention, name)

    def compare(self, given: Given, *, seed: int | None = None, **options: Any) -> Comparison:
        """The captions that a caption of this input has to be better than.

        Args:
            given: the input.
            seed: of what is drawn; that of the run where not given. What `caption` draws is not changed.
            options: strategy, beams and others, as of `caption`.

        Raises:
            DataError: the input cannot be read or encoded.
            ConfigError: an option is impossible.
            StoreError: what the run has stored is damaged.
        """
        decode, model, tokenizer = self._decoding(**options), self._model(), self._parts.tokenizer
        generator = _seeded(self._parts.decode.seed if seed is None else seed)

        def best(encoded: Encoded) -> str:
            [[caption, *_]] = generated(model, tokenizer, encoded.to(self._device), decode, generator)
            return caption.text

        def compared(some: Sequence[Input]) -> list[Comparison]:
            encoded, stored = self._encoded(some), self._stored_inputs()
            with locked(model):
                alone = best(encoded)
            if stored is None:
                return [Comparison(alone, None, None)]
            other, states = stored.unrelated(encoded)
            return [Comparison(alone, Shuffled(other, best(states)), stored.nearest(encoded))]

        [found], problems = self._each([given], compared, 1)
        if found is None:
            raise DataError(problems[0])
        return found

    def with_plug(
        self,
        plug: str | Path,
        *,
        encoder: str | Path | None = None,
        trust: str | Sequence[str] = (),
        allow_download: str | Collection[str] = (),
    ) -> Captioner:
        """A captioner of another plug, on the decoder of this one: the decoder is in memory once. Both can be used.

        Args:
            plug: its folder.
            encoder, trust, allow_download: see `lockdec.load`.

        Raises:
            StoreError, ConfigError: as `lockdec.load`.
        """
        folder, parts = Path(plug), self._parts
        record, tokenizer = read_plug(folder), parts.tokenizer.with_prompt(None)
        trusted, downloads = several(trust), several(allow_download)
        put = put_plug(folder, record, parts.model, tokenizer, "this captioner", encoder, trusted, downloads)
        return Captioner(put, self._device)

    def read(self, given: Given, name: str = "") -> Input:
        """An input as its encoder reads it: a picture in RGB on white, a text in NFC, or an array of finite numbers.

        Args:
            name: what errors call the content of a file.

        Raises:
            DataError: it cannot be read, or is of another kind.
        """
        return read(given, self.modality, self.rate, name)

    @property
    def decoding(self) -> EvaluateConfig:
        """How captions are generated where no options are given."""
        return self._parts.decode

    def _decoding(self, **options: Any) -> EvaluateConfig:
        decode = with_options(self._parts.decode, **options)
        room = self._parts.model.room - len(self._parts.tokenizer.prompt_tokens)
        if decode.max_new_tokens > room:
            raise ConfigError(f"max_new_tokens={decode.max_new_tokens}: the decoder has room for {room}")
        return decode

    def _model(self) -> LockingModel:
        """The decoder, with what this captioner attends by."""
        model = self._parts.model
        if model.bridge is not self._parts.bridge:
            model.attach_bridge(self._parts.bridge)
        if model.in_use != self._parts.plugs:
            model.use(*self._parts.plugs)
        if model.locked:
            model.unlock()
        return model

    def _stored_inputs(self) -> StoredInputs | None:
        if not self._stored:
            self._stored.append(stored_inputs(self._run) if self._run is not None else None)
        return self._stored[0]

    def _caption(self, candidates: Sequence[Candidate], words: tuple[Word, ...], attention: Attention) -> Caption:
        best, *others = candidates
        return Caption(best.text, best.log_prob, best.confidence, tuple(others), words, attention)

    def _encoded(self, inputs: Sequence[Input]) -> Encoded:
        encoder, normalisation = self._parts.encoder, self._parts.normalisation
        return normalised(encoder.encode(inputs), normalisation).to(self._device)

    def _attention(
        self, inputs: Sequence[Input], captions: Sequence[Sequence[int]], encoded: Encoded
    ) -> list[Attention]:
        weights = word_attention(self._parts.model, self._parts.tokenizer, captions, encoded)
        found = []
        for given, over in zip(inputs, weights, strict=True):
            states = over.shape[1]
            labels = self._parts.encoder.labels(given)
            fitting = tuple(labels) if labels is not None and len(labels) == states else None
            single = self.modality == "image" and not self._parts.encoder.apart
            found.append(Attention(over, layout(states) if single else None, fitting))
        return found

    def _each(
        self,
        given: Sequence[Given],
        work: Callable[[Sequence[Input]], list[T]],
        batch_size: int,
        names: Sequence[str] | None = None,
    ) -> tuple[list[T | None], dict[int, str]]:
        """The result for each input, in batches; None and what is wrong for those that cannot be read or encoded."""
        require_kind("batch_size", batch_size, int)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: at least 1")
        if names is None:
            names = [_name(one, place) for place, one in enumerate(given)]
        if len(names) != len(given):
            raise ConfigError(f"names: {len(names)} for {len(given)} inputs; give one for each")
        results: list[T | None] = [None] * len(given)
        problems: dict[int, str] = {}
        for start in range(0, len(given), batch_size):
            ready: list[tuple[int, Input]] = []
            for place in range(start, min(start + batch_size, len(given))):
                try:
                    ready.append((place, self.read(given[place], names[place])))
                except DataError as error:
                    reason = str(error)
                    named = reason.startswith(names[place])  # an error of a file names it
                    problems[place] = reason if named else f"{names[place]}: {reason}"
            for places, found in self._attempts(ready, work, names, problems):
                for place, result in zip(places, found, strict=True):
                    results[place] = result
        return results, dict(sorted(problems.items()))

    def _attempts(
        self,
        ready: list[tuple[int, Input]],
        work: Callable[[Sequence[Input]], list[T]],
        names: Sequence[str],
        problems: dict[int, str],
    ) -> list[tuple[list[int], list[T]]]:
        """The results of a batch; if it fails, of its inputs one by one, to find out which of them it was."""
        if not ready:
            return []
        places = [place for place, _ in ready]
        try:
            return [(places, work([item for _, item in ready]))]
        except Exception as error:  # the encoder may be of any library, and inputs of another shape make a batch fail
            if isinstance(error, LockdecError) and not isinstance(error, DataError):
                raise
            if len(ready) > 1:
                return [part for one in ready for part in self._attempts([one], work, names, problems)]
            reason = " ".join(str(error).split())
            if not isinstance(error, DataError):
                reason = f"cannot be encoded ({type(error).__name__}: {reason})"
            problems[places[0]] = f"{names[places[0]]}: {reason}"
            return []


def _seeded(seed: int) -> torch.Generator:
    try:
        return torch.Generator().manual_seed(index(seed))
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # torch has one for each wrong kind
        raise ConfigError(f"seed={seed!r}: use a whole number of at most 64 bits") from error


def _caption_text(caption: object) -> str:
    """A caption in the Unicode form of those that the decoder has read; DataError if it is no text."""
    if not isinstance(caption, str):
        raise DataError(f"{caption!r:.40} is no caption: give a text")
    if problem := not_unicode(caption):
        raise DataError(f"caption {problem}")
    return composed(caption)


def _name(given: Given, place: int) -> str:
    """What an error calls an input."""
    if isinstance(given, str | Path):
        return str(given)[:200] or f"input {place}"
    file = getattr(given, "filename", "") if isinstance(given, Image.Image) else ""
    return str(file) or f"input {place}"
