"""What the page's addresses answer and refuse, in this process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from lockdec.play import server
from lockdec.play.player import Asked, Player
from lockdec.play.server import PAGE, application
from tests.conftest import TinyRun

HERE = "http://127.0.0.1:8642"


@pytest.fixture
def client(players: Mapping[str, Player]) -> Iterator[TestClient]:
    with TestClient(application(list(players.values()), "127.0.0.1"), base_url=HERE) as client:
        yield client


def asked(client: TestClient, content: bytes, name: str = "x.png", captioner: int = 0, **query: Any) -> Any:
    return client.post(f"/captioners/{captioner}/captions", params={"name": name, **query}, content=content)


def test_the_page_asks_no_other_server(client: TestClient) -> None:
    for path in PAGE:
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert not re.search(r"https?:|[\"'(]//", answer.text.replace("http://www.w3.org/2000/svg", "")), path
    assert set(PAGE) == {
        "/",
        *(f"/{file.name}" for file in files("lockdec.play").iterdir() if file.name[-3:] in ("css", ".js")),
    }


def test_a_picture_is_captioned(client: TestClient, players: Mapping[str, Player], picture: Path) -> None:
    answer = asked(client, picture.read_bytes(), "x.png", n=2, strategy="beam", beams=3)
    assert answer.status_code == 200
    assert answer.json() == players["image"].answer(picture.read_bytes(), "x.png", Asked(2, "beam", 3))


def test_a_text_is_captioned(client: TestClient, players: Mapping[str, Player]) -> None:
    place = list(players).index("text")
    typed = {"content-type": "text/plain; charset=utf-8"}
    address = f"/captioners/{place}/captions"
    answer = client.post(address, content="ein m\u00e4nn".encode(), headers=typed)
    assert answer.json()["input"] == {"kind": "text", "text": "ein m\u00e4nn"}
    broken = client.post(address, content=b"\xff\xfe", headers=typed)
    assert (broken.status_code, broken.json()) == (422, {"error": "the text is not UTF-8"})


@pytest.mark.parametrize(("reads", "name"), [("image", "x.png"), ("sound", "x.wav"), ("array", "x.npy")])
def test_no_file_of_this_machine_is_opened_by_its_name(
    reads: str, name: str, client: TestClient, players: Mapping[str, Player], picture: Path, tone: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(picture.read_bytes() if reads == "image" else tone)
    np.save(tmp_path / "x.npy", np.eye(3))
    address = f"/captioners/{list(players).index(reads)}/captions"
    answer = client.post(address, content=str(path), headers={"content-type": "text/plain"})
    assert (answer.status_code, list(answer.json())) == (422, ["error"])
    assert answer.json()["error"].endswith("send the file itself; a name opens none here")


def test_captioners_and_their_examples(client: TestClient, players: Mapping[str, Player]) -> None:
    about = client.get("/captioners").json()
    assert [one["reads"] for one in about] == ["image", "text", "sound", "array", "image"]
    answer = client.get("/captioners/0/examples/1")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == players["image"].examples[1].content


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ({"n": 0}, "n=0: a whole number from 1 to 10"),
        ({"n": "\u0663"}, "n=\u0663: a whole number from 1 to 10"),
        ({"n": "9" * 99}, f"n={'9' * 20}: a whole number from 1 to 10"),
        ({"beams": 1_000_000}, "beams=1000000: a whole number from 1 to 32"),
        ({"seed": -1}, "seed=-1: a whole number from 0 to 2147483647"),
        ({"strategy": "best"}, "strategy=best is not one of: greedy, beam, nucleus, top_k, mbr"),
    ],
)
def test_an_impossible_option_is_refused(client: TestClient, query: dict[str, Any], line: str) -> None:
    answer = asked(client, b"x", **query)
    assert (answer.status_code, answer.json()) == (422, {"error": line})


def test_what_cannot_be_read_is_one_visible_line(client: TestClient) -> None:
    answer = asked(client, b"no picture", "a\x1b[2J\nb.png")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("a\ufffd[2J\ufffdb.png: not a picture of a kind")
    assert asked(client, b"", "x.png").json() == {"error": "there is nothing to caption"}
    assert asked(client, b"x", captioner=9).json() == {"error": "there are only 5 captioners"}
    assert client.get("/captioners/0/examples/99").status_code == 404
    assert client.get("/../pyproject.toml").status_code == 404


def test_too_much_is_refused_before_it_is_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless() -> Iterator[bytes]:
        for number in range(1_000):
            read.append(number)
            yield bytes(1_000)

    monkeypatch.setattr(server, "MOST_BYTES", 5_000)
    answer = asked(client, endless())  # type: ignore[arg-type]
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("at most 5 kB are read here")


def test_a_visitor_who_leaves_while_sending_ends_nothing(players: Mapping[str, Player]) -> None:
    messages = iter([{"type": "http.request", "body": b"\x89PNG", "more_body": True}, {"type": "http.disconnect"}])
    answers: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http", "method": "POST", "scheme": "http", "path": "/captioners/0/captions", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8642"), (b"content-length", b"100000")],
    }  # fmt: skip
    asyncio.run(application(list(players.values()), "127.0.0.1")(scope, receive, send))
    assert answers[0]["status"] == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8642", "origin": "http://localhost:8642"}, 200),
        ({"host": "[::1]:8642"}, 200),
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"host": "rebound.example:8642"}, 403),
        ({"host": "127.0.0.1.rebound.example"}, 403),
        ({"host": "[broken"}, 403),
    ],
)
def test_other_sites_may_not_ask(
    headers: dict[str, str], status: int, client: TestClient, picture: Path, players: Mapping[str, Player]
) -> None:
    for answer in (
        client.post("/captioners/0/captions?n=1", content=picture.read_bytes(), headers=headers),
        client.get("/captioners", headers=headers),
    ):
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers


def test_a_link_on_another_page_leads_to_the_page(client: TestClient) -> None:
    assert client.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200


def test_others_may_where_the_user_serves_them(players: Mapping[str, Player]) -> None:
    with TestClient(application([players["image"]], "0.0.0.0"), base_url="http://lab.example:80") as client:
        assert client.get("/captioners").status_code == 200
        assert client.get("/captioners", headers={"origin": "https://elsewhere.example"}).status_code == 403


def test_nothing_is_written(client: TestClient, talking: TinyRun, picture: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in talking.outputs.rglob("*")}
    asked(client, picture.read_bytes())
    assert {path: path.stat().st_mtime_ns for path in talking.outputs.rglob("*")} == before


@pytest.mark.parametrize("number", ["9" * 5_000, "-1", "\u0663", "1.0", "7"])
def test_a_number_that_is_none_is_not_found(number: str) -> None:
    """Python refuses to read numbers of more than 4,300 digits, which was an error of the server."""
    with TestClient(application([], "127.0.0.1"), base_url=HERE) as client:
        assert client.get(f"/captioners/{number}/examples/0").status_code == 404
        assert client.post(f"/captioners/{number}/captions", content=b"x").status_code == 404
