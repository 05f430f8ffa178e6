from otter.test_files import test_case

OK_FORMAT = False

name = "q5"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="If every pair has a feature of its own, the bonus is gamma over the root of lambda plus its count. With lambda 1, three visits give gamma / 2 and none gamma.")
def test_counts(env):
    torch, bonus = (env['torch'], env['bonus'])
    found = bonus(torch.eye(2)[[0, 0, 0]], torch.eye(2), 1.0, 0.8, 10.0)
    assert torch.allclose(found.float(), torch.tensor([0.4, 0.8]), atol=1e-05)

