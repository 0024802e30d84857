"""The published archive files, from the network: pooch checks them, and only this file needs it.

The checksums are those of tensorflow-datasets. The mirrors are torchvision's of MNIST and Keras' of
Fashion-MNIST; of CIFAR there is only its authors' page.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

# A mirror of the user's own, asked first: MIRROR/cifar10/cifar-10-binary.tar.gz and the like.
MIRROR = "CDJAX_DATA_MIRROR"


class Published(NamedTuple):
    """Where a data set is published, and the SHA-256 of each of its files."""

    folders: tuple[str, ...]
    checksums: dict[str, str]


PUBLISHED = {
    "cifar10": Published(
        ("https://www.cs.toronto.edu/~kriz",),
        {
            "cifar-10-binary.tar.gz": (
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            ),
        },
    ),
    "cifar100": Published(
        ("https://www.cs.toronto.edu/~kriz",),
        {
            "cifar-100-binary.tar.gz": (
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
            ),
        },
    ),
    "mnist": Published(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://ossci-datasets.s3.amazonaws.com/mnist",
        ),
        {
            "train-images-idx3-ubyte.gz": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            "train-labels-idx1-ubyte.gz": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
    ),
    "fashion_mnist": Published(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        ),
        {
            "train-images-idx3-ubyte.gz": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            "train-labels-idx1-ubyte.gz": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
    ),
}
# For a connection; and for all of them, the look-up of the names included.
_REQUEST_SECONDS = 5.0
_LIMIT_SECONDS = 10.0
# A server that sends nothing for so long is asked again, and given up when that has brought nothing
# this many times in a row.
_SILENCE_SECONDS = 20.0
_TRIES = 3
_PAUSE_SECONDS = 1.0
_CHUNK_BYTES = 1 << 16


def addresses(name: str) -> list[str]:
    """The folders on the network that have a data set's files, in the order they are asked."""
    own = os.environ.get(MIRROR)
    return [*([f"{own.rstrip('/')}/{name}"] if own else []), *PUBLISHED[name].folders]


def answering(name: str) -> list[str]:
    """Those of the addresses whose servers answer within seconds."""
    folders = addresses(name)
    file = next(iter(PUBLISHED[name].checksums))
    answers: set[str] = set()

    def ask(folder: str) -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            request = urllib.request.Request(f"{folder}/{file}", method="HEAD")
            try:
                urllib.request.urlopen(request, timeout=_REQUEST_SECONDS).close()
            except urllib.error.HTTPError as error:
                error.close()  # an answer too, which the download tells
            answers.add(folder)

    # In threads, since urlopen's timeout does not cover the look-up of a host's name, which may
    # take minutes when the network is down.
    threads = [threading.Thread(target=ask, args=(folder,), daemon=True) for folder in folders]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _LIMIT_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [folder for folder in folders if folder in answers]


def download(name: str, data_dir: Path, folders: list[str]) -> str:
    """Fetches a data set's archive files into ``data_dir/name``, all of them or none.

    Each file comes from the first of the ``folders`` on the network that has it. Returns what
    prevented it, as the end of a sentence; empty if it succeeded.
    """
    try:
        import pooch
    except ImportError as error:
        return f"downloading it needs {error.name}, which is not installed"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=data_dir) as started:
            for file, checksum in PUBLISHED[name].checksums.items():
                obstacles = []
                for url in (f"{folder}/{file}" for folder in folders):
                    try:
                        receive: Any = _receive  # pooch's type has the arguments' names wrong
                        pooch.retrieve(url, f"sha256:{checksum}", file, started, downloader=receive)
                        break
                    except ValueError:
                        obstacles.append(f"{url} is not the published file (its SHA-256 differs)")
                    except (OSError, http.client.HTTPException) as error:
                        obstacles.append(f"{url} {_told(error)}")
                else:
                    return ", ".join(obstacles)
            (data_dir / name).mkdir(exist_ok=True)
            for file in PUBLISHED[name].checksums:
                os.replace(Path(started, file), data_dir / name / file)
    except OSError as error:
        return f"{data_dir} cannot be written to ({error.strerror or error})"
    return ""


def _receive(url: str, path: str, pooch: Any) -> None:
    """Writes what a URL serves to a file, and goes on where a connection was cut.

    This is a downloader for ``pooch.retrieve``. Pooch's own one starts again, and unpacks a file
    that the server calls packed for the transfer, whose checksum then differs.
    """
    from tqdm import tqdm

    most, failures = 0, 0
    with (
        open(path, "wb") as file,
        # disable=None: no bar where the output is no terminal.
        tqdm(desc=url.rpartition("/")[2], unit="B", unit_scale=True, disable=None) as bar,
    ):
        while True:
            try:
                return _receive_rest(url, file, bar)
            except (OSError, http.client.HTTPException) as error:
                # What is not there, or not allowed, will not be there in a second.
                if isinstance(error, urllib.error.HTTPError):
                    error.close()  # the error is the response itself, its connection still open
                    if error.code < 500:
                        raise
                failures = 0 if file.tell() > most else failures + 1
                if failures == _TRIES:
                    raise
            most = max(most, file.tell())
            time.sleep(_PAUSE_SECONDS)


def _receive_rest(url: str, file: BinaryIO, bar: Any) -> None:
    have = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_SILENCE_SECONDS) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # all of it again
            have = file.seek(0)
            file.truncate()
        rest = response.headers.get("Content-Length")
        total = have + int(rest) if rest else None
        bar.total, bar.n = total, have
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))
    if total and file.tell() < total:
        raise ConnectionError(f"was cut off after {file.tell()} of {total} bytes")


def _told(error: Exception) -> str:
    """What a server did, behind its name."""
    if isinstance(error, urllib.error.HTTPError):
        return f"answered {error.code} {error.reason}"
    reason = getattr(error, "reason", error)  # urllib wraps errors in its own
    if isinstance(reason, TimeoutError):
        return f"sent nothing for {_SILENCE_SECONDS:g} s"
    if isinstance(reason, ConnectionError) and not reason.errno:
        return str(reason)
    return f"failed ({type(reason).__name__}: {first_line(reason)})"


def first_line(error: object) -> str:
    """The first line of an error's message, short enough to be quoted in another message."""
    return (str(error).strip().splitlines() or [""])[0][:200]
