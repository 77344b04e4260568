"""Caption the held-out inputs, and measure how much of the quality comes from attending to them.

Controls stand beside every figure: `prior` (the decoder, taught the captions of the support set without an input; where
the pipeline has that stage), `shuffled` (the trained captioner given an unrelated input), `nearest_neighbour` (the
caption of the closest input of the support set), where inputs are texts `nearest_phrase` (the same, closest by its
characters instead of its states), and `locked` (the pretrained decoder, whose cross-attention is locked).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from lockdec.config.schema import FewshotConfig
from lockdec.console import printable, tell_once
from lockdec.data.captions import CaptionSet, spread
from lockdec.data.fewshot import Pair, support_set
from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.attention_maps import attention_maps
from lockdec.evaluation.attributes import AttributeReader, lexicon_of, unmentioned
from lockdec.evaluation.captioner import EncodedCaptioner
from lockdec.evaluation.configuration import NEUTRAL, EvaluateConfig
from lockdec.evaluation.controls import (
    ConstantState,
    averaged,
    nearest_rows,
    shifted,
    shifts,
    write_support,
)
from lockdec.evaluation.metrics import ONE_INPUT, References, score
from lockdec.evaluation.nearest import nearest_phrases
from lockdec.evaluation.stored import load_captioner, load_chat, load_prompt, load_tokenizer, precision_of
from lockdec.runtime.devices import place_on
from lockdec.stages.attach import Attach
from lockdec.stages.finetune import Finetune
from lockdec.stages.prior import Prior
from lockdec.stages.prompting import prompted, require_room, tell_cut
from lockdec.stages.stage import DecoderStage, Laps, Stage, Work
from lockdec.stages.unlock import Unlock
from lockdec.store import Artifact
from lockdec.store.reading import ATTENTION, CAPTIONS, SUPPORT

DRAWINGS = 24  # inputs whose pictures a run keeps for its report


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Generates, scores and compares; captions and pictures are the artifact."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 8
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage, Attach, Finetune)
    neutral: ClassVar[tuple[str, ...]] = (*Stage.neutral, "fewshot.references=one", *NEUTRAL)  # what a stage is without
    section = EvaluateConfig
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.data.fewshot",
        "lockdec.data.tokenizer",
        "lockdec.evaluation.attention_maps",
        "lockdec.evaluation.attention_statistics",
        "lockdec.evaluation.attributes",
        "lockdec.evaluation.candidates",
        "lockdec.evaluation.captioner",
        "lockdec.evaluation.controls",
        "lockdec.evaluation.metrics",
        "lockdec.evaluation.nearest",
        "lockdec.evaluation.scoring",
        "lockdec.evaluation.stored",
        "lockdec.modules.losses",
        "lockdec.stages.prompting",
        "lockdec.transformer.decoding.beam",
        "lockdec.transformer.decoding.generation",
        "lockdec.transformer.decoding.sampling",
        "lockdec.transformer.decoding.tokens",
    )
    exports: ClassVar[tuple[str, ...]] = (CAPTIONS, ATTENTION, SUPPORT, "drawings")
    data: CaptionSet
    fewshot: FewshotConfig
    decode: EvaluateConfig

    def parents(self, before: Mapping[str, Stage]) -> tuple[str, ...]:
        """Those of every evaluation, and the language prior where there is one."""
        prior = (Prior.name,) if Prior.name in before else ()
        return (*super().parents(before), *prior)

    def check(self) -> None:
        unmentioned("evaluate.attributes", self.decode.attributes, self.data)

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Refuse captions that the decoder has no room for behind the prompt, a token a word; `make` counts tokens."""
        decoder, finetune = before[DecoderStage.name], before[Finetune.name]
        if isinstance(decoder, DecoderStage) and isinstance(finetune, Finetune) and "max_len" in decoder.sizes:
            words = len((finetune.prompt or "").split())
            require_room(words, self.decode.max_new_tokens, decoder.sizes["max_len"], _taken(before))

    def check_decoder(self, decoder: Sequence[Artifact], before: Mapping[str, Stage]) -> None:
        """Refuse captions that do not fit behind the prompt, in tokens, before any is learned."""
        finetune, told = before[Finetune.name], decoder[0].metrics.get("decoder", {})
        if not isinstance(finetune, Finetune):
            return
        tokenizer = prompted(load_tokenizer(*decoder), load_chat(*decoder), finetune.prompt, finetune.fit.chat)
        sizes = before[DecoderStage.name]
        longest = told.get("max_len") or (sizes.sizes.get("max_len") if isinstance(sizes, DecoderStage) else None)
        if longest is not None:
            taken = _taken(before)
            require_room(len(tokenizer.prompt_tokens), self.decode.max_new_tokens, longest, taken)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        laps = Laps()
        if missing := unmentioned("evaluate.attributes", self.decode.attributes, self.data):
            tell_once(f"  {work.stage}: no caption has {printable(', '.join(missing))}")
        encoded = EncodedSet.open(work.parent(Attach).folder)
        tokenizer = load_tokenizer(*work.decoder).with_prompt(load_prompt(work.parent(Finetune)))
        model = load_captioner(*work.decoder, work.parent(Finetune), device=work.device)
        most, longest = self.decode.max_new_tokens, model.config.max_len
        require_room(len(tokenizer.prompt_tokens), most, longest, longest - model.room)
        device = place_on(model, work.device)
        captioner = EncodedCaptioner(model, tokenizer, encoded, self.decode, device)
        rows = list(self.data.splits["val" if self.decode.split == "val" else "test"])
        references = References(self.data.captions[row] for row in rows)
        if len(rows) == 1:
            tell_once(f"  {work.stage}: {ONE_INPUT}")
        texts = [str(text) for text in self.data.inputs(rows)] if self.data.modality == "text" else []

        laps.end("loading")
        found = captioner.captions(rows, "captioning")
        captions = {"caption": [caption.text for caption in found]}
        laps.end("captions")
        read = captioner.read(references, work.folder)
        tell_cut(work.stage, read.sequences, tokenizer.special.eos, longest)
        scores = {"caption": {"loss": captioner.loss(rows, read)}}
        laps.end("loss")
        scores["caption"] = score(captions["caption"], references) | scores["caption"]
        laps.end("metrics")
        if Prior.name in work.parents:
            prior = EncodedCaptioner(
                load_captioner(*work.decoder, work.parent(Prior)), tokenizer, ConstantState(), self.decode, device
            )
            if (taught := precision_of(prior.model)) != (used := precision_of(model)):
                tell_once(
                    f"  {work.stage}: the prior is of the decoder in {taught}, and the captions are of it in {used}"
                )
            place_on(prior.model, work.device)
            captions["prior"] = [prior.any_caption()] * len(rows)
            scores["prior"] = score(captions["prior"], references) | {"loss": prior.loss(rows, read)}
            del prior
        laps.end("prior")
        wrong = []
        for shift in shifts(len(rows)):
            # What is said of an input does not depend on the references beside it: no caption is generated anew.
            others = shifted(captions["caption"], shift)
            captions.setdefault("shuffled", others)
            wrong.append(score(others, references) | {"loss": captioner.loss(shifted(rows, shift), read)})
        if wrong:
            scores["shuffled"] = averaged(wrong)
        laps.end("shuffled")
        captions["locked"] = [captioner.locked_caption()] * len(rows)
        scores["locked"] = score(captions["locked"], references) | {"loss": captioner.loss(rows, read, locked=True)}
        read.close()
        laps.end("locked")
        support = support_set(self.data, self.fewshot.shots, self.fewshot.support_seed, self.fewshot.references)
        for name, copies in self._copied(support, encoded, rows, texts).items():
            captions[name], scores[name] = copies, score(copies, references)
        laps.end("copied")

        self._keep_captions(work, rows, texts, captions, [caption.confidence for caption in found])
        write_support(work.folder / SUPPORT, self.data.ids, support)
        shown = spread(range(len(rows)), DRAWINGS)
        self._keep_drawings(work, [rows[index] for index in shown])
        if not encoded.normalisation.apart:  # the states of several encoders form no grid
            self._keep_attention(work, captioner, [(rows[index], captions["caption"][index]) for index in shown])
        own = scores.pop("caption")
        looking = captioner.attention_statistics(rows, references)
        laps.end("pictures and attention")
        reference = "prior" if "prior" in scores else "locked"
        return {
            "data": {
                "name": type(self.data).__name__,
                "evaluated": self.decode.split,
                **{name: len(members) for name, members in self.data.splits.items()},
            },
            "metrics": own,
            "controls": scores,
            f"gap_over_{reference}": {name: value - scores[reference][name] for name, value in own.items()},
            "looking": looking,
            work.stage: {"seconds": laps.seconds},
            **self._attributes(captions, references),
        }

    def _attributes(self, captions: Mapping[str, Sequence[str]], references: References) -> dict[str, Any]:
        """How often the captions of each kind get each attribute right; nothing where none are declared."""
        lexicon = lexicon_of(self.data, self.decode.attributes)
        if not lexicon:
            return {}
        reader = AttributeReader(lexicon)
        return {"attributes": {name: reader.accuracies(texts, references) for name, texts in captions.items()}}

    def _copied(
        self, support: Sequence[Pair], encoded: EncodedSet, rows: Sequence[int], texts: Sequence[str]
    ) -> dict[str, list[str]]:
        """The controls that copy a caption of the support set."""
        known = [pair.index for pair in support]
        copied = {"nearest_neighbour": [support[index].caption for index in nearest_rows(encoded, rows, known)]}
        if texts:
            nearest = nearest_phrases(texts, [str(text) for text in self.data.inputs(known)])
            copied["nearest_phrase"] = [support[index].caption for index in nearest]
        return copied

    def _keep_captions(
        self,
        work: Work,
        rows: Sequence[int],
        texts: Sequence[str],
        captions: Mapping[str, Sequence[str]],
        confidences: Sequence[float],
    ) -> None:
        with (work.folder / CAPTIONS).open("w", encoding="utf-8") as file:
            for index, row in enumerate(rows):
                line: dict[str, Any] = {"id": self.data.ids[row], "references": list(self.data.captions[row])}
                line |= {"input": texts[index]} if texts else {}
                line |= {name: candidates[index] for name, candidates in captions.items()}
                line["confidence"] = round(confidences[index], 4)  # of `caption`
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _keep_drawings(self, work: Work, rows: Sequence[int]) -> None:
        if self.data.modality != "image":
            return
        (work.folder / "drawings").mkdir(exist_ok=True)
        for row, picture in zip(rows, self.data.inputs(rows), strict=True):
            if isinstance(picture, Image.Image):
                picture.resize((96, 96)).save(work.folder / "drawings" / f"{self.data.ids[row]}.png")

    def _keep_attention(self, work: Work, captioner: EncodedCaptioner, pairs: Sequence[tuple[int, str]]) -> None:
        if self.data.modality != "image":
            return
        maps = attention_maps(captioner, [row for row, _ in pairs], [caption for _, caption in pairs])
        with (work.folder / ATTENTION).open("w", encoding="utf-8") as file:
            for row, found in maps:
                file.write(json.dumps({"id": self.data.ids[row], **found}, ensure_ascii=False) + "\n")


def _taken(before: Mapping[str, Stage]) -> int:
    """How many positions of the decoder the bridge takes before the prompt."""
    unlock = before.get(Unlock.name)
    return unlock.bridge.positions if isinstance(unlock, Unlock) and unlock.bridge is not None else 0
