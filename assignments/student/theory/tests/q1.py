from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="The shares of one anchor sum to 1; the ratio of two is exp of their difference over the temperature.")
def test_ratio(env):
    torch, shares = (env['torch'], env['shares'])
    found = shares(torch.tensor([[0.9, 0.4, 0.4]]), 0.25)
    assert abs(found.sum().item() - 1) < 1e-06
    assert abs((found[0, 0] / found[0, 1]).item() - torch.tensor(2.0).exp().item()) < 0.001

