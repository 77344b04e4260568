"""Runs `lockdec` and small scripts many times for one import of torch: a warm process forks a child for each of them.

The children are processes like any others: they are killed, limited and waited for by the kernel.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lockdec
from tests.faults.causes import Fault, arm

STEPS = {"pretrain": 14, "finetune": 12}  # more than one row of a learning curve, which has one for ten
TINY = (
    "debug=tiny",
    "data.limit=64",
    "~text.sources.wikipedia",
    f"pretrain.steps={STEPS['pretrain']}",
    f"finetune.steps={STEPS['finetune']}",
    "prior.steps=4",
    "fewshot.shots=8",
    "evaluate.max_new_tokens=6",
    "trainer.checkpoint_seconds=0",
)
LONGEST = 300  # seconds after which a command is ended that its test has forgotten


@dataclass(frozen=True)
class Command:
    """A started `lockdec`.

    Attributes:
        pid: of the process.
        outputs: its `paths.outputs`.
        folder: of the run; for a sweep, of the sweep.
        log: what it prints.
        diary: what a fault of stage "*" has written down.
    """

    warm: Warm
    pid: int
    outputs: Path
    folder: Path
    log: Path
    diary: Path

    def wait(self) -> int:
        """Its exit status; minus the signal that ended it."""
        return int(self.warm.ask({"wait": self.pid})["status"])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    @property
    def printed(self) -> str:
        """What it has printed, in one line."""
        return " ".join(self.log.read_text(errors="replace").split())

    @property
    def result(self) -> dict[str, Any]:
        """What result.json holds."""
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return result

    @property
    def artifacts(self) -> dict[str, int]:
        """The published artifacts by stage and key, with what changes when one is made again."""
        found = self.outputs.glob("stages/*/*/artifact.json")
        whole = [path for path in found if len(path.parent.name) == 64]
        return {f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns for path in whole}


class Warm:
    """The warm process; `start` has it fork a child."""

    def __init__(self, place: Path) -> None:
        self.place = place  # of what the commands print
        code = [sys.executable, "-c", "from tests.faults.warm import serve; serve()"]
        self._process = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._started = 0

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One exchange with the warm process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def address_space(self) -> int:
        """Bytes that the warm process has mapped, which its children begin with; more with CUDA's torch."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmSize:")[2].split()[0]) * 1024

    def start(
        self, outputs: Path, *overrides: str, fault: Fault | None = None, name: str = "run", **environment: str
    ) -> Command:
        """Start the tiny pipeline on these outputs, to meet a fault."""
        sweep = "-m" in overrides
        folder = outputs / "sweeps" / name if sweep else outputs / "runs" / name
        place = [f"hydra.sweep.dir={folder}"] if sweep else [f"hydra.run.dir={folder}"]
        options = [word for word in overrides if word.startswith("-")]
        choices = [word for word in overrides if word not in options]
        words = [*options, *TINY, f"paths.outputs={outputs}", f"name={name}", *place, *choices]
        return self._start(words, self._command(outputs, folder), fault or Fault(), environment)

    def begin(self, *arguments: str, cwd: Path, unread: bool = False, **environment: str) -> Command:
        """Start `lockdec ARGUMENTS` in a folder; `unread` closes the pipe that it prints to."""
        command = self._command(cwd / "outputs", cwd)
        return self._start(
            arguments, command, Fault(), environment, cwd=str(cwd), errors=f"{command.log}.errors", unread=unread
        )

    def lockdec(
        self, *arguments: str, cwd: Path, unread: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """As `begin`, to its end."""
        return _completed(self.begin(*arguments, cwd=cwd, unread=unread, **environment), arguments)

    def python(self, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a script in a folder, to its end."""
        command = self._command(cwd / "outputs", cwd)
        errors = f"{command.log}.errors"
        started = self._start((), command, Fault(), {}, cwd=str(cwd), errors=errors, script=script)
        return _completed(started, ())

    def _command(self, outputs: Path, folder: Path) -> Command:
        self._started += 1
        log, diary = self.place / f"log{self._started}", self.place / f"diary{self._started}"
        return Command(self, 0, outputs, folder, log, diary)

    def _start(
        self, words: Sequence[str], command: Command, fault: Fault, environment: Mapping[str, str], **more: str | bool
    ) -> Command:
        question = {
            "arguments": list(words),
            "fault": dataclasses.asdict(fault),
            "outputs": str(command.outputs),
            "log": str(command.log),
            "diary": str(command.diary),
            "environment": environment,
        }
        return dataclasses.replace(command, pid=int(self.ask(question | more)["pid"]))

    def run(self, outputs: Path, *overrides: str, fault: Fault | None = None, **environment: str) -> Command:
        """As `start`, to its end, which has to be a good one."""
        command = self.start(outputs, *overrides, fault=fault, **environment)
        status = command.wait()
        assert status == 0, command.printed
        return command

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _completed(command: Command, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The command's end, with what it has printed."""
    errors = command.log.with_name(f"{command.log.name}.errors")
    status = command.wait()
    return subprocess.CompletedProcess(arguments, status, command.log.read_text(), errors.read_text())


def serve() -> None:
    """What the warm process does: fork a child for each command it reads, wait for those it is asked about."""
    import torch

    for module in pkgutil.walk_packages(lockdec.__path__, "lockdec."):
        if module.name.rpartition(".")[2] not in ("__main__", "run"):  # which are imported as a command starts
            importlib.import_module(module.name)
    torch.set_num_threads(1)
    _prepare()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                _be(question)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _prepare() -> None:
    """Read and import, once for all commands, what building the stages of the tiny pipeline and a report need."""
    from lockdec.config.building import Builder
    from lockdec.pipeline.assembling import assemble
    from lockdec.report.page import write_report
    from tests.conftest import composed
    from tests.report.runs import result, write_run

    assemble(composed(*TINY), Builder())
    with tempfile.TemporaryDirectory() as folder:
        write_report([write_run(Path(folder) / "run", result())])


def _be(question: Mapping[str, Any]) -> None:
    """Become the command."""
    import torch

    # A fork spoils torch's pool of threads, and the first that asks for it makes it anew: here, while there is a single
    # thread. Those of gloo, which all ask at once, have ended a rank by "Invalid thread pool" or a segmentation fault.
    torch.set_num_threads(1)
    status = 70
    signal.alarm(LONGEST)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # whoever started the tests may ignore them
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        apart = "errors" in question
        errors = os.open(question["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if apart else log
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(_closed_pipe() if question.get("unread") else log, 1)
        os.dup2(errors, 2)
        os.chdir(question.get("cwd", "."))
        os.environ.update(question["environment"])
        if encoding := question["environment"].get("PYTHONIOENCODING"):  # which Python reads as it starts
            sys.stdout.reconfigure(encoding=encoding)  # type: ignore[union-attr]
        time.tzset()
        sys.argv = ["lockdec", *question["arguments"]]
        arm(Fault(**question["fault"]), Path(question["outputs"]), Path(question["diary"]))
        if "script" in question:
            sys.path.insert(0, os.getcwd())
            exec(compile(question["script"], "script", "exec"), {"__name__": "__main__"})
        else:
            from lockdec.__main__ import main

            main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _closed_pipe() -> int:
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing
