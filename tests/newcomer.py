"""Run every command of README.md and docs/ as a newcomer would: `make newcomer`.

Commands run in their order, in a folder that holds what the pages assume (pictures, checkpoints, a data set of somebody
else). Names that stand for something are replaced, and work is shortened: `debug=tiny`, two cells of each sweep, a few
steps and shots. A command fails if its exit status is not 0, or if it prints something of another kind than the page
shows after it: every line shown must have a line printed that begins with the same word. One that stands on two pages
runs once.

    python -m tests.newcomer                      # everything
    python -m tests.newcomer README.md --list     # one page; --list only says what would run
    python -m tests.newcomer --folder FOLDER      # work there; started again, go on after what passed
    python -m tests.newcomer --minutes 3          # the pages in turns, a command of each, until the time is over;
                                                  # of the other commands, the overrides are checked
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import cycle, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))))

# What no machine without a network, a GPU or a cluster can run, and what would run the whole of something else.
ELSEWHERE = {
    "pip install": "needs the network",
    "logger.mode=online": "needs an account",
    "--entity ME": "needs an account",
    "OWNER/NAME": "needs the network",
    "address=auto": "needs a cluster",
    "submitit_slurm": "needs a cluster (tests/cluster/slurm.sh)",
    "--nnodes": "needs several machines",
    "llama-7b": "needs several GPUs",
    "--nproc-per-node 8": "needs several GPUs",
    "trainer=gpu": "needs a GPU",
    "dataset_coco.json": "the same as dataset_flickr8k.json",
    "make test": "is what runs this",
    "lockdec play": "serves a page until it is ended (tests/play)",
    "make bench": "takes hours",
    "benchmarks": "takes hours",
    "lockdec fetch": "needs the network",
    "data=icons": "needs what lockdec fetch icons fetches",
    "make smollm2": "needs the network",
    "lockdec.data.recordings": "needs the network",
    "data.path=spoken_words": "needs what lockdec.data.recordings unpacks",
    "decoder=smollm2": "needs what make smollm2 fetches",
    '"$@"': "is a job script of the user's",
}
NEEDS = {
    "launcher=ray": "ray",
    "logger=tensorboard": "tensorboard",
    "lockdec.data.phrases": "espeakng_loader",
    "data.path=phrases": "espeakng_loader",
}  # packages that the README's command does not install
COMMAND = re.compile(
    r"(python -m|lockdec (run|caption|export|fetch|play|plugs|report|store|dashboard)|make|torchrun|pip)\b"
)
PATIENCE = 600  # seconds for one command
PASSED = "passed.txt"  # in the folder: the commands that passed there
SETTINGS = {"make demo": "python -m lockdec.run"}  # make would install into another environment
SHORT = {  # of what is typed, by the end of its key: the most that is worth waiting for
    "shots": 16,
    "parameters": 10000,  # of bridges of such a decoder
    "steps": 12,
    "trials": 2,
    "codes": 16,
    "n_jobs": 2,
    "max_batch_size": 2,
    "num_cpus": 2,
}


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page, line: where it stands.
        text: as it stands there, in one line.
        shown: what the page says that it prints; empty if it says nothing.
    """

    page: str
    line: int
    text: str
    shown: str = ""

    @property
    def elsewhere(self) -> str | None:
        """Why it cannot run here; None if it can."""
        typed = self.text.split(" #")[0]
        lacking = (f"needs {package}" for part, package in NEEDS.items() if part in typed and not find_spec(package))
        return next((why for part, why in ELSEWHERE.items() if part in typed), next(lacking, None))


def commands(page: str) -> Iterator[Command]:
    """The commands of a page in their order, each with the block of output that follows it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Command] = []
    for block in re.finditer(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        start = text[: block.start(1)].count("\n") + 1
        joined = block[1].replace("\\\n", " ")
        lines = [line.removeprefix("$ ") for line in joined.splitlines()]
        here = [line for line in lines if COMMAND.match(line)]
        if here:
            found += [Command(page, start, re.sub(r"\s+", " ", line)) for line in here]
        elif found and not found[-1].shown and "prints" in text[: block.start()].rsplit("```", 1)[-1]:
            found[-1] = replace(found[-1], shown=block[1])
    return iter(found)


def shortened(command: Command, folder: Path) -> list[str]:
    """The words of the command as it is run here."""
    words = shlex.split(SETTINGS.get(command.text.split(" #")[0].strip(), command.text), comments=True)
    words = [word for word in words if word not in ("...", ">", "captions.jsonl")]
    words = [_meant(word, command.text, folder) for word in words]
    if "lockdec.run" in words and "--help" not in words:
        words = [_less(word) for word in words]
        swept = [index for index, word in enumerate(words) if len(_values(word)) > 1]
        for place, index in enumerate(swept):
            key, values = words[index].partition("=")[0], _values(words[index])
            words[index] = f"{key}={','.join(values[: 1 if place else 2])}"
        if "-m" in words[words.index("lockdec.run") :] and not swept:
            words.append("hydra.sweeper.trials=2" if "hparams_search" in command.text else "seed=0,1")
        words += ["debug=tiny", *([] if "decoder.path" in command.text else ["decoder.layers=4"])]
        if "logger" not in command.text:
            words.append("logger=none")
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "lockdec":
        words[:1] = [sys.executable, "-m", "lockdec"]
    elif words[0] == "torchrun":
        words[:1] = [sys.executable, "-m", "torch.distributed.run"]
    return words


def _values(word: str) -> list[str]:
    """The values that an override sweeps over."""
    key, equals, value = word.partition("=")
    if not equals or key.startswith("-") or "interval(" in value or "range(" in value or "tag(" in value:
        return []
    return re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,\[{])+", value)


def _less(word: str) -> str:
    key, equals, value = word.partition("=")
    most = SHORT.get(key.rpartition(".")[2])
    if not equals or most is None or not all(part.isdecimal() for part in value.split(",")):
        return word
    return f"{key}={','.join(dict.fromkeys(str(min(int(part), most + n)) for n, part in enumerate(value.split(','))))}"


def _meant(word: str, line: str, folder: Path) -> str:
    """What a name of the pages stands for in the folder."""
    checkpoint = "encoder_checkpoint" if "encoder=huggingface" in line else "features"
    if "decoder=" in line:
        checkpoint = "llama" if "decoder=llama" in line else "gpt2"
    read = "text" if "hut" in line else "image"
    meanings: dict[str, Callable[[], str]] = {
        "outputs/runs/default/TIME": lambda: _newest(folder, read),
        "outputs/runs/default/2026-01-31_12-00-00": lambda: _newest(folder, read),
        "RUN_DIR": lambda: _newest(folder, read),
        "/shared/stages": lambda: f"{folder}/shared",
        "FOLDER_OR_HUB_ID": lambda: checkpoint,
        "=FOLDER": lambda: "=features",
        "=DATA": lambda: "=ids" if "encoder.path=FOLDER" in line else "=arrays",
        "path=...": lambda: f"path={checkpoint}",
        "layers=[3,-1]": lambda: "layers=[1,-1]",
        "encoder.dim=768": lambda: "encoder.dim=6",
    }
    for name, meaning in meanings.items():
        if name in word:
            word = word.replace(name, meaning())
    if word == "my_captioner":  # each export gets a folder of its own, and what reads one reads the newest
        exports = sorted(folder.glob("my_captioner_*"), key=lambda path: path.stat().st_mtime)
        return f"{word}_{time.monotonic_ns()}" if "export" in line or not exports else exports[-1].name
    return word


def _newest(folder: Path, modality: str) -> str:
    """The newest run whose encoder reads such inputs."""
    runs = sorted(folder.glob("outputs/runs/*/*/result.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(runs):
        result = json.loads(path.read_text(encoding="utf-8"))
        texts = result.get("encoder", {}).get("name") in ("PretrainedMLM", "MiniLM", "MaskedLanguageModelEncoder")
        if result["status"] == "ok" and "finetune" in result["stages"] and texts == (modality == "text"):
            return str(path.parent.relative_to(folder))
    return "outputs/runs/default"


def unlike(shown: str, printed: str) -> list[str]:
    """The lines that a page shows of which nothing printed has the kind: the same first word, whatever the numbers."""
    kinds = {_kind(line) for line in printed.splitlines()}
    return [line for line in shown.splitlines() if _kind(line) and _kind(line) not in kinds]


def _kind(line: str) -> str:
    words: list[str] = re.findall(r"[A-Za-z_]+", re.sub(r"\S*[0-9]\S*", "", line))
    return words[0].lower() if words else ""


def prepare(folder: Path) -> None:
    """Put into the folder what the pages assume to be there."""
    import numpy as np

    from tests.data.user_files import write_arrays, write_csv, write_pictures
    from tests.encoders.checkpoints import vit
    from tests.stages.checkpoints import save_gpt2, save_llama

    for name in ("my_pictures", "mine"):
        sized = zip(
            cycle(("small", "large")), write_pictures(folder / name, 48), strict=False
        )  # as docs/data.md counts
        rows = [(path, f"{size} {caption}") for size, (path, caption) in sized]
        write_csv(folder / name, rows)
    write_csv(folder / "mine", [*rows, ("pictures/gone.png", "gone")])
    (folder / "shared").mkdir()
    (folder / "pictures").mkdir()
    pictures = sorted((folder / "my_pictures" / "pictures").glob("*.png"))
    for path in pictures[:3]:
        (folder / "pictures" / path.name).write_bytes(path.read_bytes())
    (folder / "picture.png").write_bytes(pictures[0].read_bytes())
    for name in ("more_texts.txt", "german.txt"):
        (folder / name).write_text("ein hund\neine katze\n", encoding="utf-8")
    texts = [caption for _, caption in rows]
    save_gpt2(folder / "gpt2", texts, n_positions=64)
    save_llama(folder / "llama", texts, max_position_embeddings=64)
    vit(folder / "encoder_checkpoint")
    write_csv(folder / "arrays", write_arrays(folder / "arrays", 48))
    generator = np.random.default_rng(0)
    (folder / "features").mkdir()
    np.save(folder / "features" / "states.npy", generator.normal(size=(48, 4, 6)).astype(np.float32))
    ids = [f"id {number}" for number in range(48)]
    (folder / "features" / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    (folder / "ids").mkdir()
    write_csv(folder / "ids", list(zip(ids, texts, strict=True)))
    _karpathy(folder, rows)
    _dataset(folder, rows)


def _karpathy(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    (folder / "Flicker8k_Dataset").mkdir()
    images = []
    for number, (name, caption) in enumerate(rows):
        path = folder / "my_pictures" / name
        (folder / "Flicker8k_Dataset" / path.name).write_bytes(path.read_bytes())
        split = "test" if number % 6 == 0 else "val" if number % 6 == 1 else "train"
        images.append({"filename": path.name, "split": split, "sentences": [{"raw": caption}]})
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}), encoding="utf-8")


def _dataset(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    from datasets import Dataset, DatasetDict
    from PIL import Image

    pictures = [Image.open(folder / "my_pictures" / name).convert("RGB") for name, _ in rows]
    captions = [caption for _, caption in rows]
    DatasetDict({"train": Dataset.from_dict({"image": pictures, "caption": captions})}).save_to_disk(folder / "saved")


def run(command: Command, words: Sequence[str], folder: Path) -> str | None:
    """Run a command, as these words, in the folder; returns what is wrong, or None."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "LOCKDEC_OUTPUTS": "outputs"}
    environment |= {"COLUMNS": "200", "WANDB_MODE": "offline"}
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {PATIENCE} s"
    expected = 1 if command.shown.startswith("lockdec: ") or "data.path=mine" in command.text else 0
    if done.returncode != expected:
        said = (done.stdout + done.stderr).strip().splitlines()
        return f"status {done.returncode}: {' | '.join(said[-3:])}"
    if missing := unlike(command.shown, done.stdout + done.stderr):
        return f"nothing printed is like: {missing[0].strip()}"
    return None


def refused(words: Sequence[str]) -> str | None:
    """Why the config would refuse the overrides of a run, or of the first cell of a sweep; None if it would not."""
    from lockdec.config.building import Builder
    from lockdec.pipeline.assembling import checked_subtrees
    from tests.conftest import composed

    typed = words[words.index("lockdec.run") + 1 :] if "lockdec.run" in words and "--help" not in words else []
    overrides = []
    for word in typed:
        key, values = word.partition("=")[0], _values(word)
        if not word.startswith(("-", "hydra", "hparams_search")) and not re.search(r"interval\(|range\(|tag\(", word):
            overrides.append(f"{key}={values[0]}" if len(values) > 1 else word)
    try:
        if overrides:
            checked_subtrees(composed(*overrides), Builder())
    except Exception as error:  # of Hydra, of OmegaConf or of lockdec
        return f"{error}".splitlines()[0]
    return None


def lacks(words: Sequence[str], folder: Path) -> str | None:
    """The folder of outputs that a command reads and that is not there, since the command that makes it did not run."""
    return next((word for word in words if word.startswith("outputs/") and not (folder / word).exists()), None)


def in_turns(pages: Sequence[str]) -> list[Command]:
    """The first command of each page, then the second of each, and so on."""
    return [command for row in zip_longest(*map(commands, pages)) for command in row if command is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pages' commands; status 1 if one is not what its page says."""
    parser = argparse.ArgumentParser(prog="python -m tests.newcomer", description=__doc__)
    parser.add_argument("pages", nargs="*", default=PAGES, metavar="PAGE", help="README.md and those of docs/")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    parser.add_argument("--minutes", type=float, help="start nothing later, and take the pages in turns")
    parser.add_argument("--folder", type=Path, help="where to work; a command that passed there does not run again")
    options = parser.parse_args(arguments)
    began, passed, failed, left_out = time.monotonic(), 0, 0, 0
    seconds, known = Counter[str](), set[tuple[str, ...]]()
    listed = in_turns(options.pages) if options.minutes else [one for page in options.pages for one in commands(page)]
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(TemporaryDirectory(prefix="lockdec-newcomer-")))
        folder = folder.resolve()
        record = folder / PASSED
        if not options.list and not record.exists():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder)
            record.touch()
        before = set(record.read_text(encoding="utf-8").splitlines()) if record.exists() else set()
        for command in listed:
            if command.text in before:
                passed += 1
                continue
            started, words = time.monotonic(), shortened(command, folder)
            why = command.elsewhere
            if options.minutes and not why:
                why = "no time is left" if started - began > 60 * options.minutes else lacks(words, folder)
            if not why and tuple(words) in known and not command.shown:
                why = "ran before"
            if why:
                left_out += 1
                print(f"not run ({why}): {command.page}:{command.line} {command.text}", flush=True)
                if not command.elsewhere and not options.list and (problem := refused(words)):
                    failed += 1
                    print(f"FAILED ({problem}): {command.page}:{command.line} {command.text}", flush=True)
                continue
            if options.list:
                print(shlex.join(words))
                continue
            known.add(tuple(words))
            problem = run(command, words, folder)
            took = time.monotonic() - started
            seconds[command.page] += round(took)
            passed, failed = passed + (problem is None), failed + (problem is not None)
            if problem is None:
                with record.open("a", encoding="utf-8") as file:
                    file.write(f"{command.text}\n")
            state = f"FAILED ({problem})" if problem else "ok"
            print(f"{state} {took:.0f} s: {command.page}:{command.line} {command.text}", flush=True)
    for page, took in seconds.items():
        print(f"{page}: {took} s")
    print(f"{passed} passed, {failed} failed, {left_out} not run")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
