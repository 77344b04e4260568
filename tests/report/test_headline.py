"""Sentences claim what the intervals support and no more."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from lockdec.report import headline
from lockdec.report.over_inputs import OverInputs, over_inputs
from lockdec.report.results import Run, Scalar, read
from lockdec.report.statistics import Estimate
from lockdec.report.study import Study
from tests.report.runs import captioned_run, run_of, write_run
from tests.report.test_study import tied


def test_numbers_for_people() -> None:
    assert headline.number(-0.0127, signed=True) == "\u22120.013"
    assert headline.number(0.5, 1, signed=True) == "+0.5"
    assert headline.number(2_260_992, 0) == "2,260,992"
    assert headline.number(None) == "\u2013"
    assert headline.interval(Estimate(0.5, 0.25, 0.75, 3)) == "0.500 [0.250, 0.750]"
    assert headline.interval(Estimate(0.5, None, None, 2)) == "0.500"


def test_how_low_is_said_with_its_interval_and_its_parameters() -> None:
    first, *_ = headline.of_study(Study(tied({4: 0.0125, 2: 0.03})))
    assert first.startswith("d = 4 is enough: token F1 0.714, \u22120.01")
    assert first.endswith("to full size (d 8), paired over 3 seeds; 40 trained parameters instead of 80.")


def test_no_dimension_enough_is_said_as_such() -> None:
    first, second, *_ = headline.of_study(Study(tied({4: 0.05, 2: 0.1})))
    assert first.startswith("d 8 has the highest mean token F1, "), "what is known comes first"
    assert second == (
        "No smaller d is shown to be enough: the next below full size (d 8) is d = 4, "
        "\u22120.050 [\u22120.052, \u22120.048] token F1 (3 seeds), not shown to be within 0.02."
    )


def test_a_dimension_below_one_that_fails_is_not_called_enough() -> None:
    _, second, *_ = headline.of_study(Study(tied({4: 0.03, 2: 0.0})))
    assert second.startswith("No smaller d is shown to be enough: the next below full size (d 8) is d = 4")


def test_two_seeds_claim_nothing() -> None:
    sentences = headline.of_study(Study(tied({4: 0.0}, seeds=2)))
    assert "How low d may go is unknown: fewer than three seeds are shared with d 8." in sentences[1:]
    assert not any("is enough" in sentence for sentence in sentences)
    assert sentences[-1].startswith("Settings with fewer than three seeds have no interval")


def test_few_seeds_are_said_to_give_wide_intervals() -> None:
    last = headline.of_study(Study(tied({4: 0.0}, seeds=5)))[-1]
    assert last.startswith("Some settings have only 5 seeds: their intervals cover as often as others and are wide")


def test_seeds_that_all_differ_equally_claim_nothing() -> None:
    same = [run_of(0.5 + seed / 8, (d, d, d), seed) for d in (4, 8) for seed in range(3)]
    assert "How low d may go is unknown: all seeds differ equally from d 8." in headline.of_study(Study(same))


def test_each_context_gets_its_own_sentence() -> None:
    runs = tied({4: 0.0}) + tied({4: 0.1}, shots=16)
    sentences = headline.of_study(Study(runs))
    assert sentences[0].startswith("With 64 shots, d = 4 is enough")
    assert sum(sentence.startswith("With 16 shots, no smaller d is shown") for sentence in sentences) == 1


def test_the_best_bridge_is_compared_with_the_others_and_told_no_more_than_is_shown() -> None:
    """LoRA loses 0.3 to a thousandth, full finetuning 0.01 give or take 0.1."""
    runs = [
        run_of(f1 + wiggle + 0.05 * seed, seed=seed, also={"bridge.kind": kind})
        for kind, f1, wiggles in (
            ("cross_attention", 0.6, (0.0, 0.0, 0.0)),
            ("lora", 0.3, (-0.001, 0.0, 0.001)),
            ("full", 0.59, (-0.1, 0.0, 0.1)),
        )
        for seed, wiggle in enumerate(wiggles)
    ]
    best, beside, *_ = headline.of_study(Study(runs))
    assert best.startswith("cross_attention has the highest mean token F1, 0.650 [")
    assert beside == (
        "By bridge, all else equal, it is better than lora and is not shown to differ from full "
        "(token F1, paired over seeds, corrected for 3 pairs)."
    )


def test_the_best_is_worse_than_none_of_the_others_by_the_sign_of_the_pair() -> None:
    """A pair is first minus second; the best may be either of them."""
    for best, other in (("a", "b"), ("b", "a")):
        runs = [run_of(0.6 + s * 0.05, seed=s, also={"bridge.kind": best}) for s in range(3)]
        runs += [run_of(0.3 + s * 0.051, seed=s, also={"bridge.kind": other}) for s in range(3)]
        sentences = headline.of_study(Study(runs))
        assert f"By bridge, all else equal, it is better than {other} (token F1, paired over seeds)." in sentences


def test_controls_are_judged_by_intervals() -> None:
    runs = [
        run_of(0.5 + wiggle, shots=shots, seed=seed, controls={"nearest_neighbour": control})
        for shots, control in ((16, 0.3), (64, 0.5), (256, 0.7))
        for seed, wiggle in enumerate((-0.02, 0.0, 0.02))
    ]
    (found,) = [sentence for sentence in headline.of_study(Study(runs)) if sentence.startswith("Settings compared")]
    assert found == (
        "Settings compared with nearest_neighbour by token F1: "
        "1 above, 1 below, 1 undecided (corrected for 3 comparisons)."
    )


def test_only_a_bridge_that_changes_nothing_initially_is_asked_whether_it_did() -> None:
    def warned(kind: str) -> list[str]:
        return headline.warnings([run_of(0.5, also={"unlock.max_abs_logit_delta": 0.5, "bridge.kind": kind})])

    for kind in ("cross_attention", "resampler"):
        assert "Unlocking left the logits unchanged" in warned(kind)[0]
    for kind in ("prefix_mlp", "lora", "full", "retrieval", "retrieval_cross_attention", "sum"):
        assert warned(kind) == []


def test_failed_checks_are_warned_of() -> None:
    failed = run_of(0.5, seed=1, also={"frozen.decoder_ok": False, "unlock.max_abs_logit_delta": 0.5})
    runs = [run_of(0.5), failed]
    warnings = headline.warnings(runs)
    assert [warning.split("\u201d")[1].split(" (")[0] for warning in warnings] == [" does not hold in 1 of 2 runs"] * 2
    plain = run_of(0.5, also={"unlock.max_abs_logit_delta": 0.5, "cross_attention.unlock": "plain"})
    assert headline.warnings([plain]) == []


def test_one_run_says_that_it_is_one() -> None:
    evaluated: dict[str, Scalar] = {"data.val": 40, "data.evaluated": "val"}
    run = run_of(0.5, controls={"locked": 0.25, "shuffled": 0.375}, also=evaluated)
    first, second, third = headline.of_run(run, OverInputs())
    assert first == (
        "Token F1 is 0.500 on 40 validation inputs, with 64 shots: +0.250 over locked, +0.125 over shuffled."
    )
    assert "100 trained parameters" in second
    assert "no interval" in third


def test_one_run_has_an_interval_over_its_inputs(tmp_path: Path) -> None:
    """Where the captions that it kept give its scores; half of 40 are right, and those of the control never."""
    names = {f"{number}": f"red hat {number}" for number in range(40)}
    folder = write_run(tmp_path / "run", extras=False)
    rows = [
        {"id": name, "references": [text], "caption": text if number % 2 else "", "prior": "", "shuffled": "x"}
        for number, (name, text) in enumerate(names.items())
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = json.loads((folder / "result.json").read_text())
    content["metrics"]["token_f1"] = 0.5
    content["controls"] = {"prior": {"token_f1": 0.0}, "shuffled": {"token_f1": 0.1}}
    (folder / "result.json").write_text(json.dumps(content))
    (run,) = read([folder]).runs
    half = 1.959964 * (0.5 * (40 / 39) ** 0.5) / 40**0.5  # 1.96 standard errors of 20 zeros and 20 ones: 0.157
    *_, first, _, last = headline.of_run(run, over_inputs(run))
    assert f"Token F1 is 0.500 [{0.5 - half:.3f}, {0.5 + half:.3f}] on 400 test inputs" in first
    assert f"+0.500 [+{0.5 - half:.3f}, +{0.5 + half:.3f}] over prior, +0.400 over shuffled" in first
    assert "intervals over the inputs" in last


def test_the_verdict_is_over_all_metrics(tmp_path: Path) -> None:
    """Two words of three are right everywhere; the neighbour has half of its captions right, and in all words."""
    rows = [
        {
            "id": f"{number}",
            "references": ["a red hat"],
            "caption": "a red" if number else "a red hat",
            "prior": "",
            "nearest_neighbour": "a red hat" if number % 2 else "x",
        }
        for number in range(40)
    ]
    (run,) = read([captioned_run(tmp_path / "run", rows)]).runs
    first, second, *_ = headline.of_run(run, over_inputs(run))
    assert first.startswith("The captioner is better than prior on token F1, chrF, ROUGE-L, BLEU-1 and BLEU-2")
    assert "is not shown to differ from it on exact match" in first
    assert second.startswith("The captioner is better than nearest_neighbour on token F1")
    assert "is worse than it on exact match" in second
    best = headline.of_study(Study([run]))[1]
    assert best.startswith("It is better than prior on token F1")
    assert best.endswith("(over the inputs of its first seed, corrected for the number of metrics).")


def test_without_captions_the_verdict_still_counts_every_metric() -> None:
    scores: dict[str, Scalar] = {"metrics.exact": 0.1, "metrics.chrf": 30.0}
    others: dict[str, Scalar] = {"controls.nearest_neighbour.exact": 0.2, "controls.nearest_neighbour.chrf": 40.0}
    run = run_of(0.5, controls={"nearest_neighbour": 0.485}, also=scores | others)
    assert headline.of_run(run, OverInputs())[0] == (
        "The captioner scores higher than nearest_neighbour on token F1 and scores lower than it on exact match "
        "and chrF, without an interval."
    )


def test_of_the_best_setting_all_metrics_are_judged_over_seeds() -> None:
    runs = [
        run_of(
            0.5 + wiggle,
            seed=seed,
            controls={"prior": 0.3},
            also={"metrics.exact": 0.1 + wiggle, "controls.prior.exact": 0.4},
        )
        for seed, wiggle in enumerate((-0.01, 0.0, 0.01))
    ]
    assert headline.of_study(Study(runs))[1] == (
        "It is better than prior on token F1 and is worse than it on exact match "
        "(over seeds, corrected for the number of metrics)."
    )


def test_the_best_of_many_is_judged_as_the_best_of_many() -> None:
    """Of 30 settings that are all as good as their control, the best is ahead of it by chance."""
    random = Random(10)
    runs = [
        run_of(
            0.5 + random.gauss(0, 0.02),
            seed=seed,
            controls={"prior": 0.5 + random.gauss(0, 0.02)},
            overrides=(f"finetune.steps={steps}",),
        )
        for steps in range(100, 130)
        for seed in range(5)
    ]
    study = Study(runs)
    assert study.best is not None
    alone = study.estimate(study.best, view="prior")
    assert alone is not None
    assert alone.verdict == "above"
    sentences = headline.of_study(study)
    corrected = "(over seeds, corrected for the number of metrics and settings)."
    assert f"It is not shown to differ from prior on token F1 {corrected}" in sentences
    [best] = [sentence for sentence in sentences if "has the highest mean" in sentence]
    assert best.endswith("It was picked by these scores on the test split, so they flatter it.")


def test_a_full_size_that_does_not_beat_locked_is_pointed_out() -> None:
    """A captioner that does not see may lose nothing by fewer dimensions; that does not make them enough."""

    def runs(locked: float) -> list[Run]:
        sizes = {(4, 4, 4): 1e-3, (8, 8, 8): -1e-3}
        return [
            run_of(0.5 + wiggle * (seed - 1), size, seed, controls={"locked": locked})
            for size, wiggle in sizes.items()
            for seed in range(3)
        ]

    first, *_ = headline.of_study(Study(runs(locked=0.5)))
    assert first.startswith("d = 4 is enough")
    assert first.endswith("Full size itself is not shown to beat locked, so being close to it means little.")
    assert "beat locked" not in headline.of_study(Study(runs(locked=0.25)))[0]
