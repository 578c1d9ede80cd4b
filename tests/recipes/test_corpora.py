"""Parts of a corpus: found by name, or split off."""

import pytest

from medjax.recipes import find_split, locate_parts, split_parts


def write(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    return folder


def test_a_part_is_found_by_any_of_its_names(tmp_path):
    write(tmp_path, "train.csv", "corpus.dev", "test/1.txt", "train.txt.bak", "._test.csv")
    assert [find_split(tmp_path, name).name for name in ("train", "devel", "test")] == [
        "train.csv",
        "corpus.dev",
        "test",
    ]
    assert find_split(tmp_path, "other") is None


def test_two_files_of_a_part_are_refused_by_name(tmp_path):
    write(tmp_path, "dev.csv", "valid.csv", "train.csv", "test.csv")
    with pytest.raises(ValueError, match=r"2 files or folders named .*\(dev.csv, valid.csv\)"):
        locate_parts([tmp_path])


def test_a_folder_has_all_parts_or_is_one_corpus_in_brat(tmp_path):
    whole = write(tmp_path / "whole", "ward/1.ann", "ward/1.txt")
    assert locate_parts([whole]) == [whole]
    parts = write(tmp_path / "parts", "train/1.ann", "dev/1.ann")
    with pytest.raises(ValueError, match="0 files or folders named test; expected one"):
        locate_parts([parts])
    write(parts, "test/1.ann")
    assert locate_parts([parts]) == [parts / "train", parts / "dev", parts / "test"]
    assert locate_parts([whole, parts]) == [whole, parts]


@pytest.mark.parametrize(("given", "sizes"), [((20,), (16, 2, 2)), ((20, 7), (18, 2, 7))])
def test_what_is_missing_is_split_off_without_overlap(given, sizes):
    lists = [[f"{number} of {which}" for number in range(n)] for which, n in enumerate(given)]
    parts = split_parts(lists, seed=3)
    assert tuple(map(len, parts)) == sizes
    assert sorted(item for part in parts for item in part) == sorted(
        item for items in lists for item in items
    )
    assert split_parts(lists, seed=3) == parts
    assert split_parts(lists, seed=4).train != parts.train


def test_three_lists_stay_as_they_are():
    assert split_parts([[1], [2], [3]], seed=0) == ([1], [2], [3])


@pytest.mark.parametrize("count", [0, 4])
def test_other_numbers_of_lists_are_refused(count):
    with pytest.raises(ValueError, match=f"--data got {count} files or folders; expected 1, 2 or"):
        split_parts([[1]] * count, seed=0)
