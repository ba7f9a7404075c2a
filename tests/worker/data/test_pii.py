"""Strings that look personal or secret: found where they are, not in mathematics or code, and in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.problems import PROBLEMS
from studio.worker.data.pii import KINDS, find


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("pii_email", "jane.doe@mail.example.org"),
        ("pii_email", "j+tag@sub.domain.example.co.uk"),
        ("pii_phone", "+49 30 1234-5678"),
        ("pii_phone", "+1 (415) 555-2671"),
        ("pii_phone", "+14155552671"),
        ("pii_phone", "(415) 555-2671"),
        ("pii_phone", "415-555-2671"),
        ("pii_phone", "415.555.2671"),
        ("pii_card", "4111 1111 1111 1111"),
        ("pii_card", "5555-5555-5555-4444"),
        ("pii_card", "378282246310005"),
        ("pii_card", "3782 822463 10005"),
        ("pii_card", "6011111111111117"),
        ("pii_key", "AKIAIOSFODNN7EXAMPLE"),
        ("pii_key", "ghp_" + "aB3" * 12),
        ("pii_key", "sk-proj-" + "a1B2" * 10),
        ("pii_key", "hf_" + "AbCdE" * 7),
        ("pii_key", "-----BEGIN PRIVATE KEY-----"),
        ("pii_key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
    ],
)
@pytest.mark.parametrize("text", ["{}", "It is {}.", "- {}\n- more", "<{}>", "my own: {}, thank you", '"{}"'])
def test_what_looks_personal_is_found(kind: str, value: str, text: str) -> None:
    assert list(find(text.format(value))) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "12345678 + 87654321 = 99999999",
        "3.14159265358979323846264338327950288419716939937510",
        "2 * 4111111111111111 = 8222222222222222",
        "4111111111111111 / 3",
        "4111111111111112",  # its check digit is wrong
        "9999999999999995",  # no issuer's
        "f(x) = 5 +12345678 - 3",
        "555-867-5309 = -5621",
        "1,234,567,890,123,456",
        "0x4111111111111111",
        "2024-05-06 12:34:56.789012345",
        "192.168.100.200:8080",
        "ISBN 978-3-16-148410-0",
        "550e8400-e29b-41d4-a716-446655440000",
        "d41d8cd98f00b204e9800998ecf8427e",
        "doi:10.1145/3292500.3330701",
        "@property\ndef email(self) -> str: ...",
        "user@localhost, git@github",
        "import sk-learn; disk-usage; hf_token; ghp_short",
        "-----BEGIN PUBLIC KEY-----",
        "[1000000000, 2000000000, 3000000000, 4000000000]",
        "100-200-3000",
    ],
)
def test_mathematics_and_code_are_left_alone(text: str) -> None:
    assert list(find(text)) == []


def test_the_first_of_each_kind_is_told() -> None:
    text = "a@b.example, c@d.example, 4111111111111112 and 4111111111111111, +49 30 12345678"
    assert dict(find(text)) == {
        "pii_email": "a@b.example",
        "pii_card": "4111111111111111",
        "pii_phone": "+49 30 12345678",
    }


def test_every_kind_is_in_the_table_of_problems() -> None:
    assert set(KINDS) == {kind for kind in PROBLEMS if kind.startswith("pii_")}


def spent(text: str) -> float:
    began = time.process_time()
    list(find(text))
    return time.process_time() - began


@pytest.mark.parametrize(
    "piece",
    [
        *("a", "a@", "a.@", "a-", "+1", "+1 ", "1 ", "1", "4111 ", "3782 8", "(415) ", "415-", "sk-", "gh", "hf_a"),
        *("-----BEGIN ", "A ", "AKIA", "a" * 63 + ".", "x@" + "a" * 63 + ".", "@a.a.a"),
    ],
)
@pytest.mark.parametrize("end", ["", "@", "!"])
def test_no_text_takes_more_than_linear_time(piece: str, end: str) -> None:
    """Quadratic time would make 8 times the text take 64 times as long."""
    short, long = (piece * (size // len(piece)) + end for size in (20_000, 160_000))
    assert min(spent(long) for _ in range(2)) < 24 * max(min(spent(short) for _ in range(3)), 2e-4)


@given(st.text(alphabet="+-() .0123456789@abA_k", max_size=80))
def test_whatever_is_found_stands_in_the_text(text: str) -> None:
    for kind, value in find(text):
        assert kind in KINDS
        assert value in text
