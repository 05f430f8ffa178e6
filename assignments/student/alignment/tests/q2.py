from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="The chosen answer holds 5 %, the rejected one 60 %. What is taken from the rejected is more than the chosen takes up, and the rest is spread over all others; with the roles exchanged they pay.")
def test_both_ways(env):
    torch, who_moves = (env['torch'], env['who_moves'])
    pi = torch.tensor([0.05, 0.6, 0.2, 0.15])
    assert who_moves(pi, 0, 1).tolist() == [1, -1, 1, 1]
    assert who_moves(pi, 1, 0).tolist() == [-1, 1, -1, -1]

