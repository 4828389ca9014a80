"""Addresses of `batch-scoring score`: the files to read, and the names of the files to write.

An address names a file, or a folder with all data files below it, local or on S3. An output is never placed where it
would be read as input.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from batch_scoring.config.loader import BrokenPipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import AddressError, EntryError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.landing_files import ENDINGS
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import FileVersion, Folder

Form = Literal[".parquet", ".csv.gz", ".csv"]
FORMS: tuple[Form, ...] = get_args(Form)
"""The files that are written; those of `ENDINGS` are read."""


@dataclass(frozen=True)
class InputFiles:
    """The files to score, in the versions that were listed."""

    uri: str
    folder: Folder
    files: tuple[FileVersion, ...]
    """Newest first: of rows with equal keys the first file's is accepted."""
    is_file: bool

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class OutputFiles:
    """The files that a command writes."""

    folder: Folder
    form: Form
    predictions: str
    quarantine: str
    """Name of the file with the rejected rows."""
    summary: str | None
    """Name of the summary's file; None where the output is one file."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every file that may be written, the predictions first."""
        return tuple(name for name in (self.predictions, self.quarantine, self.summary) if name)

    def uri(self, name: str) -> str:
        """The address of one of the files."""
        return f"{self.folder.uri}/{name}"

    def existing(self) -> list[str]:
        """Addresses of the files that exist already."""
        return [self.uri(name) for name in self.names if self._is_there(name)]

    def _is_there(self, name: str) -> bool:
        try:
            return self.folder.version(name) is not None
        except EntryError:
            return True


def find_input(uri: str) -> InputFiles:
    """The files at an address: one file, or every data file below a folder, however deep.

    Raises:
        AddressError: there is nothing to read.
        PermissionError, StoreError: it cannot be read.
    """
    folder, name = _split(_followed(uri))
    try:
        file = folder.version(name) if name else None
    except EntryError as error:
        raise AddressError(f"--input {error}") from error
    if file:
        if not name.endswith(ENDINGS):
            raise AddressError(
                f"{uri}: its name ends in none of {', '.join(ENDINGS)}; expected such a file, or a folder"
            )
        return InputFiles(uri, folder, (file,), is_file=True)
    below = folder.subfolder(name) if name else folder
    files = landing_files.newest_first(landing_files.data_files(below.look()))
    if troubled := [file for file in files if file.trouble]:
        raise AddressError(f"--input {landing_files.in_words(below, troubled)}")
    if not files:
        there = below.list() or (below.is_local and Path(below.uri).is_dir())
        found = "no data file is in it (names that begin with '_' or '.' are not data)" if there else "nothing is there"
        raise AddressError(f"--input {uri}: {found}; expected a file or folder of {', '.join(ENDINGS)}")
    return InputFiles(uri, below, tuple(files), is_file=False)


def _followed(uri: str) -> str:
    """The target of an address that is a link."""
    path = Path(uri).expanduser()
    return str(path.resolve()) if "://" not in uri and path.is_symlink() else uri


def name_output(uri: str) -> OutputFiles:
    """The files to write for an address: a file by its ending, else a folder.

    Raises:
        AddressError: no file format has that ending, or nothing can be written there.
    """
    folder, name = _split(uri)
    form = next((form for form in FORMS if name.endswith(form) and name != form), None)
    here = Path(folder.uri, name) if folder.is_local else None
    is_folder = uri.endswith("/") or not name or (here is not None and here.is_dir())
    if form and here is not None and here.is_dir() and not uri.endswith("/"):
        raise AddressError(f"--output {uri} is a folder; expected the name of a file; end it with / if it is meant")
    if is_folder or not re.search(r"\.[A-Za-z][A-Za-z0-9]*$", name):
        if here is not None and here.is_file():
            raise AddressError(f"--output {uri} is a file that ends in none of {', '.join(FORMS)}")
        below = folder.subfolder(name) if name else folder
        return OutputFiles(below, ".parquet", "predictions.parquet", "quarantine.parquet", "summary.json")
    if form is None:
        raise AddressError(
            f"--output {uri}: unknown kind of file; expected {', '.join(FORMS)}, or a folder with / at its end"
        )
    stem = name.removesuffix(form)
    if stem.endswith(".quarantine"):
        raise AddressError(f"--output {uri} is the name of the rows that another output rejects; choose another one")
    return OutputFiles(folder, form, name, f"{stem}.quarantine{form}", None)


def ensure_no_overlap(
    source: InputFiles, output: OutputFiles, pipelines: Iterable[Pipeline], broken: Iterable[BrokenPipeline] = ()
) -> None:
    """Ensure that an output is not read as input, now or later, and is outside the folders of every pipeline.

    Args:
        source: the input.
        output: the output.
        pipelines: with known folders.
        broken: pipelines of which only the output folder is known; all of it is theirs.

    Raises:
        AddressError: the message says where the output must not be.
    """
    targets = [f"{output.folder.canonical}/{name}" for name in output.names]
    if source.is_file:
        mine = f"{source.folder.canonical}/{source.files[0].path}"
        mine = str(Path(mine).resolve()) if source.folder.is_local else mine
        if mine in targets or mine in [str(Path(target).resolve()) for target in targets]:
            raise AddressError(f"--output would write over --input, {source.uri}; expected another name")
    else:
        _ensure_outside(source.folder, targets, "--input, where the next command would read it")
    for pipeline in pipelines:
        landing_folder = f"the landing folder of {pipeline.name}, whose files are scored by days"
        _ensure_outside(pipeline.landing, targets, landing_folder)
        _ensure_outside(pipeline.bundle, targets, f"the model of {pipeline.name}")
        for part in ("tables", "state"):
            _ensure_outside(pipeline.output.subfolder(part), targets, f"the {part} of {pipeline.name}")
    for one in broken:
        _ensure_outside(one.output, targets, f"the folder of {one.name}, whose spec is broken")


def _ensure_outside(folder: Folder, targets: list[str], what: str) -> None:
    for target in targets:
        if target.startswith(f"{folder.canonical}/"):
            raise AddressError(f"--output: {target} lies in {what} ({folder.uri}); expected a place outside of it")


def _split(uri: str) -> tuple[Folder, str]:
    """The folder of an address and its last part, which is empty for a whole bucket."""
    try:
        if not uri:
            raise ValueError("it is empty; expected a path or s3://bucket/prefix")
        if uri.startswith("s3://"):
            bucket, _, key = uri.removeprefix("s3://").rstrip("/").partition("/")
            if not bucket:
                raise ValueError("it names no bucket; expected s3://bucket/prefix")
            prefix, _, name = key.rpartition("/")
            return open_folder(f"s3://{bucket}/{prefix}".rstrip("/")), name
        if "://" in uri:
            return open_folder(uri), ""
        path = Path(uri).expanduser().absolute()
        path = path.resolve() if ".." in path.parts else path
        return open_folder(str(path.parent)), path.name
    except ValueError as error:
        raise AddressError(f"{uri!r}: {error}") from error
