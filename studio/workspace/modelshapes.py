"""The shapes of models by the names that run.yaml gives them: folders, runs, the starter, the hub.

In: a name. Out: a ModelShape, from safetensors' headers where they can be read (of a hub model by range requests, so
that nothing is downloaded), else from config.json. What the hub says is kept in $STUDIO_HOME/cache/shapes. An
architecture that no table knows is built without numbers by whoever was given as `build`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.errors import ConfigError, ModelError, StudioError
from studio.core.job import read_json, write_text
from studio.core.shapes import ModelShape, Tensor, from_config, from_folder, from_skeleton, from_tensors
from studio.workspace.home import existing, models_dir
from studio.workspace.models import STARTER, cached_snapshot, resolve_model

_PATIENCE = 10.0  # seconds for the hub to answer a question
# SmolLM2-135M-Instruct, which `starter` stands for, as its config.json on the hub says.
_STARTER: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
    "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip

# A config.json -> {"config", "tensors": [[name, shape, dtype], ...]}, as worker/skeletons.py answers.
Build = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class ShapeState:
    """A model's shape if it is known; `busy`: it is being asked for; else `problem` says in plain words why not."""

    shape: ModelShape | None
    problem: str = ""
    busy: bool = False


@dataclass(frozen=True)
class _Place:
    """Where a model's files are, and what they are at the moment; `folder` None: on the hub."""

    folder: Path | None
    stamp: tuple[tuple[str, int, int], ...]
    hub: tuple[str, str | None] | None = None


class ModelShapes:
    """See the module. `build` lists the tensors of a config's model; None: nobody can."""

    def __init__(self, cache: Path, build: Build | None = None) -> None:
        self._cache = cache
        self._build = build
        self._known: dict[_Place, ModelShape] = {}
        self._problems: dict[_Place, str] = {}
        self._asking: dict[_Place, threading.Thread] = {}
        self._lock = threading.Lock()

    def shape(self, name: str, revision: str | None = None) -> ModelShape:
        """Waits for the hub if need be. Raises ConfigError, ModelError."""
        return self._look_up(self._place(name, revision))

    def soon(self, name: str, revision: str | None = None) -> ShapeState:
        """What is known now; what has to be asked for is asked for in the background, once."""
        try:
            place = self._place(name, revision)
            if place in self._known:
                return ShapeState(self._known[place])
            if place.folder is not None and self._build is None:
                return ShapeState(self._look_up(place))
        except StudioError as error:
            return ShapeState(None, str(error))
        with self._lock:
            if place in self._problems:
                return ShapeState(None, self._problems[place])
            if place not in self._asking:
                thread = threading.Thread(target=self._ask, args=(place,), name="model shape", daemon=True)
                self._asking[place] = thread
                thread.start()
            thread = self._asking[place]
        thread.join(0.02)  # what lies on this machine is there by then
        if place in self._known:
            return ShapeState(self._known[place])
        problem = self._problems.get(place, "")
        return ShapeState(None, problem, busy=not problem)

    def files(self, name: str, revision: str | None = None) -> list[int] | None:
        """Sizes in bytes of the weights' files; None where they are yet to be fetched. Raises ConfigError."""
        folder = self._place(name, revision).folder
        if folder is None or not folder.is_dir():
            return None
        return [path.stat().st_size for path in folder.glob("*.safetensors")]

    def again(self) -> None:
        """Forget what couldn't be found out, so that it is tried again."""
        with self._lock:
            self._problems.clear()

    # -- where it is --------------------------------------------------------------------------------------------------

    def _place(self, name: str, revision: str | None) -> _Place:
        folder = self._folder(name.strip())
        hub = None
        if folder is None:
            model = resolve_model(name, revision)  # says what is wrong with a name that is none
            if model.kind != "hub":
                folder = Path(model.path or "")
            else:
                hub = (model.name, model.revision)
                folder = cached_snapshot(model.name, model.revision)
                if folder is not None and not _whole(folder):
                    folder = None
        return _Place(folder, _stamp(folder) if folder else (), hub)

    @staticmethod
    def _folder(name: str) -> Path | None:
        """A folder with a config.json, whatever else is in it: that is all a shape needs."""
        if name == STARTER:
            return models_dir() / STARTER
        own = models_dir() / name if name and "/" not in name and "\\" not in name else None
        for folder in (own, existing(name)):
            if folder is not None and (folder / "config.json").is_file():
                return folder.absolute()
        return None

    # -- what it is ---------------------------------------------------------------------------------------------------

    def _ask(self, place: _Place) -> None:
        problem = ""
        try:
            self._look_up(place)
        except StudioError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - a thread's edge: whoever waits must hear of it
            problem = f"The model's shape couldn't be found out ({type(error).__name__})."
        with self._lock:
            self._asking.pop(place, None)
            if problem:
                self._problems[place] = problem

    def _look_up(self, place: _Place) -> ModelShape:
        if place not in self._known:
            self._known[place] = self._read(place)
        return self._known[place]

    def _read(self, place: _Place) -> ModelShape:
        if place.folder is None:
            assert place.hub is not None
            return self._from_hub(*place.hub)
        if place.folder == models_dir() / STARTER and not (place.folder / "config.json").is_file():
            return from_config(_STARTER)
        try:
            return from_folder(place.folder)
        except ModelError:
            config = read_json(place.folder / "config.json")
            if config is None or any(place.folder.glob("*.safetensors")):
                raise
            return self._built(config)

    def _from_hub(self, name: str, revision: str | None) -> ModelShape:
        path = self._cache / f"{hashlib.sha256(f'{name}@{revision}'.encode()).hexdigest()[:24]}.json"
        kept = read_json(path)
        if kept is not None and kept.get("name") == name:
            return _shape_of(kept["config"], kept["tensors"])
        config, tensors = _ask_hub(name, revision)
        shape = _shape_of(config, tensors) if tensors else self._built(config)
        if tensors:
            self._keep(path, {"name": name, "config": config, "tensors": tensors})
        else:
            told = [[t.name, list(t.shape), t.dtype] for t in shape.tensors]
            self._keep(path, {"name": name, "config": dict(shape.config), "tensors": told})
        return shape

    def _built(self, config: Mapping[str, Any]) -> ModelShape:
        """From config.json alone: by the tables, else by building the model without numbers, kept for the next time."""
        try:
            return from_config(config)
        except ModelError:
            if self._build is None:
                raise
        text = json.dumps(config, sort_keys=True, default=str)
        path = self._cache / f"built-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        answer = read_json(path)
        if answer is None:
            answer = self._build(config)
            self._keep(path, answer)
        try:
            return from_skeleton(answer)
        except ValueError as error:
            raise ModelError(f"The model's shape can't be found out ({error}).", "Choose another model.") from None

    def _keep(self, path: Path, value: Mapping[str, Any]) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value))


def _shape_of(config: Mapping[str, Any], tensors: list[Any]) -> ModelShape:
    return from_tensors(config, [Tensor(str(n), tuple(int(i) for i in s), str(d)) for n, s, d in tensors])


def _whole(folder: Path) -> bool:
    """Whether all its weights have been fetched: half of them would be taken for a smaller model."""
    index = read_json(folder / "model.safetensors.index.json")
    if index is not None:
        return all((folder / name).is_file() for name in set(index.get("weight_map", {}).values()))
    return any(folder.glob("*.safetensors"))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files if p.is_file())
    except OSError:
        return ()


def _ask_hub(name: str, revision: str | None) -> tuple[dict[str, Any], list[Any]]:
    """config.json, and every tensor by the files' headers (none where there are no safetensors). Raises ModelError."""
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    get_session().timeout = _PATIENCE  # by itself it would wait for ever for a server that never answers
    api = HfApi()
    try:
        config = json.loads(Path(api.hf_hub_download(name, "config.json", revision=revision)).read_text("utf-8"))
        try:
            files = api.get_safetensors_metadata(name, revision=revision, timeout=_PATIENCE).files_metadata
        except (NotASafetensorsRepoError, SafetensorsParsingError):
            files = {}
    except Exception as error:  # noqa: BLE001 - whatever the hub, the network or its client come up with
        raise _refusal(name, revision, error) from None
    if not isinstance(config, dict):
        raise ModelError(f"The config.json of {name} is damaged.", "Choose another model.")
    found = [[key, list(t.shape), t.dtype] for file in files.values() for key, t in file.tensors.items()]
    return config, found


def _refusal(name: str, revision: str | None, error: Exception) -> StudioError:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        hint = "Open its page on the Hugging Face hub, accept, and set a token with `hf auth login`."
        return ModelError(f"{name} asks you to accept its licence first.", hint)
    if isinstance(error, RevisionNotFoundError):
        return ConfigError("model.revision", f"{name} has no revision {revision!r}.", "Check the spelling.")
    if isinstance(error, RepositoryNotFoundError):
        text = f"The Hugging Face hub has no model {name!r}, or it is private."
        return ModelError(text, "Check the spelling; for a private model set a token with `hf auth login`.")
    if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
        if isinstance(error, EntryNotFoundError):
            return ModelError(f"{name} has no config.json.", "Choose a transformers model.")
        return ModelError(f"The Hugging Face hub refused {name} ({error.response.status_code}).", "Try again later.")
    return ModelError(
        f"{name} isn't on this machine and the Hugging Face hub can't be reached.",
        "Connect to the internet, or give a folder that holds its config.json.",
    )
