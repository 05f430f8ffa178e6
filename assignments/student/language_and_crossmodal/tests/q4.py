from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Own share 0.5, others 0.4 and 0.1. The flat row has 0.5, 0.25 and 0.25, and 0.15 has moved. Is the table that came in left as it was?")
def test_one_row(env):
    torch, flat_control = (env['torch'], env['flat_control'])
    target = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]])
    before = target.clone()
    flat, moved = flat_control(target)
    assert torch.equal(target, before)
    assert torch.allclose(flat[0], torch.tensor([0.5, 0.25, 0.25]), atol=1e-06)
    assert torch.allclose(moved, torch.tensor([0.15, 0.0, 0.0]), atol=1e-06)

