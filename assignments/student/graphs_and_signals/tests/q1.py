from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Equal scores, three nodes, two clusterings. Nodes 0 and 2 are apart twice, the other pairs once, so the denominators are 3, 2 and 3; the positive is not in them, since nobody is apart from itself.")
def test_equal_scores(env):
    import math
    torch, meow_contrast = (env['torch'], env['meow_contrast'])
    found = meow_contrast(torch.full((3, 3), 0.4), torch.tensor([[0, 0, 1], [0, 1, 1]]), 0.1)
    assert found.shape == ()
    assert abs(float(found) - (2 * math.log(3) + math.log(2)) / 3) < 1e-05

