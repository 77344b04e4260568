"""What several test files need: configs composed as the command line does, one finished tiny run, and what it made."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import jaxtyping
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, settings
from jaxtyping import _import_hook
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockdec.config.schema import config_folder, register
from lockdec.store import Artifact, Store

if TYPE_CHECKING:
    from lockdec.evaluation.captioner import EncodedCaptioner
    from lockdec.pipeline.assembling import Assembly
    from tests.faults.warm import Warm


# Machines that run tests are shared, so no example of hypothesis fails for the time that it takes.
settings.register_profile(
    "shared machine", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")
TESTS = Path(__file__).parent
LONG = {"config", "faults", "runtime", "sweeps"}  # folders in which a few tests take half a minute
SKIPS = os.environ.get("LOCKDEC_SKIPS", "allowed")  # "fail" makes a run with a skipped test fail


def _execute(loader: _import_hook._JaxtypingLoader, module: ModuleType) -> None:
    """Read a module that jaxtyping checks, and run it; written for jaxtyping 0.3.11.

    jaxtyping gives bytecode names of its own until the module has run, so that Python finds none of the libraries that
    the module is the first to import, and compiles 3,000 files anew: 10 s. Here, those names end once the module is
    read.
    """
    typechecker: Any = loader._typechecker
    named = partial(_import_hook._optimized_cache_from_source, typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", named):
        code = loader.get_code(module.__name__)
    assert code is not None
    exec(code, module.__dict__)


# before the first import of what it checks
_import_hook._JaxtypingLoader.exec_module = _execute  # type: ignore[method-assign]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if SKIPS == "fail" and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if SKIPS == "fail":
        for test, reason in _skipped(config):
            terminalreporter.write_line(f"{test} was skipped, and here every test has to run: {reason}", red=True)


def _skipped(config: pytest.Config) -> list[tuple[str, str]]:
    """The tests that were skipped, each with the reason; known to the process that reports alone."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return [(report.nodeid, str(report.longrepr[2]).removeprefix("Skipped: ")) for report in reports]


@pytest.fixture(autouse=True)
def settings_of_the_process() -> Iterator[None]:
    """Tests run commands in this process, which set what holds for all of it; the next test finds it as it was."""
    import torch

    from lockdec import console

    console._TOLD.clear()
    precision, tf32, threads = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.get_num_threads(),
    )
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def shapes_checked(request: pytest.FixtureRequest) -> None:
    """Types and shapes are checked at run time in the tests of the folders that annotate them.

    In the other folders, that would take a quarter of the time.
    """
    *rooms, _ = request.config.getoption("--jaxtyping-packages").split(",")
    computing = {room.split(".")[1] for room in rooms}
    jaxtyping.config.update("jaxtyping_disable", request.path.relative_to(TESTS).parts[0] not in computing)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no worker is left with it alone; otherwise the order stays random."""
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in LONG)


def composed(*overrides: str) -> DictConfig:
    """The config that `python -m lockdec.run` gets from these overrides.

    Hydra takes 0.15 s to compose the files of a choice of groups. That is done once for each choice; as in Hydra, plain
    values are put into the result.
    """
    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}
    values = [word for word in overrides if re.match(r"\w+(\.\w+)*=", word) and word.partition("=")[0] not in groups]
    config = copy.deepcopy(_composed_once(*(word for word in overrides if word not in values)))
    try:
        for override in OverridesParser.create().parse_overrides(values):
            if override.is_sweep_override():
                return composed_by_hydra(*overrides)
            OmegaConf.update(config, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException):
        return composed_by_hydra(*overrides)  # which says what is wrong
    return config


def composed_by_hydra(*overrides: str) -> DictConfig:
    """As `composed`, all of it by Hydra."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


_composed_once = cache(composed_by_hydra)


@dataclass(frozen=True)
class TinyRun:
    """A finished run of the real pipeline at its smallest.

    Attributes:
        outputs: its `paths.outputs`; other runs may share the store in it.
        folder: of the run.
        result: what result.json holds.
    """

    outputs: Path
    folder: Path
    result: dict[str, Any]

    @property
    def own(self) -> Path:
        """Of the tiny run of the session, a store to which no test adds anything."""
        return self.outputs / "own"


def run_tiny(outputs: Path, name: str, *overrides: str) -> TinyRun:
    """Run the tiny pipeline in this process."""
    from lockdec.pipeline.running import run

    arguments = ("debug=tiny", f"paths.outputs={outputs}", f"name={name}", *overrides)
    folder = outputs / "runs" / name
    return TinyRun(outputs, folder, run(composed(*arguments), folder, arguments))


def run_over(tiny: TinyRun, outputs: Path, name: str, *overrides: str) -> TinyRun:
    """As `run_tiny`, over the stages of the tiny run alone, with outputs of its own.

    For tests that assert what was made or left: in `tiny.outputs`, tests of any module may have made it before.
    """
    return run_tiny(outputs, name, f"paths.stores=[{tiny.own}]", *overrides)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One tiny run, made once; tests read it and leave it as it is, but for what they add to its store."""
    run = run_tiny(tmp_path_factory.mktemp("tiny"), "first")
    shutil.copytree(run.outputs / "stages", run.own)
    return run


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A process that has imported everything, and runs `python -m lockdec.run` in forks of itself."""
    from tests.faults.warm import Warm

    process = Warm(tmp_path_factory.mktemp("warm"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def made(tiny: TinyRun) -> Mapping[str, Artifact]:
    """What the stages of the tiny run have made, by name."""
    store = Store(tiny.outputs / "stages")
    return {name: store.open(name, entry["key"]) for name, entry in tiny.result["stages"].items()}


@pytest.fixture(scope="session")
def assembled(tiny: TinyRun) -> Assembly:
    """The stages of the tiny run, built and not made."""
    from lockdec.config.building import Builder
    from lockdec.pipeline.assembling import assemble

    return assemble(composed("debug=tiny", f"paths.outputs={tiny.outputs}"), Builder())


@pytest.fixture
def captioner(made: Mapping[str, Artifact], assembled: Assembly) -> EncodedCaptioner:
    """What the evaluation of the tiny run captions with."""
    import torch

    from lockdec.encoders.encoded import EncodedSet
    from lockdec.evaluation.captioner import EncodedCaptioner
    from lockdec.evaluation.stored import load_captioner, load_tokenizer
    from lockdec.stages.evaluate import Evaluate

    stage = assembled.stages["evaluate"]
    assert isinstance(stage, Evaluate)
    model = load_captioner(made["pretrain"], made["finetune"])
    tokenizer, encoded = load_tokenizer(made["pretrain"]), EncodedSet.open(made["attach"].folder)
    return EncodedCaptioner(model, tokenizer, encoded, stage.decode, torch.device("cpu"))
