"""The pipeline on the real data at its smallest: reuse, pairing, resuming, and what a run leaves behind."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lockdec.data.captions import spread
from lockdec.errors import ConfigError, LockdecError
from lockdec.pipeline.running import run
from lockdec.sweeps.jobs import SHOWN, run_job
from tests.conftest import TinyRun, composed, run_over, run_tiny

STAGES = ["pretrain", "attach", "unlock", "finetune", "prior", "evaluate"]
METRICS = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "chrf", "token_f1", "exact", "distinct", "loss"}


def artifact(run: TinyRun, stage: str) -> Path:
    return run.outputs / "stages" / stage / str(run.result["stages"][stage]["key"])


def reused(run: TinyRun) -> list[str]:
    return [name for name, entry in run.result["stages"].items() if entry["reused"]]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["bridge=prefix_linear", "bridge.length=1000000000"],
            r"bridge=prefix_linear \(length=1000000000, rank=None\):",
        ),
        (["bridge=full", "bridge.length=1000000000000000000"], "bridge=full "),
        (["bridge=resampler", "bridge.width=1000000000"], "bridge=resampler "),
        (["bridge.parameters=1000000000000"], "bridge.parameters=1000000000000:"),
        (
            ["bridge=prefix_linear", "bridge.parameters=9", "bridge.length=1000000000000"],
            r"bridge=prefix_linear \(length=",
        ),
        (["cross_attention.d_v=1000000000"], r"cross_attention \(heads=2, d_q=2, d_k=2, d_v=1000000000\):"),
        (["decoder.head_size=1000000000000"], r"decoder .*, heads=2, head_size=1000000000000\):"),
        (["decoder.d_ff=1000000000000"], "decoder .* d_ff=1000000000000"),
        (["encoder=vae", "pretrain_vae.model.widths=[1000000,100000]"], r"pretrain_vae.model \(widths="),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_sizes_that_no_memory_holds_are_refused_before_any_stage_works(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^{said}"):
        run_tiny(tmp_path, "huge", *overrides)
    assert not list(tmp_path.glob("stages/*/*"))


def test_a_run_leaves_what_the_design_promises(tiny: TinyRun) -> None:
    result = json.loads((tiny.folder / "result.json").read_text())
    assert result == tiny.result
    assert (result["status"], result["error"], result["seed"]) == ("ok", None, 0)
    assert list(result["stages"]) == STAGES
    told = {"key", "version", "reused", "seconds", "made_in", "weights"}
    assert all(entry.keys() == told for entry in result["stages"].values())
    trained = result["cross_attention"]["parameters"]
    assert result["stages"]["finetune"]["weights"] == {"float32": 4 * trained}
    assert result["stages"]["evaluate"]["weights"] == {}
    assert result["metrics"].keys() == METRICS
    assert result["controls"].keys() == {"prior", "locked", "shuffled", "nearest_neighbour"}
    assert all(result["controls"][name].keys() == METRICS for name in ("prior", "locked", "shuffled"))
    assert result["controls"]["nearest_neighbour"].keys() == METRICS - {"loss"}
    for metric in METRICS:
        gap = result["metrics"][metric] - result["controls"]["prior"][metric]
        assert result["gap_over_prior"][metric] == pytest.approx(gap)
    assert {"heads", "d_q", "d_k", "d_v", "parameters"} <= result["cross_attention"].keys()
    assert result["parameters"].keys() == {"total", "trainable", "per_module"}
    assert sum(result["parameters"]["per_module"].values()) == result["parameters"]["total"]
    assert result["fewshot"] == {"shots": 16, "pairs": 16, "support_seed": 0}
    assert {"split": "compositional", "split_seed": 0, "evaluated": "test", "train": 120}.items() <= result[
        "data"
    ].items()
    assert result["unlock"] == {"max_abs_logit_delta": 0.0}
    assert result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert 0 <= result["looking"]["attention_entropy"] <= 1
    assert result["looking"]["cross_to_residual_norm"] > 0
    parts = result["evaluate"]["seconds"]
    assert {"captions", "loss", "metrics", "prior", "shuffled", "locked"} < parts.keys()
    assert 0 < sum(parts.values()) <= result["stages"]["evaluate"]["made_in"]
    assert result["cost"].keys() == {"preparing_seconds", "seconds", "peak_memory_mb"}

    captions = [json.loads(line) for line in (tiny.folder / "captions.jsonl").read_text().splitlines()]
    assert len(captions) == result["data"]["test"] == 20
    assert all({"id", "references", "caption", "nearest_neighbour"} <= row.keys() for row in captions)
    said, shuffled = ([row[name] for row in captions] for name in ("caption", "shuffled"))
    assert len(set(said)) > 1
    assert shuffled == said[10:] + said[:10]  # what is said of a drawing when the one half a split away is shown
    assert (tiny.folder / "config.yaml").is_file()
    looks = [json.loads(line) for line in (tiny.folder / "attention.jsonl").read_text().splitlines()]
    assert [look["words"] for look in looks] == [row["caption"].split() for row in captions]
    for look in looks:
        assert [len(weights) for weights in look["weights"]] == [look["grid"][0] * look["grid"][1]] * len(look["words"])
        assert all(sum(weights) == pytest.approx(1, abs=1e-3) for weights in look["weights"])
    assert len(list((tiny.folder / "drawings").glob("*.png"))) == 20
    assert (tiny.folder / "stages" / "finetune" / "metrics.csv").is_file()


def test_an_artifact_holds_weights_and_no_checkpoint(tiny: TinyRun) -> None:
    assert {path.name for path in artifact(tiny, "finetune").iterdir()} == {
        "artifact.json",
        "cross_attention.json",
        "cross_attention.safetensors",
        "metrics.csv",
    }
    folders = [artifact(tiny, stage) for stage in STAGES]
    hidden = [path for folder in folders for path in folder.rglob(".*")]
    unfinished = [folder for folder in folders if folder.with_name(f"{folder.name}.unfinished").exists()]
    assert not hidden + unfinished


def test_the_parameters_are_those_of_the_formula(tiny: TinyRun) -> None:
    dim, d_model, layers = tiny.result["encoder"]["dim"], 32, 2
    sizes = tiny.result["cross_attention"]
    heads, d_q, d_k, d_v = (sizes[name] for name in ("heads", "d_q", "d_k", "d_v"))
    per_layer = heads * (d_model * d_q + dim * d_k + dim * d_v + d_v * d_model)
    assert sizes["parameters"] == tiny.result["parameters"]["trainable"] == layers * per_layer


def test_the_second_run_reuses_every_stage_and_says_the_same(tiny: TinyRun) -> None:
    again = run_tiny(tiny.outputs, "again")
    assert reused(again) == STAGES
    for part in ("metrics", "controls", "parameters", "looking", "data"):
        assert again.result[part] == tiny.result[part]
    assert (again.folder / "captions.jsonl").read_bytes() == (tiny.folder / "captions.jsonl").read_bytes()


def test_another_dimension_reuses_pretrain_and_attach(tiny: TinyRun, tmp_path: Path) -> None:
    other = run_over(tiny, tmp_path, "other", "cross_attention.d_k=1", "cross_attention.d_v=3", "fewshot.shots=8")
    assert reused(other) == ["pretrain", "attach"]


def test_a_single_state_gets_a_plain_warning(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_over(tiny, tmp_path, "one_state", "encoder.grid=1", "pipeline.order=[pretrain,attach,unlock]")
    assert "d_q and d_k cannot matter" in " ".join(capsys.readouterr().out.split())
    run_over(tiny, tmp_path, "many_states", "seed=5", "pipeline.order=[pretrain,attach,unlock]")
    assert "cannot matter" not in capsys.readouterr().out


def test_captions_keep_their_case_where_the_data_do(tiny: TinyRun) -> None:
    quick = ("data.split=random", "data.limit=64", "~text.sources.wikipedia")
    run = run_tiny(tiny.outputs, "case", "data.case=keep", *quick)
    lower = run_tiny(tiny.outputs, "no_case", *quick)
    assert run.result["stages"]["attach"]["key"] == lower.result["stages"]["attach"]["key"], "the pictures are the same"
    assert run.result["stages"]["pretrain"]["key"] != lower.result["stages"]["pretrain"]["key"]
    rows = [
        [json.loads(line) for line in (one.folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
        for one in (run, lower)
    ]
    kept, folded = ([row["references"][0] for row in several] for several in rows)
    assert [text.lower() for text in kept] == folded


def test_seeds_are_paired_and_the_pretraining_has_its_own(tiny: TinyRun, tmp_path: Path) -> None:
    other = run_over(tiny, tmp_path, "seed", "seed=1")
    assert reused(other) == ["pretrain", "attach"]
    assert other.result["fewshot"]["support_seed"] == 1
    a, b = (load_file(artifact(run, "unlock") / "cross_attention.safetensors") for run in (tiny, other))
    assert any(not a[name].equal(b[name]) for name in a)
    third = run_over(tiny, tmp_path, "pretrain_seed", "pretrain.seed=1", "pipeline.order=[pretrain]")
    assert reused(third) == []


def test_what_cannot_change_a_result_changes_no_key(tiny: TinyRun) -> None:
    other = run_tiny(
        tiny.outputs, "elsewhere", "trainer.checkpoint_seconds=5", "logger.kinds=[csv]", "stages.attach.batch_size=7"
    )
    assert reused(other) == STAGES


def test_a_damaged_artifact_is_set_aside_and_made_again_the_same(tiny: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny.own, tmp_path / "stages")
    weights = tmp_path / artifact(tiny, "finetune").relative_to(tiny.outputs) / "cross_attention.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.warns(UserWarning, match=r"cross_attention\.safetensors is damaged"):
        second = run_tiny(tmp_path, "second")
    assert reused(second) == ["pretrain", "attach", "unlock", "prior", "evaluate"]
    assert weights.read_bytes() == whole


def test_more_shots_than_drawings_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(LockdecError, match=r"fewshot\.shots=5000: there are only 120 training inputs"):
        run_tiny(tmp_path, "greedy", "fewshot.shots=5000")
    result = json.loads((tmp_path / "runs" / "greedy" / "result.json").read_text())
    assert (result["status"], result["stages"]) == ("failed", {})
    assert "5000" in result["error"]


def test_a_stage_before_its_parents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockdecError, match="finetune needs pretrain before it"):
        run_tiny(tmp_path, "order", "pipeline.order=[finetune]")


def test_a_cell_that_fails_is_recorded_and_told_as_nan(tmp_path: Path) -> None:
    config = composed("debug=tiny", f"paths.outputs={tmp_path}", "fewshot.shots=5000")
    assert math.isnan(run_job(config, tmp_path / "0", ["fewshot.shots=5000"], "0"))
    assert json.loads((tmp_path / "0" / "result.json").read_text())["status"] == "failed"


def test_a_finished_cell_is_not_run_again(tiny: TinyRun) -> None:
    config = composed("debug=tiny", f"paths.outputs={tiny.outputs}")
    cell = tiny.outputs / "sweeps" / "s" / "0"
    first = run_job(config, cell, [], "0")
    before = (cell / "result.json").read_bytes()
    assert run_job(config, cell, [], "0") == first == tiny.result["metrics"]["token_f1"]
    assert (cell / "result.json").read_bytes() == before


def test_an_interrupted_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lockdec.pipeline.assembling.build_stages", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(composed("debug=tiny", f"paths.outputs={tmp_path}"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("count", [0, 5, SHOWN, 20, 400])
def test_the_captions_shown_are_spread_over_all(count: int) -> None:
    rows = [{"id": index} for index in range(count)]
    shown = [row["id"] for row in spread(rows, SHOWN)]
    gaps = {after - before for before, after in itertools.pairwise(shown)}
    assert len(shown) == min(count, SHOWN)
    assert not gaps or max(gaps) - min(gaps) <= 1
