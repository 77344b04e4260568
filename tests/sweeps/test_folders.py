"""The folders of runs and cells: one each, whatever the clock and the config say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from lockdec.config.schema import config_folder, register
from lockdec.errors import ConfigError
from lockdec.sweeps.folders import cell_names, claim_run_folder, make_folder, remove_unused


def test_starts_of_one_second_get_a_folder_each(tmp_path: Path) -> None:
    wanted = tmp_path / "runs" / "default" / "2026-01-01_12-00-00"
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: make_folder(wanted, alone=True), range(40)))
    assert len(set(made)) == 40
    assert {path.name for path in wanted.parent.iterdir()} == {
        wanted.name,
        *(f"{wanted.name}_{n}" for n in range(2, 41)),
    }


@pytest.mark.parametrize("own", ["", "/a/${now:%H}", "/a"], ids=["default", "own, by the clock", "own"])
def test_only_folders_named_by_the_clock_get_a_number(own: str, tmp_path: Path) -> None:
    register()
    overrides = [f"paths.outputs={tmp_path}", *([f"hydra.run.dir={tmp_path}{own}"] if own else [])]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        configs = [compose("config", overrides=overrides, return_hydra_config=True) for _ in range(3)]
    for config in configs:
        claim_run_folder(config)
    assert len({config.hydra.run.dir for config in configs}) == (1 if own == "/a" else 3)


def test_a_start_that_leaves_nothing_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    make_folder(tmp_path / "there" / "runs" / "x" / "now", alone=True)
    remove_unused()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    folder = make_folder(tmp_path / "runs" / "x" / "now", alone=True)
    (folder / "result.json").write_text("{}")
    remove_unused()
    assert (folder / "result.json").is_file()


@pytest.mark.parametrize("name", ["/proc/x/runs", "/dev/null/x", "n" * 300])
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^paths\.outputs: cannot write .* name a folder you may write to$"):
        make_folder(tmp_path / name, alone=True)


CELLS = [["fewshot.shots=4", "seed=0"], ["fewshot.shots=4", "seed=1"], ["fewshot.shots=8", "seed=0"]]


@pytest.mark.parametrize(
    ("subdir", "expected"),
    [
        ("${hydra.job.num}", ["0", "1", "2"]),
        ("s_${fewshot.shots}_${seed}", ["s_4_0", "s_4_1", "s_8_0"]),
        ("${fewshot.shots}/${hydra:job.num}", ["4/0", "4/1", "8/2"]),
        ("${hydra.job.id}", ["lockdec_0", "lockdec_1", "lockdec_2"]),
        ("s_${fewshot.shots}", "cells 0 and 1 would share the folder s_4; add "),
        ("s/.", "cells 0 and 1 would share the folder s; add "),
        ("../${hydra.job.num}", r"\.\./0 is no folder inside that of the sweep"),
        ("/tmp/${hydra.job.num}", "/tmp/0 is no folder inside that of the sweep"),
        ("${now:%H-%M-%S}_${hydra.job.num}", "the time would be another at the next start; leave it out"),
        ("a/.b/${hydra.job.num}", r"a/\.b/0 is no folder inside .* or a dot in front"),
        ("x" * 129 + "${hydra.job.num}", "a part of it has more than 128 bytes"),
        ("x${seed}/${fewshot.shots}/..", "cells 0 and 2 would share the folder x0"),
    ],
)
def test_cells_are_named_as_the_config_says_and_never_alike(subdir: str, expected: list[str] | str) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=[f"hydra.sweep.subdir='{subdir}'"], return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        if isinstance(expected, list):
            assert cell_names(config, loader, CELLS) == expected
        else:
            with pytest.raises(ConfigError, match=expected):
                cell_names(config, loader, CELLS)


def test_no_cell_is_inside_another() -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=["hydra.sweep.subdir=${name}"], return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        with pytest.raises(ConfigError, match=r"the folder a/b would be inside that of another cell, a$"):
            cell_names(config, loader, [["name=a"], ["name=a/b"]])
