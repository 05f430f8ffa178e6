from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 3

@test_case(points=1, hidden=False, 
    failure_message="Only the third coordinate is the same in both views, and your direction is another one. Is it the eigenvector of the largest eigenvalue of C, with its largest entry positive?")
def test_shared_coordinate(env):
    torch, first_feature = (env['torch'], env['first_feature'])
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4000, 1, generator=generator)
    x1, x2 = (torch.cat([torch.randn(4000, 2, generator=generator), shared], 1) for _ in range(2))
    w = first_feature(x1, x2)
    assert w.shape == (3,) and abs(w.norm().item() - 1) < 1e-05
    assert w[2] > 0.99

