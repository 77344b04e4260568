"""Plugs on the Hugging Face hub. Only the user's own commands ask it anything."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path
from typing import Any

from lockdec.errors import StoreError
from lockdec.plugs.folder import MOST_FILE, read_plug
from lockdec.plugs.record import CARD, RECORD, PlugRecord
from lockdec.store.reading import MOST_BYTES, is_name, read_object, within
from lockdec.store.writing import new_folder

MOST_FILES, MOST_PLUG = 100, 2 * MOST_FILE  # of a plug that is downloaded, and their bytes together


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a plug, and nothing else that lies in its folder. The repository is created if it does not exist.

    Args:
        repository: "owner/name".

    Returns:
        The address of the repository.

    Raises:
        StoreError: it is no plug, the repository holds something else, or the hub refuses or cannot be reached.
    """
    files = [RECORD, CARD, *read_plug(folder).files]
    if not within(folder, CARD).is_file():
        raise StoreError(f"{folder / CARD}: missing; lockdec export --plug writes one")
    patterns = [glob.escape(name) for name in files]  # or a file called * would take all others along
    try:
        from huggingface_hub import HfApi

        hub = HfApi()
        created = hub.create_repo(repository, private=private, exist_ok=True)
        held = {*hub.list_repo_files(created.repo_id)} - {".gitattributes", CARD}  # which the hub's form makes, too
        if held and RECORD not in held:
            raise StoreError(f"{repository}: it has {min(held)} and is no plug; push to a repository of its own")
        hub.upload_folder(repo_id=created.repo_id, folder_path=folder, allow_patterns=patterns, commit_message="A plug")
        return str(created)
    except StoreError:
        raise
    except ModuleNotFoundError as error:
        raise StoreError("the hub needs huggingface_hub (pip install 'lockdec[huggingface]')") from error
    except Exception as error:  # network errors, or whatever a proxy answers
        raise StoreError(f"{repository}: cannot be uploaded ({_reason(error)})") from error


def pull(repository: str, out: Path, revision: str | None = None) -> PlugRecord:
    """Download a plug to a new or an empty folder: the files that its record names, once they are known to be small.

    Raises:
        StoreError: there is no such plug, it is refused as by `read_plug`, or the hub cannot be reached. Then nothing
            that was downloaded stays.
    """
    with new_folder(out):
        return _pulled(repository, out, revision)


def _pulled(repository: str, out: Path, revision: str | None) -> PlugRecord:
    left = MOST_PLUG - _download(repository, RECORD, out, revision, MOST_BYTES)
    names = read_object(out / RECORD).get("files")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names):
        raise StoreError(f"{repository}: its {RECORD} names no files")
    if len(names) > MOST_FILES:
        raise StoreError(f"{repository}: its {RECORD} names {len(names):,} files; a plug has at most {MOST_FILES}")
    for name in (CARD, *names):
        if not all(map(is_name, name.split("/"))) or name.count("/") > 1:
            raise StoreError(f"{repository}: {name!r} cannot be a file of a plug")
        left -= _download(repository, name, out, revision, left)
    return read_plug(out)


def _download(repository: str, name: str, out: Path, revision: str | None, most: int) -> int:
    """Download a file of at most so many bytes; returns how many it has."""
    try:
        import huggingface_hub as hub

        size: Any = hub.get_hf_file_metadata(hub.hf_hub_url(repository, name, revision=revision)).size
        if size is None or size > min(most, MOST_FILE):
            raise StoreError(
                f"{repository}: {name} has {size} bytes, and at most {min(most, MOST_FILE):,} are downloaded"
            )
        hub.hf_hub_download(repository, name, revision=revision, local_dir=out)
        return int(size)
    except StoreError:
        raise
    except ModuleNotFoundError as error:
        raise StoreError("the hub needs huggingface_hub (pip install 'lockdec[huggingface]')") from error
    except Exception as error:  # network errors, or whatever a proxy answers
        raise StoreError(f"{repository}: {name} cannot be downloaded ({_reason(error)})") from error
    finally:
        shutil.rmtree(out / ".cache", ignore_errors=True)  # what the library knows of the download


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
