from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 3

@test_case(points=1, hidden=False, 
    failure_message="Two opposite points have the squared distance 4, so the alignment is 4 and the uniformity -8. Squares, a mean over rows, and the logarithm outside of the mean?")
def test_by_hand(env):
    torch, both = (env['torch'], env['alignment_and_uniformity'])
    z1 = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = both(z1, z1.flip(0))
    assert abs(found[0] - 4) < 1e-05
    assert abs(found[1] + 8) < 0.0001

