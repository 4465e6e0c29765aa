"""Pictures in Markdown, drawn to scale."""

import re
from urllib.parse import unquote
from xml.etree import ElementTree

from ml_platform.pictures import draw_interval, draw_line, in_markdown


def shapes(svg: str) -> dict[str, str]:
    """What is drawn, by kind and colour."""
    found = {}
    for element in ElementTree.fromstring(svg).iter():
        color = element.get("stroke") or element.get("fill")
        place = element.get("d") or element.get("cx") or element.text
        found[f"{element.tag.partition('}')[2]} {color}"] = place or ""
    return found


def test_an_interval_spans_its_bounds_with_the_limit_across() -> None:
    found = shapes(draw_interval(-0.01, 0.02, 0.04, 0.0))
    assert found["path royalblue"] == "M12 20H428"
    assert found["circle royalblue"] == "262"
    assert found["path red"] == "M95 0v40"


def test_a_limit_outside_of_the_interval_is_drawn_too() -> None:
    found = shapes(draw_interval(0.1, 0.2, 0.3, 0.9))
    assert found["path red"] == "M428 0v40"
    assert found["path royalblue"] == "M12 20H116"


def test_a_value_outside_of_its_interval_is_drawn_too() -> None:
    found = shapes(draw_interval(0.1, 0.0, 0.3, 0.1))
    assert found["circle royalblue"] == "12"
    assert shapes(draw_interval(0.1, 0.4, 0.3, 0.1))["circle royalblue"] == "428"


def test_a_line_with_two_limits_lies_between_them() -> None:
    found = shapes(draw_line([0.5, 0.75], [0.0, 1.0]))
    assert found["path royalblue"] == "M0 57l440-23"
    assert found["path red"] == "M0 102h440M0 12h440"


def test_markdown_holds_the_picture_whole() -> None:
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><text fill='#333'>50%</text></svg>"
    address = re.fullmatch(
        r"!\[share\]\(<data:image/svg\+xml,([^<>#]*)>\)", in_markdown(svg, "share")
    )
    assert address
    assert unquote(address[1]) == svg
