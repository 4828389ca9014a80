"""The files of one output: written aside, then made visible, first the rejected rows and then the predictions.

A reader of a file sees the old or the new one as a whole. If the command ends before its files are made visible,
however it ends, nothing of them remains.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from batch_scoring.cli.score.locations import OutputFiles
from batch_scoring.config.spec import Csv
from batch_scoring.errors import PartlyWrittenError
from batch_scoring.runtime import signals
from batch_scoring.storage import row_files
from batch_scoring.storage.folders.staged_files import StagedFile, staged


class Outputs(contextlib.AbstractContextManager["Outputs"]):
    """An output that only this process is writing."""

    def __init__(self, output: OutputFiles, csv: Csv) -> None:
        """`csv`: the dialect of CSV files."""
        self._output, self._csv = output, csv
        self._files: dict[str, StagedFile] = {}
        self._finished: set[str] = set()
        self._staged, self._writers = contextlib.ExitStack(), contextlib.ExitStack()
        self._made: list[Path] = []

    def __enter__(self) -> "Outputs":
        """Nothing is written yet."""
        self._staged.enter_context(signals.at_end(self._abandon))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove what is not visible yet, and the folders that were created for it."""
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):  # an error is being raised already
            self._writers.close()
        with contextlib.ExitStack() as late:
            if self._files and all(file.fate == "shown" for file in self._files.values()):
                # the output is written, even if scratch files cannot be removed
                late.enter_context(signals.uninterrupted())
                late.enter_context(contextlib.suppress(OSError))
            self._staged.close()
        self._remove_folders()

    def _abandon(self) -> str:
        """Clean up because the process ends; return which files are visible already."""
        self._remove_folders()
        written = [self._output.uri(name) for name, file in self._files.items() if file.fate == "shown"]
        return f"{' and '.join(written)} is written" if written else "nothing is written"

    def _remove_folders(self) -> None:
        for folder in self._made:
            with contextlib.suppress(OSError):  # it has files of others by now
                folder.rmdir()

    def reserve(self, name: str) -> StagedFile:
        """Ensure that a file can be written.

        Raises:
            OSError: it cannot be.
        """
        folder = self._output.folder
        if folder.is_local and not self._files:
            place = Path(folder.uri)
            self._made = [place for place in (place, *place.parents) if not place.exists()]
        if name not in self._files:
            self._files[name] = self._staged.enter_context(staged(folder, name))
        return self._files[name]

    def begin(self, name: str, schema: pa.Schema, dictionary: Iterable[str] = ()) -> Callable[[pa.RecordBatch], None]:
        """Begin a file, and return the function that appends rows. `dictionary`: columns with few distinct values.

        Raises:
            OSError: nothing can be written there.
        """
        scratch = self.reserve(name).scratch
        return self._writers.enter_context(
            row_files.writing(scratch, self._output.form, schema, self._csv.delimiter, dictionary)
        )

    def put(self, name: str, data: bytes) -> None:
        """Write a file as a whole."""
        self.reserve(name).scratch.write_bytes(data)

    def finish(self) -> None:
        """Complete all files that were begun, except for the last step: everything that takes time."""
        self._writers.close()
        for name in self._files.keys() - self._finished:
            self._files[name].finish()
            self._finished.add(name)

    def show(self, *, replaces: bool) -> list[str]:
        """Make all files visible, and remove files of an older output that have no successor.

        Args:
            replaces: whether existing files may be replaced.

        Returns:
            Warnings: files of an older output that could not be removed.

        Raises:
            TakenError: one exists, and may not be replaced; nothing is visible.
            PartlyWrittenError: only some could be written.
            OSError: they cannot be written; nothing is visible.
        """
        self.finish()
        output, folder = self._output, self._output.folder
        order = [name for name in (output.quarantine, output.predictions, output.summary) if name]
        with signals.uninterrupted():
            try:
                for name in order:
                    if name in self._files:
                        self._files[name].show(replaces=replaces)
            except BaseException as error:
                for name, file in self._files.items():
                    if file.fate == "shown" and not replaces:  # then this command has written it
                        with contextlib.suppress(OSError):
                            folder.remove(name)
                            file.fate = "unseen"
                if parts := self._fates(order):
                    raise PartlyWrittenError(parts) from error
                raise
            # not earlier: if writing the predictions failed, the old ones would have lost their rejected rows
            return [said for name in order if replaces and name not in self._files and (said := self._remove(name))]

    def _fates(self, order: list[str]) -> str:
        """Description of the files that were written and those that were not; empty if none was."""
        words = {"shown": "is written", "unknown": "may be written", "unseen": "is not"}
        fates = {name: self._files[name].fate for name in order if name in self._files}
        if set(fates.values()) == {"unseen"}:
            return ""
        return ", ".join(f"{self._output.uri(name)} {words[fate]}" for name, fate in fates.items())

    def _remove(self, name: str) -> str:
        """Remove a file of an older output; a warning if that is not possible."""
        folder = self._output.folder
        try:
            folder.remove(name)
        except OSError as error:
            with contextlib.suppress(OSError):
                if folder.version(name) is None:
                    return ""
            return (
                f"{self._output.uri(name)} belongs to an older output and cannot be removed, remove it by hand: {error}"
            )
        return ""
