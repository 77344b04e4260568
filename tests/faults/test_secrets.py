"""Secrets planted in the environment and the config, by name and by value, are in nothing that a run leaves."""

from __future__ import annotations

import lightning as L
import pytest

from lockdec.config.schema import plain
from lockdec.redaction import REDACTED, is_secret, redacted, text
from tests.conftest import composed
from tests.faults.warm import Warm

BY_ENVIRONMENT, BY_NAME, BY_SHAPE = "plain-words-of-the-environment", "plain-words-by-name", "hf_" + "aB3" * 10


class Notifier(L.Callback):
    """A user's callback that signs in somewhere."""

    def __init__(self, api_key: str, address: str, fails: bool = False) -> None:
        if fails:
            raise RuntimeError(f"401 for {address} with password={api_key} and {BY_SHAPE}")


def test_planted_secrets_are_nowhere(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a run that ends well with W&B, in one that fails, and in a sweep."""
    outputs = tmp_path_factory.mktemp("secrets") / "outputs"
    planted = (
        "+callbacks.notifier._target_=tests.faults.test_secrets.Notifier",
        f"+callbacks.notifier.api_key={BY_NAME}",
        f"+callbacks.notifier.address=https://me:{BY_SHAPE}@example.org/{BY_ENVIRONMENT}",
        "pipeline.order=[pretrain]",
        "pretrain.steps=3",
    )
    well = warm.start(outputs, *planted, "logger=wandb", SERVICE_TOKEN=BY_ENVIRONMENT)
    assert well.wait() == 0, well.printed
    failing = "+callbacks.notifier.fails=true"
    failed = warm.start(outputs, *planted, failing, name="failed", SERVICE_TOKEN=BY_ENVIRONMENT)
    assert failed.wait() == 1
    sweep = warm.start(outputs, "-m", *planted, failing, "seed=0,1", name="swept", SERVICE_TOKEN=BY_ENVIRONMENT)
    assert sweep.wait() == 1
    assert REDACTED in failed.result["error"]
    assert REDACTED in failed.printed
    assert f"+callbacks.notifier.api_key={REDACTED}" in well.result["overrides"]
    assert list(outputs.glob("wandb/*/*.wandb"))
    assert list(outputs.rglob("report.html"))
    for command in (well, failed, sweep):
        for secret in (BY_ENVIRONMENT, BY_NAME, BY_SHAPE):
            assert secret not in command.log.read_text()
    found = [
        (path, secret)
        for path in outputs.rglob("*")
        if path.is_file()
        for secret in (BY_ENVIRONMENT, BY_NAME, BY_SHAPE)
        if secret.encode() in path.read_bytes()
    ]
    assert found == []


@pytest.mark.parametrize("name", ["api_key", "HF_TOKEN", "dbPassword", "WANDB_API_KEY", "client.secret", "apikey"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)
    assert redacted({name: "value", "a": [{name: 1}]}) == {name: REDACTED, "a": [{name: REDACTED}]}
    assert text(f"x {name}=value y") == f"x {name}={REDACTED} y"


@pytest.mark.parametrize(
    "name", ["batch_tokens", "token_f1", "key", "artifact_key", "tokenizer", "max_new_tokens", "d_k"]
)
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret(name)
    assert redacted({name: 3}) == {name: 3}


def test_nothing_of_the_default_config_is_taken_for_a_secret() -> None:
    for overrides in ((), ("debug=tiny",), ("experiment=translation",)):
        config = plain(composed(*overrides))
        assert redacted(config) == config
