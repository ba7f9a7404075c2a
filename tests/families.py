"""Model families: tokenizers made on the spot whose chat templates behave as the published ones.

In: a family's name. Out: a tokenizer (byte-level, or like SentencePiece's) with the family's special tokens and a
template of our own wording. What they write is put down by hand in `written`; where TRL ships a family's published
template, a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny import CHATML, tiny_tokenizer


def with_bos(tokenizer: Any, template: str) -> Any:
    """Plain texts get a beginning-of-sequence token, as these families' tokenizers give it."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = template
    return tokenizer


def sentencepiece_like(template: str, control: tuple[str, ...] = ()) -> Any:
    """As Llama-2's and Mistral's: spaces are ▁, one is put before any text, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *control]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    words = "[INST] what is your name [/INST] I am a tiny model and done Yes <<SYS>> Be brief please <</SYS>>"
    tokenizer.train_from_iterator(words.split() * 3, trainer)
    # The byte tokens are ordinary ones, reached by falling back to them.
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] in special]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return with_bos(made, template)


def _chatml(system: str, thinking: bool = False) -> str:
    """Qwen's ChatML: tools in the system message, results in a user's; `thinking` as Qwen3 has it."""
    tools = (
        "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with "
        "function signatures within <tools></tools> XML tags:\\n<tools>"
    )
    how = (
        "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within "
        '<tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": '
        "<args-json-object>}\\n</tool_call>"
    )
    opened = (
        "{%- set given = messages[0].content if messages[0].role == 'system' else " + repr(system) + " %}"
        "{%- if tools or given %}{{ '<|im_start|>system\\n' + given }}"
        '{%- if tools %}{{ ("\\n\\n" if given else "") + "' + tools + '" }}'
        '{%- for tool in tools %}{{ "\\n" + tool | tojson }}{% endfor %}{{ "' + how + '" }}{%- endif %}'
        "{{ '<|im_end|>\\n' }}{%- endif %}"
    )
    thoughts = (
        "{%- if '</think>' in said.text %}"
        "{%- set said.thought = said.text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
        "{%- set said.text = said.text.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
        "{%- if loop.index0 > asked.last and (loop.last or said.thought) %}"
        "{%- set said.text ="
        " '<think>\\n' + said.thought.strip('\\n') + '\\n</think>\\n\\n' + said.text.lstrip('\\n') %}"
        "{%- endif %}"
    )
    return (
        opened + "{%- set asked = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
        "{%- set asked.last = loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for m in messages %}{%- set said = namespace(text=m.content or '', thought='') %}"
        "{%- if m.role == 'user' %}{{ '<|im_start|>user\\n' + said.text + '<|im_end|>\\n' }}"
        "{%- elif m.role == 'assistant' %}" + (thoughts if thinking else "") + "{{ '<|im_start|>assistant' }}"
        "{%- if said.text or not m.tool_calls %}{{ '\\n' + said.text }}{%- endif %}"
        "{%- for call in m.tool_calls or [] %}"
        '{{ \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
        "{{- call.function.arguments | tojson + '}\\n</tool_call>' }}{%- endfor %}{{ '<|im_end|>\\n' }}"
        "{%- elif m.role == 'tool' %}"
        "{%- if loop.first or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{%- endif %}"
        "{{ '\\n<tool_response>\\n' + said.text + '\\n</tool_response>' }}"
        "{%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\\n' }}{%- endif %}"
        "{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
    )


QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
QWEN_2_5 = _chatml(QWEN_SYSTEM)
QWEN_3 = _chatml("", thinking=True)

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# A system message of its own always; tools in the first question; one call a turn; results by `ipython`.
LLAMA_3_1_TOOLS = (
    "Given the following functions, please respond with a JSON for a function call with its proper arguments that best "
    'answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary of argument '
    "name and its value}.Do not use variables.\n\n"
)
LLAMA_3_1 = (
    "{{ bos_token }}{% macro head(role) %}{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}{% endmacro %}"
    "{% set own = messages[0].role == 'system' %}{{ head('system') }}"
    "{{ 'Environment: ipython\n' if tools else '' }}"
    "{{ 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' }}"
    "{{ (messages[0].content | trim if own else '') + '<|eot_id|>' }}"
    "{% for m in messages[own:] %}"
    "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one tool call at once') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}{{ head('assistant') }}"
    '{{ \'{"name": "\' + call.name + \'", "parameters": \' }}'
    "{{ call.arguments | tojson + '}<|eot_id|>' }}"
    "{% elif m.role == 'tool' %}{{ head('ipython') + m.content | tojson + '<|eot_id|>' }}"
    "{% else %}{{ head(m.role) }}{% if tools and loop.first %}{{ " + repr(LLAMA_3_1_TOOLS) + " }}"
    "{% for t in tools %}{{ t | tojson(indent=4) + '\n\n' }}{% endfor %}{% endif %}"
    "{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ head('assistant') }}{% endif %}"
)
# In its first form: [INST] is plain text, the answer ends with the end-of-sequence token, no system message.
MISTRAL_1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# In its third: control tokens, the system message within the last question, tools before it.
MISTRAL_3_TOKENS = (
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    "[/TOOL_RESULTS]",
)
MISTRAL_3 = (
    "{% set own = messages[0].role == 'system' %}{% set turns = messages[own:] %}"
    "{% set asked = turns | selectattr('role', 'equalto', 'user') | list %}{{ bos_token }}"
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{% if tools and m == asked[-1] %}{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{ '[INST] ' + (messages[0].content + '\n\n' if own and m == asked[-1] else '') + m.content + '[/INST]' }}"
    "{% elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}{% for call in m.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}"
    "{{ (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' + (']' + eos_token if loop.last else ', ') }}"
    "{% endfor %}"
    "{% elif m.role == 'tool' %}"
    "{{ '[TOOL_RESULTS] {\"content\": ' + m.content + ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set said = none %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' }}{% if loop.first and said %}{{ '<<SYS>>\n' + said + '\n<</SYS>>\n\n' }}{% endif %}"
    "{{ m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# The third one's folds the system message into the first question.
GEMMA_3 = (
    "{{ bos_token }}{% set own = messages[0].role == 'system' %}"
    "{% for m in messages[own:] %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ (messages[0].content + '\n\n' if own and loop.first else '') + m.content | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# What ends a whole conversation is another token than what ends a turn.
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
)
PHI_4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
# Thoughts are left out of histories, but opened where an answer is asked for; arguments have to be text.
DEEPSEEK_TOKENS = (
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>"),
    *(
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁outputs▁begin｜>",
    ),
    *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁outputs▁end｜>"),
)
DEEPSEEK = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.tool_calls %}{{ '<｜Assistant｜>' + (m.content or '') + '<｜tool▁calls▁begin｜>' }}"
    "{% for call in m.tool_calls %}{{ '' if loop.first else '\n' }}"
    "{{ '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' }}"
    "{{ call.function.name + '\n```json\n' + call.function.arguments + '\n```<｜tool▁call▁end｜>' }}{% endfor %}"
    "{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}"
    "{% elif m.role == 'assistant' %}"
    "{{ '<｜tool▁outputs▁end｜>' if loop.previtem is defined and loop.previtem.role == 'tool' else '<｜Assistant｜>' }}"
    "{{ m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% elif m.role == 'tool' %}{{ '' if loop.previtem.role == 'tool' else '<｜tool▁outputs▁begin｜>' }}"
    "{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{% endif %}{% endfor %}"
    "{% if messages[-1].role == 'tool' %}{{ '<｜tool▁outputs▁end｜>' }}"
    "{% elif add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)


def qwen(template: str) -> Any:
    tokenizer = tiny_tokenizer(template)
    words = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
    tokenizer.add_tokens([AddedToken(word, special=False) for word in words])
    return tokenizer


def llama_3(template: str = LLAMA_3) -> Any:
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return with_bos(tiny_tokenizer(special=special, bos=special[0], eos="<|eot_id|>", pad=None), template)


def gemma(template: str = GEMMA) -> Any:
    special = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
    return with_bos(tiny_tokenizer(special=special, bos="<bos>", eos="<eos>", pad="<pad>"), template)


def phi_3() -> Any:
    special = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    return tiny_tokenizer(PHI_3, special=special, eos="<|endoftext|>")


def phi_4() -> Any:
    return tiny_tokenizer(PHI_4, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"))


def deepseek() -> Any:
    made = tiny_tokenizer(special=DEEPSEEK_TOKENS, bos=DEEPSEEK_TOKENS[0], eos=DEEPSEEK_TOKENS[1], pad=None, size=420)
    made.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    return with_bos(made, DEEPSEEK)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "smollm2": lambda: tiny_tokenizer(CHATML),
    "qwen2.5": lambda: qwen(QWEN_2_5),
    "qwen3": lambda: qwen(QWEN_3),
    "llama3": llama_3,
    "llama3.1": lambda: llama_3(LLAMA_3_1),
    "mistral1": lambda: sentencepiece_like(MISTRAL_1),
    "mistral3": lambda: sentencepiece_like(MISTRAL_3, MISTRAL_3_TOKENS),
    "llama2": lambda: sentencepiece_like(LLAMA_2),
    "gemma": gemma,
    "gemma3": lambda: gemma(GEMMA_3),
    "phi3": phi_3,
    "phi4": phi_4,
    "deepseek": deepseek,
}
# The files of TRL's that hold the published ones.
PUBLISHED = {
    **{"qwen2.5": "qwen2_5", "qwen3": "qwen3", "llama3": "llama3", "llama3.1": "llama3_1", "gemma": "gemma"},
    **{"gemma3": "gemma3", "phi3": "phi3", "deepseek": "deepseekv3"},
}


@cache
def family(name: str) -> Any:
    """The family's tokenizer. Shared: nobody may change it."""
    return TOKENIZERS[name]()
