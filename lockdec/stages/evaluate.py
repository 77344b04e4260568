"""Caption the held-out inputs, and say how much of the quality comes from seeing them.

Three controls stand beside every figure: `locked` (the pretrained decoder, which cannot see), `shuffled` (the trained
captioner shown another input) and `nearest_neighbour` (the caption of the closest input of the support set).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image

from lockdec.config import EvaluateConfig, FewshotConfig
from lockdec.console import track
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import support_set
from lockdec.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from lockdec.encoders.encoded import EncodedSet
from lockdec.metrics import score
from lockdec.modules.language_modeling import next_token_loss
from lockdec.stages.pretrain import load_tokenizer
from lockdec.stages.stage import Stage, Work
from lockdec.stages.unlock import load_captioner
from lockdec.transformer.models import Encoded, LockingDecoderModel

DRAWINGS = 24  # inputs whose pictures a run keeps for its report
CAPTIONS = "captions.jsonl"


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Generates, scores and compares; captions and pictures are the artifact."""

    version: ClassVar[int] = 1
    exports: ClassVar[tuple[str, ...]] = (CAPTIONS, "drawings")
    data: CaptionSet
    fewshot: FewshotConfig
    decode: EvaluateConfig

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        encoded = EncodedSet.open(work.parents["attach"].folder)
        captioner = Captioner(
            load_captioner(work.parents["pretrain"], work.parents["finetune"]),
            load_tokenizer(work.parents["pretrain"]),
            encoded,
            self.decode,
        )
        rows = list(self.data.splits["val" if self.decode.split == "val" else "test"])
        references = [self.data.captions[row] for row in rows]
        shown_another = rows[1:] + rows[:1]  # no row is shown itself
        support = support_set(self.data, self.fewshot.shots, self.fewshot.support_seed)
        nearest = nearest_rows(encoded, rows, [pair.index for pair in support])

        captions = {
            "caption": captioner.captions(rows, "captioning"),
            "shuffled": captioner.captions(shown_another, "captioning, shuffled"),
            "locked": [captioner.blind_caption()] * len(rows),
            "nearest_neighbour": [support[index].caption for index in nearest],
        }
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
                line |= {name: candidates[index] for name, candidates in captions.items()}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._keep_drawings(work, rows[:DRAWINGS])
        own = scores.pop("caption")
        return {
            "data": {
                "name": type(self.data).__name__,
                "evaluated": self.decode.split,
                **{name: len(members) for name, members in self.data.splits.items()},
            },
            "metrics": own,
            "controls": scores,
            "gap_over_blind": {name: value - scores["locked"][name] for name, value in own.items()},
            "looking": captioner.looking(rows, references),
        }

    def _keep_drawings(self, work: Work, rows: Sequence[int]) -> None:
        if self.data.modality != "image":
            return
        (work.folder / "drawings").mkdir(exist_ok=True)
        for row, picture in zip(rows, self.data.inputs(rows), strict=True):
            if isinstance(picture, Image.Image):
                picture.resize((96, 96)).save(work.folder / "drawings" / f"{self.data.ids[row]}.png")


def nearest_rows(encoded: EncodedSet, rows: Sequence[int], support: Sequence[int]) -> list[int]:
    """For each row, the index into `support` of the closest one: cosine of the mean normalised states."""
    queries = torch.nn.functional.normalize(encoded.pooled(rows), dim=-1)
    keys = torch.nn.functional.normalize(encoded.pooled(support), dim=-1)
    return [int(index) for index in (queries @ keys.T).argmax(dim=1)]


class Captioner:
    """Captions rows of an encoded set in batches, and scores given captions."""

    def __init__(
        self, model: LockingDecoderModel, tokenizer: Tokenizer, encoded: EncodedSet, decode: EvaluateConfig
    ) -> None:
        self.model, self.tokenizer, self.encoded, self.decode = model, tokenizer, encoded, decode
        self.generator = torch.Generator().manual_seed(decode.seed)

    def captions(self, rows: Sequence[int], doing: str) -> list[str]:
        """One caption a row."""
        return [
            caption
            for batch in track(self._batches(rows), doing)
            for caption in self._generate(self.encoded.batch(batch))
        ]

    def blind_caption(self) -> str:
        """What the decoder says when its cross-attention is locked: the same for every input."""
        self.model.lock()
        caption = self._generate(self.encoded.batch([0]))[0]
        self.model.unlock()
        return caption

    def loss(self, rows: Sequence[int], references: Sequence[Sequence[str]], locked: bool = False) -> float:
        """Mean cross-entropy in nats per token of the first references, given the rows' states."""
        total, count = 0.0, 0
        self.model.lock() if locked else self.model.unlock()
        for batch, texts in zip(self._batches(rows), self._batches(references), strict=True):
            tokens = self._tokens(texts)
            encoded = None if locked else self.encoded.batch(batch)
            with torch.inference_mode():
                loss, real = next_token_loss(self.model, tokens, encoded)
            total, count = total + float(loss) * real, count + real
        self.model.unlock()
        return total / count

    def looking(self, rows: Sequence[int], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Whether cross-attention looks: its entropy as a share of the uniform one's, and how much it writes.

        Returns:
            `attention_entropy` in 0..1 (1: every state alike) and `cross_to_residual_norm`, both means over real
            tokens, heads and layers of the first batch.
        """
        rows, references = rows[: self.decode.batch_size], references[: self.decode.batch_size]
        encoded, tokens = self.encoded.batch(rows), self._tokens(references)
        real = tokens[:, 1:] != PAD_ID
        with torch.inference_mode():
            looks = self.model.look(tokens[:, :-1], encoded)
        uniform = encoded.mask.sum(dim=1).clamp(min=2).float().log()[:, None, None]
        entropies, ratios = [], []
        for look in looks:
            entropy = torch.special.entr(look.weights).sum(dim=-1) / uniform  # (b, heads, t)
            entropies.append(entropy.mean(dim=1)[real].mean())
            ratios.append((look.cross_norm / look.residual_norm)[real].mean())
        return {
            "attention_entropy": float(torch.stack(entropies).mean()),
            "cross_to_residual_norm": float(torch.stack(ratios).mean()),
        }

    def _generate(self, encoded: Encoded) -> list[str]:
        tokens = self.model.generate(
            encoded, bos_id=BOS_ID, eos_id=EOS_ID, pad_id=PAD_ID, generator=self.generator, **self.decode.generation
        )
        return self.tokenizer.decode_batch(tokens)

    def _tokens(self, references: Sequence[Sequence[str]]) -> torch.Tensor:
        return self.tokenizer.batch([captions[0] for captions in references], self.model.config.max_len)

    def _batches(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        size = self.decode.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]
