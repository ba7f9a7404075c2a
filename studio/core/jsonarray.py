"""Values in a stream of JSON, cut out one after the other without building any of them.

In: a binary file at the beginning of an array's first element (or of a sequence of values). Out: Records: offset, line
and bytes of each value. Memory holds one value and a block, whatever the file's size. Whether what stands between the
brackets is valid JSON is for the reader of the record to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from studio.core import rows
from studio.core.rows import Record

_BLOCK = 2**18
_SPACE = re.compile(rb"[ \t\r\n]*")
# Up to and with the next brackets, strings and all, in text whose escapes are masked. The repeat is bounded: what the
# matcher must remember grows with it; and the whole always matches, so that nothing is tried twice. A string has to be
# followed as JSON wants it: where a closing quote was forgotten, this is seen at the next one.
_FILL = re.compile(
    rb'[^"\[\]{}]*(?:"[^"]*"(?=[,:}\] \t\r\n])[^"\[\]{}]*){0,60}(?:([\[{]+)|([\]}]+))?'
)  # fmt: skip
_BARE = re.compile(rb"[^,\[\]{}\" \t\r\n]*")
_PARTNER = bytes.maketrans(b"[{", b"]}")


def mask(text: bytes) -> bytes:
    """JSON with its escaped backslashes and quotes replaced by as many harmless bytes."""
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in text else text


class Broken(Exception):
    """The JSON can't be followed any further; the text says why."""


class Scanner:
    """A place in a stream of JSON, and the ways to move it on. `offset` and `number` tell where it is."""

    def __init__(self, file: BinaryIO, offset: int, number: int) -> None:
        self._file = file
        self._data = b""
        self._text = b""  # the same with every escape masked, so that a quote is a quote
        self._half = b""  # a backslash at a block's end, whose other half is yet to be read
        self._base = offset  # of _data[0], in the file
        self._at = 0
        self._keep: int | None = None  # bytes from here on are still needed
        self._number, self._counted = number, 0  # the line that _data[_counted] stands in

    @property
    def offset(self) -> int:
        return self._base + self._at

    @property
    def number(self) -> int:
        """The line of the place, from 1."""
        if self._counted < self._at:
            self._number += self._data.count(b"\n", self._counted, self._at)
            self._counted = self._at
        return self._number

    def peek(self) -> int:
        """The byte at the next place that is not white; -1 at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match
            self._at = match.end()
            if self._at < len(self._data):
                return self._data[self._at]
            if not self._more():
                return -1

    def step(self) -> None:
        """Past the byte just peeked at."""
        self._at += 1

    def value(self, longest: int) -> tuple[bytes, int]:
        """Past one value: its bytes (none where there are more than `longest`) and their number. Raises Broken."""
        first, begin = self.peek(), self.offset
        self._keep = self._at
        try:
            if first in b"[{":
                self._brackets(longest)
            elif first == 0x22:
                self._at += 1
                self._string(begin, longest)
            else:
                self._bare(begin, longest)
            size = self.offset - begin
            if self._keep is None or size > longest:
                return b"", size
            return self._data[self._keep : self._at], size
        finally:
            self._keep = None

    def _more(self, begin: int = 0, longest: int = 0) -> bool:
        """Read on; what is behind the place and not kept is forgotten. A kept value beyond `longest` is let go."""
        _ = self.number  # lines are counted before their bytes are forgotten
        if self._keep is not None and self.offset - begin > longest:
            self._keep = None
        start = self._at if self._keep is None else self._keep
        read = self._file.read(max(_BLOCK, len(self._data) - start))
        block = self._half + read
        odd = bool(read) and (len(block) - len(block.rstrip(b"\\"))) % 2 == 1
        self._half = b"\\" if odd else b""
        block = block[:-1] if odd else block
        self._data = self._data[start:] + block
        self._text = self._text[start:] + mask(block)
        self._base += start
        self._at -= start
        self._counted -= start
        if self._keep is not None:
            self._keep = 0
        return bool(read or block)

    def _brackets(self, longest: int) -> None:
        begin, stack = self.offset, bytearray()
        while True:
            match = _FILL.match(self._text, self._at)
            assert match
            opening, closing = match.groups()
            if opening:
                stack += opening.translate(_PARTNER)
            elif closing:
                closing = closing[: len(stack)]
                if stack[-len(closing) :] != closing[::-1]:
                    raise Broken("a closing bracket doesn't fit the opening one")
                del stack[-len(closing) :]
                if not stack:
                    self._at = match.start(2) + len(closing)
                    return
            self._at = match.end()
            if self._at >= len(self._text):
                if not self._more(begin, longest):
                    raise Broken("it is not closed before the end of the file")
            elif not opening and not closing and self._text[self._at] == 0x22:
                self._at += 1  # a string that goes on behind this block, or is broken, or just the next one
                self._string(begin, longest)
                self._followed(begin, longest)

    def _string(self, begin: int, longest: int) -> None:
        """To behind the quote that closes the string whose inside the place is in."""
        while (end := self._text.find(b'"', self._at)) < 0:
            self._at = len(self._text)
            if not self._more(begin, longest):
                raise Broken("a text in it has no closing quote")
        self._at = end + 1

    def _followed(self, begin: int, longest: int) -> None:
        if self._at >= len(self._text) and not self._more(begin, longest):
            raise Broken("it is not closed before the end of the file")
        if self._at < len(self._text) and self._text[self._at] not in b",:}] \t\r\n":
            raise Broken("a text in it is not closed, or a comma or colon is missing after one")

    def _bare(self, begin: int, longest: int) -> None:
        while True:
            match = _BARE.match(self._text, self._at)
            assert match
            self._at = match.end()
            if self._at < len(self._data) or not self._more(begin, longest):
                break
        if self.offset == begin:
            raise Broken("there is no value where one is due")


def cut_values(file: BinaryIO, offset: int, number: int, *, array: bool, whole: bool = True) -> Iterator[Record]:
    """Each value from here on. `array`: up to the bracket that closes it, with commas between, else up to the end.

    What can't be followed any further is one last record with its problem. `whole`: nothing may stand behind the array.
    """
    scan = Scanner(file, offset, number)
    while True:
        byte = scan.peek()
        begin, line = scan.offset, scan.number
        if byte == -1:
            if array:
                yield Record(begin, line, b"", "the array is not closed: the file breaks off here", "unreadable")
            return
        if array and byte == 0x5D:
            scan.step()
            if whole and scan.peek() != -1:
                yield Record(scan.offset, scan.number, b"", "something stands behind the array's end", "unreadable")
            return
        try:
            raw, size = scan.value(rows.LONGEST_LINE)
        except Broken as why:
            at = f" (seen in line {scan.number})" if scan.number != line else ""
            yield Record(begin, line, b"", f"the file can't be read from this row on: {why}{at}", "unreadable")
            return
        yield Record(begin, line, raw) if raw else Record(begin, line, b"", rows.too_long(size), "too_big")
        if array:
            after = scan.peek()
            if after == 0x2C:
                scan.step()
            elif after not in (0x5D, -1):
                text = "the file can't be read from here on: a comma is missing between two rows"
                yield Record(scan.offset, scan.number, b"", text, "unreadable")
                return


def lists_within(file: BinaryIO, offset: int, number: int) -> list[tuple[str, int, int]]:
    """The lists of objects directly within an object that begins here: key, and offset and line behind the bracket.

    As far as the object can be followed; none where something stands behind it.
    """
    scan = Scanner(file, offset, number)
    found: list[tuple[str, int, int]] = []
    try:
        scan.peek()
        scan.step()
        while scan.peek() == 0x22:
            key = scan.value(2**16)[0].decode("utf-8", "replace").strip('"')
            if scan.peek() != 0x3A:
                return found
            scan.step()
            if scan.peek() == 0x5B:
                scan.step()
                if scan.peek() == 0x7B:
                    found.append((key, scan.offset, scan.number))
                while scan.peek() not in (0x5D, -1):
                    scan.value(0)
                    if scan.peek() == 0x2C:
                        scan.step()
                scan.step()
            else:
                scan.value(0)
            if scan.peek() == 0x2C:
                scan.step()
        closed = scan.peek() == 0x7D
        scan.step()
    except Broken:
        return found
    return [] if closed and scan.peek() != -1 else found
