"""RunConfig: every knob once, with its default, its bounds and its help.

In: nothing. Out: pydantic models, inert. The form, run.yaml, the command line and the docs are made from these fields;
reading and writing them is `configfile`'s, describing them to a form is `knobs`'s. Names are those of TRL, PEFT and
transformers. Knows nothing of files, processes or libraries that train.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


class DatasetSection(Section):
    path: str = knob(
        "quickstart-sft",
        "Dataset",
        "What the model learns from: a registered dataset's name, or a file of rows (jsonl, json, csv, parquet).",
        basic=True,
        min_length=1,
    )
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text"] = knob(
        "auto", "Layout", "How a row is laid out; auto recognises it from the columns.", group="data"
    )
    columns: dict[str, str] = knob(
        {},
        "Column names",
        "Which of your columns stands for which expected one, where the names differ: expected: yours.",
        group="data",
    )
    system_prompt: str | None = knob(
        None, "System prompt", "Put before every row that has no system message of its own.", group="data"
    )
    validation_split: float = knob(
        0.1,
        "Share held out for validation",
        "This part of the rows is never trained on; the loss on it tells learning from memorising.",
        group="data",
        ge=0.0,
        le=0.9,
    )
    test_split: float = knob(
        0.0,
        "Share held out for testing",
        "Set aside for a final evaluation after training.",
        group="data",
        ge=0.0,
        le=0.9,
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

    @model_validator(mode="after")
    def _splits_leave_rows_to_train_on(self) -> DatasetSection:
        # A rule over several knobs opens its message with the path of the one to show it at; configfile reads it off.
        if self.validation_split + self.test_split >= 1.0:
            raise ValueError(
                "dataset.validation_split: with test_split it leaves nothing to train on; both must stay below 1"
            )
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


class ExportConfig(Section):
    """What an export is told: which run, to what, where."""

    run: str = Field(min_length=1)
    format: Literal["adapter", "merged"] = "merged"
    out: str = Field(min_length=1)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
