"""Losses and gradients of every method on a fixed batch, against the papers' formulas written here in float64.

The other side: plain transformers and PEFT models in double precision, one sequence at a time, no padding, tokens made
here from the rows' words. Weights are moved away from where they start, so that model and reference differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.worker.trainers.building import build, config, labelled_rows, pair_rows, text_rows

BETA = 0.3
PAIRS, LABELLED, TEXTS = pair_rows(3, longest=5), labelled_rows(4), text_rows(3)


class Sequences:
    """What a float64 model says of answers: `words[i]` are the log likelihoods of answer i's tokens."""

    def __init__(self, model: Any, folder: Path, rows: list[tuple[str, str]], prompts_too: bool = False) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.words, self.spread = [], []
        for prompt, answer in rows:
            asked = tokenizer(prompt)["input_ids"] if prompt else []
            ids = torch.tensor([*asked, *tokenizer(answer)["input_ids"], tokenizer.eos_token_id])
            every = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            start = 0 if prompts_too or not asked else len(asked) - 1
            self.words.append(every.gather(1, ids[1:, None])[start:, 0])
            self.spread.append(every.exp().square().sum(-1).log()[start:])

    @property
    def sums(self) -> Tensor:
        return torch.stack([words.sum() for words in self.words])

    @property
    def means(self) -> Tensor:
        return torch.stack([words.mean() for words in self.words])

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(words) for words in self.words])


class Told:
    """Model and reference on the chosen and the rejected answers: c and r are their log ratios."""

    def __init__(self, model: Any, reference: Any, folder: Path) -> None:
        better, worse = ([(row["prompt"], row[name]) for row in PAIRS] for name in ("chosen", "rejected"))
        self.chosen, self.rejected = Sequences(model, folder, better), Sequences(model, folder, worse)
        self.whole = Sequences(model, folder, better, prompts_too=True)
        if reference is not None:
            with torch.no_grad():
                self.before = [Sequences(reference, folder, rows).sums for rows in (better, worse)]
            self.c, self.r = self.chosen.sums - self.before[0], self.rejected.sums - self.before[1]

    @property
    def d(self) -> Tensor:
        return BETA * (self.c - self.r)

    def each(self) -> tuple[Tensor, Tensor]:
        """Log ratios a token."""
        return self.c / self.chosen.lengths, self.r / self.rejected.lengths

    def nll(self) -> Tensor:
        return -torch.cat(self.chosen.words).mean()


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def log_sigma(x: Tensor) -> Tensor:
    return -torch.log1p(torch.exp(-x))


def exo(d: Tensor, smoothing: float) -> Tensor:
    """EXO (arXiv:2402.00856, equation 16): KL of the model's preference from the smoothed label."""
    p = sigma(d)
    return p * (p / (1 - smoothing)).log() + (1 - p) * ((1 - p) / smoothing).log()


def aot(better: Tensor, worse: Tensor, smoothing: float = 0.0) -> Tensor:
    """AOT (arXiv:2406.05882): quantiles are compared, not pairs."""
    d = BETA * (better.sort().values - worse.sort().values)
    return -log_sigma(d) * (1 - smoothing) - log_sigma(-d) * smoothing


def discopop(d: Tensor, tau: float = 0.2) -> Tensor:
    """DiscoPOP (arXiv:2406.08414, equation 5)."""
    share = sigma(d / tau)
    return (1 - share) * -log_sigma(d) + share * torch.exp(-d)


# Each loss as its paper has it, a value for each pair. c, r: log ratios to the reference; d: beta times their distance.
DPO: dict[str, Callable[[Told], Tensor]] = {
    "sigmoid": lambda t: -log_sigma(t.d),  # arXiv:2305.18290, equation 7
    "hinge": lambda t: (1 - t.d).clamp(min=0),  # SLiC, arXiv:2305.10425
    "ipo": lambda t: (t.each()[0] - t.each()[1] - 1 / (2 * BETA)) ** 2,  # arXiv:2310.12036, equation 17, a token
    "exo_pair": lambda t: exo(t.d, 0.1),
    "nca_pair": lambda t: -log_sigma(BETA * t.c) - (log_sigma(-BETA * t.c) + log_sigma(-BETA * t.r)) / 2,  # 2402.05369
    "robust": lambda t: (-0.9 * log_sigma(t.d) + 0.1 * log_sigma(-t.d)) / 0.8,  # arXiv:2403.00409, equation 7
    "bco_pair": lambda t: -log_sigma(BETA * t.c) - log_sigma(-BETA * t.r),  # arXiv:2404.04656, with no shift
    "sppo_hard": lambda t: (t.c - 0.5 / BETA) ** 2 + (t.r + 0.5 / BETA) ** 2,  # arXiv:2405.00675, equation 4.7
    "aot": lambda t: aot(t.chosen.sums - t.rejected.sums, t.before[0] - t.before[1]),
    "aot_unpaired": lambda t: aot(t.c, t.r),
    "apo_zero": lambda t: 1 - sigma(BETA * t.c) + sigma(BETA * t.r),  # arXiv:2408.06266, equation 7
    "apo_down": lambda t: sigma(BETA * t.c) + 1 - sigma(t.d),  # the same, equation 8
    "discopop": lambda t: discopop(t.d),
    "sft": lambda t: t.nll().expand(len(PAIRS)),
    "sigmoid_norm": lambda t: -log_sigma(BETA * (t.each()[0] - t.each()[1])),
}
SMOOTHED = ("exo_pair", "robust")


def moved(trainer: Any) -> None:
    """Give everything that is trained other values than it starts with."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.03 * torch.randn(parameter.shape, generator=generator)


def in_double(trainer: Any, folder: Path, scores: bool = False) -> Any:
    """The trainer's model as plain transformers and PEFT have it, in float64, ready for gradients."""
    kind: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float64, **({"num_labels": 1} if scores else {}))
    if hasattr(trainer.model, "peft_config"):
        task = "SEQ_CLS" if scores else "CAUSAL_LM"
        model = get_peft_model(model, LoraConfig(task_type=task, r=4, lora_alpha=8, target_modules="all-linear"))
        model = model.double()
    model.load_state_dict({name: value.double() for name, value in trainer.model.state_dict().items()})
    return model.eval()


def assert_equal_losses(trainer: Any, double: Any, expected: Tensor) -> None:
    """The trainer's loss on its first batch, and all gradients, within 1e-5 of the largest."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    right = {name: p.grad for name, p in double.named_parameters() if p.requires_grad and p.grad is not None}
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert found.keys() == right.keys()
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    assert largest > 1e-4
    for name, gradient in right.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-5 * largest + 1e-6, name


def built(
    folder: Path, tmp_path: Path, rows: list[dict[str, Any]], name: str, lora: bool = True, **method: Any
) -> tuple[Any, Any, Any]:
    """A trainer whose first batch is all rows, its model and its reference in float64."""
    wishes = config(name, lora, method=method, training={"per_device_train_batch_size": len(rows)})
    trainer, _ = build(folder, rows, wishes, tmp_path)
    moved(trainer)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return trainer, in_double(trainer, folder, name == "reward"), reference


@pytest.mark.parametrize("loss", list(DPO))
def test_every_loss_of_dpo_is_its_papers(tiny_model: Path, tmp_path: Path, loss: str) -> None:
    more = {"label_smoothing": 0.1} if loss in SMOOTHED else {"discopop_tau": 0.2} if loss == "discopop" else {}
    trainer, double, reference = built(
        tiny_model, tmp_path, PAIRS, "dpo", beta=BETA, loss_type=[loss], precompute_ref_log_probs=False, **more
    )
    assert_equal_losses(trainer, double, DPO[loss](Told(double, reference, tiny_model)).mean())


@pytest.mark.parametrize("lora", [True, False])
def test_losses_of_dpo_are_added_by_their_weights(tiny_model: Path, tmp_path: Path, lora: bool) -> None:
    weights = {"sigmoid": 0.8, "apo_zero": 0.2, "sft": 1.5}
    trainer, double, reference = built(
        tiny_model, tmp_path, PAIRS, "dpo", lora, beta=BETA, loss_type=list(weights), loss_weights=[*weights.values()]
    )
    told = Told(double, reference, tiny_model)
    assert_equal_losses(trainer, double, sum(w * DPO[name](told).mean() for name, w in weights.items()))  # type: ignore


@pytest.mark.parametrize("lora", [True, False])
def test_without_a_reference_every_answer_was_equally_likely_before(
    tiny_model: Path, tmp_path: Path, lora: bool
) -> None:
    trainer, double, _ = built(tiny_model, tmp_path, PAIRS, "dpo", lora, beta=BETA, reference_free=True)
    assert trainer.ref_model is None
    told = Told(double, None, tiny_model)
    expected = -log_sigma(BETA * (told.chosen.sums - told.rejected.sums)).mean()
    assert_equal_losses(trainer, double, expected)


def test_pairs_can_be_weighed_by_how_likely_the_model_finds_them(tiny_model: Path, tmp_path: Path) -> None:
    """WPO (arXiv:2406.11827, equation 2): each token against what the model would expect of itself."""
    trainer, double, reference = built(tiny_model, tmp_path, PAIRS, "dpo", beta=BETA, use_weighting=True)
    told = Told(double, reference, tiny_model)
    weight = torch.ones(len(PAIRS), dtype=torch.float64)
    for side in (told.chosen, told.rejected):
        pairs = zip(side.words, side.spread, strict=True)
        weight = weight * torch.stack([(words - spread).mean().exp() for words, spread in pairs]).detach()
    assert_equal_losses(trainer, double, (DPO["sigmoid"](told) * weight).mean())


@pytest.mark.parametrize(
    ("lora", "loss", "precomputed"), [(True, "kto", False), (False, "kto", True), (True, "apo_zero_unpaired", False)]
)
def test_kto_is_its_papers(tiny_model: Path, tmp_path: Path, lora: bool, loss: str, precomputed: bool) -> None:
    """KTO (arXiv:2402.01306, equation 7); the KL is estimated from each prompt with the answer of the row before."""
    said = {"loss_type": loss, "desirable_weight": 1.2, "undesirable_weight": 0.7, "beta": BETA}
    trainer, double, reference = built(
        tiny_model, tmp_path, LABELLED, "kto", lora, precompute_ref_log_probs=precomputed, **said
    )
    answers = [row["completion"] for row in LABELLED]
    own = [(row["prompt"], row["completion"]) for row in LABELLED]
    others = [(row["prompt"], answer) for row, answer in zip(LABELLED, answers[-1:] + answers[:-1], strict=True)]
    with torch.no_grad():
        before, kl = Sequences(reference, tiny_model, own).sums, Sequences(double, tiny_model, others).sums
        kl = (kl - Sequences(reference, tiny_model, others).sums).mean().clamp(min=0)
    ratios = Sequences(double, tiny_model, own).sums - before
    losses = []
    for row, ratio in zip(LABELLED, ratios, strict=True):
        if loss == "kto":
            good, bad = 1 - sigma(BETA * (ratio - kl)), 1 - sigma(BETA * (kl - ratio))
        else:
            good, bad = 1 - sigma(BETA * ratio), sigma(BETA * ratio)
        losses.append(1.2 * good if row["label"] else 0.7 * bad)
    assert_equal_losses(trainer, double, torch.stack(losses).mean())


@pytest.mark.parametrize("lora", [True, False])
def test_orpo_is_its_papers(tiny_model: Path, tmp_path: Path, lora: bool) -> None:
    """ORPO (arXiv:2403.07691, equations 4 to 7): chances are means a token; the first loss is on the prompt too."""
    trainer, double, _ = built(tiny_model, tmp_path, PAIRS, "orpo", lora, beta=BETA)
    told = Told(double, None, tiny_model)
    better, worse = (side.means - torch.log1p(-side.means.exp()) for side in (told.chosen, told.rejected))
    nll = -torch.cat(told.whole.words).mean()
    assert_equal_losses(trainer, double, nll - BETA * log_sigma(better - worse).mean())


@pytest.mark.parametrize(("loss", "smoothing"), [("sigmoid", 0.2), ("hinge", 0.0), ("ipo", 0.0), ("simpo", 0.1)])
def test_cpo_and_simpo_are_their_papers(tiny_model: Path, tmp_path: Path, loss: str, smoothing: float) -> None:
    """CPO (arXiv:2401.08417, equation 4) and SimPO (arXiv:2405.14734, equation 6), beside the answers' own loss."""
    said = {"loss_type": loss, "label_smoothing": smoothing, "cpo_alpha": 0.7, "simpo_gamma": 0.4}
    trainer, double, _ = built(tiny_model, tmp_path, PAIRS, "cpo", loss != "simpo", beta=BETA, **said)
    told = Told(double, None, tiny_model)
    d = BETA * (told.chosen.sums - told.rejected.sums)
    each = told.chosen.means - told.rejected.means
    if loss == "hinge":
        losses = (1 - d).clamp(min=0)
    elif loss == "ipo":
        losses = (each - 1 / (2 * BETA)) ** 2
    else:
        x = d if loss == "sigmoid" else BETA * each - 0.4
        losses = -log_sigma(x) * (1 - smoothing) - log_sigma(-x) * smoothing
    assert_equal_losses(trainer, double, losses.mean() + 0.7 * told.nll())


@pytest.mark.parametrize(("loss", "lora"), [("nll", True), ("nll", False), ("dft", True)])
def test_supervised_losses_are_their_papers(tiny_model: Path, tmp_path: Path, loss: str, lora: bool) -> None:
    """Cross entropy; DFT (arXiv:2508.05629, equation 7) weighs each token by its own likelihood, held fixed."""
    trainer, double, _ = built(tiny_model, tmp_path, TEXTS, "sft", lora, loss_type=loss)
    words = torch.cat(Sequences(double, tiny_model, [("", row["text"]) for row in TEXTS]).words)
    assert_equal_losses(trainer, double, -(words * (words.exp().detach() if loss == "dft" else 1.0)).mean())


@pytest.mark.parametrize(("lora", "centre"), [(True, None), (False, 0.3)])
def test_a_reward_models_loss_is_bradley_and_terrys(
    tiny_model: Path, tmp_path: Path, lora: bool, centre: float | None
) -> None:
    """-log sigma(better - worse), and the pull towards zero of arXiv:2312.09244."""
    trainer, double, _ = built(tiny_model, tmp_path, PAIRS, "reward", lora, center_rewards_coefficient=centre)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    double.config.pad_token_id = tokenizer.pad_token_id

    def rewards(name: str) -> Tensor:
        found = []
        for row in PAIRS:
            ids = tokenizer(row["prompt"])["input_ids"] + tokenizer(row[name])["input_ids"] + [tokenizer.eos_token_id]
            found.append(double(input_ids=torch.tensor([ids])).logits[0, 0])
        return torch.stack(found)

    better, worse = rewards("chosen"), rewards("rejected")
    expected = -log_sigma(better - worse).mean() + (centre or 0.0) * ((better + worse) ** 2).mean()
    assert_equal_losses(trainer, double, expected)


def test_the_figures_beside_the_loss_are_of_the_same_answers(tiny_model: Path, tmp_path: Path) -> None:
    trainer, double, reference = built(tiny_model, tmp_path, PAIRS, "dpo", beta=BETA)
    trainer.compute_loss(trainer.model.train(), next(iter(trainer.get_train_dataloader())))
    told = Told(double, reference, tiny_model)
    seen = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert seen["rewards/margins"] == pytest.approx(float(told.d.mean().detach()), rel=1e-4)
    assert seen["rewards/accuracies"] == pytest.approx(float((told.d > 0).double().mean()))
    assert seen["rewards/chosen"] == pytest.approx(BETA * float(told.c.mean().detach()), rel=1e-4)
    assert seen["logps/chosen"] == pytest.approx(float(told.chosen.sums.mean().detach()), rel=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = sum(len(tokenizer(row["prompt"])["input_ids"]) for row in PAIRS)
    assert trainer.tokens_seen == int(told.chosen.lengths.sum() + told.rejected.lengths.sum()) + 2 * asked
