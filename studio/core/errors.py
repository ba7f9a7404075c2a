"""Every error a user may meet: one plain sentence and the next step.

    StudioError                 catch this to show any of them
    ├── ConfigError             a knob of run.yaml is unknown, out of bounds or names something that isn't there
    ├── DataError               a dataset can't be read or holds no usable row
    ├── ModelError              a model can't be found, fetched or loaded
    │   └── TemplateError       its chat template can't tell which tokens are the assistant's
    ├── RunError                a run can't do what was asked of it in the state it is in
    ├── TargetError             an export's target can't be written
    └── WorkerError             a worker process died or didn't answer

Anything else that is raised is a fault of the studio, not of its user.
"""

from __future__ import annotations


class StudioError(Exception):
    """One plain sentence about what is wrong (`message`), and one about what to do next (`hint`).

    `exit_code` is what the command line ends with: 2 where the input was at fault, 1 where the doing failed.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(StudioError):
    """A knob is unknown, out of bounds or names something that isn't there; `field` is its dotted path."""

    exit_code = 2

    def __init__(self, field: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {super().__str__()}" if self.field else super().__str__()


class DataError(StudioError):
    """A dataset can't be read or holds no usable row; `line` counts from 1 and is None where no line is at fault."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", line: int | None = None) -> None:
        super().__init__(message, hint)
        self.line = line


class ModelError(StudioError):
    """A model can't be found, fetched or loaded."""

    exit_code = 2


class TemplateError(ModelError):
    """A chat template can't tell exactly which tokens are the assistant's."""


class RunError(StudioError):
    """A run can't do what was asked of it in the state it is in."""


class TargetError(StudioError):
    """An export's target can't be written."""

    exit_code = 2


class WorkerError(StudioError):
    """A worker process died or didn't answer."""
