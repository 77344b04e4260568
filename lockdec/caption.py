"""Caption new pictures, texts or arrays with a finished run: `lockdec caption RUN_DIR INPUT...`."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockdec.errors import DataError, StoreError, visible
from lockdec.terminal import forgive, plain_errors
from lockdec.transformer.configuration import STRATEGIES

if TYPE_CHECKING:
    from lockdec.data.captions import Input, Modality
    from lockdec.library.captioner import Caption, Captioner
    from lockdec.library.figure import Figure

DESCRIPTION = """\
Captions new inputs with a finished run. What an INPUT is depends on the encoder of the run:

  images   files (PNG, JPEG, WEBP, GIF, BMP, TIFF), or folders of them (with --recursive, also of folders)
  texts    the text itself; @FILE for the lines of a UTF-8 file, @- for the lines of standard input
  sounds   files (WAV, FLAC, Ogg, MP3), or folders of them, or .npy files of samples
  arrays   .npy files of states by channels, or ids that the encoder `features` knows
"""
EPILOG = """\
Prints one line for each input, in order. If an input cannot be read, standard error names it, the others are captioned,
and the exit status is 1. Nothing in RUN_DIR is executed or unpickled, only encoders of lockdec itself are built
unless --trust names the module of another, and nothing is downloaded unless --allow-download names it.
"""


@dataclass(frozen=True)
class NewInput:
    """An input that is named but not yet read.

    Attributes:
        name: printed before its caption.
        read: returns the input, or raises DataError.
    """

    name: str
    read: Callable[[], Input]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    options = _parser().parse_args(arguments)
    forgive(closed_pipes=False)
    with plain_errors():
        try:
            failed = _caption(options)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of the pipe has closed it; Python would print an error at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            failed = True
        if failed:
            sys.exit(1)


def named_inputs(
    names: Sequence[str], modality: Modality, recursive: bool = False, rate: int | None = None
) -> Iterator[NewInput]:
    """The inputs named on the command line; those that cannot be read raise DataError only when they are read.

    Args:
        recursive: whether pictures and sounds are also looked for in folders of folders.
        rate: samples a second, where the inputs are sounds.
    """
    from lockdec.data.images import ENDINGS, is_image, open_image
    from lockdec.data.sounds import ENDINGS as SOUND_ENDINGS
    from lockdec.data.sounds import open_sound
    from lockdec.data.sources import load_array

    for name in names:
        path = Path(name)
        if modality == "text":
            yield from _texts(name)
        elif not name:
            yield _failing("''", "names no input")
        elif rate is not None and path.is_dir():
            yield from _files(
                path, recursive, "sound", SOUND_ENDINGS, lambda start: False, partial(open_sound, rate=rate)
            )
        elif rate is not None and path.suffix.lower() != ".npy":
            yield NewInput(name, partial(open_sound, path, name, rate))
        elif modality == "array" and path.suffix.lower() != ".npy":
            yield NewInput(name, partial(_text, name, name))
        elif modality == "array":
            yield NewInput(name, partial(load_array, path, name))
        elif path.is_dir():
            yield from _files(path, recursive, "picture", ENDINGS, is_image, open_image)
        else:
            yield NewInput(name, partial(open_image, path, name))


def _files(
    folder: Path,
    recursive: bool,
    kind: str,
    endings: Sequence[str],
    begins: Callable[[bytes], bool],
    read: Callable[[Path, str], Input],
) -> Iterator[NewInput]:
    """The pictures or sounds in a folder: files with the ending of one, and others that begin as one."""
    unreadable: list[OSError] = []
    found, below = False, False
    for place, folders, names in os.walk(folder, onerror=unreadable.append):
        folders.sort()
        files = sorted(Path(place) / name for name in names if not name.startswith("."))
        if not recursive and Path(place) != folder:
            if below := any(file.suffix.lower() in endings for file in files):
                break
            continue
        for file in files:
            if file.suffix.lower() in endings or begins(_start(file)):
                found = True
                yield NewInput(str(file), partial(read, file, str(file)))
        if found and not recursive:
            break
    for error in unreadable:
        yield _failing(str(error.filename), f"cannot be read ({error.strerror})")
    if not found and not unreadable:
        hint = "; there are some in folders below it: add --recursive" if below else ""
        yield _failing(str(folder), f"no {kind} in this folder{hint}")


def _start(file: Path) -> bytes:
    """The first bytes of a file; none if it is not a regular file or cannot be read."""
    try:
        if file.is_file():
            with file.open("rb") as opened:
                return opened.read(16)
    except OSError:
        pass
    return b""


def _failing(name: str, problem: str) -> NewInput:
    def read() -> Input:
        raise DataError(f"{name}: {problem}")

    return NewInput(name, read)


def _text(name: str, text: str) -> Input:
    """The text in the Unicode form in which runs have read theirs."""
    from lockdec.data.captions import composed, not_unicode

    if problem := not_unicode(text):
        raise DataError(f"{name}: {problem}" if name != text else problem)
    return composed(text)


def _caption(options: argparse.Namespace) -> bool:
    """Caption the inputs; returns whether any of them could not be captioned."""
    from lockdec.runtime.process import ready

    ready(loggers=())
    from lockdec.data.images import MOST_PIXELS
    from lockdec.evaluation.finished import find_run
    from lockdec.library.figure import save
    from lockdec.library.loading import load, open_run

    if options.plug:
        captioner = load(
            plugs=[options.run_dir, *options.plug],
            decoder=options.decoder,
            encoder=options.encoder,
            trust=options.trust,
            allow_download=options.allow_download,
        )
    elif options.decoder or options.encoder or (Path(options.run_dir) / "plug.json").is_file():
        captioner = load(
            options.run_dir,
            decoder=options.decoder,
            encoder=options.encoder,
            trust=options.trust,
            allow_download=options.allow_download,
        )
    else:
        run = find_run(Path(options.run_dir))
        if run.chosen:
            _warn(f"{run.chosen}: {run.folder}")
        captioner = open_run(run, trust=options.trust, allow_download=options.allow_download)
    if captioner.modality == "several":
        raise DataError(f"{options.run_dir}: it reads examples in several parts, which a command line cannot name; use "
                        "lockdec.load in a script")  # fmt: skip
    if options.attention and (problem := _unwritable(Path(options.attention))):
        raise StoreError(f"{options.attention}: cannot be written ({problem})")
    failed, figures, seed = False, list["Figure"](), options.seed
    inputs = named_inputs(options.inputs, captioner.modality, options.recursive, captioner.rate)
    more = True
    while more:
        more, read = False, list[tuple[str, "Input"]]()
        for new in inputs:
            try:
                read.append((new.name, new.read()))
            except DataError as error:
                failed = True
                _warn(str(error))
            more = len(read) >= options.batch_size or sum(map(_pixels, read)) >= MOST_PIXELS
            if more:
                break
        for (name, given), caption in zip(read, _captioned(captioner, read, options, seed), strict=True):
            if caption is None:
                failed = True
                continue
            _print(name, caption, options)
            if options.attention:
                figures.append(captioner.figure(given, caption, name))
        seed = None  # the batches after the first go on drawing
        sys.stdout.flush()
    if figures:
        save(figures, options.attention)
    return failed


def _unwritable(page: Path) -> str | None:
    """Why a page cannot be written there, as far as can be told before there is one."""
    if page.is_dir():
        return "Is a directory"
    return None if page.parent.is_dir() else "no such folder"


def _captioned(
    captioner: Captioner, read: Sequence[tuple[str, Input]], options: argparse.Namespace, seed: int | None
) -> Sequence[Caption | None]:
    """The captions of a batch; None, after a warning, for the inputs that cannot be captioned."""
    from lockdec.library.captioner import PartlyCaptionedError

    if not read:
        return []
    try:
        return captioner.caption(
            [given for _, given in read],
            options.n,
            strategy=options.strategy,
            beams=options.beams,
            seed=seed,
            names=[name for name, _ in read],
            batch_size=len(read),
        )
    except PartlyCaptionedError as error:
        for problem in error.problems.values():
            _warn(problem)
        return error.captions


def _texts(argument: str) -> Iterator[NewInput]:
    """The text itself, or the lines of a file or of standard input; each line that is not UTF-8 fails by itself."""
    if not argument.startswith("@"):
        yield NewInput(argument, partial(_text, argument, argument))
        return
    name = "standard input" if argument == "@-" else argument[1:]
    try:
        content = sys.stdin.buffer.read() if argument == "@-" else Path(name).read_bytes()
    except OSError as error:
        yield _failing(name, f"cannot be read ({error.strerror})")
        return
    found = False
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        text = line.decode(errors="surrogateescape").strip()
        if text:
            found = True
            where = f"{name} line {number}"
            yield NewInput(text, partial(_text, where, text))
    if not found:
        yield _failing(name, "no line with a text in it")


def _pixels(named: tuple[str, Input]) -> int:
    """Of a picture, as large as its file says; others are small."""
    size: tuple[int, int] = getattr(named[1], "size", (0, 0)) if hasattr(named[1], "convert") else (0, 0)
    return size[0] * size[1]


def _print(name: str, caption: Caption, options: argparse.Namespace) -> None:
    if options.jsonl:
        # ASCII only: JSON decodes to the same characters, and none of them can control the terminal.
        print(json.dumps({"input": name, **_row(caption, options)}))
        return
    scores = f" ({caption.log_prob:.2f}, confidence {caption.confidence:.2f})" if options.scores else ""
    print(f"{visible(name)}: {visible(caption.text)}{scores}")
    if options.scores and caption.words:
        print("    " + ", ".join(f"{visible(word.text)} {word.evidence:+.2f}" for word in caption.words))
    for other in caption.alternatives:
        print(f"  or: {visible(other.text)}" + (f" ({other.log_prob:.2f})" if options.scores else ""))


def _row(caption: Caption, options: argparse.Namespace) -> dict[str, Any]:
    """What a line of --jsonl says of a caption, beside its input."""
    row: dict[str, Any] = {"caption": caption.text}
    if options.scores:
        row |= {"log_prob": caption.log_prob, "confidence": caption.confidence}
        row["words"] = [asdict(word) for word in caption.words]
    if options.n > 1:
        scores = [{"log_prob": other.log_prob} if options.scores else {} for other in caption.alternatives]
        others = zip(caption.alternatives, scores, strict=True)
        row["alternatives"] = [{"caption": other.text, **score} for other, score in others]
    return row


def _warn(line: str) -> None:
    print(f"lockdec: {visible(line)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockdec caption",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_dir", metavar="RUN_DIR", help="the folder of a run, a sweep (its best cell is used), an export or a plug"
    )
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="what to caption")
    parser.add_argument(
        "--jsonl", action="store_true", help='print one JSON object {"input": ..., "caption": ...} per line'
    )
    parser.add_argument(
        "--n", type=_positive, default=1, metavar="N", help="captions of each input: the best and N - 1 alternatives"
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="also print log-probabilities in nats, the confidence from 0 to 1, and the evidence for each word: "
        "how much likelier the input makes it, in nats",
    )
    parser.add_argument(
        "--attention", metavar="FILE", help="write a page that shows what each word attends to: --attention out.html"
    )  # fmt: skip
    parser.add_argument("--strategy", choices=(*STRATEGIES, "mbr"), help="instead of that of the run")
    parser.add_argument("--beams", type=_positive, metavar="N", help="instead of those of the run")
    parser.add_argument("--seed", type=int, help="of what is drawn, instead of that of the run")
    parser.add_argument(
        "--decoder", metavar="DECODER",
        help="of a plug: the folder of a run, an export or a checkpoint, a GGUF file, or the id of a model of the hub",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", metavar="FOLDER", help="of a plug whose encoder reads files of yours: their folder"
    )
    parser.add_argument(
        "--plug", action="append", default=[], metavar="PLUG",
        help="beside the plug RUN_DIR, another one on the same decoder for the same inputs: what both add is summed",
    )  # fmt: skip
    parser.add_argument("--recursive", action="store_true", help="also caption what is in folders of folders")
    parser.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="inputs per batch (default 16)")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PREFIX",
        help="also build encoders from modules that start with PREFIX, as in --trust my_package.; Python has to find "
        "them without the current folder, as by PYTHONPATH",
    )  # fmt: skip
    parser.add_argument(
        "--allow-download", action="append", default=[], metavar="MODEL",
        help="download this model of the Hugging Face hub if the run's encoder is made of it, as in --allow-download "
        "google/vit-base-patch16-224",
    )  # fmt: skip
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    main()
