"""Downloads, from a server on this machine that fails in the ways servers do."""

import hashlib
import http.server
import io
import re
import sys
import threading
import time
import urllib.request

import pytest

from cdjax import data
from cdjax.data import _download
from experiments.run.config import Data
from experiments.run.problem import load_dataset

pytestmark = pytest.mark.sampled(2)

FILES = {name: name.encode() * 5_000 for name in _download.PUBLISHED["mnist"].checksums}
FIRST, *_, LAST = FILES
NOWHERE = "http://127.0.0.1:9"  # the port of discarded bytes, on which nothing listens


class Server(http.server.ThreadingHTTPServer):
    """Serves FILES; ``behave(handler, content)`` may take the place of sending one."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.asked = Handler.send, []
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def ranges(self, file):
        """The ranges that were asked for."""
        return [wanted for method, name, wanted in self.asked if (method, name) == ("GET", file)]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.asked.append(("HEAD", self.path.rpartition("/")[2], None))
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        file = self.path.rpartition("/")[2]
        self.server.asked.append(("GET", file, self.headers["Range"]))
        self.server.behave(self, FILES[file])

    def send(self, content, *, only=None, declared=None):
        """Sends the range that is wanted, or its beginning only."""
        start = int(re.findall(r"\d+", self.headers["Range"] or "0")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(declared or len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:only])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    checksums = {file: hashlib.sha256(content).hexdigest() for file, content in FILES.items()}
    published = {"mnist": _download.Published((f"{server.address}/mnist",), checksums)}
    monkeypatch.setattr(_download, "PUBLISHED", published)
    monkeypatch.setattr(_download, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(_download, "_SILENCE_SECONDS", 0.3)
    yield server
    server.shutdown()
    server.server_close()


def download(folder):
    return _download.download("mnist", folder, _download.answering("mnist"))


def is_complete(folder):
    return {path.name: path.read_bytes() for path in (folder / "mnist").iterdir()} == FILES


def test_files_arrive_whole_and_nothing_else_does(server, tmp_path):
    assert download(tmp_path / "made") == ""
    assert is_complete(tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["mnist"]


def test_a_slow_server_is_waited_for(server, tmp_path):
    def trickle(handler, content):
        handler.send(content, only=1)
        for part in range(4):
            time.sleep(0.1)  # 0.4 s in all, more than the silence that is borne
            size = len(content) // 4
            handler.wfile.write(content[1:][part * size :][: size if part < 3 else None])

    server.behave = trickle
    assert download(tmp_path) == "" and is_complete(tmp_path)
    assert server.ranges(FIRST) == [None]


def test_a_connection_that_is_cut_goes_on_where_it_was(server, tmp_path):
    server.behave = lambda handler, content: handler.send(content, only=50_000)
    assert download(tmp_path) == "" and is_complete(tmp_path)
    assert len(FILES[FIRST]) == 130_000
    assert server.ranges(FIRST) == [None, "bytes=50000-", "bytes=100000-"]


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(server, tmp_path):
    def cut_once(handler, content):
        del handler.headers["Range"]
        is_first = len(server.ranges(handler.path.rpartition("/")[2])) == 1
        handler.send(content, only=50_000 if is_first else None)

    server.behave = cut_once
    assert download(tmp_path) == "" and is_complete(tmp_path)


def test_a_file_that_the_server_calls_packed_is_kept_as_it_is(server, tmp_path):
    def packed(handler, content):
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    server.behave = packed
    assert download(tmp_path) == "" and is_complete(tmp_path)


def cut_for_good(handler, content):
    del handler.headers["Range"]
    handler.send(content, only=50_000)


def silent(handler, content):
    handler.send(content, only=100)
    time.sleep(1)


def of_another_size(handler, content):
    handler.send(content[:-1])


FAILURES = {
    "cut": (cut_for_good, r"was cut off after 50000 of 130000 bytes"),
    "silent": (silent, r"sent nothing for 0\.3 s"),
    "checksum": (of_another_size, r"is not the published file \(its SHA-256 differs\)"),
    "missing": (lambda handler, _: handler.send_error(404), "answered 404 Not Found"),
    "refused": (lambda handler, _: handler.send_error(403), "answered 403 Forbidden"),
    "broken": (lambda handler, _: handler.send_error(503), "answered 503 Service Unavailable"),
}


@pytest.mark.parametrize(("behave", "told"), FAILURES.values(), ids=FAILURES)
@pytest.mark.sampled(2)
def test_a_failure_is_told_in_one_line_and_leaves_no_files(server, tmp_path, behave, told):
    server.behave = behave
    obstacle = download(tmp_path)
    assert re.fullmatch(f"{server.address}/mnist/{FIRST} {told}", obstacle)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_not_asked_for_again_and_what_is_broken_is(server, tmp_path):
    server.behave = FAILURES["missing"][0]
    download(tmp_path)
    assert len(server.ranges(FIRST)) == 1
    server.behave = FAILURES["broken"][0]
    download(tmp_path)
    assert len(server.ranges(FIRST)) == 1 + _download._TRIES


def test_files_come_all_together_or_not_at_all(server, tmp_path):
    missing = FAILURES["missing"][0]
    server.behave = lambda handler, content: (
        missing(handler, content) if handler.path.endswith(LAST) else handler.send(content)
    )
    assert f"{LAST} answered 404" in download(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_is_asked_in_the_place_of_one_that_fails(server, tmp_path, monkeypatch):
    other = Server()
    other.behave = FAILURES["checksum"][0]
    monkeypatch.setenv(_download.MIRROR, f"{other.address}/")
    assert _download.answering("mnist") == [f"{other.address}/mnist", f"{server.address}/mnist"]
    assert download(tmp_path) == "" and is_complete(tmp_path)
    assert other.ranges(LAST) == server.ranges(LAST) == [None]
    other.shutdown()
    other.server_close()


def test_no_server_of_a_network_that_is_down_answers(server, monkeypatch):
    monkeypatch.setattr(_download, "addresses", lambda name: [f"{NOWHERE}/mnist", "no address"])
    assert _download.answering("mnist") == []


def test_asking_takes_only_the_head(server):
    assert _download.answering("mnist") == [f"{server.address}/mnist"]
    assert server.asked == [("HEAD", FIRST, None)]


def test_look_ups_that_hang_are_given_up_together(server, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda *_, **__: release.wait(60) and io.BytesIO()
    )
    monkeypatch.setattr(_download, "addresses", lambda name: [f"http://{i}" for i in range(20)])
    monkeypatch.setattr(_download, "_LIMIT_SECONDS", 0.2)
    start = time.monotonic()
    assert _download.answering("mnist") == []
    assert time.monotonic() - start < 2
    release.set()


def test_a_folder_that_cannot_be_written_to_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    obstacle = download(tmp_path / "file" / "folder")
    assert obstacle == f"{tmp_path}/file/folder cannot be written to (Not a directory)"


def test_without_pooch_the_error_names_it(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(data.DataNotFoundError, match="needs pooch, which is not installed; put"):
        data.load("mnist", tmp_path)


def test_a_download_is_loaded_from_the_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # These files are no images, which is what the reader then says of them.
    with pytest.raises(data.DataCorruptError, match="cdjax/data/mnist/train-images-idx3-ubyte.gz"):
        data.load("mnist")
    assert is_complete(tmp_path / "cdjax" / "data")


@pytest.mark.parametrize("name", _download.PUBLISHED)
def test_the_reader_reads_what_is_published(name):
    published = _download.PUBLISHED[name]
    assert set(published.checksums) <= set(data._archives.archive_names(name))
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in published.checksums.values())


@pytest.mark.parametrize("address", ["a server that fails", "none"])
def test_a_run_that_gets_no_data_says_why_in_one_line_and_takes_the_digits(
    address, server, tmp_path, monkeypatch
):
    server.behave = FAILURES["missing"][0]
    if address == "none":
        published = _download.Published(
            (f"{NOWHERE}/mnist",), _download.PUBLISHED["mnist"].checksums
        )
        monkeypatch.setattr(_download, "PUBLISHED", {"mnist": published})
    options = Data(dataset="mnist", data_dir=str(tmp_path), stand_in=True)
    dataset, notice = load_dataset(options, seed=0)
    assert dataset.name == "digits"
    headline, reason = notice.splitlines()
    assert "mnist is NOT available" in headline
    assert f"no mnist in {tmp_path}" in reason
    assert ("answered 404" if address != "none" else f"{NOWHERE}/mnist cannot be reached") in reason
