"""The graders tell a right solution from an empty one and from typical mistakes, and say what is wrong."""

import io
import re
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import nbformat
import pytest

otter_api = pytest.importorskip("otter.api", reason="install it with `make test`")
make_assignments = pytest.importorskip("make_assignments")

ROOT = Path(__file__).resolve().parents[2]

# Mistakes that students make: question, the body of one function, the points that it costs, and what the feedback has
# to say. At most one for each question, so that all of an assignment are graded at once.
MISTAKES = {
    "foundations": {
        "zero row": (
            "q1",
            "cosine_table",
            "return (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T",
            1,
            "Dividing 0 by 0",
        ),
        "overflow": (
            "q2",
            "nt_xent_rows",
            "n = len(z1)\n    z = torch.cat([z1, z2])\n"
            "    e = (cosine_table(z, z) / temperature).exp() * (1 - torch.eye(2 * n))\n"
            "    i = torch.arange(2 * n)\n    return -(e[i, i.roll(n)] / e.sum(1)).log()",
            1,
            "exp(200) is infinite",
        ),
        "pair with itself": (
            "q3",
            "alignment_and_uniformity",
            "d = torch.cdist(z1, z1).square()\n"
            "    return (z1 - z2).square().sum(1).mean().item(), (-2 * d).exp().mean().log().item()",
            2,
            "not a pair with itself",
        ),
    },
    "theory": {
        "overflow": (
            "q1",
            "shares",
            "e = (s / temperature).exp()\n    return e / e.sum(1, keepdim=True)",
            1,
            "exponentials overflow",
        ),
        "own graph": (
            "q2",
            "update_teacher",
            "for k in range(len(teacher)):\n        teacher[k] = momentum * teacher[k] + (1 - momentum) * student[k]",
            2,
            "must not become a part of its graph",
        ),
        "variance": (
            "q3",
            "first_feature",
            "w = torch.linalg.eigh(x1.T @ x1).eigenvectors[:, -1]\n    return w * w[w.abs().argmax()].sign()",
            3,
            "if the views do not agree on it",
        ),
    },
    "losses": {
        "overflow": (
            "q1",
            "decoupled",
            "n = (s / temperature).exp().sum()\n    e = torch.tensor(p / temperature).exp()\n"
            "    return (n.log() - p / temperature).item(), (n / (e + n)).item()",
            1,
            "difference of logarithms",
        ),
        "gradient into the queue": (
            "q2",
            "mixed_negative",
            "h = alpha * queue[i] + (1 - alpha) * queue[j]\n    return h / h.norm()",
            1,
            "The queue is a memory",
        ),
        "rows first": (
            "q3",
            "even_codes",
            "b, k = scores.shape\n    q = scores / epsilon\n"
            "    for _ in range(iterations):\n        q = q - q.logsumexp(1, keepdim=True)\n"
            "        q = q - q.logsumexp(0, keepdim=True) - math.log(k / b)\n    return q.exp()",
            2,
            "Columns first, rows last",
        ),
    },
    "views_and_labels": {
        "numbered groups": (
            "q1",
            "candidates",
            "b = torch.zeros(clusters.shape[1], dtype=torch.long)\n"
            "    for a in clusters:\n        b = 10 * b + a\n"
            "    b = b.repeat(2)\n    return (b[:, None] == b[None]) & ~torch.eye(len(b), dtype=torch.bool)",
            0.5,
            "an int64 holds 18",
        ),
        "mean of means": (
            "q2",
            "partner_loss",
            "positives = partners[:, None] == labels[None]\n"
            "    negatives = ~positives & (labels[:, None] != labels[None])\n"
            "    others = logits.masked_fill(~negatives, -math.inf).logsumexp(1, keepdim=True)\n"
            "    terms = (torch.logaddexp(logits, others) - logits).masked_fill(~positives, 0)\n"
            "    return (terms.sum(1) / positives.sum(1).clamp_min(1)).mean()",
            0.5,
            "not first over those of an anchor",
        ),
        "empty class": (
            "q3",
            "class_temperatures",
            "parts = [z[labels == c] for c in range(count)]\n"
            "    phi = torch.stack([(p - p.mean(0)).norm(dim=1).mean() / math.log(len(p) + 10) for p in parts])\n"
            "    return temperature * (phi / phi.mean()).exp()",
            0.5,
            "The mean of an empty class is NaN",
        ),
        "overflow": (
            "q4",
            "ordered_loss",
            "z = torch.nn.functional.normalize(z, dim=1)\n    e = (z @ z.T / temperature).exp()\n"
            "    other, d = 1 - torch.eye(len(z)), (y[:, None] - y[None]).abs()\n"
            "    positives = (d == 0) * other\n    rows = positives.sum(1) > 0\n"
            "    if not rows.any():\n        return torch.tensor(0.0)\n"
            "    log = (e / ((1 + d) * e * other).sum(1, keepdim=True)).log()\n"
            "    return -((log * positives).sum(1)[rows] / positives.sum(1)[rows]).mean()",
            0.5,
            "Put the weight into the exponent",
        ),
        "zeroed": (
            "q5",
            "redrawn_views",
            "one, two = points.clone(), points.clone()\n    one[:, :20] = two[:, :20] = 0\n    return one, two",
            0.5,
            "Setting a block to zero teaches nothing about it",
        ),
    },
    "language_and_crossmodal": {
        "joined words": (
            "q1",
            "diversity",
            "product = 1.0\n    words = [str(w) for w in words]\n    for n in (2, 3, 4):\n"
            "        grams = [' '.join(words[i:i + n]) for i in range(len(words) - n + 1)]\n"
            "        product *= len(set(grams)) / len(grams) if grams else 1.0\n    return product",
            0.5,
            "Compare tuples, not joined strings",
        ),
        "lucky ties": (
            "q2",
            "search_mrr",
            "unit = torch.nn.functional.normalize\n    scores = unit(questions, dim=1) @ unit(codes, dim=1).T\n"
            "    return (1 / (1 + (scores > scores.diagonal()[:, None]).sum(1))).mean().item()",
            0.5,
            "counting only higher scores makes it first",
        ),
        "language by picture": (
            "q3",
            "one_to_k_loss",
            "unit, (n, k, d) = torch.nn.functional.normalize, names.shape\n"
            "    t = unit(names.transpose(0, 1).reshape(n, k, d), dim=2)\n"
            "    logits = torch.einsum('id,jkd->ijk', unit(pictures, dim=1), t) / temperature\n"
            "    own = logits[range(n), range(n)]\n    names_out = logits.flatten(1).logsumexp(1)[:, None]\n"
            "    return ((names_out - own).mean() + (logits.logsumexp(0) - own).mean()) / 2",
            1,
            "flattened in the other order",
        ),
        "flat on average": (
            "q4",
            "flat_control",
            "n, own = len(target), target.diagonal().mean()\n"
            "    flat = torch.full((n, n), float((1 - own) / max(n - 1, 1)))\n    flat[range(n), range(n)] = own\n"
            "    return flat, (target - flat).abs().sum(1) / 2",
            1.5,
            "A control changes one thing only",
        ),
        "queries shifted": (
            "q5",
            "can_change",
            "keys = ['texts shifted', 'pictures shifted', 'texts doubled', 'warmer', 'texts shifted and scaled']\n"
            "    return {**dict.fromkeys(keys, False), 'texts shifted and scaled': True, 'threshold': True}",
            0.5,
            "Is a shift of the query the same for all candidates?",
        ),
    },
    "graphs_and_signals": {
        "mean of the pushed": (
            "q1",
            "meow_contrast",
            "gamma = (clusters[:, :, None] != clusters[:, None, :]).sum(0)\n    logits = scores / temperature\n"
            "    loss = (logits + gamma.log()).logsumexp(1) - logits.diagonal()\n    return loss[gamma.any(1)].mean()",
            0.5,
            "the mean still counts all N",
        ),
        "users without items": (
            "q2",
            "recall",
            "order = scores.masked_fill(bought, -math.inf).argsort(dim=1, descending=True, stable=True)[:, :k]\n"
            "    return (held_out.gather(1, order).sum(1) / held_out.sum(1).clamp_min(1)).mean().item()",
            0.5,
            "Counted as 0 it drags the mean down",
        ),
        "not paired": (
            "q3",
            "verdict_of",
            "a, b = torch.tensor(baseline), torch.tensor(method)\n    d = (b.mean() - a.mean()).item()\n"
            "    half = t * ((a.var() + b.var()) / len(a)).sqrt().item()\n    low, high = d - half, d + half\n"
            "    if low <= 0 <= high:\n"
            "        return 'no difference' if max(-low, high) <= smallest_effect else 'undecided'\n"
            "    return 'holds' if (low > 0) == (expected == 'higher') else 'opposite'",
            1.5,
            "Subtract seed by seed",
        ),
        "always the first": (
            "q4",
            "partners",
            "same = person[:, None] == person[None]\n    other = same & (trial[:, None] != trial[None])\n"
            "    itself = torch.eye(len(person), dtype=torch.bool)\n"
            "    allowed = torch.where(other.any(1, keepdim=True), other, same & ~itself)\n"
            "    return torch.where(allowed.any(1, keepdim=True), allowed, itself).int().argmax(1)",
            0.5,
            "come equally often",
        ),
        "float32": (
            "q5",
            "bonus",
            "sigma = ridge * torch.eye(asked.shape[1]) + visited.T @ visited\n"
            "    squared = torch.einsum('md,de,me->m', asked, torch.linalg.pinv(sigma), asked).clamp_min(0)\n"
            "    return (gamma * squared.sqrt()).clamp_max(cap)",
            0.5,
            "the ridge is lost",
        ),
    },
    "alignment": {
        "log of a sigmoid": (
            "q1",
            "dpo",
            "margin = beta * (chosen - rejected - chosen_ref + rejected_ref)\n"
            "    return -torch.sigmoid(margin).log(), beta * torch.sigmoid(-margin)",
            0.5,
            "so take logsigmoid",
        ),
        "two cases": (
            "q2",
            "who_moves",
            "signs = torch.full((len(pi),), 1.0 if pi[rejected] > pi[chosen] else -1.0)\n"
            "    signs[chosen], signs[rejected] = 1, -1\n    return signs",
            1,
            "nobody else moves",
        ),
        "the chapter's vectors": (
            "q3",
            "displacing",
            "return torch.tensor([[-1.8, 1.0], [-3.0, 0.2], [2.4, 2.4]]), torch.tensor([-0.3, 0.4])",
            2,
            "the chosen answer has to hold at least 0.4",
        ),
        "forbidden words": (
            "q4",
            "weighted",
            "p, q = logits.log_softmax(1), ref_logits.log_softmax(1)\n    t = torch.arange(len(tokens))\n"
            "    return (m_u * (p - q)[t, tokens]).sum(), (m_d * (q.exp() * (q - p)).sum(1)).sum()",
            0.5,
            "minus infinity minus minus infinity is NaN",
        ),
        "beyond the end": (
            "q5",
            "lead",
            "import numpy\n    def preference(run):\n        x, y = zip(*sorted(run))\n"
            "        return float(numpy.interp(at, x, y))\n    return preference(first) - preference(second)",
            0.5,
            "Library functions repeat the last value",
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
    """Otter's results, whose summary is what the student is told."""
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(notebook, path)
    noise = io.StringIO()
    with redirect_stdout(noise), redirect_stderr(noise):
        return otter_api.grade_submission(str(path), str(made / "build" / f"{name}-autograder.zip"), quiet=True)


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
    results = grade(made, name, solution, tmp_path)
    assert (results.total, results.possible) == (10, 10)
    empty = nbformat.read(made / "student" / name / f"{name}.ipynb", as_version=4)
    results = grade(made, name, empty, tmp_path)
    assert (results.total, results.possible) == (0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", make_assignments.names())
def test_typical_mistakes_cost_their_points_and_get_their_feedback(made, name, tmp_path):
    notebook = nbformat.read(made / "build" / f"{name}-solution.ipynb", as_version=4)
    for _, function, body, _, _ in MISTAKES[name].values():
        notebook = with_body(notebook, function, body)
    results = grade(made, name, notebook, tmp_path)
    told = re.sub(r"\s+", " ", results.summary())
    lost = {question: cost for question, _, _, cost, _ in MISTAKES[name].values()}
    assert len(lost) == len(MISTAKES[name]) >= 3, "one mistake for a question, three for an assignment"
    for question, found in results.results.items():
        assert found.possible - found.score == lost.get(question, 0), question
    for mistake, (question, _, _, _, feedback) in MISTAKES[name].items():
        failed = [r.test_case.failure_message for r in results.results[question].test_case_results if not r.passed]
        assert any(feedback in message for message in failed), mistake
        assert feedback in told, mistake


def test_a_container_gets_what_notebooks_and_hidden_tests_import(made):
    for name in make_assignments.names():
        with zipfile.ZipFile(made / "build" / f"{name}-autograder.zip") as archive:
            environment = archive.read("environment.yml").decode()
        assert make_assignments.pin("torch") in environment
        assert f"cl-teach @ {make_assignments.current()}/archive/" in environment


@pytest.mark.parametrize("name", make_assignments.names())
def test_every_test_says_what_went_wrong_and_every_question_has_a_test_that_students_see(name):
    hidden, points = {}, 0.0
    for cell in make_assignments.master_notebook(name).cells:
        if cell.cell_type == "raw" and "name: q" in cell.source:
            question = re.search(r"name: (q\d+)", cell.source).group(1)
            hidden[question] = []
        if "BEGIN TEST CONFIG" in cell.source:
            message = re.search(r"failure_message: (.*)", cell.source).group(1)
            assert len(message.split()) >= 5, (question, message)
            hidden[question].append("hidden: true" in cell.source)
            points += float(re.search(r"points: ([\d.]+)", cell.source).group(1))
    assert points == 10
    assert all(not all(tests) for tests in hidden.values())


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
