"""PPO: its pieces against float64 sums written out from the papers, the whole against a known optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.worker.trainers.ppo import (
    advantages_and_returns,
    policy_loss,
    token_rewards,
    value_loss,
    whitened,
)
from tests.worker.conftest import MakeRun

ROWS = [{"prompt": f"say {word}", "completion": word} for word in ("one", "the sea", "a fox", "seven")]


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)

    def made() -> torch.Tensor:
        return torch.randn(3, 5, generator=generator, dtype=torch.float64)

    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.float64)
    names = ("logps", "old", "reference", "values", "old_values", "rewards", "advantages", "returns")
    return {"mask": mask, "scores": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), **{n: made() for n in names}}


def test_a_token_earns_minus_its_distance_and_the_last_one_the_score(batch: dict[str, torch.Tensor]) -> None:
    found = token_rewards(batch["scores"], batch["logps"], batch["reference"], batch["mask"], 0.3)
    lengths = (5, 2, 4)
    for row, length in enumerate(lengths):
        for t in range(5):
            wanted = -0.3 * float(batch["logps"][row, t] - batch["reference"][row, t]) if t < length else 0.0
            wanted += float(batch["scores"][row]) if t == length - 1 else 0.0
            assert float(found[row, t]) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)])
def test_advantages_are_the_sum_that_the_paper_writes(batch: dict[str, torch.Tensor], gamma: float, lam: float) -> None:
    rewards = batch["rewards"] * batch["mask"]
    advantages, returns = advantages_and_returns(rewards, batch["values"], batch["mask"], gamma, lam)
    for row, length in enumerate((5, 2, 4)):
        value = [float(v) for v in batch["values"][row, :length]] + [0.0]
        delta = [float(rewards[row, t]) + gamma * value[t + 1] - value[t] for t in range(length)]
        for t in range(length):
            wanted = sum((gamma * lam) ** ahead * delta[t + ahead] for ahead in range(length - t))
            assert float(advantages[row, t]) == pytest.approx(wanted, abs=1e-12)
            assert float(returns[row, t]) == pytest.approx(wanted + value[t], abs=1e-12)
        assert not advantages[row, length:].any() and not returns[row, length:].any()


def test_losses_and_their_gradients_are_those_of_the_paper(batch: dict[str, torch.Tensor]) -> None:
    """Each token by itself, in plain Python; gradients by differences."""
    logps, values = batch["logps"].clone().requires_grad_(), batch["values"].clone().requires_grad_()
    kept = [(r, t) for r in range(3) for t in range(5) if batch["mask"][r, t]]

    def policy(given: torch.Tensor) -> float:
        total = 0.0
        for r, t in kept:
            ratio = math.exp(float(given[r, t] - batch["old"][r, t]))
            a = float(batch["advantages"][r, t])
            total -= min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
        return total / len(kept)

    def value(given: torch.Tensor) -> float:
        total = 0.0
        for r, t in kept:
            v, old, wanted = (float(x[r, t]) for x in (given, batch["old_values"], batch["returns"]))
            held = min(max(v, old - 0.3), old + 0.3)
            total += 0.5 * max((v - wanted) ** 2, (held - wanted) ** 2)
        return total / len(kept)

    ours = policy_loss(logps, batch["old"], batch["advantages"], batch["mask"], 0.2)
    theirs = value_loss(values, batch["old_values"], batch["returns"], batch["mask"], 0.3)
    for loss, plain, at in ((ours, policy, logps), (theirs, value, values)):
        assert loss.item() == pytest.approx(plain(at.detach()), rel=1e-12)
        loss.backward()
        for r, t in ((0, 0), (1, 1), (2, 3), (1, 4)):
            step = torch.zeros(3, 5, dtype=torch.float64)
            step[r, t] = 1e-6
            slope = (plain(at.detach() + step) - plain(at.detach() - step)) / 2e-6
            assert float(at.grad[r, t]) == pytest.approx(slope, abs=1e-6)  # type: ignore[index]


def test_whitening_leaves_spread_one_over_what_counts(batch: dict[str, torch.Tensor]) -> None:
    found = whitened(batch["advantages"], batch["mask"])[batch["mask"].bool()]
    assert float(found.mean()) == pytest.approx(0, abs=1e-9)
    assert float(found.var(unbiased=False)) == pytest.approx(1, abs=1e-6)
    alike = torch.full_like(batch["advantages"], 3.0)
    assert not whitened(alike, batch["mask"]).any(), "no spread, no direction, and no NaN"


def progress(job: JobFolder) -> Progress:
    found = Progress()
    for event in EventTail(job.events).read():
        found.fold(event)
    return found


def test_the_optimum_is_the_reference_tilted_by_the_reward(
    make_run: MakeRun, in_process: Callable[[JobFolder], int], tiny_model: Path
) -> None:
    """One token, reward 1 or 0, a price on the distance: the best policy is p(x) exp(r(x) / kl_coef), scaled to one.

    So the odds of a rewarded token grow by exp(1 / kl_coef), whatever they were (arXiv:1909.08593, section 2).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kl_coef = 0.6
    job = make_run(
        rows=[{"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": "x"}]}] * 128,
        method={
            "name": "ppo",
            "rewards": ["format:.*[a-m].*"],
            "max_completion_length": 1,
            "kl_coef": kl_coef,
            "num_ppo_epochs": 2,
            "vf_coef": 0.5,
        },
        training={
            "max_steps": 60,
            "per_device_train_batch_size": 128,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "linear",
            "save_steps": 60,
            "logging_steps": 20,
        },
        dataset={"validation_split": 0, "group_duplicates": "off"},
        adapter=None,
    )
    assert in_process(job) == 0
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "say"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    with torch.inference_mode():
        before = plain(**asked).logits[0, -1].softmax(-1)
        after = (
            AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
            .eval()(**asked)
            .logits[0, -1]
            .softmax(-1)
        )
    texts = [tokenizer.decode([token], skip_special_tokens=True).strip() for token in range(len(before))]
    rewarded = torch.tensor([any("a" <= letter <= "m" for letter in text) for text in texts])

    def odds(chances: torch.Tensor) -> float:
        share = float(chances[rewarded].sum())
        return share / (1 - share)

    grown = math.log(odds(after) / odds(before))
    assert grown == pytest.approx(1 / kl_coef, rel=0.25)
    seen = progress(job).series
    assert {"reward", "kl", "policy_loss", "value_loss", "entropy", "clipped", "rewards/format/mean"} <= set(seen)
