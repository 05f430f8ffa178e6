from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 4

@test_case(points=1, hidden=False, 
    failure_message="Some row does not sum to 1. Every iteration ends with the rows, and at the very end all is multiplied by B.")
def test_rows(env):
    torch, even_codes = (env['torch'], env['even_codes'])
    found = even_codes(torch.randn(6, 3), 0.5, 3)
    assert torch.allclose(found.sum(1), torch.ones(6), atol=1e-05)

@test_case(points=1, hidden=False, 
    failure_message="After many iterations each of the K columns holds B / K of the mass; yours are uneven. Is a column divided by its sum times K, and does every iteration start from the last one?")
def test_columns(env):
    torch, even_codes = (env['torch'], env['even_codes'])
    found = even_codes(torch.randn(12, 4), 0.5, 200)
    assert torch.allclose(found.sum(0), torch.full((4,), 3.0), atol=0.001)

