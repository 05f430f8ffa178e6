"""The playgrounds: their mathematics in JavaScript against `cl_teach`, through Node where it is at hand, and Python."""

import json
import math
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest
import torch

from cl_teach import figures
from cl_teach.alignment.likelihood_displacement import token_velocity
from cl_teach.alignment.preference_ft import policy_gradient
from cl_teach.core.assignment import sinkhorn
from cl_teach.core.contrast import info_nce, nt_xent, softmax_contrast, sup_con, weighted_contrast
from cl_teach.core.preference import preference_loss
from cl_teach.core.similarity import cosine_similarity, other_view_mask, self_mask
from cl_teach.evaluation import alignment, uniformity
from cl_teach.figures import play_html
from cl_teach.figures.play_html import PLAYGROUNDS, scripts
from cl_teach.figures.play_states import pair_loss
from cl_teach.losses.dcl import dcl
from cl_teach.losses.groco import soft_sort
from cl_teach.theory.linear_byol import decoupled_flow, decoupled_trajectory, fixed_points, linear_flow
from cl_teach.theory.linear_model import one_layer_weight, two_layer_time, two_layer_weight

FOLDER = files("cl_teach.figures") / "play"
NODE = shutil.which("node")
F64 = torch.float64
needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js; the browser tests compare the same functions")


def run(name, calls):
    """Results of ``clPlay.math[name][function](*arguments)`` for each of the calls; one Node for all of them."""
    paths = [str(FOLDER / f"{file}.js") for file in ("engine", name)]
    program = f"{json.dumps(paths)}.forEach(p => require(p)); " + (
        f"const m = clPlay.math[{json.dumps(name)}], calls = JSON.parse(require('fs').readFileSync(0));"
        "const plain = (r) => (r instanceof Float64Array ? [...r] : r);"
        "console.log(JSON.stringify(calls.map(([f, ...a]) => plain(m[f](...a)))));"
    )
    done = subprocess.run([NODE, "-e", program], input=json.dumps(calls), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def tensor(values):
    return torch.as_tensor(values, dtype=F64)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(tensor(found), torch.as_tensor(expected, dtype=F64), rtol=tolerance, atol=tolerance)


def draws(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@needs_node
@pytest.mark.parametrize("n", [4, 12, 24])
def test_circle(n):
    angles = 2 * math.pi * draws(n, seed=n)
    cases = [(loss, t) for loss in ("InfoNCE", "DCL", "without negatives") for t in (0.03, 0.5, 3.0)]
    calls = [["terms", angles.tolist(), t, loss] for loss, t in cases]
    calls += [["step", angles.tolist(), t, loss, 0.01] for loss, t in cases]
    calls += [["collapsed", n, t, loss] for loss, t in cases]
    calls += [["alignment", angles.tolist()], ["uniformity", angles.tolist()]]
    found = run("circle", calls)
    points = torch.stack([angles.cos(), angles.sin()], 1)
    first, second = points.chunk(2)
    for (loss, t), terms, stepped, collapsed in zip(cases, found[:9], found[9:18], found[18:27], strict=True):
        turning = angles.clone().requires_grad_()
        value = pair_loss(turning, t, loss)
        (gradient,) = torch.autograd.grad(value, turning)
        close(terms["loss"], value.detach())
        close(terms["force"], -gradient)
        close(stepped, angles - 0.01 * n * gradient)
        close(collapsed, pair_loss(torch.zeros(n, dtype=F64), t, loss))
        if loss == "InfoNCE":
            close(terms["loss"], nt_xent(first, second, t))
            shares = (points @ points.T / t).masked_fill(torch.eye(n, dtype=torch.bool), -math.inf).softmax(1)
            close(terms["shares"], shares)
        if loss == "DCL":
            close(terms["loss"], dcl(first, second, t))
    close(found[-2], alignment(first, second))
    close(found[-1], uniformity(points))


@needs_node
def test_game():
    pictures = draws(20, 6, 64)
    tables = torch.stack([cosine_similarity(x, x) for x in pictures])
    upper = tables.masked_fill(~torch.ones(6, 6, dtype=torch.bool).triu(1), -math.inf).flatten(1).argmax(1)
    expected = torch.stack([upper // 6, upper % 6], 1).tolist()
    assert (
        run("game", [["choose", [row[i + 1 :] for i, row in enumerate(table)]] for table in tables.tolist()])
        == expected
    )
    assert run("game", [["same", [3, 1], [1, 3]], ["same", [3, 1], [1, 2]], ["guess", 6]]) == [True, False, 1 / 15]


@needs_node
def test_masks():
    z = draws(8, 5) - 0.5
    s, labels, t = cosine_similarity(z, z), torch.tensor([0, 0, 1, 2] * 2), 0.3
    positives, candidates = draws(8, 8, seed=1) > 0.7, draws(8, 8, seed=2) > 0.4
    candidates |= positives
    some = positives.any(1)
    cells = (candidates.int() + positives.int()).tolist()
    calls = [["rows", s.tolist(), cells, t, variant, off] for variant in ("out", "in") for off in (False, True)]
    for rows, (variant, off) in zip(
        run("masks", calls), [(v, o) for v in ("out", "in") for o in (False, True)], strict=True
    ):
        inside = candidates & ~positives if off else candidates
        asks = some & inside.any(1)
        assert [row["loss"] is not None for row in rows] == asks.tolist()
        logits = s[asks] / t
        if off:
            expected = weighted_contrast(logits, positives[asks], inside[asks], variant=variant, reduction="none")
        else:
            expected = softmax_contrast(logits, positives[asks], inside[asks], variant=variant, reduction="none")
        close([row["loss"] for row in rows if row["loss"] is not None], expected)
        shares = (s / t).masked_fill(~inside, -math.inf).softmax(1).nan_to_num()
        close([row["shares"] for row in rows], shares)

    names = ["InfoNCE", "NT-Xent", "SupCon", "CLIP"]
    presets = run("masks", [["preset", name, labels.tolist()] for name in names])
    known = {
        "InfoNCE": info_nce(z[:4], z[4:], temperature=t),
        "NT-Xent": nt_xent(z[:4], z[4:], t),
        "SupCon": sup_con(z, labels, t),
        "CLIP": (info_nce(z[:4], z[4:], temperature=t) + info_nce(z[4:], z[:4], temperature=t)) / 2,
    }
    for name, cells, rows in zip(
        names, presets, run("masks", [["rows", s.tolist(), cells, t, "out", False] for cells in presets]), strict=True
    ):
        values = [row["loss"] for row in rows if row["loss"] is not None]
        close(sum(values) / len(values), known[name])
        found = run("masks", [["name", cells, labels.tolist(), off] for off in (False, True)])
        assert found == [name, "DCL" if name == "NT-Xent" else f"{name}, decoupled"]
    (rows,) = run("masks", [["rows", s.tolist(), presets[1], t, "out", True]])
    close(sum(row["loss"] for row in rows) / 8, dcl(z[:4], z[4:], t))
    mistake = [[cell or int(i == j) for j, cell in enumerate(row)] for i, row in enumerate(presets[1])]
    nothing = [[0] * 8 for _ in range(8)]
    wrong, none = run("masks", [["name", cells, labels.tolist(), False] for cells in (mistake, nothing)])
    assert wrong.startswith("NT-Xent with a mistake")
    assert none == "no loss: nobody asks"
    assert (tensor(presets[1]) == 2).equal(other_view_mask(4))
    assert (tensor(presets[1]) > 0).equal(~self_mask(8))


@needs_node
def test_phase_plane():
    settings = [(0.05, 1.0, 0.2), (0.15, 8.0, 0.0), (0.3, 0.25, 1.5), (0.0, 1.0, 0.2)]
    given = [{"decay": d, "rate": r, "noise": n, "ema": None} for d, r, n in settings]
    starts = [(0.0, 0.05), (0.7, 0.3), (-0.1, 0.9), (1.2, 0.02)]
    paths = run(
        "phase",
        [["path", p, s, g, {"dt": 0.002, "steps": 10000, "every": 1000}] for g in given for p, s in starts],
    )
    plane = run("phase", [["plane", p, s, g] for g in given for p, s in starts])
    fixed = run("phase", [["fixedPoints", g] for g in given])
    p0, s0 = tensor([p for p, _ in starts]), tensor([s for _, s in starts])
    for k, (decay, rate, noise) in enumerate(settings):
        options = {"weight_decay": decay, "predictor_rate": rate, "noise": noise}
        mine = slice(4 * k, 4 * k + 4)
        close(plane[mine], torch.stack(decoupled_flow(p0, s0, **options), 1))
        p, s = decoupled_trajectory(p0, s0, torch.linspace(0, 20, 11, dtype=F64), **options)
        close(paths[mine], torch.stack([p, s], 2))
        rest = fixed_points(weight_decay=decay, noise=noise)
        assert (fixed[k] is None) == (rest.stable is None)
        if rest.stable is not None:
            close([fixed[k]["stable"], fixed[k]["unstable"]], [rest.stable, rest.unstable])


@needs_node
def test_phase_plane_with_a_slow_target():
    state = draws(6, 3)
    options = {"decay": 0.1, "rate": 2.0, "noise": 0.3, "ema": 0.7}
    found = run("phase", [["flow", *row.tolist(), options] for row in state])
    for (p, w, a), slopes in zip(state, found, strict=True):
        one = torch.ones(1, 1, dtype=F64)
        flow = linear_flow(
            w * one, p * one, a * one, one, 0.3 * one, predictor_rate=2.0, target_rate=0.7, weight_decay=0.1
        )
        close(slopes, [flow.predictor.item(), flow.online.item(), flow.target.item()])


@needs_node
def test_the_map_of_collapse_is_where_trajectories_end():
    settings = [
        (decay, rate, noise) for decay in (0.02, 0.1, 0.18) for rate in (0.25, 1.0, 8.0) for noise in (0.0, 0.3)
    ]
    starts = [(p, s) for p in (-0.07, 0.16, 0.55, 1.1) for s in (0.01, 0.09, 0.6)]
    given = [{"decay": d, "rate": r, "noise": n, "ema": None} for d, r, n in settings]
    found = run("phase", [["lives", p, s, g] for g in given for p, s in starts])
    p0, s0 = tensor([p for p, _ in starts]), tensor([s for _, s in starts])
    ends = []
    for decay, rate, noise in settings:
        options = {"weight_decay": decay, "predictor_rate": rate, "noise": noise}
        p, _ = decoupled_trajectory(p0, s0, tensor([1500.0]), **options)
        lowest = fixed_points(weight_decay=decay, noise=noise).unstable
        ends += [] if lowest is None else (p[:, 0] > lowest).tolist()
        if lowest is None:
            ends += [False] * len(starts)
    assert found == ends
    assert 0 < sum(found) < len(found)


@needs_node
def test_modes():
    phi, alpha, noise = tensor([1.5, 1.1, 0.6, 0.3]), tensor([0.1, 0.7, 0.0, 1.0]), 0.25
    c, m, start = (1 - alpha) * phi.square(), phi.square() + noise, 0.02
    times = torch.linspace(0, 26, 14, dtype=F64)
    pairs = list(zip(c.tolist(), m.tolist(), strict=True))
    for function, expected in (
        ("one", one_layer_weight(times, c, m, start**2).sqrt()),
        ("two", two_layer_weight(times, c, m, start)),
    ):
        found = run("modes", [[function, t, ci, mi, start] for ci, mi in pairs for t in times.tolist()])
        close(tensor(found).view(4, -1).tolist(), expected)
    moments = run("modes", [["signal", p, a] for p, a in zip(phi.tolist(), alpha.tolist(), strict=True)])
    close(moments, c)
    close(run("modes", [["variance", p, noise] for p in phi.tolist()]), m)
    close(run("modes", [["rest", ci, mi] for ci, mi in pairs]), c.sqrt() / m)
    halves = run("modes", [["half", ci, mi, start, layers] for layers in (1, 2) for ci, mi in pairs])
    assert halves[3] is None and halves[7] is None  # nothing is left of that feature
    end = c[:3].sqrt() / m[:3]
    close(halves[4:7], two_layer_time(end / 2, c[:3], m[:3], start))
    for half, ci, mi, target in zip(halves[:3], c, m, end / 2, strict=False):
        close(target, one_layer_weight(tensor([half]), ci[None], mi[None], start**2).sqrt()[0, 0])


@needs_node
def test_balance():
    scores = 2 * draws(8, 4) - 1
    for epsilon, iterations in ((0.02, 1), (0.1, 3), (1.0, 10)):
        codes, start = run(
            "balance", [["sinkhorn", scores.tolist(), epsilon, iterations], ["begin", scores.tolist(), epsilon]]
        )
        close(codes, sinkhorn(scores, epsilon, iterations))
        close(tensor(start).exp().sum().item(), 8.0)
        log = sinkhorn(scores, epsilon, iterations).log()
        (price,) = run("balance", [["prices", scores.tolist(), epsilon, log.tolist()]])
        close(codes, ((scores - tensor(price)) / epsilon).softmax(1), 1e-8)
        assert min(price) == 0


@needs_node
def test_sorting():
    for n in (2, 5, 6):
        values = draws(n, seed=n)
        for steepness in (0.1, 1.0, 1000.0):
            (found,) = run("sorting", [["sort", values.tolist(), steepness]])
            ordered, spread = soft_sort(values, steepness)
            close(found["values"], ordered)
            close(found["P"], spread)
            assert len(found["layers"]) == n + 1


@needs_node
@pytest.mark.parametrize("kind", ["DPO", "IPO", "likelihood", "on-policy"])
def test_preferences(kind):
    W, h = 4 * draws(5, 2) - 2, draws(2, seed=1) - 0.5
    samples = [0, 1, 1, 3, 4, 0, 2, 2]
    settings = {"chosen": 1, "rejected": 3, "beta": 0.3, "reference": 0.2, "samples": samples}
    model = {"W": W.tolist(), "h": h.tolist()}
    weights, state = W.clone().requires_grad_(), h.clone().requires_grad_()
    log_p = (weights @ state).log_softmax(0)
    if kind == "likelihood":
        loss = -log_p[1]
    elif kind == "on-policy":
        rewards = tensor([[float(a == 1) for a in samples]])
        loss = policy_gradient(log_p[samples][None], log_p[samples][None].detach(), rewards)
    else:
        loss = preference_loss(log_p[1] - log_p[3], 0.2, 0.3, kind=kind.lower())
    d_weights, d_state = torch.autograd.grad(loss, [weights, state])
    (found,) = run("preferences", [["loss", model, kind, settings]])
    close(found["loss"], loss.detach())
    stepped, velocity, probabilities = run(
        "preferences",
        [["step", model, found["slope"], 0.05], ["velocity", model, found["slope"]], ["probabilities", model]],
    )
    close(stepped["W"], W - 0.05 * d_weights)
    close(stepped["h"], h - 0.05 * d_state)
    close(probabilities, log_p.exp().detach())
    if kind == "DPO":
        close(velocity, token_velocity(W, h, 1, 3, 0.3, 0.2).velocity)
    ahead, behind = ((W - e * d_weights) @ (h - e * d_state) for e in (1e-6, -1e-6))
    close(velocity, (ahead.log_softmax(0) - behind.log_softmax(0)) / 2e-6, 1e-6)


# --- the Python side --------------------------------------------------------------------------------------------------


def first_states():
    """One small example of each."""
    pictures, square = draws(3, 4, 8, 8), cosine_similarity(draws(4, 5), draws(4, 5))
    eye = other_view_mask(2)
    return {
        "circle": {"angles": draws(6), "pictures": draws(6, 5, 5)},
        "game": {"pictures": pictures, "pairs": torch.tensor([[0, 1]] * 3), "players": {"pixels": draws(3, 4, 4)}},
        "masks": {"similarities": square, "labels": torch.tensor([0, 1, 0, 1]), "positives": eye},
        "phase": {},
        "modes": {"strength": draws(3), "augmentation": draws(3)},
        "balance": {"scores": draws(4, 2)},
        "sorting": {"values": draws(4)},
        "preferences": {"names": ["a", "b", "c"], "vectors": draws(3, 2), "state": draws(2)},
    }


@pytest.fixture(scope="module")
def pages():
    return {name: figures.play(name, **state) for name, state in first_states().items()}


def test_every_playground_has_an_example(pages):
    assert set(pages) == set(PLAYGROUNDS) == set(figures.PLAYGROUNDS)


def test_html_is_whole_deterministic_and_small(pages):
    again = {name: figures.play(name, **state) for name, state in first_states().items()}
    for name, page in pages.items():
        html = page._repr_html_()
        assert html == again[name]._repr_html_()
        assert len(html.encode()) < 60_000
        assert " id=" not in html.split("<script>")[0]
        assert not re.search(r'(src|href)="(?!data:)', html)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
        assert html.count("<script") == html.count("</script>") == 1
        assert len(page.alt.split()) > 8
        assert page.alt in repr(page)


def test_state_survives_the_attribute():
    page = figures.play(
        "preferences", names=["it's", 'a "b" & <c>', "d"], vectors=draws(3, 2), state=draws(2), caption="a < b"
    )
    attribute = re.search(r"data-state='([^']*)'", page._repr_html_()).group(1)
    for entity, mark in (("&lt;", "<"), ("&#39;", "'"), ("&amp;", "&")):
        attribute = attribute.replace(entity, mark)
    assert json.loads(attribute) == page.state
    assert "<figcaption" in page._repr_html_() and "a &lt; b" in page._repr_html_()


def test_scripts_lose_comments_and_nothing_else():
    for name in PLAYGROUNDS:
        code = scripts(name)
        assert not any(line.lstrip().startswith("//") for line in code.splitlines())
        assert "http://www.w3.org/2000/svg" in code
        if NODE:
            subprocess.run([NODE, "--check", "-"], input=code, text=True, check=True)


def test_scripts_work_as_they_are_written(monkeypatch):
    monkeypatch.setattr(play_html, "jsmin", str)  # where rjsmin is not installed
    for name in PLAYGROUNDS:
        code = scripts(name)
        assert "// " in code
        if NODE:
            subprocess.run([NODE, "--check", "-"], input=code, text=True, check=True)


def test_no_page_gains_sixty_kilobytes():
    for path in sorted((Path(__file__).parents[2] / "chapters").glob("*/*.ipynb")):
        outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", ())]
        pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
        assert sum(len(html.encode()) for html in pages if 'class="cl-play"' in html) < 60_000, path.name


def test_no_template_stands_inside_a_template():
    """The program that takes out spaces would take those of the inner one's text, too."""
    for path in sorted(FOLDER.glob("*.js")):
        nested = re.findall(r"`[^`]*\$\{[^}`]*`", path.read_text(encoding="utf-8"))
        assert nested == [], path.name


def test_scripts_are_short_files():
    for path in FOLDER.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 260, path.name
        assert max(map(len, lines)) <= 260, path.name


def test_texts_state_the_first_values(pages):
    value = pair_loss(draws(6), 0.5, "InfoNCE").item()
    assert f"{value:.2f}" in pages["circle"].alt
    assert f"{fixed_points(weight_decay=0.05, noise=0.2).unstable:.2f}" in pages["phase"].alt


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("square", {}, "name"),
        ("circle", {"angles": draws(5)}, "angles"),
        ("circle", {"angles": draws(6), "loss": "SupCon"}, "loss"),
        ("circle", {"angles": draws(6), "names": ["a"]}, "names"),
        ("circle", {"angles": draws(6), "pictures": draws(5, 4, 4)}, "pictures"),
        ("game", {"pictures": draws(3, 4, 8, 8), "pairs": torch.tensor([[0, 0]] * 3), "players": {}}, "pairs"),
        (
            "masks",
            {"similarities": draws(3, 3), "labels": torch.zeros(3).long(), "positives": torch.eye(3).bool()},
            "similar",
        ),
        ("phase", {"weight_decay": 0.5}, "weight_decay"),
        ("phase", {"start": (0.0, 2.0)}, "start"),
        ("modes", {"strength": 3 * torch.ones(2), "augmentation": draws(2)}, "strength"),
        ("balance", {"scores": 2 * torch.ones(2, 2)}, "scores"),
        ("sorting", {"values": draws(9)}, "values"),
        ("preferences", {"names": ["a", "b"], "vectors": draws(2, 2), "state": draws(2), "rejected": 0}, "rejected"),
    ],
)
def test_wrong_states_are_refused_by_name(name, state, message):
    with pytest.raises((ValueError, TypeError), match=message):
        figures.play(name, **state)
