from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="A token of weight 2 whose probability rises from 1/2 to 3/4 adds 2 log 1.5. The divergence averages over the reference, and the reference stands first in it.")
def test_one_token(env):
    import math
    torch, weighted = (env['torch'], env['weighted'])
    logits, ref_logits = (torch.tensor([[0.75, 0.25]]).log(), torch.zeros(1, 2))
    u, k = weighted(logits, ref_logits, torch.tensor([0]), torch.tensor([2.0]), torch.tensor([1.0]))
    assert abs(float(u) - 2 * math.log(1.5)) < 1e-05
    assert abs(float(k) - 0.5 * math.log(0.5 / 0.75) - 0.5 * math.log(0.5 / 0.25)) < 1e-05

