"""RunConfig: every knob once, with its default, its bounds and its help.

In: nothing. Out: pydantic models, inert. The form, run.yaml, the command line and the docs are made from these fields;
reading and writing them is `configfile`'s, describing them to a form is `knobs`'s. Names are those of TRL, PEFT and
transformers. Knows nothing of files, processes or libraries that train.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.core.problems import PROBLEMS


def knob(
    default: Any, title: str, help: str, *, group: str = "", basic: bool = False, unit: str = "", **bounds: Any
) -> Any:
    """A pydantic Field with what a form needs beside it.

    `title` is the plain name, `help` one sentence a first-timer understands, `group` the fold it lives in, `basic`
    whether it stands in sight, `unit` what its number counts, `bounds` pydantic's own (ge, le, gt, lt, min_length).
    """
    extra: dict[str, Any] = {"group": group, "basic": basic, "unit": unit}
    return Field(default, title=title, description=help, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    """A part of run.yaml: unknown keys are refused, values are validated on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, protected_namespaces=())


class SFTMethod(Section):
    """Supervised fine-tuning: the model learns to give the answers in the dataset."""

    name: Literal["sft"] = "sft"


class ModelSection(Section):
    name_or_path: str = knob(
        "starter",
        "Model",
        "The model to teach: the built-in starter, a folder, a name on the Hugging Face hub, or an earlier run.",
        basic=True,
        min_length=1,
    )
    revision: str | None = knob(
        None,
        "Revision",
        "Which version of a hub model to take: a branch, tag or commit; empty takes the newest.",
        group="data",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob(
        "auto",
        "Number format",
        "How the model's numbers are held in memory; auto takes bfloat16 where the device computes it in hardware.",
        group="memory",
    )
    quantization: Literal["none", "nf4", "fp4", "int8"] = knob(
        "none",
        "Quantization",
        "Holds the base in 4 or 8 bits while an adapter is trained on it (QLoRA): far less memory, a bit slower.",
        group="memory",
    )
    double_quant: bool = knob(
        True,
        "Double quantization",
        "Also compresses the scales of a 4-bit model: saves about 0.4 bits a weight at no visible cost.",
        group="memory",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = knob(
        "auto",
        "Attention",
        "Which code computes attention; auto takes what was measured to be right for the device.",
        group="memory",
    )


class MixPart(Section):
    """One of several datasets that a run learns from together."""

    path: str = Field(min_length=1)
    weight: float | None = Field(None, gt=0)


class DatasetSection(Section):
    path: str | list[str | MixPart] = knob(
        "quickstart-sft",
        "Dataset",
        "What the model learns from: a registered dataset, a file or folder of rows, a name on the Hugging Face hub; "
        "or several of these, with weights.",
        basic=True,
        min_length=1,
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = knob(
        "first_exhausted",
        "A mix ends",
        "Where datasets are mixed by weight: when the first one is used up, or when all are (smaller ones repeat).",
        group="data",
    )
    format: Literal[
        "auto",
        "messages",
        "sharegpt",
        "alpaca",
        "prompt_completion",
        "prompt_only",
        "preference",
        "alpaca_preference",
        "sharegpt_preference",
        "ultrafeedback",
        "unpaired_preference",
        "alpaca_unpaired",
        "sharegpt_unpaired",
        "text",
    ] = knob("auto", "Layout", "How a row is laid out; auto recognises it from the columns.", group="data")
    columns: dict[str, str] = knob(
        {},
        "Column names",
        "Which of your columns stands for which expected one, where the names differ: expected: yours.",
        group="data",
    )
    tags: dict[str, str] = knob(
        {},
        "Role names",
        "How conversations name their parts, where it is not the usual way: role_tag, content_tag, user_tag, "
        "assistant_tag, system_tag, observation_tag, function_tag.",
        group="data",
    )
    system_prompt: str | None = knob(
        None, "System prompt", "Put before every row that has no system message of its own.", group="data"
    )
    exclude: list[str] | None = knob(
        None,
        "Leave out",
        "Kinds of problems whose rows are left out, such as duplicate or too_long; empty takes what the dataset says.",
        group="data",
    )
    exclude_rows: list[Annotated[int, Field(ge=0)]] = knob(
        [], "Leave out rows", "Single rows that are left out, counted from 0 as in the preview.", group="data"
    )
    validation_split: float = knob(
        0.1,
        "Held out for validation",
        "This part of the rows is never trained on; the loss on it tells learning from memorising. Below 1 a share, "
        "from 1 on a number of rows.",
        group="data",
        ge=0.0,
    )
    test_split: float = knob(
        0.0,
        "Held out for testing",
        "Set aside for a final evaluation after training. Below 1 a share, from 1 on a number of rows.",
        group="data",
        ge=0.0,
    )
    validation_path: str | None = knob(
        None,
        "Validation rows",
        "A dataset or file of its own to validate on, instead of a part of this one.",
        group="data",
    )
    stratify_by: str | None = knob(
        None,
        "Split evenly by",
        "A column whose values are to be equally frequent in each part of the split, such as a label or a language.",
        group="data",
    )
    group_duplicates: Literal["exact", "near", "off"] = knob(
        "exact",
        "Keep together in the split",
        "Rows that are the same (or nearly the same) never stand both in training and in validation.",
        group="data",
    )
    max_samples: int | None = knob(
        None,
        "Rows at most",
        "Uses only the first rows, for a quick trial; empty uses all.",
        group="data",
        ge=1,
        unit="rows",
    )
    train_on: Literal["assistant", "last_assistant", "all"] = knob(
        "assistant",
        "Learn from",
        "Which tokens carry loss: all of the assistant's answers, only the last one, or the whole text.",
        group="data",
    )

    @property
    def label(self) -> str:
        """The dataset's name, or those of a mix's parts."""
        parts = [self.path] if isinstance(self.path, str) else self.path
        return " + ".join(part if isinstance(part, str) else part.path for part in parts)

    @model_validator(mode="after")
    def _names_and_shares_are_possible(self) -> DatasetSection:
        # A rule over several knobs opens its message with the path of the one to show it at; configfile reads it off.
        shares = [part for part in (self.validation_split, self.test_split) if part < 1]
        if sum(shares) >= 1.0:
            raise ValueError(
                "dataset.validation_split: with test_split it leaves nothing to train on; both must stay below 1"
            )
        unknown = [kind for kind in self.exclude or () if kind not in PROBLEMS]
        if unknown:
            near = get_close_matches(unknown[0], PROBLEMS, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(PROBLEMS)}"
            raise ValueError(f"dataset.exclude: there is no kind of problem {unknown[0]!r}{hint}")
        for name in ("validation_split", "test_split"):
            part = getattr(self, name)
            if 0.9 < part < 1 or (part > 1 and part != int(part)):
                raise ValueError(f"dataset.{name}: should be a share of at most 0.9, or a whole number of rows")
        return self


class LoraAdapter(Section):
    """LoRA (Hu et al. 2021, arXiv:2106.09685): small matrices beside the frozen weights are trained instead of them."""

    type: Literal["lora"] = "lora"
    r: int = knob(
        16, "Rank", "Size of the adapter: more can learn more and takes more memory.", group="adapter", ge=1, le=1024
    )
    lora_alpha: float = knob(
        32,
        "Scale (alpha)",
        "How strongly the adapter acts; once or twice the rank is usual.",
        group="adapter",
        gt=0,
        le=4096,
    )
    lora_dropout: float = knob(
        0.0,
        "Dropout",
        "Share of the adapter's inputs left out at random, against memorising small datasets.",
        group="adapter",
        ge=0.0,
        lt=1.0,
    )
    target_modules: str | list[str] = knob(
        "all-linear",
        "Layers that get an adapter",
        "all-linear takes every linear layer but the head; or name modules, such as q_proj, v_proj.",
        group="adapter",
        min_length=1,
    )


class TrainingSection(Section):
    num_train_epochs: float = knob(3, "Epochs", "How many times the model sees every row.", basic=True, gt=0, le=1000)
    max_steps: int | None = knob(
        None,
        "Steps at most",
        "Ends after this many optimizer steps, whatever the epochs say.",
        group="optimizer",
        ge=1,
        unit="steps",
    )
    learning_rate: float = knob(
        2e-4,
        "Learning rate",
        "How big each step is; 2e-4 suits LoRA, 1e-5 to 5e-5 full fine-tuning.",
        basic=True,
        gt=0,
        le=1,
    )
    per_device_train_batch_size: int = knob(
        4,
        "Batch size",
        "Rows computed at once; more is faster and takes more memory.",
        basic=True,
        ge=1,
        le=4096,
        unit="rows",
    )
    gradient_accumulation_steps: int = knob(
        4,
        "Gradient accumulation",
        "Batches gathered before each step; batch size times this is what one step learns from.",
        basic=True,
        ge=1,
        le=4096,
        unit="batches",
    )
    max_length: int = knob(
        1024,
        "Longest row",
        "Rows with more tokens are cut here; counted and shown before training.",
        basic=True,
        ge=8,
        le=1_048_576,
        unit="tokens",
    )
    packing: bool = knob(
        False,
        "Packing",
        "Fills each row with several short examples, kept apart by their positions: faster where rows are short.",
        group="memory",
    )
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
    ] = knob("cosine", "Schedule", "How the learning rate moves during the run.", group="optimizer")
    warmup_ratio: float = knob(
        0.03,
        "Warm-up share",
        "Over this part of the run the learning rate rises from zero.",
        group="optimizer",
        ge=0.0,
        le=1.0,
    )
    weight_decay: float = knob(
        0.0,
        "Weight decay",
        "Pulls trained weights towards zero, against memorising.",
        group="optimizer",
        ge=0.0,
        le=10.0,
    )
    max_grad_norm: float = knob(
        1.0, "Gradient clipping", "Caps how hard one batch can push; 0 switches it off.", group="optimizer", ge=0.0
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = knob(
        "adamw_torch", "Optimizer", "The rule that turns gradients into steps.", group="optimizer"
    )
    gradient_checkpointing: Literal["auto"] | bool = knob(
        "auto",
        "Gradient checkpointing",
        "Recomputes instead of remembering: much less memory, about a third slower; auto uses it on a GPU.",
        group="memory",
    )
    use_reentrant: bool = knob(
        False,
        "Older checkpointing",
        "Recomputes in the way that older versions did: a little more memory; for models that need it.",
        group="memory",
    )
    autocast: Literal["auto"] | bool = knob(
        "auto",
        "Mixed precision",
        "Computes products in 16 bits whatever the weights are held in; auto does it unless the weights are float32, "
        "false computes in the weights' own format throughout.",
        group="memory",
    )
    train_sampling_strategy: Literal["auto", "random", "group_by_length", "sequential"] = knob(
        "auto",
        "Order of rows",
        "Rows of like length together waste less on padding; auto groups them by length unless they are packed.",
        group="memory",
    )
    seed: int = knob(42, "Seed", "The same seed and data repeat the same run.", group="optimizer", ge=0, le=2**32 - 1)
    logging_steps: int = knob(
        5, "Log every", "A point on the curves each so many steps.", group="checkpoints", ge=1, unit="steps"
    )
    eval_steps: int | None = knob(
        None,
        "Validate every",
        "Measures the loss on the held-out rows each so many steps; empty does it ten times a run.",
        group="checkpoints",
        ge=1,
        unit="steps",
    )
    save_steps: int | None = knob(
        None,
        "Checkpoint every",
        "Saves a state to go on from each so many steps; empty does it four times a run.",
        group="checkpoints",
        ge=1,
        unit="steps",
    )
    save_total_limit: int = knob(
        2,
        "Checkpoints kept",
        "Older ones are deleted once a newer one is complete.",
        group="checkpoints",
        ge=1,
        le=1000,
    )
    early_stopping_patience: int | None = knob(
        None,
        "Stop early after",
        "Ends the run when the validation loss hasn't improved for so many measurements; empty never does.",
        group="checkpoints",
        ge=1,
        unit="validations",
    )
    report_to: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = knob(
        [],
        "Also report to",
        "Trackers that get the curves too, where their packages are installed.",
        group="checkpoints",
    )


class HardwareSection(Section):
    device: str = knob(
        "auto",
        "Device",
        "Where to train; auto takes the graphics card if there is one, else the processor.",
        group="memory",
        pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$",
    )
    num_processes: int = knob(1, "Processes", "How many devices train together.", group="memory", ge=1, le=1)


class RunConfig(Section):
    """Everything a run is told. Defaults are chosen so that the empty config is a working run."""

    method: SFTMethod = SFTMethod()
    model: ModelSection = ModelSection()
    dataset: DatasetSection = DatasetSection()
    adapter: LoraAdapter | None = LoraAdapter()
    training: TrainingSection = TrainingSection()
    hardware: HardwareSection = HardwareSection()

    @model_validator(mode="after")
    def _quantized_weights_need_an_adapter(self) -> RunConfig:
        if self.model.quantization != "none" and self.adapter is None:
            raise ValueError("model.quantization: a model held in 4 or 8 bits can only be trained through an adapter")
        return self


Dtype = Literal["auto", "bfloat16", "float16", "float32"]


GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")
BNB_TYPES = ("nf4", "fp4", "int8")


class ExportConfig(Section):
    """What an export is told: which run (or, where adapters trained elsewhere are merged, which base), to what, where.

    `quantized_base`: whether a run on a base held in 4 or 8 bits is merged into that base as it was published, or into
    what the quantized weights stand for, which is what it was trained on.
    """

    run: str = Field(min_length=1)
    format: Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "bnb"] = "merged"
    out: str = Field(min_length=1)
    dtype: Dtype = "auto"
    quantization: Literal["auto", "f32", "f16", "bf16", "q8_0", "nf4", "fp4", "int8"] = "auto"
    shard_size: float = Field(default=5.0, gt=0, le=1000, description="Gigabytes a file at most.")
    quantized_base: Literal["original", "dequantized"] = "original"
    parity: bool = Field(default=True, description="Load what was written and compare it with base and adapter.")

    @model_validator(mode="after")
    def _quantization_is_one_of_the_formats(self) -> ExportConfig:
        known = {"gguf": GGUF_TYPES, "ollama": GGUF_TYPES, "bnb": BNB_TYPES}.get(self.format, ())
        if self.quantization != "auto" and self.quantization not in known:
            said = f"{self.format} knows {', '.join(known)}" if known else f"{self.format} has none; leave it out"
            raise ValueError(f"quantization: {said}")
        return self


class MergeConfig(Section):
    """What a merge of adapters trained elsewhere is told. `combination` and `density` are those of PEFT."""

    base: str = Field(min_length=1)
    adapters: list[str] = Field(min_length=1)
    out: str = Field(min_length=1)
    dtype: Dtype = "auto"
    shard_size: float = Field(default=5.0, gt=0, le=1000)
    weights: list[float] = []
    combination: Literal["linear", "cat", "svd", "ties", "dare_linear", "dare_ties"] = "cat"
    density: float = Field(default=0.5, gt=0, le=1)
    parity: bool = True

    @model_validator(mode="after")
    def _each_adapter_has_its_weight(self) -> MergeConfig:
        if self.weights and len(self.weights) != len(self.adapters):
            raise ValueError(
                f"weights: there are {len(self.weights)} weights for {len(self.adapters)} adapters; give one for each"
            )
        return self
