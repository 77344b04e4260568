"""The case of captions: kept where a decoder knows it, and never a difference where captions are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.captions import fold, in_case
from lockdec.data.folder import Folder
from lockdec.data.openmoji import OpenMoji
from lockdec.data.text import TextSource, pretraining_text
from lockdec.data.tokenizer import train_tokenizer
from lockdec.data.translation import translation_pairs
from lockdec.evaluation.metrics import METRICS
from tests.data.caption_rows import Texts


class Lines(TextSource):
    fingerprint = "lines"

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def lines(self) -> list[str]:
        return self._lines


@given(st.text())
def test_keeping_case_changes_nothing_that_is_compared(text: str) -> None:
    assert fold(in_case(text, "keep")) == fold(text) == in_case(text, "lower")


def test_captions_keep_their_case_and_punctuation() -> None:
    texts = Texts([["5.Nf3  Nc6!"], ["O-O"], ["e4"]], (1, 1, 1), case="keep")
    assert texts.captions == (("5.Nf3 Nc6!",), ("O-O",), ("e4",))
    folded = Texts([["5.Nf3  Nc6!"], ["O-O"], ["e4"]], (1, 1, 1))
    assert folded.captions == (("5.nf3 nc6!",), ("o-o",), ("e4",))
    assert texts.fingerprint != folded.fingerprint
    assert texts.text_fingerprint != folded.text_fingerprint
    assert texts.caseless_fingerprint == folded.fingerprint == folded.caseless_fingerprint


def test_a_tokenizer_that_keeps_case_gives_it_back() -> None:
    texts = ["5.Nf3 Nc6 is a move", "ATM sign", "flag Germany"]
    tokenizer = train_tokenizer(texts, 400, "keep")
    assert tokenizer.decode_batch(tokenizer.encode_batch(texts)) == texts
    lower = train_tokenizer(texts, 400)
    assert lower.decode_batch(lower.encode_batch(texts)) == [text.lower() for text in texts]


def test_no_held_out_caption_is_pretrained_on_in_any_case() -> None:
    captions = Texts([["A Red Hat"], ["The Blue Hat"], ["One hat"]], (1, 1, 1), case="keep")
    text = pretraining_text(captions, [Lines("THE BLUE HAT.", "one Hat", "Any Other Hat")])
    assert text == ["Any Other Hat", "A Red Hat"]


def test_captions_of_an_input_that_differ_in_case_alone_are_one(tmp_path: Path) -> None:
    rows = [{"input": f"text {row}", "captions": ["A Dog", "a dog", f"Dog {row}"]} for row in range(8)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert Folder(str(tmp_path), case="keep").captions[3] == ("A Dog", "Dog 3")
    assert Folder(str(tmp_path)).captions[3] == ("a dog", "dog 3")


def test_a_sentence_is_in_one_split_whatever_its_case(tmp_path: Path) -> None:
    lines = [f"Go {row}!\tGeh {row}!\tx\ngo {row}!\tLos {row}!\tx\n" for row in range(6)]
    (tmp_path / "deu.txt").write_text("".join(lines), encoding="utf-8")
    pairs = translation_pairs(str(tmp_path / "deu.txt"), val=1, test=1, case="keep")
    assert pairs.inputs([2]) == ["Go 2!"]
    assert pairs.captions[2] == ("Geh 2!", "Los 2!")


def test_the_names_of_drawings_keep_theirs_and_their_split() -> None:
    kept, folded = OpenMoji(case="keep"), OpenMoji()
    assert kept.splits == folded.splits
    assert kept.parts == folded.parts
    assert any(caption != fold(caption) for caption in kept.references("train"))
    assert [[fold(text) for text in texts] for texts in kept.captions] == [list(texts) for texts in folded.captions]


@pytest.mark.parametrize("name", [name for name in METRICS if name != "distinct"])
def test_metrics_compare_in_lower_case(name: str) -> None:
    metric = METRICS[name]
    assert (
        metric(["A Red Hat"], [["a red hat"]])
        == metric(["a red hat"], [["A RED Hat"]])
        == metric(["a red hat"], [["a red hat"]])
    )
