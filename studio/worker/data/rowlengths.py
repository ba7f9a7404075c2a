"""The length in tokens of every row, under the model's own tokenizer and template: what decides the largest batch.

In: a Source, a section, a tokenizer. Out: how many rows have which length, exactly, and how many tokens carry loss.
Memory doesn't grow with the rows, only with the number of different lengths. Of a model that isn't here only the
tokenizer is fetched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection
from studio.core.errors import ModelError
from studio.core.inputs import DatasetInput, ModelInput
from studio.worker.data.examine import layouts_of
from studio.worker.data.judge import Judge, Wanted
from studio.worker.data.judging import judged, workers_for
from studio.worker.data.source import Progress, Source, open_source, quiet, reporting
from studio.worker.encode import Encoder

_WORD_EVERY = 200  # rows between two words of progress
_WHOLE = 1 << 40  # rows are measured uncut
# What a tokenizer is made of; never weights.
_TOKENIZER_FILES = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "config.json", "*.jinja", "vocab.*",
                    "merges.txt", "*.tiktoken", "generation_config.json"]  # fmt: skip


def lengths_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Answers as `lengths`. Fields of the request: `dataset`, `section`, `model`."""
    from studio.worker.models import load_tokenizer

    report = reporting(part)
    tokenizer = load_tokenizer(_tokenizer_folder(ModelInput(**request["model"]), report))
    section = DatasetSection(**request["section"])
    return lengths(open_source(DatasetInput.from_dict(request["dataset"])), section, tokenizer, report)


def lengths(source: Source, section: DatasetSection, tokenizer: Any, progress: Progress = quiet) -> dict[str, Any]:
    """`counts`: pairs of a length and the number of rows that have it, longest first; of a pair of answers it is the
    longer one's. `rows` can be used, `tokens` are in them, `loss` of these are learnt from. Raises DataError.
    """
    wanted = Wanted(section.system_prompt, _WHOLE, kinds=())
    judge = Judge(layouts_of(section, source), Encoder(tokenizer, section.train_on), wanted)
    left_out = set(section.exclude_rows)
    counts: Counter[int] = Counter()
    rows = tokens = loss = 0

    def look_up() -> None:
        progress("Counting tokens", None, source.total)

    lines = islice(source.iterate(), section.max_samples)
    for seen, verdict in enumerate(judged(lines, judge, workers_for(judge, source.bytes), look_up)):
        if seen % _WORD_EVERY == 0:
            progress("Counting tokens", seen, source.total)
        if verdict.usable and verdict.position not in left_out:
            counts[verdict.longest] += 1
            rows, tokens, loss = rows + 1, tokens + verdict.length, loss + verdict.loss
    return {"counts": sorted(counts.items(), reverse=True), "rows": rows, "tokens": tokens, "loss": loss}


def _tokenizer_folder(model: ModelInput, report: Progress) -> Path:
    """Where the tokenizer's files are. Raises ModelError where they can't be had without fetching weights."""
    if model.kind != "hub":
        folder = Path(model.path or "")
        if not (folder / "tokenizer_config.json").is_file() and not (folder / "tokenizer.json").is_file():
            raise ModelError("The model's tokenizer isn't here yet.", "Fetch the model.")
        return folder
    from huggingface_hub import get_session, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    options: dict[str, Any] = {"revision": model.revision, "allow_patterns": _TOKENIZER_FILES}
    try:
        folder = Path(snapshot_download(model.name, **options, local_files_only=True))
        if (folder / "tokenizer.json").is_file():
            return folder
    except (LocalEntryNotFoundError, ValueError):
        pass
    report("Fetching the tokenizer", None, None)
    get_session().timeout = 10.0
    try:
        return Path(snapshot_download(model.name, **options))
    except Exception as error:  # noqa: BLE001 - whatever the hub, the network or its client come up with
        raise ModelError(
            f"The tokenizer of {model.name} can't be fetched ({type(error).__name__}).", "Connect to the internet."
        ) from None
