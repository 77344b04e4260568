"""Sentences claim what the intervals support and no more."""

from __future__ import annotations

from lockdec.report import headline
from lockdec.report.results import Run, Scalar
from lockdec.report.statistics import Estimate
from lockdec.report.study import Study
from tests.report.runs import run_of
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
    assert first.startswith("The highest mean has d 8"), "what is known comes first"
    assert second == (
        "No smaller d is shown to be enough: the closest to full size (d 8) is d = 4, "
        "\u22120.050 [\u22120.050, \u22120.050] token F1 (3 seeds), not within 0.02."
    )


def test_a_larger_dimension_that_fails_is_not_hidden() -> None:
    first, *_ = headline.of_study(Study(tied({4: 0.03, 2: 0.0})))
    assert first.startswith("d = 2 is enough")
    assert first.endswith("The larger 4 is not shown to be enough, so read this with care.")


def test_two_seeds_claim_nothing() -> None:
    sentences = headline.of_study(Study(tied({4: 0.0}, seeds=2)))
    assert "How low d may go is unknown: fewer than three seeds are shared with d 8." in sentences[1:]
    assert not any("is enough" in sentence for sentence in sentences)
    assert sentences[-1].startswith("Settings with fewer than three seeds have no interval")


def test_few_seeds_come_with_the_coverage_of_their_intervals() -> None:
    assert (
        "with 5 seeds, a 95 % bootstrap interval covers the true mean in about 85 %"
        in (headline.of_study(Study(tied({4: 0.0}, seeds=5)))[-1])
    )


def test_each_context_gets_its_own_sentence() -> None:
    runs = tied({4: 0.0}) + tied({4: 0.1}, shots=16)
    sentences = headline.of_study(Study(runs))
    assert sentences[0].startswith("With 64 shots, d = 4 is enough")
    assert sum(sentence.startswith("With 16 shots, no smaller d is shown") for sentence in sentences) == 1


def test_controls_are_judged_by_intervals() -> None:
    runs = [
        run_of(0.5 + wiggle, shots=shots, seed=seed, controls={"nearest_neighbour": control})
        for shots, control in ((16, 0.3), (64, 0.5), (256, 0.7))
        for seed, wiggle in enumerate((-0.05, 0.0, 0.05))
    ]
    (found,) = [sentence for sentence in headline.of_study(Study(runs)) if sentence.startswith("Settings compared")]
    assert found == (
        "Settings compared with nearest_neighbour, judged by their intervals: 1 above, 1 below, 1 undecided."
    )


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
    first, second, third = headline.of_run(run)
    assert first == (
        "Token F1 is 0.500 on 40 validation inputs, with 64 shots: +0.250 over locked, +0.125 over shuffled."
    )
    assert "100 trained parameters" in second
    assert "no interval" in third


def test_a_full_size_that_does_not_beat_locked_is_pointed_out() -> None:
    """A captioner that does not see may lose nothing by fewer dimensions; that does not make them enough."""

    def runs(locked: float) -> list[Run]:
        sizes = ((4, 4, 4), (8, 8, 8))
        return [run_of(0.5, size, seed, controls={"locked": locked}) for size in sizes for seed in range(3)]

    first, *_ = headline.of_study(Study(runs(locked=0.5)))
    assert first.startswith("d = 4 is enough")
    assert first.endswith("Full size itself is not shown to beat locked, so being close to it means little.")
    assert "beat locked" not in headline.of_study(Study(runs(locked=0.25)))[0]
