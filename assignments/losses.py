# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 3: reshaping the comparison
#
# After chapters 3.1 to 3.4. Four questions, 10 points, about two hours. Write your functions between the markers, run
# the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). If several tests of
# a question fail, begin with the first: the others may fail for the same reason.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: decoupling (2 points).** One anchor has the cosine `p` with its positive and the cosines `s`, shape `(m,)`,
# with its negatives. Return the pair (DCL loss, coupling multiplier $q$) as two floats:
#
# $$\mathcal L^{DCL} = -\frac p\tau + \log\sum_j e^{s_j/\tau}, \qquad
# q = \frac{\sum_j e^{s_j/\tau}}{e^{p/\tau} + \sum_j e^{s_j/\tau}}.$$

# %% [raw]
# BEGIN SOLUTION

# %%
def decoupled(p, s, temperature):
    """A float, an (m,) tensor and a float to two floats."""
    # BEGIN SOLUTION
    negatives = (s / temperature).logsumexp(0)
    return (negatives - p / temperature).item(), torch.sigmoid(negatives - p / temperature).item()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: With p equal to a single negative, q is a half and the loss is 0. The positive stands in the denominator of q, not in the sum of the loss.
""" # END TEST CONFIG
def test_even(env):
    torch, decoupled = env["torch"], env["decoupled"]
    loss, q = decoupled(0.3, torch.tensor([0.3]), 0.1)
    assert abs(loss) < 1e-5 and abs(q - 0.5) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: At temperature 0.005 the exponentials overflow; q is a sigmoid of a difference of logarithms.
""" # END TEST CONFIG
def test_cold(env):
    import math
    torch, decoupled = env["torch"], env["decoupled"]
    loss, q = decoupled(0.9, torch.tensor([0.89, 0.2]), 0.005)
    assert abs(loss + 2) < 1e-2
    assert abs(q - 1 / (1 + math.exp(2))) < 1e-2

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 2

# %% [markdown]
# **Question 2: a synthetic negative (2 points).** Mix rows `i` and `j` of a queue of unit vectors, $\alpha n_i +
# (1-\alpha) n_j$, and put the result back on the sphere. No gradient flows into the queue.

# %% [raw]
# BEGIN SOLUTION

# %%
def mixed_negative(queue, i, j, alpha):
    """(K, d), two integers and a float to (d,)."""
    # BEGIN SOLUTION
    queue = queue.detach()
    h = alpha * queue[i] + (1 - alpha) * queue[j]
    return h / h.norm().clamp_min(1e-12)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Half way between two orthogonal unit vectors lies a vector with both coordinates 0.707. Mix first, then scale to length one again.
""" # END TEST CONFIG
def test_half_way(env):
    torch, mixed_negative = env["torch"], env["mixed_negative"]
    found = mixed_negative(torch.eye(3), 0, 1, 0.5)
    assert torch.allclose(found, torch.tensor([0.5**0.5, 0.5**0.5, 0.0]), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: A gradient flows into the queue. The queue is a memory; detach what you take from it.
""" # END TEST CONFIG
def test_no_gradient(env):
    torch, mixed_negative = env["torch"], env["mixed_negative"]
    queue = torch.eye(3).requires_grad_()
    assert not mixed_negative(queue, 0, 2, 0.3).requires_grad

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 4

# %% [markdown]
# **Question 3: even codes (4 points).** Sinkhorn's iteration turns scores `(B, K)` into codes whose columns are used
# evenly. Start from $e^{S/\varepsilon}$. In each iteration first divide every column by its sum times $K$, then every row
# by its sum times $B$. At the end multiply by $B$, so that every row sums to 1. Work with logarithms: it has to survive
# $\varepsilon = 0.005$.

# %% [raw]
# BEGIN SOLUTION

# %%
def even_codes(scores, epsilon, iterations):
    """(B, K) scores to (B, K) codes whose rows sum to 1."""
    # BEGIN SOLUTION
    b, k = scores.shape
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True) - math.log(k)
        log_q = log_q - log_q.logsumexp(1, keepdim=True) - math.log(b)
    return b * log_q.exp()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Some row does not sum to 1. Every iteration ends with the rows, and at the very end all is multiplied by B.
""" # END TEST CONFIG
def test_rows(env):
    torch, even_codes = env["torch"], env["even_codes"]
    found = even_codes(torch.randn(6, 3), 0.5, 3)
    assert torch.allclose(found.sum(1), torch.ones(6), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: After many iterations each of the K columns holds B / K of the mass; yours are uneven. Is a column divided by its sum times K, and does every iteration start from the last one?
""" # END TEST CONFIG
def test_columns(env):
    torch, even_codes = env["torch"], env["even_codes"]
    found = even_codes(torch.randn(12, 4), 0.5, 200)
    assert torch.allclose(found.sum(0), torch.full((4,), 3.0), atol=1e-3)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: Columns first, rows last; after few iterations the order makes a difference.
""" # END TEST CONFIG
def test_order(env):
    torch, even_codes = env["torch"], env["even_codes"]
    from cl_teach.core import sinkhorn
    scores = torch.randn(8, 3)
    assert torch.allclose(even_codes(scores, 0.3, 1), sinkhorn(scores, 0.3, 1), atol=1e-4)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: exp(1 / 0.005) is infinite in float32. Keep logarithms until the end.
""" # END TEST CONFIG
def test_sharp(env):
    torch, even_codes = env["torch"], env["even_codes"]
    found = even_codes(torch.linspace(-1, 1, 12).view(4, 3), 0.005, 3)
    assert torch.isfinite(found).all()

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 2

# %% [markdown]
# **Question 4: a temperature from a budget (2 points).** For one anchor with negatives' cosines `s`, find the temperature at
# which the softmax over $s/\tau$ has the Kullback-Leibler divergence $\rho$ from the uniform distribution, between 0.01 and
# 10, to three digits. The divergence falls as the temperature rises, so halving an interval finds it.

# %% [raw]
# BEGIN SOLUTION

# %%
def temperature_for_budget(s, rho):
    """An (m,) tensor and a float to a float."""
    # BEGIN SOLUTION
    low, high = 0.01, 10.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        log_p = (s / middle).log_softmax(0)
        divergence = (log_p.exp() * log_p).sum().item() + math.log(len(s))
        low, high = (middle, high) if divergence > rho else (low, middle)
    return (low * high) ** 0.5
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Put your temperature back into the softmax and compute the divergence from uniform.
""" # END TEST CONFIG
def test_budget_is_spent(env):
    import math
    torch, find = env["torch"], env["temperature_for_budget"]
    s = torch.tensor([0.9, 0.5, 0.1, -0.3, 0.0], dtype=torch.float64)
    p = (s / find(s, 0.5)).softmax(0)
    assert abs((p * (p * 5).log()).sum().item() - 0.5) < 1e-2

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
failure_message: A larger budget means a sharper softmax, that is a lower temperature.
""" # END TEST CONFIG
def test_direction(env):
    torch, find = env["torch"], env["temperature_for_budget"]
    s = torch.linspace(-0.5, 0.8, 20, dtype=torch.float64)
    assert find(s, 0.1) > find(s, 0.5) > find(s, 1.5)

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
