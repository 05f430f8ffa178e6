from otter.test_files import test_case

OK_FORMAT = False

name = "q5"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="What positives do not share is forgotten. In which coordinates must the two views of a row differ as much as two strangers do, and in which must they agree?")
def test_pairs(env):
    torch, views = (env['torch'], env['redrawn_views'])
    from cl_teach.datasets import graded_factors
    points = graded_factors(512, seed=5).points
    before = points.clone()
    one, two = views(points, torch.Generator().manual_seed(0))
    assert one.shape == two.shape == (512, 60)
    assert torch.equal(points, before), 'the batch itself must not change; work on a copy'
    cosine = lambda a, b: torch.nn.functional.cosine_similarity(a, b, dim=1).mean().item()
    assert cosine(one[:, :20], two[:, :20]) < 0.5
    assert cosine(one[:, 20:40], two[:, 20:40]) > 0.5 and cosine(one[:, 40:], two[:, 40:]) > 0.4

