"""A worker's side of a run: one true end, whatever happens to it, and never a lost checkpoint.

Runs are done here in this process where a test has to reach into them, in fresh ones where they are killed or resumed,
and once through the supervisor and `python -m studio.worker`, as the studio does it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.core.configfile import parse_config, read_yaml
from studio.core.events import CheckpointSaved, Ended, Event, Metrics, Note, Stage
from studio.core.job import EventLog, EventTail, JobFolder, read_json
from studio.core.progress import Progress, derive
from studio.worker import checkpoints, logfile, train
from studio.worker.callback import StudioCallback
from studio.worker.job import Job, explain
from studio.worker.trainers.compact import CompactSFTTrainer
from studio.workspace.supervisor import Supervisor
from tests.tiny import tiny_rows, write_rows
from tests.worker.conftest import MakeRun
from tests.worker.forks import PATIENCE, Fork

InProcess = Callable[[JobFolder], int]
StartFork = Callable[..., Fork]
LAST = 10


def events(job: JobFolder) -> list[Event]:
    return list(EventTail(job.events).read())


def ends(job: JobFolder) -> list[Ended]:
    return [event for event in events(job) if isinstance(event, Ended)]


def folded(job: JobFolder) -> Progress:
    progress = Progress()
    for event in events(job):
        progress.fold(event)
    return progress


def only_end(job: JobFolder) -> Ended:
    (end,) = ends(job)
    assert events(job)[-1] is not end and events(job)[-1] == end  # the last word
    return end


def weights(job: JobFolder) -> dict[str, torch.Tensor]:
    return load_file(job.adapter / "adapter_model.safetensors")


def steps(job: JobFolder) -> list[int]:
    return [step for step, _ in folded(job).series["loss"]]


def let_go_on(job: JobFolder) -> None:
    """What the supervisor does to a run's folder so that another worker may take it."""
    number = (read_json(job.process) or {})["attempt"]
    job.stop.unlink(missing_ok=True)
    job.process.rename(job.path / f"process-{number}.json")


def wait_until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.01)


def wait_for_step(job: JobFolder, step: int) -> None:
    wait_until(lambda: folded(job).step >= step, f"step {step}")


@pytest.fixture(scope="module")
def uninterrupted(make_run: MakeRun, zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """A run of ten steps that nothing happened to."""
    job = make_run()
    log = tmp_path_factory.mktemp("log") / "log"
    assert zygote.start("tests.worker.forks:run_job", job.path, log=log).wait() == 0, log.read_text()
    return job


def assert_same_run(job: JobFolder, other: JobFolder) -> None:
    torch.testing.assert_close(weights(job), weights(other), rtol=0, atol=0)
    assert steps(job) == list(range(1, LAST + 1))
    for name in ("loss", "learning_rate", "grad_norm"):
        assert folded(job).series[name] == folded(other).series[name]
    # A run that is asked to stop doesn't evaluate any more.
    assert set(folded(job).series["eval_loss"]) <= set(folded(other).series["eval_loss"])


# -- a run that nothing happens to ------------------------------------------------------------------------------------


def test_a_run_ends_with_an_adapter_and_says_what_it_did(uninterrupted: JobFolder) -> None:
    end = only_end(uninterrupted)
    assert (end.status, end.cause) == ("finished", "")
    assert end.result["steps"] == LAST
    assert Path(end.result["output"]) == uninterrupted.adapter
    assert end.result["tokens"] > 0 < end.result["seconds"]
    names = [event.name for event in events(uninterrupted) if isinstance(event, Stage)]
    ordered = [name for i, name in enumerate(names) if name not in names[:i]]
    assert ordered == ["starting", "data", "model", "trainer", "train", "save"]
    assert steps(uninterrupted) == list(range(1, LAST + 1))
    assert [step for step, _ in folded(uninterrupted).series["eval_loss"]] == [4, 8, LAST]
    saved = [event for event in events(uninterrupted) if isinstance(event, CheckpointSaved)]
    assert [event.step for event in saved] == [4, 8, LAST]
    assert {path.name for path in uninterrupted.checkpoints.glob("*-*")} == {"checkpoint-8", "checkpoint-10"}
    metrics = [event for event in events(uninterrupted) if isinstance(event, Metrics)]
    assert all(event.max_steps == LAST for event in metrics)
    assert [event.elapsed for event in metrics] == sorted(event.elapsed for event in metrics)
    assert not list(uninterrupted.path.glob(".*"))  # nothing half-made is left


def test_the_tokenizer_travels_with_the_adapter(uninterrupted: JobFolder, tiny_model: Path) -> None:
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (uninterrupted.adapter / name).read_text() == (tiny_model / name).read_text()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_saved_adapter_is_what_was_trained(
    make_run: MakeRun,
    in_process: InProcess,
    fork: StartFork,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantization: str,
) -> None:
    """Plain PEFT in a fresh process computes with it what the trainer's own model computes."""
    built: list[Any] = []
    build = train.build_trainer
    monkeypatch.setattr(train, "build_trainer", lambda *wishes: built.append(build(*wishes)) or built[-1])
    job = make_run(loading={"quantization": quantization})
    assert in_process(job) == 0
    model = built[0].model.eval()
    trained = {name.replace(".default", ""): v for name, v in model.state_dict().items() if ".lora_" in name}
    torch.testing.assert_close(weights(job), trained, rtol=0, atol=0)
    if quantization == "none":
        ids = list(range(10, 60))
        assert fork("tests.worker.forks:logits", tiny_model, job.adapter, ids, tmp_path / "out").wait() == 0
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).logits[0]
            with model.disable_adapter():
                base = model(input_ids=torch.tensor([ids])).logits[0]
        torch.testing.assert_close(load_file(tmp_path / "out")["logits"], expected, rtol=1e-5, atol=1e-5)
        assert (expected - base).abs().max() > 0.1


def test_a_full_run_leaves_a_whole_model(
    make_run: MakeRun, in_process: InProcess, fork: StartFork, tiny_model: Path, tmp_path: Path
) -> None:
    job = make_run(adapter=None)
    assert in_process(job) == 0
    assert Path(only_end(job).result["output"]) == job.model
    ids = list(range(10, 60))
    for folder, out in ((job.model, "tuned"), (tiny_model, "base")):
        assert fork("tests.worker.forks:logits", folder, "", ids, tmp_path / out).wait() == 0
    tuned, base = (load_file(tmp_path / out)["logits"] for out in ("tuned", "base"))
    assert (tuned - base).abs().max() > 0.1


def test_what_became_of_the_rows_is_told(make_run: MakeRun, in_process: InProcess) -> None:
    rows = [*tiny_rows(20), {"messages": []}, {"messages": [{"role": "user", "content": "hello"}]}]
    job = make_run(rows, training={"max_steps": 1, "max_length": 40})
    assert in_process(job) == 0
    told = [event.text for event in events(job) if isinstance(event, Note) and event.level == "warning"]
    assert any("line 21" in text for text in told)
    assert any("line 22" in text for text in told)
    assert any("over 40 tokens and were cut" in text for text in told)
    data = read_json(job.path / "data.json") or {}
    assert (data["rows"], data["usable"]) == (22, 20 - data["without_loss"])


def test_what_auto_came_to_is_told(uninterrupted: JobFolder) -> None:
    (told,) = [event.text for event in events(uninterrupted) if isinstance(event, Note) and event.level == "info"]
    assert "on cpu, weights in float32, attention sdpa, gradient checkpointing off" in told


# -- stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 6])
def test_F29_a_run_that_was_stopped_goes_on_as_if_it_hadnt_been(
    make_run: MakeRun, fork: StartFork, uninterrupted: JobFolder, step: int
) -> None:
    job = make_run()
    assert fork("tests.worker.forks:run_job_until", job.path, step).wait() == 0
    stopped = only_end(job)
    assert stopped.status == "stopped"
    assert f"Stopped at step {step + 1} of {LAST}" in stopped.cause  # it was asked while it logged the step before
    assert checkpoints.newest(job.checkpoints) == job.checkpoints / f"checkpoint-{step + 1}"
    assert not job.adapter.exists()
    let_go_on(job)
    assert fork("tests.worker.forks:run_job", job.path).wait() == 0
    assert [end.status for end in ends(job)] == ["stopped", "finished"]
    assert (folded(job).attempt, ends(job)[-1].result["steps"]) == (2, LAST)
    assert_same_run(job, uninterrupted)


@pytest.mark.parametrize(
    "sections",
    [
        {"adapter": None},
        {"training": {"packing": True, "max_length": 128}},
        {"training": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "max_steps": 7}},
    ],
    ids=["full", "packing", "accumulation"],
)
def test_F29_other_kinds_of_runs_go_on_too(make_run: MakeRun, fork: StartFork, sections: dict[str, Any]) -> None:
    whole, halved = (make_run(**{name: dict(v) if v else v for name, v in sections.items()}) for _ in range(2))
    running = fork("tests.worker.forks:run_job", whole.path)
    assert fork("tests.worker.forks:run_job_until", halved.path, 2).wait() == 0
    let_go_on(halved)
    assert fork("tests.worker.forks:run_job", halved.path).wait() == 0
    assert running.wait() == 0
    name = "model/model.safetensors" if "adapter" in sections else "adapter/adapter_model.safetensors"
    torch.testing.assert_close(load_file(halved.path / name), load_file(whole.path / name), rtol=0, atol=0)
    assert folded(halved).series["loss"] == folded(whole).series["loss"]


def test_F10_a_worker_that_is_asked_to_end_saves_first(make_run: MakeRun, fork: StartFork) -> None:
    job = make_run(training={"max_steps": 100_000, "save_steps": 50_000})
    worker = fork("tests.worker.forks:run_job", job.path)
    wait_for_step(job, 2)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert only_end(job).status == "stopped"
    saved = checkpoints.newest(job.checkpoints)
    assert saved is not None
    assert checkpoints.step_of(saved) == folded(job).checkpoints[-1].step >= 2


def test_F01_a_killed_worker_leaves_its_last_complete_checkpoint(make_run: MakeRun, fork: StartFork) -> None:
    job = make_run(training={"max_steps": 100_000, "save_steps": 3, "eval_steps": 50_000})
    worker = fork("tests.worker.forks:run_job", job.path)
    wait_until(lambda: len(folded(job).checkpoints) >= 2, "a second checkpoint")
    worker.signal(signal.SIGKILL)
    code = worker.wait()
    assert not ends(job)
    state = derive(folded(job), process=read_json(job.process), alive=False, stop_asked=False, exit={"code": code})
    assert (state.status, "killed (9)" in state.cause) == ("failed", True)
    last = folded(job).checkpoints[-1].step
    saved = checkpoints.newest(job.checkpoints)
    assert saved is not None
    assert checkpoints.step_of(saved) >= last  # it may have been killed between signing a checkpoint and telling of it
    let_go_on(job)
    resumed = checkpoints.step_of(saved)
    assert fork("tests.worker.forks:run_job_until", job.path, resumed + 2).wait() == 0
    progress = folded(job)
    assert progress.attempt == 2
    assert steps(job) == list(range(1, resumed + 4))
    assert any(f"checkpoint of step {resumed}" in note.text for note in progress.notes)


def touch_stop_at_once(patch: pytest.MonkeyPatch, job: JobFolder) -> None:
    job.stop.touch()


def touch_stop_at(name: str) -> Callable[[pytest.MonkeyPatch, JobFolder], None]:
    """A barrier: the stop is asked for when the stage of that name is told."""

    def arrange(patch: pytest.MonkeyPatch, job: JobFolder) -> None:
        said = Job.stage

        def stage(self: Job, stage: str, *words: Any, **more: Any) -> None:
            said(self, stage, *words, **more)
            if stage == name:
                job.stop.touch()

        patch.setattr(Job, "stage", stage)

    return arrange


def touch_stop_in_evaluation(patch: pytest.MonkeyPatch, job: JobFolder) -> None:
    patch.setattr(StudioCallback, "on_prediction_step", lambda *_, **__: job.stop.touch())


def touch_stop_in_save(patch: pytest.MonkeyPatch, job: JobFolder) -> None:
    sign = checkpoints.publish
    patch.setattr(checkpoints, "publish", lambda folder: (job.stop.touch(), sign(folder)))


def touch_stop_at_last_step(patch: pytest.MonkeyPatch, job: JobFolder) -> None:
    seen = StudioCallback.on_step_begin

    def on_step_begin(self: StudioCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seen(self, args, state, control, **kwargs)
        if state.global_step == LAST - 1:
            job.stop.touch()

    patch.setattr(StudioCallback, "on_step_begin", on_step_begin)


@pytest.mark.parametrize(
    ("arrange", "status", "saved"),
    [
        (touch_stop_at_once, "stopped", None),
        (touch_stop_at("data"), "stopped", None),
        (touch_stop_at("model"), "stopped", None),
        (touch_stop_at("trainer"), "stopped", 1),
        (touch_stop_in_evaluation, "stopped", 5),
        (touch_stop_in_save, "stopped", 5),
        (touch_stop_at_last_step, "finished", LAST),
        (touch_stop_at("save"), "finished", LAST),
    ],
    ids=["start", "data", "model", "trainer", "eval", "checkpoint", "last-step", "saving"],
)
def test_F11_a_stop_at_any_moment_ends_in_one_state(
    make_run: MakeRun,
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[pytest.MonkeyPatch, JobFolder], None],
    status: str,
    saved: int | None,
) -> None:
    job = make_run()
    arrange(monkeypatch, job)
    assert in_process(job) == 0
    assert job.stop.exists()
    assert only_end(job).status == status
    newest = checkpoints.newest(job.checkpoints)
    assert (checkpoints.step_of(newest) if newest else None) == saved
    assert job.adapter.exists() == (status == "finished")
    state = derive(folded(job), process=read_json(job.process), alive=False, stop_asked=True, exit={"code": 0})
    assert state.status == status


# -- checkpoints that were damaged ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(make_run: MakeRun, zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], JobFolder]:
    """Runs that stopped at step 6 of 10, with checkpoints of steps 4 and 6; the first is copied for all others."""
    log = tmp_path_factory.mktemp("log") / "log"
    first = make_run()
    assert zygote.start("tests.worker.forks:run_job_until", first.path, 5, log=log).wait() == 0, log.read_text()
    let_go_on(first)

    def copy() -> JobFolder:
        return JobFolder(shutil.copytree(first.path, tmp_path_factory.mktemp("copy") / "run"))

    return copy


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[12] ^= 1  # in the header
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        pytest.param("manifest.json", Path.unlink, id="F02-F03-unsigned"),
        pytest.param("adapter_model.safetensors", cut, id="F25-cut"),
        pytest.param("adapter_model.safetensors", flip, id="F25-flipped"),
        pytest.param("trainer_state.json", Path.unlink, id="F26-state-missing"),
        pytest.param("optimizer.pt", Path.unlink, id="F27-optimizer-missing"),
    ],
)
@pytest.mark.parametrize("spared", [4, None])
def test_F02_F03_F25_F26_F27_a_damaged_checkpoint_is_passed_over(
    stopped: Callable[[], JobFolder],
    in_process: InProcess,
    uninterrupted: JobFolder,
    file: str,
    damage: Callable[[Path], None],
    spared: int | None,
) -> None:
    """The run goes on from the one before, or from the start, and comes to where it would have come anyway."""
    job = stopped()
    for step in (4, 6):
        if step != spared:
            damage(job.checkpoints / f"checkpoint-{step}" / file)
    assert in_process(job) == 0
    assert folded(job).attempt == 2
    starts = [event for event in events(job) if isinstance(event, Stage) and event.name == "starting"]
    assert [start.from_step for start in starts] == [0, spared or 0]
    assert (job.checkpoints / "broken-checkpoint-6").is_dir()
    told = [event.text for event in events(job) if isinstance(event, Note)]
    assert any("of step 4" in text for text in told) == (spared == 4)
    assert_same_run(job, uninterrupted)


class Evil:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "extra.pkl"])
def test_S13_a_pickle_among_a_checkpoints_files_is_never_run(
    stopped: Callable[[], JobFolder], in_process: InProcess, tmp_path: Path, file: str
) -> None:
    """Signed, as by somebody who knows how: only refusing to unpickle code helps."""
    job, mark = stopped(), tmp_path / "mark"
    checkpoint = job.checkpoints / "checkpoint-6"
    evil = pickle.dumps(Evil(mark))
    (checkpoint / file).write_bytes(evil)
    checkpoints.publish(checkpoint)
    code = in_process(job)
    assert not mark.exists()
    if file in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert (code, ends(job)[-1].status) == (1, "failed")
        assert checkpoint.is_dir()
    pickle.loads(evil)
    assert mark.exists()  # it would have worked


def test_F28_a_run_whose_data_changed_is_refused(stopped: Callable[[], JobFolder], in_process: InProcess) -> None:
    job = stopped()
    inputs = read_json(job.inputs) or {}
    changed = write_rows(job.path / "other.jsonl", tiny_rows(24, turns=2, seed=9))
    inputs["dataset"]["path"] = str(changed)
    job.inputs.write_text(json.dumps(inputs), encoding="utf-8")
    assert in_process(job) == 1
    assert ends(job)[-1].status == "failed"
    assert "The dataset has changed since this run began (sha256 was" in ends(job)[-1].cause
    assert checkpoints.newest(job.checkpoints) == job.checkpoints / "checkpoint-6"


# -- runs that fail ---------------------------------------------------------------------------------------------------


def test_F40_where_no_row_has_loss_the_run_is_refused(make_run: MakeRun, in_process: InProcess) -> None:
    asked = [{"role": "user", "content": "boats " * 40}, {"role": "assistant", "content": "yes"}]
    job = make_run([{"messages": asked}] * 5, training={"max_length": 32})
    assert in_process(job) == 1
    assert only_end(job).status == "failed"
    assert "0 usable rows of 5" in only_end(job).cause
    assert not job.checkpoints.exists()


def test_F41_a_base_that_isnt_a_number_fails_at_the_first_step(
    make_run: MakeRun, in_process: InProcess, tiny_model: Path, tmp_path: Path
) -> None:
    poisoned = shutil.copytree(tiny_model, tmp_path / "poisoned")
    tensors = load_file(poisoned / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, poisoned / "model.safetensors", metadata={"format": "pt"})
    job = make_run(model=poisoned)
    assert in_process(job) == 1
    end = only_end(job)
    assert (end.status, end.hint != "") == ("failed", True)
    assert "stopped being a number at step 1" in end.cause
    assert math.isnan(folded(job).series["loss"][0][1])  # shown, not smoothed away
    assert checkpoints.newest(job.checkpoints) is None


@pytest.mark.parametrize("logging", [1, 5, 100])
@pytest.mark.parametrize("poison", [5, 6])
def test_F41_a_good_checkpoint_outlives_a_loss_that_is_no_number(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, logging: int, poison: int
) -> None:
    """However seldom the loss is logged, nothing that is no number is saved, let alone in a good one's place."""
    stepped = CompactSFTTrainer.training_step

    def training_step(self: Any, *inputs: Any, **more: Any) -> Any:
        if self.state.global_step == poison - 1:
            weight = next(p for name, p in self.model.named_parameters() if "lora_B" in name)
            weight.data[0, 0] = float("inf")
        return stepped(self, *inputs, **more)

    monkeypatch.setattr(CompactSFTTrainer, "training_step", training_step)
    job = make_run(training={"logging_steps": logging, "save_steps": 2, "save_total_limit": 1})
    assert in_process(job) == 1
    assert only_end(job).status == "failed"
    assert "stopped being a number at step" in only_end(job).cause
    saved = checkpoints.newest(job.checkpoints)
    assert saved == job.checkpoints / "checkpoint-4"
    assert all(torch.isfinite(v).all() for v in load_file(saved / "adapter_model.safetensors").values())


def test_F17_where_memory_runs_out_the_run_says_so_and_can_go_on(
    make_run: MakeRun,
    in_process: InProcess,
    fork: StartFork,
    uninterrupted: JobFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stepped = CompactSFTTrainer.training_step

    def training_step(self: Any, *inputs: Any, **more: Any) -> Any:
        if self.state.global_step == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return stepped(self, *inputs, **more)

    job = make_run()
    advice = {"change": {"training.per_device_train_batch_size": 1}, "saves": 3 << 30, "cost": "same result"}
    job.estimate.write_text(json.dumps({"advice": [advice]}), encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(CompactSFTTrainer, "training_step", training_step)
        assert in_process(job) == 1
    end = only_end(job)
    assert (end.status, "out of memory" in end.cause) == ("failed", True)
    assert "training.per_device_train_batch_size = 1 (saves 3.0 GB; same result)" in end.hint
    let_go_on(job)
    assert fork("tests.worker.forks:run_job", job.path).wait() == 0
    assert_same_run(job, uninterrupted)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full."),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/rows.jsonl"), "/data/rows.jsonl"),
        (KeyError("weight"), "KeyError: 'weight'"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_F17_errors_are_put_in_plain_words_with_a_next_step(error: BaseException, said: str) -> None:
    cause, hint = explain(error)
    assert said in cause
    assert hint


@pytest.mark.parametrize("names", [(Metrics,), (Metrics, Stage, Note, CheckpointSaved)])
def test_F19_a_run_whose_points_cant_be_written_goes_on(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, names: tuple[type, ...]
) -> None:
    append = EventLog.append

    def full(self: EventLog, event: Event) -> None:
        if isinstance(event, names):
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, event)

    monkeypatch.setattr(EventLog, "append", full)
    job = make_run(training={"max_steps": 2})
    assert in_process(job) == 0
    assert only_end(job).status == "finished"
    assert weights(job)


def test_F24_a_run_whose_folder_is_deleted_says_so_and_makes_no_other(
    make_run: MakeRun, fork: StartFork, tmp_path: Path
) -> None:
    job = make_run(training={"max_steps": 100_000, "save_steps": 50_000})
    worker = fork("tests.worker.forks:run_job", job.path)
    wait_for_step(job, 2)
    gone = JobFolder(job.path.rename(tmp_path / "gone"))  # at one blow, and its log can still be read
    assert worker.wait() == 1
    assert not job.path.exists()
    assert "folder was removed" in only_end(gone).cause


# -- whose job it is --------------------------------------------------------------------------------------------------


def test_a_job_that_is_taken_is_left_alone(uninterrupted: JobFolder, in_process: InProcess) -> None:
    before = uninterrupted.events.read_bytes()
    assert in_process(uninterrupted) == 0
    assert uninterrupted.events.read_bytes() == before


def test_F53_of_many_workers_one_gets_the_job(make_run: MakeRun, fork: StartFork) -> None:
    job = make_run(training={"max_steps": 3})
    workers = [fork("tests.worker.forks:run_job", job.path) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert only_end(job).status == "finished"
    assert steps(job) == [1, 2, 3]
    record = read_json(job.process) or {}
    assert record["pid"] in [worker.pid for worker in workers]
    assert record["attempt"] == 1


def test_the_last_word_is_said_once(tmp_path: Path) -> None:
    job = Job.sign(tmp_path)
    assert job is not None
    job.end("finished")
    job.end("failed", "too late")
    assert [end.status for end in ends(JobFolder(tmp_path))] == ["finished"]


def test_repeated_reports_of_a_stage_are_thinned_out(tmp_path: Path) -> None:
    job = Job.sign(tmp_path)
    assert job is not None
    for done in range(1001):
        job.stage("fetch", "Downloading", done, 1000, "bytes")
    told = [event.done for event in events(JobFolder(tmp_path)) if isinstance(event, Stage)]
    assert told[0] == 0
    assert told[-1] == 1000
    assert len(told) < 100


# -- how well it learnt -----------------------------------------------------------------------------------------------


def taught(job: JobFolder, pattern: str, prompts: str) -> None:
    """Let the run's dataset say how taught answers look."""
    inputs = read_json(job.inputs) or {}
    (job.path / "heldout.jsonl").write_text(prompts, encoding="utf-8")
    inputs["dataset"] |= {"manner": pattern, "heldout": str(job.path / "heldout.jsonl")}
    job.inputs.write_text(json.dumps(inputs), encoding="utf-8")


def test_a_taught_manner_is_counted_for_the_run_and_its_base(make_run: MakeRun, in_process: InProcess) -> None:
    said = {"role": "assistant", "content": "good night"}
    rows = [{"messages": [row["messages"][-2], said]} for row in tiny_rows(40)]
    job = make_run(rows, training={"max_steps": 60, "save_steps": 60, "eval_steps": 60, "learning_rate": 2e-2})
    taught(
        job, "good night", "".join(json.dumps({"prompt": text}) + "\n" for text in ("hello", "one two", "a lazy dog"))
    )
    assert in_process(job) == 0
    shares = only_end(job).result["manner"]
    assert shares == {"prompts": 3, "run": 1.0, "base": 0.0}
    answers = (read_json(job.path / "evaluation" / "manner.json") or {})["answers"]
    assert [answer["run"].strip() for answer in answers] == ["good night"] * 3


def test_held_out_questions_that_cant_be_asked_dont_undo_a_run(make_run: MakeRun, in_process: InProcess) -> None:
    job = make_run(training={"max_steps": 1})
    taught(job, "(unclosed", '{"prompt": "hello"}\n')
    assert in_process(job) == 0
    assert only_end(job).status == "finished"
    assert "manner" not in only_end(job).result
    assert any("couldn't be asked" in note.text for note in folded(job).notes)


# -- the log ----------------------------------------------------------------------------------------------------------


def test_F60_a_log_that_grew_too_large_loses_its_oldest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LARGEST", 10_000)
    monkeypatch.setattr(logfile, "KEPT", 2_000)
    path = tmp_path / "worker.log"
    with path.open("ab", buffering=0) as writer:  # a process that appends, as a worker does
        for number in range(2000):
            writer.write(b"line %d\n" % number)
        logfile.trim(path)
        size = path.stat().st_size
        writer.write(b"after\n")
    lines = path.read_bytes().splitlines()
    assert size < 2_100
    assert lines[0] == b"[older lines dropped]"
    assert lines[-2:] == [b"line 1999", b"after"]
    first = int(lines[1].removeprefix(b"line "))
    assert lines[1:-1] == [b"line %d" % number for number in range(first, 2000)]


def test_F60_a_log_within_its_size_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"a line\n" * 100)
    logfile.trim(path)
    assert path.read_bytes() == b"a line\n" * 100


def test_F60_the_log_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LARGEST", 10_000)
    monkeypatch.setattr(logfile, "KEPT", 2_000)
    path = tmp_path / "worker.log"
    logfile.cap_log(path, every=0.01)
    for _ in range(3):  # also before there is a log, and again after it was cut
        with path.open("ab") as writer:
            writer.write((b"x" * 99 + b"\n") * 200)
        wait_until(lambda: path.stat().st_size <= 2_100, "the cut")


# -- as the studio does it --------------------------------------------------------------------------------------------


def test_a_run_through_the_supervisor_and_a_worker_of_its_own(
    tiny_model: Path, dataset: Callable[..., Any], studio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = dataset(tiny_rows(24, turns=2))
    config = parse_config(
        {
            "model": {"name_or_path": str(tiny_model), "dtype": "float32"},
            "dataset": {"path": source.path},
            "training": {"max_steps": 3, "logging_steps": 1, "save_steps": 2},
            "hardware": {"device": "cpu"},
        }
    )
    supervisor = Supervisor()
    try:
        run_id = supervisor.submit(config, "My first run")
        wait_until(lambda: not supervisor.runs.get(run_id).live, "the end")
        run = supervisor.runs.get(run_id)
        log = run.folder.log.read_text(encoding="utf-8")
        assert (run.state.status, run.state.cause) == ("finished", ""), log
        assert run.output == run.folder.adapter
        assert run.label == "My first run"
        config.dataset.exclude = []  # what the dataset leaves out, written down
        assert parse_config(read_yaml(run.folder.run_config)) == config
        assert [step for step, _ in run.progress.series["loss"]] == [1, 2, 3]
        wait_until(run.folder.exit.exists, "the exit code")
        assert (read_json(run.folder.exit) or {})["code"] == 0
        assert "Traceback" not in log
    finally:
        supervisor.close()
