"""Config: the surface of options, its files, and how Hydra composes them."""

from __future__ import annotations

import copy
import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pydoc import locate
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.config.schema import config_folder
from lockdec.pipeline.assembling import checked_subtrees
from lockdec.stages.stage import Stage
from tests.conftest import composed, composed_by_hydra
from tests.stages.declared import STAGES


def names(section: Any, path: str = "") -> Iterator[str]:
    """The dotted names of a section's keys, of a dataclass or of plain containers."""
    pairs = section if isinstance(section, dict) else {one.name: getattr(section, one.name) for one in fields(section)}
    for name, value in pairs.items():
        inner = isinstance(value, dict) or is_dataclass(value)
        yield from names(value, f"{path}{name}.") if inner else (f"{path}{name}",)


def target(yaml: Any, stage: type[Stage]) -> bool:
    """Whether this is the YAML of a stage."""
    return bool(OmegaConf.select(yaml, f"stages.{stage.name}._target_") == f"{stage.__module__}.{stage.__name__}")


def header_commands() -> Iterator[str]:
    """The commands in the comments that config files begin with, up to a wide gap, without those that start sweeps."""
    for path in sorted(config_folder().rglob("*.yaml")):
        for line in re.findall(r"^#.*?python -m lockdec\.run (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            command = re.split(r" {2,}|, then", line)[0].strip()
            if command and not command.startswith("-m "):
                yield command


@pytest.mark.parametrize("command", sorted({*header_commands()}))
def test_the_command_in_the_first_lines_of_a_config_file_is_one_that_starts(command: str) -> None:
    typed, subtrees = checked_subtrees(composed(*shlex.split(command)), Builder())
    assert list(subtrees) == typed.pipeline.order


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.section], ids=lambda stage: stage.__name__)
def test_the_yaml_of_a_stage_gives_every_key_of_its_section(stage: type[Stage]) -> None:
    """What is not in the YAML cannot be overridden on the command line; what is not in the dataclass is not read."""
    assert stage.section is not None
    yamls: list[Any] = [OmegaConf.load(path) for path in sorted((config_folder() / "stage").glob("*.yaml"))]
    found = [yaml for yaml in yamls if target(yaml, stage)]
    assert len(found) == 1, f"one conf/stage/*.yaml with stages.{stage.name}._target_ of {stage.__name__}"
    given = set(names(OmegaConf.to_container(found[0][stage.name])))
    assert given == set(names(stage.section()))


def test_hydra_copies_its_sources_but_not_the_store_of_schemas_and_leaves_that_as_it_is() -> None:
    before = composed_by_hydra()
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store  # what made --help slow: a copy for each group
    assert composed_by_hydra("cross_attention.d_k=7", "trainer.threads=3").cross_attention.d_k == 7
    assert composed_by_hydra() == before


@pytest.mark.parametrize(
    "overrides",
    [
        ("debug=tiny", "name=a", "paths.stores=[/a,/b]", "finetune.steps=3", "stages.attach.batch_size=7"),
        ("finetune.steps=3", "debug=tiny", "experiment=[adamw,adapt]", "encoder=vae", "seed=2", "seed=3"),
        (
            "pair={heads:1,d:4}",
            "cross_attention.heads=${pair.heads}",
            "data=folder",
            "data.path=a=b",
            "objective=bleu1",
        ),
        ("~text.sources.wikipedia", "+callbacks.a._target_=b", "++callbacks.a.c=1", "callbacks.a.c=2"),
        ("decoder=gpt2", "decoder.path=x", "hydra.job.chdir=true", "trainer.threads=null", "finetune.prompt='null'"),
        ("debug=tiny", "finetune.stpes=3"),
        ("debug=tiny", "trainer.threads=many"),
        ("debug=tiny", "seed=1,2"),
        ("nothing=1",),
    ],
)
def test_the_tests_own_way_to_compose_gives_what_hydra_gives(overrides: tuple[str, ...]) -> None:
    """A config of the tests is Hydra's, or refused with Hydra's words; and to change it changes no later one."""
    try:
        wanted = composed_by_hydra(*overrides)
    except HydraException as refused:
        with pytest.raises(type(refused), match=f"^{re.escape(str(refused))}$"):
            composed(*overrides)
        return
    for _ in range(2):
        config = composed(*overrides)
        assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(wanted)
        assert OmegaConf.is_struct(config)
        config.cross_attention.heads, config.encoder = 99, {}


def test_the_seed_moves_the_support_set_and_not_the_pretraining() -> None:
    config = composed("seed=7")
    assert (config.fewshot.support_seed, config.pretrain.seed) == (7, 0)
    assert "seed" not in plain(config.stages.pretrain)
    assert OmegaConf.to_yaml(composed("seed=1").stages.pretrain, resolve=True) == OmegaConf.to_yaml(
        config.stages.pretrain, resolve=True
    )


OPTIMIZER = """
    optimizer.learning_rate optimizer.weight_decay optimizer.betas optimizer.eps optimizer.warmup_steps
    optimizer.schedule optimizer.clip_norm
"""
SURFACE = {
    "seed": "",
    "name": "",
    "sweep_name": "",
    "objective": "",
    "dry_run": "",
    "pair": "",
    "paths": "outputs stores",
    "decoder": "vocab_size max_len d_model layers heads d_ff norm position activation dropout norm_kind "
    "norm_eps kv_heads bias tied rope_theta rope_scaling rope_share rope_thetas head_size qk_norm scaled_embedding",
    "tokenizer": "vocab_size",
    "cross_attention": "heads d_q d_k d_v unlock layers dropout bias",
    "bridge": "parameters",
    "fewshot": "shots support_seed references",
    "trainer": "accelerator devices precision threads checkpoint_seconds on_nan strategy compile",
    "logger": "kinds mode project entity log_artifacts",
    "pipeline": "order",
    "pretrain": OPTIMIZER + " seed steps batch_tokens",
    "finetune": OPTIMIZER
    + " steps batch_size label_smoothing decoder_dropout state_noise state_dropout optimizer.kind prompt chat select",
    "prior": OPTIMIZER + " steps batch_size layers",
    "evaluate": "split strategy max_new_tokens min_new_tokens beams length_penalty early_stopping top_p top_k "
    "temperature repetition_penalty no_repeat_ngram candidates utility attributes batch_size seed",
}


def test_the_surface_of_options_is_this() -> None:
    """No option appears or disappears unseen: change `SURFACE` on purpose."""
    config = plain(composed())
    for name in ("data", "encoder", "text", "stages", "callbacks"):  # classes, whose keys stand in their constructors
        config.pop(name)
    found = {name: set(names(value)) if isinstance(value, dict) else set() for name, value in config.items()}
    assert found == {name: set(keys.split()) for name, keys in SURFACE.items()}


def targets(node: Any) -> Iterator[Mapping[str, Any]]:
    """The nodes of a config file that name a class of lockdec."""
    if isinstance(node, Mapping):
        if str(node.get("_target_")).startswith("lockdec."):
            yield node
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize("group", ["data", "text", "encoder", "bridge", "stage"])
def test_a_class_has_no_other_defaults_than_its_config_file(group: str) -> None:
    other = []
    for path in (config_folder() / group).glob("*.yaml"):
        for node in targets(OmegaConf.to_container(OmegaConf.load(path))):
            target: Any = locate(node["_target_"])
            for name, parameter in inspect.signature(target).parameters.items():
                given = node.get(name, parameter.default)
                refers = isinstance(given, str) and given.startswith(("${", "?"))
                if parameter.default is parameter.empty or refers or (name, parameter.default) == ("collections", None):
                    continue  # no collections named are all of them
                other += [f"{path.name}: {name}={given}, and {parameter.default}"] if given != parameter.default else []
    assert not other


@pytest.mark.parametrize(
    ("choices", "sizes"),
    [([], (8, 8)), (["cross_attention=tied", "cross_attention.d_k=4"], (4, 4)), (["cross_attention.d_v=2"], (8, 2))],
)
def test_sizes_of_a_decoder_give_way_to_those_that_are_chosen(choices: list[str], sizes: tuple[int, int]) -> None:
    chosen = composed("decoder=smollm2", *choices).cross_attention
    assert (chosen.d_k, chosen.d_v, chosen.layers) == (*sizes, "last_6")
