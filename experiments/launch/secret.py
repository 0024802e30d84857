"""The secret by which the processes of a run know each other.

It is never an argument of a command, which every user of a machine can read. The launcher makes one
for each run and hands it on in the environment. Processes that are started one by one read a file,
by default one that is made in the home of their user, who alone can read it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from experiments.run.errors import UsageError

# The variable of the environment that holds the secret, if it is set.
VARIABLE = "CDJAX_SECRET"
_FEWEST_LETTERS = 16


def fresh() -> str:
    """A secret that nobody can guess."""
    return secrets.token_hex(32)


def given(file: Path | None) -> bytes:
    """The secret of this process: from a file, else the environment, else the user's own file.

    Raises:
        UsageError: if it cannot be read, is too short to be one, or others can read its file.
    """
    word = os.environ.get(VARIABLE)
    if file is None and word is not None:
        source = VARIABLE
    else:
        path = file or _own_file()
        source = f"--secret-file: {path}"
        try:
            if file is None:
                _make(path)
            if os.name == "posix" and path.stat().st_mode & 0o077:
                raise UsageError(f"{source} can be read by others; chmod 600 {path}")
            word = path.read_text("ascii")
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            reason = getattr(error, "strerror", None) or "not ASCII"
            raise UsageError(
                f"{source} cannot be read ({reason}); give a file that holds a secret, or set "
                f"{VARIABLE}"
            ) from error
    assert word is not None
    if len(word.strip()) < _FEWEST_LETTERS:
        raise UsageError(
            f"{source} is no secret: it has {len(word.strip())} letters; give at least "
            f"{_FEWEST_LETTERS} random ones"
        )
    return word.strip().encode()


def _own_file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "cdjax" / "secret"


def _make(path: Path) -> None:
    """Makes the user's own file if there is none; of several processes one makes it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{fresh()}\n")
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)  # whole, and by one process only
    draft.unlink()
