"""Every method whose model answers, and distillation, through the worker: stopped, gone on, loaded by plain PEFT."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from studio.core.events import Metrics
from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.worker import train
from studio.worker.job import Job
from tests.tiny import CHATML_TOKENS, make_tiny_llama, tiny_rows, tiny_tokenizer
from tests.worker.conftest import MakeRun
from tests.worker.forks import Zygote
from tests.worker.trainers.building import build, config

InProcess = Callable[[JobFolder], int]
ASKED = [{"prompt": f"say {word}", "completion": word} for word in ("one two", "the sea", "a fox", "seven", "a boat")]
REWARDED = {"rewards": ["format:.*[a-m].*", "length:4"], "reward_weights": [1.0, 0.5], "max_completion_length": 4}
METHODS: dict[str, dict[str, Any]] = {
    "grpo": {**REWARDED, "num_generations": 4, "beta": 0.04},
    "rloo": {**REWARDED, "num_generations": 4},
    "online_dpo": {**REWARDED, "missing_eos_penalty": 0.5},
    "ppo": {**REWARDED, "num_ppo_epochs": 2},
    "distill": {"lmbda": 0.5, "max_completion_length": 4},
}
FIGURES = {
    "online_dpo": ("reward", "reward_margin", "ties", "rewards/margins", "completions/clipped_ratio"),
    "ppo": ("reward", "kl", "value_loss"),
    "grpo": ("reward", "rewards/length/mean", "completions/clipped_ratio"),
}
STEPS, STOPPED_AT = 5, 2
IDS = [5, 9, 17, 40, 41, 100, 7, 2]


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("teacher") / "teacher", seed=5)


@pytest.fixture(scope="module")
def finished() -> dict[str, dict[str, Any]]:
    """What every run came to: where it lies, and what its own model says of IDS."""
    return {}


def seen(job: JobFolder) -> dict[str, list[tuple[int, float]]]:
    progress = Progress()
    for event in EventTail(job.events).read():
        progress.fold(event)
    return progress.series


class Beginning(TrainerCallback):  # type: ignore[misc]
    """What a value head was when training began."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.head = trainer, {}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if hasattr(self.trainer, "value_head"):
            self.head = {name: value.clone() for name, value in self.trainer.value_head.state_dict().items()}


@pytest.mark.parametrize("method", METHODS)
def test_each_learns_stops_and_goes_on(
    make_run: MakeRun,
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    finished: dict[str, dict[str, Any]],
    tiny_model: Path,
    tiny_teacher: Path,
    method: str,
) -> None:
    trainers: list[Any] = []
    beginnings: list[Beginning] = []
    build, tell = train.build_trainer, Job.metrics

    def kept(*parts: Any, **more: Any) -> Any:
        trainers.append(build(*parts, **more))
        beginnings.append(Beginning(trainers[-1]))
        trainers[-1].add_callback(beginnings[-1])
        return trainers[-1]

    def until(self: Job, event: Metrics) -> None:
        tell(self, event)
        if event.step == STOPPED_AT and len(trainers) == 1:
            self.folder.stop.touch()

    monkeypatch.setattr(train, "build_trainer", kept)
    monkeypatch.setattr(Job, "metrics", until)
    knobs = dict(METHODS[method])
    if method == "distill":
        knobs["teacher_model_name_or_path"] = str(tiny_teacher)
    job = make_run(
        tiny_rows(10) if method == "distill" else ASKED * 4,
        method={"name": method, **knobs},
        adapter={"r": 4},
        dataset={"validation_split": 4},
        training={"max_steps": STEPS, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    )
    assert in_process(job) == 0
    job.process.rename(job.path / "process-1.json")
    job.stop.unlink()
    last = sorted(job.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))[-1]
    assert last.name != f"checkpoint-{STEPS}"
    if method == "ppo":
        head = load_file(last / "value_head.safetensors")
        assert any(value.any() for value in head.values())
    assert in_process(job) == 0
    if method == "ppo":
        assert beginnings[-1].head.keys() == head.keys()
        assert all(torch.equal(beginnings[-1].head[name], head[name]) for name in head)

    told = seen(job)
    assert [step for step, _ in told["loss"]] == list(range(1, STEPS + 1))
    assert all(math.isfinite(value) for _, value in (*told["loss"], *told["eval_loss"], *told["grad_norm"]))
    for name in FIGURES.get(method, ()):
        assert name in told and f"eval_{name}" in told, name
    trainer = trainers[-1]
    assert trainer.tokens_seen > 0
    model = trainer.model.eval()
    base = load_file(tiny_model / "model.safetensors")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if "lora_" not in name:
            assert torch.equal(parameter, base[plain]), name
    with torch.no_grad():
        finished[method] = {
            "base": str(tiny_model),
            "adapter": str(job.adapter),
            "scores": False,
            "ids": IDS,
            "says": model(input_ids=torch.tensor([IDS])).logits.clone(),
        }


def test_what_was_learnt_is_what_plain_libraries_load(
    finished: dict[str, dict[str, Any]], zygote: Zygote, tiny_model: Path, tmp_path: Path
) -> None:
    if not finished:
        pytest.skip("no run was made")
    table = {name: {key: case[key] for key in case if key != "says"} for name, case in finished.items()}
    table["base"] = {"base": str(tiny_model), "adapter": "", "scores": False, "ids": IDS}
    (tmp_path / "table.json").write_text(json.dumps(table), encoding="utf-8")
    call, out = "tests.worker.trainers.reloading:logits", tmp_path / "logits.safetensors"
    assert zygote.start(call, tmp_path / "table.json", out, log=tmp_path / "log").wait() == 0
    found = load_file(out)
    for name, case in finished.items():
        torch.testing.assert_close(found[name], case["says"], rtol=1e-5, atol=1e-5)
        assert (found[name] - found["base"]).abs().max() > 0.01, f"{name} learnt nothing"


def test_answers_end_where_a_turn_ends_and_the_cut_ones_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    """By the model's end of text, the tokenizer's and the template's."""
    folder = make_tiny_llama(tmp_path / "base", tokenizer=tiny_tokenizer(eos="<|endoftext|>", pad="<|im_start|>"))
    method = {"rewards": ["json"], "max_completion_length": 40, "temperature": 3.0}
    training = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    trainer, _ = build(folder, ASKED * 4, config("ppo", method=method, training=training), tmp_path)
    text, turn = (CHATML_TOKENS.index(name) for name in ("<|endoftext|>", "<|im_end|>"))
    assert trainer.eos_token_ids == [text, turn]
    trainer.model.train()
    torch.manual_seed(2)
    batch, _, cut = trainer._answers(next(iter(trainer.get_train_dataloader())))
    answers = [
        ids[mask.bool()].tolist() for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    assert not {text, turn} & {token for answer in answers for token in answer[:-1]}
    assert {answer[-1] for answer in answers} >= {text, turn}
    ended = [answer[-1] in (text, turn) for answer in answers]
    assert cut.tolist() == [not one for one in ended] and not all(ended)
    assert all(len(answer) == 40 for answer, one in zip(answers, ended, strict=True) if not one)
    told = trainer._metrics["train"]["completions/clipped_ratio"]
    assert told == [pytest.approx(sum(cut.tolist()) / len(answers))]


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_base_in_four_bits_answers_and_learns_on_the_processor(
    make_run: MakeRun, in_process: InProcess, method: str
) -> None:
    job = make_run(
        ASKED * 4,
        method={"name": method, **METHODS[method]},
        loading={"quantization": "nf4"},
        adapter={"r": 4},
        dataset={"validation_split": 4},
        training={"max_steps": 2, "per_device_train_batch_size": 4, "eval_steps": 1},
    )
    assert in_process(job) == 0
    told = seen(job)
    assert all(math.isfinite(value) for name in ("loss", "eval_loss", "grad_norm", "reward") for _, value in told[name])
    assert any(value > 0 for _, value in told["grad_norm"])
    saved = load_file(job.adapter / "adapter_model.safetensors")
    assert any(value.any() for name, value in saved.items() if "lora_B" in name)


@pytest.mark.parametrize("method", ["grpo", "online_dpo"])
def test_a_run_that_goes_on_asks_what_it_would_have_asked(tiny_model: Path, tmp_path: Path, method: str) -> None:
    """Stopped in the second epoch: its questions come in its own order, not in the first one's again."""
    rows = [{"prompt": f"say {word}"} for word in "abcdefgh"]
    batch = 8 if method == "grpo" else 2
    training = {"max_steps": 8, "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "save_steps": 1}

    def asked(folder: Path, resume: Path | None = None) -> list[Any]:
        wishes = config(method, method={**METHODS[method], "max_completion_length": 1}, training=training)
        trainer, _ = build(tiny_model, rows, wishes, folder)
        found: list[Any] = []
        generate = trainer._generate_single_turn

        def noted(prompt_ids: Any, *rest: Any, **more: Any) -> Any:
            found.append(prompt_ids)
            return generate(prompt_ids, *rest, **more)

        trainer._generate_single_turn = noted
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        return found

    whole = asked(tmp_path)
    assert len(whole) == 8 and whole[4:] != whole[:4]
    assert asked(tmp_path / "again", tmp_path / "checkpoints" / "checkpoint-5") == whole[5:]
