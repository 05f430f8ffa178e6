from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Two classes of one size that spread alike both have the mean spread, so each gets e times the temperature. Is each spread divided by the mean of the spreads, inside exp?")
def test_alike(env):
    import math
    torch, class_temperatures = (env['torch'], env['class_temperatures'])
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = class_temperatures(z, torch.tensor([0, 0, 1, 1]), 2, 0.1)
    assert torch.allclose(found, torch.full((2,), 0.1 * math.e), atol=1e-05)

