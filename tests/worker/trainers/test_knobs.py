"""Each switch of training is on when it is chosen: what it does is looked for, not that it was passed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import get_scheduler, set_seed
from transformers.integrations.neftune import activate_neftune

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.inputs import DatasetInput
from studio.core.job import JobFolder, read_json
from studio.worker.checkpoints import step_of
from studio.worker.data.prepare import prepare
from studio.worker.device import resolve
from studio.worker.encode import Encoder
from studio.worker.models import load_model, load_tokenizer
from studio.worker.trainers.build import build_trainer
from studio.worker.trainers.compact import CompactSFTTrainer
from studio.worker.trainers.muon import MuonAdamW, muon
from tests.tiny import tiny_rows
from tests.worker.adapters.watched import watch
from tests.worker.conftest import MakeRun

InProcess = Callable[[JobFolder], int]
MakeDataset = Callable[..., DatasetInput]
STEPS = 20


def wishes(**sections: Any) -> RunConfig:
    training = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": 0.2,
        "learning_rate": 0.01,
        **sections.pop("training", {}),
    }
    data = {"validation_split": 0.0, **sections.pop("dataset", {})}
    model = {"dtype": "float32", **sections.pop("model", {})}
    return parse_config(
        {"training": training, "dataset": data, "model": model, "hardware": {"device": "cpu"}, **sections}
    )


@pytest.fixture
def built(tiny_model: Path, dataset: MakeDataset, tmp_path: Path) -> Callable[..., Any]:
    """Sections of a config -> the trainer that a run with them would have."""
    source = dataset(tiny_rows(12, turns=1))

    def build(**sections: Any) -> Any:
        config = wishes(**sections)
        setup = resolve(config)
        tokenizer = load_tokenizer(tiny_model)
        encoder = Encoder(tokenizer, config.dataset.train_on)
        data = prepare(config.dataset, source, encoder, max_length=config.training.max_length, seed=1)
        model = load_model(tiny_model, config.model, setup)
        set_seed(7)
        return build_trainer(config, setup, model, tokenizer, data, tmp_path / "checkpoints")

    return build


def batch(trainer: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return found


# -- the rate ---------------------------------------------------------------------------------------------------------

SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {"num_cycles": 0.75},
    "constant": {},
    "constant_with_warmup": {},
    "cosine_with_restarts": {"num_cycles": 2},
    "polynomial": {"power": 2.0, "lr_end": 1e-4},
    "inverse_sqrt": {"timescale": 3},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-3, "warmup_lr_rate": 0.5},
    "warmup_stable_decay": {"num_decay_steps": 5, "decay_type": "linear"},
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_rate_goes_as_transformers_own_schedule(built: Callable[..., Any], kind: str) -> None:
    options = SCHEDULES[kind]
    trainer = built(training={"lr_scheduler_type": kind, "lr_scheduler_kwargs": options})
    trainer.create_optimizer_and_scheduler(STEPS)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    right = get_scheduler(kind, optimizer, 4, STEPS, scheduler_specific_kwargs=dict(options))
    rates = []
    for _ in range(STEPS):
        rates.append((trainer.lr_scheduler.get_last_lr()[0], right.get_last_lr()[0]))
        optimizer.step()
        trainer.optimizer.step()
        right.step()
        trainer.lr_scheduler.step()
    assert [found for found, _ in rates] == [wanted for _, wanted in rates]
    assert len({found for found, _ in rates}) > 1 or kind == "constant"


def test_steps_of_warm_up_go_before_the_share(built: Callable[..., Any]) -> None:
    assert built(training={"warmup_steps": 3}).args.warmup_steps == 3
    assert built(training={"warmup_steps": 0}).args.warmup_steps == 0
    assert built().args.warmup_steps == 4


def test_a_stable_schedule_falls_over_its_last_tenth_unless_told(built: Callable[..., Any]) -> None:
    trainer = built(training={"lr_scheduler_type": "warmup_stable_decay"})
    trainer.create_optimizer_and_scheduler(STEPS)
    factor = trainer.lr_scheduler.lr_lambdas[0]
    assert [factor(step) for step in (4, 17, 18)] == [1, 1, 1] and factor(19) < 1


# -- the optimizer ----------------------------------------------------------------------------------------------------


def test_adams_numbers_are_those_chosen(built: Callable[..., Any]) -> None:
    trainer = built(training={"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "weight_decay": 0.1})
    group = trainer.create_optimizer().param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.1)


def test_lora_plus_gives_b_its_own_rate(built: Callable[..., Any]) -> None:
    trainer = built(adapter={"type": "lora", "loraplus_lr_ratio": 8}, training={"optim": "sgd"})
    optimizer = trainer.create_optimizer()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    trained = {name: rates.pop(id(p)) for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert not rates and len(trained) == 28
    assert {rate for name, rate in trained.items() if "lora_A" in name} == {0.01}
    assert {rate for name, rate in trained.items() if "lora_B" in name} == {0.08}
    assert isinstance(optimizer, torch.optim.SGD)


@pytest.mark.parametrize(("optim", "bits"), [("adamw_8bit", 8), ("lion_8bit", 8), ("lion_32bit", 32), ("ademamix", 32)])
def test_an_8_bit_optimizer_holds_its_state_in_8_bits(built: Callable[..., Any], optim: str, bits: int) -> None:
    trainer = built(adapter=None, training={"optim": optim, "max_steps": 2, "report_to": []})
    trainer.train()
    large = [p for p in trainer.model.model.layers.parameters() if p.numel() >= 4096]
    state = trainer.optimizer.optimizer.state if hasattr(trainer.optimizer, "optimizer") else trainer.optimizer.state
    kinds = {state[p]["state1"].dtype for p in large}
    assert kinds == ({torch.uint8} if bits == 8 else {torch.float32})


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "muon"])
def test_every_optimizer_of_torch_and_transformers_takes_steps(built: Callable[..., Any], optim: str) -> None:
    trainer = built(training={"optim": optim, "max_steps": 2, "warmup_ratio": 0.0})
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    kind = type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)).__name__.lower()
    assert kind.startswith({"muon": "muonadamw", "adamw_torch_fused": "adamw"}.get(optim, optim))
    moved = [
        name for name, p in trainer.model.named_parameters() if name in before and not torch.equal(p, before[name])
    ]
    assert len(moved) == len(before)


def test_muon_takes_the_matrices_and_adamw_the_rest(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    def grown() -> tuple[Any, dict[str, torch.Tensor]]:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        chance = torch.Generator().manual_seed(3)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=chance)
        return model, dict(model.named_parameters())

    ours, found = grown()
    optimizer = muon(ours, 0.01, 0.1, (0.9, 0.99), 1e-8)
    _, wanted = grown()
    matrices = [p for name, p in wanted.items() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in wanted.items() if p.ndim != 2 or "embed" in name]
    assert len(matrices) == 14 and len(rest) == 6
    others = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1, betas=(0.9, 0.99), eps=1e-8),
    ]
    for _ in range(2):
        optimizer.step()
        for other in others:
            other.step()
    saved = optimizer.state_dict()
    again = muon(ours, 0.5, 0.0, (0.9, 0.9), 1e-8)
    again.load_state_dict(saved)  # a resumed run's: rates and state are the old ones
    again.step()
    for other in others:
        other.step()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert isinstance(again, MuonAdamW)


# -- what the model sees and is held to -------------------------------------------------------------------------------


def test_neftune_adds_noise_while_training_and_only_then(built: Callable[..., Any]) -> None:
    """Uniform noise of at most alpha / sqrt(tokens x width) on every embedding (arXiv:2310.05914, algorithm 1)."""
    trainer = built(training={"neftune_noise_alpha": 5, "max_steps": 1})
    table = trainer.model.get_base_model().get_input_embeddings()
    seen: list[tuple[bool, torch.Tensor]] = []
    activate_neftune(trainer.model, trainer.neftune_noise_alpha, trainer.accelerator)  # as training begins with
    table.register_forward_hook(
        lambda module, ids, out: seen.append((module.training, (out - table.weight[ids[0]]).detach()))
    )
    trainer.model.train()
    inputs = batch(trainer)
    trainer.compute_loss(trainer.model, dict(inputs))
    trainer.model.eval()
    with torch.no_grad():
        trainer.compute_loss(trainer.model, dict(inputs))
    while_training = [noise for training, noise in seen if training]
    assert while_training and all(noise.abs().max() == 0 for training, noise in seen if not training)
    noise = while_training[-1]
    bound = 5 / (noise.shape[1] * noise.shape[2]) ** 0.5
    assert 0.95 * bound < noise.abs().max() <= bound + 1e-6  # and in float32 a sum rounds
    assert noise.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_smoothed_labels_make_the_loss_of_the_formula(built: Callable[..., Any]) -> None:
    """(1 - e) of the right token's loss and e of all tokens' mean (Szegedy et al. 2015, arXiv:1512.00567)."""
    trainer = built(training={"label_smoothing_factor": 0.2})
    inputs = batch(trainer)
    trainer.model.eval()
    with torch.no_grad():
        found = trainer.compute_loss(trainer.model, dict(inputs)).item()
        logits = trainer.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.double()
    labels = inputs["labels"][:, 1:]
    learnt = labels != -100
    each = functional.log_softmax(logits[:, :-1], dim=-1)[learnt]
    right = -each.gather(1, labels[learnt][:, None]).mean()
    assert found == pytest.approx((0.8 * right - 0.2 * each.mean()).item(), rel=1e-5)


def test_wrapped_packing_fills_every_row(built: Callable[..., Any]) -> None:
    plain = built().train_dataset
    trainer = built(training={"packing": True, "packing_strategy": "wrapped", "max_length": 64})
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    assert set(lengths[:-1]) == {64} and sum(lengths) == sum(len(row["input_ids"]) for row in plain)


def test_full_determinism_holds_torch_to_it(built: Callable[..., Any]) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        built(training={"full_determinism": True})
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def test_loading_processes_are_as_many_as_chosen(built: Callable[..., Any]) -> None:
    loader = built(training={"dataloader_num_workers": 2}).get_train_dataloader()
    assert loader.num_workers == 2


# -- the best checkpoint ----------------------------------------------------------------------------------------------


def test_the_best_checkpoint_outlives_the_rotation_and_is_what_is_saved(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six measurements, whose figures are given here, the second is the best; one checkpoint is kept beside it."""
    from safetensors.torch import load_file

    given = iter([5.0, 3.0, 4.0, 3.5, 6.0, 7.0])
    measure = CompactSFTTrainer.evaluation_loop

    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = measure(self, *args, **kwargs)
        found.metrics["eval_loss"] = next(given)
        return found

    monkeypatch.setattr(CompactSFTTrainer, "evaluation_loop", told)
    training = {"load_best_model_at_end": True, "save_total_limit": 1, "max_steps": 12, "eval_steps": 2}
    job = make_run(tiny_rows(12), training=training, dataset={"validation_split": 0.25})
    assert in_process(job) == 0
    assert sorted(step_of(path) for path in job.checkpoints.glob("checkpoint-*")) == [4, 12]
    kept, last = (load_file(job.checkpoints / f"checkpoint-{n}" / "adapter_model.safetensors") for n in (4, 12))
    saved = load_file(job.adapter / "adapter_model.safetensors")
    torch.testing.assert_close(saved, kept, rtol=0, atol=0)
    assert any(not torch.equal(saved[name], last[name]) for name in saved)


def test_a_run_that_gets_no_better_ends_early_and_slows_down(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch)
    training = {
        "early_stopping_patience": 3,
        "max_steps": 40,
        "eval_steps": 1,
        "learning_rate": 1.0,
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"factor": 0.5, "patience": 0},
    }
    job = make_run(tiny_rows(24), training=training, dataset={"validation_split": 0.25})
    assert in_process(job) == 0
    state = seen.trainer.state
    losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    assert state.global_step < 40
    assert min(losses) == losses[-4] and min(losses[-3:]) > losses[-4]
    rates = [entry["learning_rate"] for entry in state.log_history if "learning_rate" in entry]
    assert rates[0] == 1.0 and rates[-1] < rates[0]
    assert (read_json(job.process) or {})["attempt"] >= 1


# -- what can't be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"training": {"optim": "paged_adamw_8bit"}}, "training.optim"),
        ({"training": {"activation_offloading": True}}, "training.activation_offloading"),
        ({"model": {"quantization": "int8"}, "adapter": {"type": "lora", "use_dora": True}}, "adapter.use_dora"),
    ],
)
def test_what_a_processor_has_no_use_for_is_refused(sections: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(wishes(**sections))
    assert refused.value.field == field and refused.value.hint


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.worker import device

    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="compiler"):
        resolve(wishes(training={"torch_compile": True}))


def test_a_package_that_isnt_here_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.core import packages

    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    for knob, value, name in (
        ("optim", "schedule_free_adamw", "schedulefree"),
        ("optim", "adamw_8bit", "bitsandbytes"),
        ("report_to", ["wandb"], "wandb"),
        ("use_liger_kernel", True, "liger-kernel"),
    ):
        with pytest.raises(ConfigError, match=name) as refused:
            resolve(wishes(training={knob: value}))
        assert refused.value.field == f"training.{knob}" and f"pip install {name}" in str(refused.value.hint)
