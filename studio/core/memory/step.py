"""One training step, event by event: what is allocated at its worst moment, and how it divides into parts.

In: a Run. Out: `Peak`s, one a moment. Of each stretch of equal layers three are gone through, the first, the second and
the last; what happens in the second happens in all between, so the peak of the whole follows exactly. Knows no
allocator: `allocator` replays the same stretches for what the process reserves.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.core.memory import heads, layer, state
from studio.core.memory.run import Run
from studio.core.memory.tape import Event, Tensor

MOMENTS = ("loaded", "forward", "loss", "backward", "optimizer")


@dataclass(frozen=True)
class Stretch:
    """Events that follow one another, `times` over.

    `row`: which row of equal layers it belongs to, or -1; `place`: the first of the row, one in between, the last.
    """

    moment: str
    events: list[Event]
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

    @property
    def weight_blocks(self) -> list[tuple[int, int]]:
        """Sizes of the weights, each with that of the 16-bit one it is made from, or 0."""
        return state.blocks(self.run)

    @property
    def optimizer_blocks(self) -> list[int]:
        """Sizes of the optimizer's state, two of each."""
        trained = state.trained_sizes(self.run)
        share = self.constant["optimizer"] / (state.total(trained) or 1) / 2
        sizes = [(int(numel * item * share), 2 * times) for numel, item, times in trained]
        return [size for size, times in sizes if size for _ in range(times)]

    @property
    def scratch_blocks(self) -> list[int]:
        """Sizes of the optimizer's temporary tensors."""
        trained = state.trained_sizes(self.run)
        if not self.scratch:
            return []
        if self.scratch < self.gradients:
            return [self.scratch]
        return [numel * item for numel, item, times in trained for _ in range(times)]


def go_through(run: Run, generation: str = "ampere") -> Step:
    """Forward, loss and backward of one micro-batch."""
    trained = state.trained_sizes(run)
    constant = state.base(run)
    if not run.full:
        constant["adapter"] = state.total(trained)
    constant["optimizer"], scratch = state.optimizer(run, trained)
    constant["workspace"] = state.workspaces(run, generation)
    tape = run.tape
    run.casts = {} if run.amp else None
    mask = run.item if run.attention == "eager" else 1 if run.practice.masked else 0
    numbers = 3 * 8 * run.tokens + mask * run.rows * run.length**2
    inputs = tape.new(numbers, 1, "inputs")
    cosines = tape.new(2 * run.length * min(run.shape.head_dim, run.shape.hidden), run.compute)
    stream = heads.embed(run)
    tape.mark(0)
    cuts = _forward(run, stream_holder := [stream])
    del stream
    loss = heads.loss(run, stream_holder.pop())
    run.casts = None
    tape.mark(1)
    tape.part = "backward"
    tape.backward(loss, tape.new(1, 4))
    del loss, inputs, cosines
    tape.mark(4)
    return Step(stretches(tape.events, tape.marks, cuts), constant, scratch, state.total(trained), run)


def _forward(run: Run, holder: list[Tensor]) -> dict[int, tuple[int, int, int]]:
    """Through the layers that stand for all: a layer's number -> how many it stands for, its row, its place there."""
    tape = run.tape
    cuts = {}
    number = 0
    for row, (plan, count) in enumerate(state.alike(run.shape.layers)):
        shown = min(count, 3)
        for place in range(shown):
            run.layer = number = number + 1
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
        found.append(Stretch(_KINDS[kind], events[start:end], times, row, place))
        start = end
    return found


_KINDS = ("forward", "loss", "forward", "backward", "backward")


def peaks(step: Step) -> dict[str, Peak]:
    """The peak of each moment in a step after the first, when the optimizer has its state.

    Where it gathers several micro-batches, it is the last one's: gradients are there from the start.
    """
    held = dict(step.constant)
    if step.run.accumulates:
        held["gradients"] = step.gradients
    found: dict[str, Peak] = {"loaded": _peak("loaded", {k: v for k, v in step.constant.items() if k != "optimizer"})}
    live: dict[str, int] = dict.fromkeys(("inputs", "activations"), 0)
    owners: dict[int, tuple[str, Stretch]] = {}
    for stretch in step.stretches:
        high, parts, live = _through(stretch, live, owners)
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
    stretch: Stretch, live: dict[str, int], owners: dict[int, tuple[str, Stretch]]
) -> tuple[int, dict[str, int], dict[str, int]]:
    """The highest sum while the stretch happens `times` over, its parts, and what is left after it."""
    before = dict(live)
    now = sum(live.values())
    high, best = now, -1
    sizes = []
    for index, (key, size, part) in enumerate(stretch.events):
        if size > 0:
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
    later = sum(change.values()) * again
    if later > 0:
        high += later
        at_best = {name: at_best.get(name, 0) + again * change.get(name, 0) for name in {*at_best, *change}}
    return high, at_best, {name: after[name] + again * change[name] for name in after}
