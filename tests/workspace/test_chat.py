"""The near end of the pipe: parts, answers, errors, a worker that dies, and what there is to talk to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from studio.core.errors import ConfigError, RunError, StudioError
from studio.workspace.chat import Chat, Delta, list_targets
from studio.workspace.conversation import Conversation
from studio.workspace.launcher import Launcher
from studio.workspace.runs import Runs
from tests.fake_worker import FakeWorkers
from tests.workspace.test_models import make_model
from tests.workspace.test_runs import add, at, make_run


@pytest.fixture
def chat(workers: FakeWorkers) -> Iterator[Chat]:
    chat = Chat(Launcher(standby=False), Runs())
    yield chat
    chat.unload()


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def told(answers: Iterator[dict[str, Any]]) -> list[str]:
    """The texts of the parts, then how it ended."""
    return [answer["text"] if answer["event"] == "part" else answer["event"] for answer in answers]


# -- what there is to talk to -----------------------------------------------------------------------------------------


def taught(run_id: str, label: str = "Taught") -> None:
    folder = make_run(run_id, at(1), label=label)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")


def test_runs_with_something_to_talk_to_come_before_models() -> None:
    from studio.core.events import CheckpointSaved
    from studio.workspace.home import models_dir

    taught("20261122-1412-a")
    half = make_run("20261122-1413-b", at(5), label="Half")
    (half / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    add(half, CheckpointSaved(5, "checkpoints/checkpoint-5"), CheckpointSaved(10, "checkpoints/checkpoint-10"))
    make_run("20261122-1414-c")
    make_model(models_dir() / "own")
    targets = list_targets(Runs())
    assert [target.id for target in targets] == ["run:20261122-1413-b", "run:20261122-1412-a", "starter", "own"]
    assert [target.tuned for target in targets] == [True, True, False, False]
    assert targets[0].note == "checkpoint of step 5"
    assert (targets[1].title, targets[1].base) == ("Taught", "starter")


def test_opening_a_run_loads_its_base_and_its_adapter(chat: Chat) -> None:
    taught("20261122-1412-a")
    heard: list[str] = []
    target = chat.open("run:20261122-1412-a", heard.append)
    assert (target.tuned, target.base, heard) == (True, "starter", ["Loading"])
    assert chat.loaded == target
    chat.unload()
    assert chat.loaded is None and not chat.pipe.alive


def test_what_is_loaded_is_what_was_asked_for(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    taught("20261122-1412-a")
    asked: list[dict[str, Any]] = []
    real: Callable[..., Iterator[dict[str, Any]]] = chat.pipe.request
    monkeypatch.setattr(
        chat.pipe, "request", lambda op, **fields: (asked.append({"op": op, **fields}), real(op, **fields))[1]
    )
    chat.open("run:20261122-1412-a")
    chat.open("starter")
    assert [request["op"] for request in asked] == ["load", "load"]
    assert asked[0]["base"]["kind"] == "starter" and asked[0]["tuned"].endswith("adapter")
    assert "tuned" not in asked[1]


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        ("run:nothing", RunError, "no run"),
        ("run:../x", RunError, "no run"),
        ("nothing", ConfigError, "no model"),
        ("", ConfigError, "no model"),
        ("run:20261122-1412-queued", ConfigError, "nothing to talk to yet"),
    ],
)
def test_what_cannot_be_talked_to_is_refused_without_a_worker(
    chat: Chat, workers: FakeWorkers, target: str, kind: type[StudioError], words: str
) -> None:
    make_run("20261122-1412-queued")
    with pytest.raises(kind, match=words):
        chat.open(target)
    assert workers.commands == []


def test_a_base_that_is_gone_is_told(chat: Chat, workers: FakeWorkers) -> None:
    taught("20261122-1412-a")
    folder = Runs().folder / "20261122-1412-a"
    text = (folder / "inputs.json").read_text(encoding="utf-8")
    gone = text.replace('"kind": "starter"', '"kind": "folder"').replace('"path": null', '"path": "/nowhere/model"', 1)
    (folder / "inputs.json").write_text(gone, encoding="utf-8")
    with pytest.raises(ConfigError, match="/nowhere/model is gone"):
        chat.open("run:20261122-1412-a")
    assert workers.commands == []


# -- talking ----------------------------------------------------------------------------------------------------------


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_both_sides_answer_the_same_question(chat: Chat) -> None:
    deltas = list(chat.stream({"base": say("Hi"), "tuned": say("Hi")}, temperature=0.0))
    assert deltas == [
        Delta("base", "base heard Hi", True, 3, 0.5),
        Delta("tuned", "tuned heard Hi", True, 3, 0.5),
    ]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10_000}, "max_new_tokens"),
    ],
)
def test_S5_settings_are_bounded_here_and_not_in_widgets(
    chat: Chat, workers: FakeWorkers, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        list(chat.stream({"base": say("Hi")}, **settings))
    assert raised.value.field == field
    assert workers.commands == []


def test_one_conversation_is_answered_at_a_time(chat: Chat) -> None:
    first = chat.stream({"base": say("one")})
    assert next(first).text == "base heard one"
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.extend(d.text for d in chat.stream({"base": say("two")})))
    thread.start()
    time.sleep(0.2)
    assert done == []
    list(first)
    thread.join(timeout=10)
    assert done == ["base heard two"]


def test_a_conversation_in_a_terminal_remembers_both_sides(workers: FakeWorkers) -> None:
    taught("20261122-1412-a")
    said: list[str] = []
    conversation = Conversation("20261122-1412-a", said.append)
    written: list[str] = []
    answers = conversation.ask("Hi", written.append, 0.0, 16)
    conversation.ask("And?", None, 0.0, 16)
    conversation.close()
    assert said == ["Loading"]
    assert answers == {"base": "base heard Hi", "tuned": "tuned heard Hi"}
    assert written == ["base: base heard Hi\n\n", "tuned: tuned heard Hi\n\n"]
    assert [message["content"] for message in conversation.histories["tuned"]] == [
        "Hi", "tuned heard Hi", "And?", "tuned heard And?",
    ]  # fmt: skip


def test_a_conversation_with_a_model_has_one_side(workers: FakeWorkers) -> None:
    conversation = Conversation("starter", lambda text: None)
    written: list[str] = []
    assert conversation.ask("Hi", written.append, 0.0, 16) == {"base": "base heard Hi"}
    assert written == ["base heard Hi\n\n"]
    conversation.close()


# -- the best of several ----------------------------------------------------------------------------------------------


class Judging:
    """A pipe to a worker that gives what was asked of it, and two answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def request(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        self.asked.append({"op": op, **fields})
        yield {"event": "part", "text": "Loading"}
        answers = [{"text": "yes", "score": 2.0, "tokens": 1}, {"text": "no", "score": -1.0, "tokens": 1}]
        yield {"event": "done", "answers": answers}

    def close(self) -> None:
        pass


def test_the_best_answer_is_remembered_and_the_reward_model_is_looked_up() -> None:
    from studio.workspace.home import models_dir

    make_model(models_dir() / "judge")
    pipe = Judging()
    conversation = Conversation.__new__(Conversation)
    conversation.chat = Chat(Launcher(standby=False), Runs(), pipe)  # type: ignore[arg-type]
    conversation.columns, conversation.histories = ["base", "tuned"], {"base": [], "tuned": []}
    conversation._progress = lambda text: None
    found = conversation.best("well?", "judge", 2, 1.0, 8)
    assert [(one.text, one.score) for one in found] == [("yes", 2.0), ("no", -1.0)]
    assert [message["content"] for message in conversation.histories["tuned"]] == ["well?", "yes"]
    assert pipe.asked[0]["reward"]["model"]["name"] == "judge" and pipe.asked[0]["samples"] == 2


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"samples": 1}, "between 2 and 256"),
        ({"temperature": 0.0}, "all answers are the same"),
        ({"reward": "run:@1"}, "stands for the run"),
        ({"reward": "run:nothing"}, "no run 'nothing'"),
    ],
)
def test_what_cant_be_judged_is_refused(wishes: dict[str, Any], words: str) -> None:
    chat = Chat(Launcher(standby=False), Runs(), Judging())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        chat.best([], **{"reward": "run:nothing", "samples": 2, **wishes})


def test_a_judge_must_have_learnt_to_judge() -> None:
    taught("20261122-1412-a")
    chat = Chat(Launcher(standby=False), Runs(), Judging())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="learnt by sft"):
        chat.best([], "run:20261122-1412-a", 2)
