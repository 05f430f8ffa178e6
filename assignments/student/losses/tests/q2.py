from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Half way between two orthogonal unit vectors lies a vector with both coordinates 0.707. Mix first, then scale to length one again.")
def test_half_way(env):
    torch, mixed_negative = (env['torch'], env['mixed_negative'])
    found = mixed_negative(torch.eye(3), 0, 1, 0.5)
    assert torch.allclose(found, torch.tensor([0.5 ** 0.5, 0.5 ** 0.5, 0.0]), atol=1e-05)

