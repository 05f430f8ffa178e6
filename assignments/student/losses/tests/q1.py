from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="With p equal to a single negative, q is a half and the loss is 0. The positive stands in the denominator of q, not in the sum of the loss.")
def test_even(env):
    torch, decoupled = (env['torch'], env['decoupled'])
    loss, q = decoupled(0.3, torch.tensor([0.3]), 0.1)
    assert abs(loss) < 1e-05 and abs(q - 0.5) < 1e-05

