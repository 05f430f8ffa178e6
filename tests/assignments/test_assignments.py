"""The graders tell a right solution from an empty one and from typical mistakes, and say what is wrong."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import nbformat
import pytest

otter_api = pytest.importorskip("otter.api", reason="install it with `make test`")
make_assignments = pytest.importorskip("make_assignments")

ROOT = Path(__file__).resolve().parents[2]

# Of each assignment three mistakes that students make: the body of one function, the points that are left, and what the
# feedback has to say.
MISTAKES = {
    "foundations": {
        "zero row": (
            "cosine_table",
            "return (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T",
            9,
            "Dividing 0 by 0",
        ),
        "overflow": (
            "nt_xent_rows",
            "n = len(z1)\n    z = torch.cat([z1, z2])\n"
            "    e = (cosine_table(z, z) / temperature).exp() * (1 - torch.eye(2 * n))\n"
            "    i = torch.arange(2 * n)\n    return -(e[i, i.roll(n)] / e.sum(1)).log()",
            9,
            "exp(200) is infinite",
        ),
        "pair with itself": (
            "alignment_and_uniformity",
            "d = torch.cdist(z1, z1).square()\n"
            "    return (z1 - z2).square().sum(1).mean().item(), (-2 * d).exp().mean().log().item()",
            8,
            "not a pair with itself",
        ),
    },
    "theory": {
        "overflow": (
            "shares",
            "e = (s / temperature).exp()\n    return e / e.sum(1, keepdim=True)",
            9,
            "exponentials overflow",
        ),
        "own graph": (
            "update_teacher",
            "for k in range(len(teacher)):\n        teacher[k] = momentum * teacher[k] + (1 - momentum) * student[k]",
            8,
            "must not become a part of its graph",
        ),
        "variance": (
            "first_feature",
            "w = torch.linalg.eigh(x1.T @ x1).eigenvectors[:, -1]\n    return w * w[w.abs().argmax()].sign()",
            7,
            "if the views do not agree on it",
        ),
    },
    "losses": {
        "overflow": (
            "decoupled",
            "n = (s / temperature).exp().sum()\n    e = torch.tensor(p / temperature).exp()\n"
            "    return (n.log() - p / temperature).item(), (n / (e + n)).item()",
            9,
            "difference of logarithms",
        ),
        "gradient into the queue": (
            "mixed_negative",
            "h = alpha * queue[i] + (1 - alpha) * queue[j]\n    return h / h.norm()",
            9,
            "The queue is a memory",
        ),
        "rows first": (
            "even_codes",
            "b, k = scores.shape\n    q = scores / epsilon\n"
            "    for _ in range(iterations):\n        q = q - q.logsumexp(1, keepdim=True)\n"
            "        q = q - q.logsumexp(0, keepdim=True) - math.log(k / b)\n    return q.exp()",
            8,
            "Columns first, rows last",
        ),
    },
}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assignments")
    for name in make_assignments.names():
        make_assignments.make(name, folder / "student", folder / "build")
    return folder


def grade(made, name, notebook, tmp_path):
    """Points, and everything that the student is told."""
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(notebook, path)
    noise = io.StringIO()
    with redirect_stdout(noise), redirect_stderr(noise):
        results = otter_api.grade_submission(str(path), str(made / "build" / f"{name}-autograder.zip"), quiet=True)
    texts = [results.summary()]
    return results.total, results.possible, "\n".join(texts)


def with_body(notebook, function, body):
    """The solution with one function replaced by a mistake."""
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and f"def {function}(" in cell.source:
            head = cell.source.split("\n")[:2]
            cell["source"] = "\n".join(head) + f"\n    {body}\n"
            changed += 1
    assert changed == 1
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("name", make_assignments.names())
def test_the_reference_solution_gets_everything_and_the_empty_notebook_nothing(made, name, tmp_path):
    solution = nbformat.read(made / "build" / f"{name}-solution.ipynb", as_version=4)
    points, possible, _ = grade(made, name, solution, tmp_path)
    assert (points, possible) == (10, 10)
    empty = nbformat.read(made / "student" / name / f"{name}.ipynb", as_version=4)
    assert grade(made, name, empty, tmp_path)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mistake"), [(name, m) for name in MISTAKES for m in MISTAKES[name]])
def test_a_typical_mistake_costs_its_points_and_gets_its_feedback(made, name, mistake, tmp_path):
    function, body, left, feedback = MISTAKES[name][mistake]
    solution = nbformat.read(made / "build" / f"{name}-solution.ipynb", as_version=4)
    points, _, text = grade(made, name, with_body(solution, function, body), tmp_path)
    assert points == left
    assert feedback in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", make_assignments.names())
def test_student_version_in_the_repository_is_that_of_the_master_and_shows_no_solution(made, name):
    kept, fresh = make_assignments.STUDENT / name, made / "student" / name
    files = sorted(path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file())
    for file in files:
        assert (kept / file).read_text() == (fresh / file).read_text(), f"call `make assignments`: {file} is old"
        text = (kept / file).read_text()
        assert "SOLUTION" not in text
        assert "hidden=True" not in text
