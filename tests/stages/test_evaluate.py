"""Evaluation: the controls are what they say, on the split that was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lockdec.data.fewshot import support_set
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError
from lockdec.evaluation.attributes import AttributeReader
from lockdec.evaluation.captioner import EncodedCaptioner
from lockdec.evaluation.metrics import score
from lockdec.evaluation.stored import load_captioner, load_decoder, load_tokenizer
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.evaluate import DRAWINGS, Evaluate
from lockdec.store import Artifact
from lockdec.store.reading import ATTENTION, CAPTIONS
from lockdec.training.prefix import MAPPED
from lockdec.transformer.encoded import Encoded
from tests.conftest import TinyRun, run_over, run_tiny

CONTROLS = ("prior", "locked", "nearest_neighbour")


@pytest.fixture
def stage(assembled: Assembly) -> Evaluate:
    stage = assembled.stages["evaluate"]
    assert isinstance(stage, Evaluate)
    return stage


@pytest.fixture
def rows(made: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made["evaluate"].path(CAPTIONS).read_text(encoding="utf-8").splitlines()]


def test_every_held_out_input_is_captioned_once_with_its_references(
    rows: list[dict[str, Any]], stage: Evaluate
) -> None:
    test = stage.data.splits["test"]
    assert [row["id"] for row in rows] == [stage.data.ids[row] for row in test]
    assert [row["references"] for row in rows] == [list(stage.data.captions[row]) for row in test]


def test_the_locked_caption_is_the_pretrained_decoders_and_the_same_for_all(
    rows: list[dict[str, Any]], made: Mapping[str, Artifact], stage: Evaluate
) -> None:
    decoder, tokenizer = load_decoder(made["pretrain"]), load_tokenizer(made["pretrain"])
    token, tokens = tokenizer.special.bos, []
    for _ in range(stage.decode.max_new_tokens):  # greedy, one token after the other
        tokens.append(token)
        token = int(decoder(torch.tensor([tokens]))[0, -1].argmax())
        if token == tokenizer.special.eos:
            break
    else:
        tokens.append(token)
    assert {row["locked"] for row in rows} == {tokenizer.decode(tokens[1:])}


def test_shuffled_captions_are_those_of_other_inputs(
    rows: list[dict[str, Any]], captioner: EncodedCaptioner, stage: Evaluate
) -> None:
    test = stage.data.splits["test"]
    found = {row: captioner.captions([row], "alone")[0] for row in test}
    alone = {row: caption.text for row, caption in found.items()}
    assert [row["caption"] for row in rows] == [alone[row] for row in test]
    assert [row["confidence"] for row in rows] == pytest.approx([found[row].confidence for row in test], abs=1e-4)
    half = len(test) // 2
    others = [*test[half:], *test[:half]]
    assert not any(row == other for row, other in zip(test, others, strict=True))
    assert [row["shuffled"] for row in rows] == [alone[other] for other in others]


def test_the_nearest_neighbours_caption_is_copied(
    rows: list[dict[str, Any]], made: Mapping[str, Artifact], stage: Evaluate
) -> None:
    """Found here one pair at a time: the largest cosine between mean states."""
    encoded = EncodedSet.open(made["attach"].folder)
    support = support_set(stage.data, stage.fewshot.shots, stage.fewshot.support_seed)

    def mean(row: int) -> torch.Tensor:
        return encoded.batch([row]).states[0].float().mean(0)

    for row, index in zip(rows, stage.data.splits["test"], strict=True):
        closest = max(support, key=lambda pair: float(cosine_similarity(mean(index), mean(pair.index), dim=0)))
        assert row["nearest_neighbour"] == closest.caption


def test_scores_are_those_of_the_captions_that_are_kept(
    rows: list[dict[str, Any]], made: Mapping[str, Artifact]
) -> None:
    metrics, references = made["evaluate"].metrics, [row["references"] for row in rows]
    assert tuple(metrics["controls"]) == ("prior", "shuffled", "locked", "nearest_neighbour")
    for name in ("caption", *CONTROLS):
        found = dict(metrics["metrics"] if name == "caption" else metrics["controls"][name])
        found.pop("loss", None)
        assert found == pytest.approx(score([row[name] for row in rows], references))
    for name, gap in metrics["gap_over_prior"].items():
        assert gap == pytest.approx(metrics["metrics"][name] - metrics["controls"]["prior"][name])


def test_shuffled_is_averaged_over_several_wrong_inputs(
    rows: list[dict[str, Any]],
    captioner: EncodedCaptioner,
    made: Mapping[str, Artifact],
    stage: Evaluate,
    tmp_path: Path,
) -> None:
    said, references, test = (
        [row["caption"] for row in rows],
        [row["references"] for row in rows],
        stage.data.splits["test"],
    )
    several, read = [], captioner.read(references, tmp_path)
    for shift in (3, 6, 10, 13, 16):  # sixths of 20
        other = score([*said[shift:], *said[:shift]], references)
        several.append(other | {"loss": captioner.loss([*test[shift:], *test[:shift]], read)})
    for name, value in made["evaluate"].metrics["controls"]["shuffled"].items():
        assert value == pytest.approx(sum(one[name] for one in several) / 5), name


def test_the_prior_says_one_caption_and_its_loss_is_that_of_the_decoder_with_its_vectors(
    rows: list[dict[str, Any]], made: Mapping[str, Artifact], stage: Evaluate
) -> None:
    """Greedily, one token after the other; whatever the inputs, the model gets the same state."""
    model, tokenizer = load_captioner(made["pretrain"], made["prior"]), load_tokenizer(made["pretrain"])
    state = Encoded(torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))
    tokens = [tokenizer.special.bos]
    while len(tokens) <= stage.decode.max_new_tokens and tokens[-1] != tokenizer.special.eos:
        tokens.append(int(model(torch.tensor([tokens]), state)[0, -1].argmax()))
    assert {row["prior"] for row in rows} == {tokenizer.decode(tokens[1:])}
    total, count = 0.0, 0
    for row in stage.data.splits["test"]:
        target = tokenizer.batch([stage.data.captions[row][0]], model.config.max_len)
        logits = model(target[:, :-1], state).detach()
        total += float(torch.nn.functional.cross_entropy(logits[0], target[0, 1:], reduction="sum"))
        count += target.shape[1] - 1
    assert made["evaluate"].metrics["controls"]["prior"]["loss"] == pytest.approx(total / count, rel=1e-4)


def test_without_a_prior_the_gap_is_over_the_locked_decoder(tiny: TinyRun) -> None:
    result = run_tiny(tiny.outputs, "no_prior", "pipeline.order=[pretrain,attach,unlock,finetune,evaluate]").result
    assert result["controls"].keys() == {"shuffled", "locked", "nearest_neighbour"}
    assert "gap_over_prior" not in result
    gap = result["metrics"]["loss"] - result["controls"]["locked"]["loss"]
    assert result["gap_over_locked"]["loss"] == pytest.approx(gap)


def test_the_locked_loss_is_the_pretrained_decoders(made: Mapping[str, Artifact], stage: Evaluate) -> None:
    decoder, tokenizer = load_decoder(made["pretrain"]), load_tokenizer(made["pretrain"])
    total, count = 0.0, 0
    for row in stage.data.splits["test"]:
        tokens = tokenizer.batch([stage.data.captions[row][0]], decoder.config.max_len)
        logits = decoder(tokens[:, :-1]).detach()
        total += float(torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="sum"))
        count += tokens.shape[1] - 1
    assert made["evaluate"].metrics["controls"]["locked"]["loss"] == pytest.approx(total / count, rel=1e-4)


def test_attention_maps_have_a_grid_for_every_word(rows: list[dict[str, Any]], made: Mapping[str, Artifact]) -> None:
    captions = {row["id"]: row["caption"] for row in rows}
    maps = [json.loads(line) for line in made["evaluate"].path(ATTENTION).read_text(encoding="utf-8").splitlines()]
    assert len(maps) == min(DRAWINGS, len(rows))
    for found in maps:
        assert found["words"] == captions[found["id"]].split()
        assert found["grid"] == [8, 8]
        assert all(len(cells) == 64 and sum(cells) == pytest.approx(1, abs=1e-3) for cells in found["weights"])
        assert (made["evaluate"].path("drawings") / f"{found['id']}.png").is_file()


def test_attributes_that_the_data_declare_are_counted_for_captions_and_controls(
    rows: list[dict[str, Any]], made: Mapping[str, Artifact], stage: Evaluate
) -> None:
    counted = made["evaluate"].metrics["attributes"]
    assert set(counted) == {name for name in rows[0] if name not in ("id", "references", "input", "confidence")}
    reader = AttributeReader(stage.data.attributes)
    references = [row["references"] for row in rows]
    for name, found in counted.items():
        assert found == reader.accuracies([row[name] for row in rows], references)
    assert set(counted["caption"]) <= {"person", "hair", "tone", "direction"}
    assert counted["caption"]


@pytest.mark.parametrize(
    "attributes", ["colour", ["red"], {"colour": "red"}, {"colour": []}, {"colour": [1]}, {"a": [" "]}]
)
def test_attributes_that_name_no_words_are_refused(attributes: Any, stage: Evaluate) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.attributes=.*the words of its values"):
        replace(stage.decode, attributes=attributes).check()
    replace(stage.decode, attributes={"colour": ["red", "dark green"]}).check()


def test_no_hidden_states_stay_in_the_artifact(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockdec.training.prefix.IN_MEMORY", 0)  # a file has them while they are read
    run = run_over(tiny, tmp_path, "mapped", "cross_attention.layers=last_1")
    for name, entry in run.result["stages"].items():
        folders = [outputs / "stages" / name / entry["key"] for outputs in (run.outputs, tiny.outputs)]
        assert not [path for folder in folders for path in folder.glob(MAPPED)], name
