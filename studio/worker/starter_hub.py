"""Child program: `python -m studio.worker.starter_hub REPO FOLDER FILE...` downloads these files from the hub.

In: a repository, an empty folder, the names that are wanted (those the repository lacks are left out). Out: the files,
each checked against the size and hash that the hub lists, and a line `bytes N` with their sum as soon as it is known.
A failure ends it with a traceback and exit code 1. Does not know: what the files are for.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.hf_api import RepoSibling

_TIMEOUT = 4.0  # seconds for the hub to answer


def download(repo: str, folder: Path, wanted: list[str]) -> None:
    """Fill `folder`; raises what huggingface_hub raises, and ValueError where a file isn't what the hub lists."""
    info = HfApi().model_info(repo, files_metadata=True, timeout=_TIMEOUT)
    files = [file for file in info.siblings or () if file.rfilename in wanted]
    sys.stdout.write(f"bytes {sum(file.size or 0 for file in files)}\n")
    sys.stdout.flush()  # the parent waits for it
    names = [file.rfilename for file in files]
    snapshot_download(repo, revision=info.sha, local_dir=folder, allow_patterns=names, etag_timeout=_TIMEOUT)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for file in files:
        if not _as_listed(folder / file.rfilename, file):
            raise ValueError(f"{file.rfilename} is damaged: size or checksum differ")


def _as_listed(path: Path, file: RepoSibling) -> bool:
    """Large files are listed with their SHA-256, small ones with git's hash: SHA-1 over a header and the content."""
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        expected, digest = str(file.lfs.sha256), hashlib.sha256()
    elif file.blob_id is not None:
        header = b"blob %d\0" % path.stat().st_size
        expected, digest = str(file.blob_id), hashlib.sha1(header, usedforsecurity=False)
    else:
        return file.size is not None
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected


if __name__ == "__main__":
    download(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
