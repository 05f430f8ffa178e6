from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 4

@test_case(points=2, hidden=False, 
    failure_message="Compare one anchor with the sum written out in a loop. Is the anchor itself left out of the denominator?")
def test_against_a_loop(env):
    torch, nt_xent_rows = (env['torch'], env['nt_xent_rows'])
    generator = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator))
    z = torch.nn.functional.normalize(torch.cat([z1, z2]), dim=1)
    found = nt_xent_rows(z1, z2, 0.5)
    assert found.shape == (6,)
    total = sum((torch.exp(z[0] @ z[j] / 0.5) for j in range(1, 6)))
    assert torch.allclose(found[0], -(z[0] @ z[3] / 0.5 - total.log()), atol=1e-05)

