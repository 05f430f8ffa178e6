from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 1

@test_case(points=1, hidden=False, 
    failure_message="All candidates look alike, so the softmax is a fair guess among them. How many candidates has one of the 2n anchors, itself left out, and what does a fair guess cost?")
def test_collapse_value(env):
    from cl_teach.core import nt_xent
    torch, collapsed_loss = (env['torch'], env['collapsed_loss'])
    z = torch.ones(7, 3)
    assert abs(collapsed_loss(7) - nt_xent(z, z, 0.1).item()) < 1e-05

