"""Fill in the measured tables of a page and draw its figures: python docs/measured.py PAGE.md SWEEPS

SWEEPS is the folder of the sweeps whose commands the page names (outputs/sweeps); its runs are also written to the CSV
file beside the page. You may give that file instead: every number is then computed anew from the same runs. The text
between `<!-- NAME -->` and `<!-- end -->` is replaced, and figures are drawn beside the page; the modules of
`measurements/` have a function for each group of places. `python docs/figures.py` tells which of them no longer follow
from today's code.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from measurements import (
    attributes,
    defaults,
    encoders,
    how_long,
    how_low,
    language_models,
    music,
    plugs,
    reached,
    rivals,
    translation,
)
from placeholders import fill, names

from lockdec.report.results import LAST_COLUMNS, Run, Scalar, Stage, read
from lockdec.report.study import Study
from lockdec.report.tables import results_csv

RESULTS = {  # where the CSV file is not named after the page
    "how_low.md": "results.csv",
    "README.md": "docs/results.csv",
}
# The sweeps behind each group of places, and the function that fills it.
PARTS: dict[str, tuple[str, Callable[[Study], Mapping[str, str]]]] = {
    "reached": ("how_well", reached.reached),
    "tied": ("tied", how_low.tied),
    "key_value": ("key_value", how_low.key_value),
    "bilinear": ("bilinear", how_low.bilinear),
    "unlock": ("unlock", how_low.unlock),
    "heads": ("heads*", how_low.heads),
    "decoders": ("decoders", how_low.decoders),
    "enough": ("enough_*", how_low.enough),
    "steps": ("steps", how_long.steps),
    "encoders": ("encoder_*", encoders.encoders),
    "probes": ("probe_*", encoders.probes),
    "names_probes": ("names_probe_*", encoders.names_probes),
    "mlm_remedies": ("mlm_tuning", encoders.mlm_remedies),
    "whitened": ("whitened_*", encoders.whitened),
    "german": ("german_[mr]*", encoders.german),
    "german_probes": ("german_probe_*", encoders.german_probes),
    "vae_remedies": ("vae_probe*", encoders.vae_remedies),
    "remedies": ("screen", encoders.remedies),
    "optimizers": ("optimizers_*", defaults.optimizers),
    "attributes": ("tied", attributes.attributes),
    "rivals": ("rivals_drawings*", rivals.rivals),
    "rivals_tuning": ("rivals_tuning", rivals.rivals_tuning),
    "rivals_budgets": ("rivals_[d5]*", rivals.rivals_budgets),
    "rivals_german": ("rivals_german", rivals.rivals_german),
    "rivals_german_budgets": ("rivals_german*", rivals.rivals_german_budgets),
    "rivals_language": ("rivals_smollm2", rivals.rivals_language),
    "rivals_language_tuning": ("rivals_smollm2_tuning", rivals.rivals_language_tuning),
    "language_models": ("language*", language_models.language_models),
    "language_tied": ("tied_smollm2", language_models.language_tied),
    "language_cost": ("cost_smollm2*", language_models.language_cost),
    "language_layers": ("layers_smollm2", language_models.language_layers),
    "language_tuning": ("tuning_language", language_models.language_tuning),
    "language_adapting": ("tuning_adapt", language_models.language_adapting),
    "language_longer": ("tuning_adapt_*", language_models.language_longer),
    "together": ("together_*", plugs.together),
    "music": ("music_*", music.music),
    "translation": ("translation_*", translation.translation),
    "tunes": ("tunes*", music.tunes),
}


def read_csv(path: Path) -> list[Run]:
    """The runs of a CSV file that `main` has written."""
    runs = []
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        columns = list(table.fieldnames or ())
        swept = set(columns[columns.index(LAST_COLUMNS[-1]) + 1 :])  # options, which `overrides` has, too
        for row in table:
            values: dict[str, Scalar] = {}
            stages: dict[str, dict[str, Scalar]] = {}
            for name, text in row.items():
                if name.startswith("stages."):
                    _, stage, field = name.split(".")
                    stages.setdefault(stage, {})[field] = text if field == "key" else value(text)
                elif name not in ("folder", "overrides", *swept):
                    values[name] = value(text)
            made: list[Any] = [{"name": name, **fields} for name, fields in stages.items() if fields["key"]]
            overrides = tuple(shlex.split(str(row["overrides"])))
            runs.append(Run(Path(row["folder"]), row["folder"], values, tuple(Stage(**one) for one in made), overrides))
    return runs


def value(text: str) -> Scalar:
    """What a cell of a CSV file stands for."""
    if text in ("", "true", "false"):
        return {"true": True, "false": False}.get(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("-").isdecimal() else number


def sweep_of(run: Run) -> str:
    """The folder of the sweep that a run is of."""
    return run.label.partition("/")[0]


def commit() -> str:
    """The commit that is checked out."""
    asked = ["git", "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


def filled(page: Path, sweeps: Path) -> tuple[str, list[Run]]:
    """The page with its tables, and the runs that they come from; figures are drawn.

    Sweeps that are not among them come from the CSV file again; one that is takes the place of all its earlier runs.
    """
    text = page.read_text(encoding="utf-8")
    everything: list[Run] = []
    kept = sweeps if sweeps.is_file() else results(page)
    measured_before = read_csv(kept) if kept.is_file() else []
    for name in [name for name in names(text) if name in PARTS]:
        folders, part = PARTS[name]
        found = [] if sweeps.is_file() else sorted(sweeps.glob(folders))
        fresh = {folder.name for folder in found}
        before = [run for run in measured_before if sweep_of(run) not in fresh and fnmatch(sweep_of(run), folders)]
        which = f" ({', '.join(sorted(fresh))}; the others before)" if before else ""
        origin = f"{results(page).relative_to(page.parent)}, commit {commit()}{which}" if found else None
        runs = [*(read(found).runs if found else ()), *before]
        everything += [run for run in runs if run.label not in {known.label for known in everything}]
        text = fill(text, part(Study(runs)), str(page), origin)
    return text, everything


def results(page: Path) -> Path:
    """The CSV file of a page's runs."""
    return page.parent / RESULTS.get(page.name, page.with_suffix(".csv").name)


def main(page: Path, sweeps: Path) -> None:
    """Write the page's tables, its figures and, from sweeps, its CSV file."""
    text, runs = filled(page, sweeps)
    page.write_text(text, encoding="utf-8")
    if not sweeps.is_file():
        results(page).write_text(results_csv(runs), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
