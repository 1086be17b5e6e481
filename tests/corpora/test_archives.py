from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from softmax_bench.corpora.archives import unpack
from softmax_bench.errors import SoftmaxBenchError


def zip_of(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def tar_of(path: Path, *members: tarfile.TarInfo, content: bytes = b"a b\n") -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            file.addfile(member, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def refused(archive: Path, tmp_path: Path, message: str, limit: int = 1000) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    with pytest.raises(SoftmaxBenchError, match=message):
        unpack(archive, inner, limit=limit)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and inner not in p.parents]
    assert outside == [archive]


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    zipped = zip_of(tmp_path / "a.zip", {"t/": b"", "t/x": b"a b\n", "y": b"c\n"})
    unpack(zipped, tmp_path / "zip", limit=6)
    assert (tmp_path / "zip/t/x").read_bytes() == b"a b\n"
    assert (tmp_path / "zip/y").read_bytes() == b"c\n"
    packed = tar_of(tmp_path / "a.tar.gz", entry("t", tarfile.DIRTYPE), entry("t/x"), entry("./y"))
    unpack(packed, tmp_path / "tar", limit=8)
    assert (tmp_path / "tar/t/x").read_bytes() == (tmp_path / "tar/y").read_bytes() == b"a b\n"


@pytest.mark.parametrize(
    "name", ["../x", "t/../../x", "/tmp/softmax-bench-x", "..\\x", "C:\\x", "\\x", "C:x"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_of_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"bad.{kind}"
    archive = zip_of(path, {name: b"a"}) if kind == "zip" else tar_of(path, entry(name))
    refused(archive, tmp_path, "is outside its folder")
    assert not Path("/tmp/softmax-bench-x").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    # A link that leads out, and then a file through it.
    archive = tar_of(tmp_path / "bad.tgz", entry("t", kind, str(tmp_path)), entry("t/x"))
    refused(archive, tmp_path, "'t' is neither a file nor a folder")


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "bad.zip", {"t": b"/etc"}, mode=stat.S_IFLNK | 0o777)
    refused(archive, tmp_path, "'t' is neither a file nor a folder")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_more_than_there_should_be(tmp_path: Path, kind: str) -> None:
    bomb = bytes(10**6)
    path = tmp_path / f"bomb.{kind}"
    archive = zip_of(path, {"x": bomb}) if kind == "zip" else tar_of(path, entry("x"), content=bomb)
    assert archive.stat().st_size < 10_000
    refused(archive, tmp_path, "more than the 999,999 bytes", limit=10**6 - 1)
    assert not list(tmp_path.rglob("x"))


def test_a_size_that_is_a_lie(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "lie.zip", {"x": bytes(5000)})
    content = archive.read_bytes()
    for _ in range(2):  # in the file's own header, and in the directory
        content = content.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"), 1)
    archive.write_bytes(content)
    refused(archive, tmp_path, "damaged archive")
    assert sum(p.stat().st_size for p in tmp_path.rglob("x")) <= 10


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bad.{kind}"
    archive = (
        zip_of(path, {"x": bytes(range(256)) * 8})
        if kind == "zip"
        else tar_of(path, entry("x"), content=bytes(range(256)) * 8)
    )
    content = bytearray(archive.read_bytes())
    for place in range(50, 200):
        content[place] ^= 0xFF
    archive.write_bytes(content)
    refused(archive, tmp_path, "damaged archive", limit=10**6)
