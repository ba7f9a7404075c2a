"""Methods that learn from answers the model writes itself while it trains, with the knobs that only they have.

Names are TRL's; those of PPO are the ones that TRL's PPOConfig had.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, model_validator

from studio.core.sections.section import Section, knob

# What may stand before the colon of a reward, and what its argument is.
REWARDS: dict[str, str] = {
    "format": "a regular expression that the whole answer is to match",
    "exact_match": "",
    "contains": "",
    "length": "the number of tokens that is aimed at",
    "json": "",
    "model": "a run of the method reward (run:<id>), or the folder of a reward model",
    "file": "a Python file with a function `reward`",
}
_WITHOUT = ("exact_match", "contains", "json")


class Generating(Section):
    """What the model's own answers are drawn by while it trains."""

    num_generations: int = knob(
        8,
        "Answers a question",
        "How many answers are tried for each question; more tell good from bad better and take longer.",
        group="method",
        ge=1,
        le=256,
        unit="answers",
    )
    max_completion_length: int = knob(
        256, "Longest answer", "Answers are cut here while training.", group="method", ge=1, le=65536, unit="tokens"
    )
    temperature: float = knob(
        1.0, "Temperature", "How freely answers are drawn; 1 is as the model itself would.", group="method", gt=0, le=10
    )
    top_p: float = knob(
        1.0, "Top p", "Draws from the likeliest words that make up this share.", group="method", gt=0, le=1
    )
    top_k: int = knob(0, "Top k", "Draws from this many likeliest words; 0 from all.", group="method", ge=0)


class Rewarded(Generating):
    """Answers are judged by functions, by a reward model, or by both."""

    rewards: list[str] = knob(
        ["exact_match"],
        "Rewards",
        "What makes an answer good, each added by its weight: format:<regex>, exact_match, contains, length:<tokens>, "
        "json, model:<run of the method reward>, file:<Python file>.",
        group="method",
        basic=True,
        min_length=1,
    )
    reward_weights: list[float] | None = knob(
        None, "Weights of the rewards", "One for each reward; empty counts all alike.", group="method"
    )
    allow_code: bool = knob(
        False,
        "Run the reward's file",
        "A Python file named as a reward is run on this machine; tick it once you know what is in it.",
        group="method",
    )

    @model_validator(mode="after")
    def _rewards_are_known(self) -> Rewarded:
        for reward in self.rewards:
            check_reward(reward)
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise ValueError(
                f"method.reward_weights: there are {len(self.reward_weights)} weights for {len(self.rewards)} rewards"
            )
        if not self.allow_code and any(reward.startswith("file:") for reward in self.rewards):
            raise ValueError("method.allow_code: a reward is a Python file; look into it, then allow it to be run")
        return self


def rows_a_question(method: BaseModel) -> int:
    """How many rows of a batch a question takes: one for each of its answers; in online DPO a row is the pair."""
    return 1 if isinstance(method, OnlineDPOMethod) else int(getattr(method, "num_generations", 1))


def check_reward(reward: str) -> None:
    """Raises ValueError for a reward that there isn't, or one without what it needs."""
    name, _, argument = reward.partition(":")
    if name not in REWARDS:
        raise ValueError(f"method.rewards: there is no reward {name!r}; there are {', '.join(REWARDS)}")
    if bool(argument) == (name in _WITHOUT):
        wanted = "needs nothing behind it" if name in _WITHOUT else f"needs {REWARDS[name]}, as in {name}:..."
        raise ValueError(f"method.rewards: {name} {wanted}")
    if name == "format":
        try:
            re.compile(argument)
        except re.error as error:
            raise ValueError(f"method.rewards: {argument!r} is no regular expression ({error})") from None
    if name == "length" and not argument.isdigit():
        raise ValueError("method.rewards: length needs a number of tokens, as in length:200")


class GRPOMethod(Rewarded):
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300): several answers a question, each
    judged against the others."""

    name: Literal["grpo"] = "grpo"
    num_generations: int = knob(
        8,
        "Answers a question",
        "How many answers are tried for each question; more tell good from bad better and take longer.",
        group="method",
        ge=2,
        le=256,
        unit="answers",
    )
    beta: float = knob(
        0.0,
        "Hold to the reference (beta)",
        "How closely the model is held to what it was before; 0 doesn't, and needs no reference.",
        group="method",
        ge=0.0,
        le=100,
        rule="0.04 (arXiv:2402.03300); 0 (arXiv:2503.14476)",
    )
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo"] = knob(
        "dapo",
        "Loss",
        "How tokens of long and short answers are counted; dapo counts every token alike.",
        group="method",
    )
    scale_rewards: Literal["group", "batch", "none"] = knob(
        "group",
        "Scale of rewards",
        "Divides rewards by their spread in the group, in the batch, or not.",
        group="method",
    )
    num_iterations: int = knob(
        1, "Uses of an answer", "How many steps learn from the same answers.", group="method", ge=1, le=64
    )
    epsilon: float = knob(
        0.2,
        "Clip",
        "How far one step may move the odds of a token.",
        group="method",
        gt=0,
        le=10,
        rule="0.2 (arXiv:1707.06347)",
    )
    epsilon_high: float | None = knob(
        None,
        "Clip above",
        "The same for tokens that become likelier, where it is to differ.",
        group="method",
        gt=0,
        le=10,
        rule="0.28 (arXiv:2503.14476)",
    )
    mask_truncated_completions: bool = knob(
        False, "Skip cut answers", "Answers that reached the longest length teach nothing.", group="method"
    )


class RLOOMethod(Rewarded):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740): each answer against the mean of the others."""

    name: Literal["rloo"] = "rloo"
    num_generations: int = knob(
        4,
        "Answers a question",
        "How many answers are tried for each question; more tell good from bad better and take longer.",
        group="method",
        ge=2,
        le=256,
        unit="answers",
    )
    beta: float = knob(
        0.05,
        "Hold to the reference (beta)",
        "How closely the model is held to what it was before.",
        group="method",
        ge=0.0,
        le=100,
    )
    num_iterations: int = knob(
        1, "Uses of an answer", "How many steps learn from the same answers.", group="method", ge=1, le=64
    )
    epsilon: float = knob(0.2, "Clip", "How far one step may move the odds of an answer.", group="method", gt=0, le=10)
    normalize_advantages: bool = knob(
        False, "Scale advantages", "Gives the advantages of a batch mean 0 and spread 1.", group="method"
    )


class OnlineDPOMethod(Rewarded):
    """Online DPO (Guo et al. 2024, arXiv:2402.04792): two answers a question, the better one by the rewards."""

    name: Literal["online_dpo"] = "online_dpo"
    num_generations: Literal[2] = 2
    beta: float = knob(
        0.1,
        "Strength (beta)",
        "How closely the model is held to what it was before: higher changes less.",
        group="method",
        basic=True,
        gt=0,
        le=100,
    )
    loss_type: Literal["sigmoid", "ipo"] = knob("sigmoid", "Loss", "How better and worse are compared.", group="method")
    missing_eos_penalty: float | None = knob(
        None,
        "Penalty for no end",
        "Taken off the reward of answers that reach the longest length.",
        group="method",
        gt=0,
    )


class PPOMethod(Rewarded):
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347), as RLHF uses it (arXiv:2203.02155): a
    value head learns beside the model what an answer will be worth."""

    name: Literal["ppo"] = "ppo"
    num_generations: int = knob(
        1,
        "Answers a question",
        "How many answers are tried for each question.",
        group="method",
        ge=1,
        le=256,
        unit="answers",
    )
    num_ppo_epochs: int = knob(
        4, "Uses of an answer", "How many passes learn from the same answers.", group="method", ge=1, le=64
    )
    kl_coef: float = knob(
        0.05,
        "Hold to the reference",
        "What each bit of distance from the model before costs.",
        group="method",
        ge=0,
        le=10,
    )
    cliprange: float = knob(
        0.2,
        "Clip",
        "How far one step may move the odds of a token.",
        group="method",
        gt=0,
        le=10,
        rule="0.2 (arXiv:1707.06347)",
    )
    cliprange_value: float = knob(
        0.2, "Clip of the value", "How far one step may move what is expected.", group="method", gt=0, le=100
    )
    vf_coef: float = knob(0.1, "Weight of the value loss", "Beside the policy's loss.", group="method", ge=0, le=10)
    entropy_coef: float = knob(
        0.0,
        "Entropy bonus",
        "Rewards staying undecided, so that other answers go on being tried.",
        group="method",
        ge=0,
        le=1,
    )
    gamma: float = knob(1.0, "Discount", "How much a later token's reward counts now.", group="method", gt=0, le=1)
    lam: float = knob(
        0.95,
        "GAE lambda",
        "Between one step's view (0) and the whole answer's (1).",
        group="method",
        ge=0,
        le=1,
        rule="0.95 (arXiv:1506.02438)",
    )
    whiten_rewards: bool = knob(False, "Scale rewards", "Gives the rewards of a batch spread 1.", group="method")


class DistillMethod(Generating):
    """Distillation (arXiv:2306.13649): the model learns to give its words the chances that a larger one gives them."""

    name: Literal["distill"] = "distill"
    num_generations: Literal[1] = 1
    teacher_model_name_or_path: str = knob(
        "", "Teacher", "The model to learn from; it must have the same vocabulary.", group="method", basic=True
    )
    lmbda: float = knob(
        0.0,
        "Share of own answers",
        "How often the model learns on answers of its own instead of the dataset's; 0 never, which is quickest.",
        group="method",
        ge=0.0,
        le=1.0,
    )
    beta: float = knob(
        0.5,
        "Kind of distance (beta)",
        "0 covers all that the teacher might say, 1 sticks to what it says most; between them a mix.",
        group="method",
        ge=0.0,
        le=1.0,
    )
