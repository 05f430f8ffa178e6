from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Some cosine is not that of its pair. By hand, (3, 4) and (0, 2) have 8 / (5 * 2). Is each row divided by its own length, and has the table one row for each row of a?")
def test_values(env):
    torch, cosine_table = (env['torch'], env['cosine_table'])
    a, b = (torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-5.0, 0.0], [1.0, 1.0]]))
    found = cosine_table(a, b)
    assert found.shape == (2, 3)
    assert torch.allclose(found[0], torch.tensor([0.8, -0.6, 7 / 50 ** 0.5]), atol=1e-06)

