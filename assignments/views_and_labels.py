# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 4: what counts as alike
#
# After chapters 4.1 to 4.4, 5.1 and 5.2. Five questions, 10 points, about two hours. Write your functions between the
# markers, run the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). More
# tests than you see here are run when it is graded; they are about degenerate input, which the chapters talk about. If
# several tests of a question fail, begin with the first: the others may fail for the same reason.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: who is still a rival (2 points).** MCL trains in stages. Stage $r$ leaves sample $i$ in the cluster
# $a_i^{(r)}$, and in the next stage only samples of the anchor's group, those that share its clusters of *all* stages
# so far, are negatives. `clusters` of shape `(R, N)` holds one finished stage in each row. Return the candidates $A(i)$
# of all $2N$ rows, first views first, as a boolean table `(2N, 2N)`: everything that stands in the denominator of row
# $i$, its positive included, itself left out. It has to work after any number of stages, also before the first one ends
# ($R=0$).

# %% [raw]
# BEGIN SOLUTION

# %%
def candidates(clusters):
    """(R, N) integers to (2N, 2N) bool."""
    # BEGIN SOLUTION
    together = (clusters[:, :, None] == clusters[:, None, :]).all(0)  # (N, N); all of nothing is True
    return together.repeat(2, 2) & ~torch.eye(2 * clusters.shape[1], dtype=torch.bool)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Two samples are rivals only if no stage parted them, not only the last one; the other view of the anchor is always a candidate, the anchor itself never. Rows i and i + N are the two views of one sample.
""" # END TEST CONFIG
def test_two_stages(env):
    torch, candidates = env["torch"], env["candidates"]
    found = candidates(torch.tensor([[0, 0, 1, 1], [2, 2, 2, 0]]))
    assert found.shape == (8, 8) and found.dtype == torch.bool
    assert found[0].nonzero()[:, 0].tolist() == [1, 4, 5]
    assert found[6].nonzero()[:, 0].tolist() == [2]

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Before any stage has ended all samples are one group, and the loss is NT-Xent. A table without rows is no error.
""" # END TEST CONFIG
def test_no_stage(env):
    torch, candidates = env["torch"], env["candidates"]
    found = candidates(torch.zeros(0, 3, dtype=torch.long))
    assert torch.equal(found, ~torch.eye(6, dtype=torch.bool))

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: After a hundred stages of ten clusters the group's number has a hundred digits, and an int64 holds 18, so the first stages are lost. Compare stage by stage instead of numbering groups.
""" # END TEST CONFIG
def test_many_stages(env):
    torch, candidates = env["torch"], env["candidates"]
    clusters = torch.full((100, 2), 9)
    clusters[0, 1] = 3
    assert torch.equal(candidates(clusters), torch.eye(4, dtype=torch.bool).roll(2, 0))

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 2

# %% [markdown]
# **Question 2: any two classes (2 points).** Hydra gives anchor $i$ of class $y_i$ a partner class $y_i'\ne y_i$.
# Positives $P(i)$ are all samples of the partner class, negatives $Q(i)$ all samples of *neither* class. Each positive
# stands alone against the negatives. From the logits $\ell_{ij}$, already gated and divided by $\tau$, return
#
# $$\mathcal L=\frac1{\sum_i|P(i)|}\sum_i\sum_{j\in P(i)}\Big[-\ell_{ij}+\log\Big(e^{\ell_{ij}}+\sum_{k\in Q(i)}e^{\ell_{ik}}\Big)\Big]$$
#
# as a scalar tensor. A batch need not hold the partner class of an anchor, nor any third class. Without any positive
# the loss is 0.

# %% [raw]
# BEGIN SOLUTION

# %%
def partner_loss(logits, labels, partners):
    """(N, N) logits, (N,) classes and (N,) partner classes to a scalar."""
    # BEGIN SOLUTION
    positives = partners[:, None] == labels[None]
    negatives = ~positives & (labels[:, None] != labels[None])
    others = logits.masked_fill(~negatives, float("-inf")).logsumexp(1, keepdim=True)  # (N, 1)
    terms = torch.logaddexp(logits, others) - logits
    return terms[positives].sum() / positives.sum().clamp_min(1)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: With equal logits a positive stands against two negatives here, which costs log 3. The anchor's own class is neither positive nor negative.
""" # END TEST CONFIG
def test_equal_logits(env):
    import math
    torch, partner_loss = env["torch"], env["partner_loss"]
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    found = partner_loss(torch.zeros(6, 6), labels, torch.tensor([1, 1, 2, 2, 0, 0]))
    assert found.shape == ()
    assert abs(found.item() - math.log(3)) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Classes have unequal sizes. The mean runs over all positive pairs of the batch, not first over those of an anchor, and a pair's denominator holds no other positive.
""" # END TEST CONFIG
def test_against_a_loop(env):
    torch, partner_loss = env["torch"], env["partner_loss"]
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    partners = torch.tensor([1, 2, 2, 0, 0, 1])
    logits = 3 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    terms = []
    for i in range(6):
        neither = [k for k in range(6) if labels[k] != labels[i] and labels[k] != partners[i]]
        for j in range(6):
            if labels[j] == partners[i]:
                total = logits[i, j].exp() + sum(logits[i, k].exp() for k in neither)
                terms.append(total.log() - logits[i, j])
    assert abs(float(partner_loss(logits, labels, partners)) - float(sum(terms) / len(terms))) < 1e-6

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: At temperature 0.005 a logit reaches 200, and exp(200) is infinite; and where nobody has a positive or a negative, do not divide by 0 or take the logarithm of 0. Both should cost 0 here.
""" # END TEST CONFIG
def test_cold_and_alone(env):
    torch, partner_loss = env["torch"], env["partner_loss"]
    logits = torch.tensor([[200.0, 200.0, -200.0], [0.0, 200.0, 100.0], [-200.0, 0.0, 200.0]])
    found = partner_loss(logits, torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0]))
    assert abs(float(found) - 100) < 1e-3, "cold"
    two = partner_loss(logits[:2, :2], torch.tensor([0, 1]), torch.tensor([1, 0]))
    nobody = partner_loss(logits, torch.tensor([0, 1, 2]), torch.tensor([5, 5, 5]))
    assert float(two) == 0, "no third class, so no negative"
    assert float(nobody) == 0, "no positive"

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 2

# %% [markdown]
# **Question 3: a temperature for each class (2 points).** SBCL's class level runs warmer where features of a class
# spread more. Let $n_c$ be the size of class $c$ and $\bar z_c$ the mean of its features:
#
# $$\phi_c=\frac1{n_c\ln(n_c+10)}\sum_{i:\,y_i=c}\lVert\hat z_i-\bar z_c\rVert,\qquad\tau_2(c)=\tau\,e^{\phi_c/\bar\phi}.$$
#
# Return $\tau_2$ of all `count` classes, shape `(count,)`, from features of length one. A class that the set does not
# hold gets $\tau$ and has no part in the mean $\bar\phi$. If no class spreads, $\bar\phi=0$ and all get $\tau$.

# %% [raw]
# BEGIN SOLUTION

# %%
def class_temperatures(z, labels, count, temperature):
    """(n, d) unit rows, (n,) classes below count and a number to (count,)."""
    # BEGIN SOLUTION
    phi, here = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
    for c in labels.unique().tolist():
        mine = z[labels == c]
        here[c] = True
        phi[c] = (mine - mine.mean(0)).norm(dim=1).sum() / (len(mine) * math.log(len(mine) + 10))
    mean = phi[here].mean() if here.any() else phi.sum()
    return temperature * (phi / mean if mean > 0 else phi).exp()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Two classes of one size that spread alike both have the mean spread, so each gets e times the temperature. Is each spread divided by the mean of the spreads, inside exp?
""" # END TEST CONFIG
def test_alike(env):
    import math
    torch, class_temperatures = env["torch"], env["class_temperatures"]
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = class_temperatures(z, torch.tensor([0, 0, 1, 1]), 2, 0.1)
    assert torch.allclose(found, torch.full((2,), 0.1 * math.e), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A large class is divided by its size and by a logarithm of it. Distances are lengths, not squares, and the mean of the spreads counts every class once.
""" # END TEST CONFIG
def test_unequal(env):
    import math
    torch, class_temperatures = env["torch"], env["class_temperatures"]
    z = torch.nn.functional.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0] * 30 + [1] * 10)
    phi = []
    for part in (z[:30], z[30:]):
        n = len(part)
        phi.append(sum((row - part.mean(0)).norm().item() for row in part) / (n * math.log(n + 10)))
    expected = [0.2 * math.exp(p / (sum(phi) / 2)) for p in phi]
    assert torch.allclose(class_temperatures(z, labels, 2, 0.2), torch.tensor(expected), atol=1e-4)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: The mean of an empty class is NaN, and so is 0 divided by a mean spread of 0. What temperature has a class that is absent, one of a single sample, and one whose samples are all equal?
""" # END TEST CONFIG
def test_absent_and_single(env):
    import math
    torch, class_temperatures = env["torch"], env["class_temperatures"]
    z = torch.tensor([[0.6, 0.8], [0.0, 1.0], [0.0, -1.0]])
    found = class_temperatures(z, torch.tensor([0, 3, 3]), 4, 0.1)
    assert torch.allclose(found, torch.tensor([0.1, 0.1, 0.1, 0.1 * math.exp(2)]), atol=1e-5), "absent, or single"
    still = class_temperatures(z[:1].repeat(4, 1), torch.tensor([0, 0, 1, 1]), 3, 0.1)
    assert torch.allclose(still, torch.full((3,), 0.1)), "no class spreads"

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 2

# %% [markdown]
# **Question 4: farther counts more (2 points).** Take both mixtures out of SupReMix; what is left is the arm *distance
# weights only*. With $P(i)$ the other rows whose label is exactly $y_i$ and cosines $s_{ij}=\hat z_i^\top\hat z_j$,
#
# $$\mathcal L_i=\frac{-1}{|P(i)|}\sum_{j\in P(i)}\log\frac{e^{s_{ij}/\tau}}{D_i},\qquad D_i=\sum_{j\ne i}(1+|y_i-y_j|)\,e^{s_{ij}/\tau}.$$
#
# Return the mean of $\mathcal L_i$ over the rows that have a positive, and 0 if no row has one. Rows of `z` have any
# length; one of zeros has the cosine 0 with everything.

# %% [raw]
# BEGIN SOLUTION

# %%
def ordered_loss(z, y, temperature):
    """(n, d) embeddings of any length, (n,) numbers and a temperature to a scalar tensor."""
    # BEGIN SOLUTION
    z = torch.nn.functional.normalize(z, dim=1)
    logits = z @ z.T / temperature
    other = ~torch.eye(len(z), dtype=torch.bool)
    distance = (y[:, None] - y[None]).abs()
    positives = (distance == 0) & other
    denominator = (logits + distance.log1p()).masked_fill(~other, float("-inf")).logsumexp(1)
    rows = positives.any(1)
    if not rows.any():
        return 0.0 * z.sum()
    mean = (logits * positives).sum(1) / positives.sum(1).clamp_min(1)
    return (denominator - mean)[rows].mean()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Three equal rows with labels 0, 0 and 1. An anchor 0 sees its like with weight 1 and the label 1 with weight 2, so it pays log 3; the third row has no positive and is not in the mean.
""" # END TEST CONFIG
def test_three_rows(env):
    import math
    torch, ordered_loss = env["torch"], env["ordered_loss"]
    found = ordered_loss(torch.ones(3, 2), torch.tensor([0.0, 0.0, 1.0]), 0.1)
    assert abs(float(found) - math.log(3)) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: At temperature 0.005 exponents reach 200. Put the weight into the exponent as log(1 + |difference|) and take one logsumexp.
""" # END TEST CONFIG
def test_cold_against_float64(env):
    torch, ordered_loss = env["torch"], env["ordered_loss"]
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0.0, 0.0, 0.0, 5.0, 5.0, 31.0, 400.0, 400.0])
    unit = torch.nn.functional.normalize(z.double(), dim=1)
    losses = []
    for i in range(8):
        terms = {j: (unit[i] @ unit[j]).item() / 0.005 for j in range(8) if j != i}
        highest = max(terms.values())
        import math
        total = sum((1 + abs(y[i] - y[j]).item()) * math.exp(t - highest) for j, t in terms.items())
        mine = [highest + math.log(total) - t for j, t in terms.items() if y[j] == y[i]]
        losses += [sum(mine) / len(mine)] if mine else []
    assert abs(float(ordered_loss(z, y, 0.005)) - sum(losses) / len(losses)) < 0.05

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Where all labels differ nobody has a positive, and the mean over nothing is NaN; a row of zeros divided by its length is NaN as well. Say what each should give before you divide.
""" # END TEST CONFIG
def test_nobody_and_nothing(env):
    import math
    torch, ordered_loss = env["torch"], env["ordered_loss"]
    assert float(ordered_loss(torch.ones(3, 2), torch.tensor([0.0, 1.0, 2.0]), 0.1)) == 0, "nobody has a positive"
    assert float(ordered_loss(torch.ones(1, 2), torch.tensor([4.0]), 0.1)) == 0, "a single row"
    found = ordered_loss(torch.zeros(4, 2), torch.tensor([1.0, 1.0, 3.0, 3.0]), 0.1)
    assert abs(float(found) - math.log(7)) < 1e-5, "rows of zeros"

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q5
points: 2

# %% [markdown]
# **Question 5: make it forget (2 points).** The points of chapter 4.4 have three factors. The strong one speaks in
# coordinates 0 to 19, the middle one in 20 to 39, the weak one in 40 to 59. `read` below trains a linear encoder with
# NT-Xent on the pairs that your function makes, twice, and returns how well a linear probe reads each factor from it
# (chance: 0.20, 0.25 and 0.25). It takes a second.
#
# 1. Write `redrawn_views`: two views of a batch from which the encoder learns to *forget* the strong factor and to keep
#    the other two. Use nothing but the points of the batch; all chance comes from `generator`.
# 2. Three ways to treat the strong block: *noise* (leave it in both views, add noise of size 0.35 to all coordinates),
#    *zeroed* (set it to 0 in both views, the rest as before), *redrawn* (your function). After which of them can the
#    probe still read the strong factor with more than 0.85? Write your prediction down, then run `read` on all three,
#    and return what you found: `"kept"` or `"forgotten"`. Chance need not be reached for the latter.

# %%
def read(views):
    """How well each of the three factors is read from an encoder that was trained on these views."""
    from cl_teach.core import nt_xent
    from cl_teach.datasets import graded_factors
    from cl_teach.evaluation import linear_probe

    old, new, total = graded_factors(1000, seed=1), graded_factors(1000, seed=2), torch.zeros(3)
    for seed in (0, 1):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        encoder = torch.nn.Linear(60, 8)
        optimizer = torch.optim.Adam(encoder.parameters(), 0.01)
        for _ in range(300):
            one, two = views(old.points[torch.randint(1000, (128,), generator=generator)], generator)
            optimizer.zero_grad()
            nt_xent(encoder(one), encoder(two), 0.2).backward()
            optimizer.step()
        with torch.no_grad():
            train, test = encoder(old.points), encoder(new.points)
        for k in range(3):
            total[k] += linear_probe(train, old.factors[:, k], test, new.factors[:, k]) / 2
    return total.tolist()

# %% [raw]
# BEGIN SOLUTION

# %%
def redrawn_views(points, generator):
    """(n, 60) points and a torch.Generator to two (n, 60) views."""
    # BEGIN SOLUTION
    views = []
    for _ in range(2):
        view = points + 0.35 * torch.randn(points.shape, generator=generator)
        view[:, :20] = points[torch.randperm(len(points), generator=generator), :20]
        views.append(view)
    return views[0], views[1]
    # END SOLUTION

# %%
def strong_factor():
    """What becomes of the strong factor: a dict with the keys noise, zeroed and redrawn."""
    # BEGIN SOLUTION
    return {"noise": "kept", "zeroed": "kept", "redrawn": "forgotten"}
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: What positives do not share is forgotten. In which coordinates must the two views of a row differ as much as two strangers do, and in which must they agree?
""" # END TEST CONFIG
def test_pairs(env):
    torch, views = env["torch"], env["redrawn_views"]
    from cl_teach.datasets import graded_factors
    points = graded_factors(512, seed=5).points
    before = points.clone()
    one, two = views(points, torch.Generator().manual_seed(0))
    assert one.shape == two.shape == (512, 60)
    assert torch.equal(points, before), "the batch itself must not change; work on a copy"
    cosine = lambda a, b: torch.nn.functional.cosine_similarity(a, b, dim=1).mean().item()
    assert cosine(one[:, :20], two[:, :20]) < 0.5
    assert cosine(one[:, 20:40], two[:, 20:40]) > 0.5 and cosine(one[:, 40:], two[:, 40:]) > 0.4

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Trained on your views, the encoder still reads the strong factor, or has lost another one. Setting a block to zero teaches nothing about it, since its weights get no gradient and pass it on; let it differ between the views instead.
""" # END TEST CONFIG
def test_trained_on_these_views(env):
    torch, views = env["torch"], env["redrawn_views"]
    from cl_teach.core import nt_xent
    from cl_teach.datasets import graded_factors
    from cl_teach.evaluation import linear_probe
    old, new, total = graded_factors(1000, seed=1), graded_factors(1000, seed=2), torch.zeros(3)
    for seed in (0, 1):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        encoder = torch.nn.Linear(60, 8)
        optimizer = torch.optim.Adam(encoder.parameters(), 0.01)
        for _ in range(300):
            one, two = views(old.points[torch.randint(1000, (128,), generator=generator)], generator)
            optimizer.zero_grad()
            nt_xent(encoder(one), encoder(two), 0.2).backward()
            optimizer.step()
        with torch.no_grad():
            train, test = encoder(old.points), encoder(new.points)
        for k in range(3):
            total[k] += linear_probe(train, old.factors[:, k], test, new.factors[:, k]) / 2
    assert total[0] < 0.7, "the strong factor can still be read"
    assert total[1] > 0.85 and total[2] > 0.85, "another factor is lost"

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Run read on all three. One of the ways hides the strong factor from the loss and leaves it in the encoder, where the probe, which sees whole points, finds it.
""" # END TEST CONFIG
def test_what_was_found(env):
    found = env["strong_factor"]()
    assert found == {"noise": "kept", "zeroed": "kept", "redrawn": "forgotten"}

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
