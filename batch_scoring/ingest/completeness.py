"""Completeness of a day's files, signalled by a marker or by a manifest that lists them.

The third signal, a quiet period without new files, depends on the clock and is handled by the sensors.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from batch_scoring.config.spec import Complete
from batch_scoring.errors import StoreError
from batch_scoring.ingest.landing_files import day_folder, in_words
from batch_scoring.storage.folders.entries import readable_name
from batch_scoring.storage.folders.folder import FileVersion, Folder

_FORMS = '{"files": ["a.parquet", {"path": "b.parquet", "size": 1234}]}, or the manifest of a Redshift UNLOAD'


def waits_for(complete: Complete, landing: Folder, day: str, there: Iterable[FileVersion]) -> str:
    """Return what a day is still waiting for, as text; empty if the day is complete.

    Args:
        complete: how the spec declares completeness.
        landing: the landing folder, which contains the days' folders.
        day: YYYY-MM-DD.
        there: all files in the day's folder, including files that are not data and files that cannot be read.
    """
    if complete.by == "quiet":
        return ""
    folder = day_folder(day)
    name = complete.name
    known = {file.path.removeprefix(folder): file for file in there}
    if (own := known.get(name)) and own.trouble:
        return in_words(landing, [own])
    sizes = {path: file.size for path, file in known.items() if not file.trouble}
    if name not in sizes:
        return f"there is no {name} in {landing.uri}/{folder}; it is expected once all files of the day have arrived"
    if complete.by == "marker":
        return ""
    try:
        listed = dict(_listed(landing.read(f"{folder}{name}"), folder))
    except FileNotFoundError:
        return f"{name} has just been removed"
    except StoreError:
        raise
    except OSError as error:  # concerns this file only: it must not hold up the other days
        return f"{landing.uri}/{folder}{name} cannot be read: {error}"
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        said = " ".join(str(error).split())
        return f"{landing.uri}/{folder}{name} is not a manifest ({type(error).__name__}: {said}); expected {_FORMS}"
    wrong = [
        f"{readable_name(path)} is missing"
        if path not in sizes
        else f"{path} has {sizes[path]} bytes, but {size} are listed"
        for path, size in listed.items()
        if path not in sizes or size not in (None, sizes[path])
    ]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"of the {len(listed)} files listed in {folder}{name}, {'; '.join(wrong[:3])}{more}" if wrong else ""


def _listed(content: bytes, folder: str) -> Iterator[tuple[str, int | None]]:
    """Yield each file listed in a manifest: its path in the day's folder and, if given, its size in bytes."""
    document: Any = json.loads(content)
    entries = document.get("files", document.get("entries")) if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise TypeError("it lists no files")
    for entry in entries:
        if isinstance(entry, str):
            path, size = entry, None
        else:
            path = str(entry["path"] if "path" in entry else entry["url"])
            size = entry.get("size", entry.get("meta", {}).get("content_length"))
        yield path.rpartition(f"/{folder}")[2].removeprefix(folder), None if size is None else int(size)
