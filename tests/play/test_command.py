"""The command: what it refuses, where it listens, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from lockdec.errors import ConfigError
from lockdec.play.__main__ import address, listening, main
from tests.conftest import TinyRun


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; from lockdec.play.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('IMPORTED', {'torch', 'starlette', 'PIL'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "RUN_OR_PLUG" in shown
    assert "IMPORTED set()" in shown


@pytest.mark.parametrize("host", ["999.1.1.1", "a" * 300, "\udcff", "no such host"])
def test_a_host_that_cannot_be_is_refused(host: str) -> None:
    """A byte that is not UTF-8 arrives as half a surrogate pair."""
    with pytest.raises(ConfigError, match="cannot listen there"):
        listening(host, 0)


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_host_does_not_open_the_page_to_all(host: str) -> None:
    """As `--host $UNSET` gives it: a socket would listen at every address."""
    with pytest.raises(ConfigError, match=rf"^--host '{host}': name an address"):
        listening(host, 0)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_named_with_what_to_type(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=r"^lockdec: the playground needs .*: pip install 'lockdec\[play\]'$"):
        main(["runs/x"])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("127.0.0.1", 70_000), ("not.a.host.invalid", 0)])
def test_where_it_cannot_listen_it_says_so(host: str, port: int | None) -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1] if port is None else port
        with pytest.raises(
            ConfigError, match=rf"^--host {host} --port {port}: cannot listen there \(.*--port 0 takes a"
        ):
            listening(host, port)


def test_no_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^lockdec: nowhere: no such folder; name the folder of a run"):
        main(["nowhere", "--port", "0"])
    assert capsys.readouterr().out == ""


def test_it_listens_to_this_machine_alone_and_ends_well_with_ctrl_c(tiny: TinyRun) -> None:
    command = [sys.executable, "-m", "lockdec.play", str(tiny.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"lockdec: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert found is not None, line + process.stderr.read()
        with urllib.request.urlopen(f"{found[1]}captioners") as answer:
            assert json.load(answer)[0]["folder"] == str(tiny.folder)
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_an_address_of_ipv6_has_brackets() -> None:
    with listening("::1", 0) as listener:
        assert re.fullmatch(r"http://\[::1\]:\d+/", address(listener))
