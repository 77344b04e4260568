"""The stages with every bridge: what they store can be resumed, loaded, captioned with and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lockdec
from lockdec.bridges.prefix import LinearPrefix
from lockdec.config.building import Builder
from lockdec.config.schema import config_folder
from lockdec.errors import ConfigError, StoreError
from lockdec.evaluation.finished import find_run
from lockdec.evaluation.stored import BRIDGE, BRIDGE_WEIGHTS, load_captioner
from lockdec.modules.captioning import Captioning
from lockdec.pipeline.assembling import assemble
from lockdec.pipeline.running import run
from lockdec.plugs.writing import write_plug
from lockdec.stages.stage import Work
from lockdec.store import Store
from lockdec.training.batching import CaptionBatch
from lockdec.transformer.plugs import PluggableModel
from tests.conftest import TinyRun, composed, run_tiny

RIVALS = sorted(
    path.stem for path in (config_folder() / "bridge").glob("*.yaml") if path.stem not in ("cross_attention", "sum")
)
OFTEN = ("trainer.checkpoint_seconds=0", "finetune.steps=6")  # a checkpoint at every step


@pytest.fixture(scope="module", params=RIVALS)
def rival(request: pytest.FixtureRequest, tiny: TinyRun) -> TinyRun:
    """A tiny run with another bridge, over the decoder and the states of the first run."""
    return run_tiny(tiny.outputs, request.param, f"bridge={request.param}", *OFTEN)


def test_it_trains_and_says_what(rival: TinyRun, tiny: TinyRun) -> None:
    result = rival.result
    assert result["status"] == "ok"
    assert result["stages"]["attach"]["reused"]
    assert result["bridge"]["kind"] == rival.folder.name
    assert result["bridge"]["parameters"] == result["parameters"]["trainable"]
    assert result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert result["controls"]["nearest_neighbour"] == tiny.result["controls"]["nearest_neighbour"]
    assert result["controls"]["locked"]["token_f1"] == tiny.result["controls"]["locked"]["token_f1"]
    assert result["finetune"].get("prefix_layers", 0) == 0


def test_a_killed_finetuning_ends_as_if_it_had_not_been(
    rival: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rival.result["parameters"]["trainable"]:
        assert rival.folder.name == "retrieval"
        return

    class Killed(Captioning):
        def training_step(self, batch: CaptionBatch, batch_idx: int) -> torch.Tensor:
            if self.trainer.global_step == 3:
                raise SystemExit("killed")
            return super().training_step(batch, batch_idx)

    overrides = ("debug=tiny", f"paths.outputs={rival.outputs}", f"bridge={rival.folder.name}", *OFTEN)
    assembly, store = assemble(composed(*overrides), Builder()), Store(rival.outputs / "stages")
    made = {name: store.open(name, entry["key"]) for name, entry in rival.result["stages"].items()}
    stage, work = assembly.stages["finetune"], Work("finetune", tmp_path, made, [], torch.device("cpu"))
    monkeypatch.setattr("lockdec.modules.captioning.Captioning", Killed)
    with pytest.raises(SystemExit, match="killed"):
        stage.make(work)
    monkeypatch.undo()
    assert (tmp_path / "last.ckpt").is_file()
    stage.make(work)
    weights = sorted(path.name for path in made["finetune"].folder.glob("*.safetensors"))
    assert BRIDGE_WEIGHTS in weights
    assert all((tmp_path / name).read_bytes() == made["finetune"].path(name).read_bytes() for name in weights)


def test_what_is_stored_captions_new_inputs(rival: TinyRun, tiny: TinyRun, tmp_path: Path) -> None:
    before, after = (
        load_file(Store(rival.outputs / "stages").open(name, rival.result["stages"][name]["key"]).path(BRIDGE_WEIGHTS))
        for name in ("unlock", "finetune")
    )
    assert before.keys() == after.keys()
    kind = rival.folder.name
    learns = not kind.startswith("retrieval")  # what retrieval keeps, it does not learn
    assert any(not weight.equal(after[name]) for name, weight in before.items()) == learns
    picture = Image.new("RGB", (40, 40), "red")
    captioner = lockdec.load(rival.folder)
    [caption] = captioner.caption(picture)
    assert caption.log_prob < 0
    drawn = "No attention to the states of the input can be drawn" not in captioner.figure(picture, caption).html
    assert drawn == ("cross_attention" in kind)
    assert captioner.score(picture, ["a red square"]).shape == (1, 1)


def test_its_plug_captions_as_the_run_does_beside_others(rival: TinyRun, tiny: TinyRun, tmp_path: Path) -> None:
    record = write_plug(find_run(rival.folder), tmp_path / "rival")
    assert record.bridge is not None
    assert record.bridge["kind"] == rival.folder.name
    assert f"bridge: {rival.folder.name}".replace("_", r"\_") in (tmp_path / "rival" / "README.md").read_text()
    write_plug(find_run(tiny.folder), tmp_path / "usual")
    picture = Image.new("RGB", (40, 40), "red")

    def said(captioner: lockdec.Captioner) -> tuple[str, float]:
        [caption] = captioner.caption(picture)
        return caption.text, caption.log_prob

    expected = [said(lockdec.load(folder)) for folder in (rival.folder, tiny.folder)]
    first = lockdec.load(tmp_path / "rival", decoder=tiny.folder)
    both = [first, first.with_plug(tmp_path / "usual")]
    for _ in range(2):
        assert [said(captioner) for captioner in both] == expected
    whole = lockdec.load(rival.folder)
    assert said(whole.with_plug(tmp_path / "usual")) == expected[1]
    assert said(whole) == expected[0]


def test_a_stored_bridge_is_data(tiny: TinyRun, tmp_path: Path) -> None:
    """What was changed by hand is refused by name; no class of a stranger is imported."""
    result = run_tiny(tiny.outputs, "prefix_linear", "bridge=prefix_linear", *OFTEN).result
    store = Store(tiny.outputs / "stages")
    made = {name: store.open(name, entry["key"]) for name, entry in result["stages"].items()}
    record = json.loads(made["finetune"].path(BRIDGE).read_text())
    assert record == {"kind": "prefix_linear", "encoder_dim": 149, "length": 4, "rank": None}
    for change, message in (
        ({"kind": "os.system"}, r"bridge=os\.system is not one of: .*prefix_linear"),
        ({"encoder_dim": "x"}, "encoder_dim=x is not a number of channels"),
        ({"length": 0}, r"bridge\.length=0: use at least 1"),
        ({"length": "4"}, "length: input should be a valid integer"),
        ({"length": 5}, r"not the weights of a LinearPrefix.*has shape"),
        ({"odd": 1}, "unknown key odd"),
    ):
        (tmp_path / BRIDGE).write_text(json.dumps(record | change))
        (tmp_path / BRIDGE_WEIGHTS).write_bytes(made["finetune"].path(BRIDGE_WEIGHTS).read_bytes())
        spoiled = type(made["finetune"])(**vars(made["finetune"]) | {"folder": tmp_path})
        with pytest.raises(StoreError, match=message):
            load_captioner(made["pretrain"], spoiled)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bridge=retrieval", "bridge.length=40"], r"decoder\.max_len=48 is too little.*40 positions"),
        (["bridge=prefix_linear", "bridge.length=0"], r"bridge\.length=0: use at least 1"),
        (["bridge=lora", "trainer.strategy=fsdp"], r"^trainer\.strategy=fsdp: bridge=lora is not sharded; use ddp$"),
        (["bridge=retrieval", "fewshot.shots=1"], r"^fewshot\.shots=1: bridge=retrieval shows each input the captions"),
        (["bridge.parameters=0"], r"^bridge\.parameters=0: use at least 1, or null"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble(composed("debug=tiny", *overrides), Builder())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bridge.parameters=9"], r"with cross_attention\.d_v=1, the smallest, there are \d+ already$"),
        (["bridge=resampler", "bridge.parameters=99"], r"with cross_attention\.d_v=1, the smallest, there are \d+ "),
        (["bridge=lora", "bridge.parameters=100000000"], r"with bridge\.rank=\d+, the largest, there are only \d+$"),
    ],
)
def test_a_budget_out_of_reach_is_refused_before_any_stage_works(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(composed("debug=tiny", *overrides, f"paths.outputs={tmp_path}"), tmp_path / "run")
    assert not list(tmp_path.glob("stages/*/*/"))


class AsLargeAsEmbeddings(LinearPrefix):
    """Starts as large as the decoder's embeddings are, which are values and not shapes alone."""

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        super().draw(decoder, encoder_dim)
        size = next(decoder.parameters()).norm().item()
        for weight in self.map.parameters():
            weight.data.mul_(size)


def test_a_bridge_that_is_drawn_from_values_is_sized_when_they_are_there(tiny: TinyRun) -> None:
    bridge = ("bridge=prefix_linear", f"stages.unlock.bridge._target_={__name__}.AsLargeAsEmbeddings")
    result = run_tiny(tiny.outputs, "as_large", *bridge, "bridge.parameters=2000").result
    assert result["status"] == "ok"
    assert result["parameters"]["trainable"] == pytest.approx(2000, rel=0.2)
