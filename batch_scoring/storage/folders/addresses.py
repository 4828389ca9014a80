"""The folder at an address: a path of this machine, or s3://."""

from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.folders.s3 import S3Folder


def open_folder(uri: str) -> Folder:
    """Return the folder at an absolute path or an s3:// address; it need not exist yet."""
    if uri.startswith("s3://"):
        return S3Folder(uri)
    if "://" in uri:
        raise ValueError(f"{uri!r}: unsupported storage; expected a path or s3://bucket/prefix")
    return LocalFolder(uri)
