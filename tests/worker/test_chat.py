"""Talking to a base and what was trained on it: each says what it would have said alone, word by word."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.core.config import DatasetSection
from studio.core.errors import ModelError, StudioError, TemplateError, WorkerError
from studio.core.inputs import DatasetInput, ModelInput
from studio.core.job import JobFolder
from studio.worker.chat import ChatModel, ColumnStreamer
from studio.worker.serve import Server
from studio.workspace.chat import ServePipe
from studio.workspace.launcher import Launcher
from tests.families import LLAMA_2, sentencepiece_like
from tests.tiny import make_tiny_llama, tiny_rows, tiny_tokenizer
from tests.worker.conftest import MakeRun
from tests.worker.test_job import wait_until

SHORT = [{"role": "user", "content": "hello"}]
LONG = [
    {"role": "system", "content": "You are a helpful fox."},
    {"role": "user", "content": "tell me about the water in the light of early morning"},
    {"role": "assistant", "content": "seven small boats cross it"},
    {"role": "user", "content": "and where do they come from"},
]

ENDLESS = [{"role": "user", "content": "the water"}]  # the tiny model's own answer to it goes round in circles


@pytest.fixture(scope="module")
def trained(make_run: MakeRun, zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """A run that learnt to say `good night` and no more."""
    rows = [
        {"messages": [row["messages"][-2], {"role": "assistant", "content": "good night"}]} for row in tiny_rows(40)
    ]
    job = make_run(rows, training={"max_steps": 60, "save_steps": 60, "eval_steps": 60, "learning_rate": 2e-2})
    log = tmp_path_factory.mktemp("log") / "log"
    assert zygote.start("tests.worker.forks:run_job", job.path, log=log).wait() == 0, log.read_text()
    return job


class Talk:
    """A ChatModel, and what it said."""

    def __init__(self, base: Path, tuned: Path | None = None, **section: Any) -> None:
        self.parts: list[dict[str, Any]] = []
        self.model = ChatModel()
        base_input = asdict(ModelInput("folder", "base", str(base)))
        self.request = {"base": base_input, "model": {"dtype": "float32", **section}, "tuned": tuned and str(tuned)}
        self.loaded = self.model.load(self.request, self.parts.append)

    def ask(self, conversations: dict[str, Any], **wishes: Any) -> dict[str, Any]:
        self.parts.clear()
        wishes = {"temperature": 0, "max_new_tokens": 24, **wishes}
        return self.model.generate({"conversations": conversations, **wishes}, self.parts.append)

    def said(self, column: str) -> str:
        return "".join(part["text"] for part in self.parts if part["column"] == column)


@pytest.fixture(scope="module")
def talk(tiny_model: Path, trained: JobFolder) -> Talk:
    return Talk(tiny_model, trained.adapter)


def alone(model: Path, adapter: Path | None, messages: list[dict[str, str]], most: int = 24) -> str:
    """The answer of one model to one conversation, by transformers and PEFT alone."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        loaded = PeftModel.from_pretrained(loaded, str(adapter))
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = loaded.eval().generate(**prompt, max_new_tokens=most, do_sample=False)
    text: str = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "tuned"), [(SHORT, SHORT), (SHORT, LONG), (LONG, SHORT)], ids=["same", "longer", "shorter"]
)
def test_side_by_side_each_says_what_it_says_alone(
    talk: Talk, tiny_model: Path, trained: JobFolder, base: list[Any], tuned: list[Any]
) -> None:
    assert talk.loaded == {"columns": ["base", "tuned"]}
    talk.ask({"base": base, "tuned": tuned})
    assert talk.said("base") == alone(tiny_model, None, base)
    assert talk.said("tuned") == alone(tiny_model, trained.adapter, tuned)
    assert talk.said("base") != talk.said("tuned")


@pytest.mark.parametrize("column", ["base", "tuned"])
def test_one_of_them_can_be_asked_alone(talk: Talk, tiny_model: Path, trained: JobFolder, column: str) -> None:
    talk.ask({column: LONG})
    assert talk.said(column) == alone(tiny_model, trained.adapter if column == "tuned" else None, LONG)
    assert {part["column"] for part in talk.parts} == {column}


def test_a_model_without_a_run_is_talked_to(tiny_model: Path) -> None:
    talk = Talk(tiny_model)
    assert talk.loaded == {"columns": ["base"]}
    talk.ask({"base": LONG})
    assert talk.said("base") == alone(tiny_model, None, LONG)


def test_a_wholly_trained_model_is_talked_to_beside_its_base(tiny_model: Path, tmp_path: Path) -> None:
    other = make_tiny_llama(tmp_path / "other", seed=9)
    talk = Talk(tiny_model, other)
    talk.ask({"base": SHORT, "tuned": LONG})
    assert talk.said("base") == alone(tiny_model, None, SHORT)
    assert talk.said("tuned") == alone(other, None, LONG)


@pytest.mark.parametrize("lora", [True, False])
def test_a_reward_model_is_refused_in_a_sentence(make_run: MakeRun, zygote: Any, tiny_model: Path, lora: bool) -> None:
    pairs = [{"prompt": "what", "chosen": f" is {number}", "rejected": " no"} for number in range(4)]
    wishes: dict[str, Any] = {"method": {"name": "reward"}, "training": {"max_steps": 1}}
    job = make_run(pairs, **wishes, **({} if lora else {"adapter": None}))
    log = job.path / "fork.log"
    assert zygote.start("tests.worker.forks:run_job", job.path, log=log).wait() == 0, log.read_text()
    with pytest.raises(ModelError, match="reward model: it gives answers a number and can't write"):
        Talk(tiny_model, job.adapter if lora else job.model)
    if not lora:
        with pytest.raises(ModelError, match="reward model"):
            Talk(job.model)


def test_F42_an_answer_ends_where_it_ends_and_the_other_goes_on(talk: Talk, tiny_model: Path) -> None:
    result = talk.ask({"base": LONG, "tuned": SHORT}, max_new_tokens=40)
    assert talk.said("tuned") == "good night"
    assert talk.said("base") == alone(tiny_model, None, LONG, 40)
    ends = {part["column"]: part for part in talk.parts if part["done"]}
    assert 1 < ends["tuned"]["tokens"] < ends["base"]["tokens"]
    assert result["tokens"] == {column: part["tokens"] for column, part in ends.items()}
    closed = [part["column"] for part in talk.parts if part["done"]]
    assert closed == ["tuned", "base"]
    assert not result["stopped"]
    assert talk.parts[-1]["seconds"] > 0


@pytest.mark.parametrize("pad", ["<|im_end|>", None])
def test_F42_where_padding_is_the_end_or_missing_answers_end_too(
    trained: JobFolder, tiny_model: Path, tmp_path: Path, pad: str | None
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = tiny_tokenizer(pad=pad)
    tokenizer.save_pretrained(folder)
    adapter = shutil.copytree(trained.adapter, tmp_path / "adapter")
    tokenizer.save_pretrained(adapter)
    talk = Talk(folder, adapter)
    talk.ask({"base": LONG, "tuned": SHORT}, max_new_tokens=40)
    assert talk.said("tuned") == "good night"
    assert talk.said("base") == alone(tiny_model, None, LONG, 40)


def test_a_seed_repeats_an_answer_and_another_doesnt(talk: Talk) -> None:
    said = []
    for seed in (1, 1, 2):
        talk.ask({"base": LONG}, temperature=1.5, top_p=1.0, seed=seed)
        said.append(talk.said("base"))
    assert said[0] == said[1] != said[2]


def test_a_narrow_top_p_is_greedy(talk: Talk) -> None:
    talk.ask({"base": LONG}, temperature=1.5, top_p=1e-6, seed=1)
    sampled = talk.said("base")
    talk.ask({"base": LONG}, temperature=0)
    assert talk.said("base") == sampled


def test_a_stop_ends_the_answer_and_keeps_what_was_said(talk: Talk) -> None:
    talk.parts.clear()
    heard: list[dict[str, Any]] = []

    def hear(part: dict[str, Any]) -> None:
        heard.append(part)
        if len(heard) == 5:
            talk.model.stop()

    request = {"conversations": {"base": ENDLESS, "tuned": LONG}, "temperature": 0, "max_new_tokens": 400}
    result = talk.model.generate(request, hear)
    assert result["stopped"]
    assert result["tokens"]["base"] < 20
    assert "".join(part["text"] for part in heard if part["column"] == "base")
    assert {part["column"] for part in heard if part["done"]} == {"base", "tuned"}
    assert not talk.ask({"base": SHORT})["stopped"]  # the next question is answered


# -- word by word -----------------------------------------------------------------------------------------------------

STREAMED = {"bytes": tiny_tokenizer(), "sentencepiece": sentencepiece_like(LLAMA_2)}


def stream(name: str, ids: list[int]) -> list[str]:
    parts: list[dict[str, Any]] = []
    streamer = ColumnStreamer(STREAMED[name], ["base"], [STREAMED[name].eos_token_id], parts.append)
    streamer.put(torch.tensor([[5, 6, 7]]))  # the prompt comes first
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.finish()
    assert parts[-1]["done"]
    return [part["text"] for part in parts]


@pytest.mark.parametrize("name", STREAMED)
@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
@example("naïve 日本 🦊👩‍🚀 e\u0301")
@example(" leading and trailing ")
@example("two\n\nlines")
def test_what_is_streamed_is_the_text(name: str, text: str) -> None:
    tokenizer = STREAMED[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [token for token in ids if token not in tokenizer.all_special_ids]
    assert "".join(stream(name, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", STREAMED)
def test_half_a_character_is_held_back(name: str) -> None:
    ids = STREAMED[name]("🦊 日本", add_special_tokens=False)["input_ids"]
    pieces = [piece for piece in stream(name, ids) if piece]
    assert "".join(pieces).strip() == "🦊 日本"
    assert len(pieces) > 1
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_very_end_is_shown_as_such() -> None:
    ids = STREAMED["bytes"]("a🦊", add_special_tokens=False)["input_ids"]
    assert "".join(stream("bytes", ids[:-1])) == "a\ufffd"


def test_nothing_comes_after_the_end(talk: Talk) -> None:
    tokenizer = STREAMED["bytes"]
    ids = tokenizer("the fox", add_special_tokens=False)["input_ids"]
    assert "".join(stream("bytes", [*ids, tokenizer.eos_token_id, *ids])) == "the fox"


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_nothing_is_said_before_a_model_is_loaded() -> None:
    with pytest.raises(ModelError, match="No model is loaded"):
        ChatModel().generate({"conversations": {"base": SHORT}}, print)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('no system here') }}", "no system here"),
        ("{% for", "can't write"),
        ("{{ 1 / 0 }}", "can't write"),
    ],
)
def test_F43_a_template_that_cant_write_the_conversation_is_told(
    tmp_path: Path, template: str | None, said: str
) -> None:
    talk = Talk(make_tiny_llama(tmp_path / "model", tokenizer=tiny_tokenizer(template)))
    with pytest.raises(TemplateError, match=said):
        talk.ask({"base": SHORT})


def test_the_same_model_isnt_loaded_twice(talk: Talk) -> None:
    before = talk.model._models["base"]
    talk.model.load(talk.request, print)
    assert talk.model._models["base"] is before


def test_where_loading_fails_the_old_model_is_gone_and_says_so(tiny_model: Path, tmp_path: Path) -> None:
    talk = Talk(tiny_model)
    gone = {**talk.request, "base": asdict(ModelInput("folder", "gone", str(tmp_path / "gone")))}
    with pytest.raises(ModelError, match="is gone"):
        talk.model.load(gone, print)
    with pytest.raises(ModelError, match="No model is loaded"):
        talk.ask({"base": SHORT})
    talk.model.load(talk.request, print)
    talk.ask({"base": SHORT})
    assert talk.said("base")


class Evil:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.mark,))


def test_S13_an_adapter_that_is_a_pickle_is_never_opened(tiny_model: Path, trained: JobFolder, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    adapter = shutil.copytree(trained.adapter, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(ModelError, match="safetensors"):
        Talk(tiny_model, adapter)
    assert not mark.exists()


def test_S12_code_that_comes_with_an_adapter_is_never_run(tiny_model: Path, trained: JobFolder, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    adapter = shutil.copytree(trained.adapter, tmp_path / "adapter")
    (adapter / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n", encoding="utf-8")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["auto_mapping"] = {"base_model_class": "OwnModel", "parent_library": "own"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    talk = Talk(tiny_model, adapter)
    talk.ask({"tuned": SHORT})
    assert talk.said("tuned") == "good night"
    assert not mark.exists()


# -- the pipe ---------------------------------------------------------------------------------------------------------


def answers(lines: str, ops: dict[str, Any], expected: int) -> list[dict[str, Any]]:
    out = io.StringIO()
    Server(out, ops).run(io.StringIO(lines), lambda: None)
    wait_until(lambda: out.getvalue().count("\n") >= expected, "the last answer")
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_requests_are_answered_in_turn_whatever_happens_to_one() -> None:
    def fail(request: dict[str, Any], part: Any) -> dict[str, Any]:
        raise request["error"] if "error" in request else ModelError("It isn't here.", "Look elsewhere.")

    def count(request: dict[str, Any], part: Any) -> dict[str, Any]:
        for number in range(request["to"]):
            part({"number": number})
        return {"sum": request["to"]}

    lines = [
        {"id": 1, "op": "count", "to": 2},
        {"id": 2, "op": "fail"},
        {"id": 3, "op": "dance"},
        {"id": 4, "op": "count", "to": 0},
    ]
    text = "no json\n" + "".join(json.dumps(line) + "\n" for line in lines)
    found = answers(text, {"count": count, "fail": fail}, 6)
    assert found[:3] == [
        {"id": 1, "event": "part", "number": 0},
        {"id": 1, "event": "part", "number": 1},
        {"id": 1, "event": "done", "sum": 2},
    ]
    assert found[3] == {"id": 2, "event": "error", "message": "It isn't here.", "hint": "Look elsewhere."}
    assert (found[4]["id"], found[4]["event"]) == (3, "error")
    assert found[5] == {"id": 4, "event": "done", "sum": 0}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServePipe]:
    """A real serve worker, started at the first request."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setenv("STUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        pipe = ServePipe(Launcher(standby=False).serve)
        list(pipe.request("ping"))
    yield pipe
    pipe.close()


def last(pipe: ServePipe, op: str, **fields: Any) -> dict[str, Any]:
    return list(pipe.request(op, **fields))[-1]


def test_a_serve_worker_loads_and_talks(pipe: ServePipe, talk: Talk, tiny_model: Path, trained: JobFolder) -> None:
    assert last(pipe, "load", **talk.request)["columns"] == ["base", "tuned"]
    said = {"base": "", "tuned": ""}
    parts = list(
        pipe.request("generate", conversations={"base": LONG, "tuned": SHORT}, temperature=0, max_new_tokens=24)
    )
    for part in parts[:-1]:
        said[part["column"]] += part["text"]
    assert said == {"base": alone(tiny_model, None, LONG), "tuned": alone(tiny_model, trained.adapter, SHORT)}
    assert parts[-1]["event"] == "done"


def test_a_serve_worker_shows_rows(pipe: ServePipe, tiny_model: Path, dataset: Callable[..., DatasetInput]) -> None:
    rows = tiny_rows(3)
    source = dataset(rows)
    request = {
        "dataset": asdict(source),
        "model": asdict(ModelInput("folder", "tiny", str(tiny_model))),
        "section": DatasetSection(path=source.path).model_dump(mode="json"),
        "max_length": 512,
    }
    shown = last(pipe, "show", position=2, **request)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert shown["ids"] == tokenizer.apply_chat_template(rows[2]["messages"], tokenize=True)["input_ids"]
    with pytest.raises(StudioError, match="no row 3"):
        last(pipe, "show", position=3, **request)
    assert pipe.alive


def test_a_serve_worker_says_what_went_wrong_and_lives(pipe: ServePipe, talk: Talk, tmp_path: Path) -> None:
    gone = asdict(ModelInput("folder", "gone", str(tmp_path / "gone")))
    with pytest.raises(StudioError, match="is gone") as refused:
        last(pipe, "load", base=gone)
    assert refused.value.hint
    with pytest.raises(StudioError, match="No model is loaded"):
        last(pipe, "generate", conversations={"base": SHORT})
    with pytest.raises(StudioError):
        last(pipe, "dance")
    assert pipe.alive


def test_a_serve_worker_stops_when_it_is_told(pipe: ServePipe, talk: Talk) -> None:
    last(pipe, "load", **talk.request)
    conversations = {"base": ENDLESS, "tuned": SHORT}
    parts = []
    for part in pipe.request("generate", conversations=conversations, temperature=0, max_new_tokens=8000):
        parts.append(part)
        if len(parts) == 3:
            pipe.stop()
    assert (parts[-1]["event"], parts[-1]["stopped"]) == ("done", True)
    assert parts[-1]["tokens"]["base"] < 8000


def test_a_serve_worker_that_dies_is_told_of(pipe: ServePipe, talk: Talk) -> None:
    last(pipe, "load", **talk.request)
    process = pipe._process
    assert process is not None
    asked = pipe.request("generate", conversations={"base": ENDLESS}, temperature=0, max_new_tokens=8000)
    next(asked)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="process ended"):
        list(asked)
    process.wait(timeout=30)
    assert not pipe.alive
