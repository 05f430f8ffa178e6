from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="At the reference the loss is log 2 and the push beta / 2, whatever the probabilities. What the reference prefers already is taken off the gap.")
def test_at_the_reference(env):
    import math
    torch, dpo = (env['torch'], env['dpo'])
    chosen, rejected = (torch.tensor([-3.0, -40.0]), torch.tensor([-9.0, -2.0]))
    loss, push = dpo(chosen, rejected, chosen, rejected, 0.3)
    assert torch.allclose(loss, torch.full((2,), math.log(2)), atol=1e-05)
    assert torch.allclose(push, torch.full((2,), 0.15), atol=1e-05)

