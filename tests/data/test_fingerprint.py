"""Which file of a source is no longer what it was; a copy is."""

import os

import pytest

from unmask.data.fingerprint import changes, fingerprint


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 10)
    return tmp_path


@pytest.mark.parametrize("content", [True, False])
def test_every_kind_of_change_is_named(folder, content):
    before = fingerprint(str(folder), content=content)
    assert changes(before, str(folder)) == []
    (folder / "a.txt").write_text("z" * 10)  # of the same size
    os.utime(folder / "a.txt", ns=(1, 1))
    (folder / "b.txt").unlink()
    (folder / "d.txt").write_text("new")
    found = changes(before, str(folder))
    assert [text.removeprefix(f"{folder}/") for text in found] == ["a.txt has changed", "b.txt is gone", "d.txt is new"]


def test_a_touched_file_is_the_same_where_its_content_is_known(folder):
    seen, sized = fingerprint(str(folder)), fingerprint(str(folder), content=False)
    os.utime(folder / "a.txt", ns=(1, 1))
    assert changes(seen, str(folder)) == []
    assert changes(sized, str(folder)) == [f"{folder}/a.txt has changed"]


def test_the_standard_library_is_known_wherever_it_stands():
    assert "ast.py" in fingerprint("stdlib", content=False)
    assert fingerprint("hf:some/name") == {}
