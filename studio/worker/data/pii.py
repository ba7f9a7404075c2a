"""Strings that look personal or secret: e-mail addresses, phone numbers, payment cards, keys.

In: a text. Out: the first of each kind. `KINDS` is the whole of it: kind -> pattern -> what a match has to be besides.
Every pattern takes time linear in the text: repeats are bounded and their parts can't stand for one another. Made to
be quiet about mathematics and code: numbers in a sum, hashes and decimals are no phones and no cards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Check = Callable[[re.Match[str]], bool]


@dataclass(frozen=True)
class Pattern:
    """`hint` is a piece of text without which there can't be a match: a quick way past most texts."""

    regex: re.Pattern[str]
    check: Check
    hint: re.Pattern[str]


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def _any(_match: re.Match[str]) -> bool:
    return True


def _is_phone(match: re.Match[str]) -> bool:
    """A plausible number of digits (ITU-T E.164 has at most 15), and no part of a formula."""
    return 8 <= len(_digits(match[0])) <= 15 and not _in_formula(match)


_OPERATOR_BEFORE = re.compile(r"[0-9)]\s?[*/^×÷<>+-]\s?$")
_OPERATOR_BEHIND = re.compile(r"\s?[=*^×÷]|\s?[+/]\s?[0-9]|[-.][0-9]|,[0-9]{3}")


def _in_formula(match: re.Match[str]) -> bool:
    text = match.string
    before = text[max(0, match.start() - 4) : match.start()]
    if match[0].startswith("+"):
        before += "+"
    return bool(_OPERATOR_BEFORE.search(before) or _OPERATOR_BEHIND.match(text, match.end()))


# First digits and lengths by issuer, as ISO/IEC 7812 gave them out.
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[689]\d)\d{11}"
)


def _is_card(match: re.Match[str]) -> bool:
    """An issuer's first digits and length, and a check digit that is right (Luhn; US patent 2,950,048)."""
    digits = _digits(match[0])
    return bool(_ISSUERS.fullmatch(digits)) and _luhn(digits) and not _in_formula(match)


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@-])"
)
_PHONE = re.compile(
    r"(?<![\w+.,])(?:\+[1-9](?:[ .()/-]{0,2}[0-9]){7,14}"  # with a country's code
    r"|\([2-9][0-9]{2}\) ?[2-9][0-9]{2}-[0-9]{4}|[2-9][0-9]{2}(?P<gap>[-.])[2-9][0-9]{2}(?P=gap)[0-9]{4})"
    r"(?![0-9A-Za-z])"
)
_CARD = re.compile(
    r"(?<![\w.,$€£+-])(?:[2-6][0-9]{12,18}|3[0-9]{3}(?P<six>[ -])[0-9]{6}(?P=six)[0-9]{4,5}"
    r"|[2-6][0-9]{3}(?P<four>[ -])[0-9]{4}(?P=four)[0-9]{4}(?P=four)[0-9]{4}(?:(?P=four)[0-9]{3})?)(?![\w-])"
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}"  # Amazon
    r"|gh[oprsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20}"  # GitHub, GitLab
    r"|sk-[A-Za-z0-9_-]{20,255}|hf_[A-Za-z0-9]{30,255}|AIza[0-9A-Za-z_-]{35}"  # OpenAI and alike, Hugging Face, Google
    r"|xox[abprs]-[A-Za-z0-9-]{10,255}|[rs]k_live_[A-Za-z0-9]{20,255})(?![A-Za-z0-9])"  # Slack, Stripe
    r"|-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
)
_LONG_NUMBER = re.compile(r"[0-9][0-9 .()/-]{7}")

KINDS: dict[str, Pattern] = {
    "pii_email": Pattern(_EMAIL, _any, re.compile("@")),
    "pii_phone": Pattern(_PHONE, _is_phone, _LONG_NUMBER),
    "pii_card": Pattern(_CARD, _is_card, _LONG_NUMBER),
    "pii_key": Pattern(
        _KEY, _any, re.compile("AKIA|ASIA|gh[oprsu]_|github_pat_|glpat-|sk-|hf_|AIza|xox|k_live_|PRIVATE")
    ),
}


def find(text: str) -> Iterator[tuple[str, str]]:
    """(kind, the string) of the first one of each kind in a text."""
    for kind, pattern in KINDS.items():
        if pattern.hint.search(text) is None:
            continue
        for match in pattern.regex.finditer(text):
            if pattern.check(match):
                yield kind, match[0]
                break
