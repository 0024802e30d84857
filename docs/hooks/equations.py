"""Equations as MathML, which browsers draw without a script or the network."""

from __future__ import annotations

import html
import re
from typing import Any

import latex2mathml.converter
from mkdocs.plugins import get_plugin_logger

_LOG = get_plugin_logger(__name__)
_EQUATION = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.S)

_CAPITAL = re.compile(r"<mi>(&#x003(?:9[1-9A-F]|A[0-9]);)</mi>")  # of the Greek alphabet
_FUNCTION = re.compile(r"<mo>([a-z]+)</mo>(?=<mo[^>]*>&#x00028;)")
_BAR = re.compile(r"<mo[^>]*>(&#x0007C;|&#x02016;)</mo>")


def on_page_content(content: str, page: Any, **kwargs: Any) -> str:
    """Turns the equations that pymdownx.arithmatex has marked."""

    def turned(match: re.Match[str]) -> str:
        kind, latex = match[1], html.unescape(match[2]).strip()
        try:
            return to_mathml(latex, display="block" if kind == "div" else "inline")
        except Exception as error:  # a converter's errors are of many kinds
            _LOG.warning("%s: no MathML of %r: %r", page.file.src_uri, latex, error)
            return match[0]

    return _EQUATION.sub(turned, content)


def to_mathml(latex: str, *, display: str) -> str:
    """The MathML of an equation, with its source for whoever copies it."""
    mathml = latex2mathml.converter.convert(latex, display=display)
    # As in TeX: capital Greek letters stand upright, bars close to what they enclose, and
    # functions close to their brackets.
    mathml = _CAPITAL.sub(r'<mi mathvariant="normal">\1</mi>', mathml)
    mathml = _FUNCTION.sub(r'<mo rspace="0">\1</mo>', mathml)
    mathml = _BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', mathml)
    if display == "block":
        return f'<div class="equation" tabindex="0" title="{html.escape(latex)}">{mathml}</div>'
    return mathml
