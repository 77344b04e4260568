"""docs/translation.md: the book's transformer beside locked decoders that attend to German."""

from __future__ import annotations

from lockdec.report.headline import interval
from lockdec.report.results import Run
from lockdec.report.settings import Setting
from lockdec.report.statistics import Unit, differences
from lockdec.report.study import Study
from measurements.estimates import control, one, score, table

BOOK, MLM, MINILM = "the book's transformer", "locked, `encoder=mlm`", "locked, `encoder=minilm`"
WAYS = {"MaskedLanguageModelEncoder": MLM, "MiniLM": MINILM, "": BOOK}  # by `encoder.name`
METRICS = {"bleu4": 3, "chrf": 1, "token_f1": 3, "exact": 3}  # with digits
HEAD = ["BLEU-4", "chrF", "token F1", "exact"]


def translation(study: Study) -> dict[str, str]:
    """For each number of pairs, one row per translator and one for copying; and their differences, seed by seed."""
    found: dict[int, dict[str, Setting]] = {}
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        found.setdefault(pairs(run), {})[WAYS[run.text("encoder.name")]] = setting
    rows, gaps = [], []
    for count, ways in sorted(found.items()):
        for way in filter(ways.__contains__, WAYS.values()):
            scores = [interval(score(ways[way], name), digits) for name, digits in METRICS.items()]
            rows.append([f"{count:,}", way, *scores, f"{ways[way].mean('parameters.trainable'):,.0f}"])
        copied = [interval(control(ways[BOOK], "nearest_phrase", name), digits) for name, digits in METRICS.items()]
        rows.append([f"{count:,}", "copying the nearest phrase", *copied, ""])
        for way in (MLM, MINILM):
            if way in ways:
                less = [
                    interval(one(differences(by_seed(ways[way], name), by_seed(ways[BOOK], name))), digits, True)
                    for name, digits in METRICS.items()
                ]
                gaps.append([f"{count:,}", f"{way}, less {BOOK}", *less])
    return {
        "translation": table(["pairs", "", *HEAD, "trained"], rows),
        "translation paired": table(["pairs", "", *HEAD], gaps),
    }


def by_seed(setting: Setting, metric: str) -> dict[Unit, float]:
    """A metric by the seed of the run, which draws the pairs in every way."""
    return {(seed, None): value for (seed, _), value in setting.values(metric).items()}


def pairs(run: Run) -> int:
    """How many pairs a translator has learned from."""
    count = run.number("translate.pairs") or run.number("fewshot.pairs")
    assert count is not None
    return int(count)
