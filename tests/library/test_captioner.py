"""The library: captions as the run gave them, with numbers that follow from the decoder's own logits."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

import lockdec
from lockdec.config.building import Builder
from lockdec.data.captions import CaptionSet
from lockdec.encoders.encoded import normalised
from lockdec.evaluation.attention_maps import Attention, layout
from lockdec.evaluation.candidates import candidates
from lockdec.evaluation.configuration import with_options
from lockdec.evaluation.finished import CaptionerParts, find_run, open_captioner
from lockdec.evaluation.scoring import evidence, locked
from lockdec.library.inputs import Given
from lockdec.pipeline.assembling import assemble
from lockdec.stages.evaluate import Evaluate
from tests.conftest import TinyRun, composed

WITHOUT = """
import sys, time
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hydra", "lightning", "pytorch_lightning", "wandb"):
            raise ImportError(name + " was imported")
sys.meta_path.insert(0, Refuse())
started = time.monotonic()
import lockdec
captioner = lockdec.load(sys.argv[1])
[caption] = captioner.caption(sys.argv[2], n=2)
captioner.figure(sys.argv[2], caption)
print(caption.text)
"""


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users have it: nothing checks annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="module")
def captioner(tiny: TinyRun) -> lockdec.Captioner:
    return lockdec.load(tiny.folder)


def test_what_a_notebook_shows_names_the_run_and_fits_a_line(captioner: lockdec.Captioner, tiny: TinyRun) -> None:
    assert repr(captioner) == f"<Captioner of {tiny.folder}: EfficientNetLite0, inputs of kind 'image'>"
    attention = Attention(torch.full((2, 64), 1 / 64), layout(64), None)
    assert repr(attention) == "Attention(2 words, 64 states, grid=Layout(rows=8, columns=8, apart=0), labels=None)"


@pytest.fixture(scope="module")
def parts(tiny: TinyRun) -> CaptionerParts:
    """The same captioner in pieces, to compute by hand with."""
    return open_captioner(find_run(tiny.folder))


@pytest.fixture(scope="module")
def rows(tiny: TinyRun) -> list[dict[str, str]]:
    """What the run's own evaluation left."""
    return [json.loads(line) for line in (tiny.folder / "captions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pictures(tiny: TinyRun, rows: list[dict[str, str]]) -> list[Given]:
    """The pictures of the test split, as the run saw them."""
    stage = assemble(composed(*tiny.result["overrides"]), Builder()).stages["evaluate"]
    assert isinstance(stage, Evaluate)
    data: CaptionSet = stage.data
    places = {name: index for index, name in enumerate(data.ids)}
    return list(data.inputs([places[row["id"]] for row in rows[:5]]))


def log_probs(parts: CaptionerParts, picture: Given, text: str, locked: bool = False) -> list[float]:
    """log p of each token of a caption and of its end, from the logits."""
    tokenizer = parts.tokenizer
    return ids_log_probs(parts, picture, [*tokenizer.encode_batch([text])[0], tokenizer.special.eos], locked)


def ids_log_probs(parts: CaptionerParts, picture: Given, ids: Sequence[int], locked: bool = False) -> list[float]:
    """log p of each of these tokens, from the logits."""
    model = parts.model
    assert isinstance(picture, Image.Image)
    ids = [parts.tokenizer.special.bos, *ids]
    encoded = parts.encoder.encode([picture])
    states = parts.normalisation(encoded.states).half().float()  # as they are stored
    if locked:
        model.lock()
    with torch.no_grad():
        found = model(torch.tensor([ids[:-1]]), type(encoded)(states, encoded.mask))[0].log_softmax(-1)
    model.unlock()
    return [float(found[place, token]) for place, token in enumerate(ids[1:])]


def test_captions_are_those_of_the_run(
    captioner: lockdec.Captioner, pictures: list[Given], rows: list[dict[str, str]]
) -> None:
    assert [caption.text for caption in captioner.caption(pictures)] == [row["caption"] for row in rows[:5]]


def test_numbers_follow_from_the_logits(parts: CaptionerParts, pictures: list[Given]) -> None:
    text = "woman dancing medium-dark skin tone"
    tokenizer = parts.tokenizer
    ids = [*tokenizer.encode_batch([text])[0], tokenizer.special.eos]
    for picture in pictures[:2]:
        assert isinstance(picture, Image.Image)
        given, alone = log_probs(parts, picture, text), log_probs(parts, picture, text, locked=True)
        encoded = normalised(parts.encoder.encode([picture]), parts.normalisation)
        [words] = evidence(parts.model, tokenizer, [ids], encoded)
        assert [word.text for word in words] == text.split()
        assert sum(word.log_prob for word in words) == pytest.approx(sum(given[:-1]), abs=1e-3)
        difference = sum(given[:-1]) - sum(alone[:-1])
        assert sum(word.evidence for word in words) == pytest.approx(difference, abs=1e-3)
        first = len(tokenizer.encode_batch(["woman"])[0])
        assert words[0].log_prob == pytest.approx(sum(given[:first]), abs=1e-3)


def test_evidence_needs_a_decoder_that_sees_the_input(parts: CaptionerParts, pictures: list[Given]) -> None:
    assert isinstance(pictures[0], Image.Image)
    encoded = normalised(parts.encoder.encode([pictures[0]]), parts.normalisation)
    with locked(parts.model), pytest.raises(lockdec.LockdecError, match="the decoder is locked: attach and unlock"):
        evidence(parts.model, parts.tokenizer, [[5, 6]], encoded)


def test_a_caption_without_an_end_has_none_to_be_scored(parts: CaptionerParts, pictures: list[Given]) -> None:
    """Of a caption that was cut off at its longest, only the tokens that are there count."""
    encoded = normalised(parts.encoder.encode(cast(list[Image.Image], pictures)), parts.normalisation)
    shortest = with_options(parts.decode, max_new_tokens=2)
    found = candidates(parts.model, parts.tokenizer, encoded, shortest, parts.generator)
    for picture, [cut] in zip(pictures, found, strict=True):
        assert (cut.tokens, parts.tokenizer.special.eos in cut.ids) == (2, False)
        assert cut.log_prob == pytest.approx(sum(ids_log_probs(parts, picture, cut.ids)), abs=1e-3)


def test_scores_are_log_probabilities_of_every_caption_for_every_input(
    captioner: lockdec.Captioner, parts: CaptionerParts, pictures: list[Given]
) -> None:
    captions = ["woman dancing", "a cat", "flag germany medium skin tone"]
    scores = captioner.score(pictures[:2], captions, batch_size=1)
    wanted = [[sum(log_probs(parts, picture, text)) for text in captions] for picture in pictures[:2]]
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores, torch.tensor(wanted), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(captioner.score(pictures[0], "a cat"), scores[:1, 1:2])


def test_alternatives_are_different_captions(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    for strategy in ("greedy", "beam", "nucleus", "top_k", "mbr"):
        [caption] = captioner.caption(pictures[0], n=4, strategy=strategy, beams=6, seed=1)
        texts = [caption.text, *(other.text for other in caption.alternatives)]
        assert len(set(texts)) == len(texts) <= 4
    [alone] = captioner.caption(pictures[0], strategy="greedy")
    [first] = captioner.caption(pictures[0], n=3, strategy="greedy")
    assert (alone.text, alone.alternatives) == (first.text, ())
    assert len(first.alternatives) == 2


def test_what_is_drawn_follows_the_seed(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    def drawn(seed: int | None) -> list[str]:
        return [caption.text for caption in captioner.caption(pictures, strategy="nucleus", temperature=3.0, seed=seed)]

    first, next_one = drawn(7), drawn(None)
    assert first != next_one
    assert (drawn(7), drawn(None)) == (first, next_one)


def test_captions_of_the_same_input_are_equal(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    assert captioner.caption(pictures[0]) == captioner.caption(pictures[0]) != captioner.caption(pictures[1])


def test_one_picture_is_the_same_in_every_form(
    captioner: lockdec.Captioner, pictures: list[Given], tmp_path: Path
) -> None:
    picture = pictures[0]
    assert isinstance(picture, Image.Image)
    picture.save(tmp_path / "x.png")
    forms: list[Given] = [picture, tmp_path / "x.png", str(tmp_path / "x.png"), np.asarray(picture)]
    assert len({caption.text for caption in captioner.caption(forms)}) == 1
    with Image.open(tmp_path / "x.png") as opened:
        assert captioner.caption(opened)[0].log_prob == pytest.approx(captioner.caption(picture)[0].log_prob, abs=1e-4)


def test_attention_is_shared_among_the_states_of_a_grid(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    [caption] = captioner.caption(pictures[0])
    assert caption.attention.shape == (len(caption.words), 64)
    torch.testing.assert_close(caption.attention.weights.sum(1), torch.ones(len(caption.words)))
    assert caption.attention.grid == (8, 8, 0)
    figure = captioner.figure(pictures[0], caption, "<name>")
    assert figure._repr_html_() == figure.html
    assert "&lt;name&gt;" in figure.html
    assert figure.html.count("<svg") == len(caption.words)


def test_a_damaged_picture_leaves_the_others_captioned(
    captioner: lockdec.Captioner, pictures: list[Given], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(lockdec.PartlyCaptionedError, match=r"bad\.png: not a picture of a kind .*the other 2") as error:
        captioner.caption([pictures[0], tmp_path / "bad.png", pictures[1]])
    first, bad, second = error.value.captions
    assert bad is None
    assert list(error.value.problems) == [1]
    assert [caption and caption.text for caption in (first, second)] == [
        caption.text for caption in captioner.caption(pictures[:2])
    ]


def test_what_cannot_be_done_is_said_in_one_line(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    with pytest.raises(lockdec.DataError, match="no inputs: give one or more"):
        captioner.caption([])
    with pytest.raises(lockdec.DataError, match="no captions to score"):
        captioner.score(pictures[0], [])
    with pytest.raises(lockdec.DataError, match=r"caption 'word word.*: too long for a decoder of 48 tokens"):
        captioner.score(pictures[0], "word " * 100)
    with pytest.raises(lockdec.DataError, match=r"array of shape|picture of shape \(2, 2\) and type float64"):
        captioner.caption(np.zeros((2, 2)))
    with pytest.raises(lockdec.ConfigError, match="n=0: from 1 to 100"):
        captioner.caption(pictures[0], n=0)
    with pytest.raises(lockdec.ConfigError, match="max_new_tokens=90: the decoder has room for 48"):
        captioner.caption(pictures[0], max_new_tokens=90)
    with pytest.raises(lockdec.ConfigError, match=r"evaluate\.strategy=best: use greedy"):
        captioner.caption(pictures[0], strategy="best")


@pytest.mark.usefixtures("unchecked")
def test_a_device_that_is_not_there_is_named(tiny: TinyRun) -> None:
    with pytest.raises(lockdec.ConfigError, match=r"^device=cuda:77: torch cannot compute there"):
        lockdec.load(tiny.folder, device="cuda:77")
    odd: list[Any] = ["meta", None]
    for device in odd:
        with pytest.raises(lockdec.ConfigError, match=rf"^device={device}: torch cannot compute there"):
            lockdec.load(tiny.folder, device=device)


def test_neither_hydra_nor_lightning_is_imported(tiny: TinyRun, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "x.png")
    command = [sys.executable, "-c", WITHOUT, str(tiny.folder), str(tmp_path / "x.png")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lockdec' has no attribute 'laod'"):
        lockdec.laod  # noqa: B018


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": "3"}, "n='3': use a whole number"),
        ({"n": 2.5}, "n=2.5: use a whole number"),
        ({"beams": 2.5, "strategy": "beam"}, "evaluate.beams=2.5: use a whole number"),
        ({"max_new_tokens": "3"}, "evaluate.max_new_tokens='3': use a whole number"),
        ({"candidates": "12", "strategy": "mbr"}, "evaluate.candidates='12': use a whole number"),
        ({"temperature": "warm"}, "evaluate.temperature='warm': use a number"),
        ({"utility": 1}, "evaluate.utility=1: use a text"),
        ({"seed": 2**70}, "seed=1180591620717411303424: use a whole number of at most 64 bits"),
        ({"seed": "x"}, "seed='x': use a whole number"),
        ({"batch_size": 1.5}, "batch_size=1.5: use a whole number"),
        ({"names": ["a"]}, "names: 1 for 2 inputs; give one for each"),
    ],
)
def test_an_option_of_another_kind_is_named(
    options: dict[str, Any], message: str, captioner: lockdec.Captioner, pictures: list[Given]
) -> None:
    with pytest.raises(lockdec.ConfigError, match=f"^{re.escape(message)}"):
        captioner.caption(pictures[:2], **options)


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_are_options(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    options: dict[str, Any] = {
        "n": np.int64(2),
        "seed": np.int64(1),
        "top_p": np.float32(0.5),
        "max_new_tokens": np.int32(3),
    }
    [caption] = captioner.caption(pictures[0], strategy="nucleus", **options)
    assert len(caption.alternatives) <= 1


def test_an_error_with_captions_passes_between_processes(captioner: lockdec.Captioner, pictures: list[Given]) -> None:
    with pytest.raises(lockdec.PartlyCaptionedError) as error:
        captioner.caption([pictures[0], "gone.png"])
    found = pickle.loads(pickle.dumps(error.value))
    assert (str(found), found.captions, found.problems) == (
        str(error.value),
        error.value.captions,
        error.value.problems,
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", [None, 42, [None], ""])
def test_what_is_no_input_is_a_data_error(given: Any, captioner: lockdec.Captioner) -> None:
    with pytest.raises(lockdec.PartlyCaptionedError, match=r"^input 0: (a \w+ is no input of this|'' names no file)"):
        captioner.caption(given)


@pytest.mark.usefixtures("unchecked")
def test_a_caption_is_scored_in_the_form_of_the_data_and_has_to_be_a_text(
    captioner: lockdec.Captioner, pictures: list[Given]
) -> None:
    scores = captioner.score(pictures[:1], ["caf\u00e9", "cafe\u0301"])
    assert scores[0, 0] == scores[0, 1]
    wrong: list[tuple[Any, str]] = [
        ([3], "3 is no caption: give a text"),
        ([b"a"], "b'a' is no caption"),
        (["\ud800"], "caption .* cannot be written in UTF-8"),
        (None, "None is no caption"),
    ]
    for captions, message in wrong:
        with pytest.raises(lockdec.DataError, match=f"^{message}"):
            captioner.score(pictures[:1], captions)
