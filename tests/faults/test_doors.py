"""Files from a stranger are data: a pickle, a target, a link or a reference in any of them is refused by name.

lockdec reads no archives, so there is no member of one that could climb out with `..`; the nearest thing to it is the
name of a file in artifact.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from lockdec.config.building import TRUSTED, Builder
from lockdec.data.captions import CaptionSet
from lockdec.data.drawings import read_svg
from lockdec.data.folder import Folder
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.errors import ConfigError, DataError, LockdecError, StoreError
from lockdec.evaluation.finished import find_run, open_captioner
from lockdec.export import export
from lockdec.report.results import read as read_results
from lockdec.stages.stage import Stage
from lockdec.store import CHECKPOINT, METADATA, Store, canonical_json, damage
from lockdec.store.reading import read_config, read_dataclass, read_json
from lockdec.store.tensors import load_tensors, save_tensors
from lockdec.training.checkpoints import CheckpointIO
from lockdec.transformer.configuration import DecoderConfig
from tests.faults.warm import Command, Warm
from tests.training.test_fit import Line, train


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that is there when a payload has run."""
    return tmp_path / "payload-has-run"


def pickles(mark: Path) -> list[bytes]:
    """A payload as pickle writes it, as torch.save does, and as numpy does."""
    saved, array = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": Payload(mark)}, saved)
    np.save(array, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    return [pickle.dumps(Payload(mark)), saved.getvalue(), array.getvalue()]


def test_the_payload_works(mark: Path) -> None:
    pickle.loads(pickles(mark)[0])
    assert mark.exists()


READERS: dict[str, Callable[[Path], object]] = {
    "artifact.json": lambda path: read_json(path),
    "config.yaml": read_config,
    "decoder.json": lambda path: read_dataclass(path, DecoderConfig),
    "decoder.safetensors": load_tensors,
    "normalisation.safetensors": Normalisation.load,
    "tokenizer.json": Tokenizer.load,
    "states.npy": lambda path: EncodedSet.open(path.parent),
    "lengths.npy": lambda path: EncodedSet.open(path.parent),
    "ids.json": lambda path: EncodedSet.open(path.parent),
    "captions.csv": lambda path: Folder(str(path.parent)),
    "captions.jsonl": lambda path: Folder(str(path.parent)),
    "drawing.svg": read_svg,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pickle_in_the_place_of_any_file_is_refused_by_name(
    name: str, mark: Path, tmp_path: Path, undisturbed: Command
) -> None:
    """The files beside it are good ones."""
    for number, content in enumerate(pickles(mark)):
        folder = tmp_path / str(number)
        shutil.copytree(next(undisturbed.outputs.glob("stages/attach/*/")), folder)
        (folder / name).write_bytes(content)
        with pytest.raises(LockdecError) as error:
            READERS[name](folder / name)
        assert str(folder) in str(error.value)
    assert not mark.exists()


def test_a_pickle_in_the_place_of_result_json_or_what_lies_beside_it_is_skipped_by_name(
    mark: Path, tmp_path: Path, undisturbed: Command
) -> None:
    for number, content in enumerate(pickles(mark)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_bytes(content)
    found = read_results([tmp_path])
    assert [entry.path.parent.name for entry in found.skipped] == ["0", "1", "2"]
    assert not mark.exists()


def test_a_pickle_in_the_place_of_a_checkpoint_is_set_aside(mark: Path, tmp_path: Path) -> None:
    """Also one whose seal holds."""
    folder = tmp_path / "stage" / "key"
    folder.mkdir(parents=True)
    sealed = {"global_step": 1, "more": Payload(mark)}
    CheckpointIO("stage/key").save_checkpoint(sealed, folder / CHECKPOINT)
    for content in ((folder / CHECKPOINT).read_bytes(), *pickles(mark)):
        (folder / CHECKPOINT).write_bytes(content)
        with pytest.warns(UserWarning, match=r"last\.ckpt: .*; set aside as"):
            train(folder, Line())
    assert not mark.exists()


KINDS: list[Any] = [Stage, CaptionSet, Encoder | PretrainedHere, Any, dict[str, Stage]]
TARGETS = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "lockdecoy.Thing",
    "lockdec.run.os.system",
    "lockdec.run.os",
    "lockdec.store.json",
    "lockdec.store.hashlib",
    "lockdec.run.main",
    "lockdec.store.writing.write_text",
    "lockdec.store.Store",
    "lockdec.stages.stage.ABC",
    "lockdec.stages.pretrain.L.Trainer",
    "lockdec.",
    "lockdec.stages..pretrain",
    "lockdec.stages.pretrain.__builtins__",
    ["os", "system"],
    None,
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_target_that_does_not_belong_is_refused_before_anything_is_called(target: Any, kind: Any, mark: Path) -> None:
    node: dict[str, Any] = {"_target_": target, "command": f"touch {mark}", "path": str(mark), "text": "x"}
    places = [node, {"inner": node}] if kind == dict[str, Stage] else [node]
    for place in places[-1:]:
        with pytest.raises(ConfigError, match=r"_target_=.* (is not trusted|cannot be imported|is not)"):
            Builder(TRUSTED).build(place, "encoder", kind)
    assert not mark.exists()


def test_a_target_deep_inside_a_stage_is_refused(undisturbed: Command, mark: Path) -> None:
    """The stages of a real run's config are built, until one thing in them is another."""
    stages = read_config(undisturbed.folder / "config.yaml")["stages"]
    places = (("pretrain", "data"), ("pretrain", "decoder"), ("attach", "encoder"), ("pretrain", "callbacks"))
    for name, place in places:
        assert Builder(TRUSTED).build(stages[name], name, Stage)
        evil = {"_target_": "os.system", "command": f"touch {mark}"}
        node = stages[name] | {place: {"mine": evil} if place == "callbacks" else evil}
        with pytest.raises(ConfigError, match=rf"{name}\.{place}.*_target_=os\.system is not trusted"):
            Builder(TRUSTED).build(node, name, Stage)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: ${oc.env:HOME}", "not resolved"),
        ("a: !!python/object/apply:os.system ['true']", "it has a tag"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: " + "[" * 200 + "]" * 200, "nested too deeply"),
        ("- 1", "not the config of a run"),
        ("1: 2", "the key 1 is not a text"),
        ("a: [", "not YAML"),
        ("a: {2020-01-01: 1}", "not a text"),
        ("a: 2020-01-01", "date 2020-01-01 is neither a text nor a number"),
        ("a: !!set {b, c}", "it has a tag"),
        ("a: !!binary aGVsbG8=", "it has a tag"),
        ("a: .nan", "nan is not a number"),
        ("a: 1.0e+999", "inf is not a number"),
        ("a: 1" + "0" * 30, "a number of more than 64 bits"),
        ("a: " + "1" * 400, "a number of 400 characters"),
        ("a: " + "1:" * 10_000 + "1", "a number of 20001 characters"),
        ('a: "\\ud800"', "not YAML|half a character"),
    ],
)
def test_a_config_that_no_run_wrote_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(StoreError, match=said):
        read_config(tmp_path / "config.yaml")


def publish(root: Path, files: dict[str, str]) -> tuple[Store, Path]:
    """An artifact whose own record is consistent, as a stranger would make it."""
    key = "a" * 64

    def make(folder: Path) -> dict[str, Any]:
        (folder / "weights").write_bytes(b"0123456789")
        return {}

    store = Store(root)
    folder = store.get_or_make("unlock", key, make, {}, {}).folder
    record = json.loads((folder / METADATA).read_text())
    del record["sha256"]
    for name, path in files.items():
        content = Path(path).read_bytes()
        record["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record["sha256"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    (folder / METADATA).write_text(json.dumps(record))
    return store, folder


@pytest.mark.parametrize("name", ["../../../secret", "/etc/hostname", "link", "folder/secret", "weights\0", "."])
def test_a_file_outside_of_an_artifact_is_no_file_of_it(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    _, folder = publish(tmp_path / "stages", {name: "/etc/hostname" if name.startswith("/") else str(secret)})
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    assert damage(folder, "unlock", "a" * 64) == name


def test_a_file_without_a_name_is_damage(tmp_path: Path) -> None:
    """Its path is that of the folder, which is there and whole."""
    _, folder = publish(tmp_path / "stages", {})
    record = json.loads((folder / METADATA).read_text())
    del record["sha256"]
    (folder / METADATA).write_text(json.dumps(record | {"files": {"": {}}}))
    assert damage(folder, "unlock", "a" * 64) == METADATA


SCRIPT = "import sys; from lockdec.__main__ import main; sys.exit(main())"  # what pip writes for the command
BEFORE_LOCKDEC = {
    "importlib",
    "contextlib",
    "collections",
    "functools",
    "keyword",
    "operator",
    "reprlib",
    "types",
    "warnings",
}


@pytest.mark.parametrize("command", ["caption", "export", "report", "store"])
@pytest.mark.parametrize("form", ["script", "module"])
def test_no_command_imports_from_the_folder_that_it_reads(
    form: str, command: str, tmp_path: Path, undisturbed: Command
) -> None:
    """The current folder is a run with a file for every module of Python and of the packages that lockdec needs.

    Installed as a script, nothing of it is imported. With `-m`, Python itself imports a few before lockdec.
    """
    run = tmp_path / "run"
    shutil.copytree(undisturbed.folder, run)
    packages = ("numpy", "torch", "yaml", "PIL", "pydantic", "rich", "omegaconf", "transformers", "lightning", "emoji")
    names = (sys.stdlib_module_names | {*packages, "sitecustomize_", "hydra_plugins"}) - BEFORE_LOCKDEC
    for name in names:
        (run / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name + ' '!r})")
    (tmp_path / "lockdec").write_text(SCRIPT)
    start = [str(tmp_path / "lockdec")] if form == "script" else ["-m", "lockdec"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = {"caption": [".", "x.png"], "export": [".", "out"], "report": ["."], "store": ["list"]}[command]
    answer = subprocess.run(
        [sys.executable, *start, command, *arguments], cwd=run, env=environment, capture_output=True, text=True
    )
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert "Traceback" not in answer.stderr
    assert (answer.returncode == 0) == (command in ("export", "report")), answer.stderr


def test_a_class_of_the_users_own_is_found_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the user names, and only where no installed module has the name."""
    (tmp_path / "my_thumbnails.py").write_text("class Thumbnail: pass")
    (tmp_path / "random.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert type(Builder().build({"_target_": "my_thumbnails.Thumbnail"}, "encoder")).__name__ == "Thumbnail"
    with pytest.raises(ConfigError, match="not trusted"):
        Builder(TRUSTED).build({"_target_": "random.Thumbnail"}, "encoder")


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
    threading.Thread(target=server.serve_forever, daemon=True).start()
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


def with_encoder(command: Command, folder: Path, **settings: Any) -> Path:
    """A copy of the run with another encoder in its config, beside the store of the run."""
    run = command.outputs / "runs" / folder.name
    shutil.copytree(command.folder, run)
    config = read_config(run / "config.yaml")
    config["stages"]["attach"]["encoder"] = settings
    (run / "config.yaml").write_text(json.dumps(config))
    return run


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


@pytest.mark.parametrize(
    "stage", ["../../planted", "/planted", "a/b", "..", ".", "", ".locks", "a\0b", "a\nb", "x" * 300]
)
def test_a_stage_that_is_no_name_is_refused(stage: str, tmp_path: Path, undisturbed: Command) -> None:
    """Its artifact lies ready where it points, and the export would write to the same place beside its folder."""
    run = with_encoder(
        undisturbed, tmp_path, _target_="lockdec.encoders.vae.PretrainedVAE", position=False, stage=stage
    )
    result = json.loads((run / "result.json").read_text())
    result["stages"][stage] = result["stages"]["pretrain"]
    (run / "result.json").write_text(json.dumps(result))
    try:
        for read in (lambda: export(run, tmp_path / "a" / "out"), lambda: open_captioner(find_run(run))):
            with pytest.raises(StoreError, match="cannot be the name of a stage"):
                read()
        assert not list(tmp_path.rglob("*"))
    finally:
        shutil.rmtree(run)


def odd_tokenizers(good: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tokenizers that take all memory, or make the Rust side panic, by what is wrong with them."""
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    chain = {"type": "Sequence", "normalizers": [doubling] * 40}
    long = good["model"] | {"vocab": good["model"]["vocab"] | {"a" * 100_000: 5000}}
    return {
        "growth": good | {"normalizer": chain},
        "decoder": good | {"decoder": {"type": "Sequence", "decoders": [doubling] * 40}},
        "padding": good | {"padding": good["padding"] | {"strategy": {"Fixed": 4_000_000_000}, "pad_id": 2**31}},
        "token": good | {"model": long},
        "number": good | {"padding": good["padding"] | {"pad_id": 10**30}},
        "list": good | {"padding": [1]},
    }


def test_a_tokenizer_that_would_take_all_memory_is_refused(tmp_path: Path, undisturbed: Command) -> None:
    good = json.loads(next(undisturbed.outputs.glob("stages/pretrain/*/tokenizer.json")).read_text())
    for name, evil in odd_tokenizers(good).items():
        (tmp_path / "tokenizer.json").write_text(json.dumps(evil))
        if name == "padding":  # of no meaning here: batches are padded by lockdec
            assert Tokenizer.load(tmp_path / "tokenizer.json").encode_batch(["a"])
        else:
            with pytest.raises(StoreError, match="not the JSON file of a saved tokenizer"):
                Tokenizer.load(tmp_path / "tokenizer.json")


UNENDING: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link": lambda path: path.symlink_to("/etc/hostname"),
    "folder": Path.mkdir,
    "large": lambda path: path.write_bytes(b"[" + b"[]," * 30_000_000 + b"[]]"),
}


@pytest.mark.parametrize("kind", UNENDING)
def test_no_file_of_a_run_holds_up_its_report_or_shows_another_file(kind: str, tmp_path: Path) -> None:
    """Each file in turn; the report is written without it, and without waiting or much memory."""
    from lockdec.report.page import write_report
    from tests.report.runs import result, write_run

    secret = Path("/etc/hostname").read_text().strip()
    for number, name in enumerate(
        ("result.json", "config.yaml", "captions.jsonl", "attention.jsonl", "stages/x/metrics.csv")
    ):
        run = write_run(tmp_path / str(number) / "bad", result(), captions={"a": "b"})
        write_run(tmp_path / str(number) / "good", result(), captions={"a": "b"})
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).unlink(missing_ok=True)
        UNENDING[kind](run / name)
        unusable = name == "result.json" and kind != "folder"  # a folder of this name is a folder like others
        written = write_report([run.parent])
        assert [skipped.path for skipped in written.skipped] == ([run / name] if unusable else [])
        assert written.runs == (1 if name == "result.json" else 2)
        if name != "result.json":
            page = write_report([run]).report.read_text()
            assert kind != "link" or f">{secret}" not in page
        shutil.rmtree(run.parent)


def test_drawings_behind_a_link_stay_where_they_are(tmp_path: Path) -> None:
    from lockdec.report.results import drawing, read
    from tests.report.runs import result, write_run

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    run = write_run(tmp_path / "run", result(), captions={"a": "b"})
    shutil.rmtree(run / "drawings", ignore_errors=True)
    (run / "drawings").symlink_to(tmp_path / "elsewhere")
    assert drawing(read([run]).runs[0], "a") is None


def test_a_file_is_not_written_through_a_link_that_was_put_there(tmp_path: Path) -> None:
    from lockdec.store.writing import write_text

    (tmp_path / "mine").write_text("mine")
    for name in ("report.html", f".report.html.{os.getpid()}.partial"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    write_text(tmp_path / "report.html", "new")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", ".hidden", "x" * 300, "a\nb"])
def test_a_run_is_named_after_one_folder(name: str) -> None:
    from omegaconf.errors import OmegaConfBaseException

    from lockdec.config.schema import checked
    from tests.conftest import composed

    config = composed("debug=tiny")
    for key in ("name", "sweep_name"):
        changed = config.copy()
        changed[key] = name
        with pytest.raises(ConfigError, match=rf"(?s)^{key}=.*(folder|at most)"):
            checked(changed)
        with pytest.raises(OmegaConfBaseException, match=r"names one folder|at most"):
            OmegaConf.create({"x": f"${{one_folder:{key},${{{key}}}}}", key: name}).x  # noqa: B018


def test_a_tokenizer_with_a_command_in_it_is_only_text(tmp_path: Path, undisturbed: Command, mark: Path) -> None:
    good = json.loads(next(undisturbed.outputs.glob("stages/pretrain/*/tokenizer.json")).read_text())
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "model"):
        evil = good | {part: {"type": "os.system", "command": f"touch {mark}", "__reduce__": ["os.system"]}}
        (tmp_path / "tokenizer.json").write_text(json.dumps(evil))
        with pytest.raises(StoreError, match="not the JSON file of a saved tokenizer"):
            Tokenizer.load(tmp_path / "tokenizer.json")
    assert not mark.exists()


@pytest.mark.parametrize(
    "inside",
    [
        '<image href="{path}" width="8" height="8"/>',
        '<image xlink:href="file://{path}" width="8" height="8"/>',
        '<use href="{path}#a"/>',
        "<style>@import url({path});</style>",
        '<rect fill="url({path}#a)"/>',
        '<feImage href = "http://127.0.0.1:9/x.png"/>',
    ],
)
def test_a_drawing_that_names_another_file_is_refused(inside: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{inside.format(path=tmp_path / "b.png")}</svg>')
    with pytest.raises(DataError, match=r"a\.svg: refers to what is outside of it"):
        read_svg(path)


def test_an_entity_in_a_drawing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(
        '<!DOCTYPE svg [<!ENTITY a SYSTEM "/etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>'
    )
    with pytest.raises(DataError, match="refers to what is outside"):
        read_svg(path)


def test_nothing_in_the_package_unpickles() -> None:
    """Whatever reads with pickle is either not used, or told to read plain data alone."""
    package = Path(__file__).parents[2] / "lockdec"
    wanted = re.compile(
        r"import pickle|pickle\.loads?|(import|from) (dill|joblib|shelve|marshal)|torch\.load|np\.load\("
        r"|yaml\.\w*load\(|(?<!\.)\beval\(|\bexec\(|shell=True|os\.system"
    )
    found = [line for path in package.rglob("*.py") for line in path.read_text().splitlines() if wanted.search(line)]
    allowed = ("weights_only=True", "allow_pickle=False", "yaml.load(text, SAFE_LOADER)")
    assert [line for line in found if not any(word in line for word in allowed)] == []


def test_captions_cannot_steer_the_terminal_or_the_page(tmp_path: Path, warm: Warm) -> None:
    """A run whose name and captions are made of everything that steers."""
    from lockdec.console import printable
    from lockdec.report.page import write_report
    from tests.report.runs import result, write_run

    steering = "\x1b]0;hacked\x07\x1b[2J\u202eevil\u2066\u200f\x9b31m\r\x00<script>alert(1)</script>[bold]"
    shown = printable(steering)
    assert not [character for character in shown if not character.isprintable()]
    assert "\\[bold]" in shown
    run = write_run(tmp_path / "run", result(name=steering, error=steering), captions={"a": steering})
    page = write_report([run]).report.read_text()
    assert not [character for character in "\x1b\x9b\u202e\u2066\u200f\x00" if character in page]
    assert "<script>alert(1)" not in page
