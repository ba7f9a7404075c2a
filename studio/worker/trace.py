"""The exact estimate: the real model class does one step without numbers, and every allocation is counted.

In: a config.json, a RunConfig. Out: an `Estimate`, as `core.estimate` gives it, whose events were seen rather than
worked out. A few layers are gone through and stand for all. Needs torch, transformers and peft, a few seconds, and no
weights and no graphics card.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from studio.core.config import RunConfig
from studio.core.errors import ModelError
from studio.core.estimate import Device, Estimate, Practice, Versions, prepared
from studio.core.memory import state
from studio.core.memory.run import Run
from studio.core.memory.step import Step, peaks, stretches
from studio.core.shapes import language_part
from studio.worker.tracing import standins
from studio.worker.tracing.build import build, patched, shortened
from studio.worker.tracing.losses import loss_of
from studio.worker.tracing.recorder import Recorder

_INSTEAD = "Use the instant estimate."


def trace(
    config: RunConfig,
    model_config: dict[str, Any],
    *,
    lengths: Sequence[int] | None = None,
    versions: Versions | None = None,
    practice: Practice | None = None,
    device: Device | None = None,
) -> Estimate:
    """What a run takes at its worst step. Raises ModelError for a model that transformers can't build."""
    from studio.core.shapes import from_config

    shape = from_config(model_config)
    run, card, expandable = prepared(config, shape, lengths, versions, practice, device)
    if any(m.count > 1 and not run.stacks(m) for plan in shape.layers for m in plan.matrices):
        raise ModelError("The installed transformers stacks these experts; that day's didn't.", _INSTEAD)
    if run.habits.program != "transformers":
        raise ModelError(f"Only transformers' models can be traced, not {run.habits.program}'s.", _INSTEAD)
    step = _step(dict(language_part(model_config)), run, card.generation)
    return Estimate(peaks(step), card, run.rows, run.length, step, expandable)


def _step(model_config: dict[str, Any], run: Run, generation: str) -> Step:
    short, cuts = shortened(model_config, run)
    recorder = Recorder(run.shape.vocabulary)
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(patched(run))
        try:
            model = build(short, run)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"The model can't be built to be traced ({error}).", _INSTEAD) from error
        gc.collect()
        constant = _constant(model, run, cuts, generation)
        for tensor in (*model.parameters(), *model.buffers()):
            recorder.know(tensor)
            if tensor.requires_grad and run.accumulates:  # an earlier micro-batch's, counted elsewhere
                tensor.grad = torch.empty_like(tensor)
                recorder.know(tensor.grad)
        _wrap_layers(model, recorder)
        stack.enter_context(recorder)
        held = _forward_and_backward(model, run, recorder)
        share = _optimizer_shares(model, run, recorder)
        del held
    trained = state.total(state.trained_sizes(run))
    constant["optimizer"], scratch = round(share[0] * trained), round(share[1] * trained)
    numbered = {number + 1: cut for number, cut in enumerate(cuts)}
    events, marks = recorder.events, recorder.marks
    return Step(stretches(events, marks, numbered), constant, scratch, trained, run)


def _constant(model: Any, run: Run, cuts: list[tuple[int, int, int]], generation: str) -> dict[str, int]:
    """Bytes of the model as it was built, each of its layers counted as often as it stands for one."""
    parts = {"weights": 0, "adapter": 0, "buffers": 0}
    seen: set[int] = set()
    times = {id(module): cut[0] for module, cut in zip(_layers(model), cuts, strict=True)}

    def count(module: Any, factor: int) -> None:
        factor = times.get(id(module), factor)
        for kind, found in (("weights", module._parameters), ("buffers", module._buffers)):
            for tensor in found.values():
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                part = "adapter" if run.config.adapter and tensor.requires_grad else kind
                parts[part] += factor * (-(-tensor.numel() * tensor.element_size() // 512) * 512)
        for child in module.children():
            count(child, factor)

    count(model, 1)
    # scales and zero points of quantized weights, and what older versions kept beside them, aren't built
    known = state.base(run)
    parts["quantization"] = known["quantization"]
    parts["buffers"] = max(parts["buffers"], known["buffers"])
    parts["workspace"] = state.workspaces(run, generation)
    return parts


def _layers(model: Any) -> Any:
    """The list of decoder layers."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    inner = base.base_model
    for name in ("layers", "h"):
        if hasattr(inner, name):
            return getattr(inner, name)
    raise ModelError("The model's layers can't be found.", _INSTEAD)


class _Boundary(torch.autograd.Function):  # type: ignore[misc]
    """Tells the recorder when a layer's backward pass is over."""

    @staticmethod
    def forward(ctx: Any, x: Any, recorder: Recorder, number: int) -> Any:
        ctx.recorder, ctx.number = recorder, number
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        ctx.recorder.mark(10 * ctx.number + 3)
        return gradient, None, None


class _Watched(torch.nn.Module):  # type: ignore[misc]
    """A layer whose beginning and end are marked.

    It ends where the next begins: only then has the model's loop let go of what the layer read.
    """

    def __init__(self, layer: Any, recorder: Recorder, number: int, last: bool) -> None:
        super().__init__()
        self.layer = layer
        self._told = (recorder, number, last)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        recorder, number, last = self._told
        recorder.mark(10 * (number - 1) + 2 if number > 1 else 0)
        out = self.layer(_Boundary.apply(x, recorder, number), *args, **kwargs)
        del x
        if last:
            recorder.mark(10 * number + 2)
        return out


def _wrap_layers(model: Any, recorder: Recorder) -> None:
    layers = _layers(model)
    for number, layer in enumerate(list(layers)):
        layers[number] = _Watched(layer, recorder, number + 1, number + 1 == len(layers))


def _forward_and_backward(model: Any, run: Run, recorder: Recorder) -> Any:
    recorder.part = "inputs"
    ids = torch.zeros(run.rows, run.length, dtype=torch.long)
    extra = torch.zeros(run.rows, run.length, 2, dtype=torch.long)  # labels, attention mask
    mask = torch.zeros(run.rows, run.length, run.length, dtype=torch.bool) if run.practice.masked else None
    recorder.part = "activations"
    positions = torch.arange(run.length).unsqueeze(0)
    inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    amp = torch.autocast("cpu", dtype=torch.bfloat16) if run.amp else contextlib.nullcontext()
    with amp, _cached(model, run):
        loss, held = loss_of(model, inputs, run.practice, run.habits, run.cuda)
    recorder.mark(1)
    recorder.part, recorder.backward = "backward", True
    loss.backward()
    recorder.backward = False
    recorder.mark(_END)
    del extra, mask
    return held


@contextlib.contextmanager
def _cached(model: Any, run: Run) -> Iterator[None]:
    """Where the family's code of that day collected keys and values in training: what they are views of is held."""
    held: list[Any] = []
    found = [m for name, m in model.named_modules() if name.endswith("attn.c_attn")]
    hooks = []
    if run.shape.model_type in run.habits.caches:
        hooks = [m.register_forward_hook(lambda module, given, out: held.append(out)) for m in found]
    yield
    for hook in hooks:
        hook.remove()


_END = 4  # what comes after it isn't part of forward and backward


def _optimizer_shares(model: Any, run: Run, recorder: Recorder) -> tuple[float, float]:
    """Bytes of the optimizer's state, and of a step's temporaries, for each byte that is trained."""
    parameters = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    trained = sum(p.numel() * p.element_size() for p in parameters) or 1
    optimizer = _optimizer(parameters, run)
    sizes = []
    for _ in range(2):
        before = len(recorder.events)
        optimizer.step()
        now = high = 0
        for _, size, _ in recorder.events[before:]:
            now += size
            high = max(high, now)
        sizes.append((now, high))
    return sizes[0][0] / trained, max(sizes[1][1], 0) / trained


def _optimizer(parameters: list[Any], run: Run) -> Any:
    name = run.config.training.optim
    if name.startswith("adamw_torch"):
        foreach = name == "adamw_torch" and run.cuda
        return torch.optim.AdamW(parameters, lr=1e-4, foreach=foreach, fused=name.endswith("fused"))
    if name.endswith("8bit"):
        return standins.EightBitAdamW(parameters, name.startswith("paged"))
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=1e-4, scale_parameter=False, relative_step=False)
    return torch.optim.SGD(parameters, lr=1e-4)
