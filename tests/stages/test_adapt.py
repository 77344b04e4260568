"""Adaptation: the upper layers of the locked decoder learn the text of the domain, and every stage reads the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lockdec.config.building import Builder
from lockdec.data.captions import fold
from lockdec.data.text import pretraining_text
from lockdec.errors import ConfigError
from lockdec.evaluation.finished import find_run, open_captioner
from lockdec.evaluation.stored import CHANGED_WEIGHTS, load_captioner, load_decoder, load_tokenizer
from lockdec.export import export
from lockdec.modules.adaptation import Adaptation
from lockdec.pipeline.assembling import assemble
from lockdec.stages import adapt
from lockdec.stages.adapt import Adapt
from lockdec.stages.stage import Work
from lockdec.store import Artifact, Store
from lockdec.training.batching import TextBatch
from tests.conftest import TinyRun, composed, run_over

TOKENS = torch.tensor([[1, 5, 6, 7], [1, 9, 8, 300]])


@pytest.fixture(scope="module")
def adapted(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return run_over(tiny, tmp_path_factory.mktemp("adapted"), "adapted", "experiment=adapt")


@pytest.fixture(scope="module")
def made(adapted: TinyRun, tiny: TinyRun) -> dict[str, Artifact]:
    store = Store(adapted.outputs / "stages", [tiny.own])
    return {name: store.open(name, entry["key"]) for name, entry in adapted.result["stages"].items()}


def stage_of(outputs: Path, *overrides: str) -> Adapt:
    config = composed("debug=tiny", "experiment=adapt", f"paths.outputs={outputs}", *overrides)
    stage = assemble(config, Builder()).stages["adapt"]
    assert isinstance(stage, Adapt)
    return stage


def weights_of(stage: Adapt, made: dict[str, Artifact], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    stage.make(Work("adapt", folder, {"pretrain": made["pretrain"]}, [], torch.device("cpu")))
    return load_file(folder / CHANGED_WEIGHTS)


def test_it_stores_the_upper_layers_alone_and_they_replace_those_of_its_parent(made: dict[str, Artifact]) -> None:
    before = load_decoder(made["pretrain"]).state_dict()
    changed = load_file(made["adapt"].path(CHANGED_WEIGHTS))
    assert {name.rsplit(".layers.")[-1].split(".")[0] for name in changed if ".layers." in name} == {"1"}
    assert set(changed) == {name for name in before if name.startswith(("decoder.layers.1.", "decoder.norm."))}
    assert any(not weight.equal(before[name]) for name, weight in changed.items())
    after = load_decoder(made["pretrain"], made["adapt"]).state_dict()
    for name, weight in after.items():
        assert weight.equal(changed.get(name, before[name])), name
    assert made["adapt"].parents == {"pretrain": made["pretrain"].key}


def test_every_stage_after_it_reads_the_adapted_decoder(
    tiny: TinyRun, adapted: TinyRun, made: dict[str, Artifact], tmp_path: Path
) -> None:
    reused = {name: entry["reused"] for name, entry in adapted.result["stages"].items()}
    assert reused == {name: name in ("pretrain", "attach") for name in reused}
    for name in ("unlock", "finetune", "evaluate"):
        assert list(made[name].parents)[:3] == ["pretrain", "adapt", "attach"]
    wanted = load_decoder(made["pretrain"], made["adapt"])(TOKENS)
    captioner = load_captioner(made["pretrain"], made["adapt"], made["finetune"])
    export(adapted.folder, tmp_path / "out")
    for model in (captioner, open_captioner(find_run(tmp_path / "out")).model):
        model.lock()
        assert model(TOKENS).equal(wanted)
    assert not load_decoder(made["pretrain"])(TOKENS).equal(wanted)


def test_it_sees_the_training_captions_and_no_other(
    made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    class Recorded(Adaptation):
        def training_step(self, batch: TextBatch, batch_idx: int) -> torch.Tensor:
            seen.extend(batch.tokens.tolist())
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("lockdec.modules.adaptation.Adaptation", Recorded)
    stage = stage_of(adapted.outputs, "adapt.steps=30")  # more than an epoch
    weights_of(stage, made, tmp_path / "work")
    lines = {load_tokenizer(made["pretrain"]).decode(tokens) for tokens in seen}
    assert lines == {fold(line) for line in pretraining_text(stage.data)}
    held_out = {fold(text) for split in ("val", "test") for text in stage.data.references(split)}
    assert held_out
    assert not lines & held_out


def test_it_learns_the_same_where_frozen_layers_run_in_every_step(
    made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = made["adapt"].metrics["adapt"]
    assert metrics["prefix_layers"] == 1
    assert metrics["prefix_bytes"] > 0
    stage = stage_of(adapted.outputs)
    once = weights_of(stage, made, tmp_path / "once")
    assert all(weight.equal(once[name]) for name, weight in load_file(made["adapt"].path(CHANGED_WEIGHTS)).items())
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == [CHANGED_WEIGHTS, "metrics.csv"]
    monkeypatch.setattr(adapt, "FrozenPrefix", lambda *_: None)
    for name, weight in weights_of(stage, made, tmp_path / "always").items():
        # Adam divides by the size of gradients: where these are next to nothing, their rounding counts.
        torch.testing.assert_close(once[name], weight, rtol=1e-3, atol=2e-4)


def test_it_learns_in_float32_whatever_the_decoder_computes_in(
    made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path
) -> None:
    pretrained = made["pretrain"]
    half = replace(pretrained, config={**pretrained.config, "dtype": "bfloat16"})
    assert load_decoder(half).state_dict()["decoder.norm.weight"].dtype == torch.bfloat16
    stage = stage_of(adapted.outputs)
    learned = weights_of(stage, {"pretrain": half}, tmp_path / "half")
    for name, weight in weights_of(stage, made, tmp_path / "whole").items():
        assert learned[name].dtype == torch.float32
        assert learned[name].equal(weight), name
    whole, read = load_file(tmp_path / "half" / CHANGED_WEIGHTS), load_decoder(half, made["adapt"]).state_dict()
    assert all(read[name].equal(weight.bfloat16()) for name, weight in whole.items())


def test_the_prompt_of_finetuning_stands_before_every_line_and_is_not_learned(
    made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = load_tokenizer(made["pretrain"]).read_prompt("a drawing of").tokens
    seen: list[list[int]] = []

    class Recorded(Adaptation):
        def training_step(self, batch: TextBatch, batch_idx: int) -> torch.Tensor:
            seen.extend(batch.tokens.tolist())
            assert self.prompt_length == len(tokens) > 0
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("lockdec.modules.adaptation.Adaptation", Recorded)
    stage = stage_of(adapted.outputs, "finetune.prompt=a drawing of", "adapt.steps=2")
    weights_of(stage, made, tmp_path / "work")
    assert {tuple(line[1 : 1 + len(tokens)]) for line in seen} == {tokens}


def test_a_prompt_that_fills_the_decoder_is_refused(
    made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path
) -> None:
    stage = stage_of(
        adapted.outputs, "finetune.prompt='xylophone quizzical jovial kumquat zephyr wharf vexing jukebox'"
    )
    with pytest.raises(
        ConfigError, match=r"decoder\.max_len=48 is too little for a prompt of at least .* and a caption"
    ):
        weights_of(stage, made, tmp_path / "here")


def test_no_text_names_its_own_key(made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path) -> None:
    stage = stage_of(adapted.outputs, "adapt.repeats=0")
    with pytest.raises(ConfigError, match=r"^adapt\.repeats=0: no text to learn; use 1 or more, or add a source"):
        weights_of(stage, made, tmp_path / "here")


@pytest.mark.parametrize("layers", ["every_2", "last", "last_0x"])
def test_only_upper_layers_can_be_chosen(layers: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^adapt.layers=.*: use all or last_n, the last n layers"):
        stage_of(tmp_path, f"adapt.layers={layers}")


def test_more_layers_than_there_are_is_refused(made: dict[str, Artifact], adapted: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^adapt.layers=last_3: use all or last_n \(n from 1 to 2\)$"):
        weights_of(stage_of(adapted.outputs, "adapt.layers=last_3"), made, tmp_path / "work")
