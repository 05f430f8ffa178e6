from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Put your temperature back into the softmax and compute the divergence from uniform.")
def test_budget_is_spent(env):
    import math
    torch, find = (env['torch'], env['temperature_for_budget'])
    s = torch.tensor([0.9, 0.5, 0.1, -0.3, 0.0], dtype=torch.float64)
    p = (s / find(s, 0.5)).softmax(0)
    assert abs((p * (p * 5).log()).sum().item() - 0.5) < 0.01

