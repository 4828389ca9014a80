"""What belongs to a folder on disk, held against the operating system's own answers about the same tree."""

import errno
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_scoring.errors import EntryError, OutsideFolderError
from batch_scoring.storage.folders.entries import readable_name
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.folders.local import LocalFolder

SECRET = b"root:x:0:0"


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """What hangs fails: a FIFO waits for its writer for ever."""

    def ring(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_bytes(SECRET)
    return tmp_path / "outside"


@pytest.fixture
def folder(tmp_path: Path, outside: Path) -> LocalFolder:
    folder = LocalFolder(str(tmp_path / "landing"))
    folder.put("dt=1/a.csv", b"a")
    folder.put("dt=2/b.csv", b"b")
    return folder


def day(folder: LocalFolder, prefix: str = "dt=1/") -> dict[str, str]:
    """By path what is wrong with each entry; nothing if it is a file."""
    return {file.path: file.trouble.reason if file.trouble else "" for file in folder.look(prefix)}


# the rule


def test_the_folder_itself_may_be_a_link(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to("landing")
    (tmp_path / "again").symlink_to("mount")
    linked = LocalFolder(str(tmp_path / "again"))
    assert day(linked) == {"dt=1/a.csv": ""} and linked.read("dt=1/a.csv") == b"a"
    assert linked.children().folders == ("dt=1", "dt=2")
    assert linked.look("dt=1/") == folder.look("dt=1/")


def test_the_links_of_a_kubernetes_volume_lead_to_files_of_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    (place / "..2026_11_29").mkdir(parents=True)
    (place / "..2026_11_29" / "bundle.json").write_bytes(b"{}")
    (place / "..2026_11_29" / "dt=1").mkdir()
    (place / "..2026_11_29" / "dt=1" / "a.csv").write_bytes(b"a")
    (place / "..data").symlink_to("..2026_11_29")
    for name in ("bundle.json", "dt=1"):
        (place / name).symlink_to(f"..data/{name}")
    folder = LocalFolder(str(place))
    assert folder.read("bundle.json") == b"{}"
    assert day(folder) == {"dt=1/a.csv": ""} and folder.read("dt=1/a.csv") == b"a"
    assert folder.children().folders == ("..2026_11_29", "..data", "dt=1")


def test_a_folder_that_is_a_link_is_seen_whole(folder: LocalFolder) -> None:
    Path(folder.uri, "dt=3").symlink_to("dt=1")
    Path(folder.uri, "dt=1", "more").symlink_to("../dt=2")
    assert day(folder) == {"dt=1/a.csv": "", "dt=1/more/b.csv": ""}
    assert set(day(folder, "dt=")) == {"dt=1/a.csv", "dt=1/more/b.csv", "dt=2/b.csv", "dt=3/a.csv", "dt=3/more"}
    assert "a linked folder within a linked folder" in day(folder, "dt=3/")["dt=3/more"]
    assert folder.children().folders == ("dt=1", "dt=2", "dt=3")
    for file in folder.look("dt="):
        if not file.trouble:
            assert folder.open(file.path, file.token).read() in (b"a", b"b")


TROUBLES: dict[str, tuple[str, str]] = {
    "dangling": (
        "nothing.csv",
        "a link to 'nothing.csv', which does not exist: restore the target, or remove the link",
    ),
    "loop": ("x.csv", "a link to 'x.csv', which leads back to itself: remove it"),
    "upwards": ("..", "it is a link to a folder above it: remove it"),
    "file outside": ("{outside}/secret.csv", "/outside/secret.csv', which leads out of {folder}: replace it with"),
    "folder outside": ("../../outside", "a link to '../../outside', which leads out of {folder}: replace it with"),
    "nothing outside": ("/mnt/share/x.csv", "a link to '/mnt/share/x.csv', which leads out of {folder}"),
    "device": ("/dev/zero", "a link to '/dev/zero', which leads out of {folder}"),
}


@pytest.mark.parametrize("case", TROUBLES)
def test_a_link_that_leads_to_no_file_of_the_folder_is_named_and_not_opened(
    folder: LocalFolder, outside: Path, case: str
) -> None:
    target, reason = (text.format(outside=outside, folder=folder.uri) for text in TROUBLES[case])
    Path(folder.uri, "dt=1", "x.csv").symlink_to(target)
    found = day(folder)
    assert set(found) == {"dt=1/a.csv", "dt=1/x.csv"} and reason in found["dt=1/x.csv"]
    for operation in (folder.open, folder.read, folder.open_arrow):
        with pytest.raises(EntryError, match=r"dt=1/x\.csv: it is a link"):
            operation("dt=1/x.csv")
    assert [file.path for file in folder.list("dt=1/")] == ["dt=1/a.csv"]
    assert day(folder, "dt=2/") == {"dt=2/b.csv": ""}


@pytest.mark.parametrize("case", TROUBLES)
def test_the_same_of_a_folder_stands_for_all_below_it(folder: LocalFolder, outside: Path, case: str) -> None:
    target, reason = (text.format(outside=outside, folder=folder.uri) for text in TROUBLES[case])
    target = {"x.csv": "dt=9", "..": "."}.get(target, target.replace("../../", "../"))
    Path(folder.uri, "dt=9").symlink_to(target)
    (found,) = day(folder, "dt=9/").items()
    assert found[0] == "dt=9" and reason.split("'")[-1] in found[1]
    assert day(folder, "dt=")["dt=9"] == found[1]
    assert [(one.path, one.trouble and one.trouble.reason) for one in folder.children().troubled] == [found]
    with pytest.raises((EntryError, NotADirectoryError)):
        folder.open("dt=9/secret.csv")


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a folder"])
def test_what_is_not_a_file_is_never_waited_for(folder: LocalFolder, kind: str) -> None:
    place = Path(folder.uri, "dt=1", "x.csv")
    if kind == "a FIFO":
        os.mkfifo(place)
    elif kind == "a folder":
        place.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            here = Path.cwd()
            os.chdir(place.parent)  # a socket's path is short
            listening.bind(place.name)
            os.chdir(here)
    with pytest.raises(EntryError, match=rf"{place}: it is {kind}; expected a file"):
        folder.open("dt=1/x.csv")
    expected = {} if kind == "a folder" else {"dt=1/x.csv": f"it is {kind}; expected a file: remove it"}
    assert day(folder) == {"dt=1/a.csv": ""} | expected


def test_a_name_that_no_file_can_have_is_told_so_that_it_can_be_printed(folder: LocalFolder) -> None:
    place = os.fsencode(Path(folder.uri, "dt=1"))
    for name in (b"caf\xe9.csv", b"a\\b.csv"):
        with open(os.path.join(place, name), "wb"):  # noqa: PTH118, PTH123  (a Path has no bytes)
            pass
    found = day(folder)
    assert found.pop("dt=1/a.csv") == ""
    assert {path: reason.split(":")[0] for path, reason in found.items()} == {
        r"dt=1/caf\xe9.csv": "its name is not UTF-8",
        r"dt=1/a\b.csv": "its name has a backslash, which separates folders elsewhere",
    }
    assert [path for path in found if not path.encode().isascii()] == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("what", ["file", "folder", "day"])
def test_an_error_of_one_entry_is_that_entrys_and_may_pass(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    folder.put("dt=1/sub/c.csv", b"c")
    path = {"file": "dt=1/a.csv", "folder": "dt=1/sub", "day": "dt=1"}[what]
    real = {"lstat": os.lstat, "listdir": os.listdir}

    def broken(call: str) -> Any:  # noqa: ANN401
        def ask(where: Any, *more: Any, **named: Any) -> Any:  # noqa: ANN401
            if str(where) == f"{folder.uri}/{path}" and (call == "listdir" or what == "file"):
                raise OSError(number, os.strerror(number), where)
            return real[call](where, *more, **named)  # type: ignore[operator]

        return ask

    for call in real:
        monkeypatch.setattr(os, call, broken(call))
    troubled = [file for file in folder.look("dt=") if file.trouble]
    assert [file.path for file in troubled] == [path]
    assert all(
        file.trouble and file.trouble.may_pass and os.strerror(number) in file.trouble.reason for file in troubled
    )
    monkeypatch.undo()
    assert not any(day(folder, "dt=").values())


def test_a_tree_of_any_depth_and_links_that_double_at_every_level_end(folder: LocalFolder) -> None:
    here, place = Path.cwd(), Path(folder.uri, "dt=1")
    os.chdir(place)
    for _ in range(20):  # deeper than a path may be long
        Path("n" * 250).mkdir()
        os.chdir("n" * 250)
    os.chdir(here)
    for level in range(25):
        (place / f"d{level}").mkdir()
        for link in ("a", "b"):
            (place / f"d{level}" / link).symlink_to(f"../d{level + 1}")
    (place / "d25").mkdir()
    (place / "d25" / "x.csv").touch()
    found = day(folder)
    assert [path for path, reason in found.items() if not reason] == [
        "dt=1/a.csv",
        "dt=1/d24/a/x.csv",
        "dt=1/d24/b/x.csv",
        "dt=1/d25/x.csv",
    ]
    assert [path.count("/") for path, reason in found.items() if "its path is too long" in reason] == [16]
    assert len(found) < 4 + 25 * 4 + 1


# nothing that happens meanwhile leads elsewhere


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_is_put_there_while_a_file_is_opened_is_never_followed(
    folder: LocalFolder, outside: Path, what: str
) -> None:
    place = Path(folder.uri, "dt=1")
    (place / "sub").mkdir()
    (place / "sub" / "secret.csv").write_bytes(b"ours")
    swapped = place / "sub" if what == "folder" else place / "sub" / "secret.csv"
    link, kept, stop = place / "_link", place / "_kept", threading.Event()
    link.symlink_to(outside if what == "folder" else outside / "secret.csv")

    def swap() -> None:
        while not stop.is_set():
            swapped.rename(kept)
            link.rename(swapped)
            time.sleep(0.0002)
            swapped.rename(link)
            kept.rename(swapped)

    uploader = threading.Thread(target=swap, daemon=True)
    uploader.start()
    seen, refused = set(), 0
    for _ in range(2000):
        try:
            with folder.open("dt=1/sub/secret.csv") as file:
                seen.add(file.read())
        except OSError:
            refused += 1
    stop.set()
    uploader.join()
    assert seen <= {b"ours"} and refused > 0


# any tree

NAMES = st.sampled_from(
    [b"x.csv", b"y.parquet", b"sub", b"_tmp", b".hidden", b"caf\xe9.csv", b"a\\b.csv", "ü".encode()]
)
TARGETS = [
    "{outside}/secret.csv",
    "{outside}",
    "{outside}/within",
    "{root}/dt=2",
    "{root}/dt=1/x.csv",
    "{root}",
    ".",
    "..",
    "../..",
    "../dt=1",
    "../dt=2",
    "x.csv",
    "sub",
    "sub/x.csv",
    "nothing",
    "../nothing/x",
    "sub/../x.csv",
    "_tmp",
]
LEAVES = st.one_of(st.binary(max_size=3), st.none(), st.sampled_from(TARGETS))
TREES = st.dictionaries(
    st.sampled_from([b"dt=1", b"dt=2", b"dt=3"]),
    st.recursive(LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=12),
)


def build(place: Path, tree: Any, root: Path, outside: Path) -> None:  # noqa: ANN401
    """A file of some bytes, a FIFO for None, a link for text, a folder with what is in it."""
    if isinstance(tree, bytes):
        place.write_bytes(tree)
    elif tree is None:
        os.mkfifo(place)
    elif isinstance(tree, str):
        place.symlink_to(tree.format(root=root, outside=outside))
    else:
        place.mkdir()
        for name, below in tree.items():
            build(place / os.fsdecode(name), below, root, outside)


def expected(root: Path) -> Iterator[tuple[str, str]]:
    """Each entry of a tree that is no folder, by `os.walk`: whether it is a file, in trouble, or a link to a folder."""
    for above, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(f"{above}/{name}")]  # noqa: PTH114
        bad = [name for name in folders if name not in links and is_bad(name)]
        folders[:] = [name for name in folders if name not in (*links, *bad)]
        for name in (*names, *links, *bad):
            path = Path(above, name)
            yield str(path.relative_to(root)), kind_of(path, root, is_bad(name))


def is_bad(name: str) -> bool:
    return "\\" in name or b"\xe9" in os.fsencode(name)


def kind_of(path: Path, root: Path, bad: bool) -> str:
    try:
        path.stat()
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "trouble"
    if bad or not target.is_relative_to(root) or stat.S_ISFIFO(target.stat().st_mode):
        return "trouble"
    return "folder" if target.is_dir() else "file"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(TREES)
@example({b"dt=1": {b"sub": {b"x.csv": "{outside}/secret.csv"}, b"x.csv": "sub", b"_tmp": "sub/x.csv"}})
@example({b"dt=1": {b"x.csv": b"", b"y.parquet": "sub/../x.csv", b"_tmp": "x.csv/../x.csv", b"sub": "sub/../x.csv"}})
@example({b"dt=1": {b"x.csv": "../dt=2", b"sub": "."}, b"dt=2": {b"x.csv": "../dt=1", b"sub": b"1"}, b"dt=3": "dt=1"})
def test_every_entry_of_any_tree_is_a_file_of_the_folder_or_named_and_nothing_else_is(tree: Any) -> None:  # noqa: ANN401
    with TemporaryDirectory() as place:
        root, outside = Path(place).resolve() / "landing", Path(place).resolve() / "outside"
        (outside / "within").mkdir(parents=True)
        for secret in (outside / "secret.csv", outside / "within" / "x.csv"):
            secret.write_bytes(SECRET)
        build(root, tree, root, outside)
        folder = LocalFolder(str(root))
        found = {file.path: file for number in "123" for file in folder.look(f"dt={number}/")}
        at_once = {file.path: file for file in folder.look("dt=") if "/" in file.path or file.trouble}
        assert at_once == found
        check_against_the_system(folder, root, found)


def check_against_the_system(folder: LocalFolder, root: Path, found: dict[str, FileVersion]) -> None:
    kinds = {readable_name(path): kind for path, kind in expected(root)}
    linked = [path for path, kind in kinds.items() if kind == "folder"]
    for path, file in found.items():
        is_below = [link for link in linked if path.startswith(f"{link}/")]
        if not file.trouble:
            target = Path(root, path).resolve(strict=True)
            assert target.is_relative_to(root) and target.is_file()
            with folder.open(path, file.token) as stream:
                assert stream.read() == target.read_bytes() != SECRET
        else:
            with pytest.raises((OSError, OutsideFolderError)):
                folder.open(path)
        assert is_below or (
            path in kinds and (kinds[path] == "folder" or bool(file.trouble) == (kinds[path] == "trouble"))
        )
    for path, kind in kinds.items():
        if path.count("/") == 0 and kind == "file":
            continue  # dt=1 itself: a file outside of any day
        if kind != "folder":
            assert path in found and bool(found[path].trouble) == (kind == "trouble"), path
        elif not (path in found and found[path].trouble):  # walked: all that its own target holds
            inner = Path(root, path).resolve()
            names = {f"{path}/{readable_name(str(Path(p)))}" for p, k in expected(inner) if k in ("file", "trouble")}
            assert {name for name in names if name not in found} == set(), path
