"""What notebooks show: colours, players and plots that need no other file."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.display import PALETTE, data_uri, listen, paint, plot
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError


def test_louder_is_lighter_all_the_way() -> None:
    picture = paint(torch.linspace(0, 1, 256).expand(1, 4, 256))
    grey = np.asarray(picture.convert("L"), dtype=int)[0]
    assert (np.diff(grey) >= 0).all() and grey[0] < 15 and grey[-1] > 240
    assert picture.getpixel((0, 0)) == tuple(int(PALETTE[0][at : at + 2], 16) for at in (1, 3, 5))


def test_a_picture_has_the_size_asked_for_and_the_power_scale_is_turned_round() -> None:
    image = torch.zeros(2, 8, 16)
    assert paint(image).size == (16, 8) and paint(image, width=5, height=30).size == (5, 30)
    assert paint(image, dark=False).getpixel((0, 0)) > (200, 200, 200)
    assert data_uri(paint(image)).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize("image", [torch.zeros(4), torch.zeros(1, 0, 4), torch.full((1, 2, 2), torch.nan)])
def test_what_is_no_picture_is_refused(image: torch.Tensor) -> None:
    with pytest.raises(RiffError, match="the image"):
        paint(image)


def test_a_player_holds_its_sound_and_escapes_its_caption() -> None:
    html = listen(0.1 * torch.ones(1, 800), 8000, "<b>", loop=True)._repr_html_()
    assert "data:audio/wav;base64,UklGR" in html and " loop " in html and "&lt;b&gt;" in html
    assert "figcaption" not in listen(torch.zeros(1, 10), 8000).html


SVG = "{http://www.w3.org/2000/svg}"


def test_a_plot_has_a_name_for_each_line() -> None:
    shown = plot({"a": [0, 1, 4], "b & $c$": [2, 2, 2]}, title="<t>", x_label="bars", y_label="dB", marks=[1, 99])
    svg = ElementTree.fromstring(shown.html)
    lines = [one for one in svg.iter() if one.get("id", "").startswith("line-")]
    texts = {one.text for one in svg.iter(f"{SVG}text")}
    assert {"a", "b & $c$", "<t>", "bars", "dB"} <= texts
    assert len([one for one in svg.iter() if one.get("id") == "mark"]) == 1  # the other mark is outside
    width, height = map(float, svg.get("viewBox").split()[2:])
    assert len(lines) == 2 and (width, height) == (720, 240)
    assert (svg.get("width"), svg.get("height"), svg.get("aria-label")) == ("720", "240", "<t>")
    for line in lines:
        points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", line.find(f"{SVG}path").get("d"))
        assert points and all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points)
    assert "currentColor" in shown.html and "#010203" not in shown.html


def test_a_plot_is_the_same_each_time() -> None:
    assert plot({"a": [0, 1]}).html == plot({"a": [0, 1]}).html


def test_a_clip_shows_a_coloured_wide_spectrogram() -> None:
    clip = Clip(torch.zeros(1, 800), 8000, torch.rand(1, 256, 64), SpectrogramConfig(), "<b>", 7, 84.0)
    html = clip._repr_html_()
    image = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/webp;base64,([^\"]+)", html)[1])))
    assert image.size == (1200, 256) and image.mode == "RGB"
    assert "data:audio/wav;base64,UklGR" in html and "seed 7 · 84 bpm · 0.10 s" in html
    assert "&lt;b&gt;" in html and "<b>&lt;" in html


def test_flat_and_single_lines_can_be_drawn() -> None:
    for values in ([3.0], [0.0, 0.0], [1e-9, 2e-9], [-1e12, 1e12]):
        ElementTree.fromstring(plot({"a": values}).html)


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [1.0, float("nan")]}, {"a": [1], "b": [1, 2]}])
def test_what_is_no_line_is_refused(lines) -> None:
    with pytest.raises(RiffError, match="a plot needs"):
        plot(lines)
