"""The probe of an encoder: what it reads off states that hold one attribute and not the other, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lockdec.config.schema import FewshotConfig
from lockdec.errors import ConfigError
from lockdec.stages.attach import Attach
from lockdec.stages.probe import Probe, ProbeConfig
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from tests.conftest import TinyRun, run_tiny
from tests.encoders.array_encoder import Arrays, Scaled

COLOURS, SIZES = ("red", "blue", "green"), ("small", "large")
WORDS = {"colour": list(COLOURS), "size": list(SIZES), "smell": ["sweet"]}
CPU = torch.device("cpu")


class Things(Arrays):
    """Arrays that tell the colour of a thing and not its size; a few things have no size in their caption."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        colours, sizes = rng.integers(3, size=120), rng.integers(2, size=120)
        super().__init__([rng.normal(0, 0.1, (4, 3)).astype(np.float32) + np.eye(3, dtype=np.float32)[colour]
                          for colour in colours], held_out=40)  # fmt: skip
        self.said = [
            COLOURS[colour] if row % 10 == 0 else f"{SIZES[size]} {COLOURS[colour]}"
            for row, (colour, size) in enumerate(zip(colours, sizes, strict=True))
        ]
        self.captions = tuple((caption,) for caption in self.said)


def probed(data: Things, folder: Path, **settings: Any) -> dict[str, Any]:
    """What the stage returns over states that the stage before it has made."""
    for name in ("attach", "probe"):
        (folder / name).mkdir(parents=True)
    attach = Attach(data=data, encoder=Scaled(3), normalise="standardise", batch_size=8)
    metrics = attach.make(Work("attach", folder / "attach", {}, [], CPU))
    states = Artifact(folder / "attach", "attach", "key", metrics, {}, {}, 0.0, False)
    fewshot = FewshotConfig(shots=20, support_seed=0)
    stage = Probe(data=data, fewshot=fewshot, settings=ProbeConfig(attributes=WORDS, **settings))
    stage.check()
    found: dict[str, Any] = stage.make(Work("probe", folder / "probe", {"attach": states}, [], CPU))["probe"]
    return found


def test_it_reads_the_attribute_that_the_states_hold(tmp_path: Path) -> None:
    found = probed(data := Things(), tmp_path)
    assert found["support"]["colour"] == found["train"]["colour"] == 1.0
    assert found["train"]["size"] < 0.8, "they hold nothing of it"
    assert "smell" not in found["train"], "no caption tells it"
    rows = data.splits["test"]
    sized = [data.said[row].split()[0] for row in rows if " " in data.said[row]]
    most = max(SIZES, key=[data.said[row].split()[0] for row in data.splits["train"]].count)
    assert found["commonest"]["size"] == pytest.approx(sized.count(most) / len(sized))
    assert probed(data, tmp_path / "val", split="val")["evaluated"] == "val"


def test_data_without_attributes_are_refused() -> None:
    stage = Probe(data=Things(), fewshot=FewshotConfig(shots=4, support_seed=0), settings=ProbeConfig())
    with pytest.raises(ConfigError, match=r"Things declares no attributes; name their words, as in probe\.attributes"):
        stage.check()
    with pytest.raises(ConfigError, match=r"probe\.split=train is not one of: val, test"):
        ProbeConfig(split="train").check()


def test_words_of_no_caption_are_named_and_refused_where_there_are_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probed(Things(), tmp_path)
    assert "probe: no caption has smell: sweet\n" in capsys.readouterr().out
    settings = ProbeConfig(attributes={"smell": ["sweet"], "colour": ["purple"]})
    stage = Probe(data=Things(), fewshot=FewshotConfig(shots=4, support_seed=0), settings=settings)
    with pytest.raises(ConfigError, match=r"^probe\.attributes=.*purple.*: no caption has any of these words$"):
        stage.check()


def test_an_encoder_is_probed_without_a_decoder(tiny: TinyRun) -> None:
    run = run_tiny(tiny.outputs, "probed", "stage=[attach,probe]", "pipeline.order=[attach,probe]")
    assert list(run.result["stages"]) == ["attach", "probe"]
    assert run.result["stages"]["attach"]["key"] == tiny.result["stages"]["attach"]["key"]
    assert set(run.result["probe"]["train"]) == set(tiny.result["attributes"]["caption"]) > {"person"}
