"""Imports run one way: each folder of lockdec imports only folders below it, and no two files import each other.

All imports count, also those inside functions and those for types alone. And every module has tests, where one looks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

import lockdec

PACKAGE = Path(lockdec.__file__).parent
LAYERS = (  # from the bottom to the top; those that share a line do not import each other
    ("errors", "version"),
    ("redaction", "terminal"),
    ("console",),
    ("transformer", "store"),
    ("config", "data"),
    ("distributed",),
    ("runtime",),
    ("encoders", "bridges", "optimizers", "tracking"),
    ("training",),
    ("modules",),
    ("evaluation",),
    ("plugs",),
    ("library",),
    ("stages",),
    ("pipeline",),
    ("report",),
    ("sweeps",),
    ("run", "caption", "export", "fetch", "play", "__init__"),
    ("__main__",),
)
TESTED_ELSEWHERE = {  # modules without a test file of their own
    "evaluation/attention_logging.py": "tracking/test_loggers.py",
    "modules/language_modeling.py": "modules/test_captioning.py",
    "modules/translation.py": "stages/test_translate.py",
    "evaluation/scoring.py": "library/test_captioner.py",
    "library/loading.py": "library/test_captioner.py",
    "transformer/cross_attention.py": "transformer/test_locking.py",
    "transformer/places.py": "transformer/test_locking.py",
    "version.py": "test_imports.py",  # a single name
}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ROOT = {
    *("__init__", "__main__", "errors", "version", "terminal", "console"),
    *("run", "caption", "export", "fetch"),
}


def files() -> dict[str, Path]:
    """The path of each module by its dotted name; a package has the path of its `__init__.py`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def names_imported(path: Path) -> Iterator[str]:
    """Dotted names of modules, or of what is in them, that a file imports."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", [name for name, path in files().items() if "\n__all__ = " in path.read_text("utf-8")])
def test_what_a_module_says_it_exports_is_there(name: str) -> None:
    module = import_module(name)
    assert [exported for exported in module.__all__ if not hasattr(module, exported)] == []


def imports() -> dict[str, set[str]]:
    """The files that each file imports; paths from the repository's root."""
    modules = files()
    graph: dict[str, set[str]] = {}
    for path in modules.values():
        found: set[str] = set()
        for name in names_imported(path):
            module = name if name in modules else name.rpartition(".")[0]
            if module in modules and modules[module] != path:
                found.add(shown(modules[module]))
        graph[shown(path)] = found
    return graph


def shown(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def room(file: str) -> str:
    """The folder of lockdec that a file is in; a file at the root is a room of its own."""
    return Path(file).parts[1].removesuffix(".py")


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = set(graph[start])
    while left:
        file = left.pop()
        found.add(file)
        left |= graph[file] - found
    return found


def test_every_folder_has_its_layer() -> None:
    rooms = {room(file) for file in imports()}
    assert rooms == set(LEVEL), "a new folder needs a line in LAYERS, and one that is gone leaves it"


def test_imports_go_down_only() -> None:
    wrong = [
        f"{file} imports {other}, but {room(file)} may only import what stands below it in LAYERS, and {room(other)} "
        f"{'stands above it' if LEVEL[room(other)] > LEVEL[room(file)] else 'stands beside it'}"
        for file, others in imports().items()
        for other in sorted(others)
        if room(file) != room(other) and LEVEL[room(other)] >= LEVEL[room(file)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_transformer_imports_nothing_but_errors() -> None:
    wrong = [
        f"{file} imports {other}, but transformer/ imports nothing of lockdec outside itself except errors"
        for file, others in imports().items()
        for other in sorted(others)
        if room(file) == "transformer" and room(other) not in ("transformer", "errors")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_transformer_says_in_which_order_its_modules_are_read() -> None:
    transformer = PACKAGE / "transformer"
    text = ast.get_docstring(ast.parse((transformer / "__init__.py").read_text(encoding="utf-8"))) or ""
    named = {*re.findall(r"^    (\w+)/? ", text, re.MULTILINE), *re.findall(r"`(\w+)/?`", text)}
    assert named == {path.stem for path in transformer.iterdir() if not path.stem.startswith("__")}


def test_no_files_import_each_other() -> None:
    graph = imports()
    behind = {file: reachable(graph, file) for file in graph}
    circular = [
        f"{file} imports {other}, which imports {file} in turn, directly or through others: one of them has to let go"
        for file, others in graph.items()
        for other in sorted(others)
        if file in behind[other]
    ]
    assert not circular, "\n".join(circular)


def test_the_root_holds_the_commands_and_what_everything_stands_on() -> None:
    found = {path.stem for path in PACKAGE.glob("*.py")}
    assert found == ROOT, f"{sorted(found ^ ROOT)}: a module belongs in a folder of lockdec/, not at its root"


def test_every_module_has_its_tests_where_one_looks_for_them() -> None:
    """The tests of lockdec/store/locking.py are in tests/store/test_locking.py."""
    tests = Path(__file__).parent
    modules = {path.relative_to(PACKAGE) for path in files().values() if not path.stem.startswith("__")}
    missing = {
        module.as_posix() for module in modules if not (tests / module.with_name(f"test_{module.name}")).is_file()
    }
    assert not (lacking := missing - TESTED_ELSEWHERE.keys()), f"{sorted(lacking)}: add tests/FOLDER/test_MODULE.py"
    assert missing == TESTED_ELSEWHERE.keys(), "those that have tests of their own by now leave TESTED_ELSEWHERE"
    assert all((tests / other).is_file() for other in TESTED_ELSEWHERE.values())


def test_shapes_are_checked_in_every_module_that_annotates_them(pytestconfig: pytest.Config) -> None:
    *checked, _ = pytestconfig.getoption("--jaxtyping-packages").split(",")
    annotated = {name for name, path in files().items() if "from jaxtyping import" in path.read_text()}
    assert {name for name in annotated if not any(f"{name}.".startswith(f"{room}.") for room in checked)} == set()


def test_each_folder_has_a_line_in_the_map_of_the_readme() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    folders = {str(path.parent.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("__init__.py")}
    assert {folder for folder in folders if f"\n| `{folder}/` |" not in text} == set()
