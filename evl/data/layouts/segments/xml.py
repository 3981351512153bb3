"""Reads XML from outside: no document types, and so no entities; no deep nesting; elements know their lines."""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

from evl.data.layouts.segments.base import refuse_huge
from evl.errors import DataError

MAX_DEPTH = 50


class Element:
    """An element of an XML file. ``text``: what is between its tags, without that of elements inside."""

    __slots__ = ("attributes", "children", "line", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], line: int):
        self.tag, self.attributes, self.line = tag, attributes, line
        self.text = ""
        self.children: list[Element] = []

    def all(self, tag: str) -> list[Element]:
        """Returns the elements of this name directly inside."""
        return [child for child in self.children if child.tag == tag]


def read_xml(file: Path) -> Element:
    """Returns the root of an XML file. Raises DataError, with the line, for a file that is not well-formed, has a
    document type, or is nested more than MAX_DEPTH deep."""
    refuse_huge(file)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", {}, 0)
    path, texts = [top], [[]]

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if len(path) > MAX_DEPTH:
            raise DataError(f"{file}, line {parser.CurrentLineNumber}: more than {MAX_DEPTH} elements are nested")
        element = Element(tag, attributes, parser.CurrentLineNumber)
        path[-1].children.append(element)
        path.append(element)
        texts.append([])

    def end(tag: str) -> None:
        path.pop().text = "".join(texts.pop())

    def text(content: str) -> None:
        texts[-1].append(content)

    def refuse(*_: object) -> None:
        raise DataError(
            f"{file}, line {parser.CurrentLineNumber}: has a document type (<!DOCTYPE), which may define entities; evl "
            "does not read such files"
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text
    parser.StartDoctypeDeclHandler = refuse
    try:
        with open(file, "rb") as content:
            parser.ParseFile(content)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    except expat.ExpatError as error:
        raise DataError(
            f"{file}, line {error.lineno}: is not well-formed XML ({expat.ErrorString(error.code)})"
        ) from None
    except (ValueError, LookupError) as error:  # an encoding that Python does not know
        raise error if isinstance(error, DataError) else DataError(f"{file}: is not XML ({error})") from None
    return top.children[0]
