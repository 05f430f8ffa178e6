from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 4

@test_case(points=1, hidden=False, 
    failure_message="Every row of the result is a distribution.")
def test_rows(env):
    torch, even_codes = (env['torch'], env['even_codes'])
    found = even_codes(torch.randn(6, 3), 0.5, 3)
    assert torch.allclose(found.sum(1), torch.ones(6), atol=1e-05)

@test_case(points=1, hidden=False, 
    failure_message="After many iterations each of the K columns holds B / K of the mass.")
def test_columns(env):
    torch, even_codes = (env['torch'], env['even_codes'])
    found = even_codes(torch.randn(12, 4), 0.5, 200)
    assert torch.allclose(found.sum(0), torch.full((4,), 3.0), atol=0.001)

