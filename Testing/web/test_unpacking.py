"""Uploads: where files come to lie, and that no archive brings more than a session may have, nor leads elsewhere."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from apformer.errors import InputError
from APFormerSlicerLib.web import quota as quotas
from APFormerSlicerLib.web import unpacking
from APFormerSlicerLib.web.importing import look_at
from APFormerSlicerLib.web.inbox import Inbox, safe_parts
from APFormerSlicerLib.web.quota import Quota, Upload
from APFormerSlicerLib.web.unpacking import unpack

MB = 1_000_000
DICOM = b"\0" * 128 + b"DICM"


@pytest.fixture
def quota() -> Quota:
    return Quota(2 * MB)


@pytest.fixture
def inbox(tmp_path: Path, quota: Quota) -> Inbox:
    (tmp_path / "upload").mkdir()
    return Inbox(Upload(tmp_path / "upload", quota))


def a_zip(path: Path, *files: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


def everything(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()}


# -------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("study/IM 1.dcm", ["study", "IM 1.dcm"]),
        ("a/b/c/d/e/f.dcm", ["c", "d", "e", "f.dcm"]),
        ("/etc/passwd", ["etc", "passwd"]),
        ("../../x.nii", ["x.nii"]),
        ("..\\..\\x.nii", ["x.nii"]),
        ("C:\\study\\x.nii", ["C_", "study", "x.nii"]),
        ("\\\\server\\share\\x.nii", ["server", "share", "x.nii"]),
        ("nul.nii", ["_nul.nii"]),
        ("COM1", ["_COM1"]),
        ("con .nii", ["_con .nii"]),
        ("constant.nii", ["constant.nii"]),
        ("a\0b\n.nii", ["a_b_.nii"]),
        ("x.nii. .", ["x.nii"]),
        (" .. ", ["file"]),
        ("", ["file"]),
        ("...", ["file"]),
        ("l\u00e4ngs.nii", ["l\u00e4ngs.nii"]),
        ("a" * 500 + ".nii.gz", ["a" * 113 + ".nii.gz"]),
    ],
)
def test_a_name_is_made_safe_on_every_system(name: str, parts: list[str]) -> None:
    assert safe_parts(name) == parts


def test_names_stay_within_what_file_systems_take(inbox: Inbox) -> None:
    for name in ("\U0001f9e0" * 400 + ".nii", "\u0301" * 400, "a/" * 500 + "x.nii"):
        with inbox.open(name) as file:
            file.write(b"x")
        assert file.path.is_file()
        assert inbox.upload.folder in file.path.parents


def test_files_of_one_name_do_not_replace_each_other(inbox: Inbox) -> None:
    names = ("IM1", "im1", "IM1", "a/IM1", "IM1/a", "A", "caf\u00e9.nii", "cafe\u0301.nii")
    for number, name in enumerate(names):
        with inbox.open(name) as file:
            file.write(bytes([number]))
    assert [path.read_bytes() for path in inbox.files] == [bytes([number]) for number in range(len(names))]
    assert len({str(path).casefold() for path in inbox.files}) == len(names)


# -------------------------------------------------------------------- archives


def test_a_zip_is_unpacked_as_it_is(inbox: Inbox, tmp_path: Path) -> None:
    packed = a_zip(tmp_path / "a.zip", ("study/1.dcm", b"one"), ("study/2.dcm", b"two"), ("__MACOSX/._1", b"litter"))
    assert [path.read_bytes() for path in unpack(packed, inbox)] == [b"one", b"two"]
    assert everything(inbox.upload.folder) == {"study/1.dcm", "study/2.dcm"}


@pytest.mark.parametrize(
    "name", ["../x.nii", "a/../../x.nii", "/x.nii", "\\x.nii", "..\\x.nii", "C:x.nii", "C:\\x.nii", "a\0/../x.nii"]
)
def test_a_name_that_leads_out_is_refused_with_everything(inbox: Inbox, tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    packed = a_zip(tmp_path / "a.zip", ("good.nii", b"good"), (entry, b"bad"))
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(packed, inbox)
    assert everything(tmp_path) == {"a.zip"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(inbox: Inbox, tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link.nii")
    entry.external_attr = (kind | 0o777) << 16
    with pytest.raises(InputError, match="a link or a device"):
        unpack(a_zip(tmp_path / "a.zip", (entry, b"/etc/passwd")), inbox)


def test_a_bomb_stops_where_the_quota_ends_whatever_its_directory_says(
    inbox: Inbox, quota: Quota, tmp_path: Path
) -> None:
    packed = a_zip(tmp_path / "a.zip", ("large.nii", bytes(50 * MB)))
    with pytest.raises(InputError, match="larger than what is left of this session's 2 MB"):
        unpack(packed, inbox)
    assert sum(path.stat().st_size for path in inbox.files) <= 2 * MB
    lying = bytearray(packed.read_bytes())
    for signature, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):  # the size unpacked, in both places
        struct.pack_into("<I", lying, lying.index(signature) + place, 100)
    (tmp_path / "b.zip").write_bytes(lying)
    inbox.upload.remove()
    inbox.upload.folder.mkdir()
    with pytest.raises(InputError):
        unpack(tmp_path / "b.zip", Inbox(inbox.upload))
    assert sum(path.stat().st_size for path in inbox.upload.folder.iterdir()) <= 2 * MB


def test_entries_that_share_their_bytes_count_each_time(inbox: Inbox, tmp_path: Path) -> None:
    packed = bytearray(
        a_zip(tmp_path / "a.zip", *((f"{number}.nii", bytes(300_000)) for number in range(9))).read_bytes()
    )
    place = 0
    while (place := packed.find(b"PK\1\2", place)) > 0:
        struct.pack_into("<I", packed, place + 42, 0)  # all begin where the first one does
        place += 46
    (tmp_path / "b.zip").write_bytes(packed)
    with pytest.raises(InputError):
        unpack(tmp_path / "b.zip", inbox)
    assert sum(path.stat().st_size for path in inbox.files) <= 2 * MB


def test_a_zip_within_a_zip_is_not_unpacked(inbox: Inbox, tmp_path: Path) -> None:
    inner = a_zip(tmp_path / "inner.zip", ("large.nii", bytes(50 * MB))).read_bytes()
    with inbox.open("outer.zip") as file:
        file.write(a_zip(tmp_path / "a.zip", ("inner.zip", inner), ("image.nii", b"voxels")).read_bytes())
    assert [path.name for path in look_at(inbox).images] == ["image.nii"]
    assert everything(inbox.upload.folder) == {"inner.zip", "image.nii"}


def test_more_files_than_a_study_has_are_refused_before_they_are_listed(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "MOST_FILES", 50)
    many = a_zip(tmp_path / "a.zip", *((f"{number}.dcm", b"") for number in range(60)))
    with pytest.raises(InputError, match="larger than what is left"):
        unpack(many, inbox)
    assert len(inbox.files) <= 50
    monkeypatch.setattr(unpacking, "_DIRECTORY_BYTES", 2000)
    with pytest.raises(InputError, match="it lists more than"):
        unpack(many, inbox)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_take_any_memory_are_refused(inbox: Inbox, tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.nii", b"voxels")
    with pytest.raises(InputError, match="unusual way"):
        unpack(tmp_path / "a.zip", inbox)


def test_a_damaged_or_encrypted_zip_is_refused_in_words(inbox: Inbox, tmp_path: Path) -> None:
    good = a_zip(tmp_path / "a.zip", ("a.nii", bytes(range(256)) * 100)).read_bytes()
    damaged = bytearray(good)
    damaged[60] ^= 1
    encrypted = bytearray(good)
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.index(signature) + place] |= 1
    for number, content in enumerate((bytes(damaged), bytes(encrypted), good[:100], good[:-30], b"", b"PK\5\6" * 20)):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(content)
        with pytest.raises(InputError) as refused:
            unpack(path, inbox)
        assert refused.value.remedy
        assert path.name in refused.value.what


# -------------------------------------------------------------------- what is left


def test_one_quota_counts_all_uploads_of_a_session_and_is_given_back(tmp_path: Path, quota: Quota) -> None:
    uploads = []
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        uploads.append(Upload(tmp_path / str(number), quota))
    taken = []
    packed = a_zip(tmp_path / "a.zip", ("a.nii", bytes(600_000)))
    for upload in uploads:
        try:
            unpack(packed, Inbox(upload))
            taken.append(upload)
        except InputError:
            upload.remove()
    assert len(taken) == 3  # 20 of them would be 12 MB
    taken[0].use("one")
    taken[0].use("two")
    taken[0].leave("one")
    assert taken[0].folder.exists()
    taken[0].leave("two")
    assert not taken[0].folder.exists()
    uploads[4].folder.mkdir()
    unpack(packed, Inbox(uploads[4]))
    for upload in (*taken[1:], uploads[4]):
        upload.remove()
    quota.take(2 * MB)


def test_the_voxels_of_open_images_count_and_bound_what_a_reader_may_take(quota: Quota) -> None:
    quota.hold(MB)
    assert quota.reading_bytes == 4 * MB
    with pytest.raises(InputError, match="Close images"):
        quota.hold(MB + 1)
    quota.release(MB)
    assert quota.reading_bytes == 8 * MB


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr", ".MHD"])
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_name_another_file_are_refused(inbox: Inbox, tmp_path: Path, suffix: str, packed: bool) -> None:
    header = b"ElementDataFile = /etc/passwd\n"
    name = f"study/image{suffix}"
    content = a_zip(tmp_path / "a.zip", (name, header), ("study/image.raw", b"voxels")).read_bytes()
    with inbox.open("a.zip" if packed else name) as file:
        file.write(content if packed else header)
    with pytest.raises(InputError, match="names another file for its voxels") as refused:
        look_at(inbox)
    assert ".mha or .nii.gz" in refused.value.remedy or ".nrrd or .nii.gz" in refused.value.remedy


def test_slices_are_found_whatever_hospitals_call_them(inbox: Inbox) -> None:
    for name in ("study/IM1", "study/1.2.840.113.7", "study/slice.IMA", "letter.pdf"):
        with inbox.open(name) as file:
            file.write(DICOM if name.startswith("study") else b"%PDF")
    found = look_at(inbox)
    assert (found.images, found.segmentations, found.dicom) == ((), (), inbox.upload.folder)


def test_a_zip_that_cannot_be_read_to_its_end_leaves_what_it_wrote_to_the_upload(inbox: Inbox) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.nii", bytes(1000))
        archive.writestr("b.nii", bytes(1000))
    damaged = bytearray(stream.getvalue())
    damaged[damaged.index(b"b.nii") + 10] ^= 1
    with inbox.open("a.zip") as file:
        file.write(bytes(damaged))
    with pytest.raises(InputError, match="could not be unpacked"):
        look_at(inbox)
    inbox.upload.remove()
    assert not inbox.upload.folder.exists()
