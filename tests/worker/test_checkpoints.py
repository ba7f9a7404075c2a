"""Checkpoints that can be trusted: signed when they are whole, set aside when they aren't, kept by step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from studio.worker import checkpoints
from studio.worker.checkpoints import MANIFEST, check_header, newest, publish, publish_folder, rotate, verify

WEIGHTS = "adapter_model.safetensors"
FILES = (WEIGHTS, "optimizer.pt", "scheduler.pt", "trainer_state.json")


def written(parent: Path, step: int) -> Path:
    """What transformers' Trainer leaves behind, not signed yet."""
    folder = parent / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((8, 8), float(step)), "bias": torch.ones(8)}, folder / WEIGHTS)
    torch.save({"state": {0: {"exp_avg": torch.ones(8)}}}, folder / "optimizer.pt")
    torch.save({"last_epoch": step}, folder / "scheduler.pt")
    (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}', encoding="utf-8")
    return folder


def signed(parent: Path, *steps: int) -> list[Path]:
    folders = [written(parent, step) for step in steps]
    for folder in folders:
        publish(folder)
    return folders


def names(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir()}


def cut(by: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, path.stat().st_size - by)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(position: int) -> Callable[[Path], None]:
    """Turn one bit over; the size stays."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)

    return damage


def test_the_newest_complete_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    signed(tmp_path, 99, 100, 9)
    assert newest(tmp_path) == tmp_path / "checkpoint-100"
    assert verify(tmp_path / "checkpoint-9") is None


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-latest").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file", encoding="utf-8")
    assert newest(tmp_path) is None


def test_F03_a_checkpoint_whose_signing_was_cut_off_is_set_aside(tmp_path: Path) -> None:
    signed(tmp_path, 5)
    written(tmp_path, 10)
    assert newest(tmp_path) == tmp_path / "checkpoint-5"
    assert names(tmp_path) == {"checkpoint-5", "broken-checkpoint-10"}
    assert names(tmp_path / "broken-checkpoint-10") == set(FILES)  # for a person to look at; nothing is deleted


@pytest.mark.parametrize("missing", [*FILES, MANIFEST])
def test_F02_a_checkpoint_that_lacks_a_file_is_set_aside_and_the_older_one_used(tmp_path: Path, missing: str) -> None:
    older, newer = signed(tmp_path, 5, 10)
    (newer / missing).unlink()
    assert newest(tmp_path) == older
    assert not newer.exists()


@pytest.mark.parametrize(
    "damage", [cut(1), halve, empty, flip(0), flip(12), flip(-1)], ids=["1", "half", "0", "size", "header", "data"]
)
@pytest.mark.parametrize("kept", [True, False], ids=["older-kept", "alone"])
def test_F25_damaged_weights_are_named_and_never_resumed_from(
    tmp_path: Path, damage: Callable[[Path], None], kept: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = signed(tmp_path, *((5, 10) if kept else (10,)))
    damage(folders[-1] / WEIGHTS)
    problem = verify(folders[-1])
    assert problem is not None
    assert WEIGHTS in problem
    assert newest(tmp_path) == (folders[0] if kept else None)
    assert WEIGHTS in capfd.readouterr().err


@pytest.mark.parametrize("damage", [cut(3), empty, Path.unlink], ids=["cut", "empty", "missing"])
def test_F26_a_damaged_trainer_state_is_named_and_the_older_one_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    older, newer = signed(tmp_path, 5, 10)
    damage(newer / "trainer_state.json")
    assert "trainer_state.json" in str(verify(newer))
    assert newest(tmp_path) == older


@pytest.mark.parametrize("missing", ["optimizer.pt", "scheduler.pt", "trainer_state.json", WEIGHTS])
def test_F27_a_checkpoint_that_lacks_what_resuming_needs_is_never_signed(tmp_path: Path, missing: str) -> None:
    folder = written(tmp_path, 5)
    (folder / missing).unlink()
    with pytest.raises(ValueError, match="lacks"):
        publish(folder)
    assert newest(tmp_path) is None


@pytest.mark.parametrize("damage", [cut(1), halve, empty, flip(1)], ids=["1", "half", "0", "size"])
def test_F25_weights_that_arrive_damaged_are_never_signed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = written(tmp_path, 5)
    damage(folder / WEIGHTS)
    with pytest.raises(ValueError):
        publish(folder)
    assert not (folder / MANIFEST).exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_F25_a_safetensors_file_cut_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_file({"a": torch.ones(3, 5), "b": torch.ones(2, dtype=torch.bfloat16)}, path)
    check_header(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError):
        check_header(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError):
        check_header(path)


def test_a_damaged_manifest_signs_nothing(tmp_path: Path) -> None:
    older, newer = signed(tmp_path, 5, 10)
    (newer / MANIFEST).write_text("[]", encoding="utf-8")
    assert newest(tmp_path) == older


def test_several_broken_ones_in_a_row_are_passed_over(tmp_path: Path) -> None:
    good, *broken = signed(tmp_path, 1, 2, 3)
    for folder in broken:
        (folder / "optimizer.pt").unlink()
    assert newest(tmp_path) == good
    written(tmp_path, 3)  # the run comes to step 3 again, and is killed again
    assert newest(tmp_path) == good
    assert names(tmp_path) == {"checkpoint-1", "broken-checkpoint-2", "broken-checkpoint-3"}


# -- rotation ---------------------------------------------------------------------------------------------------------


def test_F56_what_is_kept_goes_by_step_whatever_the_clock_said(tmp_path: Path) -> None:
    folders = signed(tmp_path, 50, 100, 150, 200)
    for age, folder in enumerate(folders):  # the clock went back an hour with every save
        moment = 2_000_000_000 - 3600 * age
        os.utime(folder, (moment, moment))
    rotate(tmp_path, keep=2)
    assert names(tmp_path) == {"checkpoint-150", "checkpoint-200"}
    assert newest(tmp_path) == folders[-1]


def test_a_partial_checkpoint_never_pushes_a_complete_one_out(tmp_path: Path) -> None:
    """With transformers' own rotation the partial 200 stays and the complete 100 goes."""
    signed(tmp_path, 100, 150)
    written(tmp_path, 200)
    rotate(tmp_path, keep=1)
    assert names(tmp_path) == {"checkpoint-150", "checkpoint-200"}
    assert newest(tmp_path) == tmp_path / "checkpoint-150"


def test_the_best_one_is_kept_beside_the_newest(tmp_path: Path) -> None:
    signed(tmp_path, 10, 20, 30, 40)
    rotate(tmp_path, keep=1, best=20)
    assert names(tmp_path) == {"checkpoint-20", "checkpoint-40"}


def test_F05_a_kill_while_deleting_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed(tmp_path, 10, 20)

    def killed(path: Path, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate(tmp_path, keep=1)
    assert verify(tmp_path / "checkpoint-10") is not None
    shutil.rmtree(tmp_path / "checkpoint-20")
    assert newest(tmp_path) is None


# -- folders that are published ---------------------------------------------------------------------------------------


def test_a_folder_gets_its_name_with_all_that_is_in_it(tmp_path: Path) -> None:
    staging, target = tmp_path / "staging", tmp_path / "target"
    (staging / "inner").mkdir(parents=True)
    (staging / "inner" / "file").write_text("whole", encoding="utf-8")
    publish_folder(staging, target)
    assert (target / "inner" / "file").read_text(encoding="utf-8") == "whole"
    assert not staging.exists()


def test_F21_nothing_is_published_that_the_disk_didnt_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(handle: int) -> None:
        raise OSError(5, "Input/output error")

    folder = written(tmp_path, 5)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output"):
            publish(folder)
        with pytest.raises(OSError, match="Input/output"):
            publish_folder(folder, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert newest(tmp_path) is None
