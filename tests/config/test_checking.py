"""Config: what is refused, with which words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lockdec.config.building import Builder
from lockdec.config.checking import plain, with_sections
from lockdec.errors import ConfigError
from lockdec.pipeline.assembling import assemble, checked_subtrees
from tests.conftest import composed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cross_attention.d_k=0", "cross_attention.d_k=0"),
        ("decoder.heads=5", r"decoder.heads=5 does not divide d_model=192 \(use 1, 2, 3, 4, 6, 8"),
        ("decoder.norm=middle", "decoder.norm=middle"),
        ("cross_attention.unlock=magic", "cross_attention.unlock=magic: use zero_output"),
        ("fewshot.shots=0", "fewshot.shots=0 must be at least 1"),
        ("finetune.steps=0", "finetune.steps=0 must be at least 1"),
        ("finetune.optimizer.learning_rate=0", "finetune.optimizer.learning_rate=0.0 must be above 0"),
        ("finetune.optimizer.kind=sgd", "finetune.optimizer.kind=sgd is not one of: adamw, muon"),
        ("pretrain.optimizer.betas=[0.9]", "pretrain.optimizer.betas="),
        ("pretrain.optimizer.schedule=square", "pretrain.optimizer.schedule=square is not one of"),
        ("evaluate.split=train", "evaluate.split=train is not one of: val, test"),
        ("evaluate.strategy=guess", "evaluate.strategy=guess: use greedy, beam, nucleus, top_k or mbr"),
        ("logger.kinds=[paper]", "logger.kinds=.*paper is not one of"),
        ("logger.mode=on", "logger.mode=on"),
        ("pipeline.order=[pretrain,attack]", "no stage attack"),
        ("pipeline.order=[attach,probe]", r"no stage probe \(there are: .*; \+stage=probe adds it\)"),
        ("seed=-1", r"^seed=-1 must be from 0 to 4294967295$"),
        ("pretrain.seed=4294967296", r"^pretrain\.seed=4294967296 must be from 0 to"),
        ("data.split_seed=-3", r"^data\.split_seed=-3 must be from 0 to"),
        ("finetune.steps=99999999999999999999", r"^finetune\.steps=99999999999999999999 must fit into 64 bits$"),
        ("finetune.optimizer.learning_rate=nan", r"^finetune\.optimizer\.learning_rate=nan must be a finite number$"),
        ("pretrain.optimizer.betas=[0.9,inf]", r"^pretrain\.optimizer\.betas\[1\]=inf must be a finite number$"),
        ("trainer.checkpoint_seconds=nan", r"^trainer\.checkpoint_seconds=nan must be a finite number$"),
        ("trainer.checkpoint_seconds=-1", r"^trainer\.checkpoint_seconds=-1\.0 must be at least 0$"),
        ("trainer.threads=-1", r"^trainer\.threads=-1 must be from 1 to 1024, or null$"),
        ("trainer.threads=99999", r"^trainer\.threads=99999 must be from 1 to 1024, or null$"),
        ("trainer.devices=0", r"^trainer\.devices=0 must be from 1 to 1024, or null"),
        (
            "trainer.devices=2",
            r"^trainer\.devices=2: trainer\.strategy=auto trains on one device; .* trainer=ddp trainer\.devices=2$",
        ),
        ("trainer.devices=99999", r"^trainer\.devices=99999 must be from 1 to 1024, or null"),
        ("stages=abc", r"^stages=abc: a stage has a name"),
        ("stages=null", r"^stages=None: a stage has a name"),
        ("pipeline.order=[]", r"^pipeline\.order=\[\]: name at least one stage \(there are: pretrain, attach, "),
        ("pretrain.optimizer=3", r"^pretrain\.optimizer=3: give values to its keys: learning_rate, weight_decay, "),
        ("finetune.optimizer=null", r"^finetune\.optimizer=None: give values to its keys: .*, kind$"),
        ("trainer.precision=16-true", r"^trainer\.precision=16-true is not one of: 32-true, bf16-mixed, 16-mixed$"),
        ("trainer.precision=16-mixed", r"^trainer\.precision=16-mixed needs a GPU; on a CPU use bf16-mixed"),
        ("evaluate.max_new_tokens=65", r"^evaluate\.max_new_tokens=65: the decoder has room for 64 tokens"),
        ("tokenizer.vocab_size=258", r"^tokenizer\.vocab_size=258 must be from 259 \(256 bytes and 3 special tokens\)"),
        ("tokenizer.vocab_size=2147483648", r"^tokenizer\.vocab_size=2147483648 must be .* to 1000000$"),
        ("decoder.layers=1000000000000", r"^decoder\.layers=1000000000000: use at most 10000$"),
        ("evaluate.batch_size=0", r"^evaluate\.batch_size=0 must be at least 1$"),
        ("logger.project=team/project", r"^logger\.project=team/project: use a name of 1 to 128 characters without /"),
        ("logger.project=", r"^logger\.project=: use a name"),
        (f"name={'n' * 300}", r"^name=n{20}\.\.\.: use at most 128 bytes, not 300$"),
        (f"sweep_name='{'ä' * 65}'", r"^sweep_name=ä{20}\.\.\.: use at most 128 bytes, not 130$"),
        ("name=../x", "^name='../x' names one folder: use letters and digits, no slash, and no dot in front$"),
        ("name=a//b", "^name='a//b' names one folder"),
        ("sweep_name=", "^sweep_name='' names one folder"),
        ("name=a/b", "^name='a/b' names one folder"),
        ("name=' a'", "^name=' a' names one folder"),
        ("paths.outputs=", "^paths.outputs='' has to name a folder$"),
        ("paths.outputs='~/x'", "^paths.outputs=~/x: write out the home folder"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_subtrees(composed(override), Builder())


@dataclass
class Weighted:
    steps: int = 1
    weights: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        pass


def test_a_section_may_have_keys_of_any_name_or_leave_them_out() -> None:
    config = OmegaConf.create({"given": {"weights": {"mine": "${given.steps}"}}, "left_out": {"steps": 2}})
    OmegaConf.set_struct(config, True)  # as Hydra does
    typed = with_sections(config, {"given": Weighted, "left_out": Weighted})
    assert plain(typed) == {"given": {"steps": 1, "weights": {"mine": 1}}, "left_out": {"steps": 2, "weights": {}}}


def test_stores_of_others_may_lie_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    typed, _ = checked_subtrees(composed("paths.stores=['~/stages']", "paths.outputs=/x"), Builder())
    assert typed.paths.places == [Path("/home/ada/stages"), Path("/x/stages")]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data=folder", "data.path={}"], r"data"),
        (["data=karpathy", "data.path=x", "data.images={}"], r"data"),
        (["encoder=features", "encoder.path={}"], r"encoder"),
        (["encoder=huggingface", "encoder.path={}"], r"encoder"),
        (["decoder=gpt2", "decoder.path={}"], r"decoder\.path="),
    ],
)
def test_a_path_that_the_system_refuses_is_refused_by_its_key(overrides: list[str], key: str) -> None:
    too_long = "x" * 300
    with pytest.raises(ConfigError, match=rf"^{key}.*{too_long}: File name too long$"):
        assemble(composed(*(word.format(too_long) for word in overrides)), Builder())
