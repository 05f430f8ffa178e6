from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 3

@test_case(points=1, hidden=False, 
    failure_message="Points on a line have rank 1, yours have another one. Center first, divide the singular values (not their squares) by their sum, and mind the logarithm of a share of 0.")
def test_line(env):
    torch, rank_in_use = (env['torch'], env['rank_in_use'])
    line = torch.linspace(-1, 1, 20)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert abs(rank_in_use(line) - 1) < 0.01

