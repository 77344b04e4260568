"""Secrets of many shapes, planted in the environment and in the config, are in nothing that a run leaves or prints."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from lockdec.redaction import REDACTED
from tests.faults.warm import Command, Warm

ENVIRONMENT = "plain-words-of-the-environment"
SHAPED = "hf_" + "aB3" * 10
PEM = "MIIEpAIBAAKCAQEAplanted"
IN_CONFIG = {  # what is planted: how it is typed, below callbacks.notifier
    "plain-words-by-name": "api_key={}",
    "correct horse battery staple": "password={}",
    "first-of-several-keys": "api_keys=[{},another-of-several-keys]",
    "deep-in-a-dict-4711": "headers={{accept:text,api_key:{}}}",
    "dXNlcjpwYXNzd29yZA": "request={{Authorization:'Basic {}'}}",
    "hunter2-in-an-address": "queue='redis://:{}@localhost:6379/0'",
    "slash/in-an-address": "database='postgres://me:{}@localhost/db'",
    "signature-in-a-query": "storage='https://example.org/blob?version=3&sig={}&part=1'",
    "secret-inside-json": 'settings=\'{{"retries": 3, "client_secret": "{}"}}\'',
    "after-an-option": "arguments=[--verbose,--password,{},--port,'80']",
    "value-of-a-pair": "variables=[{{name:SERVICE_PASSWORD,value:{}}}]",
    "crumbs-of-a-session": "cookies={{session:{}}}",
    PEM: 'identity="-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----"',
    SHAPED: "note='made with {}'",
    ENVIRONMENT: "greeting='as {} says'",
    "wrapped“in”quotes": "passphrase='{}'",
    "key-below-the-name-of-a-service": "services={{wandb:{{key:{}}}}}",
    "default-of-a-field": "fields=[{{Name:password,Default:{}}}]",
    "Zq8vT3kLm0Xy7Rw2Np5Bs6Ud": "remark='generated as {}'",
    "s3cr-t": "passcode={}",  # short, so found where it stands alone
}
PLANTED = (
    "+callbacks.notifier._target_=tests.faults.test_secrets.Notifier",
    *(f"+callbacks.notifier.{typed.format(secret)}" for secret, typed in IN_CONFIG.items()),
    "pipeline.order=[pretrain]",
    "pretrain.steps=3",
)
ENCODED = base64.b64encode(f"user:{ENVIRONMENT}".encode()).decode()
SOUGHT = {*IN_CONFIG, "another-of-several-keys", ENCODED, ENVIRONMENT.replace("-", "%2D")}


class Notifier(L.Callback):
    """A user's callback that signs in somewhere, and says all that it knows when that fails."""

    def __init__(
        self,
        api_key: str,
        password: str,
        api_keys: Any,
        headers: Any,
        request: Any,
        queue: str,
        database: str,
        storage: str,
        settings: str,
        arguments: Any,
        variables: Any,
        cookies: Any,
        identity: str,
        note: str,
        greeting: str,
        passphrase: str,
        services: Any,
        fields: Any,
        remark: str,
        passcode: str,
        fails: str = "",
    ) -> None:
        super().__init__()
        self.fails, self.known = (
            fails,
            {name: value for name, value in vars().items() if name not in ("self", "__class__")},
        )
        self._fail("at once")

    def on_train_start(self, *_: Any) -> None:
        self._fail("later")

    def _fail(self, when: str) -> None:
        if self.fails == when:
            told = "; ".join(str(value) for value in self.known.values())
            raise RuntimeError(f"401 for user {told} ({self.known!r}, {json.dumps(self.known)}, {ENCODED})")


def leaks(command: Command) -> list[str]:
    """What was planted and can be found in what a command has printed, or left in a file."""
    files = [path for path in command.outputs.rglob("*") if path.is_file()]
    assert files
    texts = {path: path.read_bytes() for path in [*files, command.log]}
    return sorted(
        f"{secret} in {path}" for path, content in texts.items() for secret in SOUGHT if secret.encode() in content
    )


def run(warm: Warm, outputs: Path, *more: str, status: int) -> Command:
    command = warm.start(outputs, *PLANTED, *more, SERVICE_TOKEN=ENVIRONMENT)
    assert command.wait() == status, command.printed
    return command


def test_a_run_that_ends_well_leaves_no_secret(warm: Warm, tmp_path: Path) -> None:
    command = run(warm, tmp_path / "outputs", "logger.kinds=[wandb,csv,tensorboard]", status=0)
    assert leaks(command) == []
    written = command.result["overrides"]
    assert f"+callbacks.notifier.password={REDACTED}" in written
    assert f"+callbacks.notifier.headers={{accept:text,api_key:{REDACTED}}}" in written
    assert list(command.outputs.glob("wandb/*/*.wandb"))
    assert list(command.outputs.rglob("report.html"))


@pytest.mark.parametrize("options", ["--cfg job", "--cfg job --resolve", "--cfg all", "--info config"])
def test_a_config_that_is_only_printed_shows_no_secret(options: str, warm: Warm, tmp_path: Path) -> None:
    """People paste it where they ask for help."""
    shown = warm.lockdec("run", "debug=tiny", *PLANTED, *options.split(), cwd=tmp_path, SERVICE_TOKEN=ENVIRONMENT)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(shown.stdout) > 300
    assert [secret for secret in SOUGHT if secret in shown.stdout] == []


def test_a_single_value_that_is_printed_is_no_secret(warm: Warm, tmp_path: Path) -> None:
    """Of a config file, so that nothing typed has told what it is."""
    (tmp_path / "own" / "debug").mkdir(parents=True)
    content = "# @package _global_\ncallbacks: {notifier: {password: correct horse, greeting: hello}}\n"
    (tmp_path / "own" / "debug" / "mine.yaml").write_text(content)
    for key, printed in (("password", REDACTED), ("greeting", "hello")):
        asked = ("--cfg", "job", "--package", f"callbacks.notifier.{key}")
        shown = warm.lockdec("run", "-cd", str(tmp_path / "own"), "debug=mine", *asked, cwd=tmp_path)
        assert (shown.returncode, shown.stdout.strip()) == (0, printed), shown.stderr


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_run_that_fails_leaves_no_secret(when: str, warm: Warm, tmp_path: Path) -> None:
    command = run(warm, tmp_path / "outputs", f"+callbacks.notifier.fails={when}", status=1)
    assert leaks(command) == []
    assert "401 for user" in command.result["error"]
    assert "401 for user" in command.printed


@pytest.mark.parametrize(
    "launcher",
    [
        (),
        ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"),
    ],
)
def test_a_sweep_leaves_no_secret(launcher: tuple[str, ...], warm: Warm, tmp_path: Path) -> None:
    """A cell fails; submitit's pickles, which held the config, are gone, and its logs are there."""
    more = ("-m", "+callbacks.notifier.fails=later", *launcher)
    command = run(warm, tmp_path / "outputs", *more, status=1)
    assert leaks(command) == []
    assert "0 of 1 cells done" in command.printed
    assert "cell 0 failed: 401 for user" in command.printed
    assert list(command.folder.glob(".submitit/**/*.out")) or "submitit" not in "".join(launcher)
    written = (command.folder / "multirun.yaml").read_text()
    assert f"+callbacks.notifier.password={REDACTED}" in written


def test_a_sweep_that_ends_before_its_first_cell_leaves_no_secret(warm: Warm, tmp_path: Path) -> None:
    command = run(warm, tmp_path / "outputs", "-m", "fewshot.shots=8,many", status=1)
    assert "many" in command.printed
    assert (command.folder / "multirun.yaml").is_file()
    assert leaks(command) == []


def test_a_search_leaves_no_secret_and_does_not_search_for_one(warm: Warm, tmp_path: Path) -> None:
    search = ("-m", "hparams_search=optuna", "hydra.sweeper.trials=1", "hydra.sweeper.prune=null")
    command = warm.start(tmp_path / "outputs", *PLANTED, *search, "+callbacks.notifier.token=one-of-two,two-of-two")
    assert command.wait() == 1
    assert "+callbacks.notifier.token is a secret, which a search cannot choose" in command.printed
    assert not list(command.outputs.rglob("search.journal"))
    command = run(warm, tmp_path / "outputs", *search, "fewshot.shots=8,9", status=1)  # there is nothing to compare
    assert list(command.outputs.rglob("search.journal"))
    assert leaks(command) == []


def test_an_override_that_hydra_cannot_read_is_printed_without_its_secret(warm: Warm, tmp_path: Path) -> None:
    for typed in ("+callbacks.n.it's_password=not for print", "+callbacks.n.headers={api_key: not for print"):
        command = warm.start(tmp_path / "outputs", typed)
        assert command.wait() == 1
        assert "for print" not in command.printed
        assert "lockdec: " in command.printed
