"""Base + adapter as a stream of tensors: which of them comes from where, tied embeddings untied if need be.

In: a Source. Out: every tensor of the merged model once, by the names of the base's files, in blocks of rows. How a
layer is merged is `adapted`'s, how it is written the writer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from studio.core.errors import ModelError
from studio.worker.export.adapted import Adapted, Unit, is_tokens
from studio.worker.export.adapterfile import wider_vocabulary
from studio.worker.export.dequantize import Dequantized
from studio.worker.export.hollow import HollowModel
from studio.worker.export.merge import WholeModel, Written
from studio.worker.export.source import Source

_TOKENS = "Train the other embedding too (modules_to_save), or merge where both are kept."


class KnownModel(WholeModel):
    """A model that was trained whole, with what the model calls its tensors."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._hollow = HollowModel(source.weights)

    def model_name(self, key: str) -> str:
        return self._hollow.model_name(key)


class AdaptedModel:
    """Which tensor of the result comes from where. Names are the files' own, so that others know them again."""

    def __init__(self, source: Source, combine: Callable[[Any], str] | None = None) -> None:
        hollow = HollowModel(source.base, lambda model: wider_vocabulary(model, source.adapters))
        if source.quantized is not None:
            hollow.alter = Dequantized(hollow.model, source.quantized)
        adapted = Adapted(hollow, source.adapters, combine)
        self.source, self.adapted, self.hollow = source, adapted, hollow
        self.units = {name: unit for unit in adapted.units for name in unit.names}
        self.untied = False
        self._alone: dict[str, str] = {}  # a tied parameter that needs a tensor of its own -> its name in the files
        self._same: set[str] = set()  # tied parameters whose change is the very same as their partner's
        for names in self.hollow.names.values():
            if len(names) > 1:
                self._untie(names)
        self.plan = self._plan()
        self.changes: dict[str, Any] = {}
        if self.untied:
            self.changes["tie_word_embeddings"] = False
        if self.hollow.vocabulary is not None:
            self.changes["vocab_size"] = self.hollow.vocabulary

    def model_name(self, key: str) -> str:
        return key if key in self._alone else self.hollow.model_name(key)

    def _touched(self, name: str) -> bool:
        return name in self.units or name in self.adapted.replaced

    def _untie(self, names: list[str]) -> None:
        touched = [name for name in names if self._touched(name)]
        if not touched:
            return
        if len(touched) == len(names) and self._same_change(touched):
            stored = next((name for name in names if name in self.hollow.origins), names[0])
            self._same = {name for name in names if name != stored and name not in self.hollow.origins}
            return
        self.untied = True
        self._alone |= {name: name for name in names if name not in self.hollow.origins}

    def _same_change(self, names: list[str]) -> bool:
        units = [self.units.get(name) for name in names]
        if any(unit is None for unit in units):
            values = [self.adapted.replaced.get(name) for name in names]
            first = values[0]
            return first is not None and all(v is not None and torch.equal(v, first) for v in values)
        known = [unit for unit in units if unit is not None]
        if all(is_tokens(unit) for unit in known):
            return True
        if set.intersection(*(unit.tensors() for unit in known)) - {0}:
            return True
        changes = [self.adapted.factors(unit) for unit in known]
        return all(
            change is not None and changes[0] is not None and all(map(torch.equal, change, changes[0]))
            for change in changes
        )

    def _plan(self) -> Written:
        plan: Written = {}
        brought = self.adapted.brought
        for key, place in self.hollow.files.places.items():
            shape = place.shape
            name = self.hollow.owner.get(key, "")
            if name in self.hollow.shapes and self.hollow.origins[name].converter is None:
                if self.hollow.shapes[name] != shape and name not in brought:
                    raise ModelError(
                        f"The adapter adds tokens, and brings no rows for them to {name}."
                        if self.hollow.vocabulary
                        else f"{name} is {shape} in the base's files, and its config says {self.hollow.shapes[name]}.",
                        _TOKENS if self.hollow.vocabulary else "The base is damaged: fetch it again.",
                    )
                shape = self.hollow.shapes[name]
            plan[key] = (self.source.cast(place.dtype), shape)
        for name, key in self._alone.items():
            partner = self.hollow.files.places[self.hollow.origin(name).names[0]]
            plan[key] = (self.source.cast(partner.dtype), self.hollow.shapes[name])
        return plan

    def tensors(self) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        """Every tensor of the result, once, in about the order of the base's files."""
        done: set[str] = set()
        # First what is taken from under an adapter, before that is merged.
        yield from ((key, self._own(name)) for name, key in self._alone.items() if not self._touched(name))
        for key in self.hollow.files.places:
            name = self.hollow.owner.get(key, "")
            if self._touched(name):
                yield from self._changed(name, done)
            else:
                yield key, self._as_it_is(key, name)
        for name in self._alone:
            if self._touched(name):
                yield from self._changed(name, done)

    def _as_it_is(self, key: str, name: str) -> Iterable[torch.Tensor]:
        """A tensor that the adapter leaves alone."""
        return [self.hollow.read(name)] if self.hollow.alters(name) else self.hollow.files.blocks(key)

    def _own(self, name: str) -> Iterable[torch.Tensor]:
        """An unchanged parameter whose tied partner is changed: the base's, with the tokens added since."""
        key = self.hollow.origin(name).names[0]
        if self.hollow.files.places[key].shape == self.hollow.shapes[name]:
            return self.hollow.files.blocks(key)
        for partner in self.hollow.aliases(name):
            weight = self.adapted.base_weight(partner)
            if weight is not None:
                return [weight]
        raise ModelError(f"The adapter adds tokens, and brings no rows for them to {name}.", _TOKENS)

    def _changed(self, name: str, done: set[str]) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        """A changed parameter, with all others of its layer; nothing where an earlier call has brought it."""
        if name in done or name in self._same:
            return
        unit = self.units.get(name)
        if unit is None:
            done.add(name)
            yield self._file_name(name), [self.adapted.replaced[name]]
            return
        yield from self._layer(unit, done)

    def _layer(self, unit: Unit, done: set[str]) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        for name, blocks in self.adapted.merge(unit):
            done.add(name)
            if name in self._alone or self.hollow.origin(name).converter is None:
                yield self._file_name(name), blocks
            else:
                for key, part in self.hollow.parts(name, torch.cat(list(blocks))).items():
                    yield key, [part]
        for name in unit.names:  # what the merge left as it was
            if name not in done and name not in self._same:
                done.add(name)
                for key in self.hollow.origin(name).names:
                    yield key, self._as_it_is(key, name)

    def _file_name(self, name: str) -> str:
        return self._alone.get(name) or self.hollow.origin(name).names[0]
