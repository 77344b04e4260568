"""How long input without end takes, and how much memory: with today's bounds, and with an earlier lockdec.

    python -m tests.faults.bounds --before e5f8cd1      # prints the table of docs/reliability.md

Each case runs in a process of its own, which is ended after `PATIENCE` seconds or at `MOST_MEMORY` bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
PATIENCE, MOST_MEMORY = 60, 6 << 30

CASES = {  # what it is, and code that reads it; what the code writes first is not measured
    "a text of 40 kB to redact, all slashes": """
from lockdec.redaction import text
def read(): return len(text("/" * 40_000))
""",
    "a config of 5 MB": """
from lockdec.store.reading import read_config
path = Path("config.yaml")
path.write_text("".join(f"key_{n}: [1, 2, {{a: b}}]\\n" for n in range(190_000)))
def read(): return len(read_config(path))
""",
    "a JSON file of 90 MB": """
from lockdec.store.reading import read_json
path = Path("result.json")
path.write_text("[" + ",".join(["[]"] * 30_000_000) + "]")
def read(): return len(read_json(path))
""",
    "ROUGE-L of a caption of 2,000 words": """
try: from lockdec.evaluation.metrics import rouge_l
except ImportError: from lockdec.metrics import rouge_l
words = [f"w{n * n % 997}" for n in range(2_000)]
def read(): return rouge_l([" ".join(words)], [[" ".join(reversed(words))]])
""",
    "ROUGE-L of a caption of 20,000 words": """
try: from lockdec.evaluation.metrics import rouge_l
except ImportError: from lockdec.metrics import rouge_l
words = [f"w{n * n % 997}" for n in range(20_000)]
def read(): return rouge_l([" ".join(words)], [[" ".join(reversed(words))]])
""",
    "a folder with a pipe for result.json": """
from lockdec.report.results import read as read_results
os.mkfifo("result.json")
def read(): return read_results([Path(".")])
""",
}
MEASURE = """
import json, os, resource, time
from pathlib import Path
{code}
before, began, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), "read"
print("ready", flush=True)
try:
    read()
except Exception as error:
    said = type(error).__name__
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([said, time.monotonic() - began, more / 1024]))
"""


def measured(code: str, source: Path) -> str:
    """What becomes of a case with the lockdec in a folder: `read` or the error, seconds, and MB of memory."""
    with TemporaryDirectory(prefix="lockdec-bounds-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", MEASURE.format(code=code)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY)),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            out = process.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"more than {PATIENCE} s"
        said, seconds, memory = json.loads(out)
        answer = {"read": "read", "MemoryError": f"more than {MOST_MEMORY >> 30} GB"}.get(said, "refused")
        return f"{answer} in {seconds:.2g} s, {memory:,.0f} MB" if memory >= 1 else f"{answer} in {seconds:.2g} s"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.bounds", description=__doc__)
    parser.add_argument("--before", metavar="REVISION", default="e5f8cd1", help="an earlier lockdec (%(default)s)")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="lockdec-before-") as folder:
        archive = subprocess.run(["git", "archive", options.before], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        print("| input | before | now |\n|---|---|---|")
        for name, code in CASES.items():
            print(f"| {name} | {measured(code, Path(folder))} | {measured(code, ROOT)} |", flush=True)


if __name__ == "__main__":
    main()
