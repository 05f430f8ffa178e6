# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 7: where the probability goes
#
# After chapters 10.1 and 10.2. Five questions, 10 points, about two hours. Write your functions between the markers,
# run the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). More tests than
# you see here are run when it is graded; they are about degenerate input, which the chapters talk about. If several
# tests of a question fail, begin with the first: the others may fail for the same reason.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: a softmax over two (2 points).** For pairs of a chosen and a rejected response, given are the
# log-probabilities $\log\pi(y^\pm\mid x)$ and $\log\pi_{\mathrm{ref}}(y^\pm\mid x)$ of whole responses, shape `(B,)`
# each. Return the pair of tensors `(B,)`: DPO's loss of each pair, and the size of its push,
#
# $$\mathcal L=-\log\sigma\big(\beta\,(g-g_{\mathrm{ref}})\big),\qquad w=\beta\,\sigma\big(-\beta\,(g-g_{\mathrm{ref}})\big),\qquad g=\log\pi(y^+\mid x)-\log\pi(y^-\mid x).$$
#
# Responses may be thousands of tokens long.

# %% [raw]
# BEGIN SOLUTION

# %%
def dpo(chosen, rejected, chosen_ref, rejected_ref, beta):
    """Four (B,) tensors and a number to two (B,) tensors."""
    # BEGIN SOLUTION
    margin = beta * ((chosen - rejected) - (chosen_ref - rejected_ref))
    return -torch.nn.functional.logsigmoid(margin), beta * torch.sigmoid(-margin)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: At the reference the loss is log 2 and the push beta / 2, whatever the probabilities. What the reference prefers already is taken off the gap.
""" # END TEST CONFIG
def test_at_the_reference(env):
    import math
    torch, dpo = env["torch"], env["dpo"]
    chosen, rejected = torch.tensor([-3.0, -40.0]), torch.tensor([-9.0, -2.0])
    loss, push = dpo(chosen, rejected, chosen, rejected, 0.3)
    assert torch.allclose(loss, torch.full((2,), math.log(2)), atol=1e-5)
    assert torch.allclose(push, torch.full((2,), 0.15), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: The push is largest where the policy prefers the rejected response, and it fades where the margin is won. Which sign stands in the sigmoid?
""" # END TEST CONFIG
def test_direction(env):
    import math
    torch, dpo = env["torch"], env["dpo"]
    nothing = torch.zeros(2)
    loss, push = dpo(torch.tensor([2.0, -2.0]), nothing, nothing, nothing, 0.5)
    assert torch.allclose(loss, torch.tensor([math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]), atol=1e-5)
    assert torch.allclose(push, 0.5 * torch.sigmoid(torch.tensor([-1.0, 1.0])), atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Log-probabilities of long responses differ by thousands. A sigmoid of -1,000 is 0 in float32 and its logarithm minus infinity, so take logsigmoid; and probabilities themselves are 0, so never leave the logarithms.
""" # END TEST CONFIG
def test_long_responses(env):
    torch, dpo = env["torch"], env["dpo"]
    chosen, rejected = torch.tensor([-9000.0, -5000.0]), torch.tensor([-5000.0, -9000.0])
    loss, push = dpo(chosen, rejected, torch.zeros(2), torch.zeros(2), 0.5)
    assert torch.allclose(loss, torch.tensor([2000.0, 0.0]))
    assert torch.allclose(push, torch.tensor([0.5, 0.0]))

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 2

# %% [markdown]
# **Question 2: who moves in a table (2 points).** A policy has one free logit for each of $K$ answers, and DPO takes
# one small step of gradient descent on a single pair. Predict before you compute: who gains, who loses? Return the sign
# of the change of every $\log\pi_k$ as a tensor `(K,)` of 1, 0 and $-1$, where 0 means that the change vanishes to
# first order in the size of the step. `pi` are the probabilities before the step. Some may be equal, and one may be 1.

# %% [raw]
# BEGIN SOLUTION

# %%
def who_moves(pi, chosen, rejected):
    """(K,) probabilities and two different indices to (K,) signs."""
    # BEGIN SOLUTION
    change = (pi[rejected] - pi[chosen]).repeat(len(pi))
    change[chosen] += 1
    change[rejected] -= 1
    return change.sign()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: The chosen answer holds 5 %, the rejected one 60 %. What is taken from the rejected is more than the chosen takes up, and the rest is spread over all others; with the roles exchanged they pay.
""" # END TEST CONFIG
def test_both_ways(env):
    torch, who_moves = env["torch"], env["who_moves"]
    pi = torch.tensor([0.05, 0.6, 0.2, 0.15])
    assert who_moves(pi, 0, 1).tolist() == [1, -1, 1, 1]
    assert who_moves(pi, 1, 0).tolist() == [-1, 1, -1, -1]

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: If chosen and rejected hold the same probability, what one loses the other takes up, and nobody else moves.
""" # END TEST CONFIG
def test_equal(env):
    torch, who_moves = env["torch"], env["who_moves"]
    assert who_moves(torch.tensor([0.25, 0.25, 0.5]), 0, 1).tolist() == [1, -1, 0]
    assert who_moves(torch.tensor([0.5, 0.5]), 1, 0).tolist() == [-1, 1]

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: An answer that holds everything neither gains nor falls at first, chosen or rejected, and a rejected one that holds nothing still falls in its logarithm. Take the signs from the formula, not from cases.
""" # END TEST CONFIG
def test_saturated(env):
    torch, who_moves = env["torch"], env["who_moves"]
    assert who_moves(torch.tensor([1.0, 0.0, 0.0]), 0, 1).tolist() == [0, -1, -1]
    assert who_moves(torch.tensor([0.0, 1.0, 0.0]), 0, 1).tolist() == [1, 0, 1]

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 2

# %% [markdown]
# **Question 3: make the chosen answer lose (2 points).** Now vectors are shared: $\pi=\operatorname{softmax}(Wh)$ with
# three answers in two dimensions, 0 the chosen, 1 the rejected, 2 a bystander whom nobody compares. `train_dpo` below
# trains on the one pair and returns the probabilities before and after.
#
# 1. Find $W$ and $h$, all numbers between $-4$ and 4, so that the chosen answer is the likeliest at the start, with at
#    least 0.4, and after the training holds less than 0.1 while the *bystander* holds more than 0.9. Draw the three
#    vectors on paper first, with the arrow along which $h$ will move.
# 2. Return another vector for the *rejected* answer, also between $-4$ and 4. With it in place, and everything else as
#    in 1, the chosen answer has to end above 0.9.

# %%
def train_dpo(W, h, beta=0.3, rate=0.05, steps=600):
    """Gradient descent of DPO on W (3, 2) and h (2,): probabilities at the start and at the end."""
    W, h = W.double().requires_grad_(), h.double().requires_grad_()
    reference = (W @ h).log_softmax(0).detach()
    for _ in range(steps):
        gain = (W @ h).log_softmax(0) - reference
        loss = -torch.nn.functional.logsigmoid(beta * (gain[0] - gain[1]))
        slopes = torch.autograd.grad(loss, (W, h))
        W, h = ((x - rate * s).detach().requires_grad_() for x, s in zip((W, h), slopes))
    return reference.exp(), (W @ h).softmax(0).detach()

# %% [raw]
# BEGIN SOLUTION

# %%
def displacing():
    """No argument; a (3, 2) tensor W and a (2,) tensor h."""
    # BEGIN SOLUTION
    return torch.tensor([[2.0, 0.0], [3.5, 2.0], [-2.0, -3.0]]), torch.tensor([0.5, -0.5])
    # END SOLUTION

# %%
def better_rejected():
    """No argument; a (2,) tensor."""
    # BEGIN SOLUTION
    return torch.tensor([-3.0, 0.0])
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: At the start the chosen answer has to hold at least 0.4 and more than the others. For the fall, the vectors of chosen and rejected should be close, and the bystander should lie farther along their difference than the chosen one. With h at a right angle to that difference you can choose the start and the fall apart.
""" # END TEST CONFIG
def test_at_the_start(env):
    torch, displacing = env["torch"], env["displacing"]
    W, h = displacing()
    assert W.shape == (3, 2) and h.shape == (2,)
    assert W.abs().max() <= 4 and h.abs().max() <= 4
    p = (W.double() @ h.double()).softmax(0)
    assert p[0] >= 0.4 and p[0] > p.max() - 1e-6, "start"
    along = W.double() @ (W[0] - W[1]).double()
    assert along[2] > along[0], "who lies farther along the difference?"

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: After the training the chosen answer has to hold less than 0.1 and the bystander more than 0.9. The movement of h must outweigh that of W, which helps the chosen one by the squared length of h. A short h, and a bystander far along the difference, do it.
""" # END TEST CONFIG
def test_after_the_training(env):
    torch = env["torch"]
    W, h = env["displacing"]()
    W, h = W.double().requires_grad_(), h.double().requires_grad_()
    reference = (W @ h).log_softmax(0).detach()
    assert W.abs().max() <= 4 and h.abs().max() <= 4 and reference[0].exp() >= 0.4
    for _ in range(600):
        gain = (W @ h).log_softmax(0) - reference
        slopes = torch.autograd.grad(-torch.nn.functional.logsigmoid(0.3 * (gain[0] - gain[1])), (W, h))
        W, h = ((x - 0.05 * s).detach().requires_grad_() for x, s in zip((W, h), slopes))
    p = (W @ h).softmax(0)
    assert p[0] < 0.1 and p[2] > 0.9

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: With the new rejected vector the chosen answer does not end above 0.9. Place it so that their difference points where the chosen one lies and the bystander does not, far from the chosen.
""" # END TEST CONFIG
def test_better_rejected(env):
    torch = env["torch"]
    W, h = env["displacing"]()
    W, vector = W.clone(), env["better_rejected"]()
    assert vector.shape == (2,) and vector.abs().max() <= 4
    W[1] = vector
    W, h = W.double().requires_grad_(), h.double().requires_grad_()
    reference = (W @ h).log_softmax(0).detach()
    for _ in range(600):
        gain = (W @ h).log_softmax(0) - reference
        slopes = torch.autograd.grad(-torch.nn.functional.logsigmoid(0.3 * (gain[0] - gain[1])), (W, h))
        W, h = ((x - 0.05 * s).detach().requires_grad_() for x, s in zip((W, h), slopes))
    assert (W @ h).softmax(0)[0] > 0.9

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 2

# %% [markdown]
# **Question 4: which tokens count (2 points).** SparsePO weighs the tokens of a response. From the logits of policy and
# reference at every token, both `(T, V)`, the tokens $y^t$ that stand there and the weights, return two scalars:
#
# $$U(y)=\sum_t m_u^t\log\frac{\pi(y^t)}{\pi_{\mathrm{ref}}(y^t)},\qquad K(y)=\sum_t m_d^t\,\mathrm{KL}\big(\pi_{\mathrm{ref}}^t\,\|\,\pi^t\big).$$
#
# A response may be empty. Both models may forbid the same words at a token, by a logit of minus infinity; no token of
# the response is forbidden.

# %% [raw]
# BEGIN SOLUTION

# %%
def weighted(logits, ref_logits, tokens, m_u, m_d):
    """(T, V), (T, V), (T,), (T,) and (T,) to two scalars, U and K."""
    # BEGIN SOLUTION
    log_pi, log_ref = logits.log_softmax(1), ref_logits.log_softmax(1)
    ref = log_ref.exp()
    ratio = torch.where(ref > 0, log_ref - log_pi, torch.zeros_like(ref))
    place = torch.arange(len(tokens))
    return (m_u * (log_pi - log_ref)[place, tokens]).sum(), (m_d * (ref * ratio).sum(1)).sum()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: A token of weight 2 whose probability rises from 1/2 to 3/4 adds 2 log 1.5. The divergence averages over the reference, and the reference stands first in it.
""" # END TEST CONFIG
def test_one_token(env):
    import math
    torch, weighted = env["torch"], env["weighted"]
    logits, ref_logits = torch.tensor([[0.75, 0.25]]).log(), torch.zeros(1, 2)
    u, k = weighted(logits, ref_logits, torch.tensor([0]), torch.tensor([2.0]), torch.tensor([1.0]))
    assert abs(float(u) - 2 * math.log(1.5)) < 1e-5
    assert abs(float(k) - 0.5 * math.log(0.5 / 0.75) - 0.5 * math.log(0.5 / 0.25)) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Logits are not log-probabilities. Each row is normalized by its softmax, each token has its own weights, and an empty response adds 0 to both.
""" # END TEST CONFIG
def test_rows_and_nothing(env):
    torch, weighted = env["torch"], env["weighted"]
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    tokens = torch.tensor([3, 0, 6, 6, 2])
    m_u, m_d = torch.rand(5, generator=generator), torch.rand(5, generator=generator)
    u, k = weighted(a + 5, b - torch.arange(5)[:, None], tokens, m_u, m_d)
    p, q = a.softmax(1), b.softmax(1)
    assert abs(float(u) - sum(float(m_u[t] * (p[t, y] / q[t, y]).log()) for t, y in enumerate(tokens))) < 1e-4
    assert abs(float(k) - sum(float(m_d[t] * (q[t] * (q[t] / p[t]).log()).sum()) for t in range(5))) < 1e-4
    u, k = weighted(a[:0], b[:0], tokens[:0], m_u[:0], m_d[:0])
    assert float(u) == 0 and float(k) == 0, "an empty response"

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A word that both models forbid has probability 0 and adds nothing to the divergence, but minus infinity minus minus infinity is NaN. Leave out what the reference gives no probability.
""" # END TEST CONFIG
def test_forbidden(env):
    import math
    torch, weighted = env["torch"], env["weighted"]
    never = float("-inf")
    logits, ref_logits = torch.tensor([[math.log(3), 0.0, never]]), torch.tensor([[0.0, 0.0, never]])
    u, k = weighted(logits, ref_logits, torch.tensor([1]), torch.ones(1), torch.ones(1))
    assert abs(float(u) - math.log(0.5)) < 1e-5
    assert abs(float(k) - 0.5 * math.log(4 / 3)) < 1e-5

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q5
points: 2

# %% [markdown]
# **Question 5: on an equal footing (2 points).** Whoever spends more divergence from the reference can buy more
# preference with it. So chapter 10.2 compares runs *at equal divergence*. A run is a list of checkpoints `(divergence,
# preference)`, in the order of training; the divergence may fall again on the way, and no two checkpoints of a run have
# the same. Between two checkpoints that are neighbors in divergence the preference is a straight line. Return by how
# much the first run leads at divergence `at`, as a float: its preference minus that of the second. A run says nothing
# about a divergence below its lowest or above its highest; return NaN there.

# %% [raw]
# BEGIN SOLUTION

# %%
def lead(first, second, at):
    """Two lists of pairs of numbers and a number to a float."""
    # BEGIN SOLUTION
    def preference(run):
        run = sorted(run)
        if not run or not run[0][0] <= at <= run[-1][0]:
            return math.nan
        for (x, y), (next_x, next_y) in zip(run, run[1:]):
            if x <= at <= next_x:
                return y + (next_y - y) * (at - x) / (next_x - x)
        return run[0][1]  # a single checkpoint, exactly there

    return preference(first) - preference(second)
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: At divergence 1 the first run is half way between 60 and 80, the second one at 65. Compare there, not at the last checkpoints.
""" # END TEST CONFIG
def test_half_way(env):
    lead = env["lead"]
    first, second = [(0.0, 50.0), (0.5, 60.0), (1.5, 80.0)], [(0.0, 50.0), (1.0, 65.0), (4.0, 95.0)]
    assert abs(lead(first, second, 1.0) - 5) < 1e-6
    assert abs(lead(second, first, 0.0)) < 1e-6

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: The divergence of a run may rise and fall. Sort by divergence first; neighbors in training need not be neighbors in divergence. A run with one checkpoint knows its own divergence.
""" # END TEST CONFIG
def test_any_order(env):
    lead = env["lead"]
    first, second = [(0.0, 50.0), (2.0, 90.0), (1.0, 60.0)], [(0.5, 52.0)]
    assert abs(lead(first, second, 0.5) - 3) < 1e-6
    assert abs(lead(first, [(1.5, 70.0)], 1.5) - 5) < 1e-6
    assert first == [(0.0, 50.0), (2.0, 90.0), (1.0, 60.0)]

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A run that never spent so much says nothing about it. Library functions repeat the last value beyond the end, which makes the shorter run look settled; return NaN.
""" # END TEST CONFIG
def test_out_of_reach(env):
    import math
    lead = env["lead"]
    first, second = [(0.5, 50.0), (2.0, 90.0)], [(0.0, 50.0), (1.0, 65.0)]
    assert math.isnan(lead(first, second, 1.5)) and math.isnan(lead(first, second, 0.25))
    assert math.isnan(lead(second, first, 1.5)) and math.isnan(lead(first, [], 1.0))
    assert abs(lead(first, second, 1.0) - (50 + 40 / 3 - 65)) < 1e-6

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
