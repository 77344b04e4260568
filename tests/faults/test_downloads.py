"""A model that a stranger's files name is not asked for at a hub unless the user allows it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from lockdec.errors import ConfigError
from lockdec.evaluation.finished import find_run, open_captioner
from lockdec.export import export
from lockdec.store.tensors import save_tensors
from tests.faults.conftest import with_encoder
from tests.faults.warm import Command


class Hub(BaseHTTPRequestHandler):
    """Notes what is asked for, with the token, and has nothing."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('authorization', '')}")
        self.send_error(404)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What has been asked of a hub on this machine by a user who has a token."""
    from huggingface_hub import constants, file_download

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # seconds until it ends
    address = f"http://127.0.0.1:{server.server_port}"
    Hub.asked.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_plantedplantedplantedplanted")
    for module, name, value in (
        (constants, "ENDPOINT", address),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"),
        (file_download, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"),
    ):
        monkeypatch.setattr(module, name, value, raising=False)
    yield Hub.asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("read", [lambda run, out: open_captioner(find_run(run)), export], ids=["caption", "export"])
def test_a_model_that_a_strangers_config_names_is_not_asked_for(
    read: Callable[[Path, Path], object], hub: list[str], tmp_path: Path, undisturbed: Command
) -> None:
    target = "lockdec.encoders.huggingface.HuggingFace"
    run = with_encoder(undisturbed, tmp_path, _target_=target, path="somebody/model")
    try:
        with pytest.raises(ConfigError, match=r"encoder\.path=somebody/model.*--allow-download somebody/model"):
            read(run, tmp_path / "out")
        assert hub == []
        with pytest.raises(ConfigError, match="does not answer"):
            open_captioner(find_run(run), downloads=["somebody/model"])
        assert any("somebody/model" in line and "planted" in line for line in hub), "the hub is not where it is asked"
    finally:
        shutil.rmtree(run)


def test_a_checkpoint_in_a_strangers_folder_asks_for_no_other(
    hub: list[str], tmp_path: Path, undisturbed: Command
) -> None:
    """Its config wants the weights of a backbone of the hub."""
    backbone = {"backbone": "somebody/model", "use_pretrained_backbone": True, "use_timm_backbone": False}
    run = with_encoder(undisturbed, tmp_path, _target_="lockdec.encoders.huggingface.HuggingFace", path="run:encoder")
    (run / "encoder").mkdir()
    (run / "encoder" / "config.json").write_text(json.dumps({"model_type": "detr", "backbone_config": None} | backbone))
    save_tensors({"a": torch.ones(1)}, run / "encoder" / "model.safetensors")
    try:
        with pytest.raises(ConfigError, match=r"encoder\.path=.*its network cannot be read"):
            open_captioner(find_run(run))
        assert hub == []
    finally:
        shutil.rmtree(run)
