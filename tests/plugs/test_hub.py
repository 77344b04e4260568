"""Push and pull against a server on this machine that speaks the hub's API."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from lockdec.errors import StoreError, said
from lockdec.plugs.folder import read_plug
from lockdec.plugs.hub import pull, push

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: files by name."""

    files: ClassVar[dict[str, dict[str, bytes]]] = {}

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/models/(.+)/tree/.*", self.path):
            files = self.files[found[1]].items()
            self._json([{"type": "file", "path": name, "size": len(file), "oid": COMMIT} for name, file in files])
            return
        repository, _, name = self.path.lstrip("/").partition(f"/resolve/{self._revision()}/")
        content = self.files.get(repository, {}).get(name)
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.strip("/").split("/")
        if self.path == "/api/repos/create":
            made = json.loads(body)
            name = "/".join(part for part in (made.get("organization"), made["name"]) if part)
            self.files.setdefault(name, {})
            self._json({"url": f"http://{self.headers['Host']}/{name}"})
        elif parts[4:5] == ["preupload"]:
            wanted = json.loads(body)["files"]
            self._json(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in wanted]}
            )
        elif parts[4:5] == ["commit"]:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files["/".join(parts[2:4])][line["value"]["path"]] = content
            self._json(
                {
                    "commitUrl": f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{COMMIT}",
                    "commitOid": COMMIT,
                }
            )
        else:
            self._json({"errors": [], "warnings": []})

    def _revision(self) -> str:
        return self.path.partition("/resolve/")[2].partition("/")[0]

    def _json(self, answer: object) -> None:
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, bytes]]]:
    """What the hub holds, for a user who has a token."""
    from huggingface_hub import constants, file_download

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # seconds until it ends
    address = f"http://127.0.0.1:{server.server_port}"
    Hub.files.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_plantedplantedplantedplanted")
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module, name, value in (
        (constants, "ENDPOINT", address),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE", template),
        (file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template),
    ):
        monkeypatch.setattr(module, name, value, raising=False)
    yield Hub.files
    server.shutdown()
    server.server_close()


def test_a_plug_comes_back_as_it_was_pushed(hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path) -> None:
    assert push(plug, "somebody/drawings").endswith("somebody/drawings")
    assert set(hub["somebody/drawings"]) == {path.name for path in plug.iterdir()}
    pull("somebody/drawings", tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {path.name for path in plug.iterdir()}
    for path in plug.iterdir():
        assert (tmp_path / "mine" / path.name).read_bytes() == path.read_bytes()


def test_only_the_plug_is_pushed(hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path) -> None:
    for path in plug.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "secret.txt").write_text("secret")
    push(tmp_path, "somebody/drawings")
    assert "secret.txt" not in hub["somebody/drawings"]


@pytest.mark.parametrize("files", [{"README.md": b"a model", "model.safetensors": b"weights"}, {"train.py": b""}])
def test_a_repository_of_something_else_is_left_as_it_is(
    files: dict[str, bytes], hub: dict[str, dict[str, bytes]], plug: Path
) -> None:
    hub["me/model"] = dict(files)
    with pytest.raises(
        StoreError, match=r"^me/model: it has (model\.safetensors|train\.py) and is no plug; push to a "
    ):
        push(plug, "me/model")
    assert hub["me/model"] == files


def test_a_repository_that_the_form_of_the_hub_has_made_takes_a_plug_and_later_another(
    hub: dict[str, dict[str, bytes]], plug: Path
) -> None:
    hub["me/plug"] = {".gitattributes": b"", "README.md": b"---\nlicense: mit\n---\n"}
    for _ in range(2):
        push(plug, "me/plug")
        assert set(hub["me/plug"]) == {".gitattributes", *(path.name for path in plug.iterdir())}


def test_a_file_whose_name_is_a_pattern_takes_no_others_along(
    hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path
) -> None:
    for path in plug.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "*").write_text("all")
    record = json.loads((plug / "plug.json").read_text())
    record["files"]["*"] = {"bytes": 3, "sha256": hashlib.sha256(b"all").hexdigest()}
    (tmp_path / "plug.json").write_text(json.dumps(record))
    (tmp_path / "secret.txt").write_text("secret")
    push(tmp_path, "somebody/drawings")
    assert set(hub["somebody/drawings"]) == {"*", *(path.name for path in plug.iterdir())}


def test_a_card_that_is_a_link_is_not_pushed(hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path) -> None:
    """A stranger's plug could send a file of this machine to the hub."""
    (tmp_path / "plug").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for path in plug.iterdir():
        (tmp_path / "plug" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "plug" / "README.md").unlink()
    with pytest.raises(StoreError, match=r"README\.md: missing"):
        push(tmp_path / "plug", "somebody/drawings")
    (tmp_path / "plug" / "README.md").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(StoreError, match=r"README\.md: a symbolic link, which is not followed"):
        push(tmp_path / "plug", "somebody/drawings")
    assert "somebody/drawings" not in hub


def test_a_plug_of_many_files_is_not_downloaded(
    hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(plug, "somebody/large")
    monkeypatch.setattr("lockdec.plugs.hub.MOST_PLUG", 5_000)
    with pytest.raises(StoreError, match=r"somebody/large: .* has \d+ bytes, and at most \d+ are downloaded"):
        pull("somebody/large", tmp_path / "large")
    record = json.loads(hub["somebody/large"]["plug.json"])
    many = {f"a{number}": {"bytes": 1, "sha256": "0"} for number in range(101)}
    hub["somebody/large"]["plug.json"] = json.dumps(record | {"files": many}).encode()
    with pytest.raises(StoreError, match=r"names 101 files; a plug has at most 100"):
        pull("somebody/large", tmp_path / "many")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "nowhere"], "'nowhere': no such folder"),
        (["list", ""], "'': no such folder"),
        (["list", "n" * 300], "n{300}: File name too long"),
        (["pull", "a/b", "n" * 300], "n{300}: File name too long"),
        (["pull", "a/b", "/proc/none/x"], "/proc/none/x: cannot be written"),
    ],
)
def test_folders_that_cannot_be_are_refused_in_one_line(words: list[str], message: str) -> None:
    from lockdec.plugs.__main__ import main

    with pytest.raises(SystemExit, match=rf"^lockdec: {message}"):
        main(words)


def test_what_is_no_plug_is_refused(hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"somebody/nothing: plug\.json cannot be downloaded"):
        pull("somebody/nothing", tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"plug\.json: cannot be read"):
        push(tmp_path, "somebody/nothing")
    push(plug, "somebody/evil")
    record = json.loads(hub["somebody/evil"]["plug.json"])
    for number, name in enumerate(("../../evil", "/evil", ".git", "a/b/c")):
        hub["somebody/evil"]["plug.json"] = json.dumps(record | {"files": {name: {"bytes": 1, "sha256": "0"}}}).encode()
        with pytest.raises(StoreError, match="cannot be a file of a plug"):
            pull("somebody/evil", tmp_path / f"evil{number}")
    kept = hub["somebody/evil"]["normalisation.safetensors"]
    hub["somebody/evil"]["normalisation.safetensors"] = b"changed"
    hub["somebody/evil"]["plug.json"] = json.dumps(record).encode()
    with pytest.raises(StoreError, match=r"normalisation\.safetensors: missing, or not the one"):
        pull("somebody/evil", tmp_path / "changed")
    hub["somebody/evil"]["normalisation.safetensors"] = kept
    assert pull("somebody/evil", tmp_path / "changed") == read_plug(plug)  # nothing is in the way of another try


def test_the_command_lists_shows_pushes_and_pulls(
    hub: dict[str, dict[str, bytes]], plug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lockdec.plugs.__main__ import main

    main(["push", str(plug), "somebody/drawings"])
    main(["pull", "somebody/drawings", str(tmp_path / "mine")])
    (tmp_path / "mine" / "sub").mkdir()
    (tmp_path / "mine" / "sub" / "plug.json").write_text("{}")
    (tmp_path / "named").mkdir()
    for path in plug.iterdir():
        (tmp_path / "named" / path.name).write_bytes(path.read_bytes())
    record = json.loads((plug / "plug.json").read_text())
    (tmp_path / "named" / "plug.json").write_text(json.dumps(record | {"name": "x\nlockdec: all is well"}))
    main(["list", str(tmp_path)])
    main(["show", str(plug)])
    shown = capsys.readouterr().out
    assert "EfficientNetLite0 into the decoder" in shown
    assert "sub/plug.json: schema None" in shown
    assert not [line for line in shown.splitlines() if line.startswith("lockdec: all is well")]
    assert "## What it reaches" in shown
    with pytest.raises(SystemExit, match=r"^lockdec: .*nowhere/plug\.json: cannot be read"):
        main(["show", str(tmp_path / "nowhere")])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"^lockdec: .*run: a run, not a plug; make one with lockdec export .* --plug"):
        main(["show", str(tmp_path / "run")])


ANSWERED = {"ETag": '"a"', "X-Repo-Commit": COMMIT}


def sized(content: bytes) -> tuple[int, dict[str, str], bytes]:
    return 200, {**ANSWERED, "Content-Length": str(len(content))}, content


REPLIES = {
    "no length": (200, ANSWERED, b"{}"),
    "a length below 0": (200, {**ANSWERED, "Content-Length": "-5"}, b""),
    "a length of letters": (200, {**ANSWERED, "Content-Length": "abc"}, b""),
    "a length of 400 digits": (200, {**ANSWERED, "Content-Length": "9" * 400}, b""),
    "no hash": (200, {"Content-Length": "2"}, b"{}"),
    "a hash that is a path": (200, {"ETag": '"../../x"', "X-Repo-Commit": "../../../x", "Content-Length": "2"}, b"{}"),
    "a list": sized(b"[1]"),
    "an infinite number": sized(b'{"files": 1e999}'),
    "bytes": sized(b"\xff\xfe\0\0"),
    "a list of files": sized(b'{"files": ["a"]}'),
    "a file without a name": sized(b'{"files": {"": {}}}'),
    "a file above": sized(b'{"files": {"../a": null}}'),
    "half a letter": sized(b'{"files": {"\\ud800": 1}}'),
    "a circle": (302, {"Location": "/x", "Content-Length": "0"}, b""),
    "another place": (302, {"Location": "http://127.0.0.1:9/x", "Content-Length": "0"}, b""),
    "a file of this machine": (302, {"Location": "file:///etc/passwd", "Content-Length": "0"}, b""),
    "a long reason": (404, {"X-Error-Message": "\x1b[2J" + "x" * 5000, "Content-Length": "0"}, b""),
    **{
        f"status {status}": (status, {"Content-Length": "0"}, b"")
        for status in (204, 301, 401, 403, 418, 429, 500, 503)
    },
}


@pytest.mark.parametrize("reply", REPLIES)
def test_whatever_a_server_answers_is_one_line_and_leaves_no_plug(
    reply: str, hub: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: Hub) -> None:
        status, headers, content = REPLIES[reply]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    monkeypatch.setattr(Hub, "do_GET", answer)
    monkeypatch.setattr(Hub, "do_HEAD", answer)
    with pytest.raises(StoreError) as refused:
        pull("somebody/plug", tmp_path / "plug")
    assert len(said(refused.value)) < 500
    assert "planted" not in str(refused.value)
    with pytest.raises(StoreError):
        read_plug(tmp_path / "plug")
    assert not list(tmp_path.iterdir())
