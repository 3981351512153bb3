"""Groups: where they come from, and that no group is on both sides."""

import pytest

from evl.config import RunConfig, replace
from evl.data.draw import describe_groups, with_groups
from evl.data.manifests.manifest import read_manifest, write_manifest
from evl.data.splits import find_splits
from evl.errors import ConfigError, DataError
from evl.types import Sample


def write_list(folder, rows, columns="path,label,group", name="list.csv"):
    folder.mkdir(exist_ok=True)
    lines = [",".join(map(str, row)) for row in rows]
    for row in rows:
        (folder / str(row[0])).parent.mkdir(parents=True, exist_ok=True)
        (folder / str(row[0])).touch()
    (folder / name).write_text("\n".join([columns, *lines]) + "\n")
    return folder / name


def config_for(path, **data):
    return replace(RunConfig(), data={"path": str(path), **data})


def splits_of(config):
    found = find_splits(config)
    return found.splits["train"], found.splits["val"]


def groups_of(samples):
    return {sample.group for sample in samples}


ROWS = [(f"{y}{who}{i}.mp4", y, who) for who in range(10) for y in "ab" for i in range(3)]


def test_the_column_group(tmp_path):
    path = write_list(tmp_path, ROWS)
    train, val = splits_of(config_for(path))
    assert (len(train), len(val)) == (48, 12)
    assert groups_of(train) | groups_of(val) == set("0123456789")
    assert not groups_of(train) & groups_of(val)
    # it is kept where samples are written
    write_manifest(tmp_path / "again.csv", val)
    assert read_manifest(tmp_path / "again.csv").samples == val


def test_groups_in_parquet_are_texts(tmp_path):
    import pyarrow
    from pyarrow import parquet

    for column, expected in (([0, 1], ["0", "1"]), ([0.0, 1.0], ["0", "1"]), (["0", " é "], ["0", "é"])):
        table = pyarrow.table({"path": ["a.mp4", "b.mp4"], "label": ["x", "y"], "group": column})
        parquet.write_table(table, tmp_path / "list.parquet")
        assert [sample.group for sample in read_manifest(tmp_path / "list.parquet").samples] == expected
    for column in ([None, None], [float("nan")] * 2, ["", " "]):
        table = pyarrow.table({"path": ["a.mp4", "b.mp4"], "label": ["x", "y"], "group": column})
        parquet.write_table(table, tmp_path / "list.parquet")
        assert [sample.group for sample in read_manifest(tmp_path / "list.parquet").samples] == [None, None]


def test_groups_of_some_rows_are_an_error(tmp_path):
    path = write_list(tmp_path, [("a.mp4", "x", "g"), ("b.mp4", "y", "")])
    with pytest.raises(DataError, match="row 3: group is empty, but other rows have one"):
        read_manifest(path)
    path = write_list(tmp_path, [("a.mp4", "x", "g"), ("a.mp4", "x", "h")])
    with pytest.raises(DataError, match="row 3: group 'h', but a row above has the same file in group 'g'"):
        read_manifest(path)


def test_a_group_in_two_splits_is_an_error(tmp_path):
    rows = [(f"{i}.mp4", "xy"[i % 2], f"person {i // 4}", "train" if i < 13 else "val") for i in range(20)]
    path = write_list(tmp_path, rows, "path,label,group,split")
    message = r"group 'person 3' is in two splits: .*12\.mp4 in train, .*13\.mp4 in val"
    with pytest.raises(DataError, match=message):
        find_splits(config_for(path))
    rows = [(*row[:3], "test" if row[3] == "val" else "train") for row in rows]
    with pytest.raises(DataError, match=r"group 'person 3' is in two splits: .* in test"):
        find_splits(config_for(write_list(tmp_path, rows, "path,label,group,split")))
    # divided by groups it is fine
    rows = [(*row[:3], "train" if number < 12 else "val") for number, row in enumerate(rows)]
    train, val = splits_of(config_for(write_list(tmp_path, rows, "path,label,group,split")))
    assert (len(train), len(val)) == (12, 8)


def test_groups_of_val_path(tmp_path, caplog):
    path = write_list(tmp_path / "one", ROWS)
    others = write_list(tmp_path / "two", [(f"{y}.mp4", y, 9) for y in "ab"])
    with pytest.raises(DataError, match="group '9' is in two splits"):
        find_splits(config_for(path, val_path=str(others)))
    others = write_list(tmp_path / "two", [(f"{y}.mp4", y, "new") for y in "ab"])
    find_splits(config_for(path, val_path=str(others)))
    assert not caplog.messages
    others = write_list(tmp_path / "two", [(f"{y}.mp4", y) for y in "ab"], "path,label")
    find_splits(config_for(path, val_path=str(others)))
    assert "the training videos have groups, but the validation videos have none" in caplog.text


@pytest.mark.parametrize(
    ("group_by", "names", "expected"),
    [
        ("folder", ["walk/anna/1.mp4", "run/anna/2.mp4", "run/bert/deep/3.mp4"], ["anna", "anna", "deep"]),
        ("_(g[0-9]+)_", ["walk/v_g01_c1.avi", "run/v_g25_c9.avi"], ["g01", "g25"]),
        # a name is looked at alone, so that no folder is taken for it
        ("([0-9])", ["take 7/v_1.avi", "take 7/v_2.avi"], ["1", "2"]),
        # with a slash, the path below the data
        ("^[^/]+/([^/]+)/", ["walk/anna/x/1.mp4", "run/bert/2.mp4"], ["anna", "bert"]),
        ("/(?P<camera>cam[0-9])/", ["walk/cam1/1.mp4", "run/cam2/2.mp4"], ["cam1", "cam2"]),
    ],
)
def test_group_by(tmp_path, group_by, names, expected):
    samples = [Sample(str(tmp_path / name), "x") for name in names]
    assert [one.group for one in with_groups(samples, group_by, tmp_path, tmp_path)] == expected


def test_group_by_of_a_folder(tmp_path):
    for y in ("open", "close"):
        for who in range(10):
            for i in range(2):
                (tmp_path / y / f"s{who}").mkdir(parents=True, exist_ok=True)
                (tmp_path / y / f"s{who}" / f"{i}.mp4").touch()
    for group_by in ("folder", "/(s[0-9])/"):
        found = find_splits(config_for(tmp_path, group_by=group_by))
        assert {split: len(samples) for split, samples in found.splits.items()} == {"train": 32, "val": 8}
        assert not groups_of(found.splits["train"]) & groups_of(found.splits["val"])
    with pytest.raises(DataError, match=r"finds no group in '0\.mp4'; every video needs one"):
        find_splits(config_for(tmp_path, group_by="_(g)_"))
    with pytest.raises(DataError, match=r"'close', for example, is only in close\. A group is never divided"):
        find_splits(config_for(tmp_path, group_by="([^/]+)/s"))


def test_group_by_and_a_column_are_one_too_many(tmp_path):
    with pytest.raises(DataError, match=r"has a column group, and data\.group_by is set too: leave out one of them"):
        find_splits(config_for(write_list(tmp_path, ROWS), group_by="folder"))


@pytest.mark.parametrize("group_by", ["g[0-9]+", "(a)(b)", "(", "[", ""])
def test_wrong_expressions_are_told(group_by):
    with pytest.raises(ConfigError, match="data: group_by must be folder"):
        replace(RunConfig(), data={"group_by": group_by})


def test_what_a_report_says():
    one, two = ([Sample("a", "x", group=group) for group in groups] for groups in ("aab", "cdd"))
    assert describe_groups(one, two) == "2 groups, none trained on"
    assert describe_groups(one, [*two, *one[:1]]) == "3 groups, 1 of them trained on"
    assert describe_groups(one, [Sample("a", "x")]) == describe_groups([], one) == ""
