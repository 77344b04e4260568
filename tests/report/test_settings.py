"""Which runs form one setting, and how settings are named."""

from __future__ import annotations

import pytest

from lockdec.report.results import Run, Scalar
from lockdec.report.settings import AXES, describe
from lockdec.report.study import Study
from tests.report.runs import run_of

D = AXES[0]


def test_runs_that_differ_in_the_seed_are_one_setting() -> None:
    study = Study([run_of(0.5, seed=seed) for seed in range(4)] + [run_of(0.6, shots=16)])
    assert [len(setting.runs) for setting in study.settings] == [1, 4]
    assert [study.label(setting) for setting in study.settings] == ["16 shots", "64 shots"]


def test_what_cannot_change_a_result_does_not_split_a_setting() -> None:
    same = (
        "seed=3",
        "paths.outputs=/x",
        "sweep_name=s",
        "logger=none",
        "hydra/launcher=joblib",
        "fewshot.shots=64",
    )
    study = Study([run_of(0.5), run_of(0.5, seed=1, overrides=same)])
    assert len(study.settings) == 1
    assert len(Study([run_of(0.5), run_of(0.5, seed=1, overrides=("stages.finetune.steps=9",))]).settings) == 2
    assert len(Study([run_of(0.5), run_of(0.5, seed=1, overrides=("+callbacks.ema=mine.EMA",))]).settings) == 2


def test_precisions_are_settings_of_their_own_however_they_were_chosen() -> None:
    def of(seed: int, recorded: str | None, *typed: str) -> Run:
        also: dict[str, Scalar] = {"trainer.precision": recorded} if recorded else {}
        return run_of(0.5, seed=seed, overrides=("fewshot.shots=64", *typed), also=also)

    full = [of(0, None), of(1, "32-true"), of(2, "32-true", "trainer=cpu"), of(3, None, "trainer.precision=32-true")]
    mixed = [
        of(0, "bf16-mixed", "trainer=gpu", "trainer.accelerator=cpu"),
        of(1, "bf16-mixed", "trainer.precision=bf16-mixed"),
        of(2, None, "trainer.precision=bf16-mixed"),
        of(3, None, "trainer=gpu"),
        of(4, "bf16-mixed", "trainer.precision='bf16-mixed'"),
        of(5, "bf16-mixed"),  # as an experiment's config chooses it
    ]
    study = Study(full + mixed)
    assert {study.label(setting): len(setting.runs) for setting in study.settings} == {
        "": 4,
        "precision bf16-mixed": 6,
    }
    assert not study.notes


def test_a_choice_that_the_result_does_not_tell_still_splits_settings() -> None:
    name: dict[str, Scalar] = {"encoder.name": "EfficientNetLite0", "data.name": "OpenMoji"}
    plain = run_of(0.5, also=name)
    same = run_of(0.5, seed=1, overrides=("encoder=efficientnet_lite0",), also=name)
    other = run_of(0.5, seed=2, overrides=("encoder=efficientnet_224",), also=name)
    split = run_of(0.5, seed=3, overrides=("data.split=random",), also=name)
    assert [len(setting.runs) for setting in Study([plain, same, other, split]).settings] == [2, 1, 1]


def test_bridges_of_one_budget_differ_in_the_bridge_alone() -> None:
    """The sizes of cross-attention follow from the budget; typed ones are a choice of their own."""

    def of(kind: str, dims: tuple[int, int, int], *words: str) -> list[Run]:
        own: dict[str, Scalar] = {"bridge.kind": kind, "bridge.wanted": 50_000}
        typed = (f"bridge={kind}", "bridge.parameters=50000", *words)
        return [run_of(0.5 + seed / 100, dims, seed=seed, overrides=typed, also=own) for seed in range(3)]

    cross = of("cross_attention", (8, 8, 1))
    study = Study([*cross, *of("lora", (8, 8, 8)), *of("cross_attention", (2, 2, 9), "cross_attention.d_k=2")])
    assert {study.label(setting) for setting in study.settings} == {
        "cross_attention",
        "cross_attention · cross_attention.d_k=2",
        "lora",
    }
    assert {comparison.change for comparison in study.comparisons} == {"bridge", "other choices"}
    plain = Study([*of("lora", (8, 8, 8)), run_of(0.5, overrides=("bridge=cross_attention",)), run_of(0.5, seed=1)])
    assert len(plain.settings) == 2  # without a budget, cross-attention is what a run has by default


def test_options_of_a_bridge_split_its_settings_only_where_they_differ() -> None:
    """So that bridges are compared, each with options of its own."""

    def of(kind: str, *options: str) -> list[Run]:
        kinds: dict[str, Scalar] = {"bridge.kind": kind, "bridge.wanted": 50_000}
        return [run_of(0.5 + s / 100, seed=s, overrides=(f"bridge={kind}", *options), also=kinds) for s in range(3)]

    linear, lora = of("prefix_linear", "bridge.length=16"), of("lora", "bridge.prefix_rank=16")
    alone = Study([*linear, *lora])
    assert [alone.label(setting) for setting in alone.settings] == ["lora", "prefix_linear"]
    assert [comparison.change for comparison in alone.comparisons] == ["bridge"]
    both = Study([*linear, *lora, *of("prefix_linear", "bridge.length=4")])
    assert {both.label(setting) for setting in both.settings} == {
        "lora",
        "prefix_linear · bridge.length=16",
        "prefix_linear · bridge.length=4",
    }


def test_a_choice_without_a_value_is_named_by_the_others() -> None:
    none = ("overrides", "")
    assert describe([("encoder.name", "vae"), ("bridge.wanted", None), none]) == "vae"
    assert describe([none]) == "no other choice"


def test_a_repeated_seed_counts_once_and_the_last_counts() -> None:
    study = Study([run_of(0.5, also={"finished": "2026-01-02"}), run_of(0.9, also={"finished": "2026-01-01"})])
    assert study.settings[0].values("token_f1") == {(0, None): 0.5}
    assert "1 run repeats" in study.notes[0]


def test_failed_runs_take_no_part() -> None:
    assert not Study([run_of(0.5, also={"status": "failed"})])
    assert not Study([run_of(0.5, also={"status": "interrupted"})])


@pytest.mark.parametrize(
    ("dims", "words"),
    [((4, 4, 4), "d 4"), ((4, 4, 8), "d_q, d_k 4 · d_v 8"), ((2, 4, 4), "d_q 2 · d_k 4 · d_v 4")],
)
def test_equal_dimensions_are_said_once(dims: tuple[int, int, int], words: str) -> None:
    assert describe(zip([*D.members, "fewshot.shots"], [*dims, 16], strict=True)) == f"{words} · 16 shots"
