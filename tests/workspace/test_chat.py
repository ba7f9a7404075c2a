"""The near end of the pipe: parts, answers, errors, a worker that dies, and what there is to talk to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from studio.core.errors import ConfigError, RunError, StudioError, WorkerError
from studio.workspace.chat import Chat, Delta, ServePipe, list_targets
from studio.workspace.conversation import Conversation
from studio.workspace.launcher import Launcher
from studio.workspace.runs import Runs
from tests.fake_worker import FakeWorkers, until
from tests.workspace.test_models import make_model
from tests.workspace.test_runs import add, at, make_run


@pytest.fixture
def pipe(workers: FakeWorkers) -> Iterator[ServePipe]:
    pipe = ServePipe(Launcher(standby=False))
    yield pipe
    pipe.close()


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


# -- the pipe ---------------------------------------------------------------------------------------------------------


def test_parts_come_one_by_one_and_then_the_answer(pipe: ServePipe) -> None:
    assert not pipe.alive
    answers = list(pipe.request("echo", parts=parts("one", "zwei", "🦙"), number=7))
    assert [answer["event"] for answer in answers] == ["part", "part", "part", "done"]
    assert [answer["text"] for answer in answers[:3]] == ["one", "zwei", "🦙"]
    assert answers[-1]["asked"]["number"] == 7
    assert pipe.alive


def test_one_worker_answers_many_requests(pipe: ServePipe, workers: FakeWorkers) -> None:
    for text in ("a", "b", "c"):
        assert told(pipe.request("echo", parts=parts(text))) == [text, "done"]
    assert [command[-1] for command in workers.commands] == ["--serve"]


def test_requests_at_the_same_time_get_their_own_answers(pipe: ServePipe) -> None:
    results: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        results[number] = told(pipe.request("echo", parts=parts(*[str(number)] * 5)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [*[str(number)] * 5, "done"] for number in range(8)}


def test_an_error_is_told_in_the_workers_words_and_the_worker_goes_on(pipe: ServePipe) -> None:
    with pytest.raises(StudioError) as raised:
        list(pipe.request("echo", parts=parts("a"), fail="The memory wasn't enough."))
    assert (raised.value.message, raised.value.hint) == ("The memory wasn't enough.", "A hint.")
    assert told(pipe.request("echo", parts=parts("b"))) == ["b", "done"]


def test_a_worker_that_dies_is_told_and_the_next_question_gets_another(pipe: ServePipe, workers: FakeWorkers) -> None:
    answers = pipe.request("echo", parts=parts("half"), die=True)
    assert next(answers)["text"] == "half"
    with pytest.raises(WorkerError, match="ended"):
        list(answers)
    until(lambda: not pipe.alive)
    assert told(pipe.request("echo", parts=parts("b"))) == ["b", "done"]
    assert len(workers.commands) == 2


def test_everyone_who_waits_hears_of_the_death(pipe: ServePipe) -> None:
    answers = pipe.request("echo", parts=parts("a"), babble=True)
    next(answers)
    ends: list[str] = []

    def ask() -> None:
        try:
            list(pipe.request("echo", parts=parts("b")))
        except WorkerError as error:
            ends.append(error.message)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(pipe._answers) == 4)
    pipe.close()
    for thread in threads:
        thread.join(timeout=10)
    with pytest.raises(WorkerError):
        list(answers)
    assert len(ends) == 3


def test_a_stop_ends_the_answer_that_is_being_given(pipe: ServePipe) -> None:
    pipe.stop()  # nothing is being given: nothing happens
    answers = pipe.request("echo", parts=parts("a"), babble=True)
    for _ in range(3):
        next(answers)
    pipe.stop()
    assert told(answers)[-1] == "done"


def test_closing_frees_the_memory_and_what_follows_is_answered_anew(pipe: ServePipe) -> None:
    for _ in range(5):
        *_, done = pipe.request("echo", parts=parts("a"))
        process = psutil.Process(done["pid"])
        pipe.close()
        assert not process.is_running()
        # The old worker's end is heard on another thread, and must not be taken for the new one's.
        assert told(pipe.request("echo", parts=parts("b"))) == ["b", "done"]
    pipe.close()
    pipe.close()
    assert not pipe.alive


def test_the_end_of_an_old_worker_is_not_the_new_ones(pipe: ServePipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, with the old worker's listener held up for as long as it takes."""
    listen, held = pipe._listen, threading.Event()

    def late(process: Any, *more: Any) -> None:
        listen_to = process.stdout

        class Late:
            closed = True

            def __enter__(self) -> Any:
                return iter(self)

            def __exit__(self, *_: object) -> None:
                listen_to.close()

            def __iter__(self) -> Iterator[bytes]:
                yield from listen_to
                held.wait(10)

        process.stdout = Late()
        listen(process, *more)

    monkeypatch.setattr(pipe, "_listen", late)
    list(pipe.request("echo", parts=parts("a")))
    pipe.close()
    monkeypatch.setattr(pipe, "_listen", listen)
    answers = pipe.request("echo", parts=parts("b"), babble=True)
    assert next(answers)["text"] == "b"
    held.set()
    time.sleep(0.2)
    pipe.stop()
    assert told(answers)[-1] == "done"


def test_an_answer_that_nobody_reads_on_is_dropped(pipe: ServePipe) -> None:
    answers = pipe.request("echo", parts=parts("a", "b", "c"))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert told(pipe.request("echo", parts=parts("d"))) == ["d", "done"]
    assert pipe._answers == {}


def test_a_standby_becomes_the_serve_worker(workers: FakeWorkers) -> None:
    launcher = Launcher(standby=True)
    launcher.prepare()
    pipe = ServePipe(launcher)
    assert told(pipe.request("echo", parts=parts("a"))) == ["a", "done"]
    assert [command[-1] for command in workers.commands] == ["--standby"]
    pipe.close()
    launcher.close()


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


def test_a_row_is_shown_as_trained_on(chat: Chat) -> None:
    asked = chat.show_row("quickstart-sft", 3, train_on="all", max_length=64)["asked"]
    assert (asked["op"], asked["row"], asked["max_length"]) == ("show", 3, 64)
    assert asked["section"]["train_on"] == "all"
    assert asked["dataset"]["path"].endswith("train.jsonl")
    assert asked["model"]["kind"] == "starter"


@pytest.mark.parametrize(
    ("section", "field"),
    [({"format": "magic"}, "format"), ({"train_on": "nobody"}, "train_on"), ({"colums": {}}, "colums")],
)
def test_S5_a_row_is_shown_by_knobs_that_there_are(chat: Chat, section: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        chat.show_row("quickstart-sft", 0, **section)
    assert raised.value.field.endswith(field)


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
