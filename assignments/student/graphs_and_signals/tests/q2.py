from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="The first user finds one of two held-out items among the first two, the second one of one. What was bought has the highest score and must not take a place.")
def test_two_users(env):
    torch, recall = (env['torch'], env['recall'])
    scores = torch.tensor([[9.0, 5.0, 4.0, 3.0], [1.0, 2.0, 9.0, 8.0]])
    bought = torch.tensor([[True, False, False, False], [False, False, True, True]])
    held_out = torch.tensor([[False, True, False, True], [True, False, False, False]])
    assert abs(recall(scores, bought, held_out, 2) - 0.75) < 1e-06

