"""The files in a job's folder: small ones published whole, events appended and read on."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from studio.core.events import CheckpointSaved, Event, Note
from studio.core.job import EventLog, EventTail, JobFolder, create_text, read_json, write_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def at(step: int) -> CheckpointSaved:
    return CheckpointSaved(step, f"checkpoints/checkpoint-{step}", float(step))


def append(path: Path, *events: Event) -> None:
    log = EventLog(path)
    for event in events:
        log.append(event)
    log.close()


def steps(tail: EventTail) -> list[int]:
    return [event.step for event in tail.read() if isinstance(event, CheckpointSaved)]


# -- the log and its tail ---------------------------------------------------------------------------------------------


def test_only_what_is_new_is_read(path: Path) -> None:
    tail = EventTail(path)
    assert steps(tail) == [], "there is no file yet"
    append(path, at(1), at(2))
    assert steps(tail) == [1, 2]
    assert steps(tail) == []
    append(path, at(3))
    assert steps(tail) == [3]
    assert tail.offset == path.stat().st_size


def test_reading_goes_on_from_an_offset_that_was_kept(path: Path) -> None:
    append(path, at(1), at(2))
    first = EventTail(path)
    steps(first)
    append(path, at(3))
    assert steps(EventTail(path, first.offset)) == [3]


def test_the_offset_stands_behind_what_was_taken_even_if_the_reader_leaves_early(path: Path) -> None:
    append(path, at(1), at(2), at(3))
    tail = EventTail(path)
    assert next(iter(tail.read())) == at(1)
    assert steps(tail) == [2, 3]


def test_F55_torn_line_is_held_back(path: Path) -> None:
    append(path, at(1))
    whole = path.read_bytes()
    append(path, at(2))
    line = path.read_bytes()[len(whole) :]
    for cut in range(len(line)):
        path.write_bytes(whole + line[:cut])
        tail = EventTail(path)
        assert steps(tail) == [1]
        assert (tail.offset, tail.damaged) == (len(whole), 0)
        path.write_bytes(whole + line)
        assert steps(tail) == [2], f"what was torn at byte {cut} is lost"


def test_F55_a_log_goes_on_after_a_torn_line(path: Path) -> None:
    append(path, at(1))
    with path.open("ab") as file:
        file.write(b'{"event": "checkpoint", "step":')
    tail = EventTail(path)
    assert steps(tail) == [1]
    append(path, at(3))
    assert steps(tail) == [3]
    assert tail.damaged == 1
    assert steps(EventTail(path)) == [1, 3]


def test_a_log_that_ended_well_gets_no_empty_line(path: Path) -> None:
    append(path, at(1))
    append(path, at(2))
    assert path.read_bytes().count(b"\n") == 2
    assert b"\n\n" not in path.read_bytes()


def test_F57_damage_in_the_middle_spoils_nothing_else(path: Path) -> None:
    append(path, at(1), at(2), at(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\xff damage\n" + b"\n" + b'{"event": "later"}\n' + lines[2])
    tail = EventTail(path)
    assert steps(tail) == [1, 3]
    assert tail.damaged == 2, "an empty line is no damage"


def test_a_file_that_became_shorter_is_another_file(path: Path) -> None:
    append(path, at(1), at(2), at(3))
    tail = EventTail(path)
    steps(tail)
    path.unlink()
    append(path, at(7))
    assert steps(tail) == [7]


def test_a_line_is_written_at_once_or_not_at_all(path: Path) -> None:
    """Many writers of long lines: no line is ever cut into by another."""
    text = "x" * 20_000

    def write(number: int) -> None:
        append(path, *(Note("info", f"{number} {text}", float(i)) for i in range(10)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tail = EventTail(path)
    assert len(list(tail.read())) == 40
    assert tail.damaged == 0


def test_F19_a_line_that_the_disk_took_half_of_is_told_and_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(path)
    log.append(at(1))
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[: len(data) // 2] or data))
    with pytest.raises(OSError, match="part of a line"):
        log.append(at(2))
    monkeypatch.undo()
    log.append(at(3))
    log.close()
    assert steps(EventTail(path)) == [1, 3]


# -- small files ------------------------------------------------------------------------------------------------------


def test_a_small_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    write_text(path, "öne\n")
    write_text(path, "two\n")
    assert path.read_text(encoding="utf-8") == "two\n"
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    with pytest.raises(OSError, match="No space"):
        create_text(tmp_path / "process.json", "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"], "nothing half-made stays"


def test_writers_in_one_process_do_not_spoil_each_others_files(tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    texts = [str(number) * 5000 for number in range(8)]
    barrier = threading.Barrier(len(texts))

    def write(text: str) -> None:
        barrier.wait()
        for _ in range(5):
            write_text(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text(encoding="utf-8") in texts


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_F53_of_many_makers_of_a_file_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # exFAT and some network shares have none

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "process.json"
    barrier = threading.Barrier(20)
    made: list[int] = []

    def make(number: int) -> None:
        barrier.wait()
        if create_text(path, json.dumps({"pid": number})):
            made.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert read_json(path) == {"pid": made[0]}
    assert [p.name for p in tmp_path.iterdir()] == ["process.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_F57_a_damaged_file_reads_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "process.json"
    path.write_bytes(content)
    assert read_json(path) is None


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "process.json") is None
    assert read_json(tmp_path) is None


def test_a_jobs_files_lie_in_its_folder(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "20261122-1412-a")
    assert folder.id == "20261122-1412-a"
    names = {
        name: getattr(folder, name)
        for name, attribute in vars(JobFolder).items()
        if isinstance(attribute, property) and name != "id"
    }
    assert {path.parent for path in names.values()} == {folder.path}
    assert len(set(names.values())) == len(names)
