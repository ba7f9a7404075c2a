"""On what a run trains."""

from __future__ import annotations

from studio.core.sections.section import Section, knob


class HardwareSection(Section):
    device: str = knob(
        "auto",
        "Device",
        "Where to train; auto takes the graphics card if there is one, else the processor.",
        group="memory",
        pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$",
    )
    num_processes: int = knob(1, "Processes", "How many devices train together.", group="memory", ge=1, le=1)
    expandable_segments: bool = knob(
        True,
        "Growing memory segments",
        "Lets the memory that torch holds on an NVIDIA card grow in place: much less is lost between rows of many "
        "lengths.",
        group="memory",
        rule="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    )
