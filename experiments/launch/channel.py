"""A connection between two processes that have shown each other that they know the same secret.

The secret itself is never sent. Process 0 sends a random challenge, the caller answers with one of
its own and with the HMAC of both under the secret, and process 0 with another HMAC of both. From
the challenges and the secret each direction then has a key, under which every message carries its
HMAC. Of one who does not know the secret, nothing but two hexadecimal numbers is ever read.
"""

from __future__ import annotations

import hmac
import json
import secrets
import select
import socket
import time
from typing import Any, NamedTuple

Message = dict[str, Any]

# What a broken connection raises, or one that is not what it should be.
BROKEN = (OSError, ValueError, TypeError, KeyError)

_GREETING_SECONDS = 5.0
_LONGEST_GREETING = 200
_LONGEST_MESSAGE = 1 << 16
_REFUSED = b"refused"


class Refused(ConnectionError):
    """The other process does not know the secret of this one."""


class Channel(NamedTuple):
    """A connection on which both ends have proven themselves, and the keys of its directions."""

    peer: socket.socket
    sending: bytes
    receiving: bytes

    def fileno(self) -> int:
        """For :func:`select.select`."""
        return self.peer.fileno()

    def send(self, message: Message) -> None:
        """Sends a message of less than 64 kB; raises an OSError if the other has gone."""
        text = json.dumps(message, allow_nan=False).encode()
        self.peer.sendall(_proof(self.sending, text) + b" " + text + b"\n")

    def receive(self, seconds: float) -> Message:
        """The next message; raises one of ``BROKEN`` if none comes in time, or a garbled one."""
        proof, _, text = _line(self.peer, seconds, _LONGEST_MESSAGE).partition(b" ")
        if not hmac.compare_digest(proof, _proof(self.receiving, text)):
            raise ConnectionError("a message is garbled")
        return dict(json.loads(text))


def answered(peer: socket.socket, secret: bytes) -> Channel:
    """The channel to a caller; raises Refused, or another of ``BROKEN``, if it is a stranger."""
    peer.settimeout(_GREETING_SECONDS)
    mine = secrets.token_hex(32).encode()
    peer.sendall(mine + b"\n")
    its, _, proof = _line(peer, _GREETING_SECONDS, _LONGEST_GREETING).partition(b" ")
    if not hmac.compare_digest(proof, _proof(secret, b"caller", mine, its)):
        peer.sendall(_REFUSED + b"\n")
        raise Refused("a stranger")
    peer.sendall(_proof(secret, b"called", mine, its) + b"\n")
    keys = (_proof(secret, b"from called", mine, its), _proof(secret, b"from caller", mine, its))
    return Channel(peer, *keys)


def called(peer: socket.socket, secret: bytes) -> Channel:
    """The channel to process 0; raises Refused, or another of ``BROKEN``, if it is a stranger."""
    peer.settimeout(_GREETING_SECONDS)
    its = _line(peer, _GREETING_SECONDS, _LONGEST_GREETING)
    mine = secrets.token_hex(32).encode()
    peer.sendall(mine + b" " + _proof(secret, b"caller", its, mine) + b"\n")
    proof = _line(peer, _GREETING_SECONDS, _LONGEST_GREETING)
    if proof == _REFUSED:
        raise Refused("it has another secret")
    if not hmac.compare_digest(proof, _proof(secret, b"called", its, mine)):
        raise ConnectionError("a stranger answers there")
    keys = (_proof(secret, b"from caller", its, mine), _proof(secret, b"from called", its, mine))
    return Channel(peer, *keys)


def _proof(key: bytes, *words: bytes) -> bytes:
    # Each word with its length, so that no two lists of words give the same text.
    text = b"".join(len(word).to_bytes(8, "big") + word for word in words)
    return hmac.digest(key, text, "sha256").hex().encode()


def _line(peer: socket.socket, seconds: float, longest: int) -> bytes:
    """The next line, without its end; all of it in time, however slowly it comes."""
    deadline, line = time.monotonic() + seconds, bytearray()
    while len(line) <= longest:
        if not select.select([peer], [], [], max(0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"nothing was said in {seconds:g} s")
        # Byte by byte: what a buffer holds would hide from select.
        if not (byte := peer.recv(1)):
            raise ConnectionError("it has hung up")
        if byte == b"\n":
            return bytes(line)
        line += byte
    raise ConnectionError("it says too much")
