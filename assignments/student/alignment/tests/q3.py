from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="At the start the chosen answer has to hold at least 0.4 and more than the others. For the fall, the vectors of chosen and rejected should be close, and the bystander should lie farther along their difference than the chosen one. With h at a right angle to that difference you can choose the start and the fall apart.")
def test_at_the_start(env):
    torch, displacing = (env['torch'], env['displacing'])
    W, h = displacing()
    assert W.shape == (3, 2) and h.shape == (2,)
    assert W.abs().max() <= 4 and h.abs().max() <= 4
    p = (W.double() @ h.double()).softmax(0)
    assert p[0] >= 0.4 and p[0] > p.max() - 1e-06, 'start'
    along = W.double() @ (W[0] - W[1]).double()
    assert along[2] > along[0], 'who lies farther along the difference?'

