"""A training run, from top to bottom: load -> data -> trainer -> train -> save -> say how it went.

In: a Job whose folder holds run.yaml and inputs.json. Out: adapter/ or model/, checkpoints, events. Each step's how
is in the module that it calls.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from studio.core.config import RunConfig
from studio.core.configfile import parse_config, read_yaml
from studio.core.fitting import SHAPES, longest_row
from studio.core.inputs import Inputs
from studio.core.work import work_kind
from studio.worker import checkpoints
from studio.worker.adapters.laying import as_saved, save_adapter, with_folder
from studio.worker.callback import StudioCallback, evaluated
from studio.worker.data.prepare import READING, READING_HELD, Prepared, has_changed, prepare
from studio.worker.data.report import check_same_data
from studio.worker.device import Setup, resolve
from studio.worker.encode import Encoder
from studio.worker.holding import settle_allocator
from studio.worker.job import Job, Stopped
from studio.worker.manner import manner_shares
from studio.worker.measure import Measure
from studio.worker.models import fetch, load_model, load_tokenizer
from studio.worker.origin import keep_origin
from studio.worker.ratefinder import RateFinder
from studio.worker.trainers.build import build_trainer


def train(job: Job) -> None:
    """Do the run. Raises StudioError, Stopped; whatever else it raises is explained by `job.explain`."""
    try:
        _train(job)
    finally:  # the encoded rows may be as large as the data, and a resumed run encodes them again
        shutil.rmtree(_rows_folder(job), ignore_errors=True)


def _train(job: Job) -> None:
    inputs = Inputs.read(job.folder.inputs)
    config = with_folder(parse_config(read_yaml(job.folder.run_config)), inputs.adapter)
    resume = checkpoints.newest(job.folder.checkpoints)
    job.starting(checkpoints.step_of(resume) if resume else 0)
    if resume:
        job.note("info", f"Going on from the checkpoint of step {checkpoints.step_of(resume)}.")

    measure = Measure(job.folder)
    settle_allocator(config)
    setup = resolve(config)
    measure.on(setup.device, setup.weights, work_kind(config, setup.device.type))
    transformers.set_seed(config.training.seed)
    folder = fetch(inputs.model, lambda text, done, total: job.stage("fetch", text, done, total, "bytes"))
    job.model = folder
    job.check_stop()

    data, tokenizer = _load_data(job, config, inputs, folder)
    job.check_stop()
    job.stage("model", "Loading the model")
    model = load_model(folder, config.model, setup, scores=config.method.name == "reward")
    measure.mark("loaded")
    job.check_stop()

    job.stage("trainer", "Preparing the trainer")
    trainer = build_trainer(config, setup, model, tokenizer, data, job.folder.checkpoints, inputs, partial(_tell, job))
    callback = StudioCallback(job, config.training.save_total_limit, lambda: trainer.tokens_seen, measure)
    trainer.remove_callback(PrinterCallback)  # its prints would fill the log with what the events say
    trainer.add_callback(callback)
    finder = RateFinder.over(trainer, config) if config.training.find_learning_rate else None
    _describe(job, setup, trainer)

    began = time.monotonic()
    outcome = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    seconds = time.monotonic() - began
    measure.finish()
    if has_changed(inputs.dataset, data.state):
        job.note("warning", "The dataset has changed during the run, which learnt from what it was at the start.")
    if callback.stopped:
        step = trainer.state.global_step
        job.end("stopped", f"Stopped at step {step} of {trainer.state.max_steps}; a checkpoint was saved.", _RESUME)
        return
    if finder is not None:
        job.end("finished", result=finder.result())
        return
    job.stage("save", "Saving what was learnt")
    output = _save(job, config, trainer, tokenizer)
    if not config.saves_model:
        keep_origin(folder, inputs.model, output)
    result = _result(output, outcome, trainer, seconds, setup, measure)
    learnt = partial(as_saved, config, trainer.model, output, job.folder.checkpoints)
    result |= _check_manner(job, inputs, learnt, tokenizer)
    job.end("finished", result=result)


_RESUME = "Resume goes on from there."


def _tell(job: Job, text: str, done: int | None, total: int | None) -> None:
    """How far long work before training is; a stop ends it."""
    job.check_stop()
    job.stage("trainer", text, done, total, "batches")


def _rows_folder(job: Job) -> Path:
    """Where the encoded rows lie while the run lasts."""
    return job.folder.path / "rows"


def _load_data(job: Job, config: RunConfig, inputs: Inputs, folder: Path) -> tuple[Prepared, Any]:
    job.stage("data", "Reading the dataset")
    tokenizer = load_tokenizer(folder)
    knobs = config.training

    def progress(text: str, done: int | None, total: int | None) -> None:
        job.check_stop()
        job.stage("data", text, done, total, "rows" if text in (READING, READING_HELD) else "")

    data = prepare(
        config.dataset,
        inputs.dataset,
        encoder_for(config, tokenizer),
        max_length=longest_row(config),
        seed=knobs.seed,
        progress=progress,
        validation=inputs.validation,
        folder=_rows_folder(job),
        method=config.method.name,
    )
    check_same_data(job.folder.path, data.report)
    data.membership.save(job.folder.path)
    for text in data.report.notes(knobs.max_length):
        job.note("warning", text)
    return data, tokenizer


def encoder_for(config: RunConfig, tokenizer: Any) -> Encoder:
    """Which tokens carry loss is the dataset section's to say only where the method learns from texts with answers."""
    if config.method.name == "pretrain":
        return Encoder(tokenizer, "all", documents=True)
    return Encoder(tokenizer, config.dataset.train_on if SHAPES[config.method.name] == "tokens" else "assistant")


def _describe(job: Job, setup: Setup, trainer: Any) -> None:
    """What `auto` came to, where a person can find it."""
    parameters = list(trainer.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    dtype = str(setup.weights).removeprefix("torch.")
    attention = getattr(trainer.model.config, "_attn_implementation", setup.attention)
    autocast = f", products in {str(setup.autocast).removeprefix('torch.')}" if setup.autocast else ""
    job.note(
        "info",
        f"Training {trained:,} of {sum(p.numel() for p in parameters):,} parameters on {setup.device}, weights in "
        f"{dtype}{autocast}, attention {attention}, gradient checkpointing "
        f"{'on' if setup.gradient_checkpointing else 'off'}, rows "
        f"{str(trainer.args.train_sampling_strategy).replace('_', ' ')}.",
    )
    if getattr(trainer, "ref_model", None) is not None:
        size = sum(p.numel() * p.element_size() for p in trainer.ref_model.parameters())
        job.note(
            "info", f"The model as it was stays in memory beside the one that learns: {size / 2**30:.1f} GiB more."
        )


def _save(job: Job, config: RunConfig, trainer: Any, tokenizer: Any) -> Path:
    """The adapter as PEFT saves it, or the whole model; whole on the disk before it gets its name."""
    target = job.folder.model if config.saves_model else job.folder.adapter
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    if config.saves_model:
        if config.adapter is not None:  # what was trained is held in float32, the frozen rest as the base is
            trainer.model.to(trainer.model.dtype)
        trainer.model.save_pretrained(str(staging))
    else:
        save_adapter(config, trainer.model, staging, job.folder.checkpoints)
    tokenizer.save_pretrained(str(staging))
    for path in staging.glob("*.safetensors"):
        checkpoints.check_header(path)
    shutil.rmtree(target, ignore_errors=True)
    checkpoints.publish_folder(staging, target)
    return target


def _result(output: Path, outcome: Any, trainer: Any, seconds: float, setup: Setup, measure: Measure) -> dict[str, Any]:
    result = {
        "output": str(output),
        "steps": trainer.state.global_step,
        "train_loss": outcome.training_loss,
        "seconds": round(seconds, 2),
        "tokens": trainer.tokens_seen,
        "evaluation": evaluated(trainer.state.log_history),
        "peak_rss": measure.highest_rss,
        **measure.result(),
    }
    if setup.device.type == "cuda":
        result["peak_allocated"] = torch.cuda.max_memory_allocated()
        result["peak_reserved"] = torch.cuda.max_memory_reserved()
    return result


def _check_manner(job: Job, inputs: Inputs, learnt: Callable[[], Any], tokenizer: Any) -> dict[str, Any]:
    """For a dataset that says how taught answers look: how many held-out prompts get one, with and without the adapter.

    The run has ended well before this; whatever goes wrong here is told and changes nothing.
    """
    if not (inputs.dataset.manner and inputs.dataset.heldout) or job.stop_asked():
        return {}

    def progress(asked: int, all: int) -> None:
        job.check_stop()
        job.stage("evaluate", "Asking held-out questions", asked, all, "questions")

    try:
        model = learnt()
        if not (hasattr(model, "generate") and model.can_generate()):
            return {}
        shares = manner_shares(model, tokenizer, Path(inputs.dataset.heldout), inputs.dataset.manner, progress=progress)
        folder = job.folder.path / "evaluation"
        folder.mkdir(exist_ok=True)
        text = json.dumps(shares, ensure_ascii=False, indent=1)
        (folder / "manner.json").write_text(text, encoding="utf-8")
    except Stopped:
        return {}
    except Exception as error:  # noqa: BLE001 - see above
        sys.stderr.write(f"the held-out questions couldn't be asked: {error!r}\n")
        job.note("warning", f"The held-out questions couldn't be asked ({type(error).__name__}).")
        return {}
    return {"manner": {name: value for name, value in shares.items() if name != "answers"}}
