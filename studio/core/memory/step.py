"""One training step, event by event: what is allocated at its worst moment, and how it divides into parts.

In: a Run. Out: `Peak`s, one a moment. Of each stretch of equal layers three are gone through, the first, the second and
the last; what happens in the second happens in all between, so the peak of the whole follows exactly. Knows no
allocator: `allocator` replays the same stretches for what the process reserves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from studio.core.memory import heads, layer, methods, state
from studio.core.memory.run import Run
from studio.core.memory.tape import Event, Tensor

MOMENTS = ("loaded", "generation", "forward", "loss", "reference", "backward", "optimizer")


@dataclass(frozen=True)
class Stretch:
    """Events that follow one another, `times` over.

    `row`: which row of equal layers it belongs to, or -1; `place`: the first of the row, one in between, the last.
    """

    moment: str
    events: tuple[Event, ...]
    times: int = 1
    row: int = -1
    place: int = 0


@dataclass(frozen=True)
class Peak:
    """The most that is allocated during a moment, in bytes, and its parts, which sum to it."""

    moment: str
    bytes: int
    parts: dict[str, int]


@dataclass(frozen=True)
class Step:
    """A step gone through: its stretches in order, and what lies there all the time."""

    stretches: list[Stretch]
    constant: dict[str, int]
    scratch: int  # the optimizer's temporary
    gradients: int  # bytes left at the end of the backward pass
    run: Run
    generated: dict[str, int] = field(default_factory=dict)  # what is there while answers are written

    @property
    def weight_blocks(self) -> list[tuple[int, int]]:
        """Sizes of the weights, each with that of the 16-bit one it is made from, or 0; other models are one each."""
        named = [(self.constant[name], 0) for name in methods.companions(self.run)]
        fixed = self.constant.get("adapter", 0) - (self.gradients if self.constant.get("adapter") else 0)
        return state.blocks(self.run) + [block for block in (*named, (fixed, 0)) if block[0] > 0]

    @property
    def optimizer_blocks(self) -> list[int]:
        """Sizes of the optimizer's state, two of each."""
        trained = state.trained_sizes(self.run)
        share = self.constant["optimizer"] / (state.total(trained) or 1) / 2
        sizes = [(int(numel * item * share), 2 * times) for numel, item, times in trained]
        return [size for size, times in sizes if size >= _TINY for _ in range(times)]

    @property
    def scratch_blocks(self) -> list[int]:
        """Sizes of the optimizer's temporary tensors."""
        trained = state.trained_sizes(self.run)
        if not self.scratch:
            return []
        if self.scratch < self.gradients:
            return [self.scratch]
        return [numel * item for numel, item, times in trained if numel * item >= _TINY for _ in range(times)]


def go_through(run: Run, generation: str = "ampere") -> Step:
    """Forward, loss and backward of one micro-batch."""
    trained = state.trained_sizes(run)
    constant = state.base(run)
    constant["adapter"] = state.adapter_bytes(run, trained)
    constant |= methods.companions(run)
    constant["optimizer"], scratch = state.optimizer(run, trained)
    constant["workspace"] = state.workspaces(run, generation)
    tape = run.tape
    run.casts = {} if run.amp else None
    mask = run.item if run.attention == "eager" else 1 if run.practice.masked else 0
    numbers = 3 * 8 * run.tokens + mask * run.rows * run.length**2
    inputs = tape.new(numbers, 1, "inputs")
    cosines = tape.new(2 * run.length * min(run.shape.head_dim, run.shape.hidden), run.compute)
    stream = heads.embed(run)
    if stream.node is None and getattr(run.config.adapter, "type", "") in _IN_FRONT:
        tape.root(stream)
    tape.mark(0)
    cuts = _forward(run, stream_holder := [stream])
    del stream
    run.layer = _BEHIND
    loss = methods.loss(run, stream_holder.pop())
    run.casts = None
    tape.mark(1)
    if methods.refers(run.config):
        methods.ask_reference(run)
        tape.mark(5)
    tape.part = "backward"
    tape.backward(loss, tape.new(1, 4))
    del loss, inputs, cosines
    tape.mark(4)
    found = stretches(tape.events, tape.marks, cuts)
    return Step(found, constant, scratch, state.total(trained), run, methods.generated(run))


def _forward(run: Run, holder: list[Tensor]) -> dict[int, tuple[int, int, int]]:
    """Through the layers that stand for all: a layer's number -> how many it stands for, its row, its place there."""
    tape = run.tape
    cuts = {}
    number = 0
    run.chosen = {_BEHIND} if getattr(run.config.adapter, "train_head", False) else set()
    for row, (plan, count, chosen) in enumerate(run.layer_rows()):
        shown = min(count, 3)
        for place in range(shown):
            run.layer = number = number + 1
            run.chosen |= {number} if chosen else set()
            holder.append(_begin(run, holder.pop(), number))
            holder.append(layer.layer(run, plan, holder.pop()))
            tape.mark(10 * number + 2)
            cuts[number] = (count - 2 if place == 1 and count > 2 else 1, row, place)
    return cuts


def _begin(run: Run, stream: Tensor, number: int) -> Tensor:
    """The stream again, with a node at which the layer's backward pass is known to be over."""

    def over(tape: object, gradient: Tensor, saved: object) -> tuple[Tensor]:
        run.tape.mark(10 * number + 3)
        return (gradient,)

    return run.tape.result(stream.view(), (stream,), over)


def stretches(
    events: list[Event], marks: list[tuple[int, int]], cuts: dict[int, tuple[int, int, int]]
) -> list[Stretch]:
    """Events cut where they were marked, up to the last mark; `cuts`: what each layer stands for.

    A mark's name is ten times a layer's number, 0 for none, and what ends there. The loss's own backward pass is part
    of the last layer's.
    """
    found, start = [], 0
    for end, name in marks:
        number, kind = divmod(name, 10)
        times, row, place = cuts.get(number, (1, -1, 0))
        found.append(Stretch(_KINDS[kind], tuple(events[start:end]), times, row, place))
        start = end
    return found


_KINDS = ("forward", "loss", "forward", "backward", "backward", "reference")
# What they train is in front of the first product, so every layer has to pass a gradient on.
_IN_FRONT = ("prefix_tuning", "prompt_tuning", "p_tuning", "ln_tuning")
_TINY = 512  # bytes; kernels of convolutions come by the thousand
_BEHIND = -1  # the number of what comes behind the last layer


def peaks(step: Step) -> dict[str, Peak]:
    """The peak of each moment in a step after the first, when the optimizer has its state.

    Where it gathers several micro-batches, it is the last one's: gradients are there from the start.
    """
    held = dict(step.constant)
    if step.run.accumulates:
        held["gradients"] = step.gradients
    found: dict[str, Peak] = {"loaded": _peak("loaded", {k: v for k, v in step.constant.items() if k != "optimizer"})}
    if step.generated:
        found["generation"] = _peak("generation", {**step.constant, **step.generated})
    live: dict[str, int] = dict.fromkeys(("inputs", "activations"), 0)
    owners: dict[int, tuple[str, Stretch]] = {}
    offloads = step.run.cuda and step.run.config.training.activation_offloading
    for stretch in step.stretches:
        high, parts, live = _through(stretch, live, owners, offloads)
        total = high + sum(held.values())
        if stretch.moment not in found or total > found[stretch.moment].bytes:
            merged = dict(held)
            for part, size in parts.items():
                merged[part] = merged.get(part, 0) + size
            found[stretch.moment] = _peak(stretch.moment, merged)
    last = {**step.constant, "gradients": step.gradients, "optimizer_scratch": step.scratch}
    found["optimizer"] = _peak("optimizer", last)
    return found


def _peak(moment: str, parts: dict[str, int]) -> Peak:
    parts = {name: size for name, size in parts.items() if size > 0}
    return Peak(moment, sum(parts.values()), parts)


def _through(
    stretch: Stretch, live: dict[str, int], owners: dict[int, tuple[str, Stretch]], offloads: bool
) -> tuple[int, dict[str, int], dict[str, int]]:
    """The highest sum while the stretch happens `times` over, its parts, and what is left after it.

    `offloads`: what one layer keeps has left the device before the next one needs room for its own.
    """
    before = dict(live)
    now = sum(live.values())
    high, best = now, -1
    sizes = []
    for index, (key, size, part) in enumerate(stretch.events):
        if size >= 0:
            owners[key] = part, stretch
        else:
            home = owners[key][1]
            if home.row >= 0 and home.row != stretch.row:  # what all of its repetitions made goes at once
                size *= home.times
        sizes.append(size)
        now += size
        if now > high:
            high, best = now, index
    after = dict(live)
    at_best = dict(live)
    for index, ((key, _, _), size) in enumerate(zip(stretch.events, sizes, strict=True)):
        name = owners[key][0]
        after[name] = after.get(name, 0) + size
        if index <= best:
            at_best[name] = at_best.get(name, 0) + size
    again = stretch.times - 1
    if not again:
        return high, at_best, after
    change = {name: after[name] - before.get(name, 0) for name in after}
    if offloads:
        change["activations"] = 0
    later = sum(change.values()) * again
    if later > 0:
        high += later
        at_best = {name: at_best.get(name, 0) + again * change.get(name, 0) for name in {*at_best, *change}}
    return high, at_best, {name: after[name] + again * change.get(name, 0) for name in after}
