from otter.test_files import test_case

OK_FORMAT = False

name = "q5"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Texts at (0, 1), pictures at (1, 0). Half of the gap brings the pictures to 45 degrees, all of it onto the texts. The gap is the difference of means, texts minus pictures.")
def test_half_way(env):
    torch, moved_pictures = (env['torch'], env['moved_pictures'])
    texts, pictures = (torch.tensor([[0.0, 1.0]]).repeat(3, 1), torch.tensor([[1.0, 0.0]]).repeat(3, 1))
    assert torch.allclose(moved_pictures(texts, pictures, 0.5), torch.full((3, 2), 0.5 ** 0.5), atol=1e-05)
    assert torch.allclose(moved_pictures(texts, pictures, 1.0), texts, atol=1e-05)

