# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 6: graphs, signals, decisions
#
# After chapters 8.1, 8.2, 9.1 and 9.2. Five questions, 10 points, about two hours. Write your functions between the
# markers, run the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). More
# tests than you see here are run when it is graded; they are about degenerate input, which the chapters talk about. If
# several tests of a question fail, begin with the first: the others may fail for the same reason.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: whom nobody pushes (2 points).** MEOW counts in how many of $T$ clusterings two nodes are apart, and
# pushes them by that much:
#
# $$\mathcal L_{con}=\frac1N\sum_i-\log\frac{e^{z^c_i\cdot z^f_i/\tau}}{\sum_j\gamma_{ij}\,e^{z^c_i\cdot z^f_j/\tau}},\qquad\gamma_{ij}=\sum_{t=1}^T\mathbb 1[c_t(i)\ne c_t(j)] .$$
#
# `scores` holds the products $z^c_i\cdot z^f_j$ and `clusters` the numbers $c_t(i)$, one clustering a row. An anchor
# that shares all clusters with everybody has an empty denominator; it counts 0 in the mean over all $N$, and no
# gradient comes from it. Return a scalar tensor. It has to work at $\tau=0.005$.

# %% [raw]
# BEGIN SOLUTION

# %%
def meow_contrast(scores, clusters, temperature):
    """(N, N) scores, (T, N) integers and a number to a scalar."""
    # BEGIN SOLUTION
    gamma = (clusters[:, :, None] != clusters[:, None, :]).sum(0).to(scores)
    pushed = gamma.any(1)
    logits = scores[pushed] / temperature
    total = (logits + gamma[pushed].log()).logsumexp(1)
    return (total - scores.diagonal()[pushed] / temperature).sum() / len(scores)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Equal scores, three nodes, two clusterings. Nodes 0 and 2 are apart twice, the other pairs once, so the denominators are 3, 2 and 3; the positive is not in them, since nobody is apart from itself.
""" # END TEST CONFIG
def test_equal_scores(env):
    import math
    torch, meow_contrast = env["torch"], env["meow_contrast"]
    found = meow_contrast(torch.full((3, 3), 0.4), torch.tensor([[0, 0, 1], [0, 1, 1]]), 0.1)
    assert found.shape == ()
    assert abs(float(found) - (2 * math.log(3) + math.log(2)) / 3) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: At temperature 0.005 exponents reach 200, which exp does not survive. Add log of the weight to the logit and take one logsumexp; the logarithm of weight 0 is minus infinity, as it should be.
""" # END TEST CONFIG
def test_cold(env):
    torch, meow_contrast = env["torch"], env["meow_contrast"]
    scores = torch.tensor([[1.0, -1.0, 0.9], [1.0, 1.0, -1.0], [0.0, 1.0, -1.0]])
    found = meow_contrast(scores, torch.tensor([[0, 1, 2]]), 0.005)
    assert abs(float(found) - (-20 + 0 + 400) / 3) < 1e-2

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Where an anchor shares all clusters with everybody the denominator is a sum over nothing, and its logarithm minus infinity. Leave such anchors out before you take it, or the gradient is NaN; the mean still counts all N.
""" # END TEST CONFIG
def test_empty_denominator(env):
    import math
    torch, meow_contrast = env["torch"], env["meow_contrast"]
    scores = torch.zeros(3, 3, requires_grad=True)
    loss = meow_contrast(scores, torch.zeros(2, 3, dtype=torch.long), 0.5)
    assert float(loss) == 0, "one cluster for all"
    assert float(meow_contrast(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.long), 0.5)) == 0, "a single node"
    scores = torch.zeros(4, 4, requires_grad=True)
    clusters = torch.tensor([[0, 0, 0, 1]])
    loss = meow_contrast(scores, clusters, 0.5)
    loss.backward()
    assert abs(float(loss) - math.log(3) / 4) < 1e-5 and torch.isfinite(scores.grad).all(), "gradient"

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 2

# %% [markdown]
# **Question 2: Recall@k, to the letter (2 points).** `scores` rates all items for all users. What a user has `bought`
# is taken out of the ranking. Of the others the first `k` are looked at, equal scores in the order of their numbers,
# the lower one first. A user's recall is the share of the `held_out` items that are among them. Return the mean over
# the users who have a held-out item, and 0 if nobody has. There may be fewer than `k` items left.

# %% [raw]
# BEGIN SOLUTION

# %%
def recall(scores, bought, held_out, k):
    """Three (U, I) tables, two of them bool, and a number to a float."""
    # BEGIN SOLUTION
    order = scores.masked_fill(bought, float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :k]
    found = (held_out & ~bought).gather(1, order).sum(1)
    asked = held_out.any(1)
    if not asked.any():
        return 0.0
    return (found[asked] / held_out[asked].sum(1)).mean().item()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: The first user finds one of two held-out items among the first two, the second one of one. What was bought has the highest score and must not take a place.
""" # END TEST CONFIG
def test_two_users(env):
    torch, recall = env["torch"], env["recall"]
    scores = torch.tensor([[9.0, 5.0, 4.0, 3.0], [1.0, 2.0, 9.0, 8.0]])
    bought = torch.tensor([[True, False, False, False], [False, False, True, True]])
    held_out = torch.tensor([[False, True, False, True], [True, False, False, False]])
    assert abs(recall(scores, bought, held_out, 2) - 0.75) < 1e-6

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A user of whom nothing was held out has no recall. Counted as 0 it drags the mean down, divided it is NaN. Leave it out of the mean; if nobody is left, return 0.
""" # END TEST CONFIG
def test_users_without_test_items(env):
    torch, recall = env["torch"], env["recall"]
    scores, nothing = torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.zeros(2, 2, dtype=torch.bool)
    held_out = torch.tensor([[True, False], [False, False]])
    assert recall(scores, nothing, held_out, 1) == 1
    assert recall(scores, nothing, nothing, 1) == 0

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Equal scores rank by number, the lower one first; topk and a plain sort promise nothing about ties, stable=True does. And a list may be shorter than k. Divide by the number of held-out items, not by k.
""" # END TEST CONFIG
def test_ties_and_short_lists(env):
    torch, recall = env["torch"], env["recall"]
    nothing, held_out = torch.zeros(1, 400, dtype=torch.bool), torch.zeros(1, 400, dtype=torch.bool)
    held_out[0, :20] = True
    assert recall(torch.ones(1, 400), nothing, held_out, 20) == 1, "ties"
    assert abs(recall(torch.ones(1, 400), nothing, held_out, 5) - 0.25) < 1e-6
    few = torch.tensor([[True, False, True]])
    assert recall(torch.tensor([[1.0, 2.0, 3.0]]), ~few, few, 10) == 1, "three items, ten places"

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 2

# %% [markdown]
# **Question 3: read a record (2 points).** Every experiment of the book leaves a record: a number for each seed, with the
# baseline and with the method, and what was claimed beforehand. The difference method minus baseline is taken *seed
# by seed*. With its mean $d$ and deviation $s$ over $n$ seeds (the one that divides by $n-1$) the interval is
# $d\pm t\,s/\sqrt n$.
#
# 1. Return the verdict, as in *How to read this book*: `"holds"` if the whole interval lies on the side that is
#    `expected` (`"higher"` or `"lower"`), `"opposite"` if it lies on the other side, `"no difference"` if it contains 0
#    and reaches at most `smallest_effect` to either side of 0, and `"undecided"` otherwise. All differences may be
#    equal: then the interval has no width.
# 2. Chapter 8.2 asks whether training beats what needs no training. The cell below has the three records of that. Say
#    first what you expect of each from the chapter, then return your verdicts as a dict from claim to verdict.
#    `record.baseline` and `record.method` are the numbers, `record.expected` and `record.smallest_effect` what was
#    stated, and `quantile(record)` is $t$.

# %%
def quantile(record):
    """The quantile t for a record's interval, with its planned looks paid for."""
    from scipy import stats

    return float(stats.t.ppf((1 + record.level) / 2, len(record.seeds) - 1))


def three_records():
    """Each compares a trained model with a baseline that needs no training, from claim to record."""
    from cl_teach import evidence

    places = {"pure-svd": "lightgcl", "films-svd": "lightgcl", "successors": "mclrec"}
    return {claim: evidence.load(slug, claim) for claim, slug in places.items()}

# %% [raw]
# BEGIN SOLUTION

# %%
def verdict_of(baseline, method, expected, smallest_effect, t):
    """Two lists of numbers, in the order of the seeds, a word and two numbers to a word."""
    # BEGIN SOLUTION
    differences = [b - a for a, b in zip(baseline, method, strict=True)]
    n, mean = len(differences), sum(differences) / len(differences)
    half = t * math.sqrt(sum((x - mean) ** 2 for x in differences) / (n - 1) / n)
    low, high = mean - half, mean + half
    if low <= 0 <= high:
        return "no difference" if max(-low, high) <= smallest_effect else "undecided"
    return "holds" if (low > 0) == (expected == "higher") else "opposite"
    # END SOLUTION

# %%
def against_no_training():
    """A dict from the claims of three_records() to verdicts."""
    # BEGIN SOLUTION
    return {
        claim: verdict_of(r.baseline, r.method, r.expected, r.smallest_effect, quantile(r))
        for claim, r in three_records().items()
    }
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Each pair differs by about 2, though the pairs differ by 30 among one another. Subtract seed by seed before you take a deviation, and divide that by the root of n.
""" # END TEST CONFIG
def test_paired(env):
    verdict_of = env["verdict_of"]
    baseline, method = [40.0, 55.0, 70.0, 48.0], [42.0, 57.5, 71.5, 50.0]
    assert verdict_of(baseline, method, "higher", 0.5, 3.18) == "holds"
    assert verdict_of(baseline, method, "lower", 0.5, 3.18) == "opposite"
    assert verdict_of([1.0, 2.0, 3.0], [4.0, 1.0, 3.5], "higher", 0.5, 4.3) == "undecided"

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: An interval around 0 that is narrow enough is a finding, no difference, and not undecided. Equal differences give an interval without width, which is a decision as well. The smallest effect plays no part where 0 lies outside.
""" # END TEST CONFIG
def test_no_difference_and_no_width(env):
    verdict_of = env["verdict_of"]
    assert verdict_of([50.0, 60.0, 70.0], [50.1, 59.9, 70.0], "higher", 0.5, 4.3) == "no difference"
    assert verdict_of([50.0, 60.0], [50.0, 60.0], "lower", 0.5, 12.7) == "no difference"
    assert verdict_of([50.0, 60.0], [50.25, 60.25], "higher", 0.5, 12.7) == "holds"
    assert verdict_of([0.0, 0.0, 0.0], [0.3, -0.3, 0.9], "higher", 0.5, 4.3) == "undecided"

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Put the numbers of each record into your own function, with the quantile of that record, whose looks were paid for. A verdict follows from these numbers, not from what one would expect of a trained model.
""" # END TEST CONFIG
def test_the_records(env):
    from cl_teach import evidence
    places = {"pure-svd": "lightgcl", "films-svd": "lightgcl", "successors": "mclrec"}
    assert env["against_no_training"]() == {c: evidence.load(s, c).verdict for c, s in places.items()}

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 2

# %% [markdown]
# **Question 4: the same person on another day (2 points).** COMET pairs windows by who was recorded. Here is the rule
# that makes an encoder forget the day: window $i$ gets a random *other* window of the same person from *another* trial,
# each of them equally likely. If the person has only one trial, it gets a random other window of that trial, and if the
# person has a single window, itself. Return the index of the partner of every window. Trials are numbered for each
# person from 0: trial 0 of one person has nothing to do with trial 0 of another.

# %% [raw]
# BEGIN SOLUTION

# %%
def partners(person, trial, generator):
    """(B,) persons, (B,) trials and a torch.Generator to (B,) indices."""
    # BEGIN SOLUTION
    same = person[:, None] == person[None]
    other_trial = same & (trial[:, None] != trial[None])
    itself = torch.eye(len(person), dtype=torch.bool)
    allowed = torch.where(other_trial.any(1, keepdim=True), other_trial, same & ~itself)
    allowed = torch.where(allowed.any(1, keepdim=True), allowed, itself)
    return torch.multinomial(allowed.double(), 1, generator=generator)[:, 0]
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: A partner is of the same person and of another trial. That two windows have the same trial number says nothing unless the person is the same.
""" # END TEST CONFIG
def test_two_persons(env):
    torch, partners = env["torch"], env["partners"]
    person, trial = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = partners(person, trial, generator)
        assert found.shape == (6,)
        assert torch.equal(person[found], person) and (trial[found] != trial).all()

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A person with one trial has no other day, and a person with one window nobody at all. Nobody else may step in, and a draw from an empty row is an error.
""" # END TEST CONFIG
def test_one_trial_and_one_window(env):
    torch, partners = env["torch"], env["partners"]
    person, trial = torch.tensor([0, 0, 0, 7, 2, 2]), torch.tensor([0, 0, 0, 0, 3, 3])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = partners(person, trial, generator)
        assert torch.equal(person[found], person)
        assert found[3] == 3
        assert (found[[0, 1, 2, 4, 5]] != torch.tensor([0, 1, 2, 4, 5])).all()

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Every admissible window has to come equally often, also where another trial holds many more of them, and every call has to draw anew.
""" # END TEST CONFIG
def test_evenly(env):
    torch, partners = env["torch"], env["partners"]
    person = torch.tensor([5] * 8 + [9])
    trial = torch.tensor([0, 1, 2, 2, 2, 2, 2, 2, 0])
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(9)
    for _ in range(1400):
        counts[partners(person, trial, generator)[0]] += 1
    assert counts[0] == 0 and counts[8] == 0
    assert (counts[1:8] > 140).all() and (counts[1:8] < 260).all()

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q5
points: 2

# %% [markdown]
# **Question 5: a bonus for where nobody was (2 points).** With the features $\phi$ of all visited pairs of state and
# action,
#
# $$\beta(s,a)=\min\Big\{\gamma\sqrt{\phi^\top\Sigma^{-1}\phi},\ b_{\max}\Big\},\qquad\Sigma=\lambda\mathbf I+\sum_{\text{visited}}\phi\,\phi^\top .$$
#
# Return the bonus of every row of `asked`. Nothing may have been visited yet, one thing may have been visited very
# often, and a feature may be zero.

# %% [raw]
# BEGIN SOLUTION

# %%
def bonus(visited, asked, ridge, gamma, cap):
    """(n, d) and (m, d) features, lambda, gamma and b_max to (m,)."""
    # BEGIN SOLUTION
    visited, asked = visited.double(), asked.double()
    sigma = ridge * torch.eye(asked.shape[1], dtype=torch.float64) + visited.T @ visited
    squared = (asked * torch.linalg.solve(sigma, asked.T).T).sum(1).clamp_min(0)
    return (gamma * squared.sqrt()).clamp_max(cap).float()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: If every pair has a feature of its own, the bonus is gamma over the root of lambda plus its count. With lambda 1, three visits give gamma / 2 and none gamma.
""" # END TEST CONFIG
def test_counts(env):
    torch, bonus = env["torch"], env["bonus"]
    found = bonus(torch.eye(2)[[0, 0, 0]], torch.eye(2), 1.0, 0.8, 10.0)
    assert torch.allclose(found.float(), torch.tensor([0.4, 0.8]), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Before the first visit Sigma is lambda times the identity. A small lambda then makes a large bonus, which the cap holds; a feature of zeros has bonus 0, and length counts, so features are not normalized here.
""" # END TEST CONFIG
def test_before_the_first_visit(env):
    torch, bonus = env["torch"], env["bonus"]
    asked = torch.tensor([[0.0, 0.0], [0.3, 0.4], [3.0, 4.0]])
    found = bonus(torch.zeros(0, 2), asked, 0.01, 1.0, 6.0)
    assert torch.allclose(found.float(), torch.tensor([0.0, 5.0, 6.0]), atol=1e-4)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: After 200,000 visits in one direction the other one is as new as ever. In float32 200,000 + 0.01 is 200,000, the ridge is lost and the inverse is noise or NaN. Sum and solve in float64.
""" # END TEST CONFIG
def test_one_direction_only(env):
    torch, bonus = env["torch"], env["bonus"]
    visited = torch.ones(200_000, 2)
    found = bonus(visited, torch.tensor([[1.0, -1.0], [1.0, 1.0]]), 0.01, 1.0, 100.0)
    assert abs(float(found[0]) - 200**0.5) < 0.05
    assert abs(float(found[1]) - 200_000**-0.5) < 1e-4

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
