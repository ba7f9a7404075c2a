"""Talking to a base model and what was trained on it, side by side, on one copy of the base.

In: a base, perhaps an adapter; conversations. Out: pieces of text, column by column, as they are generated. The
adapter is on for one row of the batch and off for the other, so that comparing costs hardly more than talking to one.
Knows no pipe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ModelError, TemplateError
from studio.core.example import Example
from studio.core.inputs import ModelInput
from studio.core.job import read_json
from studio.worker.closing import ends_of
from studio.worker.device import Setup, resolve
from studio.worker.encode import Encoder
from studio.worker.models import fetch, gives_scores, load_model, load_tokenizer, scores_only

TUNED = "tuned"
BASE = "base"
_NO_ADAPTER = "__base__"  # PEFT's own word for it, in `adapter_names`


class ChatModel:
    """One loaded base with, perhaps, one adapter on it; or a wholly trained model beside its base."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._tokenizer: Any = None
        self.setup: Setup | None = None
        self._adapter = False
        self._stop = threading.Event()

    def load(self, request: dict[str, Any], part: Any) -> dict[str, Any]:
        """Fields: `base` (ModelInput as dict), `model` (config section as dict), `tuned` (folder of an adapter or
        model, or None).
        """

        def report(text: str, done: int | None, total: int | None) -> None:
            part({"text": text, "done": done, "total": total})

        wanted = {name: request.get(name) for name in ("base", "model", "tuned")}
        if wanted != self._loaded:
            self._loaded, self._models, self._tokenizer = (
                {},
                {},
                None,
            )  # the old one is freed before the new one is made
            config = parse_config({"model": {**(request.get("model") or {}), "name_or_path": "given"}})
            folder = fetch(ModelInput(**request["base"]), report)
            report("Loading the model", None, None)
            self._load(config, folder, Path(request["tuned"]) if request.get("tuned") else None)
            self._loaded = wanted
        return {"columns": [BASE, TUNED] if request.get("tuned") else [BASE]}

    def _load(self, config: RunConfig, folder: Path, tuned: Path | None) -> None:
        self.setup = setup = resolve(config)
        self._adapter = bool(tuned and (tuned / "adapter_config.json").is_file())
        if tuned and gives_scores(read_json(tuned / ("adapter_config.json" if self._adapter else "config.json"))):
            raise scores_only("This run")
        base = load_model(folder, config.model, setup)
        source = tuned if tuned and (tuned / "tokenizer_config.json").is_file() else folder
        self._tokenizer = load_tokenizer(source)
        if tuned and self._adapter:
            if not (tuned / "adapter_model.safetensors").is_file():
                raise ModelError(f"The adapter in {tuned} has no safetensors weights.", "Resume or repeat its run.")
            from peft import PeftModel

            base = PeftModel.from_pretrained(base, str(tuned), adapter_name=TUNED, is_trainable=False)
        self._models = {BASE: base.eval(), TUNED: base}
        if tuned and not self._adapter:
            self._models[TUNED] = load_model(tuned, config.model, setup).eval()

    def stop(self) -> None:
        """End the generation that is going on; what has been said stays."""
        self._stop.set()

    def generate(self, request: dict[str, Any], part: Any) -> dict[str, Any]:
        """Fields: `conversations` {column: messages}, `temperature` (0: greedy), `top_p`, `max_new_tokens`, `seed`.

        Parts: {"column", "text", "done", "tokens", "seconds"}.
        """
        if not self._models:
            raise ModelError("No model is loaded.", "Choose one first.")
        self._stop.clear()
        conversations: dict[str, list[dict[str, str]]] = request["conversations"]
        if request.get("seed") is not None:
            torch.manual_seed(int(request["seed"]))
        began = time.monotonic()
        if self._adapter or len(conversations) == 1:
            groups = [list(conversations)]
        else:
            groups = [[column] for column in conversations]
        counts: dict[str, int] = {}
        for columns in groups:
            counts |= self._generate(columns, conversations, request, part)
        return {"seconds": time.monotonic() - began, "tokens": counts, "stopped": self._stop.is_set()}

    @property
    def tokenizer(self) -> Any:
        """The loaded model's; None before."""
        return self._tokenizer

    def sample(self, questions: Sequence[Example], request: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
        """An answer drawn to each question, all at once, by what was trained (the base where nothing was).

        Fields as generate's. Gives the tokens of each question and of its answer, with the one that ends it.
        """
        if not self._models:
            raise ModelError("No model is loaded.", "Choose one first.")
        self._stop.clear()
        if request.get("seed") is not None:
            torch.manual_seed(int(request["seed"]))
        column = TUNED if self._loaded.get("tuned") else BASE
        model = self._models[column]
        batch = self._encode(questions).to(model.device)
        written = self._written(model, batch, [column] * len(questions), request)[:, batch["input_ids"].shape[1] :]
        ends, found = set(ends_of(model, self._tokenizer)), []
        for ids, mask, answer in zip(batch["input_ids"], batch["attention_mask"], written.tolist(), strict=True):
            last = next((place for place, token in enumerate(answer) if token in ends), len(answer))
            found.append((ids[mask.bool()].tolist(), answer[: last + 1]))
        return found

    def _generate(
        self, columns: list[str], conversations: dict[str, Any], request: dict[str, Any], part: Any
    ) -> dict[str, int]:
        model, tokenizer = self._models[columns[0]], self._tokenizer
        asked = [Example(prompt=tuple(conversations[column])) for column in columns]
        streamer = ColumnStreamer(tokenizer, columns, ends_of(model, tokenizer), part)
        self._written(model, self._encode(asked).to(model.device), columns, request, streamer)
        return streamer.finish()

    def _written(
        self, model: Any, batch: Any, columns: Sequence[str], request: dict[str, Any], streamer: Any = None
    ) -> torch.Tensor:
        """(B, T): questions and answers."""
        tokenizer = self._tokenizer
        temperature = float(request.get("temperature", 0.7))
        options: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            options |= {"temperature": temperature, "top_p": float(request.get("top_p", 0.95)), "top_k": 0}
        settings = GenerationConfig(
            **options,
            max_new_tokens=int(request.get("max_new_tokens", 256)),
            eos_token_id=ends_of(model, tokenizer),
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
        adapters = {"adapter_names": [TUNED if c == TUNED else _NO_ADAPTER for c in columns]} if self._adapter else {}
        with torch.inference_mode():
            written: torch.Tensor = model.generate(
                **batch,
                **adapters,
                generation_config=settings,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([_Stop(self._stop)]),
            )
        return written

    def _encode(self, questions: Sequence[Example]) -> Any:
        tokenizer = self._tokenizer
        if not tokenizer.chat_template and any(question.conversational for question in questions):
            raise TemplateError(
                "This model has no chat template, so it can't hold a conversation.", "Choose a chat model."
            )
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # As in training: what a person types is text, even where it spells one of the model's special tokens.
        encoder = Encoder(tokenizer)
        asked = [encoder.encode(question).ids for question in questions]
        return tokenizer.pad({"input_ids": asked}, return_tensors="pt")


class _Stop(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device, dtype=torch.bool)


class ColumnStreamer(BaseStreamer):  # type: ignore[misc]
    """Turns each step's tokens, one a column, into text as it becomes readable.

    A token may hold half a character; text is passed on only up to where it can't change any more.
    """

    def __init__(self, tokenizer: Any, columns: list[str], ends: list[int], part: Any) -> None:
        self.tokenizer = tokenizer
        self.columns = columns
        self.ends = set(ends)
        self.part = part
        self.ids: list[list[int]] = [[] for _ in columns]
        self.said = ["" for _ in columns]
        self.open = [True for _ in columns]
        self.seconds = [0.0 for _ in columns]
        self._began = time.monotonic()
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._prompt:  # generate() hands over the prompt first
            self._prompt = False
            return
        for i, token in enumerate(value.reshape(-1).tolist()):
            if not self.open[i]:
                continue
            self.seconds[i] = time.monotonic() - self._began
            if token in self.ends:
                self._close(i)
            else:
                self.ids[i].append(token)
                self._say(i, last=False)

    def end(self) -> None:
        """Part of the streamer's interface; columns that are still open are closed by `finish`."""

    def finish(self) -> dict[str, int]:
        """Close what is open; returns the number of tokens of each column."""
        for i in range(len(self.columns)):
            if self.open[i]:
                self._close(i)
        return {column: len(ids) for column, ids in zip(self.columns, self.ids, strict=True)}

    def _close(self, i: int) -> None:
        self._say(i, last=True)
        self.open[i] = False
        self.part(
            {
                "column": self.columns[i],
                "text": "",
                "done": True,
                "tokens": len(self.ids[i]),
                "seconds": self.seconds[i],
            }
        )

    def _say(self, i: int, last: bool) -> None:
        text = self.tokenizer.decode(self.ids[i], skip_special_tokens=True)
        if not last and text.endswith("\ufffd"):
            return
        new = text[len(self.said[i]) :]
        if new:
            self.said[i] = text
            self.part({"column": self.columns[i], "text": new, "done": False, "tokens": len(self.ids[i])})
