"""What an export's writers are given: the job's config and inputs, read once.

In: a job's folder. Out: the Source, names, wishes with `auto` resolved, notes for the person, what the comparison that
follows is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.core.config import ExportConfig, ModelSection, RunConfig
from studio.core.configfile import parse_as, parse_config, read_yaml
from studio.core.errors import ModelError, RunError
from studio.core.inputs import Inputs
from studio.core.job import JobFolder, read_json
from studio.core.llamacpp import PROGRAM, QUANTIZED, VARIABLE, quantizer
from studio.worker.export.combine import combination
from studio.worker.export.source import Source
from studio.worker.job import Job
from studio.worker.models import fetch

BETWEEN = "between"  # in the staging folder: what is needed until the comparison, and no longer
_GGUF = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class Export:
    """Raises RunError where the run's output is gone, ConfigError for a damaged config, ModelError for a lost base."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.config = parse_as(ExportConfig, read_yaml(job.folder.export_config))
        self.inputs = Inputs.read(job.folder.inputs)
        self.where: dict[str, Any] = read_json(job.folder.path / "source.json") or {}
        output = Path(self.where.get("output", ""))
        if not self.where or not output.is_dir():
            raise RunError("The run's output is gone.", "Resume or repeat the run.")
        base = fetch(self.inputs.model, lambda text, done, total: job.stage("fetch", text, done, total, "bytes"))
        others = tuple(Path(path) for path in self.where.get("others", ()))
        shard_bytes = int(self.config.shard_size * 10**9)
        self.source = Source(base, output, self.config.dtype, self._report, shard_bytes, others, self._quantized_base())

    @cached_property
    def run_config(self) -> RunConfig | None:
        """The run's config; None for adapters that were trained elsewhere."""
        if "run" not in self.where:
            return None
        path = JobFolder(Path(self.where["run"])).run_config
        return parse_config(read_yaml(path)) if path.is_file() else None

    def _quantized_base(self) -> ModelSection | None:
        """How the run held its base, where that is what it is to be merged into. Raises RunError."""
        if self.config.quantized_base == "original" or self.config.format in ("adapter", "gguf-lora"):
            return None
        if self.run_config is None or self.run_config.model.quantization == "none":
            raise RunError("This run's base wasn't held in 4 or 8 bits.", "Leave out --quantized-base.")
        return self.run_config.model

    @property
    def combine(self) -> Callable[[Any], str] | None:
        """How several adapters become one."""
        way = self.where.get("combination")
        return combination(way, self.where["weights"], self.where["density"]) if way else None

    @property
    def label(self) -> str:
        return self.inputs.label or self.config.run

    @property
    def base_name(self) -> str:
        return self.inputs.model.name

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer lies that was trained with."""
        own = (self.source.output / "tokenizer_config.json").is_file()
        return self.source.output if own else self.source.base

    @property
    def gguf_type(self) -> str:
        wish: str = self.config.quantization
        return _GGUF[self.source.dtype()] if wish == "auto" else wish

    @property
    def written_type(self) -> str:
        """The number format that the studio writes: the file's, or that of what llama.cpp's quantizer is given."""
        if self.gguf_type not in QUANTIZED:
            return self.gguf_type
        dtype = self.source.dtype()
        return "f16" if dtype == "float32" and self.config.dtype == "auto" else _GGUF[dtype]

    def check_quantizer(self) -> None:
        """Raises ModelError where llama.cpp's quantizer is needed and isn't there."""
        if self.config.format in ("gguf", "ollama") and self.gguf_type in QUANTIZED and quantizer() is None:
            raise ModelError(
                f"{self.gguf_type} is made by llama.cpp's quantizer, and there is none on this machine.",
                f"Install llama.cpp so that {PROGRAM} is on the PATH, or name it in {VARIABLE}; f16 and q8_0 need "
                "neither.",
            )

    @property
    def gguf_name(self) -> str:
        return f"{Path(self.config.out).name}-{self.gguf_type}.gguf"

    @property
    def bnb_type(self) -> str:
        wish: str = self.config.quantization
        return "nf4" if wish == "auto" else wish

    def rounding(self) -> str:
        """What the written numbers were rounded to."""
        if self.config.format in ("gguf", "ollama"):
            return self.gguf_type
        return self.bnb_type if self.config.format == "bnb" else self.source.dtype()

    def parity_request(self, written: Path) -> dict[str, Any]:
        """What `parity` is asked."""
        source = self.source
        ways = {key: self.where.get(key) for key in ("combination", "weights", "density")}
        format = "gguf" if self.config.format == "ollama" else self.config.format
        rounding, made = self.rounding(), None
        if format == "gguf" and self.written_type != rounding:
            rounding, made, written = self.written_type, str(written / self.gguf_name), written / BETWEEN
        return {
            "base": str(source.weights),
            "adapters": [str(path) for path in source.adapters] if source.is_adapter else [],
            "written": str(written),
            "format": format,
            "quantization": rounding,
            "made": made,
            "dtype": source.dtype(),
            "keeps_dtypes": source.keeps_dtypes,
            "quantized": source.quantized.model_dump() if source.quantized else None,
            **ways,
        }

    def _report(self, text: str, done: int, total: int) -> None:
        self.job.check_stop()
        self.job.stage("write", text, done, total, "bytes")

    def note(self, text: str) -> None:
        self.job.note("warning", text)
