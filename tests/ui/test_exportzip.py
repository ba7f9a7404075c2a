"""The zip that is made while it is downloaded: whole, of the length that was told, and with nothing else in it."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest

from studio.ui import exportzip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several sizes, some of which have no business in an archive."""
    made = tmp_path / "export"
    (made / "sub").mkdir(parents=True)
    (made / ".cache").mkdir()
    (made / "model.safetensors").write_bytes(random.Random(1).randbytes(3 * exportzip.PIECE + 7))
    (made / "sub" / "ümlaut 東.txt").write_text("größe", encoding="utf-8")
    (made / "empty").write_bytes(b"")
    (made / ".cache" / "hidden").write_text("x", encoding="utf-8")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (made / "link").symlink_to(tmp_path / "secret")
    return made


NAMES = ["n/empty", "n/model.safetensors", "n/sub/ümlaut 東.txt"]


# Lower limits make the small files what those of more than 4 GB are: each way in which an archive can be ZIP64.
@pytest.mark.parametrize("limit", [None, 2**20, 0, 3 * 2**20 + 7, 3 * 2**20 + 40, 3 * 2**20 + 200, 3 * 2**20 + 330])
def test_it_is_whole_and_of_the_length_that_was_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    if limit is not None:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    pieces = list(exportzip.stream(folder, "n"))
    data = b"".join(pieces)
    assert len(data) == exportzip.length(folder, "n")
    assert max(map(len, pieces)) < exportzip.PIECE + 1000, "it was gathered before it was sent"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == NAMES
        assert archive.testzip() is None
        for name in NAMES:
            assert archive.read(name) == (folder / name.removeprefix("n/")).read_bytes()
            assert archive.getinfo(name).compress_type == zipfile.ZIP_STORED


def test_no_byte_more_than_was_told_is_sent_when_a_file_grows(folder: Path) -> None:
    told = exportzip.length(folder, "n")
    stream = exportzip.stream(folder, "n")
    first = next(stream)
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    assert len(first) + sum(map(len, stream)) == told


def test_a_file_that_becomes_shorter_ends_it(folder: Path) -> None:
    stream = exportzip.stream(folder, "n")
    next(stream)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(exportzip.PIECE + 1)
    with pytest.raises(OSError, match="shorter"):
        list(stream)


def test_old_and_far_dates_do_no_harm(folder: Path) -> None:
    import os

    os.utime(folder / "empty", (0, 0))
    os.utime(folder / "model.safetensors", (5e9, 5e9))
    data = b"".join(exportzip.stream(folder, "n"))
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
