"""What model families write: conversations in pieces of text that carry loss or don't, put down by hand.

In: nothing. Out: the conversations, and for each family of `families` what it makes of those that it knows. No piece
comes from a template or from the studio.
"""

from __future__ import annotations

import json
from typing import Any

from tests.families import LLAMA_3_1_TOOLS, QWEN_SYSTEM

Message = dict[str, Any]
Pieces = list[tuple[str, bool]]  # text, and whether it carries loss

SAID = "Be brief, please."
Q1 = "What is your name?"
A1 = "I am a tiny model; naïve, 日本, 🦊\nand done."
Q2 = A1  # the second question repeats the first answer: only one of the two is the assistant's
A2 = "Yes: what is your name?"
THOUGHT = "Who asks?"
RESULT = "12 degrees"

SYSTEM: Message = {"role": "system", "content": SAID}
TURNS: list[Message] = [
    {"role": "user", "content": Q1},
    {"role": "assistant", "content": A1},
    {"role": "user", "content": Q2},
    {"role": "assistant", "content": A2},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    ],
}
USES_TOOL: list[Message] = [
    {"role": "user", "content": Q1},
    CALL,
    {"role": "tool", "content": RESULT, "name": "weather", "tool_call_id": "call00001"},
    {"role": "assistant", "content": A2},
]
THINKS: list[Message] = [
    *TURNS[:1],
    {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{A1}"},
    TURNS[2],
    {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{A2}"},
]
TOOL_JSON = json.dumps(TOOL)
CALL_JSON = '{"name": "weather", "arguments": {"city": "Rome"}}'


CONVERSATIONS: dict[str, tuple[list[Message], list[dict[str, Any]]]] = {  # messages, tools
    "turns": (TURNS, []),
    "system": ([SYSTEM, *TURNS], []),
    "tools": (USES_TOOL, [TOOL]),
    "thinks": (THINKS, []),
}


def _asked(head: str, opening: str, closing: str, between: str, *, first: str, final: str = "") -> Pieces:
    """TURNS written as most families do: `first` stands before all, `closing` ends an answer, `between` follows it."""
    return [
        (first + head + Q1 + opening, False),
        (A1 + closing, True),
        (between + head + Q2 + opening, False),
        (A2 + closing, True),
        (final, False),
    ]


_IM = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "\n")
_EOT = "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
_LLAMA_SYSTEM = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
_PHI = ("<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>", "\n")
_MODEL = ("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>", "\n")
_QWEN_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    f"signatures within <tools></tools> XML tags:\n<tools>\n{TOOL_JSON}\n</tools>\n\nFor each function call, return a "
    "json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
)


def _qwen_tools(first: str, thought: str = "") -> Pieces:
    return [
        (f"<|im_start|>system\n{first}{_QWEN_TOOLS}<|im_start|>user\n{Q1}<|im_end|>\n<|im_start|>assistant\n", False),
        (f"<tool_call>\n{CALL_JSON}\n</tool_call><|im_end|>", True),
        (f"\n<|im_start|>user\n<tool_response>\n{RESULT}\n</tool_response><|im_end|>\n<|im_start|>assistant\n", False),
        (f"{thought}{A2}<|im_end|>", True),
        ("\n", False),
    ]


WRITTEN: dict[str, dict[str, Pieces]] = {
    "smollm2": {
        "turns": _asked(*_IM, first="<|im_start|>system\nYou are a tiny model.<|im_end|>\n", final="\n"),
        "system": _asked(*_IM, first=f"<|im_start|>system\n{SAID}<|im_end|>\n", final="\n"),
    },
    "qwen2.5": {
        "turns": _asked(*_IM, first=f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n", final="\n"),
        "system": _asked(*_IM, first=f"<|im_start|>system\n{SAID}<|im_end|>\n", final="\n"),
        "tools": _qwen_tools(QWEN_SYSTEM + "\n\n"),
    },
    "qwen3": {
        "turns": [
            (f"<|im_start|>user\n{Q1}<|im_end|>\n<|im_start|>assistant\n", False),
            (f"{A1}<|im_end|>", True),
            (f"\n<|im_start|>user\n{Q2}<|im_end|>\n<|im_start|>assistant\n", False),
            (f"<think>\n\n</think>\n\n{A2}<|im_end|>", True),
            ("\n", False),
        ],
        "thinks": [
            (f"<|im_start|>user\n{Q1}<|im_end|>\n<|im_start|>assistant\n", False),
            (f"{A1}<|im_end|>", True),
            (f"\n<|im_start|>user\n{Q2}<|im_end|>\n<|im_start|>assistant\n", False),
            (f"<think>\n{THOUGHT}\n</think>\n\n{A2}<|im_end|>", True),
            ("\n", False),
        ],
        "tools": _qwen_tools("", "<think>\n\n</think>\n\n"),
    },
    "llama3": {
        "turns": _asked(*_EOT, "<|eot_id|>", "", first="<|begin_of_text|>"),
        "system": _asked(*_EOT, "<|eot_id|>", "", first=f"{_LLAMA_SYSTEM}{SAID}<|eot_id|>"),
    },
    "llama3.1": {
        "turns": _asked(*_EOT, "<|eot_id|>", "", first=f"{_LLAMA_SYSTEM}{_DATES}<|eot_id|>"),
        "system": _asked(*_EOT, "<|eot_id|>", "", first=f"{_LLAMA_SYSTEM}{_DATES}{SAID}<|eot_id|>"),
        "tools": [
            (f"{_LLAMA_SYSTEM}Environment: ipython\n{_DATES}<|eot_id|>{_EOT[0]}{LLAMA_3_1_TOOLS}", False),
            (f"{json.dumps(TOOL, indent=4)}\n\n{Q1}{_EOT[1]}", False),
            ('{"name": "weather", "parameters": {"city": "Rome"}}<|eot_id|>', True),
            (f'<|start_header_id|>ipython<|end_header_id|>\n\n"{RESULT}"{_EOT[1]}', False),
            (f"{A2}<|eot_id|>", True),
        ],
    },
    "mistral1": {
        "turns": [
            (f"<s>[INST] {Q1} [/INST]", False),
            (f" {A1}</s>", True),
            (f"[INST] {Q2} [/INST]", False),
            (f" {A2}</s>", True),
        ]
    },
    "mistral3": {
        "turns": [
            (f"<s>[INST] {Q1}[/INST]", False),
            (f" {A1}</s>", True),
            (f"[INST] {Q2}[/INST]", False),
            (f" {A2}</s>", True),
        ],
        "system": [
            (f"<s>[INST] {Q1}[/INST]", False),
            (f" {A1}</s>", True),
            (f"[INST] {SAID}\n\n{Q2}[/INST]", False),
            (f" {A2}</s>", True),
        ],
        "tools": [
            (f"<s>[AVAILABLE_TOOLS] [{TOOL_JSON}][/AVAILABLE_TOOLS][INST] {Q1}[/INST]", False),
            (f'[TOOL_CALLS] [{CALL_JSON[:-1]}, "id": "call00001"}}]</s>', True),
            (f'[TOOL_RESULTS] {{"content": {RESULT}, "call_id": "call00001"}}[/TOOL_RESULTS]', False),
            (f" {A2}</s>", True),
        ],
    },
    "llama2": {
        "turns": [
            (f"<s>[INST] {Q1} [/INST]", False),
            (f" {A1} </s>", True),
            (f"<s>[INST] {Q2} [/INST]", False),
            (f" {A2} </s>", True),
        ],
        "system": [
            (f"<s>[INST] <<SYS>>\n{SAID}\n<</SYS>>\n\n{Q1} [/INST]", False),
            (f" {A1} </s>", True),
            (f"<s>[INST] {Q2} [/INST]", False),
            (f" {A2} </s>", True),
        ],
    },
    "gemma": {"turns": _asked(*_MODEL, first="<bos>", final="\n")},
    "gemma3": {
        "turns": _asked(*_MODEL, first="<bos>", final="\n"),
        "system": [
            (f"<bos><start_of_turn>user\n{SAID}\n\n{Q1}<end_of_turn>\n<start_of_turn>model\n", False),
            *_asked(*_MODEL, first="", final="\n")[1:],
        ],
    },
    "phi3": {
        "turns": _asked(*_PHI, first="", final="\n<|endoftext|>"),
        "system": _asked(
            *_PHI,
            first=f"<|system|>\n{SAID}<|end|>\n",
            final="\n<|endoftext|>",
        ),
    },
    "phi4": {
        "turns": _asked(
            "<|im_start|>user<|im_sep|>", "<|im_end|><|im_start|>assistant<|im_sep|>", "<|im_end|>", "", first=""
        ),
        "system": _asked(
            "<|im_start|>user<|im_sep|>",
            "<|im_end|><|im_start|>assistant<|im_sep|>",
            "<|im_end|>",
            "",
            first=f"<|im_start|>system<|im_sep|>{SAID}<|im_end|>",
        ),
    },
    "deepseek": {
        "turns": _asked("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "", first="<｜begin▁of▁sentence｜>"),
        "system": _asked(
            "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "", first=f"<｜begin▁of▁sentence｜>{SAID}"
        ),
        "tools": [
            (f"<｜begin▁of▁sentence｜><｜User｜>{Q1}<｜Assistant｜>", False),
            ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n", True),
            ('{"city": "Rome"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>', True),
            (f"<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>{RESULT}<｜tool▁output▁end｜>", False),
            ("<｜tool▁outputs▁end｜>", False),
            (f"{A2}<｜end▁of▁sentence｜>", True),
        ],
    },
}
