# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Assignment 5: words and pictures
#
# After chapters 6.2, 6.3, 7.1 and 7.2. Five questions, 10 points, about two hours. Write your functions between the
# markers, run the cell below each to see the public tests, and hand in this notebook (File > Download > .ipynb). More
# tests than you see here are run when it is graded; they are about degenerate input, which the chapters talk about. If
# several tests of a question fail, begin with the first: the others may fail for the same reason.

# %% [raw]
# BEGIN QUESTION
name: q1
points: 2

# %% [markdown]
# **Question 1: does a text repeat itself (2 points).** With the runs of $n$ words of a text, its $n$-grams,
#
# $$\mathrm{rep}_n=1-\frac{\#\text{different }n\text{-grams}}{\#\,n\text{-grams}},\qquad\text{diversity}=\prod_{n=2}^4(1-\mathrm{rep}_n).$$
#
# Return the diversity of a list of words as a float. A word is anything that can be compared, a string or the number of
# a token. A text of fewer than $n$ words has no $n$-gram and repeats none.

# %% [raw]
# BEGIN SOLUTION

# %%
def diversity(words):
    """A list of words to a float in (0, 1]."""
    # BEGIN SOLUTION
    product = 1.0
    for n in (2, 3, 4):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if grams:
            product *= len(set(grams)) / len(grams)
    return product
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: The text a b a b a b has 2 different of 5 pairs, 2 of 4 triples and 2 of 3 quadruples. Multiply the shares of different ones; the last n-gram of the text counts, too.
""" # END TEST CONFIG
def test_by_hand(env):
    assert abs(env["diversity"](["a", "b"] * 3) - 2 / 5 * 2 / 4 * 2 / 3) < 1e-6

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A text of three words has no run of four, and 0 divided by 0 is not a diversity. Nothing is repeated in it, so the factor is 1.
""" # END TEST CONFIG
def test_short(env):
    diversity = env["diversity"]
    assert diversity([]) == 1 and diversity(["a"]) == 1
    assert abs(diversity(["a", "a", "a"]) - 0.5) < 1e-6

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Two different runs must stay different. Tokens 1 and 11 written side by side look like 11 and 1, and words may hold a space. Compare tuples, not joined strings.
""" # END TEST CONFIG
def test_words_are_not_letters(env):
    diversity = env["diversity"]
    assert diversity([1, 11, 1]) == 1
    assert diversity(["a b", "c", "a", "b c"]) == 1
    assert abs(diversity([7] * 20000) - 1 / (19999 * 19998 * 19997)) < 1e-15

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q2
points: 2

# %% [markdown]
# **Question 2: where does the right one stand (2 points).** Question $i$ looks for code $i$ among all $n$, by cosine.
# The rank of the right one is 1 plus the number of codes that score higher. Codes that score *exactly as high* count
# one half each: that is the place which a fair draw among equals gives on average, and a search that answers everything
# alike must not look good. Return the mean reciprocal rank (MRR) as a float. A row of zeros has the cosine 0 with
# everything.

# %% [raw]
# BEGIN SOLUTION

# %%
def search_mrr(questions, codes):
    """Two (n, d) tensors of any lengths to a float."""
    # BEGIN SOLUTION
    unit = torch.nn.functional.normalize
    scores = unit(questions, dim=1) @ unit(codes, dim=1).T
    right = scores.diagonal()[:, None]
    equal = (scores == right).sum(1) - 1  # without itself
    rank = 1 + (scores > right).sum(1) + equal / 2
    return (1 / rank).mean().item()
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Ranks 1, 2 and 3 have the mean reciprocal (1 + 1/2 + 1/3) / 3, which is not the reciprocal of the mean rank. The first place is 1, not 0.
""" # END TEST CONFIG
def test_three_ranks(env):
    torch, search_mrr = env["torch"], env["search_mrr"]
    questions = torch.tensor([[4.0, 1.0, 0.0], [4.0, 1.0, 0.0], [4.0, 2.0, 1.0]])
    assert abs(search_mrr(questions, torch.eye(3)) - 11 / 18) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A search by cosine looks at directions. A long code is not a better code; divide both sides by their lengths.
""" # END TEST CONFIG
def test_lengths(env):
    torch, search_mrr = env["torch"], env["search_mrr"]
    questions = torch.tensor([[4.0, 1.0, 0.0], [4.0, 1.0, 0.0], [4.0, 2.0, 1.0]])
    codes = torch.diag(torch.tensor([1.0, 0.125, 64.0]))
    assert abs(search_mrr(questions, codes) - 11 / 18) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: If five codes are equal the right one stands third on average; counting only higher scores makes it first, counting all equal ones makes it last, sorting gives it the place of its number. And what is the cosine with a row of zeros?
""" # END TEST CONFIG
def test_ties(env):
    torch, search_mrr = env["torch"], env["search_mrr"]
    same = torch.tensor([[1.0, 0.0]]).repeat(5, 1)
    assert abs(search_mrr(same, same) - 1 / 3) < 1e-5, "five equal codes"
    assert abs(search_mrr(torch.zeros(3, 2), torch.eye(3)[:, :2]) - 1 / 2) < 1e-5, "questions of zeros"
    codes = torch.eye(4)[[0, 0, 2, 3]]
    assert abs(search_mrr(torch.eye(4)[[0, 0, 2, 3]], codes) - (2 / 1.5 + 2) / 4) < 1e-5, "one pair of copies"

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q3
points: 2

# %% [markdown]
# **Question 3: six names for one picture (2 points).** The 1-to-K loss puts all $K$ names $t_{ik}$ of the $N$ pictures
# $v_i$ into the batch. With everything scaled to length one,
#
# $$\mathcal L_{v\to t} = -\frac1{NK}\sum_{i,k}\log\frac{e^{v_i^\top t_{ik}/\tau}}{\sum_{j,l}e^{v_i^\top t_{jl}/\tau}},\qquad \mathcal L_{t\to v} = -\frac1{NK}\sum_{i,k}\log\frac{e^{v_i^\top t_{ik}/\tau}}{\sum_{j}e^{v_j^\top t_{ik}/\tau}}.$$
#
# Return the mean of the two as a scalar tensor. It has to work at $\tau=0.005$.

# %% [raw]
# BEGIN SOLUTION

# %%
def one_to_k_loss(pictures, names, temperature):
    """(N, d) and (N, K, d) of any lengths and a number to a scalar."""
    # BEGIN SOLUTION
    v = torch.nn.functional.normalize(pictures, dim=1)
    t = torch.nn.functional.normalize(names, dim=2)
    logits = torch.einsum("id,jkd->ijk", v, t) / temperature
    own = logits[torch.arange(len(v)), torch.arange(len(v))]  # (N, K)
    to_names = (logits.flatten(1).logsumexp(1)[:, None] - own).mean()
    to_pictures = (logits.logsumexp(0) - own).mean()
    return (to_names + to_pictures) / 2
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: With all embeddings equal a picture guesses among N K names and a name among N pictures, so the two directions cost log(N K) and log N. The loss is the mean of the two.
""" # END TEST CONFIG
def test_all_equal(env):
    import math
    torch, one_to_k_loss = env["torch"], env["one_to_k_loss"]
    found = one_to_k_loss(torch.ones(3, 4), torch.ones(3, 2, 4), 0.1)
    assert abs(float(found) - (math.log(6) + math.log(3)) / 2) < 1e-5

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Perfect embeddings at temperature 0.005. The names of a picture share its softmax and stay in the denominator, so one direction costs log K and the other nothing; with exp instead of logsumexp there is NaN.
""" # END TEST CONFIG
def test_perfect_and_cold(env):
    import math
    torch, one_to_k_loss = env["torch"], env["one_to_k_loss"]
    v = 3 * torch.eye(4)
    found = one_to_k_loss(v, v[:, None].repeat(1, 6, 1), 0.005)
    assert abs(float(found) - math.log(6) / 2) < 1e-3

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Which names belong to which picture? The table of names is picture by language; flattened in the other order a batch trains on wrong pairs and nothing complains. From a name, the rivals are pictures, not other names. With one name each the loss is CLIP's.
""" # END TEST CONFIG
def test_against_loops(env):
    torch, one_to_k_loss = env["torch"], env["one_to_k_loss"]
    generator = torch.Generator().manual_seed(0)
    v, t = torch.randn(4, 5, generator=generator), torch.randn(4, 3, 5, generator=generator)
    from cl_teach.core import clip_loss
    one = one_to_k_loss(v, t[:, :1], 0.5)
    assert abs(float(one) - float(clip_loss(v, t[:, 0], torch.tensor(2.0).log()))) < 1e-4, "one name each"
    u, w = torch.nn.functional.normalize(v, dim=1), torch.nn.functional.normalize(t, dim=2)
    e = lambda i, j, k: torch.exp(u[i] @ w[j, k] / 0.5)
    total = 0.0
    for i in range(4):
        for k in range(3):
            total -= torch.log(e(i, i, k) / sum(e(i, j, l) for j in range(4) for l in range(3)))
            total -= torch.log(e(i, i, k) / sum(e(j, i, k) for j in range(4)))
    assert abs(float(one_to_k_loss(v, t, 0.5)) - float(total) / 24) < 1e-4

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q4
points: 2

# %% [markdown]
# **Question 4: similar, or merely soft (2 points).** CWCL's target $\bar w$ gives sample $i$ itself the share
# $\bar w_{ii}$ and spreads the rest by similarity. Build the control: the *flat* target, in which every sample keeps
# its own share and all others of its row get equal parts of the rest. Return the pair (flat target, mass moved), where
# the second is a tensor `(N,)`: the mass that would have to be carried from one place to another to turn a row of
# $\bar w$ into the flat one, $\frac12\sum_j|\bar w_{ij}-\text{flat}_{ij}|$.

# %% [raw]
# BEGIN SOLUTION

# %%
def flat_control(target):
    """(N, N) rows that sum to 1 to (N, N) and (N,)."""
    # BEGIN SOLUTION
    n = len(target)
    own = target.diagonal()
    flat = ((1 - own) / max(n - 1, 1))[:, None].repeat(1, n)
    flat[range(n), range(n)] = own
    return flat, (target - flat).abs().sum(1) / 2
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Own share 0.5, others 0.4 and 0.1. The flat row has 0.5, 0.25 and 0.25, and 0.15 has moved. Is the table that came in left as it was?
""" # END TEST CONFIG
def test_one_row(env):
    torch, flat_control = env["torch"], env["flat_control"]
    target = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]])
    before = target.clone()
    flat, moved = flat_control(target)
    assert torch.equal(target, before)
    assert torch.allclose(flat[0], torch.tensor([0.5, 0.25, 0.25]), atol=1e-6)
    assert torch.allclose(moved, torch.tensor([0.15, 0.0, 0.0]), atol=1e-6)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: A control changes one thing only. Each row keeps its own share, its own rest and the sum 1; an average over the batch would change softness as well.
""" # END TEST CONFIG
def test_rows_keep_their_mass(env):
    torch, flat_control = env["torch"], env["flat_control"]
    target = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).square()
    target = target / target.sum(1, keepdim=True)
    flat, _ = flat_control(target)
    assert torch.allclose(flat.sum(1), torch.ones(6), atol=1e-5)
    assert torch.allclose(flat.diagonal(), target.diagonal(), atol=1e-6)
    rest = flat[~torch.eye(6, dtype=torch.bool)].view(6, 5)
    assert torch.allclose(rest, rest[:, :1].repeat(1, 5), atol=1e-6)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: In a batch of one there are no others to share the rest, and dividing by N - 1 divides by 0. The row stays as it is.
""" # END TEST CONFIG
def test_alone(env):
    torch, flat_control = env["torch"], env["flat_control"]
    flat, moved = flat_control(torch.ones(1, 1))
    assert torch.equal(flat, torch.ones(1, 1)) and torch.equal(moved, torch.zeros(1))

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION

# %% [raw]
# BEGIN QUESTION
name: q5
points: 2

# %% [markdown]
# **Question 5: closing the gap (2 points).** The texts $\hat n_i$ and the pictures $\hat x_i$ of a trained model have
# length one, and between their means lies the gap $\Delta=\frac1N\sum_i\hat n_i-\frac1N\sum_i\hat x_i$.
#
# 1. Return the pictures moved by a share of $\Delta$ and scaled to length one again. A moved picture may be the zero
#    vector; it stays zero.
# 2. A picture asks, and all texts are ranked by their dot product with it. Predict first, on paper: which of these can
#    change *which text comes first* for some picture? Then try each on random unit vectors, and return `True` or
#    `False` for each key: `"texts shifted"` (one vector is added to all texts), `"pictures shifted"` (one vector is
#    added to all pictures), `"texts doubled"`, `"warmer"` (scores are divided by a ten times larger temperature),
#    `"texts shifted and scaled"` (shifted, then each text is scaled to length one again). And under the key
#    `"threshold"`: can adding one vector to all texts change which pairs score above 0.5?

# %% [raw]
# BEGIN SOLUTION

# %%
def moved_pictures(texts, pictures, share):
    """Two (N, d) tensors of unit rows and a number to (N, d)."""
    # BEGIN SOLUTION
    gap = texts.mean(0) - pictures.mean(0)
    return torch.nn.functional.normalize(pictures + share * gap, dim=1)
    # END SOLUTION

# %%
def can_change():
    """A dict with the six keys of the question and True or False."""
    # BEGIN SOLUTION
    return {
        "texts shifted": False,
        "pictures shifted": True,
        "texts doubled": False,
        "warmer": False,
        "texts shifted and scaled": True,
        "threshold": True,
    }
    # END SOLUTION

# %% [raw]
# END SOLUTION

# %% [raw]
# BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
failure_message: Texts at (0, 1), pictures at (1, 0). Half of the gap brings the pictures to 45 degrees, all of it onto the texts. The gap is the difference of means, texts minus pictures.
""" # END TEST CONFIG
def test_half_way(env):
    torch, moved_pictures = env["torch"], env["moved_pictures"]
    texts, pictures = torch.tensor([[0.0, 1.0]]).repeat(3, 1), torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    assert torch.allclose(moved_pictures(texts, pictures, 0.5), torch.full((3, 2), 0.5**0.5), atol=1e-5)
    assert torch.allclose(moved_pictures(texts, pictures, 1.0), texts, atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Texts opposite to the pictures and half of the gap. Every moved picture is the zero vector, and dividing by its length gives NaN. It should stay zero.
""" # END TEST CONFIG
def test_opposite(env):
    torch, moved_pictures = env["torch"], env["moved_pictures"]
    pictures = torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    assert torch.equal(moved_pictures(-pictures, pictures, 0.5), torch.zeros(2, 2))

# %%
""" # BEGIN TEST CONFIG
points: 0.5
hidden: true
failure_message: Write the score of text j for picture i before and after each change. What is the same for all texts of a row cannot change their order, but it can carry scores over a threshold. Is a shift of the query the same for all candidates?
""" # END TEST CONFIG
def test_what_can_change(env):
    assert env["can_change"]() == {
        "texts shifted": False, "pictures shifted": True, "texts doubled": False, "warmer": False,
        "texts shifted and scaled": True, "threshold": True,
    }

# %% [raw]
# END TESTS

# %% [raw]
# END QUESTION
