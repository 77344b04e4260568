"""Caption the held-out inputs, and say how much of the quality comes from seeing them.

Three controls stand beside every figure: `locked` (the pretrained decoder, which cannot see), `shuffled` (the trained
captioner shown an unrelated input) and `nearest_neighbour` (the caption of the closest input of the support set); where
inputs are texts a fourth, `nearest_phrase` (the same, closest by its characters instead of its states).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image
from torch import Tensor

from lockdec.config.schema import EvaluateConfig, FewshotConfig
from lockdec.console import track
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import support_set
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.looking import looking
from lockdec.evaluation.metrics import score
from lockdec.evaluation.nearest import nearest_phrases
from lockdec.evaluation.stored import generate_captions, load_captioner, load_tokenizer
from lockdec.modules.language_modeling import next_token_loss
from lockdec.runtime.devices import place_on
from lockdec.stages.stage import Stage, Work
from lockdec.transformer.models import Encoded, LockingDecoderModel

T = TypeVar("T")

DRAWINGS = 24  # inputs whose pictures a run keeps for its report
CAPTIONS, ATTENTION = "captions.jsonl", "attention.jsonl"


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Generates, scores and compares; captions and pictures are the artifact."""

    version: ClassVar[int] = 4
    exports: ClassVar[tuple[str, ...]] = (CAPTIONS, ATTENTION, "drawings")
    data: CaptionSet
    fewshot: FewshotConfig
    decode: EvaluateConfig

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        encoded = EncodedSet.open(work.parents["attach"].folder)
        model = load_captioner(work.parents["pretrain"], work.parents["finetune"])
        device = place_on(model, work.device)
        captioner = Captioner(model, load_tokenizer(work.parents["pretrain"]), encoded, self.decode, device)
        rows = list(self.data.splits["val" if self.decode.split == "val" else "test"])
        references = [self.data.captions[row] for row in rows]
        # Neighbours in a caption set are variants of each other, so each row is shown one half the split away.
        shown_another = rows[len(rows) // 2 :] + rows[: len(rows) // 2]
        support = support_set(self.data, self.fewshot.shots, self.fewshot.support_seed)
        nearest = nearest_rows(encoded, rows, [pair.index for pair in support])

        captions = {
            "caption": captioner.captions(rows, "captioning"),
            "shuffled": captioner.captions(shown_another, "captioning, shuffled"),
            "locked": [captioner.locked_caption()] * len(rows),
            "nearest_neighbour": [support[index].caption for index in nearest],
        }
        texts = [str(text) for text in self.data.inputs(rows)] if self.data.modality == "text" else []
        if texts:
            known = [str(text) for text in self.data.inputs([pair.index for pair in support])]
            captions["nearest_phrase"] = [support[index].caption for index in nearest_phrases(texts, known)]
        losses = {
            "caption": captioner.loss(rows, references),
            "shuffled": captioner.loss(shown_another, references),
            "locked": captioner.loss(rows, references, locked=True),
        }
        scores: dict[str, dict[str, float]] = {}
        for name, candidates in captions.items():
            scores[name] = score(candidates, references)
            if name in losses:
                scores[name]["loss"] = losses[name]

        with (work.folder / CAPTIONS).open("w", encoding="utf-8") as file:
            for index, row in enumerate(rows):
                line = {"id": self.data.ids[row], "references": list(references[index])}
                line |= {"input": texts[index]} if texts else {}
                line |= {name: candidates[index] for name, candidates in captions.items()}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        shown = spread(range(len(rows)), DRAWINGS)
        self._keep_drawings(work, [rows[index] for index in shown])
        self._keep_looks(work, captioner, [(rows[index], captions["caption"][index]) for index in shown])
        own = scores.pop("caption")
        return {
            "data": {
                "name": type(self.data).__name__,
                "evaluated": self.decode.split,
                **{name: len(members) for name, members in self.data.splits.items()},
            },
            "metrics": own,
            "controls": scores,
            "gap_over_locked": {name: value - scores["locked"][name] for name, value in own.items()},
            "looking": captioner.looking(rows, references),
        }

    def _keep_drawings(self, work: Work, rows: Sequence[int]) -> None:
        if self.data.modality != "image":
            return
        (work.folder / "drawings").mkdir(exist_ok=True)
        for row, picture in zip(rows, self.data.inputs(rows), strict=True):
            if isinstance(picture, Image.Image):
                picture.resize((96, 96)).save(work.folder / "drawings" / f"{self.data.ids[row]}.png")

    def _keep_looks(self, work: Work, captioner: Captioner, pairs: Sequence[tuple[int, str]]) -> None:
        if self.data.modality != "image":
            return
        with (work.folder / ATTENTION).open("w", encoding="utf-8") as file:
            for row, look in captioner.word_looks([row for row, _ in pairs], [caption for _, caption in pairs]):
                file.write(json.dumps({"id": self.data.ids[row], **look}, ensure_ascii=False) + "\n")


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced: neighbours in a caption set are variants of each other."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def nearest_rows(encoded: EncodedSet, rows: Sequence[int], support: Sequence[int]) -> list[int]:
    """For each row, the index into `support` of the closest one: cosine of the mean normalised states."""
    queries = torch.nn.functional.normalize(encoded.pooled(rows), dim=-1)
    keys = torch.nn.functional.normalize(encoded.pooled(support), dim=-1)
    return [int(index) for index in (queries @ keys.T).argmax(dim=1)]


class Captioner:
    """Captions rows of an encoded set in batches, and scores given captions.

    Args:
        device: where the model is; what it reads is brought there batch by batch.
    """

    def __init__(
        self,
        model: LockingDecoderModel,
        tokenizer: Tokenizer,
        encoded: EncodedSet,
        decode: EvaluateConfig,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.encoded, self.decode, self.device = model, tokenizer, encoded, decode, device
        self.generator = torch.Generator().manual_seed(decode.seed)  # of the CPU: the same luck on every device

    def captions(self, rows: Sequence[int], doing: str) -> list[str]:
        """One caption a row."""
        return [
            caption for batch in track(self._batches(rows), doing) for caption in self._generate(self._states(batch))
        ]

    def locked_caption(self) -> str:
        """The caption that the decoder generates while its cross-attention is locked: the same for every input."""
        self.model.lock()
        caption = self._generate(self._states([0]))[0]
        self.model.unlock()
        return caption

    def loss(self, rows: Sequence[int], references: Sequence[Sequence[str]], locked: bool = False) -> float:
        """Mean cross-entropy in nats per token of the first references, given the rows' states."""
        total, count = 0.0, 0
        self.model.lock() if locked else self.model.unlock()
        for batch, texts in zip(self._batches(rows), self._batches(references), strict=True):
            tokens = self._tokens(texts)
            encoded = None if locked else self._states(batch)
            with torch.inference_mode():
                loss, real = next_token_loss(self.model, tokens, self.tokenizer.special.eos, encoded)
            total, count = total + float(loss) * real, count + real
        self.model.unlock()
        return total / count

    def looking(self, rows: Sequence[int], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Whether cross-attention looks, on the first batch; see `lockdec.training.watching.looking`."""
        rows, references = rows[: self.decode.batch_size], references[: self.decode.batch_size]
        encoded, tokens = self._states(rows), self._tokens(references)
        return looking(self.model, tokens, encoded, self.tokenizer.special.eos)

    def word_looks(self, rows: Sequence[int], captions: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        """Where the captioner looked for each word of each caption, for inputs whose states form a square grid.

        Returns:
            Each row with its `words`, the `grid` (rows, columns), and the `weights` of each word: the mean over heads,
            layers and the word's tokens, over the cells row by row, with sum 1.
        """
        side = math.isqrt(self.encoded.max_states)
        if not rows or side * side != self.encoded.max_states:
            return []
        tokens = self.tokenizer.batch(captions, self.model.config.max_len)
        looks = self.model.attention_maps(tokens[:, :-1].to(self.device), self._states(rows))
        seen = torch.stack([look.weights.mean(dim=1) for look in looks]).mean(dim=0).cpu()  # (b, t, s)
        result = []
        for index, row in enumerate(rows):
            words = captions[index].split()
            weights: list[list[Tensor]] = [[] for _ in words]
            for position in range(1, tokens.shape[1]):
                word = len(self.tokenizer.decode(tokens[index, 1 : position + 1].tolist()).split()) - 1
                if tokens[index, position] == self.tokenizer.special.eos:
                    break
                if 0 <= word < len(words):
                    weights[word].append(seen[index, position - 1])
            means = [torch.stack(parts).mean(dim=0) if parts else seen[index, 0] for parts in weights]
            cells = [[round(float(cell), 5) for cell in mean / mean.sum()] for mean in means]
            result.append((row, {"words": words, "grid": [side, side], "weights": cells}))
        return result

    def _generate(self, encoded: Encoded) -> list[str]:
        return generate_captions(self.model, self.tokenizer, encoded, self.decode, self.generator)

    def _states(self, rows: Sequence[int]) -> Encoded:
        return self.encoded.batch(rows).to(self.device)

    def _tokens(self, references: Sequence[Sequence[str]]) -> Tensor:
        first = [captions[0] for captions in references]
        return self.tokenizer.batch(first, self.model.config.max_len).to(self.device)

    def _batches(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        size = self.decode.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]
