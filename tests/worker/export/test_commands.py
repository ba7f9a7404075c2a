"""`studio export` and `studio merge` as a person types them, with real workers; and a disk that is really small."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from studio.core.job import JobFolder
from studio.workspace.home import exports_dir, runs_dir
from tests.worker.conftest import MakeRun
from tests.worker.export.made import files_of, laid_over, make_adapter
from tests.worker.export.test_jobs import MakeJob, end_of, make_job, wide
from tests.worker.test_export import hashes

__all__ = ["make_job"]
Base = Callable[..., Path]
ROOT = Path(__file__).parents[3]
LORA = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}


def studio(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "studio", *(str(word) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


def test_an_export_prints_where_it_is_and_whether_it_is_the_same_model(
    make_run: MakeRun, in_process: Callable[[JobFolder], int], tmp_path: Path
) -> None:
    trained = make_run(training={"max_steps": 4})
    assert in_process(trained) == 0
    shutil.copytree(trained.path, runs_dir() / "a-run")
    before = hashes(runs_dir() / "a-run")
    done = studio("export", "a-run", "--format", "merged", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert {"path", "bytes", "seconds", "peak_rss", "parity"} <= answer.keys()
    assert answer["path"] == str(tmp_path / "out")
    assert answer["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert answer["parity"]["same"] is True
    assert answer["parity"]["max_logit_diff"] < 1e-3 and answer["parity"]["greedy_match"] == 1
    assert hashes(runs_dir() / "a-run") == before


def test_an_adapter_from_elsewhere_is_merged(base: Base, tmp_path: Path) -> None:
    """How several become one is `test_jobs`'; how that is asked for, the next test's."""
    adapter = make_adapter(base("llama"), tmp_path / "adapter", LoraConfig(**LORA))
    done = studio("merge", base("llama"), adapter, "--out", tmp_path / "out", "--no-parity", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(tmp_path / "out")
    right = laid_over(base("llama"), adapter).merge_and_unload().state_dict()
    for key, value in files_of(tmp_path / "out").items():
        torch.testing.assert_close(value, right[key], rtol=1e-4, atol=1e-4, msg=key)


def test_several_are_asked_for_with_their_weights(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as it is typed, as far as the worker's job; how they become one is `test_jobs`'."""
    from studio import cli, cli_export
    from studio.workspace.supervisor import Supervisor

    asked: list[Path] = []
    monkeypatch.setattr(Supervisor, "_watch", lambda self, folder, anew=False: None)
    monkeypatch.setattr(cli_export, "_follow_export", lambda supervisor, job, as_json: asked.append(job.folder.path))
    adapters = [make_adapter(base("llama"), tmp_path / f"a{n}", LoraConfig(**LORA), seed=n) for n in range(2)]
    words = ["--out", str(tmp_path / "out"), "--weights", "0.5,0.25", "--combination", "ties", "--density", "0.3"]
    monkeypatch.setattr(sys, "argv", ["studio", "merge", str(base("llama")), *map(str, adapters), *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    where = json.loads((asked[0] / "source.json").read_text(encoding="utf-8"))
    assert [where["output"], *where["others"]] == [str(path) for path in adapters]
    assert (where["weights"], where["combination"], where["density"]) == ([0.5, 0.25], "ties", 0.3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["merge", "BASE", "nowhere", "--out", "OUT"], "nowhere holds no adapter"),
        (["merge", "no-such-base", "ADAPTER", "--out", "OUT"], "no model 'no-such-base'"),
        (["merge", "BASE", "ADAPTER", "--out", "OUT", "--weights", "1,2"], "2 weights for 1 adapters"),
        (["merge", "BASE", "ADAPTER", "--out", "OUT", "--combination", "soup"], "combination"),
        (["merge", "BASE", "ADAPTER", "--out", "BASE"], "isn't empty"),
        (["export", "no-run", "--out", "OUT"], "no run 'no-run'"),
        (["export", "no-run", "--out", "OUT", "--format", "onnx"], "format"),
        (["export", "no-run", "--out", "OUT", "--format", "merged", "--quantization", "q8_0"], "merged has none"),
        (["export", "no-run", "--out", "OUT", "--format", "gguf", "--quantization", "nf4"], "gguf knows f32"),
    ],
)
def test_what_cant_be_is_refused_at_once(
    base: Base,
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from studio import cli

    adapter = make_adapter(base("llama"), tmp_path / "adapter", LoraConfig(**LORA))
    names = {"BASE": str(base("llama")), "ADAPTER": str(adapter), "OUT": str(tmp_path / "out")}
    monkeypatch.setattr(sys, "argv", ["studio", *(names.get(word, word) for word in words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (1, 2)
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not list(exports_dir().iterdir())
    assert not (tmp_path / "out").exists()


def test_F47_another_base_of_the_same_shape_is_warned_of(base: Base, tmp_path: Path) -> None:
    adapter = make_adapter(base("llama"), tmp_path / "adapter", LoraConfig(**LORA))
    other = Path(shutil.copytree(base("llama"), tmp_path / "another"))
    done = studio("merge", other, adapter, "--out", tmp_path / "out", "--no-parity")
    assert done.returncode == 0
    assert "names" in done.stderr and "another" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting isn't allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_F22_a_disk_that_is_too_small_is_refused_before(base: Base, tmp_path: Path, small_disk: Path) -> None:
    from tests.tiny import make_tiny_llama

    large = make_tiny_llama(tmp_path / "large", hidden_size=512, intermediate_size=2048, tied=False)
    adapter = make_adapter(large, tmp_path / "adapter", LoraConfig(**LORA))
    done = studio("merge", large, adapter, "--out", small_disk / "out", "--no-parity", "--json")
    assert done.returncode == 1
    assert "free, and the export needs" in done.stderr
    assert not list(small_disk.iterdir())
    assert done.stdout == ""


def test_F22_a_disk_that_fills_up_while_it_is_written(
    make_job: MakeJob,
    in_process: Callable[[JobFolder], int],
    tmp_path: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There was room for all of it; then somebody else took most of that."""
    from studio.worker.export.task import Export

    base, adapter = wide(tmp_path)
    before = hashes(base, adapter)
    theirs = small_disk / "theirs"
    report = Export._report

    def and_somebody_else_writes(task: Export, text: str, done: int, total: int) -> None:
        if not theirs.exists():
            theirs.write_bytes(bytes(12 * 2**20))
        report(task, text, done, total)

    monkeypatch.setattr(Export, "_report", and_somebody_else_writes)
    job = make_job(base, adapter, dtype="bfloat16", out=str(small_disk / "out"))
    assert in_process(job) == 1
    assert "filled up" in end_of(job).cause
    assert list(small_disk.iterdir()) == [theirs]
    assert hashes(base, adapter) == before
