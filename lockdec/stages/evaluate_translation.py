"""Translate the held-out texts, and measure what copying the translation of the nearest training phrase would reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lockdec.console import tell_once, track
from lockdec.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from lockdec.data.translation import TextPairs
from lockdec.evaluation.configuration import EvaluateTextConfig
from lockdec.evaluation.controls import averaged, shifted, shifts
from lockdec.evaluation.metrics import ONE_INPUT, References, score
from lockdec.evaluation.nearest import nearest_phrases
from lockdec.modules.losses import translation_loss
from lockdec.runtime.devices import place_on
from lockdec.stages.stage import Stage, Work
from lockdec.stages.translate import Translate, known_pairs, load_translator
from lockdec.store.reading import CAPTIONS
from lockdec.transformer.models import TransformerModel

ALWAYS = ("greedy", "beam")  # strategies that are measured whatever `decode.strategy` is


@dataclass(frozen=True, kw_only=True)
class EvaluateTranslation(Stage):
    """Generates, scores and compares; the translations are the artifact.

    Two controls: `nearest_phrase` copies the translation of the training phrase that is closest in characters
    (`lockdec.evaluation.nearest`), `shuffled` is the transformer given another text, averaged over several others.

    Attributes:
        shots, support_seed: of `TranslateConfig`; the copying control knows the same pairs as the transformer.
    """

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 5
    reads: ClassVar[tuple[type[Stage], ...]] = (Translate,)
    section = EvaluateTextConfig
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.evaluation.metrics",
        "lockdec.evaluation.nearest",
        "lockdec.modules.losses",
        "lockdec.stages.translate",
        "lockdec.transformer.decoding.beam",
        "lockdec.transformer.decoding.generation",
        "lockdec.transformer.decoding.sampling",
        "lockdec.transformer.decoding.tokens",
    )
    exports: ClassVar[tuple[str, ...]] = (CAPTIONS,)
    data: TextPairs
    decode: EvaluateTextConfig
    shots: int | None
    support_seed: int

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        model, source, target = load_translator(work.parent(Translate))
        translator = Translator(model, source, target, self.decode, place_on(model, work.device))
        data, rows = self.data, list(self.data.splits["val" if self.decode.split == "val" else "test"])
        known = known_pairs(data, self.shots, self.support_seed)
        texts, references = [data.texts[row] for row in rows], References(data.captions[row] for row in rows)
        if len(rows) == 1:
            tell_once(f"  {work.stage}: {ONE_INPUT}")
        nearest = [known[index] for index in nearest_phrases(texts, [data.texts[pair.index] for pair in known])]

        strategies = dict.fromkeys([self.decode.strategy, *ALWAYS])
        translations = {name: translator.translations(texts, name) for name in strategies}
        candidates = {
            "caption": translations[self.decode.strategy],
            "nearest_phrase": [pair.caption for pair in nearest],
        }
        scores = {name: score(captions, references) for name, captions in (translations | candidates).items()}
        loss, accuracy = translator.loss(texts, references)
        scores["caption"]["loss"] = loss
        wrong = []
        for shift in shifts(len(texts)):
            others = shifted(candidates["caption"], shift)  # the translations of these other texts
            candidates.setdefault("shuffled", others)
            loss, _ = translator.loss(shifted(texts, shift), references)
            wrong.append(score(others, references) | {"loss": loss})
        if wrong:
            scores["shuffled"] = averaged(wrong)

        with (work.folder / CAPTIONS).open("w", encoding="utf-8") as file:
            for index, row in enumerate(rows):
                line = {"id": data.ids[row], "input": texts[index], "references": list(references[index])}
                line |= {name: captions[index] for name, captions in (candidates | translations).items()}
                line["nearest_phrase_input"] = data.texts[nearest[index].index]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return {
            "data": {
                "name": type(data).__name__,
                "evaluated": self.decode.split,
                **{name: len(members) for name, members in data.splits.items()},
            },
            "metrics": scores["caption"],
            "controls": {name: scores[name] for name in ("shuffled", "nearest_phrase") if name in scores},
            "strategies": {name: scores[name] for name in strategies},
            "accuracy": accuracy,
        }


class Translator:
    """Translates texts in batches, and scores given translations.

    Args:
        device: where the model is.
    """

    def __init__(
        self,
        model: TransformerModel,
        source: Tokenizer,
        target: Tokenizer,
        decode: EvaluateTextConfig,
        device: torch.device,
    ) -> None:
        self.model, self.source, self.target, self.decode, self.device = model, source, target, decode, device

    def translations(self, texts: Sequence[str], strategy: str) -> list[str]:
        """One translation a text."""
        options = self.decode.generation | {"strategy": strategy}
        generator = torch.Generator().manual_seed(self.decode.seed)
        translations: list[str] = []
        for batch in track(self._batches(texts), f"translating, {strategy}"):
            tokens = self.model.generate(
                self._tokens(batch), bos_id=BOS_ID, eos_id=EOS_ID, pad_id=PAD_ID, generator=generator, **options
            )
            translations += self.target.decode_batch(tokens)
        return translations

    def loss(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, float]:
        """Mean cross-entropy in nats per token of the first references, and the share of tokens predicted right."""
        totals, count = torch.zeros(2, device=self.device), 0
        for batch, several in zip(self._batches(texts), self._batches(references), strict=True):
            first = [captions[0] for captions in several]
            target = self.target.batch(first, self.model.decoder.config.max_len).to(self.device)
            with torch.inference_mode():
                loss, accuracy, real = translation_loss(self.model, self._tokens(batch), target)
            totals, count = totals + real * torch.stack([loss, accuracy]), count + real
        return float(totals[0] / count), float(totals[1] / count)

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        return self.source.batch(texts, self.model.encoder.config.max_len).to(self.device)

    def _batches(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        size = self.decode.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]
