# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 2: why it works
#
# After chapters 2.1 to 2.4. Four questions, 10 points, about two hours. Write your functions between the markers, run
# the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). If several tests of
# a question fail, begin with the first: the others may fail for the same reason.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: who gets pushed (2 points).** Given the cosines `s` of shape `(n, m)` of n anchors with their negatives,
# return the share of each negative in the repulsion, $w_{ij} = e^{s_{ij}/\tau} / \sum_k e^{s_{ik}/\tau}$, shape `(n, m)`.

# %% [raw]
# BEGIN SOLUTION

# %%
def shares(s, temperature):
    """(n, m) cosines to (n, m) shares."""
    # BEGIN SOLUTION
    return (s / temperature).softmax(1)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: The shares of one anchor sum to 1; the ratio of two is exp of their difference over the temperature.
""" # END TEST CONFIG
def test_ratio(env):
    torch, shares = env["torch"], env["shares"]
    found = shares(torch.tensor([[0.9, 0.4, 0.4]]), 0.25)
    assert abs(found.sum().item() - 1) < 1e-6
    assert abs((found[0, 0] / found[0, 1]).item() - torch.tensor(2.0).exp().item()) < 1e-3

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: At temperature 0.005 the exponentials overflow. Subtract the largest first, or use softmax.
""" # END TEST CONFIG
def test_cold(env):
    torch, shares = env["torch"], env["shares"]
    found = shares(torch.tensor([[0.9, 0.89, -0.9], [0.5, 0.5, 0.5]]), 0.005)
    assert torch.isfinite(found).all()
    assert abs(found[0, 0].item() - 1 / (1 + torch.tensor(-2.0).exp().item())) < 1e-3
    assert torch.allclose(found[1], torch.full((3,), 1 / 3))

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 2

# %% [markdown]
# **Question 2: a slow teacher (2 points).** Update the teacher's weights in place by
# $\theta' \leftarrow m\,\theta' + (1-m)\,\theta$, for two lists of tensors of equal shapes. The student stays as it is, and
# no graph is recorded.

# %% [raw]
# BEGIN SOLUTION

# %%
def update_teacher(teacher, student, momentum):
    """Two lists of tensors and m in [0, 1]; changes the first list's tensors in place."""
    # BEGIN SOLUTION
    with torch.no_grad():
        for mine, theirs in zip(teacher, student, strict=True):
            mine.mul_(momentum).add_((1 - momentum) * theirs)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: With momentum 0.9 a weight moves a tenth of the way to the student's. Change the teacher's tensors themselves, not the list, and leave the student alone.
""" # END TEST CONFIG
def test_tenth(env):
    torch, update_teacher = env["torch"], env["update_teacher"]
    teacher, student = [torch.zeros(2)], [torch.tensor([1.0, -2.0])]
    kept = teacher[0]
    update_teacher(teacher, student, 0.9)
    assert torch.allclose(kept, torch.tensor([0.1, -0.2])), "the tensor itself has to change, not the list"
    assert torch.equal(student[0], torch.tensor([1.0, -2.0]))

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: The student's weights require a gradient; the teacher must not become a part of its graph.
""" # END TEST CONFIG
def test_no_graph(env):
    torch, update_teacher = env["torch"], env["update_teacher"]
    teacher, student = [torch.zeros(2)], [torch.ones(2, requires_grad=True)]
    update_teacher(teacher, student, 0.5)
    assert not teacher[0].requires_grad
    assert torch.allclose(teacher[0], torch.full((2,), 0.5))

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 3

# %% [markdown]
# **Question 3: the first feature (3 points).** Two views of a sample are vectors `x1` and `x2` of shape `(n, d)`, with zero
# mean. A linear learner looks for the direction $w$ of length 1 on which the two views agree most, the maximum of
# $w^\top C w$ with the symmetric part of the cross-covariance, $C = \frac{1}{2n}(X_1^\top X_2 + X_2^\top X_1)$. Return
# $w$ with its largest entry (in absolute value) positive.

# %% [raw]
# BEGIN SOLUTION

# %%
def first_feature(x1, x2):
    """Two (n, d) tensors to a (d,) direction."""
    # BEGIN SOLUTION
    cross = (x1.T @ x2 + x2.T @ x1) / (2 * len(x1))
    w = torch.linalg.eigh(cross).eigenvectors[:, -1]
    return w * w[w.abs().argmax()].sign()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Only the third coordinate is the same in both views, and your direction is another one. Is it the eigenvector of the largest eigenvalue of C, with its largest entry positive?
""" # END TEST CONFIG
def test_shared_coordinate(env):
    torch, first_feature = env["torch"], env["first_feature"]
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4000, 1, generator=generator)
    x1, x2 = (torch.cat([torch.randn(4000, 2, generator=generator), shared], 1) for _ in range(2))
    w = first_feature(x1, x2)
    assert w.shape == (3,) and abs(w.norm().item() - 1) < 1e-5
    assert w[2] > 0.99

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: Noise of large variance is no reason to choose a direction, if the views do not agree on it.
""" # END TEST CONFIG
def test_noise_is_not_a_feature(env):
    torch, first_feature = env["torch"], env["first_feature"]
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(8000, 1, generator=generator)
    noise = lambda: 4 * torch.randn(8000, 1, generator=generator)
    x1, x2 = torch.cat([noise(), shared], 1), torch.cat([noise(), shared], 1)
    assert first_feature(x1, x2)[1] > 0.9

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: A direction on which the views disagree in sign has a negative eigenvalue; take the largest, not the largest in absolute value.
""" # END TEST CONFIG
def test_disagreement(env):
    torch, first_feature = env["torch"], env["first_feature"]
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(4000, 1, generator=generator), torch.randn(4000, 1, generator=generator)
    w = first_feature(torch.cat([2 * a, b], 1), torch.cat([-2 * a, b], 1))
    assert w[1] > 0.99

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 3

# %% [markdown]
# **Question 4: how many dimensions are used (3 points).** Center the features, take their singular values $\sigma_k$, divide
# them by their sum, and return $e^{H}$ with the entropy $H$ of these shares: the *effective rank*. Constant features use no
# direction; return 0 for them.

# %% [raw]
# BEGIN SOLUTION

# %%
def rank_in_use(features):
    """(n, d) to a float."""
    # BEGIN SOLUTION
    values = torch.linalg.svdvals(features - features.mean(0))
    if values.sum() < 1e-6 * (1 + features.abs().max()):
        return 0.0
    p = values / values.sum()
    return torch.exp(-torch.xlogy(p, p).sum()).item()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Points on a line have rank 1, yours have another one. Center first, divide the singular values (not their squares) by their sum, and mind the logarithm of a share of 0.
""" # END TEST CONFIG
def test_line(env):
    torch, rank_in_use = env["torch"], env["rank_in_use"]
    line = torch.linspace(-1, 1, 20)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert abs(rank_in_use(line) - 1) < 1e-2

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: A common shift changes nothing, since the features are centered first.
""" # END TEST CONFIG
def test_shift(env):
    torch, rank_in_use = env["torch"], env["rank_in_use"]
    from cl_teach.evaluation import effective_rank
    x = torch.randn(50, 4)
    assert abs(rank_in_use(x + 10) - float(effective_rank(x))) < 1e-2

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: Constant features have no singular value to divide by; a collapse should read 0, not NaN.
""" # END TEST CONFIG
def test_constant(env):
    torch, rank_in_use = env["torch"], env["rank_in_use"]
    assert rank_in_use(torch.full((10, 3), 0.7)) == 0

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
