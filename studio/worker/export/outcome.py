"""How a training went, as a model card tells it: losses, time, memory and energy, beside what was predicted.

In: a run's folded events, its folder. Out: lines of Markdown; the loss curves as a picture. Energy is told in kWh as it
was measured: what a kWh stands for differs with the grid.
"""

from __future__ import annotations

import math
from typing import Any

from studio.core.job import JobFolder, read_json
from studio.core.progress import Progress

_CURVES = {"loss": ("training loss", "#4c78a8"), "eval_loss": ("validation loss", "#e45756")}
_WIDTH, _HEIGHT, _EDGE = 640, 260, 40


def outcome(run: JobFolder, progress: Progress, has_picture: bool) -> str:
    """The section on training."""
    result = progress.ended.result if progress.ended else {}
    lines = ["## Training", ""]
    if has_picture:
        lines += ["![Loss by step](curves.svg)", ""]
    lines.append(f"- steps: {progress.step}")
    for name, (title, _) in _CURVES.items():
        points = progress.series.get(name, [])
        if points:
            lines.append(f"- {title}: {points[0][1]:.3f} at step {points[0][0]}, {points[-1][1]:.3f} at the end")
    predicted = read_json(run.estimate) or {}
    if (seconds := _number(result.get("seconds"))) is not None:
        lines.append(f"- time: {seconds:,.0f} s{_beside(_number(predicted.get('seconds')), '{:,.0f} s')}")
    if (tokens := _number(result.get("tokens"))) is not None:
        lines.append(f"- tokens: {tokens:,.0f}")
    lines += _memory(result, read_json(run.memory) or {}, predicted)
    if (kwh := _number(result.get("energy_kwh"))) is not None:
        lines.append(f"- energy: {kwh:.3g} kWh{_beside(_number(predicted.get('kwh')), '{:.3g} kWh')}")
    manner = result.get("manner")
    if isinstance(manner, dict) and "run" in manner:
        base = f", the base {100 * manner['base']:.0f} %" if "base" in manner else ""
        lines.append(f"- held-out prompts answered in the taught manner: {100 * manner['run']:.0f} %{base}")
    return "\n".join(lines)


def _memory(result: dict[str, Any], measured: dict[str, Any], predicted: dict[str, Any]) -> list[str]:
    """The peak on the device that was trained on, beside the estimate; the processor's own memory beside a card's."""
    peak = measured.get("peak")
    peak = peak if isinstance(peak, dict) else {}
    rss = _number(peak.get("rss")) or _number(result.get("peak_rss"))
    card = _number(peak.get("device")) or _number(result.get("peak_reserved"))
    said = _beside(_gigabytes(predicted.get("device")), "{:.2f} GB")
    on_card = card is not None and measured.get("device_kind") != "cpu"
    lines = []
    if card is not None and on_card:
        name = f" ({measured['device_name']})" if measured.get("device_name") else ""
        lines.append(f"- peak of graphics memory{name}: {card / 1e9:.2f} GB{said}")
    if rss is not None:
        lines.append(f"- peak of memory: {rss / 1e9:.2f} GB{'' if on_card else said}")
    return lines


def _beside(predicted: float | None, form: str) -> str:
    return f" (predicted: {form.format(predicted)})" if predicted is not None else ""


def _gigabytes(value: Any) -> float | None:
    number = _number(value)
    return number / 1e9 if number is not None else None


def _number(value: Any) -> float | None:
    """What a file or an event holds, if it is a figure."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def curves(progress: Progress) -> str:
    """The losses by step as SVG; "" where there are none."""
    series = {name: [point for point in progress.series.get(name, []) if math.isfinite(point[1])] for name in _CURVES}
    points = [point for each in series.values() for point in each]
    if len(points) < 2:
        return ""
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    across, up = (_WIDTH - 2 * _EDGE) / max(last, 1), (_HEIGHT - 2 * _EDGE) / ((high - low) or 1.0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="4" y="{_EDGE}">{high:.3g}</text><text x="4" y="{_HEIGHT - _EDGE}">{low:.3g}</text>',
        f'<text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 12}" text-anchor="end">step {last}</text>',
    ]
    for number, (name, (title, colour)) in enumerate(_CURVES.items()):
        if series[name]:
            path = " ".join(
                f"{_EDGE + step * across:.1f},{_HEIGHT - _EDGE - (value - low) * up:.1f}"
                for step, value in series[name]
            )
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            lines.append(f'<text x="{_EDGE + 150 * number}" y="18" fill="{colour}">{title}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
