"""Lists of videos as people and programs write them: commas, tabs, headers, encodings, numbers, empty cells."""

import codecs
import datetime
import math
import os
import unicodedata

import pyarrow
import pytest
from pyarrow import parquet

from evl.data.manifests.manifest import read_class_names, read_manifest
from evl.errors import ConfigError, DataError
from tests.data.helpers import make


def listed(file, **options):
    """(path below the list's folder, label) of each row, in order."""
    manifest = read_manifest(file, **options)
    return [(os.path.relpath(sample.path, file.parent), sample.label) for sample in manifest.samples]


def put(file, content):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


A, B = ("a b.mp4", "open it"), ("b.mp4", "close")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "path,label\na b.mp4,open it\nb.mp4,close\n"),
        ("a.csv", "path;label\r\na b.mp4;open it\r\nb.mp4;close\r\n"),
        ("a.csv", "sep=;\r\npath;label\r\na b.mp4;open it\r\nb.mp4;close\r\n"),
        ("a.csv", "path\tlabel\na b.mp4\topen it\nb.mp4\tclose\n"),
        ("a.csv", "path,label\ra b.mp4,open it\rb.mp4,close\r"),
        ("a.csv", "Path, Label\na b.mp4, open it\n b.mp4 , close\n".replace(" b.mp4 ,", "b.mp4,")),
        ("a.csv", " LABEL ,x, PATH\n open it ,,a b.mp4\nclose,,b.mp4\n"),
        ("a.csv", 'path,label\n"a b.mp4","open it"\n"b.mp4",close\n'),
        ("a.csv", "path,label,,\na b.mp4,open it,,\nb.mp4,close,,\n,,,\n\n"),
        ("a.csv", "\n# videos of June\npath,label\n\na b.mp4,open it\n# c.mp4,left out\nb.mp4,close\n"),
        ("a.csv", "#path,label\na b.mp4,open it\nb.mp4,close\n"),
        ("a.csv", "\ufeffpath,label\na b.mp4,open it\nb.mp4,close\n"),
        ("a.csv", ",path,label\n0,a b.mp4,open it\n1,b.mp4,close\n"),
        ("a.csv", codecs.BOM_UTF16_LE + "path\tlabel\r\na b.mp4\topen it\r\nb.mp4\tclose\r\n".encode("utf-16-le")),
        ("a.txt", codecs.BOM_UTF16_BE + "path\tlabel\r\na b.mp4\topen it\r\nb.mp4\tclose".encode("utf-16-be")),
        ("a.tsv", "path\tlabel\na b.mp4\topen it\nb.mp4\tclose\n"),
        ("a.TAB", "path\tlabel\tsplit\na b.mp4\topen it\ttrain\nb.mp4\tclose\ttrain\n"),
        ("a.txt", "path\tlabel\na b.mp4\topen it\nb.mp4\tclose\n"),
        ("a.txt", "path,label\na b.mp4,open it\nb.mp4,close\n"),
        ("a.list", "label;path\nopen it;a b.mp4\nclose;b.mp4\n"),
        ("a.txt", "a b.mp4\topen it\nb.mp4\tclose\n"),
        ("a.txt", "a b.mp4,open it\nb.mp4, close\n"),
        ("a.txt", 'a b.mp4;open it\n"b.mp4" close\n'),
        ("a.txt", "path label\n# a comment\n#another\n\na b.mp4\topen it\nb.mp4   close\n"),
    ],
)
def test_one_list_written_in_many_ways(tmp_path, name, content):
    assert listed(put(tmp_path / name, content)) == [A, B]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "path,label\na.mp4,x\ndoor, open.mp4,left\n", r"row 3: 3 cells .*double quotes"),
        ("a.csv", "path,label,more\ndoor, open.mp4,left\n", "row 2: the label ' open.mp4' is a video's name"),
        ("a.csv", "path,label,split\ndoor, open.mp4,left\n", "row 2: split 'left'"),
        ("a.csv", "path,label\n\na.mp4,put it down, then go\n", "row 3: 3 cells"),
        ("a.csv", "path;label\na;b.mp4;x\n", "row 2: 3 cells.*';'"),
        ("a.csv", 'path,label\n"a.mp4,x\nb.mp4,y\n', "row 2: cannot be read as CSV.*quote"),
        ("a.csv", "path,Label,label\na.mp4,x,y\n", "column 'label' appears twice"),
        (
            "a.csv",
            "file,class\nx.mp4,1\n",
            "no column 'path' or 'label'.*rename 'file' to 'path' and 'class' to 'label'",
        ),
        ("a.csv", "video_name,tag\nx.mp4,1\n", "rename 'video_name' to 'path' and 'tag' to 'label'"),
        ("a.csv", "x.mp4,run\ny.mp4,walk\n", "put a line with the names of the columns in front"),
        ("a.tsv", "x.mp4\trun\n", "put a line with the names of the columns in front"),
        ("a.csv", "path,label,start,end\nx.mp4,a,1,2\n", "column 'start' is not read.*'start_seconds', in seconds"),
        ("a.csv", "path,label,subset\nx.mp4,a,testing\n", "column 'subset' is not read.*'split'"),
        ("a.csv", "path,label,split\nx.mp4,a,dev\ny.mp4,a,eval\n", "'dev' and 'eval' may both mean"),
        ("a.csv", "path,label\nx.mp4,NaN\n", r"row 2: label is empty \('NaN'\)"),
        ("a.csv", "path,label\nnan,x\n", "row 2: path is empty"),
        ("a.csv", "path,label\nx.mp4\n", "row 2: label is empty"),
        ("a.csv", "path,label\nx.mp4,\u200b \n", "row 2: label is empty"),
        ("a.csv", "path,label\nMädchen.mp4,x\n".encode("latin-1"), "not text in UTF-8.*save it as"),
        ("a.csv", "path,label\nx.mp4,y\n".encode("utf-16-le"), "not text in UTF-8"),
        ("a.csv", "path,label,start_seconds\nx.mp4,a,nan\nx.mp4,a,-1\n", "row 3: start_seconds is '-1'"),
        ("a.txt", "video_name,tag\nx.mp4,1\n", "line 1: 'video_name,tag' looks like a header.*'video_name' to 'path'"),
        ("a.txt", "file class\nx.mp4 1\n", "looks like a header.*'file' to 'path' and 'class' to 'label'"),
        ("a.txt", "nr. what\nx.mp4 1\ny.mp4 2\n", "line 1: 'nr. what' looks like a header"),
        ("a.txt", "path label split\nx.mp4 1 train\n", "has blanks between the names of columns"),
        ("a.txt", "x.mp4 opening a door\n", "line 1: 'x.mp4 opening a door' is not 'path label'"),
        ("a.txt", "x.mp4 120 3\n", "is not 'path label'"),
        ("a.txt", "x.mp4,left,right\n", "is not 'path label'"),
        ("a.txt", "x\tleft\t3\n", "3 cells between tabs"),
        ("a.txt", "0 x.mp4\n", "label 'x.mp4' is a video's name"),
        ("a.txt", "x.mp4\n", "is not 'path label'"),
        ("a.txt", "a folder,left\n", "if it is a table with commas"),
        ("a.json", '{"path": "x.mp4", "label": "y"}\n', "looks like JSON"),
        ("a.json", '[\n{"path": "x.mp4", "label": "y"}]\n', "looks like JSON"),
    ],
)
def test_nothing_is_misread(tmp_path, name, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read_manifest(put(tmp_path / name, content))


def test_what_a_text_list_may_have(tmp_path):
    make(tmp_path, "nr. 5/1.jpg")
    content = "nr. 5 0\nmy.mp4 x.mp4 1\n[a] {b}.mp4 2\n#3.mp4 3\nno_ending 4\na.mp4, b.mp4 5\n"
    assert [path for path, _ in listed(put(tmp_path / "a.txt", content))] == [
        "nr. 5", "my.mp4 x.mp4", "[a] {b}.mp4", "#3.mp4", "no_ending", "a.mp4, b.mp4",
    ]  # fmt: skip


def test_comments_and_labels_like_empty_cells_are_pointed_out(tmp_path):
    file = put(tmp_path / "a.csv", "path,label\na.mp4,None\nb.mp4,run\n# c.mp4,x\n#d.mp4,walk\n")
    manifest = read_manifest(file)
    assert manifest.class_names == ("None", "run", "walk")
    assert [notice.removeprefix(f"{file}: ")[:40] for notice in manifest.notices] == [
        "1 row has the label 'None', which is rea",
        "ignored 1 comment line (with # in front)",
    ]


@pytest.mark.parametrize("written", [("0.0", "1.0", "10.0"), ("0", "1.", "10.00"), (0.0, 1.0, 10.0)])
def test_whole_floats_are_numbers(tmp_path, written):
    names = [f"class {number}" for number in range(11)]
    paths = ["a.mp4", "b.mp4", "c.mp4"]
    if isinstance(written[0], str):
        rows = zip(paths, written, strict=True)
        file = put(tmp_path / "a.csv", "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    else:
        parquet.write_table(pyarrow.table({"path": paths, "label": list(written)}), file := tmp_path / "a.parquet")
    assert [label for _, label in listed(file, class_names=names)] == ["class 0", "class 1", "class 10"]
    assert read_manifest(file).class_names == ("0", "1", "10")
    assert [label for _, label in listed(file, class_names=["0", "1", "10"])] == ["0", "1", "10"]
    with pytest.raises(DataError, match="label 10, but there are only 3 class names, for labels from 0 to 2"):
        read_manifest(file, class_names=["x", "y", "z"])
    with pytest.raises(DataError, match="unknown class '0'"):
        read_manifest(file, class_names=["1", "10", "20"])


def test_numbers_that_are_none(tmp_path):
    file = put(tmp_path / "a.csv", "path,label\na.mp4,1.5\nb.mp4,2.0\n")
    assert read_manifest(file).class_names == ("1.5", "2.0")
    with pytest.raises(DataError, match=r"unknown class '1\.5', '2\.0'"):
        read_manifest(file, class_names=["x", "y", "z"])


def test_labels_that_count_from_one(tmp_path):
    file = put(tmp_path / "a.txt", "a.mp4 1\nb.mp4 2\nc.mp4 3\n")
    with pytest.raises(
        DataError, match=r"label 3, but there are only 3 class names; the labels seem to count from 1.*subtract"
    ):
        read_manifest(file, class_names=["x", "y", "z"])


def test_nan_in_parquet_is_empty(tmp_path):
    def table(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        return read_manifest(tmp_path / "a.parquet")

    manifest = table(Path=["a.mp4", "b.mp4"], label=["x", "y"], end_seconds=[math.nan, 2.0], split=[None, None])
    assert [sample.end_seconds for sample in manifest.splits["all"]] == [None, 2.0]
    for labels in ([1.0, math.nan], ["x", None], ["x", "nan"], ["x", " "]):
        with pytest.raises(DataError, match="row 2: label is empty"):
            table(path=["a.mp4", "b.mp4"], label=labels)
    assert table(path=["a.mp4"], label=[b"run"]).class_names == ("run",)


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("start_seconds", [[1.0], [2.0]], r"row 1: start_seconds is '\[1\.0\]', expected one value"),
        ("end_seconds", [{"at": 1.0}, {"at": 2.0}], "row 1: end_seconds is .*, expected one value"),
        ("start_seconds", [datetime.date(2020, 1, 1)] * 2, "row 1: start_seconds is .*, expected seconds"),
        ("start_seconds", [datetime.timedelta(seconds=1)] * 2, "row 1: start_seconds is .*, expected seconds"),
        ("split", [["train"], ["val"]], "row 1: split is .*, expected one value"),
        ("group", [None, ["g"]], "row 2: group is .*, expected one value"),
        ("label", [["a"], ["b"]], "row 1: label is .*, expected one value"),
        ("path", [["a.mp4"], ["b.mp4"]], "row 1: path is .*, expected one value"),
    ],
)
def test_parquet_of_other_types_is_an_error_with_its_row(tmp_path, column, values, sentence):
    columns = {"path": ["a.mp4", "b.mp4"], "label": ["x", "y"], column: values}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=sentence):
        read_manifest(tmp_path / "a.parquet")


COMPOSED = "fermer la fenêtre"
SPELT = [COMPOSED, unicodedata.normalize("NFD", COMPOSED), f"  {COMPOSED}\u00a0", f"\u200b{COMPOSED}\ufeff"]


def test_a_label_has_one_spelling(tmp_path):
    file = put(tmp_path / "a.csv", "path,label\n" + "".join(f"{i}.mp4,{label}\n" for i, label in enumerate(SPELT)))
    assert read_manifest(file).class_names == (COMPOSED,)
    for i, label in enumerate(SPELT):
        names = put(tmp_path / "names.txt", f"{label}\n\n \nb")
        assert read_class_names(names) == (COMPOSED, "b")
        assert len(read_manifest(file, class_names=[label, "b"]).samples) == 4
        make(tmp_path, f"folder/{label}/{i}.mp4")
    manifest = read_manifest(tmp_path / "folder")
    assert manifest.class_names == (COMPOSED,)
    assert len(manifest.samples) == 4
    assert "are read as one class, 'fermer la fenêtre'" in manifest.notices[0]
    with pytest.raises(ConfigError, match="'fermer la fenêtre' appears twice"):
        read_class_names(put(tmp_path / "names.txt", "\n".join(SPELT[:2])))
    assert read_class_names(put(tmp_path / "n.txt", codecs.BOM_UTF16_LE + "x\r\ny".encode("utf-16-le"))) == ("x", "y")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_class_names(put(tmp_path / "names.txt", "é".encode("latin-1")))
