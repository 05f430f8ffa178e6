# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 1: comparing
#
# After chapters 1.1 to 1.3. Four questions, 10 points, about 90 minutes. Write your functions between the markers, run
# the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). More tests than you
# see here are run when it is graded; they are about degenerate input, which the chapters talk about. If several tests
# of a question fail, begin with the first: the others may fail for the same reason.
#
# Use torch only: the point is to write what `cl_teach.core` has.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: a table of cosines (2 points).** Given `a` of shape `(n, d)` and `b` of shape `(m, d)`, return the
# `(n, m)` table of cosine similarities. A zero row has no direction: its cosines are 0, not NaN.

# %% [raw]
# BEGIN SOLUTION

# %%
def cosine_table(a, b):
    """(n, d) and (m, d) to (n, m)."""
    # BEGIN SOLUTION
    def unit(x):
        length = x.norm(dim=1, keepdim=True)
        return x / torch.where(length > 0, length, torch.ones_like(length))

    return unit(a) @ unit(b).T
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Some cosine is not that of its pair. By hand, (3, 4) and (0, 2) have 8 / (5 * 2). Is each row divided by its own length, and has the table one row for each row of a?
""" # END TEST CONFIG
def test_values(env):
    torch, cosine_table = env["torch"], env["cosine_table"]
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-5.0, 0.0], [1.0, 1.0]])
    found = cosine_table(a, b)
    assert found.shape == (2, 3)
    assert torch.allclose(found[0], torch.tensor([0.8, -0.6, 7 / 50**0.5]), atol=1e-6)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: What is the cosine with a row of zeros? Dividing 0 by 0 gives NaN; replace the length before you divide.
""" # END TEST CONFIG
def test_zero_row(env):
    torch, cosine_table = env["torch"], env["cosine_table"]
    found = cosine_table(torch.zeros(2, 3), torch.randn(4, 3))
    assert torch.equal(found, torch.zeros(2, 4))

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 4

# %% [markdown]
# **Question 2: NT-Xent (4 points).** Return the loss of each of the $2N$ anchors, first views first, as a tensor of shape
# `(2N,)`:
#
# $$\ell_i = -\log\frac{e^{s_{i,p(i)}/\tau}}{\sum_{j\ne i} e^{s_{ij}/\tau}},$$
#
# with $s$ the cosine similarity among all $2N$ rows and $p(i)$ the other view of $i$. It has to work at $\tau = 0.005$.

# %% [raw]
# BEGIN SOLUTION

# %%
def nt_xent_rows(z1, z2, temperature):
    """(N, d), (N, d) and a number to (2N,)."""
    # BEGIN SOLUTION
    n = len(z1)
    z = torch.cat([z1, z2])
    logits = cosine_table(z, z) / temperature
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    other = torch.arange(2 * n).roll(n)
    return logits.logsumexp(1) - logits[torch.arange(2 * n), other]
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 2
failure_message: Compare one anchor with the sum written out in a loop. Is the anchor itself left out of the denominator?
""" # END TEST CONFIG
def test_against_a_loop(env):
    torch, nt_xent_rows = env["torch"], env["nt_xent_rows"]
    generator = torch.Generator().manual_seed(0)
    z1, z2 = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    z = torch.nn.functional.normalize(torch.cat([z1, z2]), dim=1)
    found = nt_xent_rows(z1, z2, 0.5)
    assert found.shape == (6,)
    total = sum(torch.exp(z[0] @ z[j] / 0.5) for j in range(1, 6))
    assert torch.allclose(found[0], -(z[0] @ z[3] / 0.5 - total.log()), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: The second views are anchors too, and their positives are the first views.
""" # END TEST CONFIG
def test_second_views(env):
    torch, nt_xent_rows = env["torch"], env["nt_xent_rows"]
    from cl_teach.core import nt_xent
    z1, z2 = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.allclose(nt_xent_rows(z1, z2, 0.3)[5:], nt_xent(z1, z2, 0.3, reduction="none")[5:], atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: At temperature 0.005 an exponent reaches 200, and exp(200) is infinite in float32. Use logsumexp.
""" # END TEST CONFIG
def test_low_temperature(env):
    torch, nt_xent_rows = env["torch"], env["nt_xent_rows"]
    z1, z2 = torch.randn(4, 3), torch.randn(4, 3)
    z2[0] = -z1[0]
    z1[1] = z1[2]
    assert torch.isfinite(nt_xent_rows(z1, z2, 0.005)).all()

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 3

# %% [markdown]
# **Question 3: two numbers to watch (3 points).** For unit rows `z1` and `z2` of shape `(n, d)` return the pair
#
# $$\text{alignment} = \frac1n\sum_i \lVert z^1_i - z^2_i\rVert^2, \qquad
# \text{uniformity} = \log\frac{1}{n(n-1)}\sum_{i\ne j} e^{-2\lVert z^1_i - z^1_j\rVert^2}$$
#
# as two floats. Only distinct pairs count in the uniformity.

# %% [raw]
# BEGIN SOLUTION

# %%
def alignment_and_uniformity(z1, z2):
    """Two (n, d) tensors of unit rows to two floats."""
    # BEGIN SOLUTION
    alignment = (z1 - z2).square().sum(1).mean()
    squared = torch.pdist(z1).square()
    return alignment.item(), (-2 * squared).exp().mean().log().item()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Two opposite points have the squared distance 4, so the alignment is 4 and the uniformity -8. Squares, a mean over rows, and the logarithm outside of the mean?
""" # END TEST CONFIG
def test_by_hand(env):
    torch, both = env["torch"], env["alignment_and_uniformity"]
    z1 = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = both(z1, z1.flip(0))
    assert abs(found[0] - 4) < 1e-5
    assert abs(found[1] + 8) < 1e-4

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: A point is not a pair with itself; counting it makes a uniform set look worse than it is.
""" # END TEST CONFIG
def test_distinct_pairs(env):
    torch, both = env["torch"], env["alignment_and_uniformity"]
    from cl_teach.core import normalize
    from cl_teach.evaluation import uniformity
    z = normalize(torch.randn(6, 3))
    assert abs(both(z, z)[1] - float(uniformity(z))) < 1e-4

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: A collapsed set has alignment 0 and uniformity 0, the worst value that there is, neither NaN nor minus infinity. Are sums divided by the right numbers?
""" # END TEST CONFIG
def test_collapse(env):
    torch, both = env["torch"], env["alignment_and_uniformity"]
    z = torch.tensor([[0.6, 0.8]]).repeat(5, 1)
    found = both(z, z)
    assert abs(found[0]) < 1e-6 and abs(found[1]) < 1e-5

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 1

# %% [markdown]
# **Question 4: what a collapse costs (1 point).** All embeddings of a batch of `n` pairs are equal. Return the value of
# NT-Xent, at any temperature, as a function of `n`.

# %% [raw]
# BEGIN SOLUTION

# %%
def collapsed_loss(n):
    """A number of pairs to a float."""
    # BEGIN SOLUTION
    return math.log(2 * n - 1)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: All candidates look alike, so the softmax is a fair guess among them. How many candidates has one of the 2n anchors, itself left out, and what does a fair guess cost?
""" # END TEST CONFIG
def test_collapse_value(env):
    from cl_teach.core import nt_xent
    torch, collapsed_loss = env["torch"], env["collapsed_loss"]
    z = torch.ones(7, 3)
    assert abs(collapsed_loss(7) - nt_xent(z, z, 0.1).item()) < 1e-5

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
