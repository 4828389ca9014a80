"""One look at a pipeline's state: its documents as one listing shows them, each version read once per process.

What a sensor asks at each tick has rarely changed since the last one. A listing costs one request per thousand
documents and says which version each has; only new versions are read.
"""

import collections
import functools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from batch_scoring.errors import FileChangedError, StateError
from batch_scoring.storage.day_heads import HEAD_BYTES, InputHead, PublishedHead
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.state import AnyDocument, Document, State, StepName

CACHED_BYTES = 64 * 1024 * 1024
"""Documents that a process keeps, by their size as files."""

_Key = tuple[str, FileVersion, type[Document]]
"""A state's address, one version of a document in it, and whether that is kept whole or as its head."""


class StateLook(State):
    """What the state's listing shows, from the first time that a day is asked for; a tick makes a look of its own."""

    def __init__(self, output: Folder) -> None:
        """`output`: the pipeline's output folder."""
        super().__init__(output)
        self._days: list[str] | None = None
        self._versions: dict[str, FileVersion] = {}
        self._listed_from: str | None = None
        self.damaged: set[str] = set()
        """Addresses of documents that were skipped because they cannot be read."""

    def newest_days(self) -> list[str]:
        """See `State.newest_days`."""
        if self._days is None:
            self._days = super().newest_days()
        return self._days

    def input_heads(self, days: Sequence[str]) -> list[InputHead]:
        """Return the heads of the pinned inputs of those days that have one; skip unreadable ones."""
        return self._of_days(days, "input.json", InputHead, or_none=True)

    def published_heads(self, step: StepName, days: Sequence[str]) -> list[PublishedHead]:
        """Return the heads of what the step published for the given days; skip unreadable ones."""
        return self._of_days(days, f"{step}.json", PublishedHead, or_none=True)

    def _of_days(
        self, days: Sequence[str], name: str, kind: type[AnyDocument], *, or_none: bool = False
    ) -> list[AnyDocument]:
        """See `State._of_days`."""
        if not days:
            return []
        self._list_from(f"dt={min(days)}")
        versions = [version for day in days if (version := self._versions.get(f"dt={day}/{name}"))]
        return self._of_versions(versions, kind, or_none=or_none)

    def _listed(self, files: Sequence[FileVersion], kind: type[AnyDocument]) -> list[AnyDocument]:
        """See `State._listed`."""
        return self._of_versions(files, kind, or_none=True)

    def _of_versions(
        self, versions: Sequence[FileVersion], kind: type[AnyDocument], *, or_none: bool
    ) -> list[AnyDocument]:
        read = functools.partial(self._document_or_none if or_none else self._document, kind)
        if all((self._folder.uri, version, kind) in _cache for version in versions) or self._folder.is_local:
            return [document for version in versions if (document := read(version))]
        with ThreadPoolExecutor(16) as pool:
            return [document for document in pool.map(read, versions) if document]

    def _list_from(self, folder: str) -> None:
        """List the documents of a day and of all later ones, unless they are listed already."""
        until = self._listed_from
        if until is None or folder < until:
            listed = self._folder.list("dt=", folder)
            self._versions |= {version.path: version for version in listed if until is None or version.path < until}
            self._listed_from = folder

    def _document_or_none(self, kind: type[AnyDocument], version: FileVersion) -> AnyDocument | None:
        try:
            return self._document(kind, version)
        except StateError:
            pass
        except OSError:
            if not self._folder.is_local:
                raise
        self.damaged.add(f"{self._folder.uri}/{version.path}")
        return None

    def _document(self, kind: type[AnyDocument], version: FileVersion) -> AnyDocument | None:
        if found := _cache.get((self._folder.uri, version, kind)):
            return cast("AnyDocument", found)
        try:
            content = self._folder.read(version.path, version.token)
        except (FileChangedError, FileNotFoundError):  # since it was listed: what is there now, for this look alone
            return self._read(version.path, kind)
        document = self._parsed(version.path, content, kind)
        _cache.put((self._folder.uri, version, kind), document)
        return document


class _Cache:
    """The parsed documents that were used last."""

    def __init__(self) -> None:
        self._documents: collections.OrderedDict[_Key, Document] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, key: _Key) -> bool:
        return key in self._documents

    def get(self, key: _Key) -> Document | None:
        with self._lock:
            if found := self._documents.get(key):
                self._documents.move_to_end(key)
            return found

    def put(self, key: _Key, document: Document) -> None:
        with self._lock:
            if key not in self._documents:
                self._documents[key] = document
                self._bytes += _size(key)
            while self._bytes > CACHED_BYTES:
                oldest, _ = self._documents.popitem(last=False)
                self._bytes -= _size(oldest)


def _size(key: _Key) -> int:
    """What a document counts in the cache."""
    return HEAD_BYTES if key[2] in (InputHead, PublishedHead) else key[1].size


_cache = _Cache()
