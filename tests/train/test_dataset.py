"""Reading data sets: riff's own layout, Parquet, somebody's imagefolder, and everything that can be wrong with them."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import write_png
from riff.train.data.dataset import load_dataset
from riff.train.data.images import differing_fields
from riff.utils.errors import RiffError


def picture(config: SpectrogramConfig, width: int, seed: int) -> torch.Tensor:
    """A picture that 8 bits hold exactly."""
    whole = torch.randint(
        0, 256, (config.channels, config.n_mels, width), generator=torch.Generator().manual_seed(seed)
    )
    return whole / 255


def write_folder(folder: Path, config: SpectrogramConfig, widths: tuple[int, ...], **fields) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for number, width in enumerate(widths):
        write_png(folder / f"{number}.png", picture(config, width, number), config)
        lines.append({"file_name": f"{number}.png", "text": f"clip {number}", "bpm": 90.0, **fields})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def dataset(tmp_path, mini_config) -> Path:
    root = tmp_path / "set"
    write_folder(root / "train", mini_config, (64, 48, 64), captions=["one", "two"])
    write_folder(root / "validation", mini_config, (64,))
    mini_config.save(root)
    return root


def test_clips_come_in_sets_of_one_width_with_their_captions_and_pictures(dataset, mini_config):
    train, validation, config = load_dataset(dataset)
    assert config == mini_config
    assert [(each.width, len(each)) for each in train] == [(64, 2), (48, 1)]
    assert [each.clips[0]["captions"] for each in train] == [["one", "two"]] * 2
    assert validation[0].clips[0]["captions"] == ["clip 0"]
    assert torch.allclose(train[0].read(1), picture(mini_config, 64, 2), atol=1e-6)
    assert torch.allclose(train[1].read(0), picture(mini_config, 48, 1), atol=1e-6)
    assert train[0].content(0) != train[0].content(1)


def test_somebodys_imagefolder_with_a_csv_needs_no_config(tmp_path, mini_config):
    root = write_folder(tmp_path / "set", mini_config, (64, 64))
    (root / "metadata.jsonl").unlink()
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "text"], ["0.png", "first, with a comma"], ["1.png", ""]])
    train, validation, config = load_dataset(root)
    assert config == mini_config
    assert [clip["captions"] for clip in train[0].clips] == [["first, with a comma"], [""]]
    assert validation == []


def test_pictures_that_say_nothing_are_riffusions(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (512, 64), dtype=np.uint8)
    PIL.Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(root / "a.png")
    (root / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "funk"}\n')
    train, _, config = load_dataset(root)
    assert config == SpectrogramConfig.riffusion()
    assert torch.allclose(train[0].read(0)[0], torch.from_numpy(pixels).float() / 255)


def test_parquet_shards_hold_the_same_as_a_folder(tmp_path, dataset, mini_config):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = tmp_path / "shards"
    (root / "data").mkdir(parents=True)
    mini_config.save(root)
    for split in ("train", "validation"):
        lines = [json.loads(line) for line in (dataset / split / "metadata.jsonl").read_text().splitlines()]
        images = [{"bytes": (dataset / split / line["file_name"]).read_bytes(), "path": None} for line in lines]
        table = pyarrow.table({"image": images, **{name: [line[name] for line in lines] for name in lines[0]}})
        parquet.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)
    for one, other in zip(load_dataset(root)[:2], load_dataset(dataset)[:2], strict=True):
        assert [(each.width, each.clips) for each in one] == [(each.width, each.clips) for each in other]
        for first, second in zip(one, other, strict=True):
            assert all(torch.equal(first.read(i), second.read(i)) for i in range(len(first)))
    (root / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(RiffError, match="cannot be read"):
        load_dataset(root)


def test_arrays_of_make_dataset_are_read(tmp_path, mini_config):
    for split in ("train", "heldout"):
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "pictures-4-000000.npy", np.full((2, 32, 64), 51, dtype=np.uint8))
        lines = [json.dumps({"bpm": 80.0, "beats_per_bar": 4, "captions": ["techno"]})] * 2
        (tmp_path / split / "clips-4-000000.jsonl").write_text("\n".join(lines) + "\n")
    mini_config.save(tmp_path)
    train, validation, config = load_dataset(tmp_path)
    assert config == mini_config
    assert len(train[0]) == len(validation[0]) == 2
    assert train[0].read(0).shape == (1, 32, 64)
    assert float(train[0].read(0)[0, 0, 0]) == pytest.approx(0.2)


def other_config(config: SpectrogramConfig) -> SpectrogramConfig:
    return dataclasses.replace(config, db_range=60.0)


def damage(dataset: Path, config: SpectrogramConfig, how: str) -> None:
    train = dataset / "train"
    if how == "missing":
        (train / "1.png").unlink()
    elif how == "empty file":
        (train / "1.png").write_bytes(b"")
    elif how == "no picture":
        (train / "1.png").write_text("not a picture")
    elif how == "height":
        taller = dataclasses.replace(config, n_mels=40)
        write_png(train / "1.png", picture(taller, 64, 0), taller)
    elif how == "no lines":
        (train / "metadata.jsonl").write_text("\n")
    elif how == "no JSON":
        (train / "metadata.jsonl").write_text("{half a line\n")
    elif how == "no name":
        (train / "metadata.jsonl").write_text('{"text": "jazz"}\n')


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"1\.png does not exist"),
        ("empty file", r"1\.png is empty"),
        ("no picture", r"1\.png is damaged or no PNG"),
        ("height", r"1\.png is 40 pixels high .* 32 rows"),
        ("no lines", "lists no clips"),
        ("no JSON", r"metadata\.jsonl cannot be read"),
        ("no name", "entry 1, has no file_name"),
    ],
)
def test_a_damaged_data_set_is_one_line_that_names_the_file(dataset, mini_config, how, message):
    damage(dataset, mini_config, how)
    with pytest.raises(RiffError, match=message):
        load_dataset(dataset)


def test_a_truncated_image_or_one_of_another_config_is_refused(dataset, mini_config):
    path = dataset / "train" / "0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 300])
    with pytest.raises(RiffError, match=r"0\.png is damaged"):
        load_dataset(dataset)[0][0].read(0)
    write_png(path, picture(mini_config, 64, 0), other_config(mini_config))
    with pytest.raises(RiffError, match=r"db_range 60.0 and 70.0"):
        load_dataset(dataset)[0][0].read(0)


@pytest.mark.parametrize(("make", "message"), [(True, "holds no clips"), (False, "is not a folder")])
def test_no_data_set_at_all(tmp_path, make, message):
    if make:
        (tmp_path / "set").mkdir()
    with pytest.raises(RiffError, match=message):
        load_dataset(tmp_path / "set")


def test_configs_differ_only_in_what_their_pictures_mean(mini_config):
    assert differing_fields(mini_config, dataclasses.replace(mini_config, width=128, power=0.5)) == ""
    assert differing_fields(mini_config, other_config(mini_config)) == "db_range 70.0 and 60.0"
    stereo = SpectrogramConfig.riffusion(stereo=True)
    assert differing_fields(SpectrogramConfig.riffusion(), stereo) == "channels 1 and 2"


@pytest.mark.parametrize(
    "table",
    [
        "file_name, text\n0.png, slow jazz\n",
        "file_name;caption\n0.png;slow jazz\n",
        "File_Name\tPrompt\n0.png\tslow jazz\n",
    ],
    ids=["space", "caption", "tabs"],
)
def test_captions_of_a_data_set_are_read_however_they_are_written(tmp_path, mini_config, table):
    root = write_folder(tmp_path / "set", mini_config, (64,))
    (root / "metadata.jsonl").unlink()
    (root / "metadata.csv").write_text(table, encoding="utf-16")
    assert load_dataset(root)[0][0].clips[0]["captions"] == ["slow jazz"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "link.png"])
def test_nothing_outside_of_a_data_set_is_read(tmp_path, mini_config, name):
    write_folder(tmp_path / "other", mini_config, (64,))
    (tmp_path / "other/0.png").rename(tmp_path / "secret.png")
    root = write_folder(tmp_path / "set", mini_config, (64,))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}))
    with pytest.raises(RiffError, match="outside of the data set"):
        load_dataset(root)


def test_a_snapshot_of_the_hub_links_to_its_blobs(tmp_path, mini_config):
    blobs = write_folder(tmp_path / "datasets--me/blobs", mini_config, (64,))
    root = tmp_path / "datasets--me/snapshots/abc"
    root.mkdir(parents=True)
    for name in ("0.png", "metadata.jsonl"):
        (root / name).symlink_to(blobs / name)
    assert len(load_dataset(root)[0][0]) == 1
    assert load_dataset(root)[0][0].read(0).shape == (1, 32, 64)


def test_a_tempo_that_is_no_number_is_left_out(tmp_path, mini_config):
    root = write_folder(tmp_path / "set", mini_config, (64,))
    (root / "metadata.jsonl").unlink()
    (root / "metadata.csv").write_text("file_name,text,bpm\n0.png,x,fast\n")
    assert load_dataset(root)[0][0].clips[0]["bpm"] is None
