from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Two samples are rivals only if no stage parted them, not only the last one; the other view of the anchor is always a candidate, the anchor itself never. Rows i and i + N are the two views of one sample.")
def test_two_stages(env):
    torch, candidates = (env['torch'], env['candidates'])
    found = candidates(torch.tensor([[0, 0, 1, 1], [2, 2, 2, 0]]))
    assert found.shape == (8, 8) and found.dtype == torch.bool
    assert found[0].nonzero()[:, 0].tolist() == [1, 4, 5]
    assert found[6].nonzero()[:, 0].tolist() == [2]

