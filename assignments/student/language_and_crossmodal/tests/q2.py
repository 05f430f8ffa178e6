from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Ranks 1, 2 and 3 have the mean reciprocal (1 + 1/2 + 1/3) / 3, which is not the reciprocal of the mean rank. The first place is 1, not 0.")
def test_three_ranks(env):
    torch, search_mrr = (env['torch'], env['search_mrr'])
    questions = torch.tensor([[4.0, 1.0, 0.0], [4.0, 1.0, 0.0], [4.0, 2.0, 1.0]])
    assert abs(search_mrr(questions, torch.eye(3)) - 11 / 18) < 1e-05

