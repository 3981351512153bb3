"""Published data sets, as tiny made copies of the folders that people have."""

import numpy as np
import pytest

from evl.data.manifests.manifest import read_manifest
from evl.errors import DataError
from evl.types import Sample
from tests.data.helpers import KINETICS, found, make, names, write
from tests.helpers import write_video


@pytest.mark.parametrize(
    ("lists", "a", "b", "c"),
    [
        (  # flat folders for each split
            ("train.csv", "validate.csv", "test.csv"),
            "train/--aaaaaaaaa_000010_000020.mp4", "validate/b-_bbbbbbbb_000003_000013.mkv",
            "test/ccccccccccc_000000_000010.webm",
        ),
        (  # folders by label, with blanks or underscores
            ("annotations/train.csv", "annotations/val.csv", "annotations/test.csv"),
            "videos/train/air drumming/--aaaaaaaaa_000010_000020.mp4", "videos/val/zumba/b-_bbbbbbbb_000003_000013.mp4",
            "videos/test/air_drumming/ccccccccccc_000000_000010.mp4",
        ),
        (  # all in one folder, names of the archive
            ("kinetics400/kinetics_400_train.csv", "kinetics400/kinetics_400_val.csv", "kinetics400/k_test.csv"),
            "all/--aaaaaaaaa_000010_000020.mp4", "all/b-_bbbbbbbb_000003_000013.mp4",
            "all/ccccccccccc_000000_000010.mp4",
        ),
    ],
)  # fmt: skip
def test_kinetics(tmp_path, lists, a, b, c):
    write(tmp_path, lists[0], KINETICS + '"air drumming",--aaaaaaaaa,10,20,train\nzumba,gone-ggggg,5,15,train\n')
    write(tmp_path, lists[1], KINETICS + "zumba,b-_bbbbbbbb,3,13,validate\n")
    write(tmp_path, lists[2], KINETICS + "air drumming,ccccccccccc,0,10,test\n,ddddddddddd,1,11,test\n")
    make(tmp_path, a, b, c)
    for layout in ("auto", "kinetics"):
        manifest = read_manifest(tmp_path, layout=layout)
        assert manifest.layout == "kinetics"
        assert manifest.class_names == ("air drumming", "zumba")
        assert found(manifest, tmp_path) == {
            "train": [(a, "air drumming")], "val": [(b, "zumba")], "test": [(c, "air drumming")],
        }  # fmt: skip
        assert names(manifest.missing) == ["gone-ggggg_000005_000015.mp4"]
        assert manifest.num_unlabeled == 1
        assert {s.start_seconds for s in manifest.samples} == {None}
    assert read_manifest(tmp_path / lists[1], root=tmp_path).splits["val"] == (Sample(str(tmp_path / b), "zumba"),)


@pytest.mark.parametrize(("seconds", "trimmed"), [(2, True), (8, False)])
def test_kinetics_files_of_whole_videos_are_cut(tmp_path, seconds, trimmed, caplog):
    write(
        tmp_path,
        "k.csv",
        KINETICS + "a,vvvvvvvvvv1,5,7,train\nb,vvvvvvvvvv2,1,3,train\na,vvvvvvvvvv2,4,6,val\na,vvvvvvvvvv3,4,6,val\n",
    )
    make(tmp_path, "train/vvvvvvvvvv3/1.jpg")  # pictures have no times to cut by
    for number in (1, 2):
        frames = np.zeros((seconds * 5, 32, 32, 3), np.uint8)
        write_video(tmp_path / f"train/vvvvvvvvvv{number}.mp4", frames, rate=5)
    with caplog.at_level("INFO", "evl"):
        manifest = read_manifest(tmp_path)
    one, two, three = (str(tmp_path / f"train/vvvvvvvvvv{name}") for name in ("1.mp4", "2.mp4", "3"))
    if trimmed:
        assert manifest.samples == (Sample(one, "a"), Sample(two, "b"), Sample(two, "a"), Sample(three, "a"))
        assert "count as trimmed" in caplog.text
    else:
        assert manifest.samples == (
            Sample(one, "a", 5, 7),
            Sample(two, "b", 1, 3),
            Sample(two, "a", 4, 6),
            Sample(three, "a"),
        )
        assert "count as untrimmed" in caplog.text


SSV2_LABELS = {"Putting something on something": "1", "Holding something": "0", "Moving part of something": "2"}


@pytest.mark.parametrize(
    ("prefix", "videos", "ending"),
    [
        ("something-something-v2-", "20bn-something-something-v2/", ".webm"),
        ("labels/", "videos/", ".mp4"),
        ("labels/", "", ""),  # folders of frames
    ],
)
def test_something_something_v2(tmp_path, prefix, videos, ending):
    write(tmp_path, f"{prefix}labels.json", SSV2_LABELS)
    train = [
        {"id": "74225", "label": "putting a cup on a desk", "template": "Putting [something] on [something]",
         "placeholders": ["a cup", "a desk"]},
        {"id": "5", "label": "holding a cup", "template": "Holding [something]"},
    ]  # fmt: skip
    write(tmp_path, f"{prefix}train.json", train)
    write(tmp_path, f"{prefix}validation.json", [{"id": "7", "template": "Moving [part] of [something]"}])
    write(tmp_path, f"{prefix}test.json", [{"id": "8"}, {"id": "9"}])
    for number in (74225, 7, 9):
        make(tmp_path, f"{videos}{number}{ending}" + ("" if ending else "/00001.jpg"))
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "ssv2"
    assert manifest.class_names == (
        "Holding something", "Putting something on something", "Moving part of something",
    )  # fmt: skip
    assert found(manifest, tmp_path) == {
        "train": [(f"{videos}74225{ending}", "Putting something on something")],
        "val": [(f"{videos}7{ending}", "Moving part of something")],
    }
    assert names(manifest.missing) == ["5.webm"]
    assert manifest.num_unlabeled == 2
    write(tmp_path, f"{prefix}test-answers.csv", "8;Holding something\n9;Putting [something] on [something]\n")
    manifest = read_manifest(tmp_path)
    assert found(manifest, tmp_path)["test"] == [(f"{videos}9{ending}", "Putting something on something")]
    assert manifest.num_unlabeled == 0
    write(tmp_path, f"{prefix}train.json", [{"id": "5", "template": "Eating [something]"}])
    with pytest.raises(DataError, match=r"the video 5 has the template 'Eating something', but .*labels\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_something_something_v1(tmp_path, form):
    name = "something-something-v1-{}." + form
    if form == "csv":
        write(tmp_path, name.format("labels"), "Turning something\nHolding something\nPulling, slowly\n")
        write(tmp_path, name.format("train"), "100218;Holding something\n3;Pulling, slowly\n")
        write(tmp_path, name.format("validation"), "4;Turning something\n")
        write(tmp_path, name.format("test"), "5\n6\n")
    else:
        write(tmp_path, name.format("labels"), ["Turning something", "Holding something", "Pulling, slowly"])
        train = [{"id": "100218", "label": "Holding something"}, {"id": 3, "label": "Pulling, slowly"}]
        write(tmp_path, name.format("train"), train)
        write(tmp_path, name.format("validation"), {"4": "Turning something"})
        write(tmp_path, name.format("test"), ["5", "6"])
    for number in (100218, 4, 5):
        make(tmp_path, *(f"20bn-something-something-v1/{number}/{i:05d}.jpg" for i in (1, 2)))
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "ssv1"
    assert manifest.class_names == ("Holding something", "Pulling, slowly", "Turning something")
    assert found(manifest, tmp_path) == {
        "train": [("20bn-something-something-v1/100218", "Holding something")],
        "val": [("20bn-something-something-v1/4", "Turning something")],
    }
    assert names(manifest.missing) == ["3"]
    assert manifest.num_unlabeled == 2


def test_hmdb51(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    write(lists, "brush_hair_test_split1.txt", "a.b.avi 1 \nb.avi 2 \nc.avi 0 \ngone.avi 2 \n")
    write(lists, "wave_test_split1.txt", "a.b.avi 1 \nd.avi 1\n")  # both classes have a video of one name
    write(lists, "brush_hair_test_split3.txt", "a.b.avi 2 \nb.avi 1 \nc.avi 0 \ngone.avi 1 \n")
    make(tmp_path, *(f"hmdb51_org/brush_hair/{name}.avi" for name in ("a.b", "b", "c")))
    make(tmp_path, "hmdb51_org/wave/a.b.mp4", "hmdb51_org/wave/d/0001.png")
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "hmdb51"
    assert manifest.class_names == ("brush_hair", "wave")
    folder = "hmdb51_org"
    assert found(manifest, tmp_path) == {
        "train": [(f"{folder}/brush_hair/a.b.avi", "brush_hair"), (f"{folder}/wave/a.b.mp4", "wave"),
                  (f"{folder}/wave/d", "wave")],
        "test": [(f"{folder}/brush_hair/b.avi", "brush_hair")],
    }  # fmt: skip
    assert names(manifest.missing) == ["gone.avi"]
    assert names(read_manifest(tmp_path, split_number=3).splits["train"]) == ["b.avi", "gone.avi"]
    with pytest.raises(DataError, match=r"no lists of split 2 \(CLASS_test_split2"):
        read_manifest(tmp_path, split_number=2)


def test_ucf101(tmp_path):
    write(tmp_path, "ucfTrainTestlist/classInd.txt", "1 YoYo\r\n2 ApplyEyeMakeup\r\n")
    write(
        tmp_path,
        "ucfTrainTestlist/trainlist01.txt",
        "YoYo/v_YoYo_g08_c01.avi 1\r\nApplyEyeMakeup/v_A_g08_c02.avi 2\r\n",
    )
    write(tmp_path, "ucfTrainTestlist/testlist01.txt", "YoYo/v_YoYo_g01_c01.avi\r\n")
    write(tmp_path, "ucfTrainTestlist/trainlist02.txt", "YoYo/v_YoYo_g01_c01.avi 1\n")
    make(tmp_path, "UCF-101/YoYo/v_YoYo_g08_c01.avi", "UCF-101/YoYo/v_YoYo_g01_c01.mp4")
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "ucf101"
    assert manifest.class_names == ("YoYo", "ApplyEyeMakeup")  # the published numbers
    assert found(manifest, tmp_path) == {
        "train": [("UCF-101/YoYo/v_YoYo_g08_c01.avi", "YoYo")], "test": [("UCF-101/YoYo/v_YoYo_g01_c01.mp4", "YoYo")],
    }  # fmt: skip
    assert names(manifest.missing) == ["v_A_g08_c02.avi"]
    assert list(found(read_manifest(tmp_path, split_number=2), tmp_path)) == ["train"]
    with pytest.raises(DataError, match="no lists of split 3"):
        read_manifest(tmp_path, split_number=3)
    with pytest.raises(DataError, match="split 4 was requested, but ucf101 has split lists 1 to 3"):
        read_manifest(tmp_path, split_number=4)


def test_diving48(tmp_path):
    write(
        tmp_path,
        "annotations/Diving48_vocab.json",
        [["Reverse", "15som", "05Twis", "FREE"], ["Back", "Dive", "", "PIKE"]],
    )
    for version, number in (("", 0), ("V2_", 1)):
        row = {"vid_name": "-mmq0PT-u8k_00155", "label": number, "start_frame": 0, "end_frame": 48}
        write(tmp_path, f"annotations/Diving48_{version}train.json", [row])
    write(
        tmp_path,
        "annotations/Diving48_V2_test.json",
        [{"vid_name": "x_00001", "label": 0, "start_frame": 0, "end_frame": 9}],
    )
    make(tmp_path, "rgb/-mmq0PT-u8k_00155.mp4")
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "diving48"
    assert manifest.class_names == ("Reverse, 15som, 05Twis, FREE", "Back, Dive, PIKE")
    assert found(manifest, tmp_path) == {"train": [("rgb/-mmq0PT-u8k_00155.mp4", "Back, Dive, PIKE")], "test": []}
    assert names(manifest.missing) == ["x_00001.mp4"]
    write(tmp_path, "annotations/Diving48_V2_test.json", [{"vid_name": "x", "label": 2}])
    with pytest.raises(DataError, match="label 2, expected a number from 0 to 1"):
        read_manifest(tmp_path)


def test_videofolder_with_metadata_in_each_split(tmp_path):
    write(tmp_path, "train/metadata.csv", "file_name,label,duration\na.mp4,run,3\nsub/b.mp4,walk,4\ngone.mp4,run,1\n")
    write(
        tmp_path,
        "validation/metadata.jsonl",
        '{"file_name": "a.mp4", "label": "walk"}\n{"file_name": "c.mp4", "label": null}\n',
    )
    make(tmp_path, "train/a.mp4", "train/sub/b.webm", "validation/a.mp4", "validation/c.mp4")
    manifest = read_manifest(tmp_path)
    assert manifest.layout == "videofolder"
    assert manifest.class_names == ("run", "walk")
    assert found(manifest, tmp_path) == {
        "train": [("train/a.mp4", "run"), ("train/sub/b.webm", "walk")], "val": [("validation/a.mp4", "walk")],
    }  # fmt: skip
    assert names(manifest.missing) == ["gone.mp4"]
    assert manifest.num_unlabeled == 1
    assert set(read_manifest(tmp_path / "train").splits) == {"all"}


def test_videofolder_with_metadata_at_the_top(tmp_path):
    write(tmp_path, "metadata.csv", "file_name,action\nvideos/a.mp4,10\nvideos/b.mp4,9\n")
    make(tmp_path, "videos/a.mp4", "videos/b/1.jpg")
    manifest = read_manifest(tmp_path)
    assert manifest.class_names == ("9", "10")
    assert found(manifest, tmp_path) == {"all": [("videos/a.mp4", "10"), ("videos/b", "9")]}
    write(tmp_path, "metadata.csv", "file_name,action,place\nvideos/a.mp4,run,park\n")
    with pytest.raises(DataError, match=r"which column is the label.*file_name, action, place"):
        read_manifest(tmp_path)
    write(tmp_path, "metadata.csv", "file_name,label\ntrain/a.mp4,run\nb.mp4,walk\n")
    with pytest.raises(DataError, match=r"but b\.mp4 is in none"):
        read_manifest(tmp_path)
