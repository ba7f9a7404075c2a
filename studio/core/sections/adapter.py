"""What is trained beside the frozen weights, or which few of them: every kind of adapter, named as PEFT names it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from studio.core.sections.section import Section, knob

# What target_modules may be beside names and a pattern.
WORDS = ("all-linear", "attention")
# Starts that take the adapter's first values out of the base's weights: what is left of them is trained on.
RESIDUAL = ("pissa", "pissa_niter_16", "olora")


class Adapter(Section):
    """What all kinds share."""

    @property
    def is_peft(self) -> bool:
        """Whether PEFT makes it, as files of its own; else some of the model's own weights are trained."""
        return True

    @property
    def merges(self) -> bool:
        """Whether it can become part of the model's weights."""
        return True


class Continued(Adapter):
    """An adapter that may begin where an earlier one ended."""

    continue_from: str | None = knob(
        None,
        "Go on from",
        "An earlier run (run:<id>) or a folder with an adapter of the same kind, whose weights are trained on.",
        group="adapter",
    )


class Targeted(Continued):
    """An adapter on some of the model's layers."""

    target_modules: str | list[str] = knob(
        "all-linear",
        "Layers that get an adapter",
        "all-linear takes every linear layer but the head, attention those of attention alone; or name modules, such "
        "as q_proj, v_proj.",
        group="adapter",
        min_length=1,
        rule="all-linear (arXiv:2305.14314, section 4)",
    )
    layers_to_transform: list[Annotated[int, Field(ge=0)]] | None = knob(
        None, "Only these layers", "Counted from 0; empty takes all.", group="adapter"
    )
    modules_to_save: list[str] = knob(
        [],
        "Modules trained whole",
        "Trained as they are and kept beside the adapter, such as embed_tokens, lm_head.",
        group="adapter",
    )

    @model_validator(mode="after")
    def _a_pattern_names_its_layers_itself(self) -> Targeted:
        wish = self.target_modules
        if self.layers_to_transform is not None:
            if not self.layers_to_transform:
                raise ValueError("adapter.layers_to_transform: no layer is left; leave it empty for all of them")
            if isinstance(wish, str) and wish not in WORDS:
                raise ValueError(
                    "adapter.layers_to_transform: a pattern in target_modules names its layers itself; put them there"
                )
        return self


class LoraAdapter(Targeted):
    """LoRA (Hu et al. 2021, arXiv:2106.09685): small matrices beside the frozen weights are trained instead of them."""

    type: Literal["lora"] = "lora"
    r: int = knob(
        16,
        "Rank",
        "Size of the adapter: more can learn more and takes more memory.",
        group="adapter",
        ge=1,
        le=1024,
        rule="8 to 64; beyond 256 little is gained (arXiv:2106.09685, section 7.2)",
    )
    lora_alpha: float = knob(
        32,
        "Scale (alpha)",
        "How strongly the adapter acts; once or twice the rank is usual.",
        group="adapter",
        gt=0,
        le=4096,
        rule="0.5 to 2 times the rank (arXiv:2106.09685, section 4.1)",
    )
    lora_dropout: float = knob(
        0.0,
        "Dropout",
        "Share of the adapter's inputs left out at random, against memorising small datasets.",
        group="adapter",
        ge=0.0,
        lt=1.0,
        rule="0.1 up to 13B, 0.05 above (arXiv:2305.14314, appendix B)",
    )
    autocast_adapter_dtype: Literal["auto"] | bool = knob(
        "auto",
        "Adapter in float32",
        "Whether the adapter's own numbers are float32 where the model's have 16 bits; auto does so, but over a "
        "quantized model.",
        group="adapter",
    )
    use_rslora: bool = knob(
        False,
        "Rank-stabilised",
        "Scales by the root of the rank (rsLoRA), so that high ranks learn as they could.",
        group="adapter",
        rule="for ranks above 64 (arXiv:2312.03732)",
    )
    use_dora: bool = knob(
        False,
        "Direction and length apart (DoRA)",
        "Learns a weight's direction and length separately: closer to full training, slower.",
        group="adapter",
        rule="arXiv:2402.09353",
    )
    init_lora_weights: Literal[
        "default", "gaussian", "pissa", "pissa_niter_16", "olora", "eva", "loftq", "orthogonal"
    ] = knob(
        "default",
        "First values",
        "Where the adapter starts: default changes nothing at first; pissa and olora take their start out of the "
        "base's weights, eva looks at the data, loftq makes good what 4 bits lose.",
        group="adapter",
        rule="pissa: arXiv:2404.02948, olora: 2406.01775, eva: 2410.07170, loftq: 2310.08659",
    )
    eva_rho: float = knob(
        2.0,
        "Uneven ranks (EVA)",
        "How many times the rank one layer may get, at others' cost, by what the data asks for; 1 gives all the same.",
        group="adapter",
        ge=1,
        le=10,
        rule="1 to 2 (arXiv:2410.07170, section 4)",
    )
    loraplus_lr_ratio: float | None = knob(
        None,
        "Faster B (LoRA+)",
        "The second matrix learns so many times as fast as the first; empty treats both alike.",
        group="adapter",
        ge=1,
        le=1000,
        rule="16 (arXiv:2402.12354)",
    )
    rank_pattern: dict[str, int] = knob(
        {}, "Ranks by layer", "Other ranks for modules that match a name: pattern: rank.", group="adapter"
    )
    alpha_pattern: dict[str, float] = knob(
        {}, "Scales by layer", "Other alphas for modules that match a name: pattern: alpha.", group="adapter"
    )
    trainable_token_indices: list[Annotated[int, Field(ge=0)]] | None = knob(
        None,
        "Tokens to train",
        "Ids of tokens whose embeddings are trained too, such as newly added ones.",
        group="adapter",
    )

    @model_validator(mode="after")
    def _starts_that_can_be(self) -> LoraAdapter:
        start = self.init_lora_weights
        if start == "orthogonal" and any(r % 2 for r in (self.r, *self.rank_pattern.values())):
            raise ValueError("adapter.r: the orthogonal start needs an even rank")
        if any(r < 1 for r in self.rank_pattern.values()):
            raise ValueError("adapter.rank_pattern: ranks are 1 or more")
        if start == "eva" and self.rank_pattern:
            raise ValueError("adapter.rank_pattern: eva shares the ranks out by itself; leave it empty")
        if start != "default" and self.continue_from:
            raise ValueError(
                f"adapter.continue_from: an adapter that goes on has its values already; set init_lora_weights to "
                f"default instead of {start}"
            )
        if self.trainable_token_indices is not None:
            if not self.trainable_token_indices:
                raise ValueError("adapter.trainable_token_indices: name some tokens, or leave it empty")
            if any(name.endswith("embed_tokens") for name in self.modules_to_save):
                raise ValueError(
                    "adapter.trainable_token_indices: modules_to_save trains all embeddings already; take one of them"
                )
        return self


class AdaLoraAdapter(Targeted):
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): LoRA that moves rank to where it helps."""

    type: Literal["adalora"] = "adalora"
    init_r: int = knob(12, "Rank at first", "Every layer starts with this rank.", group="adapter", ge=1, le=1024)
    target_r: int = knob(8, "Rank on average", "What is left of it in the end.", group="adapter", ge=1, le=1024)
    lora_alpha: float = knob(32, "Scale (alpha)", "How strongly the adapter acts.", group="adapter", gt=0, le=4096)
    lora_dropout: float = knob(
        0.0, "Dropout", "Share of the adapter's inputs left out at random.", group="adapter", ge=0.0, lt=1.0
    )
    orth_reg_weight: float = knob(
        0.5, "Orthogonality", "How strongly the adapter's directions are kept apart.", group="adapter", gt=0, le=10
    )

    @model_validator(mode="after")
    def _rank_shrinks(self) -> AdaLoraAdapter:
        if self.target_r > self.init_r:
            raise ValueError("adapter.target_r: AdaLoRA gives up ranks; it can't be above init_r")
        return self


class IA3Adapter(Targeted):
    """IA3 (Liu et al. 2022, arXiv:2205.05638): one factor for each of a layer's outputs; the smallest adapter."""

    type: Literal["ia3"] = "ia3"
    feedforward_modules: list[str] = knob(
        [],
        "Layers scaled at their inputs",
        "Of the layers above, those whose inputs get the factors instead of their outputs.",
        group="adapter",
        rule="the last of the feed-forward part, such as down_proj (arXiv:2205.05638, section 3.3)",
    )


class VeraAdapter(Targeted):
    """VeRA (Kopiczko et al. 2023, arXiv:2310.11454): two vectors a layer, over random matrices that all share."""

    type: Literal["vera"] = "vera"
    r: int = knob(256, "Rank", "Of the shared random matrices.", group="adapter", ge=1, le=4096)
    vera_dropout: float = knob(
        0.0, "Dropout", "Share of the adapter's inputs left out at random.", group="adapter", ge=0.0, lt=1.0
    )
    d_initial: float = knob(0.1, "First value", "Of the vector inside.", group="adapter", gt=0, le=10)


class LoHaAdapter(Targeted):
    """LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098): the product, entry by entry, of two small matrix products."""

    type: Literal["loha"] = "loha"
    r: int = knob(8, "Rank", "Size of the adapter.", group="adapter", ge=1, le=1024)
    alpha: float = knob(8, "Scale (alpha)", "How strongly the adapter acts.", group="adapter", gt=0, le=4096)
    rank_dropout: float = knob(
        0.0, "Rank dropout", "Share of the ranks left out at random.", group="adapter", ge=0, lt=1
    )
    module_dropout: float = knob(
        0.0, "Module dropout", "How often a whole layer's adapter is left out.", group="adapter", ge=0, lt=1
    )


class LoKrAdapter(Targeted):
    """LoKr (Yeh et al. 2023, arXiv:2309.14859): a Kronecker product of small matrices."""

    type: Literal["lokr"] = "lokr"
    r: int = knob(8, "Rank", "Size of the adapter.", group="adapter", ge=1, le=1024)
    alpha: float = knob(8, "Scale (alpha)", "How strongly the adapter acts.", group="adapter", gt=0, le=4096)
    decompose_both: bool = knob(
        False, "Split both factors", "Makes small matrices of both factors: a smaller adapter.", group="adapter"
    )
    decompose_factor: int = knob(
        -1,
        "Size of a factor",
        "-1 takes the nearest to the root of the layer's size.",
        group="adapter",
        ge=-1,
        le=65536,
    )
    rank_dropout: float = knob(
        0.0, "Rank dropout", "Share of the ranks left out at random.", group="adapter", ge=0, lt=1
    )
    module_dropout: float = knob(
        0.0, "Module dropout", "How often a whole layer's adapter is left out.", group="adapter", ge=0, lt=1
    )


class OFTAdapter(Targeted):
    """OFT (Qiu et al. 2023, arXiv:2306.07280): turns a layer's inputs instead of adding to its weights."""

    type: Literal["oft"] = "oft"
    oft_block_size: int = knob(
        32,
        "Block size",
        "Inputs are turned in blocks of this many; it has to divide them.",
        group="adapter",
        ge=2,
        le=4096,
    )
    module_dropout: float = knob(
        0.0, "Module dropout", "How often a whole layer's adapter is left out.", group="adapter", ge=0, lt=1
    )
    coft: bool = knob(False, "Constrained", "Keeps the turn small.", group="adapter")


class BOFTAdapter(Targeted):
    """BOFT (Liu et al. 2023, arXiv:2311.06243): OFT whose turn is a product of sparse ones, as in an FFT."""

    type: Literal["boft"] = "boft"
    boft_block_size: int = knob(
        4,
        "Block size",
        "Inputs are turned in blocks of this many; it has to divide them.",
        group="adapter",
        ge=2,
        le=4096,
    )
    boft_n_butterfly_factor: int = knob(
        1,
        "Factors",
        "How many sparse turns are multiplied; above 1 on NVIDIA cards only.",
        group="adapter",
        ge=1,
        le=16,
    )
    boft_dropout: float = knob(0.0, "Dropout", "Share of the blocks left out at random.", group="adapter", ge=0, lt=1)


class Prompting(Continued):
    """Learnt vectors in front of what the model reads; the model's own weights stay apart from them."""

    num_virtual_tokens: int = knob(
        20, "Virtual tokens", "How many learnt vectors stand in front.", group="adapter", ge=1, le=4096, unit="tokens"
    )

    @property
    def merges(self) -> bool:
        return False


class PrefixTuningAdapter(Prompting):
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learnt keys and values in front of every layer's."""

    type: Literal["prefix_tuning"] = "prefix_tuning"
    prefix_projection: bool = knob(
        False, "Through a small network", "Learns the vectors by way of a network: steadier, larger.", group="adapter"
    )


class PromptTuningAdapter(Prompting):
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learnt vectors in front of the text."""

    type: Literal["prompt_tuning"] = "prompt_tuning"
    prompt_tuning_init_text: str | None = knob(
        None, "First words", "The vectors start as these words; empty starts anywhere.", group="adapter"
    )


class PTuningAdapter(Prompting):
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): prompt tuning whose vectors come out of a small network."""

    type: Literal["p_tuning"] = "p_tuning"
    encoder_hidden_size: int | None = knob(
        None, "Width of the network", "Empty takes the model's own.", group="adapter", ge=1, le=65536
    )


class LNTuningAdapter(Continued):
    """LN tuning (Zhao et al. 2023, arXiv:2312.11420): only the norms' weights are trained."""

    type: Literal["ln_tuning"] = "ln_tuning"


class FreezeAdapter(Adapter):
    """The last layers are trained as they are, all others stay; what comes out is a whole model."""

    type: Literal["freeze"] = "freeze"
    trained_layers: int = knob(
        2,
        "Layers trained",
        "The last so many; all before them stay as they are.",
        group="adapter",
        ge=1,
        le=1000,
        unit="layers",
    )
    train_head: bool = knob(True, "Train the head", "Also the last norm and the head.", group="adapter")

    @property
    def is_peft(self) -> bool:
        return False


AnyAdapter = Annotated[
    LoraAdapter
    | AdaLoraAdapter
    | IA3Adapter
    | VeraAdapter
    | LoHaAdapter
    | LoKrAdapter
    | OFTAdapter
    | BOFTAdapter
    | PrefixTuningAdapter
    | PromptTuningAdapter
    | PTuningAdapter
    | LNTuningAdapter
    | FreezeAdapter,
    Field(discriminator="type"),
]
