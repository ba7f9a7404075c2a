"""The commands `studio export` and `studio merge`: one thin function each.

In: arguments. Out: an export followed to its end; the folder it wrote, or one JSON object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studio.core.errors import StudioError
from studio.say import Json, put, say

Dtype = Annotated[str, typer.Option(help="auto (as the base), bfloat16, float16 or float32.")]
ShardSize = Annotated[float, typer.Option(help="Gigabytes a file at most.")]
Parity = Annotated[
    bool, typer.Option("--parity/--no-parity", help="Load what was written and compare it with base and adapter.")
]


def export(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    format: Annotated[str, typer.Option(help="adapter, merged, gguf, gguf-lora, ollama or bnb.")] = "merged",
    dtype: Dtype = "auto",
    quantization: Annotated[
        str,
        typer.Option(
            help="gguf and ollama: f32, f16, bf16, q8_0, and where llama.cpp's llama-quantize is q6_k, q5_k_m, "
            "q5_k_s, q4_k_m, q4_k_s, q4_0, q3_k_l, q3_k_m, q3_k_s, q2_k; bnb: nf4, fp4, int8."
        ),
    ] = "auto",
    shard_size: ShardSize = 5.0,
    quantized_base: Annotated[
        str, typer.Option(help="For a run on a 4- or 8-bit base: merge into the original, or dequantized weights.")
    ] = "original",
    parity: Parity = True,
    as_json: Json = False,
) -> None:
    """Write what a run has learnt as files that other programs load, and compare them with what was trained."""
    from studio.core.config import ExportConfig
    from studio.core.configfile import parse_as
    from studio.workspace.supervisor import Supervisor

    fields = {"run": run_id, "format": format, "out": str(out), "dtype": dtype, "shard_size": shard_size}
    more = {"quantization": quantization, "quantized_base": quantized_base, "parity": parity}
    config = parse_as(ExportConfig, {**fields, **more})
    supervisor = Supervisor()
    _follow_export(supervisor, supervisor.export(config), as_json)


def merge(
    base: Annotated[str, typer.Argument(help="starter, a folder or a name on the hub.")],
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Folders of adapters, or runs.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    dtype: Dtype = "auto",
    shard_size: ShardSize = 5.0,
    weights: Annotated[str, typer.Option(help="One number for each adapter, such as 0.7,0.3.")] = "",
    combination: Annotated[
        str, typer.Option(help="How several become one: cat (their exact sum), linear, svd, ties, dare_linear, ...")
    ] = "cat",
    density: Annotated[float, typer.Option(help="The share of changes that ties and dare keep.")] = 0.5,
    parity: Parity = True,
    as_json: Json = False,
) -> None:
    """Merge adapters that were trained elsewhere into their base."""
    from studio.core.config import MergeConfig
    from studio.core.configfile import parse_as
    from studio.workspace.supervisor import Supervisor

    fields = {"base": base, "adapters": adapters, "out": str(out), "dtype": dtype, "shard_size": shard_size}
    ways = {"combination": combination, "density": density, "weights": [w for w in weights.split(",") if w.strip()]}
    config = parse_as(MergeConfig, {**fields, **ways, "parity": parity})
    supervisor = Supervisor()
    _follow_export(supervisor, supervisor.merge(config), as_json)


def _follow_export(supervisor: Any, job: Any, as_json: bool) -> None:
    """Follow an export of a Supervisor to its end; what it made is the answer."""
    from studio.workspace import lmstudio
    from studio.workspace.follow import follow_export

    ended = follow_export(supervisor, job, say)
    supervisor.close()
    if ended.state.status != "finished":
        raise StudioError(ended.state.cause or "The export was stopped.", ended.state.hint)
    for note in ended.progress.notes:
        say(note.text)
    if (there := lmstudio.hint(ended.config.format, Path(ended.result["path"]))) is not None:
        say(f"LM Studio would find it as {there}.")
    put(ended.result, as_json, str(ended.result["path"]))
