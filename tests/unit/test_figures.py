"""Figures: one look, movable without a kernel, readable by everybody."""

import base64
import io
import re
from html.parser import HTMLParser
from itertools import combinations

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

from cl_teach import figures as fig  # noqa: E402
from cl_teach import survey  # noqa: E402
from cl_teach.figures import look, plots  # noqa: E402


@pytest.fixture(autouse=True)
def clean():
    with plt.rc_context():
        yield
    plt.close("all")


def draw(value):
    figure, ax = plt.subplots()
    ax.plot([0, value], [0, 1])
    ax.set(xlim=(0, 3))
    return figure


class Tags(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def moving():
    return fig.frames(draw, [0.5, 1, 2.0], alt='A line to "{value}" & on', label="end <x>", caption="a < b")


# style and colors


def test_style_is_opaque_white_and_large_enough():
    fig.use_style()
    rc = plt.rcParams
    assert rc["figure.facecolor"] == rc["axes.facecolor"] == rc["savefig.facecolor"] == "white"
    sizes = [rc[k] for k in ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "legend.fontsize")]
    assert min(sizes) >= 11 and not rc["axes.spines.top"] and rc["figure.constrained_layout.use"]


def test_color_is_fixed_however_the_name_is_written():
    assert fig.color("NT-Xent") == fig.color("SimCLR") == fig.COLORS["NT-Xent"]
    assert fig.color("Feature transformation") == fig.color("feature-transformation")
    assert fig.color("DCL") == fig.color("dcl") != fig.color("NT-Xent")


def test_unknown_name_is_a_key_error_with_a_suggestion():
    with pytest.raises(KeyError, match="did you mean 'SupCon'"):
        fig.color("SupCn")


def test_all_colors_belong_to_the_palette():
    allowed = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", fig.GRAY}
    assert set(fig.COLORS.values()) <= allowed


def test_methods_of_one_part_differ_from_each_other_and_from_their_baseline():
    """No losses in two parts look the same beside SimCLR and MoCo, no labels beside SupCon, no captions beside CLIP."""
    baselines = {5: ["SupCon"], 7: ["CLIP"]}
    for part in survey.parts():
        names = [method.slug for method in survey.load() if method.part == part.number]
        names += ["NT-Xent", "InfoNCE", "MoCo", *baselines.get(part.number, [])]
        for a, b in combinations(names, 2):
            one, two = fig.style(a), fig.style(b)
            assert (one.color, one.linestyle) != (two.color, two.linestyle), f"{a} and {b} look the same"


def test_text_on_white_has_enough_contrast():
    for hue in set(fig.COLORS.values()):
        ink = look.ink(hue)
        rgb = torch.tensor([int(ink[i : i + 2], 16) for i in (1, 3, 5)]).numpy() / 255
        assert look.contrast_with_white(rgb) >= 4.45
    assert look.ink(fig.BLUE) == fig.BLUE


# frames


def test_one_image_a_value_and_only_the_first_is_visible(moving):
    images = Tags(moving._repr_html_()).all("img")
    assert [image["data-value"] for image in images] == ["0.5", "1", "2"]
    assert ["hidden" in image for image in images] == [False, True, True]
    assert ["display:none" in image["style"] for image in images] == [False, True, True]


def test_every_frame_has_its_own_alt_text(moving):
    alts = [image["alt"] for image in Tags(moving._repr_html_()).all("img")]
    assert alts == [f'A line to "{value}" & on' for value in ("0.5", "1", "2")]


def test_slider_is_labeled_named_by_value_and_large_enough_to_touch(moving):
    page = moving._repr_html_()
    (slider,) = Tags(page).all("input")
    assert slider["type"] == "range" and (slider["min"], slider["max"], slider["value"]) == ("0", "2", "0")
    assert slider["aria-valuetext"] == "0.5"
    assert int(re.search(r"height:(\d+)px", slider["style"]).group(1)) >= 24
    label = re.search(r"<label.*?</label>", page).group(0)
    assert "end &lt;x&gt;" in label and "<input" in label  # a label around its input names it


def test_page_needs_no_network_no_ids_and_no_global_script(moving):
    page = moving._repr_html_()
    tags = Tags(page).tags
    assert not any("id" in attrs or "href" in attrs for _, attrs in tags) and "<script" not in page
    assert all(attrs["src"].startswith("data:image/png;base64,") for tag, attrs in tags if tag == "img")
    assert "\n" not in page  # a blank line would end the HTML block in Markdown


def test_frames_are_small_and_of_the_stated_size(moving):
    for image in Tags(moving._repr_html_()).all("img"):
        data = base64.b64decode(image["src"].split(",")[1])
        assert len(data) < 20_000
        assert Image.open(io.BytesIO(data)).size == (int(image["width"]), int(image["height"]))


def test_same_input_gives_the_same_page_and_leaves_no_open_figure(moving):
    before = plt.get_fignums()
    again = fig.frames(draw, [0.5, 1, 2.0], alt='A line to "{value}" & on', label="end <x>", caption="a < b")
    assert again._repr_html_() == moving._repr_html_()
    assert plt.get_fignums() == before


def test_figures_after_a_movable_one_are_still_shown_in_a_notebook():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    moving = "fig.frames(lambda v: plt.subplots()[0], [1, 2], alt='at {value}')"
    cells = [
        f"import matplotlib.pyplot as plt\nfrom cl_teach import figures as fig\n{moving}",
        "plt.plot([1, 2]);",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, kernel_name="python3", timeout=60).execute()
    assert ["image/png" in cell.outputs[0].data for cell in book.cells] == [False, True]


def test_plain_text_names_the_values(moving):
    assert repr(moving) == "Frames(end <x>: 0.5, 1, 2)"


def test_start_alt_function_text_values_and_axes_work():
    moving = fig.frames(lambda v: draw(len(v)).axes[0], ["a", "bb"], alt=lambda v: f"line {v}", start=1)
    images = Tags(moving._repr_html_()).all("img")
    assert ["hidden" in image for image in images] == [True, False]
    assert [image["alt"] for image in images] == ["line a", "line bb"]
    assert Tags(moving._repr_html_()).all("input")[0]["value"] == "1"


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"values": range(13)}, ValueError, "2 to 12"),
        ({"values": [1]}, ValueError, "2 to 12"),
        ({"alt": "the same"}, ValueError, "different"),
        ({"alt": lambda v: ""}, ValueError, "empty"),
        ({"alt": None}, TypeError, "alt"),
        ({"label": " "}, ValueError, "label"),
        ({"start": 2}, ValueError, "start"),
        ({"draw": 3}, TypeError, "draw"),
        ({"draw": lambda v: None}, TypeError, "return its figure"),
        ({"draw": lambda v: plt.subplots(figsize=(v, 2))[0]}, ValueError, "one size"),
    ],
)
def test_bad_frames_are_refused_with_the_reason(changes, error, word):
    settings = {"draw": draw, "values": [1, 2], "alt": "at {value}"} | changes
    with pytest.raises(error, match=word):
        fig.frames(settings.pop("draw"), settings.pop("values"), **settings)


# still figures


def test_circle_draws_unit_vectors_with_labels_at_their_mean_direction():
    ax = fig.circle(torch.tensor([[3.0, 0.0], [0.0, 0.1]]), torch.tensor([0, 1]), names=["anchor", "positive"])
    points = [tuple(c.get_offsets()[0]) for c in ax.collections]
    assert points == [(1, 0), (0, 1)]
    assert [text.get_text() for text in ax.texts] == ["anchor", "positive"]
    assert ax.texts[0].get_position()[0] > 1 and ax.texts[1].get_position()[1] > 1


def test_circle_keeps_the_labels_of_equal_directions_apart():
    ax = fig.circle(torch.ones(3, 2), torch.arange(3))
    places = {text.get_position() for text in ax.texts}
    assert len(places) == 3


def test_circle_refuses_what_has_no_direction():
    with pytest.raises(ValueError, match="zero vector"):
        fig.circle(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        fig.circle(torch.ones(1, 3))
    with pytest.raises(ValueError, match="labels"):
        fig.circle(torch.ones(2, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="names"):
        fig.circle(torch.ones(2, 2), names=["one"])


def test_similarity_histogram_marks_both_means_and_has_area_one():
    ax = fig.similarity_histogram(torch.tensor([0.5, 0.7]), torch.linspace(-1, 1, 100))
    assert [text.get_text() for text in ax.texts] == ["positive, mean 0.60", "negative, mean 0.00"]
    assert ax.get_xlim() == (-1, 1)
    bars = ax.containers[0]
    assert sum(bar.get_width() * bar.get_height() for bar in bars) == pytest.approx(1)


def test_similarity_histogram_of_a_collapsed_encoder_works():
    fig.similarity_histogram(torch.ones(3) * 1.0000001, torch.ones(3))
    fig.similarity_histogram(torch.full((3,), 7.0), torch.full((3,), 7.0))
    with pytest.raises(ValueError, match="negative"):
        fig.similarity_histogram(torch.ones(3), torch.tensor([float("nan")]))


def test_curves_draw_all_seeds_and_their_mean_in_the_methods_color():
    values = torch.tensor([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    ax = fig.curves({"SupCon": values, "another": values[0]})
    assert len(ax.lines) == 2 + 1 + 1
    assert ax.lines[2].get_ydata().tolist() == [1, 2, 3] and ax.lines[2].get_color() == fig.color("SupCon")
    assert [text.get_text() for text in ax.texts] == ["SupCon", "another"]


def test_curves_refuse_bad_series():
    for series, word in (
        ({}, "series"),
        ({"a": torch.ones(1, 2, 3)}, "seeds, steps"),
        ({"a": [[1, "b"]]}, "numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=word):
            fig.curves(series)
    with pytest.raises(ValueError, match="x: expected 3"):
        fig.curves({"a": torch.ones(3)}, x=[1, 2])
    with pytest.raises(TypeError, match="ax"):
        fig.curves({"a": torch.ones(3)}, ax=3)


def test_intervals_show_every_seed_and_the_t_interval():
    values = torch.tensor([1.0, 2.0, 3.0])
    ax = fig.intervals({"NT-Xent": values, "PCA": torch.tensor([2.0])})
    assert [len(c.get_offsets()) for c in ax.collections] == [3, 1]
    low, high = ax.lines[0].get_xdata()
    assert (high - low) / 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t(0.975, 2 df), deviation 1
    assert len(ax.lines) == 3  # one seed: a mean without an interval
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["NT-Xent", "PCA"]


def test_image_grid_shows_gray_color_and_bytes():
    for images in (torch.rand(3, 1, 4, 4), torch.rand(3, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        figure = fig.image_grid(images, titles=["a", "b", "c"], columns=2)
        assert sum(len(ax.images) for ax in figure.axes) == 3 and len(figure.axes) == 4


def test_image_grid_refuses_bad_images():
    with pytest.raises(ValueError, match="clamp"):
        fig.image_grid(torch.full((1, 1, 2, 2), 1.5))
    with pytest.raises(ValueError, match="images"):
        fig.image_grid(torch.rand(1, 2, 4, 4))
    with pytest.raises(ValueError, match="titles"):
        fig.image_grid(torch.rand(2, 1, 4, 4), titles=["a"])
    with pytest.raises(ValueError, match="columns"):
        fig.image_grid(torch.rand(2, 1, 4, 4), columns=0)


def test_spread_keeps_the_order_and_the_gap_and_leaves_distant_ones_alone():
    assert plots.spread_apart([5.0, 0.0, 0.5], 1.0) == [5.0, -0.25, 0.75]
    spread = sorted(plots.spread_apart([1.0, 1.0, 1.0, 1.2], 0.5))
    assert all(b - a >= 0.5 - 1e-9 for a, b in zip(spread, spread[1:], strict=False))
