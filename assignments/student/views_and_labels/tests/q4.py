from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Three equal rows with labels 0, 0 and 1. An anchor 0 sees its like with weight 1 and the label 1 with weight 2, so it pays log 3; the third row has no positive and is not in the mean.")
def test_three_rows(env):
    import math
    torch, ordered_loss = (env['torch'], env['ordered_loss'])
    found = ordered_loss(torch.ones(3, 2), torch.tensor([0.0, 0.0, 1.0]), 0.1)
    assert abs(float(found) - math.log(3)) < 1e-05

