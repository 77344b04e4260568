"""Plugs that were trained apart, summed in use, and two encoders trained together, over the same decoder and rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lockdec
from lockdec.caption import main as caption
from lockdec.config.building import Builder
from lockdec.data.named_drawings import NamedDrawings
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.errors import ConfigError
from lockdec.evaluation.finished import find_run
from lockdec.evaluation.stored import load_captioner, load_decoder
from lockdec.export import export
from lockdec.pipeline.assembling import assemble
from lockdec.plugs.writing import write_plug
from lockdec.stages import sum_plugs
from tests.conftest import TinyRun, composed, run_tiny

BOTH = ("data=named_drawings", "encoder=drawing_and_name")


@pytest.fixture(scope="module")
def named(tiny: TinyRun) -> TinyRun:
    """The rows of the first run, seen by their German names."""
    return run_tiny(tiny.outputs, "named", "data=named_drawings", "data.show=name", "encoder=minilm")


@pytest.fixture(scope="module")
def joint(tiny: TinyRun, named: TinyRun) -> TinyRun:
    """Both parts of each example, trained together."""
    return run_tiny(tiny.outputs, "joint", *BOTH, "trainer.checkpoint_seconds=0")


@pytest.fixture(scope="module")
def summed(tiny: TinyRun, named: TinyRun, joint: TinyRun) -> TinyRun:
    """The cross-attention of the first two, at once."""
    return run_tiny(tiny.outputs, "summed", *BOTH, "bridge=sum", f"bridge.plugs=[{tiny.folder},{named.folder}]")


def test_all_four_share_decoder_rows_and_prior(tiny: TinyRun, named: TinyRun, joint: TinyRun, summed: TinyRun) -> None:
    for run in (named, joint, summed):
        assert run.result["status"] == "ok"
        for stage in ("pretrain", "prior"):
            assert run.result["stages"][stage]["key"] == tiny.result["stages"][stage]["key"]
        assert run.result["controls"]["prior"] == tiny.result["controls"]["prior"]
        assert run.result["controls"]["locked"]["loss"] == tiny.result["controls"]["locked"]["loss"]
        assert run.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}


def test_counts(tiny: TinyRun, named: TinyRun, joint: TinyRun, summed: TinyRun) -> None:
    def trained(run: TinyRun) -> int:
        count: int = run.result["parameters"]["trainable"]
        return count

    heads, d_q, d_k, d_v, d_model, layers = 2, 2, 2, 2, 32, 2
    widths = 149 + 384
    assert trained(joint) == layers * heads * (d_model * d_q + widths * (d_k + d_v) + d_v * d_model)
    assert trained(summed) == trained(tiny) + trained(named)
    assert summed.result["bridge"] == {"kind": "sum", "parameters": trained(summed)}


def test_the_joint_starts_as_the_decoder_and_learns_from_both_parts(joint: TinyRun) -> None:
    assert joint.result["unlock"]["max_abs_logit_delta"] == 0
    unlocked, finetuned = (
        load_file(find_run(joint.folder).artifact(stage).path("cross_attention.safetensors"))
        for stage in ("unlock", "finetune")
    )
    for name in (name for name in unlocked if name.endswith((".key.weight", ".value.weight"))):
        changed = unlocked[name] != finetuned[name]
        assert changed[:, :149].any(), f"{name}: drawings"
        assert changed[:, 149:].any(), f"{name}: names"


def test_the_sum_adds_what_each_does_alone(tiny: TinyRun, named: TinyRun, summed: TinyRun) -> None:
    run = find_run(summed.folder)
    model = load_captioner(*run.decoder, run.artifact("finetune"))
    assert model.in_use == ("0", "1")
    assert model.apart == (149, 384)
    tokens = torch.tensor([[1, 5, 9], [1, 7, 3]])
    both = EncodedSet.open(run.artifact("attach").folder).batch([3, 8])
    with torch.no_grad():
        together, own = model(tokens, both), both.parted(model.apart)
        for number, alone in enumerate((tiny, named)):
            finished = find_run(alone.folder)
            apart = EncodedSet.open(finished.artifact("attach").folder).batch([3, 8])
            torch.testing.assert_close(own[number].states, apart.states, rtol=0, atol=0)
            model.use(str(number))
            one = load_captioner(*finished.decoder, finished.artifact("finetune"))
            assert torch.equal(model(tokens, apart), one(tokens, apart))
            assert not torch.equal(model(tokens, apart), together)
        model.use("0", "1")
        assert torch.equal(model(tokens, both), together)
        model.lock()
        assert torch.equal(model(tokens), load_decoder(*run.decoder)(tokens))


def test_each_part_is_normalised_as_it_is_alone(tiny: TinyRun, named: TinyRun, joint: TinyRun) -> None:
    parts = EncodedSet.open(find_run(joint.folder).artifact("attach").folder).normalisation.parts
    for (_, part), alone in zip(parts, (tiny, named), strict=True):
        path = find_run(alone.folder).artifact("attach").path("normalisation.safetensors")
        assert part.alike(Normalisation.load(path))


def test_captions_of_both_parts_are_those_of_the_run(joint: TinyRun, summed: TinyRun) -> None:
    data = NamedDrawings(limit=160, resolution=128)
    for run in (joint, summed):
        rows = [json.loads(line) for line in (run.folder / "captions.jsonl").read_text().splitlines()][:2]
        captions = lockdec.load(run.folder).caption(data.inputs([data.ids.index(row["id"]) for row in rows]))
        assert [caption.text for caption in captions] == [row["caption"] for row in rows]


def test_plugs_that_are_loaded_together_caption_as_the_run_that_sums_them(
    tiny: TinyRun, named: TinyRun, summed: TinyRun, tmp_path: Path
) -> None:
    folders = [tmp_path / "drawings", tmp_path / "names"]
    for folder, run in zip(folders, (tiny, named), strict=True):
        write_plug(find_run(run.folder), folder)
    captioner = lockdec.load(plugs=folders, decoder=tiny.folder)
    assert captioner.modality == "several"
    whole, example = lockdec.load(summed.folder), NamedDrawings(limit=160, resolution=128).inputs([7])[0]
    [one], [other] = captioner.caption([example]), whole.caption([example])
    assert one.text == other.text
    assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert one.attention.shape == (len(one.words), 0)
    assert "No attention to the states of the input can be drawn" in captioner.figure(example, one).html
    with pytest.raises(lockdec.DataError, match="the encoder '001 names' reads text, and the example has image"):
        captioner.score({"image": np.zeros((8, 8, 3), np.uint8)}, "a flag")
    with pytest.raises(lockdec.DataError, match="examples in several parts, each a mapping"):
        captioner.score("flagge", "a flag")
    with pytest.raises(SystemExit, match="reads examples in several parts, which a command line cannot name"):
        caption([str(folders[0]), "x.png", "--plug", str(folders[1]), "--decoder", str(tiny.folder)])
    with pytest.raises(lockdec.StoreError, match="it uses several plugs at once; export each of the runs"):
        write_plug(find_run(summed.folder), tmp_path / "none")


def test_two_plugs_of_one_encoder_read_the_same_picture(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run_tiny(tiny.outputs, "other", "finetune.steps=3", "cross_attention.d_v=3")
    folders = [str(tmp_path / "first"), str(tmp_path / "second")]
    for folder, run in zip(folders, (tiny, other), strict=True):
        write_plug(find_run(run.folder), Path(folder))
    Image.new("RGB", (40, 40), "red").save(tmp_path / "x.png")
    captioner = lockdec.load(plugs=folders, decoder=tiny.folder)
    [found] = captioner.caption(tmp_path / "x.png")
    capsys.readouterr()  # what the runs have printed
    caption([folders[0], str(tmp_path / "x.png"), "--plug", folders[1], "--decoder", str(tiny.folder)])
    assert capsys.readouterr().out == f"{tmp_path / 'x.png'}: {found.text}\n"
    for given, said in (
        ({"plugs": folders[:1], "decoder": tiny.folder}, "name two plugs or more, each once"),
        ({"plugs": folders[:1] * 2, "decoder": tiny.folder}, "name two plugs or more, each once"),
        ({"plugs": folders}, "name the decoder that they were made for"),
        ({"path": folders[0], "plugs": folders, "decoder": tiny.folder}, "name either a folder or"),
        ({}, "name either a folder or"),
    ):
        with pytest.raises(lockdec.LockdecError, match=said):
            lockdec.load(**given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["bridge.plugs=[{tiny}]"], "name a finished run for each part of the encoder"),
        (["bridge.plugs=[{named},{tiny}]"], "has another encoder than the part of this run in its place"),
        (["bridge.plugs=[{tiny},{named},{tiny}]"], "3 runs for an encoder of 2 parts"),
        (["bridge.plugs=[{tiny},{named}]", "pretrain.steps=7"], "has another decoder than this run"),
        (["bridge.plugs=[{tiny},{named}]", "bridge.parameters=9"], "have their sizes"),
        (["bridge.plugs=[{tiny},{named}]", "finetune.prompt=the"], "was trained with None"),
        (["bridge.plugs=[{tiny},{named}]", "fewshot.shots=4"], r"fewshot\.shots=4: .* was trained with shots="),
        (["bridge.plugs=[{tiny},{named}]", "seed=3"], r"fewshot\.support_seed=3: .* was trained with support_seed=0"),
        (
            ["bridge.plugs=[{tiny},{named}]", "data.split=random", "data.split_seed=5"],
            "in one of them alone. Use its data, with their splits",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: list[str], said: str, tiny: TinyRun, named: TinyRun, summed: TinyRun, tmp_path: Path
) -> None:
    filled = [text.format(tiny=tiny.folder, named=named.folder) for text in changes]
    decoders = set(tiny.outputs.glob("stages/pretrain/*"))
    with pytest.raises(ConfigError, match=said):
        run_tiny(tiny.outputs, tmp_path.name, *BOTH, "bridge=sum", *filled)
    assert set(tiny.outputs.glob("stages/pretrain/*")) == decoders, "none is pretrained for what is refused"


@pytest.mark.parametrize("trained", [True, False])
def test_plugs_of_a_chat_are_summed_in_one(trained: bool, tiny: TinyRun) -> None:
    config = composed("debug=tiny", *BOTH, "bridge=sum", f"bridge.plugs=[{tiny.folder},{tiny.folder}]")
    stage = assemble(config, Builder()).stages["unlock"]
    assert isinstance(stage, sum_plugs.SumPlugs)
    told = replace(find_run(tiny.folder), result=tiny.result | {"prompt": {"text": "the", "chat": trained}})
    other = replace(stage, prompt="the", chat=not trained)
    vars(other)["_runs"] = [told, told]
    with pytest.raises(ConfigError, match=f"finetune.chat={str(not trained).lower()}: .* trained with finetune.chat="):
        other.check()
    same = replace(stage, prompt="the", chat=trained)
    vars(same)["_runs"] = [told, told]
    same.check()


def test_plugs_of_two_precisions_are_refused(
    tiny: TinyRun, named: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions = {tiny.result["stages"]["finetune"]["key"]: "bfloat16"}
    monkeypatch.setattr(sum_plugs, "trained_over", lambda artifact: precisions.get(artifact.key, "float32"))
    with pytest.raises(ConfigError, match="trained over decoders in bfloat16 and float32; name runs of one precision"):
        run_tiny(tiny.outputs, tmp_path.name, *BOTH, "bridge=sum", f"bridge.plugs=[{tiny.folder},{named.folder}]")


def test_a_sum_is_of_the_decoder_in_the_precision_of_its_plugs(summed: TinyRun) -> None:
    assert summed.result["unlock"]["dtype"] == summed.result["finetune"]["dtype"] == "float32"


def test_a_plug_that_does_not_say_what_it_has_learned_from_is_refused(
    tiny: TinyRun, named: TinyRun, tmp_path: Path
) -> None:
    order = "pipeline.order=[pretrain,attach,unlock,finetune]"
    silent = run_tiny(tiny.outputs, "silent", order)
    with pytest.raises(ConfigError, match=r"silent.* has no record of the pairs it learned from"):
        run_tiny(tiny.outputs, tmp_path.name, *BOTH, "bridge=sum", f"bridge.plugs=[{silent.folder},{named.folder}]")


def test_an_export_has_no_support_set(tiny: TinyRun, named: TinyRun, tmp_path: Path) -> None:
    export(tiny.folder, tmp_path / "away")
    with pytest.raises(ConfigError, match=r"^bridge\.plugs: .*away: artifact .* is missing; .* so name the run$"):
        run_tiny(tiny.outputs, tmp_path.name, *BOTH, "bridge=sum", f"bridge.plugs=[{tmp_path}/away,{named.folder}]")


def test_plugs_need_an_encoder_of_several_parts(tiny: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 runs for an encoder of 1 part$"):
        run_tiny(tiny.outputs, tmp_path.name, "bridge=sum", f"bridge.plugs=[{tiny.folder},{tiny.folder}]")
