"""What can be estimated and not trained is refused before a run is made."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.errors import ConfigError
from studio.workspace.home import runs_dir
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"dataset": {"path": None}}, "dataset.path"),
        ({"training": {"loss_implementation": "chunked"}}, "training.loss_implementation"),
        ({"training": {"keep_logits": True}}, "training.keep_logits"),
    ],
)
def test_a_run_that_can_only_be_estimated_is_no_run(workers: FakeWorkers, sections: dict[str, Any], field: str) -> None:
    supervisor = Supervisor()
    try:
        with pytest.raises(ConfigError, match="estimate") as refused:
            supervisor.submit(RunConfig.model_validate(sections))
        assert refused.value.field == field
        assert not list(runs_dir().iterdir())
    finally:
        supervisor.close()
