"""Code without spaces, such as a name or an option, stays on one line in a table."""

from __future__ import annotations

import re
from typing import Any

_ROW = re.compile(r"<tr>.*?</tr>", re.S)
_WORD = re.compile(r"<code>(?=[^\s<]+</code>)")


def on_page_content(content: str, **kwargs: Any) -> str:
    """Marks such code, which browsers would break at hyphens."""
    return _ROW.sub(lambda row: _WORD.sub('<code class="word">', row[0]), content)
