"""What the site has beside the pages of docs/: README.md, CONTRIBUTING.md, the lecture and the reference.

A hook of MkDocs (mkdocs.yml). Every page is made when the site is built, so nothing is written twice.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "NOTICE": "licences.md",
}
REFERENCE = {
    "library": (
        "The library",
        ["lockdec.library.loading", "lockdec.library.captioner", "lockdec.library.stored", "lockdec.library.figure"],
    ),
    "captions": ("Captions and their scores", ["lockdec.evaluation.scoring", "lockdec.evaluation.attention_maps"]),
    "attention": (
        "Attention",
        ["lockdec.transformer.attention", "lockdec.transformer.gates", "lockdec.transformer.cross_attention"],
    ),
    "layers": (
        "Layers",
        ["lockdec.transformer.layers", "lockdec.transformer.sublayers", "lockdec.transformer.positional"],
    ),
    "models": (
        "Models",
        [
            "lockdec.transformer.models",
            "lockdec.transformer.locking",
            "lockdec.transformer.plugs",
            "lockdec.transformer.autoregressive",
            "lockdec.transformer.encoded",
        ],
    ),
    "bridges": (
        "Bridges",
        [
            "lockdec.transformer.bridge",
            *(f"lockdec.bridges.{name}" for name in ("prefix", "tuning", "resampler", "retrieval", "budget")),
        ],
    ),
    "configuration": ("Sizes and choices", ["lockdec.transformer.configuration"]),
    "encoders": ("Encoders", ["lockdec.encoders.contract"]),
    "data": ("Data", ["lockdec.data.captions", "lockdec.data.fewshot"]),
    "metrics": ("Metrics", ["lockdec.evaluation.metrics"]),
    "stages": ("Stages", ["lockdec.stages.stage"]),
    "errors": ("Errors", ["lockdec.errors"]),
}
PROSE = 32  # characters of a table's cell, from which on it is read as a sentence
LECTURE = ROOT / "docs" / "lecture.ipynb"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of docs/ that mkdocs.yml does not name to the guides."""
    assert config.nav is not None
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    pages = (page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))
    guides = next(part["Guides"] for part in config.nav if "Guides" in part)
    guides += sorted(set(pages) - named)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/, of docstrings and of the notebook."""
    for name, place in PLACES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text if name.endswith(".md") else _as_is(name, text)))
    for name, (title, modules) in REFERENCE.items():
        text = "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    text, pictures = lecture(json.loads(LECTURE.read_text(encoding="utf-8")))
    files.append(File.generated(config, "lecture.md", content=text))
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links of README.md and to it lead to the pages that they become."""
    for name, place in PLACES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}(#[^)]*)?\)", rf"]({place}\1)", markdown)
    return re.sub(r"\]\(docs/", "](", markdown).replace("](lecture.ipynb)", "](lecture.md)")


def on_page_content(html: str, **_: Any) -> str:
    """Keep intervals of tables in one line, and cells of prose wide enough to read: such tables scroll."""
    html = re.sub(r"\[([+\u2212]?\d[\d.,]*), ([+\u2212]?\d[\d.,]*)\]", "[\\1,\u00a0\\2]", html)
    return re.sub(r"<td([^>]*)>(.*?)</td>", _cell, html, flags=re.DOTALL)


def _cell(found: re.Match[str]) -> str:
    prose = len(re.sub(r"<[^>]*>", "", found[2])) >= PROSE
    return f"<td{found[1]}{' class=prose' if prose else ''}>{found[2]}</td>"


def lecture(notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with what its cells printed and drew, and its pictures by file name."""
    parts, pictures = [], dict[str, bytes]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in data:
                name = f"lecture-{len(pictures) + 1}.png"
                pictures[name] = b64decode(data["image/png"])
                parts.append(f"![{cell['metadata'].get('alt', 'what the cell draws')}]({name})")
    return "\n\n".join(parts), pictures


def _as_is(title: str, text: str) -> str:
    """A text file as a page."""
    return f"# {title}\n\n```text\n{text}\n```"
