"""Named corpora from a server on this machine that does everything wrong that a server can."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.corpora.named import NAMED, Download, NamedCorpus
from softmax_bench.errors import SoftmaxBenchError

TEXTS = {"train": b"a b a c\n" * 20, "valid": b"a c\n", "test": b"b a\n"}


@dataclass
class Site:
    """What the server sends, and how."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    sent: float = 1.0
    """Share of a file after which the server is done."""
    announced: float = 1.0
    """Share that it says it sends."""
    asked: list[str] = field(default_factory=list)

    def download(self, name: str, content: bytes) -> Download:
        """Offer a file."""
        self.files[f"/{name}"] = content
        return Download(f"{self.url}/{name}", hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTMAX_BENCH_DATA", raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    offered = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            offered.asked.append(self.path)
            content = offered.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(int(len(content) * offered.announced)))
            self.end_headers()
            self.wfile.write(content[: int(len(content) * offered.sent)])

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offered.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield offered
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(folder: str, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
    return buffer.getvalue()


def offer_zip(site: Site, monkeypatch: pytest.MonkeyPatch) -> Download:
    """WikiText-2 in small, at its name."""
    content = zipped("wikitext-2", **{f"wiki.{s}.tokens": text for s, text in TEXTS.items()})
    download = site.download("wikitext-2-v1.zip", content)
    corpus = replace(NAMED["wikitext-2"], downloads=(download,))
    monkeypatch.setitem(NAMED, "wikitext-2", corpus)
    return download


def is_the_text(corpus: Corpus) -> bool:
    return (len(corpus.train), len(corpus.valid), len(corpus.test)) == (100, 3, 3)


def empty(cache: Path) -> bool:
    return not [path for path in cache.rglob("*") if path.is_file()]


def test_plain_files_are_fetched_once(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = tuple(site.download(f"ptb.{s}.txt", text) for s, text in TEXTS.items())
    monkeypatch.setitem(NAMED, "ptb", NamedCorpus(downloads))
    corpus = load_corpus("ptb", cache_dir=tmp_path)
    assert corpus.name == "ptb"
    assert is_the_text(corpus)
    assert load_corpus("ptb", vocab_size=3, cache_dir=tmp_path).vocab_size == 3
    assert site.asked == ["/ptb.train.txt", "/ptb.valid.txt", "/ptb.test.txt"]


def test_a_zip_is_fetched_and_unpacked(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_zip(site, monkeypatch)
    corpus = load_corpus("wikitext-2", cache_dir=tmp_path)
    assert corpus.name == "wikitext-2"
    assert is_the_text(corpus)
    assert not list(tmp_path.rglob("*.zip"))


def test_a_tar_of_shards_is_fetched_and_unpacked(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = NAMED["one-billion-word"]
    names = {
        "training-monolingual.tokenized.shuffled/news.en-00001-of-00100": TEXTS["train"],
        "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050": TEXTS["valid"],
        "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050": TEXTS["test"],
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(f"./{known.text}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    download = site.download(known.downloads[0].file, buffer.getvalue())
    monkeypatch.setitem(NAMED, "one-billion-word", replace(known, downloads=(download,)))
    corpus = load_corpus("one-billion-word", cache_dir=tmp_path)
    assert corpus.name == "one-billion-word"
    assert is_the_text(corpus)


def test_text8_is_one_line(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("text8", " " + " ".join("abcde" * 20))
    download = site.download("text8.zip", buffer.getvalue())
    monkeypatch.setitem(NAMED, "text8", replace(NAMED["text8"], downloads=(download,)))
    corpus = load_corpus("text8", cache_dir=tmp_path)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (91, 5, 5)


def test_a_tampered_download(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    download = offer_zip(site, monkeypatch)
    other = zipped("wikitext-2", **{"wiki.train.tokens": b"something else\n"})
    site.files["/wikitext-2-v1.zip"] = other
    with pytest.raises(SoftmaxBenchError) as caught:
        load_corpus("wikitext-2", cache_dir=tmp_path)
    message = str(caught.value)
    assert download.url in message
    assert f"expected sha256:{download.sha256}" in message
    assert f"got {hashlib.sha256(other).hexdigest()}" in message
    assert "--data-dir" in message
    assert empty(tmp_path)


@pytest.mark.parametrize(
    ("sent", "announced", "message"),
    [
        (0.5, 1.0, r"cannot fetch wikitext-2: .*--data-dir"),  # the connection breaks
        (0.5, 0.5, r"did not send the expected file: .*--data-dir"),  # truncated where it lies
        (0.0, 0.0, r"did not send the expected file: .*--data-dir"),
    ],
)
def test_a_part_of_a_download_and_then_the_whole(
    tmp_path: Path,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    sent: float,
    announced: float,
    message: str,
) -> None:
    offer_zip(site, monkeypatch)
    site.sent, site.announced = sent, announced
    with pytest.raises(SoftmaxBenchError, match=message):
        load_corpus("wikitext-2", cache_dir=tmp_path)
    assert empty(tmp_path)
    site.sent = site.announced = 1.0
    assert is_the_text(load_corpus("wikitext-2", cache_dir=tmp_path))


def test_a_file_that_is_not_there(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = tuple(site.download(f"ptb.{s}.txt", text) for s, text in TEXTS.items())
    monkeypatch.setitem(NAMED, "ptb", NamedCorpus(downloads))
    del site.files["/ptb.test.txt"]  # the last of three
    with pytest.raises(SoftmaxBenchError, match=r"cannot fetch ptb: 404 .*put ptb\.test\.txt from"):
        load_corpus("ptb", cache_dir=tmp_path)
    assert empty(tmp_path)


def test_no_server(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/wikitext-2-v1.zip"
    download = replace(offer_zip(site, monkeypatch), url=url)
    monkeypatch.setitem(NAMED, "wikitext-2", replace(NAMED["wikitext-2"], downloads=(download,)))
    with pytest.raises(SoftmaxBenchError, match=r"cannot fetch wikitext-2: .*refused"):
        load_corpus("wikitext-2", cache_dir=tmp_path)
    assert empty(tmp_path)


def test_a_data_folder_needs_no_internet(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_zip(site, monkeypatch)
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    # The archive as it was fetched elsewhere ...
    (data / "wikitext-2-v1.zip").write_bytes(site.files["/wikitext-2-v1.zip"])
    assert is_the_text(load_corpus("wikitext-2", data_dir=data, cache_dir=cache))
    assert (data / "wikitext-2-v1.zip").is_file()
    # ... or the text; any other, too; also by the environment.
    for name in ("wikitext-103", "mine"):
        (data / name).mkdir()
        for split, text in TEXTS.items():
            (data / name / f"wiki.{split}.tokens").write_bytes(text)
        corpus = load_corpus(name, data_dir=data, cache_dir=cache)
        assert corpus.name == name
        assert is_the_text(corpus)
    monkeypatch.setenv("SOFTMAX_BENCH_DATA", str(data))
    assert is_the_text(load_corpus("mine", cache_dir=cache))
    assert not site.asked


def test_a_damaged_file_in_the_data_folder(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = offer_zip(site, monkeypatch)
    local = tmp_path / "wikitext-2-v1.zip"
    local.write_bytes(site.files["/wikitext-2-v1.zip"][:-1])
    found = hashlib.sha256(local.read_bytes()).hexdigest()
    with pytest.raises(
        SoftmaxBenchError, match=f"{local} is damaged .* {found}, expected {download.sha256}"
    ):
        load_corpus("wikitext-2", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert local.is_file()
    assert empty(tmp_path / "cache")
    assert not site.asked


def test_a_path_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ptb").mkdir()
    for split, text in TEXTS.items():
        Path("ptb", f"{split}.txt").write_bytes(text)
    assert is_the_text(load_corpus("ptb", cache_dir=tmp_path / "cache"))


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(SoftmaxBenchError, match=r"no text at wikitext2: .*one of ptb, wikitext-2,"):
        load_corpus("wikitext2", data_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(SoftmaxBenchError, match=r"no folder of corpora at .*nowhere"):
        load_corpus("ptb", data_dir=tmp_path / "nowhere", cache_dir=tmp_path)


def test_known_hashes_are_those_of_the_files(corpora_folder: Path) -> None:
    for download in NAMED["ptb"].downloads:
        content = (corpora_folder / "ptb" / download.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == download.sha256
