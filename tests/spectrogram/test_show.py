"""What notebooks show: colours, players and plots that need no other file."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from riff.spectrogram.display import PALETTE, data_uri, listen, paint
from riff.tasks.gallery import plot
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
    with pytest.raises(RiffError, match="the picture"):
        paint(image)


def test_a_player_holds_its_sound_and_escapes_its_caption() -> None:
    html = listen(0.1 * torch.ones(1, 800), 8000, "<b>", loop=True)._repr_html_()
    assert "data:audio/wav;base64,UklGR" in html and " loop " in html and "&lt;b&gt;" in html
    assert "figcaption" not in listen(torch.zeros(1, 10), 8000).html


def test_a_plot_is_an_image_with_a_name_for_each_line() -> None:
    shown = plot({"a": [0, 1, 4], "b & c": [2, 2, 2]}, title="<t>", x_label="bars", y_label="dB", marks=[1, 99])
    svg = ElementTree.fromstring(shown.html)
    assert len([one for one in svg.iter() if one.tag == "polyline"]) == 2
    texts = {one.text for one in svg.iter("text")}
    assert {"a", "b & c", "<t>", "bars", "dB"} <= texts
    assert shown.html.count("stroke-dasharray") == 1  # the other mark is outside
    points = re.search(r"points='([^']+)'", shown.html)
    assert points and all(0 <= float(number) <= 720 for number in re.split(r"[ ,]", points[1]))


def test_flat_and_single_lines_can_be_drawn() -> None:
    for values in ([3.0], [0.0, 0.0], [1e-9, 2e-9], [-1e12, 1e12]):
        ElementTree.fromstring(plot({"a": values}).html)


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [1.0, float("nan")]}, {"a": [1], "b": [1, 2]}])
def test_what_is_no_line_is_refused(lines) -> None:
    with pytest.raises(RiffError, match="a plot needs"):
        plot(lines)
