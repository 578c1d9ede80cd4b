"""Parts of a corpus: found by name, or split off."""

import re

import pytest

from medjax.data import epoch_order
from medjax.recipes import find_split, locate_parts, split_parts
from medjax.text import Document, LabelledText, split_sentences


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


def test_a_folder_with_a_test_set_and_no_part_to_train_on_is_refused(tmp_path):
    n2c2 = write(tmp_path, "training_20180910/1.ann", "training_20180910/1.txt", "test/2.ann")
    told = (
        f"{n2c2} has some of the parts only (test) and none to train on; expected entries named "
        "for each (train: train or training; devel: devel or dev or valid or validation; test: "
        "test), or the folders one by one: train, devel, test"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        locate_parts([n2c2])
    assert len(locate_parts([n2c2 / "training_20180910", n2c2 / "test"])) == 2


def test_a_note_may_be_called_test(tmp_path):
    whole = write(tmp_path, "fever.ann", "fever.txt", "test.ann", "test.txt")
    assert locate_parts([whole]) == [whole]


def test_training_is_a_name_of_train(tmp_path):
    parts = write(tmp_path, "training/1.ann", "dev/1.ann", "test/1.ann")
    assert locate_parts([parts]) == [parts / "training", parts / "dev", parts / "test"]


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


def parted(parts, unit_of):
    """Return for each part the units that its items belong to."""
    return [{unit_of(item) for item in part} for part in parts]


def are_disjoint(sets):
    return len(set().union(*sets)) == sum(map(len, sets))


@pytest.mark.parametrize("nb_lists", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_texts_of_a_group_are_in_one_part(nb_lists, seed):
    texts = [LabelledText(f"letter {n}", ("a",), f"line {n}", f"p{n // 4}") for n in range(48)]
    other = LabelledText("letter 48", ("a",), "line 48", "p48")
    parts = split_parts([texts, [other]][:nb_lists], seed)
    of_first = parts[: 4 - nb_lists]
    assert are_disjoint(parted(of_first, lambda text: text.group))
    assert sorted(text for part in of_first for text in part) == sorted(texts)
    assert len(parts.train) == (36 if nb_lists == 1 else 40)  # 38 and 43 without groups


@pytest.mark.parametrize("nb_lists", [2, 3])
def test_groups_in_two_lists_are_refused(nb_lists):
    first, second, third = (
        [LabelledText(f"{n} of {which}", group=f"p{n % 20 + which}") for n in range(40)]
        for which in (0, 15, 100)
    )
    lists = [first, second] if nb_lists == 2 else [first, third, second]
    told = "5 of .* groups have texts in two parts or more: 'p1[5-9]' .*2 in test.*, ...; expected"
    with pytest.raises(ValueError, match=f"--group: {told}"):
        split_parts(lists, seed=0)
    bare = [[text._replace(group="") for text in texts] for texts in lists]
    assert sum(map(len, split_parts(bare, seed=0))) == 40 * nb_lists
    counted = "1 of 1 groups .*: 'p' \\(2 in train, 1 in test\\); expected each group in one part"
    p, none = LabelledText("a", group="p"), LabelledText("b")
    with pytest.raises(ValueError, match=counted):
        split_parts([[p, p], [none], [p]], seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_sentences_of_a_note_are_in_one_part(seed):
    notes = [Document(f"No fever. Day {n}. Well.", name=f"ward#{n}/note") for n in range(10)]
    parts = split_parts([[part for note in notes for part in split_sentences(note)]], seed)
    assert are_disjoint(parted(parts, lambda sentence: sentence.name.rpartition("#")[0]))
    assert list(map(len, parts)) == [24, 3, 3]


def test_each_part_has_a_group_where_one_is_larger_than_its_share():
    texts = [LabelledText(f"{n}", group="large" if n < 97 else f"p{n}") for n in range(100)]
    for seed in range(5):
        parts = split_parts([texts], seed)
        assert all(parts)
        assert are_disjoint(parted(parts, lambda text: text.group))


@pytest.mark.parametrize("count", [10, 11, 19, 600, 1001])
@pytest.mark.parametrize("seed", [0, 3])
def test_items_without_groups_are_drawn_one_by_one(count, seed):
    sentences = [Document(f"{n}", name=f"train.tsv, sentence {n}") for n in range(count)]
    drawn = [sentences[n] for n in epoch_order(seed, 0, count)]
    first, second = int(count * 0.8), int(count * 0.9)
    cut = (drawn[:first], drawn[first:second], drawn[second:])
    assert split_parts([sentences], seed) == cut
    assert split_parts([sentences, [1]], seed) == (drawn[:second], drawn[second:], [1])


def test_three_items_are_enough():
    assert list(map(len, split_parts([range(3)], seed=0))) == [1, 1, 1]


def test_too_few_groups_are_told():
    texts = [LabelledText(f"{n}", group=f"p{n % 2}") for n in range(20)]
    told = (
        "10 / 10 / 0 items to train, to choose the best epoch and to report on; there is none in "
        "test: its 20 items belong to 2 groups, notes or different texts, which stay together; "
        "expected at least 3"
    )
    with pytest.raises(ValueError, match=told):
        split_parts([texts], seed=0)
    with pytest.raises(ValueError, match=r"1 / 1 / 0 items .* there is none in test$"):
        split_parts([[1, 2]], seed=0)
    with pytest.raises(ValueError, match=r"0 / 0 / 0 items .* there is none in train$"):
        split_parts([[]], seed=0)


def test_three_lists_stay_as_they_are():
    assert split_parts([[1], [2], [3]], seed=0) == ([1], [2], [3])


@pytest.mark.parametrize("count", [0, 4])
def test_other_numbers_of_lists_are_refused(count):
    with pytest.raises(ValueError, match=f"--data got {count} files or folders; expected 1, 2 or"):
        split_parts([[1]] * count, seed=0)


def texts_of(part):
    return [item.text for item in part]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [LabelledText, Document])
def test_identical_texts_are_in_one_part(seed, kind, caplog):
    items = [kind(f"letter {n % 20}", name=f"line {n}") for n in range(60)]
    parts = split_parts([items], seed)
    assert are_disjoint([set(texts_of(part)) for part in parts])
    assert list(map(len, parts)) == [48, 6, 6]
    assert sorted(items) == sorted(item for part in parts for item in part)
    assert "40 of 60 texts, groups or notes have the same text as an earlier one" in caplog.text
    assert "also in" not in caplog.text


@pytest.mark.parametrize("seed", range(5))
def test_a_note_that_occurs_twice_is_in_one_part(seed):
    """Its sentences do not join other notes that have one of them, as many notes have."""
    texts = [f"No fever. Cough for {n % 10} days." for n in range(20)]
    notes = [Document(text, name=f"note {n}") for n, text in enumerate(texts)]
    parts = split_parts([[part for note in notes for part in split_sentences(note)]], seed)
    own = [{text for text in texts_of(part) if text.startswith("Cough")} for part in parts]
    assert are_disjoint(own)
    assert list(map(len, parts)) == [32, 4, 4]


def test_texts_that_given_parts_share_are_told(caplog):
    lists = [[Document(f"{n}") for n in range(first, first + 10)] for first in (0, 8, 15)]
    parts = split_parts(lists, seed=0)
    assert parts == tuple(lists)
    told = "2 of 10 devel texts are also in train, 3 of 10 test texts are also in devel; scores on"
    assert told in caplog.text
    caplog.clear()
    split_parts([lists[0], [*lists[0], *lists[2]]], seed=0)
    assert (
        "9 of 20 test texts are also in train, 1 of 20 test texts are also in devel" in caplog.text
    )


def test_groups_that_differ_in_leading_zeros_are_told(caplog):
    def texts(*groups):
        return [LabelledText(f"{group}, {groups}", ("a",), group=group) for group in groups]

    split_parts([texts("1", "p01"), texts("2", "0"), texts("001", "02", "p1")], seed=0)
    told = "2 groups in two parts or more differ in leading zeros only ('1' in train, '001' in te"
    assert told in caplog.text
    caplog.clear()
    split_parts([texts("1", "01"), texts("2"), texts("3")], seed=0)
    assert not caplog.records


def test_lists_with_the_same_texts_are_refused(tmp_path):
    texts = [LabelledText(f"{n}", ("a",)) for n in range(10)]
    other = [text._replace(labels=("b",), name="b") for text in texts[::-1]]
    told = "file or folder 2 has the same 10 texts as 1; expected other texts in each part"
    with pytest.raises(ValueError, match=told):
        split_parts([texts, other], seed=0)
    file = write(tmp_path, "a.csv", "b.csv") / "a.csv"
    (tmp_path / "again.csv").symlink_to(file)
    for path in (file, tmp_path / "again.csv"):
        with pytest.raises(ValueError, match="are the same file or folder; expected another for"):
            locate_parts([file, path])
    assert locate_parts([file, tmp_path / "b.csv"]) == [file, tmp_path / "b.csv"]
