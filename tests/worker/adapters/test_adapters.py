"""Every kind of adapter, trained by the worker's own way and read back by plain PEFT.

Each run learns four rows by heart. The loss falls, what is frozen keeps every bit, all that is to learn moves, and a
process that knows transformers and PEFT alone gets the same logits from the saved files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio.core.job import JobFolder
from tests.tiny import tiny_rows
from tests.worker.adapters.watched import Watched, losses, watch
from tests.worker.conftest import MakeRun

InProcess = Callable[[JobFolder], int]

LORA: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora-dora": {"use_dora": True, "use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa-dora": {"init_lora_weights": "pissa", "use_dora": True},
    "pissa-niter-rslora": {"init_lora_weights": "pissa_niter_16", "use_rslora": True, "rank_pattern": {"q_proj": 4}},
    "olora": {"init_lora_weights": "olora"},
    "eva": {"init_lora_weights": "eva", "r": 4},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
    "attention-of-one-layer": {"target_modules": "attention", "layers_to_transform": [1]},
    "patterns": {
        "rank_pattern": {"q_proj": 4},
        "alpha_pattern": {"down_proj": 8},
        "target_modules": ["q_proj", "down_proj"],
    },
    "faster-b": {"loraplus_lr_ratio": 4},
    "embeddings-whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens": {"trainable_token_indices": [1, 5]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 8, "target_r": 4},
    "ia3": {},
    "ia3-inside": {"feedforward_modules": ["down_proj"]},
    "vera": {"r": 16},
    "loha": {},
    "lokr": {},
    "oft": {},
    "boft": {},
    "prefix_tuning": {},
    "prefix_tuning-projected": {"prefix_projection": True},
    "prompt_tuning": {},
    "prompt_tuning-text": {"prompt_tuning_init_text": "one two three"},
    "p_tuning": {},
    "ln_tuning": {},
    "freeze": {"trained_layers": 1},
    "freeze-without-head": {"trained_layers": 1, "train_head": False},
}
SECTIONS = {name: {"type": "lora", **knobs} for name, knobs in LORA.items()}
SECTIONS |= {name: {"type": name.partition("-")[0], **knobs} for name, knobs in OTHERS.items()}
# What learns by few numbers learns in larger steps.
RATES = {"ia3": 0.1, "vera": 0.1, "loha": 0.03, "lokr": 0.1, "ln_tuning": 0.1, "boft": 0.02, "p_tuning": 0.02}
RATES |= {"prefix_tuning": 0.3, "prompt_tuning": 0.3}
# float32 rounds where a start has been taken out of the base, or ranks are left out of the sum.
NEAR = {"pissa", "olora", "adalora", "vera"}
KEPT: dict[str, tuple[Path, str, torch.Tensor]] = {}


def learn(make_run: MakeRun, in_process: InProcess, seen: Watched, **sections: Any) -> JobFolder:
    """A run of sixteen steps that sees the same four rows in each."""
    training = {
        "max_steps": 16,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        "save_steps": 100,
        **sections.pop("training", {}),
    }
    data = {"validation_split": 0.0, **sections.pop("dataset", {})}
    job = make_run(tiny_rows(4, turns=1), training=training, dataset=data, **sections)
    assert in_process(job) == 0, job.path.joinpath("events.jsonl").read_text()[-2000:]
    found = losses(job)
    assert all(torch.isfinite(torch.tensor(found)))
    assert found[-1] < 0.93 * found[0], found
    assert not seen.changed, seen.changed[:3]
    return job


@pytest.mark.parametrize("name", SECTIONS)
def test_an_adapter_learns_and_leaves_the_rest_alone(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, name: str, tiny_model: Path
) -> None:
    section = SECTIONS[name]
    seen = watch(monkeypatch)
    rate = {"learning_rate": RATES[section["type"]]} if section["type"] in RATES else {}
    job = learn(make_run, in_process, seen, adapter=section, training=rate)
    # A layer that AdaLoRA has taken all ranks from is where it was.
    still = [parameter for parameter in seen.still if "lora_E" not in parameter]
    assert seen.trained and not still, still[:3]
    whole = section["type"] == "freeze"
    assert job.model.exists() == whole and job.adapter.exists() != whole
    KEPT[name] = (tiny_model, str("" if whole else job.adapter), seen.logits)
    if whole:
        KEPT[name] = (job.model, "", seen.logits)


def test_plain_peft_reads_every_one_of_them(fork: Callable[..., Any], tmp_path: Path) -> None:
    cases = {name: (str(base), adapter, "none") for name, (base, adapter, _) in KEPT.items()}
    assert len(cases) == len(SECTIONS)
    found = fork("tests.worker.adapters.fresh:reload", json.dumps(cases), tmp_path / "logits.safetensors")
    assert found.wait() == 0, found.log.read_text()
    said = load_file(tmp_path / "logits.safetensors")
    base = said["freeze"]
    for name, (_, _, logits) in KEPT.items():
        near = 1e-4 if name.partition("-")[0] in NEAR else 1e-5
        torch.testing.assert_close(
            said[name], logits, rtol=near, atol=near, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert name == "freeze" or (said[name][-len(base) :] - base).abs().max() > 1e-3  # behind the learnt tokens
