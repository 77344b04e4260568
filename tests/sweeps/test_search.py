"""Searches: Optuna asks, lockdec runs, result.json answers; on disk, so that a restart continues the search."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from hydra_plugins.lockdec_search import distribution
from lockdec.errors import ConfigError, PrunedError, StoreError
from lockdec.store.reading import RESULT
from lockdec.sweeps.search import PruningLogger, begin, complete, number_at, open_study, require_settings, tell
from tests.conftest import TinyRun
from tests.faults.warm import Warm
from tests.sweeps.sweeping import TINY_SWEEP, tiny_cell

F1 = {"metrics.token_f1": "maximize"}


def leave(folder: Path, result: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(result))
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("x=1,2,4", CategoricalDistribution(["1", "2", "4"])),
        ("x=choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("x=range(1,9)", IntDistribution(1, 8)),
        ("x=range(2,9,2)", IntDistribution(2, 8, step=2)),
        ("x=range(0.0,1.0,0.5)", CategoricalDistribution(["0.0", "0.5"])),
        ("x=interval(1,8)", FloatDistribution(1.0, 8.0)),
        ("x=interval(0.0,1.0)", FloatDistribution(0.0, 1.0)),
        ("x=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
    ],
)
def test_hydras_sweep_syntax_names_optunas_distributions(words: str, expected: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([words])
    assert distribution(override) == expected


def test_a_study_outlives_its_process_and_keeps_what_was_not_told(tmp_path: Path) -> None:
    study = open_study(tmp_path, F1)
    space: dict[str, BaseDistribution] = {"x": IntDistribution(1, 8)}
    for _ in range(4):
        study.ask(space)
    tell(study, 0, leave(tmp_path / "0", {"status": "ok", "metrics": {"token_f1": 0.5}}), F1)
    tell(study, 1, leave(tmp_path / "1", {"status": "failed", "error": "x"}), F1)
    tell(study, 2, leave(tmp_path / "2", {"status": "pruned"}), F1)
    tell(study, 3, tmp_path / "3", F1)  # killed before it could leave anything
    again = open_study(tmp_path, F1)
    assert [trial.state for trial in again.trials] == [
        TrialState.COMPLETE,
        TrialState.RUNNING,
        TrialState.PRUNED,
        TrialState.RUNNING,
    ]
    assert again.best_value == 0.5
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]
    tell(again, 0, tmp_path / "0", F1)  # told twice, as after a kill between the cell and the telling


def test_other_objectives_need_another_name(tmp_path: Path) -> None:
    open_study(tmp_path, F1)
    with pytest.raises(ConfigError, match=r"holds a search for .*token_f1.*use another sweep_name"):
        open_study(tmp_path, {"metrics.loss": "minimize"})
    with pytest.raises(ConfigError, match=r"objectives\.metrics\.loss=less is not one of: maximize, minimize"):
        open_study(tmp_path / "x", {"metrics.loss": "less"})


def test_any_number_of_result_json_is_an_objective() -> None:
    result = {"metrics": {"token_f1": 0.5}, "cross_attention": {"parameters": 7, "unlock": "plain"}, "nan": math.nan}
    assert number_at(result, "metrics.token_f1") == 0.5
    assert number_at(result, "cross_attention.parameters") == 7
    with pytest.raises(
        ConfigError, match=r"objectives\.metrics\.f1: result\.json has no finite number there, but None"
    ):
        number_at(result, "metrics.f1")
    for name in ("cross_attention.unlock", "nan", "metrics"):
        with pytest.raises(ConfigError, match="has no finite number there"):
            number_at(result, name)


def trial_with_losses(study: optuna.Study, losses: list[float]) -> None:
    logger = PruningLogger(study.ask({"x": IntDistribution(0, 9)}), "finetune/val_loss")
    for step, loss in enumerate(losses):
        logger.log_metrics({"finetune/val_loss": loss, "finetune/loss": 99.0}, step)


def test_a_cell_is_pruned_where_most_were_better_and_not_before(tmp_path: Path) -> None:
    study = open_study(tmp_path, F1)
    study.pruner = optuna.pruners.PercentilePruner(75, n_startup_trials=3, n_warmup_steps=1)
    for number, start in enumerate((1.0, 2.0, 3.0)):
        trial_with_losses(study, [start, start - 0.5])
        study.tell(number, 0.1)
    trial_with_losses(study, [9.0, 2.0])  # bad in the warm-up, then better than one of three
    with pytest.raises(PrunedError, match=r"pruned at step 1: finetune/val_loss was 4\.0000"):
        trial_with_losses(study, [9.0, 4.0])


def test_what_a_resumed_stage_measures_again_is_not_reported_twice(tmp_path: Path) -> None:
    study = open_study(tmp_path, F1)
    first = study.ask({"x": IntDistribution(0, 9)})
    PruningLogger(first, "loss").log_metrics({"loss": 1.0}, 5)
    PruningLogger(optuna.Trial(study, first._trial_id), "loss").log_metrics({"loss": 1.0}, 5)
    assert study.trials[0].intermediate_values == {5: -1.0}  # optuna maximises here, and a low loss is good


def test_a_search_continues_after_a_restart_and_retries_what_failed(warm: Warm, tmp_path: Path) -> None:
    """Quality against parameters; 5000 shots cannot work, so those trials fail and are tried again."""
    command = ("hparams_search=pareto", "fewshot.shots=8,5000", "hydra.sweeper.seed=1")
    first = warm.lockdec(*TINY_SWEEP, *command, "hydra.sweeper.trials=2", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "sweeps" / "s"
    results = [json.loads((sweep / str(cell) / RESULT).read_text()) for cell in range(2)]
    states = [result["status"] for result in results]
    assert sorted(set(states)) == ["failed", "ok"], first.stderr
    assert first.returncode == 1
    times = {cell: (sweep / str(cell) / RESULT).stat().st_mtime_ns for cell in range(2)}

    again = warm.lockdec(*TINY_SWEEP, *command, "hydra.sweeper.trials=3", cwd=tmp_path)
    assert "best: cell" in again.stdout, again.stderr
    for cell, state in enumerate(states):
        repeated = (sweep / str(cell) / RESULT).stat().st_mtime_ns != times[cell]
        assert repeated == (state == "failed")
    study = open_study(sweep, {"metrics.token_f1": "maximize", "cross_attention.parameters": "minimize"})
    assert len(study.trials) == 3
    for trial, result in zip(study.trials, results, strict=False):
        if result["status"] == "ok":
            assert trial.values == [result["metrics"]["token_f1"], result["cross_attention"]["parameters"]]
            assert result["data"]["evaluated"] == "val"


def test_a_search_goes_on_with_its_own_settings_only(tiny: TinyRun, tmp_path: Path) -> None:
    """What changes no result may change; so may anything as long as no trial counts."""
    study = begin(tmp_path, F1, SPACE)
    number = study.ask(SPACE).number
    shutil.copytree(tiny.folder, tmp_path / str(number))

    def resume(*overrides: str) -> None:
        require_settings(study, tmp_path, lambda _: tiny_cell(tiny, *overrides))

    resume("finetune.steps=11")
    tell(study, number, tmp_path / str(number), F1)
    resume()
    resume("trainer.threads=1", "logger.kinds=[csv]", "paths.outputs=elsewhere")
    message = r"^stages\.finetune\.fit\.steps=11: the search in .* has 10 there; the same command continues"
    with pytest.raises(ConfigError, match=message):
        resume("finetune.steps=11")


def test_a_search_prunes(warm: Warm, tmp_path: Path) -> None:
    """With keep=0 every cell that is not the best so far is hopeless."""
    command = ("hparams_search=optuna", "hydra.sweeper.keep=0", "finetune.steps=5")
    answer = warm.lockdec(
        *TINY_SWEEP,
        *command,
        "hydra.sweeper.trials=3",
        "hydra.sweeper.warmup={trials: 1, steps: 0}",
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr  # a pruned cell has not failed
    sweep = tmp_path / "outputs" / "sweeps" / "s"
    states = [json.loads((sweep / str(cell) / RESULT).read_text())["status"] for cell in range(3)]
    assert states[0] == "ok"
    assert "pruned" in states
    assert f"{states.count('ok')} of 3 cells done, {states.count('pruned')} pruned" in answer.stdout
    assert [trial.state.name for trial in open_study(sweep, F1).trials] == [
        {"ok": "COMPLETE", "pruned": "PRUNED"}[state] for state in states
    ]


SPACE: dict[str, BaseDistribution] = {"d": CategoricalDistribution(["1", "2"]), "x": IntDistribution(1, 8)}


def begun(folder: Path) -> Path:
    """A study with a finished trial and one that is not."""
    study = begin(folder, F1, SPACE)
    study.tell(study.ask(SPACE), 0.5)
    study.ask(SPACE)
    return folder / "search.journal"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"d": CategoricalDistribution(["1", "2", "4"])}, r"^d: the search in .* chooses among 1,2, not among 1,2,4; "),
        ({"d": CategoricalDistribution(["2", "1"])}, "^d: .* chooses among 1,2, not among 2,1; the same command"),
        ({"x": IntDistribution(1, 9)}, "^x: .* chooses from 1 to 8, not from 1 to 9; .* another sweep_name"),
        ({"x": FloatDistribution(1, 8, log=True)}, "^x: .* from 1 to 8, not from 1.0 to 8.0 by its logarithm; "),
        ({"y": IntDistribution(1, 9)}, "^y: .* chooses nothing there, not from 1 to 9; "),
        ({"x": None}, "^x: .* chooses from 1 to 8, not nothing there; "),
    ],
)
@pytest.mark.parametrize("recorded", [True, False], ids=["its space is recorded", "its trials tell"])
def test_a_search_goes_on_with_its_own_choices_only_and_its_journal_stays(
    space: dict[str, BaseDistribution | None], message: str, recorded: bool, tmp_path: Path
) -> None:
    journal = begun(tmp_path)
    if not recorded:  # as by earlier versions
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(line for line in lines if b'"space"' not in line))
    before = journal.read_bytes()
    other = {name: choices for name, choices in (SPACE | space).items() if choices is not None}
    with pytest.raises(ConfigError, match=message):
        begin(tmp_path, F1, other)
    assert journal.read_bytes() == before
    assert len(begin(tmp_path, F1, SPACE).trials) == 2
    assert journal.read_bytes() == before


def test_a_journal_is_read_wherever_a_kill_has_cut_it(tmp_path: Path) -> None:
    """What was whole is there, and what follows can be written and read."""
    (tmp_path / "whole").mkdir()
    whole = begun(tmp_path / "whole").read_bytes()
    for length in range(0, len(whole), 97):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "search.journal").write_bytes(whole[:length])
        study = begin(folder, F1, SPACE)
        complete(study, SPACE)
        study.ask(SPACE)
        again = begin(folder, F1, SPACE)
        assert len(again.trials) >= 1
        assert all(trial.params.keys() == SPACE.keys() for trial in again.trials), f"cut after {length} bytes"


def test_half_a_record_in_front_of_a_later_one_is_dropped(tmp_path: Path) -> None:
    """As earlier versions left it, which wrote on behind a half line and could then never read the journal again."""
    journal = begun(tmp_path)
    lines = journal.read_bytes().splitlines(keepends=True)
    another = next(line for line in lines if line.startswith(b'{"op_code":4,'))  # creates a trial
    journal.write_bytes(b"".join([*lines[:-1], lines[-1][:40] + another]))
    study = begin(tmp_path, F1, SPACE)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert study.trials[1].params.keys() < SPACE.keys()
    complete(study, SPACE)
    assert all(trial.params.keys() == SPACE.keys() for trial in begin(tmp_path, F1, SPACE).trials)


def test_a_journal_that_is_damaged_in_another_way_is_named(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], lines[1][:20] + b"\n", *lines[2:]]))
    with pytest.raises(StoreError, match=r"search\.journal: damaged \(.*\); use another sweep_name"):
        begin(tmp_path, F1, SPACE)
